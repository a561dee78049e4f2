"""The models and texts that are measured: real ones on a CPU, full-size random ones on a GPU, tiny ones to try the code."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

import clas_lens as cl
from clas_lens.models.checkpoints import find_checkpoint
from clas_lens.models.sites import LensModel

TOKENIZERS = Path(__file__).parents[2] / "shared" / "tokenizers"
LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
QWEN_7B: dict[str, Any] = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 8192,
}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        model: "gemma-3-270m" (real weights), or a random one: "llama-8b", "qwen-7b", "stack" (Llama's 32 layers, narrow).
        texts: examples a language for collection; `questions` and `hypotheses` (None: all there are) for evaluation.
        batch: texts or prompts a forward pass.
        stack: shape of "stack", and of the stack of Llama's depth that searches are measured on.
    """

    model: str
    texts: int
    questions: int
    new_tokens: int
    batch: int = 16
    languages: tuple[str, ...] = ("en", "de", "zh")
    stack: dict[str, Any] = field(default_factory=dict)
    growth_texts: tuple[int, ...] = (100, 1000, 10_000)
    hypotheses: int | None = None


NARROW = {"hidden_size": 256, "intermediate_size": 896, "num_attention_heads": 8, "num_key_value_heads": 2}
SIZES = {
    "tiny": Size(
        "stack",
        4,
        3,
        2,
        languages=("en", "de"),
        stack=NARROW | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5},
        growth_texts=(10, 20),
        hypotheses=6,
    ),
    "cpu": Size("gemma-3-270m", 40, 12, 12, stack=NARROW),
    "gpu": Size("llama-8b", 120, 24, 32, batch=32, languages=("en", "de", "zh", "sw"), stack=LLAMA_8B),
    "gpu-qwen": Size("qwen-7b", 120, 24, 32, batch=32, languages=("en", "de", "zh", "sw"), stack=QWEN_7B),
}


@cache
def tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Gemma's for all but the full-size models, whose real ones lie beside the checkout."""
    local = {"llama-8b": "llama-3.1", "qwen-7b": "qwen-2.5"}.get(name)
    return AutoTokenizer.from_pretrained(
        find_checkpoint("gemma-3-270m").folder if local is None else TOKENIZERS / local
    )


def hf_model(name: str, **shape: Any) -> PreTrainedModel:
    """The plain Hugging Face model, float32 on a CPU and bfloat16 on a GPU."""
    device, dtype = device_and_dtype()
    if name == "gemma-3-270m":
        model = AutoModelForCausalLM.from_pretrained(find_checkpoint(name).folder, dtype=dtype)
        return model.eval().to(device)
    torch.manual_seed(0)
    if name == "qwen-7b":
        config: Any = Qwen2Config(**QWEN_7B)
    else:
        size = len(tokenizer(name))
        config = LlamaConfig(
            **(LLAMA_8B if name == "llama-8b" else {**LLAMA_8B, "vocab_size": size, **NARROW, **shape})
        )
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def device_and_dtype() -> tuple[str, torch.dtype]:
    """The GPU in bfloat16 if there is one, else the CPU in float32."""
    return ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)


def lens_model(model: PreTrainedModel, name: str, backend: Any = "hooked") -> LensModel:
    """The same weights, not copied, in one of our two backends."""
    return cl.load_model(model, tokenizer=tokenizer(name), backend=backend)


def texts(size: Size, count: int | None = None) -> cl.ParallelCorpus:
    """The bundled corpus, repeated where more texts are asked for than it has."""
    corpus = cl.ParallelCorpus.bundled(size.languages)
    wanted = size.texts if count is None else count
    rows = [row % len(corpus) for row in range(wanted)]
    values = {code: tuple(corpus[code][row] for row in rows) for code in corpus.languages}
    return cl.ParallelCorpus(values, tuple(f"text-{place}" for place in range(wanted)))


def clas_of(model: LensModel, size: Size, layers: tuple[int, ...] | None = None) -> cl.Clas:
    """CLAS from a few texts; by default in the layers that the paper's rule names."""
    cats = cl.categorize(cl.collect_statistics(model, texts(size, 8), progress=False))
    return cl.Clas(cats, layers=cl.select_bridge_layers(cats, layers=layers), alpha=-2.0)
