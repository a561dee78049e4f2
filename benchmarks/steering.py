"""Steered against unsteered passes and generation, and against other ways to scale the same neurons."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from transformers import PreTrainedModel

import clas_lens as cl
from benchmarks.measure import Row, compared, interleaved
from benchmarks.models import Size, clas_of, hf_model, lens_model, texts, tokenizer
from clas_lens.corpus.tokens import pad, tokenize
from clas_lens.models.forward import run_layers
from clas_lens.models.sites import LensModel, device_of, post_name
from clas_lens.steering.generate import generate_tokens

LANGUAGE = "de"


def run(size: Size, rounds: int) -> list[Row]:
    """Forward passes and generation, on both backends and on the plain model."""
    plain = hf_model(size.model, **size.stack)
    models = {"hooked": lens_model(plain, size.model), "bridge": lens_model(plain, size.model, "bridge")}
    clas = clas_of(models["hooked"], size)
    ids = tokenize(tokenizer(size.model), texts(size)[LANGUAGE][: size.batch]).ids
    rows = []
    for backend, model in models.items():
        rows += _forward(backend, model, clas, ids, rounds)
        rows += _generation(backend, model, clas, ids, size.new_tokens, rounds)
    return [*rows, *_plain(plain, size.model, clas, ids, rounds)]


def _forward(backend: str, model: LensModel, clas: cl.Clas, ids: Any, rounds: int) -> list[Row]:
    batch = pad(ids, range(len(ids)), device=device_of(model))
    scales = {layer: scale.to(batch.tokens.device).float() for layer, scale in clas.scale(LANGUAGE).items()}

    def forward() -> None:
        run_layers(model, batch.tokens, batch.attention_mask)

    def by_hand() -> None:
        hooks = [
            (post_name(layer), lambda h, hook, scale=scale: (h * scale).to(h.dtype)) for layer, scale in scales.items()
        ]
        with model.hooks(fwd_hooks=hooks):
            forward()

    def steered() -> None:
        with cl.steer(model, clas, LANGUAGE):
            forward()

    contenders = {"unsteered": forward, "steer": steered, "model.hooks by hand": by_hand}
    named = {f"forward, {backend}: {name}": function for name, function in contenders.items()}
    tokens = int(batch.attention_mask.sum())
    return compared(interleaved(named, rounds), f"forward, {backend}: unsteered", amount=tokens, unit="tokens")


def _generation(backend: str, model: LensModel, clas: cl.Clas, ids: Any, new: int, rounds: int) -> list[Row]:
    made = {}

    def generate(name: str) -> Callable[[], None]:
        def plain() -> None:
            made[name] = generate_tokens(model, ids, max_new_tokens=new)

        def steered() -> None:
            with cl.steer(model, clas, LANGUAGE):
                plain()

        return steered if name == "steer" else plain

    named = {f"generation, {backend}: {name}": generate(name) for name in ("unsteered", "steer")}
    seconds = interleaved(named, rounds)
    # Steered texts can end earlier or later, so what counts is the time a token.
    tokens = {full: sum(map(len, made[full.split(": ")[1]])) for full in seconds}
    each = {full: [one / tokens[full] for one in taken] for full, taken in seconds.items()}
    return compared(each, f"generation, {backend}: unsteered", amount=1, unit="tokens")


@contextmanager
def _torch_hooks(plain: PreTrainedModel, scales: dict[int, torch.Tensor]) -> Iterator[None]:
    """What steering-vectors and repeng do: a hook of PyTorch's on a module of the model, here at our site."""

    def scaling(scale: torch.Tensor) -> Callable[..., tuple[torch.Tensor]]:
        return lambda module, args: ((args[0] * scale).to(args[0].dtype),)

    layers = plain.model.layers
    handles = [layers[i].mlp.down_proj.register_forward_pre_hook(scaling(scale)) for i, scale in scales.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _plain(plain: PreTrainedModel, name: str, clas: cl.Clas, ids: Any, rounds: int) -> list[Row]:
    batch = pad(ids, range(len(ids)), device=plain.device)
    scales = {layer: scale.to(plain.device).float() for layer, scale in clas.scale(LANGUAGE).items()}
    inputs = {"input_ids": batch.tokens, "attention_mask": batch.attention_mask}

    def forward() -> None:
        with torch.inference_mode():
            plain.model(**inputs, use_cache=False)

    def hooked() -> None:
        with _torch_hooks(plain, scales):
            forward()

    contenders: dict[str, Callable[[], None]] = {"unsteered": forward, "hooks of PyTorch's": hooked}
    if find_spec("nnsight"):
        from nnsight import LanguageModel

        traced = LanguageModel(plain, tokenizer=tokenizer(name))

        def with_nnsight() -> None:
            with torch.inference_mode(), traced.trace(inputs):
                for layer, scale in scales.items():
                    down = traced.model.layers[layer].mlp.down_proj
                    down.input = down.input * scale

        contenders["nnsight"] = with_nnsight
    named = {f"forward, Hugging Face: {name}": function for name, function in contenders.items()}
    tokens = int(batch.attention_mask.sum())
    return compared(interleaved(named, rounds), "forward, Hugging Face: unsteered", amount=tokens, unit="tokens")
