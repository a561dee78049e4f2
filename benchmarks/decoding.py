"""Greedy decoding with a KV cache: Hugging Face, HookedTransformer in the stock layout, and ours, from the same weights."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import LlamaConfig, PreTrainedModel

from benchmarks.measure import Row, compared, interleaved
from benchmarks.models import LLAMA_8B, Size, hf_model, lens_model
from clas_lens.models.decoding import make_decoder
from clas_lens.models.load import load_model
from clas_lens.models.sites import LensModel

PROMPT_LENGTH, NEW_TOKENS = 64, 16


def wide_stack() -> PreTrainedModel:
    """A random bfloat16 stack of Llama 3.1 8B's width, 3 layers deep."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**{**LLAMA_8B, "num_hidden_layers": 3})
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def stock_layout(model: LensModel) -> LensModel:
    """A copy in the layout that `HookedTransformer.from_pretrained` leaves."""
    tokenizer = model.tokenizer  # half a million tokens, which need no copy
    model = copy.deepcopy(model, {id(tokenizer): tokenizer})
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return model


def run(size: Size, rounds: int) -> list[Row]:
    """The size's own model on both backends; on a CPU also the wide stack, which has no tokenizer, as a HookedTransformer."""
    plain = hf_model(size.model, **size.stack)
    rows = _decode(size.model, plain, load_model(plain), lens_model(plain, size.model, "bridge"), rounds=rounds)
    if size.model == "gemma-3-270m":
        wide = wide_stack()
        rows += _decode("3 layers of Llama 3.1 8B's width, bfloat16", wide, load_model(wide), None, rounds=rounds)
    return rows


def _decode(name: str, plain: Any, hooked: LensModel, bridge: LensModel | None, *, rounds: int) -> list[Row]:
    tokens = torch.arange(100, 100 + PROMPT_LENGTH, device=plain.device)[None]

    def hugging_face() -> None:
        mask = torch.ones_like(tokens)
        with torch.inference_mode():
            plain.generate(
                tokens, attention_mask=mask, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, do_sample=False
            )

    contenders: dict[str, Callable[[], object]] = {
        f"{name}: Hugging Face": hugging_face,
        f"{name}: HookedTransformer, stock layout": partial(_own, stock_layout(hooked), tokens),
        f"{name}: clas_lens": partial(_own, hooked, tokens),
    }
    if bridge is not None:
        contenders[f"{name}: clas_lens, bridge"] = partial(_own, bridge, tokens)
    return compared(interleaved(contenders, rounds), f"{name}: Hugging Face", amount=NEW_TOKENS, unit="tokens")


def _own(model: LensModel, tokens: torch.Tensor) -> None:
    decoder = make_decoder(model, len(tokens))
    with torch.inference_mode():
        for _ in range(NEW_TOKENS):
            tokens = decoder.step(tokens, torch.ones_like(tokens)).argmax(-1)[:, None]
