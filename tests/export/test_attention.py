"""Factors on attention's units leave as columns of its output projections, in every format that can hold them."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

import clas_lens as cl

KINDS = ("llama", "qwen2", "gemma3", "phi3", "gpt2")
TOLERANCE = {"atol": 3e-5, "rtol": 1e-4}


@pytest.fixture
def of_attention(sources):
    """Random masks of a source's attention units, by its own configuration."""

    def masks(kind, layers=(1, 3, 4)):
        config = AutoConfig.from_pretrained(sources(kind))
        n_heads = config.num_attention_heads
        d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
        drawn = torch.rand(5, n_heads * d_head, generator=torch.Generator().manual_seed(1))
        described = {"site": "attn", "n_heads": n_heads, "d_head": d_head}
        return cl.RescaleMasks(drawn < 0.3, drawn > 0.7, layers, alpha=-3.0, model=described)

    return masks


def plain_logits(folder, probes):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(probes).logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint(kind, sources, of_attention, tmp_path, probes, steered_logits):
    masks = of_attention(kind)
    out = cl.export.checkpoint(masks, language="de", source=sources(kind), out=tmp_path / "out")
    torch.testing.assert_close(plain_logits(out, probes), steered_logits(sources(kind), masks), **TOLERANCE)
    before, after = (
        {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}
        for folder in (sources(kind), out)
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    end, axis = ("attn.c_proj.weight", 0) if kind == "gpt2" else ("self_attn.o_proj.weight", 1)
    assert {name.split(".", 2)[2] for name in changed} == {f"{layer}.{end}" for layer in (1, 3, 4)}
    for name in changed:
        factor = masks.scale("de")[int(name.split(".")[2])]
        factor = factor[:, None] if axis == 0 else factor
        assert torch.equal(after[name], (before[name].double() * factor).float())
    assert json.loads((out / "steering.json").read_text())["settings"]["site"] == "attn"


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter(kind, sources, of_attention, tmp_path, probes, steered_logits):
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    masks = of_attention(kind)
    out = cl.export.adapter(masks, languages=["de"], source=sources(kind), out=tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(sources(kind), dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        found = peft.PeftModel.from_pretrained(base, out / "de").eval()(probes).logits
    torch.testing.assert_close(found, steered_logits(sources(kind), masks), **TOLERANCE)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_lora(kind, sources, of_attention, tmp_path, probes, steered_logits):
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    masks = of_attention(kind)
    out = cl.export.lora(masks, language="de", source=sources(kind), out=tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(sources(kind), dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        found = peft.PeftModel.from_pretrained(base, out).eval()(probes).logits
    torch.testing.assert_close(found, steered_logits(sources(kind), masks), **TOLERANCE)


@pytest.mark.parametrize(("kind", "atol"), [("F32", 3e-5), ("F16", 5e-3)])
def test_a_gguf_of_plain_weights(kind, atol, gguf_model, of_attention, tmp_path, probes, steered_logits):
    source, masks = gguf_model(kind, part="o_proj"), of_attention("qwen2")
    out = cl.export.gguf(masks, language="de", source=source, out=tmp_path / "steered.gguf")
    with torch.no_grad():
        found = cl.load_model(out)(probes, attention_mask=torch.ones_like(probes))
    torch.testing.assert_close(found, steered_logits(source, masks), atol=atol, rtol=0)


def test_a_gguf_with_blocks_is_refused_with_the_reason_and_a_lora_is_not(gguf_model, of_attention, tmp_path):
    gguf = pytest.importorskip("gguf")
    source, masks = gguf_model("Q8_0", part="o_proj"), of_attention("qwen2", layers=(2,))
    with pytest.raises(cl.ExportError, match=r"blocks of Q8_0 share their scales along a row.*gguf-lora"):
        cl.export.gguf(masks, language="de", source=source, out=tmp_path / "steered.gguf")
    out = cl.export.gguf_lora(masks, language="de", source=source, out=tmp_path / "lora.gguf")
    found = {tensor.name: torch.tensor(tensor.data) for tensor in gguf.GGUFReader(out).tensors}
    assert set(found) == {f"blk.2.attn_output.weight.lora_{part}" for part in "ab"}
    weight = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name).model.layers[2].self_attn.o_proj
    change = weight.weight.detach() * (masks.scale("de")[2].float() - 1)
    b, a = (found[f"blk.2.attn_output.weight.lora_{part}"].float() for part in "ba")
    torch.testing.assert_close(b @ a, change, atol=2e-3, rtol=2e-3)


def test_no_attention_that_is_known_and_no_site_with_weights(sources, of_attention, any_factors, tmp_path):
    from clas_lens.export.factors import site_of_factors
    from clas_lens.export.weights import Stored, find_folds

    parts = [f"model.layers.2.{name}.weight" for name in ("self_attn.q_proj", "self_attn.strange", "mlp.up_proj")]
    stored = {name: Stored(tmp_path, name, "F32", (32, 32), 0, 0) for name in parts}
    with pytest.raises(cl.ExportError, match="it has self_attn.q_proj.weight, self_attn.strange.weight"):
        find_folds(stored, 2, 32, "odd", "attn")
    assert site_of_factors(any_factors) == "mlp"
    object.__setattr__(any_factors, "site", "residual")
    with pytest.raises(
        cl.ExportError, match="acts at site='residual'; factors fold into weights behind mlp and attn alone"
    ):
        site_of_factors(any_factors)
