"""Rows of every quantised type, scaled through their blocks' scales, dequantise (by gguf) to the scaled values."""

import numpy as np
import pytest

import clas_lens as cl
from clas_lens.export.block_scales import KNOWN, PLAIN, SCALES, check_type, encoded, scaled_columns, scaled_rows

gguf = pytest.importorskip("gguf")
ROWS = 6
FACTORS = np.array([1.0, -0.2, 1.6, 0.0, 2.5, -1.0])
HALF = 2.0**-10  # float16 has 11 significant bits: half a step when a scale is rounded again, and some for d - dmin


def random_rows(kind):
    """Quantised by gguf where it can; else random bytes with sensible scales, which is a valid block of any of these types."""
    generator = np.random.default_rng(0)
    columns = 2 * gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
    try:
        return gguf.quants.quantize(
            generator.normal(size=(ROWS, columns)).astype(np.float32), gguf.GGMLQuantizationType[kind]
        )
    except NotImplementedError:
        size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
        blocks = generator.integers(0, 256, (ROWS, 2, size), dtype=np.uint8)
        for offset in SCALES[kind]:
            scales = generator.uniform(0.001, 0.02, (ROWS, 2, 1)).astype("<f2")
            blocks[..., offset : offset + 2] = scales.view(np.uint8)
        return blocks.reshape(ROWS, -1)


def values(rows, kind):
    return gguf.quants.dequantize(np.ascontiguousarray(rows), gguf.GGMLQuantizationType[kind]).astype(np.float64)


@pytest.mark.parametrize("kind", [kind for kind in KNOWN if kind not in ("F32", "F16")])
def test_by_gguf_s_own_dequantisation(kind):
    rows = random_rows(kind)
    before = values(rows, kind)
    found = scaled_rows(rows, kind, FACTORS)
    assert found.shape == rows.shape
    after, wanted = values(found, kind), before * FACTORS[:, None]
    bound = (HALF if kind != "BF16" else 2.0**-8) * np.abs(before).max() * np.abs(FACTORS)[:, None]
    # d and dmin are rounded apart, and a small value is a difference of two large ones.
    assert (np.abs(after - wanted) <= 2 * bound + 1e-12).all()
    assert np.abs(before).max() > 0
    assert np.array_equal(found[0], rows[0])  # factor 1: to the bit
    assert (after[3] == 0).all()


def test_plain_types():
    generator = np.random.default_rng(1)
    for kind, dtype, error in [("F32", np.float32, 1e-7), ("F16", np.float16, 1e-3)]:
        matrix = generator.normal(size=(ROWS, 8)).astype(dtype)
        rows = scaled_rows(matrix.view(np.uint8), kind, FACTORS)
        np.testing.assert_allclose(rows.view(dtype), matrix * FACTORS[:, None], rtol=error, atol=1e-6)
        columns = scaled_columns(matrix.view(np.uint8), kind, np.arange(8.0))
        np.testing.assert_allclose(columns.view(dtype), matrix * np.arange(8.0), rtol=error, atol=1e-6)


def test_bfloat16_is_rounded_as_torch_rounds():
    import torch

    numbers = np.random.default_rng(2).normal(size=1000) * 100
    wanted = torch.from_numpy(numbers.astype(np.float32)).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(encoded(numbers, "BF16").view("<u2"), wanted)


def test_other_types_and_overflow_are_refused_by_name():
    for kind in ("IQ1_M", "MXFP4", "NVFP4", "Q8_K"):
        with pytest.raises(cl.ExportError, match=f"blk.0.ffn_up.weight is {kind}"):
            check_type("blk.0.ffn_up.weight", kind)
    with pytest.raises(cl.ExportError, match="overflows float16"):
        scaled_rows(random_rows("Q8_0"), "Q8_0", np.full(ROWS, 1e9))
    with pytest.raises(cl.ExportError, match="overflow BF16"):
        scaled_rows(random_rows("BF16"), "BF16", np.full(ROWS, 1e39))
    with pytest.raises(cl.ExportError, match="share their scales along a row"):
        scaled_columns(random_rows("Q4_0"), "Q4_0", np.ones(64))
    assert set(PLAIN) | set(SCALES) == set(KNOWN)
