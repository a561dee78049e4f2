"""IA3 adapters and LoRAs, loaded by peft as users do, answer as `steer` does."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import clas_lens as cl

peft = pytest.importorskip("peft", reason="needs the extra peft")
KINDS = ("llama", "qwen2", "gemma3", "phi3", "gpt2")


def plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@pytest.mark.parametrize("kind", KINDS)
def test_one_adapter_a_language(kind, sources, small_cats, masks, tmp_path, probes, steered_logits):
    out = cl.export.adapter(masks, languages=("de", "sw"), source=sources(kind), out=tmp_path / "out")
    base = plain(sources(kind))
    with torch.no_grad():
        unsteered = base(probes).logits
        model = peft.PeftModel.from_pretrained(base, out / "de", adapter_name="de")
        model.load_adapter(out / "sw", adapter_name="sw")
        model.set_adapter("de")
        found = model.eval()(probes).logits
        with model.disable_adapter():
            assert torch.equal(model(probes).logits, unsteered)
    torch.testing.assert_close(found, steered_logits(sources(kind), masks), atol=3e-5, rtol=1e-4)


def test_adapters_differ_where_the_languages_do(sources, small_cats, tmp_path):
    """Layer 1's name ends like layer 11's would: names are full."""
    clas = cl.Clas(small_cats, layers=(1, 4), alpha=-2.0, specific="current")
    out = cl.export.adapter(clas, languages=("de", "zh"), source=sources("llama"), out=tmp_path / "out")
    tensors = {code: load_file(out / code / "adapter_model.safetensors") for code in ("de", "zh")}
    for code, found in tensors.items():
        assert set(found) == {f"base_model.model.model.layers.{layer}.mlp.down_proj.ia3_l" for layer in (1, 4)}
        for layer, factor in clas.scale(code).items():
            torch.testing.assert_close(
                found[f"base_model.model.model.layers.{layer}.mlp.down_proj.ia3_l"],
                factor.float()[None],
                rtol=0,
                atol=0,
            )
    config = json.loads((out / "de" / "adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == [f"model.layers.{layer}.mlp.down_proj" for layer in (1, 4)]
    assert sorted(config["feedforward_modules"]) == sorted(config["target_modules"])


def test_any_strength_after_the_fact(sources, masks, tmp_path, probes, steered_logits):
    """What the guide shows: a second adapter of ones, and a weighted sum: (1 - w) * 1 + w * s is the factor at w times
    alpha.
    """
    from dataclasses import replace

    out = cl.export.adapter(masks, languages=("de",), source=sources("llama"), out=tmp_path / "out")
    model = peft.PeftModel.from_pretrained(plain(sources("llama")), out / "de", adapter_name="de")
    model.add_adapter("ones", model.peft_config["de"])
    model.add_weighted_adapter(["de", "ones"], [0.5, 0.5], "de-half")
    model.set_adapter("de-half")
    with torch.no_grad():
        found = model.eval()(probes).logits
    half = replace(masks, alpha=masks.alpha / 2)
    torch.testing.assert_close(found, steered_logits(sources("llama"), half), atol=3e-5, rtol=1e-4)


def test_refusals(sources, masks, any_factors, tmp_path):
    with pytest.raises(cl.ExportError, match="anchor"):
        cl.export.adapter(masks, languages=("de", "en"), source=sources("llama"), out=tmp_path / "out")
    with pytest.raises(cl.ExportError, match="list of at least one code, got 'de'"):
        cl.export.adapter(masks, languages="de", source=sources("llama"), out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2"])
def test_lora(kind, sources, masks, tmp_path, probes, steered_logits):
    out = cl.export.lora(masks, language="de", source=sources(kind), out=tmp_path / "out")
    model = peft.PeftModel.from_pretrained(plain(sources(kind)), out)
    with torch.no_grad():
        found = model.eval()(probes).logits
    torch.testing.assert_close(found, steered_logits(sources(kind), masks), atol=3e-5, rtol=1e-4)
    parity = json.loads((out / "parity.json").read_text())
    assert parity["details"] == {
        "rank": 16 if kind == "gpt2" else 32,
        "largest_truncation_error": 0.0,
    }  # d_model: 12, 32
    merged = model.merge_and_unload()
    with torch.no_grad():
        torch.testing.assert_close(merged(probes).logits, found, atol=3e-5, rtol=1e-4)


def test_a_truncated_lora_says_how_rough_it_is(sources, masks, tmp_path):
    out = cl.export.lora(masks, language="de", source=sources("llama"), out=tmp_path / "out", max_rank=16)
    parity = json.loads((out / "parity.json").read_text())
    assert parity["precision"] == "truncated"
    assert 0 < parity["details"]["largest_truncation_error"] < 1
    with pytest.raises(
        cl.ExportError, match=r"rank 8 leaves out \d+% of the change of a layer, and at most 50% is allowed"
    ):
        cl.export.lora(masks, language="de", source=sources("llama"), out=tmp_path / "rough", max_rank=8)
    assert not (tmp_path / "rough").exists()
    with pytest.raises(cl.ExportError, match="max_rank must be a whole number, at least 8"):
        cl.export.lora(masks, language="de", source=sources("llama"), out=tmp_path / "low", max_rank=2)
