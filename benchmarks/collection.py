"""Collecting statistics against the least that it could take, the usual recipe, and nnsight."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

import clas_lens as cl
from benchmarks.decoding import stock_layout
from benchmarks.measure import Row, compared, interleaved
from benchmarks.models import Size, hf_model, lens_model, texts, tokenizer
from clas_lens.corpus.tokens import TokenBatch, forward_batches, length_batches, pad, tokenize
from clas_lens.models.forward import run_layers
from clas_lens.models.sites import LensModel, device_of, post_name

FLOOR = "Hugging Face forward, no LM head, our batches"
FULL = "Hugging Face forward, no LM head, full batches of similar length"


def our_batches(size: Size, corpus: cl.ParallelCorpus, device: torch.device) -> list[TokenBatch]:
    """The batches that `collect_statistics` makes."""
    return _batches(size, corpus, device, partial(forward_batches, device=device))


def _batches(
    size: Size, corpus: cl.ParallelCorpus, device: torch.device, cut: Callable[[list[int], int], list[list[int]]]
) -> list[TokenBatch]:
    found = []
    for code in corpus.languages:
        ids = tokenize(tokenizer(size.model), corpus[code]).ids
        found += [pad(ids, rows, device=device) for rows in cut([len(row) for row in ids], size.batch)]
    return found


def run_batches(model: LensModel, batches: list[TokenBatch]) -> None:
    """Passes that nobody looks at."""
    for batch in batches:
        run_layers(model, batch.tokens, batch.attention_mask)


def recipe(model: LensModel, corpus: cl.ParallelCorpus) -> dict[str, torch.Tensor]:
    """What is usually written: a text at a time, everything cached, stacked and averaged."""
    means = {}
    for code in corpus.languages:
        samples = []
        for text in corpus[code]:
            _, cache = model.run_with_cache(text, names_filter=lambda name: name.endswith("mlp.hook_post"))
            samples.append(torch.stack([cache[post_name(i)][0, 1:].mean(0) for i in range(model.cfg.n_layers)]))
        means[code] = torch.stack(samples).mean(0)
    return means


def with_nnsight(model: Any, batches: list[TokenBatch]) -> list[torch.Tensor]:
    """The same mean with nnsight, in the same batches."""
    totals: list[torch.Tensor] = []
    for batch in batches:
        saved = []
        with model.trace({"input_ids": batch.tokens, "attention_mask": batch.attention_mask}):
            for layer in model.model.layers:
                saved.append(layer.mlp.down_proj.input.save())
        totals.append(torch.stack([h[batch.attention_mask.bool()].mean(0) for h in saved]))
    return totals


def run(size: Size, rounds: int) -> list[Row]:
    """All contenders on the same texts."""
    plain = hf_model(size.model, **size.stack)
    hooked, bridge = lens_model(plain, size.model), lens_model(plain, size.model, "bridge")
    corpus = texts(size)
    device = device_of(hooked)
    batches, full = our_batches(size, corpus, device), _batches(size, corpus, device, length_batches)

    def floor(batches: list[TokenBatch] = batches) -> None:
        with torch.inference_mode():
            for batch in batches:
                plain.model(input_ids=batch.tokens, attention_mask=batch.attention_mask, use_cache=False)

    def bare(model: LensModel) -> Callable[[], None]:
        return lambda: run_batches(model, batches)

    def collecting(model: LensModel) -> Callable[[], object]:
        return lambda: cl.collect_statistics(model, corpus, batch_size=size.batch, progress=False)

    contenders: dict[str, Callable[[], object]] = {
        FLOOR: floor,
        FULL: partial(floor, full),
        "bare HookedTransformer forward": bare(hooked),
        "collect_statistics, bridge": collecting(bridge),
        "collect_statistics, hooked": collecting(hooked),
    }
    slow: dict[str, Callable[[], object]] = {
        "run_with_cache recipe, stock layout": partial(recipe, stock_layout(hooked), corpus),
        "run_with_cache recipe, our layout": partial(recipe, hooked, corpus),
    }
    if find_spec("nnsight"):
        from nnsight import LanguageModel

        traced = LanguageModel(plain, tokenizer=tokenizer(size.model))
        slow["nnsight, same batches"] = lambda: with_nnsight(traced, batches)
    tokens = sum(int(batch.attention_mask.sum()) for batch in batches)
    # Differences of some percent need more rounds than ratios of three and more.
    rows = compared(interleaved(contenders, 3 * rounds), FLOOR, amount=tokens, unit="tokens")
    rows += compared(interleaved({FLOOR: floor, **slow}, rounds), FLOOR, amount=tokens, unit="tokens")[1:]
    return [*rows, *_achieved(plain, rows)]


def _achieved(plain: Any, rows: list[Row]) -> list[Row]:
    """Achieved FLOP/s of the collection on a GPU: two a weight and token, embeddings apart."""
    if not torch.cuda.is_available():
        return []
    weights = sum(p.numel() for name, p in plain.named_parameters() if "embed" not in name and "lm_head" not in name)
    return [
        {"what": f"achieved TFLOP/s, {row['what']}", "TFLOP/s": round(2 * weights * row["tokens/s"] / 1e12, 1)}
        for row in rows
        if "collect" in row["what"]
    ]
