"""The probe sees what a conversion gets wrong, lets float error pass, and leaves the model as it was."""

import copy

import pytest
import torch
from tiny import BACKEND, BACKENDS, FAMILIES, assert_no_hooks, needs_hooked, tiny_hf_model, tiny_tokenizer
from transformers import CohereConfig, CohereForCausalLM

import clas_lens as cl
from clas_lens.models.probe import check_parity, down_projections, probe_tokens, take_reference

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_float_error_of_small_dtypes_passes(family, backend, dtype):
    hf_model = tiny_hf_model(family).to(dtype)
    model = cl.load_model(hf_model, backend=backend, tokenizer=tiny_tokenizer(bos=True))
    assert cl.models.describe_model(model)["checked"]


@needs_hooked  # 4.3's is right
def test_cohere_is_refused_on_the_bridge():
    """TransformerLens computes it otherwise from the second position on."""
    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=600,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.15,
        pad_token_id=0,
    )
    hf_model = CohereForCausalLM(config).eval()
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        before = hf_model(tokens).logits
        with pytest.raises(
            cl.ModelLoadError, match=r"does not compute what the Transformers model computes: .* off by up to"
        ):
            cl.load_model(hf_model, backend="bridge", tokenizer=tiny_tokenizer(bos=True))
        assert torch.equal(hf_model(tokens).logits, before)
        unchecked = cl.load_model(hf_model, backend="bridge", tokenizer=tiny_tokenizer(bos=True), check=False)
        assert not cl.models.describe_model(unchecked)["checked"]
        assert torch.equal(hf_model(tokens).logits, before)


CHANGES = {
    "layer 2": lambda model: model.blocks[2].mlp.W_gate.mul_(1.1),
    "logits": lambda model: model.unembed.W_U[:, 3].add_(1.0),
    "layer 1": lambda model: model.blocks[0].mlp.W_out.mul_(1.2),
}


@pytest.mark.parametrize("where", list(CHANGES))
def test_what_differs_is_named_by_its_place(where):
    hf_model = tiny_hf_model("llama")
    reference = take_reference(hf_model)
    model = cl.load_model(copy.deepcopy(hf_model), tokenizer=tiny_tokenizer(bos=True))
    CHANGES[where](model)
    with pytest.raises(cl.ModelLoadError, match=rf"{where} are off by up to .* allowed in float32"):
        check_parity(model, reference)


def test_wrong_positions_of_padded_rows_are_seen(lens_models, hf_models, monkeypatch):
    model = lens_models["llama", BACKEND]
    reference = take_reference(hf_models["llama"])
    check_parity(model, reference)
    monkeypatch.setattr("clas_lens.models.probe._left_padded", unmasked(reference))
    with pytest.raises(cl.ModelLoadError, match="layer 0|layer 1|layer 2"):
        check_parity(model, reference)


def unmasked(reference):
    from clas_lens.models import probe

    padded = probe._left_padded

    def all_ones(*args):
        tokens, mask = padded(*args)
        return tokens, torch.ones_like(mask)

    return all_ones


def test_the_reference_leaves_nothing_behind():
    hf_model = tiny_hf_model("gemma3").train()
    hf_model.model.layers[1].eval()
    state = torch.random.get_rng_state()
    take_reference(hf_model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert hf_model.training
    assert not hf_model.model.layers[1].training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in hf_model.modules())
    assert all(p.requires_grad and p.grad is None for p in hf_model.parameters())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loaded_model_has_no_hooks_and_the_object_is_as_it_was(backend):
    hf_model = tiny_hf_model("qwen2")
    names = [name for name, _ in hf_model.named_modules()]
    model = cl.load_model(hf_model, backend=backend, tokenizer=tiny_tokenizer(bos=False))
    assert_no_hooks(model)
    assert [name for name, _ in hf_model.named_modules()] == names
    assert all(p.requires_grad for p in hf_model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hf_model.modules())
    shared = {p.data_ptr() for p in hf_model.parameters()}
    assert any(p.data_ptr() in shared for p in model.parameters())


@needs_hooked
def test_objects_of_transformer_lens_are_recorded_as_unchecked():
    from clas_lens.models.hooked import to_hooked_transformer

    model = to_hooked_transformer(tiny_hf_model("llama"), None, name="own")
    assert cl.load_model(model) is model
    assert not cl.models.describe_model(model)["checked"]


def test_a_model_without_a_known_down_projection_says_how_to_go_on():
    hf_model = tiny_hf_model("llama")
    hf_model.model.layers[1].mlp.second = torch.nn.Module()
    hf_model.model.layers[1].mlp.second.down_proj = torch.nn.Linear(2, 2)
    with pytest.raises(cl.ModelLoadError, match=r"cannot be checked against Transformers.*check=False"):
        down_projections(hf_model)


@needs_hooked
def test_the_coverage_table_names_what_messages_call_exact():
    """Never wrong; and what `hooked.py` says of a bridge is what was measured."""
    import json
    from pathlib import Path

    from clas_lens.models.hooked import EXACT_BRIDGES

    rows = json.loads((Path(__file__).parents[2] / "benchmarks/results/coverage-cpu.json").read_text())["rows"]
    assert len(rows) >= 25
    assert {row[backend] for row in rows for backend in BACKENDS} <= {"exact", "refused"}
    assert {row["class"] for row in rows if row["bridge"] == "exact"} == EXACT_BRIDGES


def test_a_model_with_several_ends_is_checked():
    """As the configuration of Llama 3.1 Instruct has."""
    hf_model = tiny_hf_model("llama")
    plain = probe_tokens(hf_model)
    hf_model.config.eos_token_id = [2, int(plain[0][1]), int(plain[1][2])]
    rows = probe_tokens(hf_model)
    assert not set(hf_model.config.eos_token_id) & {int(token) for row in rows for token in row}
    model = cl.load_model(hf_model, tokenizer=tiny_tokenizer(bos=True))
    assert cl.models.describe_model(model)["checked"]
