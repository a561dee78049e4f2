"""Quantised checkpoints whose scales are per output channel: a factor on a row of the weights is one on that row's scales.

Known: compressed-tensors and FBGEMM with int8, FP8 or packed int4 and int8 (`weight_scale` [out, groups]), GPTQ and AWQ
(`scales` [groups, out]). Every code stays as it is. The model is not run: its weights are dequantised here and compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.export.factors import ExportError
from clas_lens.export.weights import DTYPES, FUSED_UP_SECOND, Fold, Stored, biases, layer_parts, read_tensor
from clas_lens.vocabulary import UnitSite

METHODS = ("compressed-tensors", "fbgemm_fp8", "fp8", "gptq", "awq")
CODES = ("I8", "F8_E4M3")
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # AWQ's GEMM packing: column i of eight is nibble AWQ_ORDER[i]
ELSE = "Export from the unquantised checkpoint and quantise the result; or export an adapter, a LoRA or a GGUF"


@dataclass(frozen=True)
class Quantised:
    """One quantised matrix [out, in] of a checkpoint.

    Attributes:
        name: of its module, from the layer on.
        parts: its tensors by the end of their names.
        method: the checkpoint's `quant_method`.
        bits: of a code.
        zero_offset: what is added to stored zero points.
    """

    name: str
    parts: Mapping[str, Stored]
    method: str
    bits: int
    zero_offset: int = 0

    @property
    def by_columns(self) -> bool:
        """Whether outputs are the last axis, as in GPTQ and AWQ."""
        return "scales" in self.parts

    @property
    def scales(self) -> Stored:
        """One scale an output and group."""
        return self.parts["scales" if self.by_columns else "weight_scale"]

    @property
    def axis(self) -> int:
        """The axis of the outputs in the scales."""
        return 1 if self.by_columns else 0

    def dequantised(self) -> Float[Tensor, "out in"]:
        """The weights that these codes and scales mean, in float64."""
        scales, groups = read_tensor(self.scales).double(), self._groups()
        if self.by_columns:
            codes, zeros = self._columns("qweight"), self._columns("qzeros") + self.zero_offset
            return ((codes - zeros[groups]) * scales[groups]).T
        return self._rows() * scales[:, groups]

    def _groups(self) -> Int[Tensor, "in"]:
        """Each input's group."""
        for name in ("g_idx", "weight_g_idx"):
            if name in self.parts:
                return read_tensor(self.parts[name]).long()
        n_groups = self.scales.shape[1 - self.axis]
        if self.method == "awq":
            n_inputs = self.parts["qweight"].shape[0]
        elif self.by_columns:
            n_inputs = self.parts["qweight"].shape[0] * 32 // self.bits
        else:
            n_inputs = self._rows().shape[1]
        return torch.arange(n_inputs) // (n_inputs // n_groups)

    def _rows(self) -> Float[Tensor, "out in"]:
        """Codes of compressed-tensors; packed ones are offset by half their range."""
        if "weight_packed" in self.parts:
            return _unpacked(read_tensor(self.parts["weight_packed"]), self.bits).double() - 2 ** (self.bits - 1)
        return read_tensor(self.parts["weight"]).double()

    def _columns(self, name: str) -> Float[Tensor, "in_or_group out"]:
        """Codes, or zero points, of GPTQ and AWQ. GPTQ packs codes along the inputs, all else is along the outputs."""
        packed = read_tensor(self.parts[name])
        if self.method == "gptq" and name == "qweight":
            return _unpacked(packed.T, self.bits).T.double()
        codes = _unpacked(packed, self.bits)
        if self.method == "awq":
            codes = codes.unflatten(1, (-1, len(AWQ_ORDER)))[:, :, list(AWQ_ORDER)].flatten(1)
        return codes.double()


