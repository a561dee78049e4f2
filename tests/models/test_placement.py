"""Names of dtypes and devices: understood, or refused in one line before anything is touched."""

import pytest
import torch
from tiny import BACKENDS, tiny_hf_model, tiny_tokenizer

import clas_lens as cl
from clas_lens.models.placement import parse_device, parse_dtype


@pytest.mark.parametrize("name", ["bfloat16", "bf16", "torch.bfloat16", torch.bfloat16])
def test_dtypes_by_name(name):
    assert parse_dtype(name) == torch.bfloat16


@pytest.mark.parametrize("name", ["auto", "int8", torch.int8, "", 16, object()])
def test_other_dtypes_are_refused_in_one_line(name):
    with pytest.raises(cl.ModelLoadError, match=r"^dtype .*: expected torch\.float32[^\n]*$"):
        parse_dtype(name)


@pytest.mark.parametrize("name", ["auto", "balanced", "gpu", "", "meta", "mps", "cuda:99", "xla", 0])
def test_devices_that_are_not_here_are_refused_in_one_line(name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(cl.ModelLoadError, match=r"^device [^\n]*$"):
        parse_device(name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dtype_by_name_makes_a_copy_and_a_refusal_changes_nothing(backend):
    hf_model = tiny_hf_model("llama")
    tokenizer = tiny_tokenizer(bos=True)
    model = cl.load_model(hf_model, backend=backend, dtype="bf16", tokenizer=tokenizer)
    assert model.W_U.dtype == torch.bfloat16
    assert hf_model.dtype == torch.float32
    lens = cl.load_model(hf_model, backend=backend, tokenizer=tokenizer)
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        before = lens(tokens)
        for wrong in ({"dtype": "int8"}, {"device": "gpu"}, {"device": "meta"}):
            with pytest.raises(cl.ModelLoadError):
                cl.load_model(lens, **wrong)
        assert torch.equal(lens(tokens), before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "got None of type NoneType"),
        (5, "got 5 of type int"),
        ("", "got an empty name"),
        (torch.nn.Linear, "got the class Linear"),
        (tiny_hf_model("llama").config, "got a LlamaConfig: a configuration has no weights"),
        (torch.nn.Linear(2, 2), r"got a Linear\. Unwrap it first"),
        ({}, "got a dict"),
    ],
)
def test_what_is_no_model_is_told_in_one_line(name, message):
    with pytest.raises(cl.ModelLoadError, match=message):
        cl.load_model(name)
