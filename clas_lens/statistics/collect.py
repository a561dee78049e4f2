"""The forward loop that feeds the statistics: one streaming pass per language."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.artifacts import content_key, keep, provenance, remembered
from clas_lens.cluster.work import Runner, Tell, runner_of
from clas_lens.corpus.arguments import check_bare, given_corpus, given_model, given_sizes
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.reading import (
    Reading,
    in_one_pass,
    read_batches,
    read_items,
    readings,
    token_limit,
    tokenize_corpus,
)
from clas_lens.corpus.tokens import TokenBatch
from clas_lens.given import given_path, given_word
from clas_lens.models.identity import describe_model
from clas_lens.models.room import noting_halvings
from clas_lens.models.sites import (
    LensModel,
    Site,
    device_of,
    gate_activation,
    gate_activations_seen,
    gate_name,
    hooked,
)
from clas_lens.models.units import check_units, flat, n_units
from clas_lens.statistics.accumulator import NeuronAccumulator, token_weights
from clas_lens.statistics.files import KIND, LanguageOrigin, accumulator_of, language_path
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.vocabulary import PaddingSide, Pooling, UnitSite


def collect_statistics(
    model: LensModel,
    corpus: ParallelCorpus | Mapping[str, Sequence[str]],
    *,
    batch_size: int = 16,
    pooling: Pooling = "sample",
    max_tokens: int = 512,
    padding_side: PaddingSide = "left",
    histograms: bool = False,
    site: UnitSite = "mlp",
    out: str | Path | None = None,
    progress: bool = True,
    cluster: Runner | None = None,
) -> NeuronStatistics:
    """Measure every MLP neuron of `model` (or every unit of its attention heads) on every language of `corpus`.

    Nothing is kept per token, so memory does not grow with the corpus, and the unembedding is skipped. Padding and BOS
    positions do not count.

    Args:
        corpus: parallel texts; a mapping of language code to texts is taken as `ParallelCorpus.from_texts` takes it.
        batch_size: texts a forward pass, at most (on a CPU fewer where they are long or would be padded much); batches hold
            texts of similar length. It changes results only by float error. A batch that the device has no memory for is read
            in halves; `stats.made[language]["halved"]` says of how many texts such batches were.
        pooling: "sample" (mean over a sample's tokens, then over samples), "token" or "last"; recorded in the result.
        max_tokens: longer texts are cut here (the paper's 512); how many were is in `stats.texts[language]["truncated"]`.
        padding_side: does not change the result; "left" is what generation uses.
        histograms: also count how the values of h and of the gate are distributed, for `act_prob` and percentiles; 768
            bytes a neuron and language (350 MB a language for Llama 3.1 8B), and a slower pass.
        site: "mlp", the input of the down projection; or "attn", the input of attention's output projection: the heads' outputs
            side by side (`to_heads` parts them). Attention has no gate, so that what is made of gates (LAPE) needs "mlp".
        out: a folder for one file a language. A language whose file is there, for the same model, site, texts and settings, is
            not measured again, so an interrupted run goes on where it stopped.
        progress: show a bar over all languages' batches.
        cluster: who measures, such as `cl.cluster.RayCluster(workers=8)`; None is this process. Results are the same to the
            last bit on the same kind of hardware: a language is measured in the same parts and they are added up in order.

    Raises:
        ClusterError: of the cluster.
        NonFiniteActivationError: NaN or infinite activations, with layer and language.
        ModelLoadError: a model without hook points at this site.
        ValueError: a model without a tokenizer or on which something else acts (`steer`; your own hooks, with `out`), or an
            argument of another kind.
    """
    if out is not None:
        given_path("out", out)
    model, corpus = given_model(model), given_corpus(corpus)
    batch_size, max_tokens = given_sizes(batch_size, max_tokens)
    pooling = given_word("pooling", pooling, get_args(Pooling))
    side = given_word("padding_side", padding_side, get_args(PaddingSide))
    site = given_word("site", site, get_args(UnitSite))
    runner = runner_of(cluster)
    check_units(model, site)
    check_bare(model, "collect_statistics", kept=out is not None)
    texts = tokenize_corpus(model, corpus, max_tokens)
    described = describe_model(model, site)
    settings = {"max_tokens": token_limit(model, max_tokens), "corpus": corpus.name}
    origins = {
        code: LanguageOrigin(
            language=code,
            pooling=pooling,
            histograms=histograms,
            example_ids=corpus.ids,
            model=described,
            settings=settings,
            text={
                "fingerprint": content_key(corpus.ids, held.ids),
                "truncated": len(held.truncated),
                "content": corpus.known_by(code),
            },
        )
        for code, held in texts.items()
    }
    paths = {code: None if out is None else language_path(Path(out), code) for code in origins}
    found = {code: remembered(paths[code], KIND, origin.key()) for code, origin in origins.items()}
    made = {code: provenance() if held is None else held.header["provenance"] for code, held in found.items()}
    measured = {code: accumulator_of(held) for code, held in found.items() if held is not None}
    unmeasured = {code: held for code, held in texts.items() if code not in measured}
    # Rows in corpus order, so that the first of several equal maxima is the earliest example.
    todo = [
        part
        for item in (readings(model, unmeasured, batch_size, cluster=runner) if unmeasured else [])
        for part in replace(item, batches=tuple(tuple(sorted(rows)) for rows in item.batches), side=side).parts()
    ]
    measure = partial(measure_item, pooling=pooling, histograms=histograms, site=site)
    done = read_items(model, todo, measure, what="collect", progress=progress, cluster=runner)
    for code, sums in _whole_languages(todo, done):
        measured[code] = sums
        made[code] |= {"halved": sums.halved} if sums.halved else {}
        content = origins[code].content(sums.sums, sums.n_samples, sums.n_tokens, made[code])
        keep(paths[code], KIND, origins[code].key(), content)
    return NeuronStatistics.from_accumulators(
        {code: measured[code] for code in origins},
        example_ids=corpus.ids,
        model=described,
        settings=settings,
        texts={code: origin.text for code, origin in origins.items()},
        made=made,
    )


def _whole_languages(
    items: Sequence[Reading], done: Iterable[tuple[Reading, NeuronAccumulator]]
) -> Iterator[tuple[str, NeuronAccumulator]]:
    """Each language once its parts are there, added up in their order, in which they need not come."""
    parts = Counter(item.language for item in items)
    waiting: dict[tuple[str, int | None], NeuronAccumulator] = {}
    merged: dict[str, NeuronAccumulator] = {}
    n_merged = Counter[str]()
    for item, sums in done:
        code = item.language
        waiting[code, item.number] = sums
        while (part := waiting.pop((code, n_merged[code]), None)) is not None:
            if code in merged:
                merged[code].merge(part)
            else:
                merged[code] = part
            n_merged[code] += 1
        if n_merged[code] == parts[code]:
            yield code, merged.pop(code)


def measure_item(
    model: LensModel, item: Reading, tell: Tell, *, pooling: Pooling, histograms: bool, site: UnitSite = "mlp"
) -> NeuronAccumulator:
    """The sums over one item's texts, on the CPU: a function of the model and the item alone.

    Raises:
        NonFiniteActivationError: NaN or infinite activations.
    """

    def nothing() -> NeuronAccumulator:
        shape, gate = (model.cfg.n_layers, n_units(model, site)), site == "mlp"
        return NeuronAccumulator(*shape, pooling=pooling, histograms=histograms, gate=gate, device=device_of(model))

    def read(batch: TokenBatch) -> NeuronAccumulator:
        # Of this batch alone: a pass that the device has no memory for leaves nothing in the language's.
        sums = nothing()
        sums.know_maxima(accumulator)
        in_one_pass(model, lambda batch: _BatchReader(model, site, sums, batch).attached())(batch)
        sums.count(samples=len(batch.rows), tokens=int(batch.content_mask.sum()))
        return sums

    accumulator = nothing()
    with noting_halvings() as halved:
        for _, sums in read_batches(model, item, read, tell):
            sums.check_finite(item.language)
            accumulator.merge(sums)
    accumulator.halved = halved
    accumulator.sums = accumulator.sums.each(Tensor.cpu)
    return accumulator


class _BatchReader:
    """Hooks that add one batch's activations to the sums, layer by layer."""

    def __init__(self, model: LensModel, site: UnitSite, accumulator: NeuronAccumulator, batch: TokenBatch) -> None:
        counted = _last_only(batch) if accumulator.pooling == "last" else batch.content_mask
        row_of, _ = counted.nonzero(as_tuple=True)
        (self._rows,) = counted.flatten().nonzero(as_tuple=True)
        self._weights = token_weights(counted.sum(1).tolist(), accumulator.pooling).to(counted.device)
        self._examples = torch.tensor(batch.rows, device=counted.device)[row_of]
        self._positions = (batch.content_mask.cumsum(1) - 1)[counted]
        self._model, self._site, self._accumulator = model, site, accumulator
        self._gate: tuple[int, Tensor] | None = None  # a layer's, until what its nonlinearity makes of it is known

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Forward passes inside are read."""
        layers = range(self._model.cfg.n_layers)
        units = [(Site(self._site, layer).hook_name(self._model), partial(self._on_units, layer)) for layer in layers]
        if self._site != "mlp":
            with hooked(self._model, units):
                yield
            return
        gates = [(gate_name(layer), partial(self._on_gate, layer)) for layer in layers]
        with hooked(self._model, gates + units), gate_activations_seen(self._model, self._on_activated):
            yield

    def _on_gate(self, layer: int, activation: Tensor, hook: object) -> None:
        gate = _rows(activation)
        self._gate = layer, gate
        # Now: a nonlinearity may work in place.
        self._accumulator.update_gate(layer, gate, self._weights, self._rows)

    def _on_activated(self, activated: Tensor) -> None:
        if self._gate is not None:
            self._add_activated(self._gate[0], _rows(activated))

    def _on_units(self, layer: int, activation: Tensor, hook: object) -> None:
        if self._gate is not None:  # the nonlinearity was not seen
            self._add_activated(layer, gate_activation(self._model, layer)(self._gate[1]))
        post = _rows(activation)
        self._accumulator.update(layer, post, self._weights, self._examples, self._positions, self._rows)

    def _add_activated(self, layer: int, activated: Tensor) -> None:
        self._gate = None
        self._accumulator.update_activated(layer, activated, self._weights, self._rows)


def _rows(activation: Float[Tensor, "batch pos *width"]) -> Float[Tensor, "row unit"]:
    """A row a place of the batch, the padding's too."""
    return flat(activation).flatten(0, 1)


def _last_only(batch: TokenBatch) -> Tensor:
    """Only each row's last content token, on whichever side the padding is."""
    counts = batch.content_mask.cumsum(1)
    return batch.content_mask & (counts == counts[:, -1:])
