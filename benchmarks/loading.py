"""Loading a checkpoint and one pass: time and peak memory of a fresh process, against plain Hugging Face loading.

The pass is part of it because safetensors are mapped: what nobody has used yet is not in memory. All processes have imported
the same packages, which alone take some hundred MB.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import clas_lens as cl
from benchmarks import coverage
from benchmarks.measure import Row, in_child
from benchmarks.models import Size, device_and_dtype, hf_model
from clas_lens.models.checkpoints import find_checkpoint

GEMMA = "gemma-3-270m"
LLAMA = {"hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 16, "vocab_size": 32000}


def run(size: Size, rounds: int) -> list[Row]:
    """The real Gemma, and random weights of Llama's shape; the same in every size."""
    with tempfile.TemporaryDirectory() as folder:
        hf_model("stack", **LLAMA).save_pretrained(folder)
        coverage.tiny_tokenizer().save_pretrained(folder)
        return [
            *_compared("Gemma 3 270M", find_checkpoint(GEMMA).folder, {"stock loader": stock_gemma}, rounds),
            *_compared("Llama-shaped", Path(folder), {}, rounds),
        ]


def _compared(name: str, folder: Path, others: dict[str, Callable[[str], Row]], rounds: int) -> list[Row]:
    contenders = {"Hugging Face": hugging_face, "load_model, hooked": hooked, "load_model, bridge": bridge, **others}
    found: dict[str, list[Row]] = {what: [] for what in contenders}
    for _ in range(rounds):
        for what, function in contenders.items():
            found[what].append(in_child(function, str(folder)))
    best = {what: {key: min(one[key] for one in of) for key in of[0]} for what, of in found.items()}
    floor = best["Hugging Face"]
    return [
        {
            "what": f"{name}: {what}",
            "seconds": round(one["seconds"], 2),
            "time_ratio": round(one["seconds"] / floor["seconds"], 2),
            "peak_mb": round(one["peak_mb"]),
            "peak_ratio": round(one["peak_mb"] / floor["peak_mb"], 3),
        }
        for what, one in best.items()
    ]


TOKENS = torch.arange(4, 20)[None]


def hugging_face(folder: str) -> Row:
    """Model and tokenizer, plainly."""
    device, dtype = device_and_dtype()
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder)  # held while the model runs, as in the others
    with torch.inference_mode():
        model(TOKENS.to(device))
    del tokenizer
    return {"seconds": time.perf_counter() - start}


def hooked(folder: str) -> Row:
    """`load_model` as a HookedTransformer."""
    return _ours(folder, bridged=False)


def bridge(folder: str) -> Row:
    """`load_model` as a TransformerBridge."""
    return _ours(folder, bridged=True)


def _ours(folder: str, *, bridged: bool) -> Row:
    device, dtype = device_and_dtype()
    start = time.perf_counter()
    model = cl.load_model(folder, backend="bridge" if bridged else "hooked", dtype=dtype)
    with torch.inference_mode():
        model(TOKENS.to(device))
    return {"seconds": time.perf_counter() - start}


def stock_gemma(folder: str) -> Row:
    """TransformerLens's own loader, given the model that Hugging Face has loaded."""
    from transformer_lens import HookedTransformer

    device, dtype = device_and_dtype()
    start = time.perf_counter()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    options = {"hf_model": plain, "tokenizer": AutoTokenizer.from_pretrained(folder), "device": device, "dtype": dtype}
    model = HookedTransformer.from_pretrained_no_processing("google/gemma-3-270m", **options)
    with torch.inference_mode():
        model(TOKENS.to(device))
    return {"seconds": time.perf_counter() - start}
