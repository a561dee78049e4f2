"""The forward loop that feeds the statistics: one streaming pass per language."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clas_lens.artifacts import ArtifactError, content_key, read_header
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.tokens import TokenBatch, TokenizedTexts, forward_batches, pad, require_tokenizer, tokenize
from clas_lens.models.identity import describe_model
from clas_lens.models.sites import (
    LensModel,
    check_mlp_hooks,
    device_of,
    gate_activation,
    gate_activations_seen,
    gate_name,
    hooked,
    post_name,
    run_layers,
)
from clas_lens.statistics.accumulator import HISTOGRAMS, TENSORS, NeuronAccumulator, token_weights
from clas_lens.statistics.neurons import KIND, NeuronStatistics
from clas_lens.vocabulary import PaddingSide, Pooling


def collect_statistics(
    model: LensModel,
    corpus: ParallelCorpus,
    *,
    batch_size: int = 16,
    pooling: Pooling = "sample",
    max_tokens: int = 512,
    padding_side: PaddingSide = "left",
    histograms: bool = False,
    out: str | Path | None = None,
    progress: bool = True,
) -> NeuronStatistics:
    """Measure every MLP neuron of `model` on every language of `corpus`.

    Nothing is kept per token, so memory does not grow with the corpus, and the unembedding is skipped. Padding and BOS
    positions do not count.

    Args:
        batch_size: texts a forward pass, at most (on a CPU fewer where they are long); batches hold texts of similar
            length. It changes results only by float error.
        pooling: "sample" (mean over a sample's tokens, then over samples), "token" or "last"; recorded in the result.
        max_tokens: longer texts are cut here (the paper's 512); how many were is in `stats.texts[language]["truncated"]`.
        padding_side: does not change the result; "left" is what generation uses.
        histograms: also count how the values of h and of the gate are distributed, for `act_prob` and percentiles; 768
            bytes a neuron and language (350 MB a language for Llama 3.1 8B), and a slower pass.
        out: a folder for one file a language. A language whose file is there, for the same model, texts and settings, is
            not measured again, so an interrupted run goes on where it stopped.
        progress: show a bar over all languages' batches.

    Raises:
        NonFiniteActivationError: NaN or infinite activations, with layer and language.
        ValueError: a model without a tokenizer.
    """
    check_mlp_hooks(model)
    tokenizer = require_tokenizer(model)
    limit = min(max_tokens, model.cfg.n_ctx)
    texts = {code: tokenize(tokenizer, corpus[code], max_tokens=limit) for code in corpus.languages}
    shared: dict[str, Any] = {
        "example_ids": corpus.ids,
        "model": describe_model(model),
        "settings": {"max_tokens": limit, "corpus": corpus.name},
    }
    described = {
        code: {"fingerprint": content_key(corpus.ids, texts[code].ids), "truncated": len(texts[code].truncated)}
        for code in corpus.languages
    }
    folder = None if out is None else Path(out)
    done = [c for c in corpus.languages if _is_done(folder, c, pooling, described[c], shared, histograms)]
    batches = {
        code: forward_batches([len(row) for row in texts[code].ids], batch_size, device_of(model))
        for code in corpus.languages
        if code not in done
    }
    accumulators = NeuronStatistics.load(folder, done).accumulators() if folder and done else {}
    with tqdm(total=sum(map(len, batches.values())), unit="batch", disable=not progress) as bar:
        for language, groups in batches.items():
            bar.set_description(f"collect {language}")
            accumulator = NeuronAccumulator(
                model.cfg.n_layers, model.cfg.d_mlp, pooling=pooling, histograms=histograms, device=device_of(model)
            )
            for rows in groups:
                _add_batch(model, accumulator, texts[language], rows, padding_side)
                accumulator.check_finite(language)
                bar.update()
            accumulators[language] = accumulator
            if folder is not None:
                only = {language: described[language]}
                NeuronStatistics.from_accumulators({language: accumulator}, texts=only, **shared).save(folder)
    return NeuronStatistics.from_accumulators(
        {code: accumulators[code] for code in corpus.languages}, texts=described, **shared
    )


def _add_batch(
    model: LensModel,
    accumulator: NeuronAccumulator,
    texts: TokenizedTexts,
    rows: list[int],
    padding_side: PaddingSide,
) -> None:
    # Rows in corpus order, so that the first of several equal maxima is the earliest example.
    batch = pad(texts.ids, sorted(rows), n_prefix=texts.n_prefix, side=padding_side, device=device_of(model))
    reader = _BatchReader(model, accumulator, batch)
    with reader.attached():
        run_layers(model, batch.tokens, batch.attention_mask)
    accumulator.count(samples=len(rows), tokens=int(batch.content_mask.sum()))


class _BatchReader:
    """Hooks that add one batch's activations to the sums, layer by layer."""

    def __init__(self, model: LensModel, accumulator: NeuronAccumulator, batch: TokenBatch) -> None:
        counted = _last_only(batch) if accumulator.pooling == "last" else batch.content_mask
        row_of, _ = counted.nonzero(as_tuple=True)
        (self._chosen,) = counted.flatten().nonzero(as_tuple=True)
        self._weights = token_weights(counted.sum(1).tolist(), accumulator.pooling).to(counted.device)
        self._examples = torch.tensor(batch.rows, device=counted.device)[row_of]
        self._positions = (batch.content_mask.cumsum(1) - 1)[counted]
        self._model, self._accumulator = model, accumulator
        self._gate: tuple[int, Tensor] | None = None  # a layer's, until what its nonlinearity makes of it is known

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Forward passes inside are read."""
        layers = range(self._model.cfg.n_layers)
        hooks = [(gate_name(layer), partial(self._on_gate, layer)) for layer in layers]
        hooks += [(post_name(layer), partial(self._on_post, layer)) for layer in layers]
        with hooked(self._model, hooks), gate_activations_seen(self._model, self._on_activated):
            yield

    def _content(self, activation: Float[Tensor, "batch pos neuron"]) -> Float[Tensor, "token neuron"]:
        return activation.flatten(0, 1).index_select(0, self._chosen)  # faster than a mask of booleans

    def _on_gate(self, layer: int, activation: Tensor, hook: object) -> None:
        self._gate = layer, self._content(activation)

    def _on_activated(self, activated: Tensor) -> None:
        if self._gate is not None:
            self._add_gate(*self._gate, self._content(activated))

    def _on_post(self, layer: int, activation: Tensor, hook: object) -> None:
        if self._gate is not None:  # the nonlinearity was not seen
            self._add_gate(*self._gate, gate_activation(self._model, layer)(self._gate[1]))
        self._accumulator.update(layer, self._content(activation), self._weights, self._examples, self._positions)

    def _add_gate(self, layer: int, gate: Tensor, activated: Tensor) -> None:
        self._gate = None
        self._accumulator.update_gate(layer, gate, activated, self._weights)


def _last_only(batch: TokenBatch) -> Tensor:
    """Only each row's last content token, on whichever side the padding is."""
    counts = batch.content_mask.cumsum(1)
    return batch.content_mask & (counts == counts[:, -1:])


def _is_done(
    folder: Path | None,
    language: str,
    pooling: Pooling,
    text: Mapping[str, Any],
    shared: Mapping[str, Any],
    histograms: bool,
) -> bool:
    """Whether this language's file was made from the same model, texts and settings, and holds the same sums."""
    if folder is None:
        return False
    try:
        header = read_header(folder / f"{language}.safetensors", KIND)
    except ArtifactError:
        return False
    return (
        header.get("tensors") == sorted((*TENSORS, *(HISTOGRAMS if histograms else ())))
        and header["pooling"] == pooling
        and header["text"] == text
        and header["model"] == shared["model"]
        and header["settings"] == shared["settings"]
        and header["example_ids"] == list(shared["example_ids"])
    )
