"""What the figures and the report need of the model, collected once into tidy tables: they are then drawn without it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pandas as pd
import torch

from clas_lens.artifacts import content_key, remember
from clas_lens.categories.browser import top_neurons, with_promoted_tokens
from clas_lens.categories.categorize import NeuronCategories, NeuronCategory, activities
from clas_lens.categories.views import category_moves, language_overlap, null_shares, threshold_shares
from clas_lens.corpus.bundled import bundled_languages
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.representations.alignment import AlignmentError, cosine_frame
from clas_lens.representations.anchors import anchor_frame
from clas_lens.representations.collect import collect_representations
from clas_lens.representations.effects import measure_effects, neuron_activations
from clas_lens.representations.maps import separation_frame, tsne_frame
from clas_lens.representations.sentences import Representations
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas
from clas_lens.study.folder import REPORT_DATA, RunFolder
from clas_lens.study.run import Run
from clas_lens.vocabulary import AFTER_PROMPTS, fits_activity

WITHOUT_TASK = "clas"  # the setting of a run that evaluated nothing
OF_SENTENCES = ("cosine", "separation", "sentence_map", "sentences", "anchors")
SHOWN = 300  # characters of a text that a hover box or a table has room for
# Thresholds around the run's own, in units of the typical distance of an activity from it.
BAND = (-0.5, -0.25, 0.0, 0.25, 0.5)
RISING = (0.0, 0.5, 1.0, 2.0)

Frame = Callable[[], pd.DataFrame]


def report_layers(layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Where sentences are read: the bridge layers and the first and last, for cosines, and the last but one, for maps."""
    return tuple(sorted({0, *layers, map_layer(n_layers), n_layers - 1}))


def map_layer(n_layers: int) -> int:
    """The layer of the sentence maps: the paper's last but one."""
    return max(n_layers - 2, 0)


def evaluated_clas(folder: RunFolder, clas: Clas) -> dict[str, Clas]:
    """CLAS as each task was answered with it, by task; `clas` itself where nothing was answered with any."""
    answered = sorted(folder.methods.glob("*/clas"))
    return {one.parent.name: Clas.from_pretrained(one) for one in answered} or {WITHOUT_TASK: clas}


def texts_to_read(run: Run) -> ParallelCorpus:
    """The texts of the cosines, the maps and the single neuron's distribution: as many as the report's configuration says.

    Raises:
        ValueError: bundled sentences in a language that the bundled corpus does not have.
    """
    config, corpus = run.config.report, run.corpus
    if config.texts == "measured":
        return corpus.take(range(min(config.examples, len(corpus))))
    wanted = list(dict.fromkeys([*corpus.languages, run.config.steer.anchor]))
    sentences = ParallelCorpus.bundled(wanted, fields=("entailment",))
    return sentences.take(range(min(config.examples, len(sentences))))


def has_bundled_texts(languages: Sequence[str]) -> bool:
    """Whether the bundled corpus has sentences in all of these languages."""
    return set(languages) <= set(bundled_languages())


@dataclass
class _Tables:
    """Writes tables into a run folder, and keeps count of those that could not be made, with the reasons."""

    folder: RunFolder
    left_out: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, key: str, make: Frame) -> None:
        """One table, unless it is there already, made from the same inputs (`key`)."""
        path = self.folder.tables / f"{name}.parquet"

        def anew() -> pd.DataFrame:
            path.unlink(missing_ok=True)  # of other inputs: it must not stand beside new ones
            return make()

        try:
            remember(path, REPORT_DATA, key, anew)
        except AlignmentError as error:
            self.left_out[name] = str(error)

    def leave_out(self, reason: str, *names: str) -> None:
        """None of these: nor what an earlier collection with other settings left there."""
        for name in names:
            (self.folder.tables / f"{name}.parquet").unlink(missing_ok=True)
            self.left_out[name] = reason


