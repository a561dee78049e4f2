"""The paper's two models at full size: random weights in their real shapes, with their own configurations and tokenizers.

A checkpoint is written (15 to 16 GB in bfloat16, deleted afterwards) and taken through the pipeline on both backends, each in a
fresh process: `load_model`, `collect_statistics`, `categorize`, the paper's bridge layers, `steer` and `generate`, one XNLI
prompt. Numbers mean nothing with random weights; shapes, prompts, memory and times do.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedConfig, Qwen2Config

import clas_lens as cl
from benchmarks.measure import Row, in_child
from benchmarks.models import TOKENIZERS, Size
from clas_lens.corpus.tokens import bos_prefix
from clas_lens.models.backends import HAS_HOOKED
from clas_lens.models.presets import PRESETS

GIB = 1024**3
ROOM = 1.08  # of the weights, what a run took at most (1.055, Qwen with hooks)
BESIDE = 2 * GIB  # Python, its packages, and activations
PAPER_CONFIGS: dict[str, PreTrainedConfig] = {
    "llama-3.1-8b": LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        bos_token_id=128000,
        eos_token_id=[128001, 128008, 128009],
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    "qwen-2.5-7b": Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        bos_token_id=151643,
        eos_token_id=151645,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    ),
}
MODELS = {"llama": "llama-3.1-8b", "qwen": "qwen-2.5-7b"}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LANGUAGES = ("en", "de")


class NotEnoughRoomError(ValueError):
    """The disk or the memory that is free now would not do."""


def run(size: Size, rounds: int, *, model: str = "llama", device: str = "cpu") -> list[Row]:
    """Both backends, one pass through the pipeline each; `size` tiny takes a narrow stack in the model's place.

    Raises:
        NotEnoughRoomError: before anything is written.
    """
    name = MODELS[model]
    config = PAPER_CONFIGS[name]
    if size.stack.get("hidden_size", 0) < 64:  # tiny
        config = type(config)(**{**config.to_dict(), **TINY, "head_dim": 16, "layer_types": None})
    weights = weight_bytes(config)
    check_room(weights, device)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / PRESETS[name].hub_id.split("/")[1]
        write_checkpoint(checkpoint, config, TOKENIZERS / name.rsplit("-", 1)[0])
        backends = ("hooked", "bridge") if HAS_HOOKED else ("bridge",)
        return [in_child(pipeline, str(checkpoint), name, backend, device, weights) for backend in backends]


def empty_model(config: PreTrainedConfig) -> Any:
    """The model on the meta device: shapes, no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def weight_bytes(config: PreTrainedConfig) -> int:
    """What the weights take in bfloat16."""
    return sum(2 * tensor.numel() for tensor in empty_model(config).parameters())


def check_room(weights: int, device: str, folder: str | None = None) -> None:
    """Raise `NotEnoughRoomError` unless disk and memory have room for these weights now."""
    free = shutil.disk_usage(folder or tempfile.gettempdir()).free
    if free < weights + GIB:
        raise NotEnoughRoomError(
            f"the checkpoint takes {weights / GIB:.1f} GiB in {tempfile.gettempdir()}, where {free / GIB:.1f} GiB are free: "
            "make room, or name another disk with TMPDIR"
        )
    needed = ROOM * weights + BESIDE
    available = available_memory(device)
    if available < needed:
        where = "the GPU" if device.startswith("cuda") else "memory"
        raise NotEnoughRoomError(
            f"the run takes about {needed / GIB:.1f} GiB of {where}, and {available / GIB:.1f} GiB are available now"
        )


def available_memory(device: str) -> int:
    """Bytes that can be had now: of the GPU, or of the machine (Linux's MemAvailable, which counts caches as free)."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def write_checkpoint(folder: Path, config: PreTrainedConfig, tokenizer: Path) -> None:
    """A folder in Hugging Face layout, a shard a layer, so that no more than one is in memory."""
    folder.mkdir()
    place: dict[str, str] = {}
    for number, shard in enumerate(_shards(empty_model(config))):
        file = f"model-{number:05d}.safetensors"
        generator = torch.Generator().manual_seed(number)
        save_file({name: _random(one, generator) for name, one in shard.items()}, folder / file, {"format": "pt"})
        place |= dict.fromkeys(shard, file)
    index = {"metadata": {}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.architectures = [type(empty_model(config)).__name__]
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)


def _shards(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Parameters of each layer, then the rest, one a shard."""
    parameters = dict(model.named_parameters())
    for layer in range(model.config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        yield {name: parameters.pop(name) for name in list(parameters) if name.startswith(prefix)}
    for name, one in parameters.items():
        yield {name: one}


def _random(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if like.ndim == 1:
        return torch.ones(like.shape, dtype=like.dtype)
    # Uniform with the usual deviation of .02: half the time of a normal draw.
    return torch.empty(like.shape, dtype=like.dtype).uniform_(-0.035, 0.035, generator=generator)


def pipeline(folder: str, name: str, backend: Any, device: str, weights: int) -> Row:
    """Everything, in this process; times, memory beside the weights' own size, and what was found."""
    start = time.perf_counter()
    model = cl.load_model(folder, backend=backend, device=device, dtype=torch.bfloat16)
    loaded = time.perf_counter()
    corpus = cl.ParallelCorpus.bundled(LANGUAGES).take([0])
    cats = cl.categorize(cl.collect_statistics(model, corpus, progress=False))
    collected = time.perf_counter()
    layers = cl.select_bridge_layers(cats)
    clas = cl.Clas(cats, layers=layers, alpha=-2.0)
    with cl.steer(model, clas, language="de"):
        text = cl.generate(model, ["Die Hauptstadt von Frankreich ist"], max_new_tokens=2)
    generated = time.perf_counter()
    task = cl.tasks.XNLI("bundled", ("de",), split="test", limit=1)
    rows = cl.evaluate(model, task, {"base": None, "clas": clas}, allow_overlap=True, progress=False)
    answered = time.perf_counter()
    return {
        "what": f"{name}, {backend}, {device}",
        "weights_gib": round(weights / GIB, 2),
        "peak_over_weights": _peak_over(weights, device),
        "load_s": round(loaded - start, 1),
        "collect_s": round(collected - loaded, 1),
        "generate_s": round(generated - collected, 1),
        "xnli_s": round(answered - generated, 1),
        "bridge_layers": f"{layers[0]}-{layers[-1]}",
        "paper_layers": layers == PRESETS[name].bridge_layers,
        "checked": cl.models.describe_model(model)["checked"],
        "new_texts": len(text),
        "answers": len(rows),
        **_prompt_facts(model, task),
    }


def _peak_over(weights: int, device: str) -> float:
    """Peak memory in times the weights: of the GPU, or of this process."""
    if device.startswith("cuda"):
        return round(torch.cuda.max_memory_allocated(device) / weights, 3)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / weights, 3)


def _prompt_facts(model: Any, task: Any) -> Row:
    """The chat prompt: how many BOS, and what the position that is scored follows (the assistant's header)."""
    tokenizer = model.tokenizer
    (prompt,) = task.prompts(model, "de")
    bos = bos_prefix(tokenizer)
    return {
        "prompt_tokens": len(prompt.ids),
        "bos_tokens": sum(list(prompt.ids).count(token) for token in bos),
        "scored_after": repr(tokenizer.decode(prompt.ids[-3:])),
    }
