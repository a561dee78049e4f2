"""A steered GGUF: what transformers makes of it answers as `steer` does; its bytes differ only where they should."""

import json

import numpy as np
import pytest
import torch

import clas_lens as cl
from clas_lens.export.gguf_file import GGUFFile
from clas_lens.export.gguf_model import fold_targets

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize(
    ("kind", "atol"), [("F32", 3e-5), ("BF16", 0.1), ("Q4_0", 5e-3), ("Q5_1", 5e-3), ("Q8_0", 5e-3)]
)
def test_reads_back_steered(kind, atol, gguf_model, masks, tmp_path, probes, steered_logits):
    source = gguf_model(kind)
    out = cl.export.gguf(masks, language="de", source=source, out=tmp_path / "steered.gguf")
    with torch.no_grad():
        found = cl.load_model(out)(probes, attention_mask=torch.ones_like(probes))
    torch.testing.assert_close(found, steered_logits(source, masks), atol=atol, rtol=0)
    parity = json.loads((tmp_path / "steered.parity.json").read_text())
    assert parity["details"]["types"] == kind
    assert parity["details"]["largest_weight_error"] < (5e-3 if kind == "BF16" else 1e-3)


def test_only_steered_rows_change_and_the_metadata_says_so(gguf_model, masks, tmp_path):
    source = gguf_model("Q5_0")
    out = cl.export.gguf(masks, language="de", source=source, out=tmp_path / "out")
    (file,) = out.glob("*.gguf")
    assert (out / "README.md").is_file()
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(file)
    assert {t.name for t in before.tensors} == {t.name for t in after.tensors}
    rows = {f"blk.{layer}.ffn_up.weight": (masks.boost | masks.cut)[layer].numpy() for layer in masks.layers}
    for old, new in zip(before.tensors, after.tensors, strict=True):
        same = (old.data == new.data).all(-1) if old.name in rows else np.array_equal(old.data, new.data)
        assert np.array_equal(same, ~rows[old.name]) if old.name in rows else same, old.name
    assert after.fields["clas_lens.steering"].contents() == "RescaleMasks"
    assert after.fields["clas_lens.language"].contents() == "de"
    assert after.fields["clas_lens.alpha"].contents() == -3.0
    assert after.fields["clas_lens.fingerprint"].contents() == masks.fingerprint()
    for name in ("general.architecture", "tokenizer.ggml.tokens"):
        assert after.fields[name].contents() == before.fields[name].contents()
    with pytest.raises(cl.ExportError, match="steered already"):
        cl.export.gguf(masks, language="sw", source=file, out=tmp_path / "twice")


def test_what_cannot_be_scaled_is_refused_by_name(gguf_model, masks, tmp_path):
    fused = GGUFFile.read(gguf_model("F32", fused=True))
    with pytest.raises(cl.ExportError, match=r"blk.1.ffn_up.weight holds gate and up projection in one"):
        fold_targets(fused, 1, 48)
    with pytest.raises(cl.ExportError, match=r"blk.1.ffn_up.weight is MXFP4"):
        fold_targets(GGUFFile.read(gguf_model("MXFP4")), 1, 48)
    whole = gguf_model("F32")
    with pytest.raises(cl.ExportError, match=r"no blk.9.ffn_up.weight"):
        fold_targets(GGUFFile.read(whole), 9, 48)
    with pytest.raises(cl.ExportError, match="the factors are of 40 neurons"):
        fold_targets(GGUFFile.read(whole), 1, 40)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[:-4000])
    for file, message in [(cut, "is cut off"), (tmp_path / "none.gguf", "needs source= a .gguf file")]:
        with pytest.raises(cl.ExportError, match=message):
            cl.export.gguf(masks, language="de", source=file, out=tmp_path / "out.gguf")
    cut.write_bytes(whole.read_bytes()[:900])
    with pytest.raises(cl.ExportError, match="no whole GGUF file"):
        GGUFFile.read(cut)
    cut.write_bytes(b"something else, long enough to have a header")
    with pytest.raises(cl.ExportError, match="no GGUF file"):
        GGUFFile.read(cut)
    assert not (tmp_path / "out.gguf").exists()


def test_without_a_gate_columns_are_scaled_in_plain_types_only(tmp_path):
    for kind in ("F16", "Q8_0"):
        file = tmp_path / f"{kind}.gguf"
        writer = gguf.GGUFWriter(str(file), "gpt2")
        dtype = gguf.GGMLQuantizationType[kind]
        for name, shape in (("up", (32, 64)), ("down", (64, 32))):
            values = np.ones(shape, np.float32)
            writer.add_tensor(f"blk.0.ffn_{name}.weight", gguf.quants.quantize(values, dtype), raw_dtype=dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    assert fold_targets(GGUFFile.read(tmp_path / "F16.gguf"), 0, 32) == [("blk.0.ffn_down.weight", 1)]
    with pytest.raises(cl.ExportError, match="blocks of Q8_0 share their scales along a row"):
        fold_targets(GGUFFile.read(tmp_path / "Q8_0.gguf"), 0, 32)
