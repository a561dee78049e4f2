"""llama.cpp itself, asked for its next token through its server, where xllamacpp, which brings the server, is installed."""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.export.factors import ExportError
from clas_lens.export.parity import Reference
from clas_lens.representations.effects import kl_divergence

SECONDS = 300
# How far llama.cpp may be from `steer`: this share of the KL divergence that steering makes, beside this many times the
# divergence of the two programs without steering (llama.cpp quantises activations, too).
SHARE, TIMES = 0.1, 3.0


def is_installed() -> bool:
    """Whether xllamacpp is here."""
    return find_spec("xllamacpp") is not None


@contextmanager
def llama_server(model: Path, lora: Path | None = None, threads: int = 1) -> Iterator[str]:
    """The address of a server of llama.cpp on the CPU, for the time of the block."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.verbosity, params.warmup = 512, 1, 0, False
    params.n_gpu_layers, params.cpuparams.n_threads = 0, threads
    if lora is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 0.0)]
    server = xllamacpp.Server(params)
    try:
        yield str(server.listening_address)
    finally:
        del server  # which stops it


def next_token(address: str, tokens: Sequence[int], *, lora_scale: float | None = None) -> Float[Tensor, "d_vocab"]:
    """Log-probabilities in nats of the token after these, over the whole vocabulary, from any server of llama.cpp.

    Args:
        lora_scale: strength of the server's first LoRA in this request.
    """
    request: dict[str, Any] = {
        "prompt": list(tokens),
        "n_predict": 1,
        "n_probs": 1_000_000,  # at most the vocabulary
        "temperature": 0.0,
        "samplers": [],
        "cache_prompt": False,
    }
    if lora_scale is not None:
        request["lora"] = [{"id": 0, "scale": lora_scale}]
    asked = urllib.request.Request(
        f"{address}/completion", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
        found = json.load(answer)["completion_probabilities"][0]["top_logprobs"]
    logits = torch.full((len(found),), -torch.inf, dtype=torch.float64)
    for entry in found:
        logits[entry["id"]] = entry["logprob"]
    # The server adds up a large vocabulary in float32, one after the other, which is off by up to .001.
    return logits.log_softmax(0)


def compared_with_llama_cpp(plain: Path, steered: Path, reference: Reference) -> dict[str, float]:
    """Both files in llama.cpp beside `steer`: mean KL divergences in nats of the token after each probe.

    Raises:
        ExportError: llama.cpp's steered model is further from `steer` than `SHARE` and `TIMES` allow.
    """
    answers = []
    for file in (plain, steered):
        with llama_server(file) as address:
            answers.append(torch.stack([next_token(address, probe.tolist()) for probe in reference.probes]))
    llama_base, llama_steered = answers
    base, hooks = (torch.stack([one[-1] for one in logits]) for logits in (reference.base, reference.steered))
    found = {
        "llama_cpp_kl_steering": _mean_kl(llama_base, llama_steered),
        "hooks_kl_steering": _mean_kl(base, hooks),
        "llama_cpp_from_hooks_unsteered": _mean_kl(base, llama_base),
        "llama_cpp_from_hooks_steered": _mean_kl(hooks, llama_steered),
    }
    allowed = SHARE * found["hooks_kl_steering"] + TIMES * found["llama_cpp_from_hooks_unsteered"] + 1e-4
    if not found["llama_cpp_from_hooks_steered"] <= allowed:
        raise ExportError(
            f"the export differs from steer in llama.cpp, by more than {allowed:.2g} nats, and was removed: {found}"
        )
    return found


def _mean_kl(p: Float[Tensor, "probe d_vocab"], q: Float[Tensor, "probe d_vocab"]) -> float:
    return float(f"{float(kl_divergence(p.double(), q.double()).mean()):.3g}")
