"""Scales of quantised checkpoints take the factors: tiny ones are quantised here, by code from the formats' layouts."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import clas_lens as cl
from clas_lens.export.checkpoint import plan_folds

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # AWQ: the column of eight that nibble i holds


def words(codes, axis, order=range(8)):
    """Eight 4-bit codes a 32-bit word along an axis, code `order[i]` in nibble i."""
    codes = codes.long().movedim(axis, -1).unflatten(-1, (-1, 8))
    word = sum(codes[..., place] << (4 * nibble) for nibble, place in enumerate(order))
    signed = torch.where(word >= 2**31, word - 2**32, word)
    return signed.to(torch.int32).movedim(-1, axis).contiguous()


def int8(weight, dtype=torch.float32):
    scale = weight.abs().amax(1, keepdim=True) / 127
    return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale.to(dtype)}


def fp8(weight):
    scale = weight.abs().amax(1, keepdim=True) / 448
    return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale}


def packed(weight):
    grouped = weight.unflatten(1, (-1, 16))
    scale = grouped.abs().amax(2) / 7
    codes = (grouped / scale[:, :, None]).round().clamp(-8, 7).flatten(1) + 8
    return {"weight_packed": words(codes, 1), "weight_scale": scale.half(), "weight_shape": torch.tensor(weight.shape)}


def by_columns(weight):
    """Codes [in, out], scales and zero points [groups, out] of groups of 16 inputs."""
    grouped = weight.T.unflatten(0, (-1, 16))
    low, high = grouped.amin(1), grouped.amax(1)
    scale = ((high - low) / 15).half()
    zeros = (-low / scale).round().clamp(1, 15)
    codes = (grouped / scale[:, None] + zeros[:, None]).round().clamp(0, 15).flatten(0, 1)
    return codes, scale, zeros


def gptq(weight, stored_zero=-1):
    order = torch.arange(weight.shape[1]).flip(0)  # act-order: groups do not follow the inputs
    codes, scale, zeros = by_columns(weight[:, order])
    group = (torch.arange(weight.shape[1]) // 16)[order.argsort()]
    codes = codes[order.argsort()]
    return {
        "qweight": words(codes, 0),
        "qzeros": words(zeros + stored_zero, 1),
        "scales": scale,
        "g_idx": group.int(),
    }


def awq(weight):
    codes, scale, zeros = by_columns(weight)
    return {"qweight": words(codes, 1, ORDER), "qzeros": words(zeros, 1, ORDER), "scales": scale}


PACKED = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}}
LAYOUTS = {
    "int8": (int8, {"quant_method": "compressed-tensors"}, 0.01),
    "int8, bfloat16 scales": (
        lambda weight: int8(weight, torch.bfloat16),
        {"quant_method": "compressed-tensors"},
        0.02,
    ),
    "fp8": (fp8, {"quant_method": "compressed-tensors"}, 0.05),
    "fbgemm": (fp8, {"quant_method": "fbgemm_fp8"}, 0.05),
    "packed": (packed, PACKED, 0.15),
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4}, 0.15),
    "gptq v2": (
        lambda weight: gptq(weight, 0),
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"},
        0.15,
    ),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "version": "gemm"}, 0.15),
}


@pytest.fixture
def quantised(sources, tmp_path):
    """A tiny folder whose up projections are quantised; settings as in `config.json`."""

    def make(kind, quantise, settings):
        folder = tmp_path / "source"
        shutil.copytree(sources(kind), folder)
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        tensors = {}
        for file in sorted(folder.glob("*.safetensors")):
            tensors |= load_file(file)
            file.unlink()
        module = "gate_up_proj" if kind == "phi3" else "up_proj"
        for name in [name for name in tensors if name.endswith(f"mlp.{module}.weight")]:
            stem = name.removesuffix("weight")
            weight = tensors.pop(name)
            tensors |= {f"{stem}{end}": value.contiguous() for end, value in quantise(weight).items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
        return folder

    return make


def up(folder, kind="llama", layer=1):
    """The tensors of one up projection."""
    module = "gate_up_proj" if kind == "phi3" else "up_proj"
    prefix = f"model.layers.{layer}.mlp.{module}."
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {
            name.removeprefix(prefix): file.get_tensor(name) for name in list(file.keys()) if name.startswith(prefix)
        }


@pytest.mark.parametrize("kind", ["llama", "phi3"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_only_scales_change_and_by_the_factors(layout, kind, quantised, masks, tmp_path, capsys):
    quantise, settings, _ = LAYOUTS[layout]
    source = quantised(kind, quantise, settings)
    out = cl.export.checkpoint(masks, language="de", source=source, out=tmp_path / "out")
    before, after = up(source, kind), up(out, kind)
    name = "scales" if "scales" in before else "weight_scale"
    factor = masks.scale("de")[1]
    if kind == "phi3":
        factor = torch.cat([torch.ones(48), factor])
    wanted = before[name].double() * (factor if name == "scales" else factor[:, None])
    assert torch.equal(after.pop(name), wanted.to(before.pop(name).dtype))
    for part, value in before.items():
        assert torch.equal(value.view(torch.int8), after[part].view(torch.int8)), part
    parity = json.loads((out / "parity.json").read_text())
    assert parity["compared"] == "dequantised weights; the model was not run"
    assert parity["matrices"] == 3
    assert parity["largest_weight_error"] < (0.005 if "bfloat16" in layout else 0.001)
    assert "the model was not run" in capsys.readouterr().out


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_dequantised_it_is_what_was_quantised(layout, quantised, sources):
    from clas_lens.export.checkpoint import folder_config, folder_tensors
    from clas_lens.export.quantised import quantised_up

    quantise, settings, rough = LAYOUTS[layout]
    folder = quantised("llama", quantise, settings)
    found, _ = quantised_up(folder_tensors(folder), 1, 48, folder_config(folder), "mlp")
    name = "model.layers.1.mlp.up_proj.weight"
    (whole,) = (load_file(file)[name] for file in sources("llama").glob("*.safetensors") if name in load_file(file))
    assert float((found.dequantised() - whole).abs().max() / whole.abs().max()) < rough


def refusals():
    """What is done to a layout, and what the refusal says."""
    ct = {"quant_method": "compressed-tensors"}

    def per_tensor(weight):
        return fp8(weight) | {"weight_scale": torch.ones(1)}

    def blocks(weight):
        return {"weight": fp8(weight)["weight"], "weight_scale_inv": torch.ones(1, 1)}

    def with_zeros(weight):
        return int8(weight) | {"weight_zero_point": torch.ones(48, 1, dtype=torch.int8)}

    yield per_tensor, ct, r"no scale for each row alone.*weight_scale F32 \[1\]"
    yield blocks, {"quant_method": "fp8"}, r"quantised \(fp8\).*no scale for each row alone.*weight_scale_inv"
    yield with_zeros, ct, "or zero points"
    yield packed, ct, r"packed codes of \[\] bits; known: 4, or 8"
    yield gptq, {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "layout 'marlin' with 4 bits"
    yield gptq, {"quant_method": "gptq", "bits": 3}, "layout 'gptq' with 3 bits"
    yield awq, {"quant_method": "awq", "bits": 4, "version": "gemv"}, "layout 'gemv' with 4 bits"
    yield int8, {"quant_method": "bitsandbytes"}, "its layout is not known; known: compressed-tensors"


@pytest.mark.parametrize(("quantise", "settings", "message"), list(refusals()))
def test_what_is_not_sure_is_refused(quantise, settings, message, quantised, masks, tmp_path):
    source = quantised("llama", quantise, settings)
    with pytest.raises(cl.ExportError, match=message):
        cl.export.checkpoint(masks, language="de", source=source, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fixed_input_scales_attention_and_mlps_without_a_gate_are_refused(quantised, masks, tmp_path):
    source = quantised("llama", int8, {"quant_method": "compressed-tensors"})
    scale = cl.export.factors(masks, "de")
    with pytest.raises(cl.ExportError, match="columns of attention's output projections"):
        plan_folds(source, scale, "attn")
    tensors = load_file(source / "model.safetensors")
    save_file(tensors | {"model.layers.1.mlp.down_proj.input_scale": torch.ones(1)}, source / "model.safetensors")
    with pytest.raises(cl.ExportError, match="layer 1 cannot be rescaled: its down projection has a fixed input_scale"):
        plan_folds(source, scale)
    ungated = {name: value for name, value in tensors.items() if "gate_proj" not in name}
    save_file(ungated, source / "model.safetensors")
    with pytest.raises(cl.ExportError, match="no up projection beside a gate that is known"):
        plan_folds(source, scale)


def test_a_layer_that_is_not_quantised_is_changed_as_ever(quantised, sources, masks, tmp_path):
    source = quantised("llama", int8, {"quant_method": "compressed-tensors"})
    tensors = load_file(source / "model.safetensors")
    for name in [name for name in tensors if name.startswith("model.layers.3.mlp.up_proj")]:
        del tensors[name]
    plain = torch.randn(48, 32)
    save_file(tensors | {"model.layers.3.mlp.up_proj.weight": plain}, source / "model.safetensors", {"format": "pt"})
    out = cl.export.checkpoint(masks, language="de", source=source, out=tmp_path / "out")
    torch.testing.assert_close(up(out, layer=3)["weight"].double(), plain.double() * masks.scale("de")[3][:, None])
    parity = json.loads((out / "parity.json").read_text())
    assert parity["matrices"] == 2
    assert parity["largest_weight_error"] < 0.01


def test_a_wrong_scale_fails_and_leaves_nothing(quantised, masks, tmp_path, monkeypatch):
    import importlib

    module = importlib.import_module("clas_lens.export.checkpoint")
    monkeypatch.setattr(module, "apply_fold", lambda *arguments: None)
    source = quantised("llama", int8, {"quant_method": "compressed-tensors"})
    with pytest.raises(cl.ExportError, match="differs from the factors beyond its tolerance and was removed"):
        cl.export.checkpoint(masks, language="de", source=source, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