def report_tables(run: Run) -> None:
    """Collect everything for the report: `representations/`, and in `tables/` a table for each figure.

    CLAS is shown as the tasks were answered with it, else as the run has it. Sentences are read once unsteered and once for
    each different intervention, at all layers that any figure needs.
    """
    run.say("collecting what the report shows")
    tables = _Tables(run.folder)
    read = texts_to_read(run)
    steered = evaluated_clas(run.folder, run.clas)
    _category_tables(tables, run.statistics, run.categories)
    made = content_key(run.statistics.source(), run.categories.fingerprint(), run.config.report.neurons)
    tables.write("top_neurons", made, partial(_top_neurons, run))
    # An intervention on generated tokens alone changes nothing in a text that is read.
    shown = {setting: clas for setting, clas in steered.items() if clas.positions not in AFTER_PROMPTS}
    if shown:
        _read_sentences(tables, run, shown, read)
        _read_neuron(tables, run, next(iter(shown.values())), read)
    else:
        reason = "CLAS steers generated tokens only, which texts that are read do not have"
        tables.leave_out(reason, "neuron_activations", "effects", *OF_SENTENCES)
    settings = {setting: clas.settings() for setting, clas in steered.items()}
    facts = {"corpus": read.name, "examples": len(read), "steered": settings, "left_out": tables.left_out}
    run.folder.update_manifest("report data", run.config.report, **facts)


def _category_tables(tables: _Tables, stats: NeuronStatistics, cats: NeuronCategories) -> None:
    """What needs the statistics alone."""
    key = content_key(stats.source(), cats.fingerprint())
    tables.write("null_shares", key, partial(null_shares, cats))
    tables.write("language_overlap", key, partial(language_overlap, cats))
    if cats.quantile is not None:
        reason = "the categories have a bar a layer, its quantile, and no threshold to move"
        tables.leave_out(reason, "threshold_shares", "category_moves")
        return
    band, rising = (_thresholds(stats, cats, steps) for steps in (BAND, RISING))
    tables.write("threshold_shares", key, partial(threshold_shares, stats, band, activity=cats.activity))
    tables.write("category_moves", key, partial(category_moves, stats, rising, activity=cats.activity))


def _thresholds(stats: NeuronStatistics, cats: NeuronCategories, steps: Sequence[float]) -> list[float]:
    """Thresholds about the categories' own, ascending; their unit has one digit, so that they read well."""
    distances = (activities(stats, cats.activity) - cats.threshold).abs().flatten()
    unit = float(f"{float(distances.median() or distances.max()):.1g}")
    found = {round(cats.threshold + step * unit, 10) for step in steps}
    return sorted(t for t in found if fits_activity(cats.activity, t))


def _top_neurons(run: Run) -> pd.DataFrame:
    """The most selective neurons of every language."""
    stats, cats, n = run.statistics, run.categories, run.config.report.neurons
    frames = [top_neurons(stats, cats, run.corpus, code, n=n) for code in cats.languages]
    table = pd.concat(frames, ignore_index=True)
    return with_promoted_tokens(table.assign(text=table["text"].map(_shortened)), run.model)


def _shown_neuron(stats: NeuronStatistics, cats: NeuronCategories, clas: Clas) -> tuple[int, int]:
    """(layer, neuron): of those that CLAS rescales, the one with the widest spread of means over languages, in its own RMS.

    Active in about half of the languages (a third to two thirds), where there is such a one: one language's own neurons
    spread most, but show nothing of the others.
    """
    scale = stats.second_moment.double().mean(0).sqrt()
    spread = torch.where(scale > 0, stats.mean.double().std(0) / scale, 0.0)
    rescaled = cats.mask(NeuronCategory.PARTIAL_SHARED) | cats.mask(NeuronCategory.LANGUAGE_SPECIFIC)
    steered = torch.zeros(stats.n_layers, dtype=torch.bool)
    steered[list(clas.layers)] = True
    allowed = rescaled & steered[:, None]
    share = cats.counts / len(cats.languages)
    half = allowed & (share >= 1 / 3) & (share <= 2 / 3)
    chosen = half if half.any() else allowed
    layer, neuron = divmod(int(spread.masked_fill(~chosen, -1.0).argmax()), stats.n_neurons)
    return layer, neuron