def quantised_up(
    stored: Mapping[str, Stored], layer: int, width: int, config: Mapping[str, Any], site: UnitSite
) -> tuple[Quantised, list[Fold]] | None:
    """A layer's quantised up projection, and where its factors go; none if this layer's is not quantised.

    Raises:
        ExportError: a method or layout that is not sure.
    """
    settings = config["quantization_config"]
    method, model_type = str(settings.get("quant_method")), str(config.get("model_type"))
    parts = layer_parts(stored, layer)
    match site:
        case "mlp":
            pass
        case "attn":
            raise _refused(method, layer, "columns of attention's output projections share their scales with others")
        case _:
            assert_never(site)
    fused = "mlp.up_proj" not in {name.rsplit(".", 1)[0] for name in parts}
    module = "mlp.gate_up_proj" if fused else "mlp.up_proj"
    own = {name.removeprefix(f"{module}."): one for name, one in parts.items() if name.startswith(f"{module}.")}
    gated = fused or any(name.startswith("mlp.gate_proj.") for name in parts)
    if not own or not gated or (fused and model_type not in FUSED_UP_SECOND):
        raise _refused(
            method, layer, f"it has no up projection beside a gate that is known ({', '.join(parts) or 'nothing'})"
        )
    if "weight" in own and own["weight"].dtype in DTYPES:
        return None
    if "mlp.down_proj.input_scale" in parts:
        raise _refused(
            method, layer, "its down projection has a fixed input_scale, and steered inputs may be beyond it"
        )
    found = _known(method, settings, module, own, layer)
    rows, first = (2 * width, width) if fused else (width, 0)
    if found.scales.shape[found.axis] != rows:
        raise _refused(method, layer, f"{found.scales.name} is {found.scales.shape}, and there are {rows} outputs")
    return found, [Fold(found.scales, found.axis, first), *biases(parts, f"{module}.bias", first)]


def _known(method: str, settings: Mapping[str, Any], module: str, parts: Mapping[str, Stored], layer: int) -> Quantised:
    """The matrix, if its layout is one that is sure."""
    there = ", ".join(f"{name} {one.dtype} {list(one.shape)}" for name, one in parts.items())
    bits = int(settings.get("bits") or settings.get("w_bit") or 0)
    match method:
        case "compressed-tensors" | "fbgemm_fp8" | "fp8":
            codes = parts.get("weight", parts.get("weight_packed"))
            scale = parts.get("weight_scale")
            plain = codes is not None and codes.dtype in CODES
            packed = codes is not None and codes.name.endswith("weight_packed") and codes.dtype == "I32"
            sure = (
                scale is not None and len(scale.shape) == 2 and codes is not None and codes.shape[0] == scale.shape[0]
            )
            if not (sure and (plain or packed)) or {"weight_zero_point", "weight_global_scale"} & set(parts):
                raise _refused(method, layer, f"no scale for each row alone, or zero points: {module} has {there}")
            assert codes is not None
            return Quantised(module, parts, method, _packed_bits(settings, layer) if packed else 8)
        case "gptq" | "awq":
            layout = str(settings.get("checkpoint_format") or settings.get("version") or method).lower()
            known = {"gptq": ("gptq", "gptq_v2"), "awq": ("awq", "gemm")}[method]
            width_is_known = bits in (2, 4, 8) if method == "gptq" else bits == 4
            marlin = settings.get("is_marlin_format", False)
            if layout not in known or marlin or not width_is_known or not {"qweight", "qzeros", "scales"} <= set(parts):
                raise _refused(method, layer, f"layout {layout!r} with {bits} bits is not known: {module} has {there}")
            return Quantised(module, parts, method, bits, int(method == "gptq" and layout == "gptq"))
        case _:
            raise _refused(method, layer, f"its layout is not known; known: {', '.join(METHODS)}")


def _packed_bits(settings: Mapping[str, Any], layer: int) -> int:
    """The one width of the codes that all groups of settings have."""
    groups = (settings.get("config_groups") or {}).values()
    widths = {int((group.get("weights") or {}).get("num_bits") or 0) for group in groups}
    if widths not in ({4}, {8}):
        raise _refused("compressed-tensors", layer, f"packed codes of {sorted(widths)} bits; known: 4, or 8")
    return widths.pop()


def _refused(method: str, layer: int, why: str) -> ExportError:
    return ExportError(f"this checkpoint is quantised ({method}), and layer {layer} cannot be rescaled: {why}. {ELSE}")


def _unpacked(packed: Int[Tensor, "row word"], bits: int) -> Int[Tensor, "row column"]:
    """The codes in 32-bit words, the lowest bits first."""
    shifts = torch.arange(0, 32, bits)
    return ((packed.long()[:, :, None] >> shifts) & (2**bits - 1)).flatten(1)


def largest_weight_error(before: Quantised, after: Quantised, factor: Float[Tensor, "neuron"], first: int) -> float:
    """How far the changed matrix is from the old one times the factors, as a share of its largest weight."""
    wanted, found = before.dequantised(), after.dequantised()
    wanted[first : first + len(factor)] *= factor[:, None].double()
    return float((found - wanted).abs().max() / wanted.abs().max())
