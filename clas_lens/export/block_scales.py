"""Rows of a GGUF tensor times a factor each, without quantising again: only the scales that every block carries are changed."""

from typing import Any

import numpy as np
import numpy.typing as npt

from clas_lens.export.factors import ExportError

Bytes = npt.NDArray[np.uint8]
Factors = npt.NDArray[np.float64]

# Where in a block its 16-bit scales are, in bytes: a value is d times something, or that minus (plus) dmin (m) times
# something, so that factors on all of them are a factor on the value. As in ggml-common.h; each is proved against gguf's
# dequantisation in the tests.
SCALES: dict[str, tuple[int, ...]] = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),  # d, m
    "Q5_0": (0,),
    "Q5_1": (0, 2),  # d, m
    "Q8_0": (0,),
    "Q2_K": (80, 82),  # after scales[16] and qs[64]: d, dmin
    "Q3_K": (108,),  # after hmask[32], qs[64], scales[12]
    "Q4_K": (0, 2),  # d, dmin
    "Q5_K": (0, 2),  # d, dmin
    "Q6_K": (208,),  # after ql[128], qh[64], scales[16]
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "IQ1_S": (0,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "TQ1_0": (52,),  # after qs[48], qh[4]
    "TQ2_0": (64,),  # after qs[64]
}
PLAIN = ("F32", "F16", "BF16")
KNOWN = (*PLAIN, *SCALES)  # not IQ1_M (its scale lies in pieces), MXFP4 and NVFP4 (scales without sign or mantissa)


def check_type(name: str, kind: str) -> None:
    """Raise `ExportError` unless rows of this type can be rescaled."""
    if kind not in KNOWN:
        raise ExportError(f"{name} is {kind}, whose scales cannot be multiplied in place. Known: {', '.join(KNOWN)}")


def scaled_rows(rows: Bytes, kind: str, factor: Factors) -> Bytes:
    """`rows` [row byte] as stored, each times its factor. Blocks of rows with factor 1 are the same to the bit.

    Raises:
        ExportError: an unknown type, or a scale that float16 cannot hold.
    """
    check_type("a tensor", kind)
    result = rows.copy()
    touched = factor != 1
    if kind in PLAIN:
        values = decoded(result[touched], kind) * factor[touched, None]
        result[touched] = encoded(values, kind)
        return result
    size = block_bytes(kind)
    blocks = result[touched].reshape(int(touched.sum()), -1, size)
    for offset in SCALES[kind]:
        scale = np.ascontiguousarray(blocks[..., offset : offset + 2]).view("<f2").astype(np.float64)
        with np.errstate(over="ignore"):
            changed = (scale * factor[touched, None, None]).astype("<f2")
        if not np.isfinite(changed).all():
            raise ExportError(f"a block scale of {kind} overflows float16 under these factors")
        blocks[..., offset : offset + 2] = changed.view(np.uint8)
    result[touched] = blocks.reshape(int(touched.sum()), -1)
    return result


def scaled_columns(rows: Bytes, kind: str, factor: Factors) -> Bytes:
    """`rows` with each column times its factor; possible where every value has a place of its own.

    Raises:
        ExportError: a type with blocks.
    """
    if kind not in PLAIN:
        raise ExportError(
            f"these factors belong on columns (as of attention, or of an MLP without a gate), and blocks of {kind} share their "
            "scales along a row. Use "
            f"{', '.join(PLAIN)}, or a LoRA (--to gguf-lora)"
        )
    return encoded(decoded(rows, kind) * factor, kind)


def block_bytes(kind: str) -> int:
    """How long a block is."""
    import gguf

    return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]


def decoded(rows: Bytes, kind: str) -> npt.NDArray[np.float64]:
    """Values of plain types."""
    whole = np.ascontiguousarray(rows)
    if kind == "BF16":
        return (whole.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return whole.view("<f4" if kind == "F32" else "<f2").astype(np.float64)


def encoded(values: npt.NDArray[np.float64], kind: str) -> Bytes:
    """Values in a plain type, rounded to nearest even.

    Raises:
        ExportError: some are too large for it.
    """
    with np.errstate(over="ignore"):
        if kind == "BF16":
            bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
            stored: Any = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
            finite = ((stored >> 7) & 0xFF) != 0xFF
        else:
            stored = values.astype("<f4" if kind == "F32" else "<f2")
            finite = np.isfinite(stored)
    if not finite.all():
        raise ExportError(f"weights overflow {kind} under these factors")
    return stored.view(np.uint8)


def dequantised(rows: Bytes, kind: str) -> npt.NDArray[np.float32]:
    """What gguf makes of the bytes: [row column]."""
    import gguf

    if kind == "F32" or kind == "F16":
        return decoded(rows, kind).astype(np.float32)
    return gguf.quants.dequantize(np.ascontiguousarray(rows), gguf.GGMLQuantizationType[kind])