def _few(corpus: ParallelCorpus, n: int, anchor: str) -> ParallelCorpus:
    """At most `n` of the languages, evenly spaced, the anchor among them."""
    others = [code for code in corpus.languages if code != anchor]
    step = max(1, -(-len(others) // max(1, n - 1)))
    return corpus.select([anchor, *others[::step]] if anchor in corpus.languages else others[::step])


def _reading(run: Run) -> dict[str, Any]:
    """How texts are read."""
    config = run.config.collect
    return {
        "batch_size": config.batch_size,
        "max_tokens": config.max_tokens,
        "progress": run.progress,
        "cluster": run.cluster,
    }


def _read_neuron(tables: _Tables, run: Run, clas: Clas, read: ParallelCorpus) -> None:
    """One neuron's activation in every text, in a few languages."""
    layer, neuron = _shown_neuron(run.statistics, run.categories, clas)
    corpus = _few(read, run.config.report.neuron_languages, clas.anchor)
    texts = {code: corpus.fingerprint(code) for code in corpus.languages}
    limit = run.config.collect.max_tokens
    tables.write(
        "neuron_activations",
        content_key(run.statistics.source(), clas.fingerprint(), layer, neuron, texts, limit),
        lambda: neuron_activations(
            run.model, corpus, layer, neuron, intervention=clas, site=clas.site, **_reading(run)
        ).assign(layer=layer, neuron=neuron),
    )


def _read_sentences(tables: _Tables, run: Run, steered: Mapping[str, Clas], read: ParallelCorpus) -> None:
    """Effects; cosines at every layer that any figure needs; maps and separation at the last but one."""
    n_layers = run.statistics.n_layers
    first = next(iter(steered.values()))
    anchor, layer, root = first.anchor, map_layer(n_layers), run.folder.representations
    if anchor in read.languages:
        first_with = {clas.fingerprint(): setting for setting, clas in reversed(list(steered.items()))}
        measured = {setting: _effects(run, steered[setting], read, setting) for setting in first_with.values()}
        effects = {setting: measured[first_with[clas.fingerprint()]] for setting, clas in steered.items()}
        frame = pd.concat([table.assign(setting=name) for name, table in effects.items()], ignore_index=True)
        tables.write("effects", content_key(frame.to_dict("records")), lambda: frame)
    reading = partial(collect_representations, run.model, read, report_layers(first.layers, n_layers), **_reading(run))
    before = reading(out=root / next(iter(steered)) / "before")
    after: dict[str, Representations] = {}
    for setting, clas in steered.items():
        same = [one for one in after.values() if one.intervention == clas.fingerprint()]
        after[setting] = same[0] if same else reading(intervention=clas, out=root / setting / "after")
    key = content_key(before.source(), before.texts, {name: one.intervention for name, one in after.items()}, anchor)
    frames: dict[str, Callable[[Representations], pd.DataFrame]] = {
        "cosine": lambda one: cosine_frame(before, one, anchor),
        "separation": lambda one: separation_frame(before, one, layer, anchor).assign(layer=layer),
        "sentence_map": lambda one: _map_points(before, one, layer, anchor),
    }
    for name, frame_of in frames.items():
        tables.write(name, key, partial(_by_setting, after, frame_of))
    tables.write("sentences", key, partial(_sentences, read))
    made = content_key(before.source(), before.texts, run.categories.fingerprint(), first.layers)
    tables.write("anchors", made, lambda: anchor_frame(run.categories, before, first.layers))


def _effects(run: Run, clas: Clas, read: ParallelCorpus, setting: str) -> pd.DataFrame:
    """What steering changes of the next token; its one pass leaves the sentence representations that the figures need."""
    return measure_effects(
        run.model,
        clas,
        read,
        out=run.folder.effects / setting,
        representations=run.folder.representations / setting,
        more_layers=report_layers(clas.layers, run.statistics.n_layers),
        **_reading(run),
    )


def _by_setting(after: Mapping[str, Representations], frame: Callable[[Representations], pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([frame(one).assign(setting=setting) for setting, one in after.items()], ignore_index=True)


def _map_points(before: Representations, after: Representations, layer: int, anchor: str) -> pd.DataFrame:
    """The points of a map, with everything else that it holds in columns of its own."""
    n_points = (2 * len(before.languages) - 1) * len(before.example_ids)
    found = tsne_frame(before, after, layer, anchor=anchor, perplexity=min(30.0, n_points // 4))
    facts = asdict(found)
    facts.pop("points")
    trust = facts.pop("trustworthiness")
    return found.points.assign(**facts, trustworthiness=found.points["when"].map(trust))


def _sentences(read: ParallelCorpus) -> pd.DataFrame:
    rows = [
        (code, example, _shortened(text))
        for code in read.languages
        for example, text in zip(read.ids, read[code], strict=True)
    ]
    return pd.DataFrame(rows, columns=["language", "example", "text"])


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4].rstrip()} ..."
