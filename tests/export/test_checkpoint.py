"""A steered folder answers, in plain transformers, as `steer` does; and everything that is not steered stays to the byte."""

import importlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import clas_lens as cl

KINDS = ("llama", "qwen2", "gemma3", "phi3", "gpt2")


def weights(folder):
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_alone_gives_the_steered_logits(kind, sources, masks, tmp_path, probes, steered_logits):
    out = cl.export.checkpoint(masks, language="de", source=sources(kind), out=tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(probes).logits, steered_logits(sources(kind), masks), atol=3e-5, rtol=1e-4)
    parity = json.loads((out / "parity.json").read_text())
    assert parity["passed"]
    assert parity["largest_difference"] < 1e-3 * parity["largest_steering"]
    assert parity["kl"] < 1e-4 * parity["kl_steering"]
    assert parity["same_top"] == 1.0
    assert AutoTokenizer.from_pretrained(out).chat_template


@pytest.mark.parametrize(
    ("kind", "tensor", "axis", "first"),
    [
        ("llama", "model.layers.{}.mlp.up_proj.weight", 0, 0),
        ("phi3", "model.layers.{}.mlp.gate_up_proj.weight", 0, 48),
        ("gpt2", "transformer.h.{}.mlp.c_proj.weight", 0, 0),  # Conv1D: [neuron, d_model]
    ],
)
def test_only_these_weights_change(kind, tensor, axis, first, sources, any_factors, tmp_path):
    out = cl.export.checkpoint(any_factors, language="de", source=sources(kind), out=tmp_path / "out")
    before, after = weights(sources(kind)), weights(out)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {tensor.format(layer) for layer in (0, 2)}
    for layer, factor in any_factors.factor.items():
        old, new = before[tensor.format(layer)], after[tensor.format(layer)]
        assert torch.equal(old[:first], new[:first])
        torch.testing.assert_close(new[first:], (old[first:].double() * factor[:, None]).float(), rtol=0, atol=0)


def test_shards_without_steered_layers_are_the_source_s_own(sources, any_factors, tmp_path):
    source = sources("llama")
    out = cl.export.checkpoint(any_factors, language="de", source=source, out=tmp_path / "out")
    shards = sorted(source.glob("*.safetensors"))
    linked = [file for file in shards if file.samefile(out / file.name)]
    assert 0 < len(linked) < len(shards)
    before = {file.name: file.read_bytes() for file in shards}
    assert before == {file.name: file.read_bytes() for file in shards}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types_stay(dtype, sources, masks, tmp_path):
    source = tmp_path / "half"
    model = AutoModelForCausalLM.from_pretrained(sources("llama"), dtype=dtype)
    model.save_pretrained(source)
    AutoTokenizer.from_pretrained(sources("llama")).save_pretrained(source)
    out = cl.export.checkpoint(masks, language="de", source=source, out=tmp_path / "out")
    assert {value.dtype for value in weights(out).values()} == {dtype}
    parity = json.loads((out / "parity.json").read_text())
    assert parity["precision"] == ("BF16" if dtype == torch.bfloat16 else "F16")


def test_sources_by_object_and_by_preset_name(sources, masks, tmp_path):
    folder = sources("llama")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    outs = [
        cl.export.checkpoint(masks, language="de", source=source, out=tmp_path / f"out{place}")
        for place, source in enumerate([folder, str(folder), plain, cl.load_model(folder)])
    ]
    first = weights(outs[0])
    for out in outs[1:]:
        assert all(torch.equal(value, first[name]) for name, value in weights(out).items())
    with pytest.raises(cl.ExportError, match="which model"):
        cl.export.checkpoint(masks, language="de", out=tmp_path / "nameless")


def test_a_wrong_export_fails_and_leaves_nothing(sources, masks, tmp_path, monkeypatch):
    module = importlib.import_module("clas_lens.export.checkpoint")  # on the folder this name is the function
    monkeypatch.setattr(module, "apply_fold", lambda *arguments: None)
    with pytest.raises(cl.ExportError, match=r"differs from steer beyond its tolerance and was removed"):
        cl.export.checkpoint(masks, language="de", source=sources("llama"), out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused(sources, masks, any_factors, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    with pytest.raises(cl.ExportError, match="exists already"):
        cl.export.checkpoint(masks, language="de", source=sources("llama"), out=tmp_path / "there")
    any_factors.factor[0] = torch.full((48,), 1e39, dtype=torch.float64)
    with pytest.raises(cl.ExportError, match="overflows F32"):
        cl.export.checkpoint(any_factors, language="de", source=sources("llama"), out=tmp_path / "large")
    any_factors.factor[0] = torch.full((40,), 2.0, dtype=torch.float64)
    with pytest.raises(cl.ExportError, match="factors are of 40 neurons"):
        cl.export.checkpoint(any_factors, language="de", source=sources("llama"), out=tmp_path / "narrow")


def test_quantised_and_unknown_weights_are_refused_by_name(sources, masks, tmp_path):
    from clas_lens.export.checkpoint import plan_folds

    scale = cl.export.factors(masks, "de")
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}})
    )
    with pytest.raises(cl.ExportError, match="has no .*safetensors"):
        plan_folds(folder, scale)
    (folder / "config.json").write_text(json.dumps({"model_type": "mixtral"}))
    save_file({"model.layers.1.block_sparse_moe.gate.weight": torch.ones(2, 2)}, folder / "model.safetensors")
    with pytest.raises(cl.ExportError, match=r"layer 1 of this 'mixtral' model: it has block_sparse_moe.gate.weight"):
        plan_folds(folder, scale)


def test_the_card_says_what_it_is_and_is_not(sources, masks, tmp_path):
    out = cl.export.checkpoint(masks, language="de", source=sources("llama"), out=tmp_path / "out")
    card = (out / "README.md").read_text()
    assert card.startswith("---\nbase_model: ")
    for wanted in (
        'language: ["de"]',
        "every input",
        "(en) too",
        "detect_languages",
        "alpha: `-3.0`",
        "## Caution",
        "nats",
    ):
        assert wanted in card
    facts = json.loads((out / "steering.json").read_text())
    assert facts["fingerprint"] == masks.fingerprint()
    assert facts["languages"] == ["de"]
