"""The change of the down projections as a llama.cpp adapter."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import clas_lens as cl

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize(("kind", "architecture"), [("llama", "llama"), ("gemma3", "gemma3"), ("gpt2", "gpt2")])
def test_added_to_the_weights_it_is_the_steered_model(kind, architecture, sources, masks, tmp_path):
    out = cl.export.gguf_lora(masks, language="de", source=sources(kind), out=tmp_path / "lora.gguf")
    reader = gguf.GGUFReader(out)
    fields = {name: reader.fields[name].contents() for name in ("general.architecture", "general.type", "adapter.type")}
    assert list(fields.values()) == [architecture, "adapter", "lora"]
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()).double() for tensor in reader.tensors}
    model = AutoModelForCausalLM.from_pretrained(sources(kind), dtype=torch.float32)
    for layer in masks.layers:
        a, b = (tensors.pop(f"blk.{layer}.ffn_down.weight.lora_{part}") for part in "ab")
        if kind == "gpt2":
            weight = model.transformer.h[layer].mlp.c_proj.weight.detach().double().T
        else:
            weight = model.model.layers[layer].mlp.down_proj.weight.detach().double()
        # llama.cpp: W + scale * (alpha / rank, or 1 where alpha is 0) * b a, with b [d_model, rank] and a [rank, neuron]
        alpha = reader.fields["adapter.lora.alpha"].contents()
        factor = alpha / b.shape[1] if alpha else 1.0
        torch.testing.assert_close(weight + factor * b @ a, weight * masks.scale("de")[layer], atol=1e-3, rtol=1e-3)
    assert not tensors
    assert json.loads((tmp_path / "lora.parity.json").read_text())["passed"]


def test_an_unknown_architecture_is_refused(sources, masks):
    from clas_lens.export.gguf_lora import architecture_of
    from clas_lens.export.sources import Found

    with pytest.raises(cl.ExportError, match=r"name for a 'bloom' model is not known here; known: llama"):
        architecture_of(Found(sources("llama"), "bloom"), "bloom")
