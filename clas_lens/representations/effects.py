"""What an intervention changes inside the model: the next-token distribution, and the likeness to the anchor language."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from clas_lens.artifacts import content_key, keep, remembered_table
from clas_lens.categories.browser import check_neuron
from clas_lens.cluster.work import Runner, Tell, runner_of
from clas_lens.corpus.arguments import check_bare, given_corpus, given_model, given_sizes
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.reading import (
    Reading,
    in_corpus_order,
    in_one_pass,
    pooling_residuals,
    read_batches,
    read_items,
    readings,
    tokenize_corpus,
)
from clas_lens.corpus.tokens import TokenBatch
from clas_lens.given import given, given_path
from clas_lens.models.blocks import BlockForm, only_layers
from clas_lens.models.forward import last_logits
from clas_lens.models.identity import describe_model
from clas_lens.models.sites import LensModel, Site, check_layers, hooked, residual_name
from clas_lens.models.units import flat
from clas_lens.representations.collect import check_steers_texts, unread_representations
from clas_lens.representations.sentences import Representations
from clas_lens.steering.intervention import Intervention, first_layer
from clas_lens.steering.steer import steer
from clas_lens.vocabulary import UnitSite

KIND = "steering effects"
VERSION = 2  # of the columns
EMPTY = 0.01  # of their length that representations move by, at least, where something was done
Measured = tuple[Tensor, Tensor, Tensor, Tensor]


def measure_effects(
    model: LensModel,
    intervention: Intervention,
    corpus: ParallelCorpus | Mapping[str, Sequence[str]],
    *,
    layers: Sequence[int] | None = None,
    batch_size: int = 16,
    max_tokens: int = 512,
    out: str | Path | None = None,
    representations: str | Path | None = None,
    more_layers: Sequence[int] = (),
    progress: bool = True,
    cluster: Runner | None = None,
) -> pd.DataFrame:
    """Run every text with and without steering and compare. Of `Clas`, or of a control or baseline.

    Sentence representations are the residual stream at the output of each layer, mean over content tokens; cosines are of
    parallel pairs (language, anchor), averaged over pairs and then layers, with the anchor unsteered in both.

    Args:
        layers: where cosines and `moved` are taken; default the intervention's `layers` (or its one `layer`).
        out: a folder for one file a language; those there, made from the same model, texts and intervention, are kept.
        representations: a folder whose `before/` and `after/` keep the sentence representations of this same pass, at
            `layers` and `more_layers`: `collect_representations(..., out=)` with those does not read the texts again.
        cluster: who reads, such as `cl.cluster.RayCluster(workers=8)`; None is this process. Results are the same.

    Returns:
        One row a language: `kl` (mean KL(unsteered || steered) of the next-token distribution after the text, in nats),
        `top1_changed` (share of texts whose most likely next token changed, 0 to 1), `cosine_before`, `cosine_after`, `moved`
        (how far the representations went, as a share of their length), `n_texts`, `n_truncated`. The anchor's row is a check:
        kl and moved are 0 and both cosines are 1.

    Warns:
        UserWarning: an intervention that hardly does anything: no text's next token changed, and nothing moved by more than
            `EMPTY`. Compared with it, any method looks specific.

    Raises:
        ValueError: the anchor is not in the corpus, the intervention steers generated tokens only or names no layers, something
            else acts on the model (`steer`; your own hooks, with `out` or `representations`), or an argument is of another
            kind.
    """
    for name, folder in (("out", out), ("representations", representations)):
        if folder is not None:
            given_path(name, folder)
    model, corpus = given_model(model), given_corpus(corpus)
    batch_size, max_tokens = given_sizes(batch_size, max_tokens)
    check_steers_texts(intervention)
    home = intervention.anchor
    if home not in corpus.languages:
        raise ValueError(
            f"the corpus has no {home!r}, the anchor to compare with; it has: {', '.join(corpus.languages)}"
        )
    runner = runner_of(cluster)
    check_bare(model, "measure_effects", kept=out is not None or representations is not None)
    chosen = check_layers(_steered_layers(intervention) if layers is None else layers, model.cfg.n_layers)
    none_more = isinstance(more_layers, tuple | list) and not more_layers
    more = () if none_more else check_layers(more_layers, model.cfg.n_layers)
    read = tuple(sorted({*chosen, *more}))
    texts = tokenize_corpus(model, corpus, max_tokens)
    inputs = (VERSION, intervention.fingerprint(), describe_model(model), chosen, corpus.ids, texts[home].ids)
    keys = {code: content_key(*inputs, code, held.ids) for code, held in texts.items()}
    paths = {code: None if out is None else Path(out) / f"{code}.parquet" for code in texts}
    kept: dict[Path, Representations] = {}
    if representations is not None:
        for name, one in (("before", None), ("after", intervention)):
            place = Path(representations) / name
            kept[place] = unread_representations(model, corpus, texts, read, pool="mean", intervention=one)
    rows = {code: remembered_table(paths[code], KIND, key) for code, key in keys.items()}
    unread = {code for place, of in kept.items() for code in keys if of.saved_language(place, code) is None}
    todo = [code for code in texts if rows[code] is None or code in unread]
    measured = [home, *(code for code in todo if code != home)] if todo else []
    items = readings(model, {code: texts[code] for code in measured}, batch_size, cluster=runner) if measured else []
    cosine_at = [read.index(layer) for layer in chosen]
    anchor: Float[Tensor, "text layer d_model"] | None = None
    work = partial(_measure, intervention=intervention, layers=read)
    done = read_items(model, items, work, what="effects", progress=progress, cluster=runner)
    for item, (before, after, kl, changed) in _first(home, done):
        language = item.language
        for place, of in kept.items():
            of.save_language(place, language, before if of.intervention is None else after)
        before, after = before[:, cosine_at], after[:, cosine_at]
        anchor = before if anchor is None else anchor
        row = {
            "language": language,
            "kl": float(kl.mean()),
            "top1_changed": float(changed.float().mean()),
            "cosine_before": float(cosine_similarity(before, anchor, dim=-1).mean()),
            "cosine_after": float(cosine_similarity(after, anchor, dim=-1).mean()),
            "moved": float(((after - before).norm(dim=-1) / before.norm(dim=-1)).mean()),
            "n_texts": len(corpus),
            "n_truncated": len(item.texts.truncated),
        }
        if rows[language] is None:
            rows[language] = keep(paths[language], KIND, keys[language], pd.DataFrame([row]))
    effects = pd.concat([rows[code] for code in texts], ignore_index=True)
    _tell_if_empty(effects[effects["language"] != home])
    return effects


def _steered_layers(intervention: Intervention) -> Sequence[int]:
    layers = getattr(intervention, "layers", None)
    layers = (intervention.layer,) if layers is None and hasattr(intervention, "layer") else layers
    if layers is None:
        raise ValueError(f"a {type(intervention).__name__} names no layers: say where cosines are taken, layers=[...]")
    return tuple(layers)


def _tell_if_empty(effects: pd.DataFrame) -> None:
    """Warn where nothing happened in any steered language."""
    if len(effects) and not effects["top1_changed"].any() and effects["moved"].max() < EMPTY:
        warnings.warn(
            f"this intervention hardly does anything: no next token changed and representations moved by "
            f"{100 * effects['moved'].max():.2g}% at most, so a comparison with it says little. (A model that normalises "
            "what its MLPs give, as Gemma does, undoes a factor that all neurons share.)",
            stacklevel=3,
        )


def _first(language: str, done: Iterator[tuple[Reading, Measured]]) -> Iterator[tuple[Reading, Measured]]:
    """The same with this language's item first, which the others are compared with; they wait for it."""
    waiting: list[tuple[Reading, Measured]] = []
    found = False
    for one in done:
        found = found or one[0].language == language
        waiting.insert(0 if one[0].language == language else len(waiting), one)
        while found and waiting:
            yield waiting.pop(0)


