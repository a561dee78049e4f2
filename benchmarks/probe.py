"""What the check in `load_model` costs, and what its tolerances tell apart: float error of every architecture that loads
exactly, in each dtype, against the distances that single mistakes of a conversion make.

Seconds are of the processor, all threads, so that what else runs counts less.
"""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import clas_lens as cl
from benchmarks import coverage
from benchmarks.loading import GEMMA, LLAMA
from benchmarks.measure import Row, in_child
from benchmarks.models import Size, hf_model
from clas_lens.models import probe
from clas_lens.models.backends import HAS_HOOKED
from clas_lens.models.checkpoints import find_checkpoint

BACKENDS = ("hooked", "bridge") if HAS_HOOKED else ("bridge",)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Change = Callable[[Any], object]


def run(size: Size, rounds: int) -> list[Row]:
    """Its share of loading, the real Gemma and random weights of Llama's shape (in size tiny neither); then a row a dtype."""
    is_tiny = size.model == "stack"
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        if is_tiny:
            return [_tolerance(dtype, {}) for dtype in DTYPES[:1]]
        hf_model("stack", **LLAMA).save_pretrained(folder)
        coverage.tiny_tokenizer().save_pretrained(folder)
        folders = {"Gemma 3 270M": find_checkpoint(GEMMA).folder, "Llama-shaped, 1.1 GB": Path(folder)}
        shares = [_share(name, of, backend, rounds) for name, of in folders.items() for backend in BACKENDS]
        return shares + [_tolerance(dtype, folders) for dtype in DTYPES]


# --- what it costs ---


def _share(name: str, folder: Path, backend: str, rounds: int) -> Row:
    found = [in_child(loading, str(folder), backend) for _ in range(rounds)]
    best = {key: min(one[key] for one in found) for key in found[0]}
    return {
        "what": f"{name}, {backend}",
        "load_s": round(best["load"], 2),
        "probe_s": round(best["probe"], 2),
        "probe_share": round(best["probe"] / best["load"], 3),
    }


def loading(folder: str, backend: Any) -> Row:
    """Processor seconds of `load_model` from a folder, and of the check within them."""
    inside = [0.0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any) -> Any:
            start = time.process_time()
            result = function(*inputs)
            inside[0] += time.process_time() - start
            return result

        return call

    functions: dict[str, Any] = {name: timed(getattr(probe, name)) for name in ("take_reference", "check_parity")}
    start = time.process_time()
    with patch.multiple("clas_lens.models.load", **functions):
        cl.load_model(folder, backend=backend, dtype=torch.float32, device="cpu")
    return {"load": time.process_time() - start, "probe": inside[0]}


# --- what it tells apart ---


def _tolerance(dtype: torch.dtype, folders: dict[str, Path]) -> Row:
    errors = dict(_float_errors(dtype, folders))
    mistakes = dict(_mistakes(dtype))
    allowed = probe.TOLERANCE[dtype]
    largest = max(errors, key=errors.__getitem__)
    seen = {name: value for name, value in mistakes.items() if value > allowed}
    smallest = min(seen, key=seen.__getitem__)
    return {
        "what": str(dtype).removeprefix("torch."),
        "tolerance": allowed,
        "float_error": float(f"{errors[largest]:.1e}"),
        "of": largest,
        "models": len(errors),
        "smallest_seen": float(f"{seen[smallest]:.1e}"),
        "mistake": smallest,
        "mistakes_seen": f"{len(seen)}/{len(mistakes)}",
        "unseen": ", ".join(f"{name} ({value:.0e})" for name, value in mistakes.items() if name not in seen),
    }


def _tiny(stem: str, settings: dict[str, Any], dtype: torch.dtype) -> PreTrainedModel:
    model: Any = coverage.tiny_model(stem, settings)
    return model.to(dtype)


