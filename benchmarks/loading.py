"""Loading a checkpoint: time and peak memory of a fresh process, against plain Hugging Face loading."""

import time
from collections.abc import Callable

from transformers import AutoModelForCausalLM, AutoTokenizer

import clas_lens as cl
from benchmarks.measure import Row, in_child
from benchmarks.models import Size, device_and_dtype
from clas_lens.checkpoints import find_checkpoint

REAL = "gemma-3-270m"


def run(size: Size, rounds: int) -> list[Row]:
    """Gemma 3 270M in every size: loading needs real files."""
    contenders: dict[str, tuple[Callable[..., float], tuple[str, ...]]] = {
        "Hugging Face": (hugging_face, ()),
        "load_model, hooked": (ours, ("hooked",)),
        "load_model, bridge": (ours, ("bridge",)),
        "HookedTransformer.from_pretrained_no_processing": (stock, ()),
    }
    found: dict[str, list[Row]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (function, arguments) in contenders.items():
            found[name].append(in_child(function, *arguments))
    best = {name: {key: min(one[key] for one in of) for key in of[0]} for name, of in found.items()}
    floor = best["Hugging Face"]
    return [
        {
            "what": name,
            "seconds": round(one["seconds"], 2),
            "time_ratio": round(one["seconds"] / floor["seconds"], 2),
            "peak_mb": round(one["peak_mb"]),
            "peak_ratio": round(one["peak_mb"] / floor["peak_mb"], 3),
        }
        for name, one in best.items()
    ]


def hugging_face() -> float:
    """Model and tokenizer, plainly."""
    device, dtype = device_and_dtype()
    folder = find_checkpoint(REAL).folder
    start = time.perf_counter()
    AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
    AutoTokenizer.from_pretrained(folder)
    return time.perf_counter() - start


def ours(backend: str) -> float:
    """`load_model` from the same folder."""
    folder = find_checkpoint(REAL).folder
    start = time.perf_counter()
    cl.load_model(folder, backend="bridge" if backend == "bridge" else "hooked")
    return time.perf_counter() - start


def stock() -> float:
    """TransformerLens's own loader, given the model that Hugging Face has loaded."""
    from transformer_lens import HookedTransformer

    device, dtype = device_and_dtype()
    folder = find_checkpoint(REAL).folder
    start = time.perf_counter()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    HookedTransformer.from_pretrained_no_processing(
        "google/gemma-3-270m",
        hf_model=plain,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        device=device,
        dtype=dtype,
    )
    return time.perf_counter() - start