def _measure(
    model: LensModel, item: Reading, tell: Tell, *, intervention: Intervention, layers: Sequence[int]
) -> Measured:
    """Representations before and after, KL, and whether the most likely token changed, in corpus order."""

    def read(batch: TokenBatch, start: int) -> tuple[Tensor, Tensor]:
        """Logits after the text, and each text's mean residual stream at the given layers from `start` on."""
        with pooling_residuals(model, batch, [layer for layer in layers if layer >= start]) as pooled:
            return last_logits(model, batch.tokens, batch.attention_mask), pooled

    def both(batch: TokenBatch) -> Measured:
        logits, before, steered_logits, after = twice(batch)
        changed = (logits.argmax(-1) != steered_logits.argmax(-1)).cpu()
        n_shared = before.shape[1] - after.shape[1]
        after = torch.cat([before[:, :n_shared], after], dim=1)
        return before, after, kl_divergence(logits, steered_logits), changed

    twice = _with_and_without(model, intervention, item.language, read, stop=model.cfg.n_layers)
    before, after, kl, changed = in_corpus_order(item, read_batches(model, item, both, tell))
    return before, after, kl, changed


def _with_and_without(
    model: LensModel,
    intervention: Intervention,
    language: str,
    read: Callable[[TokenBatch, int], tuple[Tensor, ...]],
    *,
    stop: int,
) -> Callable[[TokenBatch], tuple[Tensor, ...]]:
    """What `read` makes of a batch as the model is, and then steered. The layers below the intervention are run once, for both.

    Args:
        read: one forward pass of a batch; told the first layer that will run, which is 0 without steering.
        stop: the layer before which passes end.
    """
    start, form = first_layer(model, intervention, [language]), BlockForm()

    def both(batch: TokenBatch) -> tuple[Tensor, ...]:
        entering: list[Tensor] = []
        watched = [(residual_name(start - 1), lambda residual, hook: entering.append(residual))] if start else []
        with hooked(model, watched), only_layers(model, 0, stop, form=form):
            before = read(batch, 0)
        if start >= stop:
            return (*before, *before)
        # What it does above `stop` does not fire.
        steered = steer(model, intervention, language, must_fire=stop == model.cfg.n_layers)
        with only_layers(model, start, stop, *entering, form=form), steered:
            return (*before, *read(batch, start))

    return both