def _distance(original: PreTrainedModel, taken: PreTrainedModel, backend: Any, words: Any) -> float:
    """How far the lens of one model is from another: the largest distance that the check finds."""
    reference = probe.take_reference(original)
    lens = cl.load_model(taken, tokenizer=words, backend=backend, check=False)
    return probe.check_parity(lens, reference, allowed=float("inf"))


def _float_errors(dtype: torch.dtype, folders: dict[str, Path]) -> Iterator[tuple[str, float]]:
    """By model and backend, of everything that loads exactly."""
    for title, stem, settings in coverage.ARCHITECTURES:
        model = _tiny(stem, settings, dtype)
        for backend in BACKENDS:
            try:
                found = _distance(model, model, backend, coverage.tiny_tokenizer())
            except cl.ModelLoadError:  # no conversion, or one that is wrong in width
                continue
            if _is_exact(title, backend):
                yield f"{title}, {backend}", found
    for name, folder in folders.items():
        real: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        for backend in BACKENDS:
            yield f"{name}, {backend}", _distance(real.eval(), real, backend, AutoTokenizer.from_pretrained(folder))


def _is_exact(title: str, backend: str) -> bool:
    """Not one that is wrong: its distance is no float error."""
    return not (title.startswith("Cohere") and backend == "bridge")


def _mistakes(dtype: torch.dtype) -> Iterator[tuple[str, float]]:
    """By mistake the distance of a tiny model that was taken with it."""
    settings = {title: (stem, more) for title, stem, more in coverage.ARCHITECTURES}
    for title, mistakes in MISTAKES.items():
        model = _tiny(*settings[title], dtype)
        for name, change in mistakes.items():
            config = copy.deepcopy(model.config)
            if name.startswith("config: "):
                change(config)
            kind: Any = type(model)
            spoilt = kind(config).to(dtype).eval()
            spoilt.load_state_dict(model.state_dict())
            with torch.no_grad():
                if not name.startswith("config: "):
                    change(spoilt)
            found = _distance(model, spoilt, BACKENDS[-1], coverage.tiny_tokenizer())
            yield f"{title}: {name.removeprefix('config: ')}", found


def _set(name: str, value: Any) -> Change:
    return lambda config: setattr(config, name, value)


def _rope(factor: float) -> Change:
    def change(config: Any) -> None:
        rope = config.rope_parameters
        for part in (rope, *(one for one in rope.values() if isinstance(one, dict))):
            if "rope_theta" in part:
                part["rope_theta"] *= factor

    return change


def _scale(part: str, factor: float) -> Change:
    """A matrix of the middle layer, off by a factor."""
    return lambda model: model.model.layers[1].get_submodule(part).weight.mul_(factor)


def _swap_heads(model: Any) -> None:
    keys = model.model.layers[1].self_attn.k_proj.weight
    keys.copy_(keys.roll(len(keys) // 2, 0))


def _shift_norms(model: Any) -> None:
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.weight.add_(1)


COMMON: dict[str, Change] = {
    "config: rotary base x 10": _rope(10),
    "config: rotary base 2% off": _rope(1.02),
    "config: norm epsilon x 10": _set("rms_norm_eps", 1e-5),
    "one matrix 1% off": _scale("mlp.up_proj", 1.01),
    "one down projection lost": _scale("mlp.down_proj", 0),
    "key heads exchanged": _swap_heads,
    "norm weights off by 1": _shift_norms,
}
MISTAKES: dict[str, dict[str, Change]] = {
    "Llama": {
        **COMMON,
        "config: another activation": _set("hidden_act", "gelu"),
        "attention scale 10% off": _scale("self_attn.q_proj", 1.1),  # Gemma 3 norms its queries
    },
    "Gemma 3": {
        **COMMON,
        "config: exact GELU for tanh's": _set("hidden_activation", "gelu"),
        "config: another window": _set("sliding_window", 4),
        "config: attention scale of another head size": _set("query_pre_attn_scalar", 32),
    },
}