def kl_divergence(
    before: Float[Tensor, "batch d_vocab"], after: Float[Tensor, "batch d_vocab"]
) -> Float[Tensor, "batch"]:
    """KL(softmax(before) || softmax(after)) in nats, in float64."""
    for one in (before, after):
        given(one, Tensor, "kl_divergence needs two tensors [batch d_vocab]", "a model's logits")
    log_p, log_q = before.double().log_softmax(-1), after.double().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).cpu()


def neuron_activations(
    model: LensModel,
    corpus: ParallelCorpus | Mapping[str, Sequence[str]],
    layer: int,
    neuron: int,
    *,
    intervention: Intervention | None = None,
    site: UnitSite = "mlp",
    batch_size: int = 16,
    max_tokens: int = 512,
    progress: bool = True,
    cluster: Runner | None = None,
) -> pd.DataFrame:
    """One neuron's activation in every text, mean over the text's content tokens, without and with steering.

    With site="attn" it is a unit of the heads' outputs, head * d_head + component.

    Returns:
        Tidy: language, example (id), when ("before", and "after" if there is an intervention), value.
    """
    model, corpus = given_model(model), given_corpus(corpus)
    batch_size, max_tokens = given_sizes(batch_size, max_tokens)
    check_neuron(model, layer, neuron, site)
    if intervention is not None:
        check_steers_texts(intervention)
    runner = runner_of(cluster)
    check_bare(model, "neuron_activations", kept=False)
    items = readings(model, tokenize_corpus(model, corpus, max_tokens), batch_size, cluster=runner)
    read = partial(_text_means, site=Site(site, layer), neuron=neuron, intervention=intervention)
    done = read_items(model, items, read, what="neuron", progress=progress, cluster=runner)
    means = {item.language: found for item, found in done}
    parts = [
        pd.DataFrame({"language": language, "example": corpus.ids, "when": when, "value": values})
        for language in corpus.languages
        for when, values in means[language].items()
    ]
    return pd.concat(parts, ignore_index=True)


def _text_means(
    model: LensModel, item: Reading, tell: Tell, *, site: Site, neuron: int, intervention: Intervention | None
) -> dict[str, list[float]]:
    """The mean over each text's content tokens, in corpus order, before and (with an intervention) after steering."""

    @contextmanager
    def averaging(batch: TokenBatch) -> Iterator[tuple[Tensor]]:
        means = torch.zeros(len(batch.rows), dtype=torch.float64)
        weights = batch.content_mask.float()
        weights = weights / weights.sum(1, keepdim=True)

        def on_units(activation: Tensor, hook: object) -> None:
            chosen = flat(activation)[:, :, neuron].float()
            means[:] = (chosen * weights.to(activation.device)).sum(1).double().cpu()

        with hooked(model, [(site.hook_name(model), on_units)]):
            yield (means,)

    def read(batch: TokenBatch, start: int = 0) -> tuple[Tensor, ...]:
        return in_one_pass(model, averaging)(batch)

    reading: Callable[[TokenBatch], tuple[Tensor, ...]] = read
    if intervention is not None:
        reading = _with_and_without(model, intervention, item.language, read, stop=site.layer + 1)
    values = in_corpus_order(item, read_batches(model, item, reading, tell))
    return {when: means.tolist() for when, means in zip(("before", "after"), values, strict=False)}
