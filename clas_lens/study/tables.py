"""What the figures and the report need of the model, collected once into tidy tables: they are then drawn without it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pandas as pd
import torch

from clas_lens.artifacts import content_key, resumed_table, save_table
from clas_lens.categories.browser import top_neurons, with_promoted_tokens
from clas_lens.categories.categorize import NeuronCategories, NeuronCategory
from clas_lens.categories.views import category_moves, language_overlap, null_shares, threshold_shares
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.models.sites import LensModel
from clas_lens.representations.alignment import AlignmentError, cosine_frame
from clas_lens.representations.effects import neuron_activations
from clas_lens.representations.maps import separation_frame, tsne_frame
from clas_lens.representations.sentences import Representations, collect_representations
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas
from clas_lens.study.config import ReportConfig, SteerConfig
from clas_lens.study.folder import RunFolder
from clas_lens.study.stages import build_clas, load_categories, load_configured_corpus, load_configured_model

KIND = "report data"


WITHOUT_TASK = "clas"  # the setting of a run that evaluated nothing


SHOWN = 300  # characters of a text that a hover box or a table has room for


# Thresholds around the run's own, in units of the typical distance of an activity from it.
BAND = (-0.5, -0.25, 0.0, 0.25, 0.5)


RISING = (0.0, 0.5, 1.0, 2.0)


Frame = Callable[[], pd.DataFrame]


def report_layers(layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Where sentences are read: the bridge layers, for cosines, and the last but one, for maps."""
    return tuple(sorted({*layers, map_layer(n_layers)}))


def map_layer(n_layers: int) -> int:
    """The layer of the sentence maps: the paper's last but one."""
    return max(n_layers - 2, 0)


def evaluated_clas(run: RunFolder, clas: Clas) -> dict[str, Clas]:
    """CLAS as each task was answered with it, by task; `clas` itself where nothing was answered with any."""
    folders = sorted(run.methods.glob("*/clas"))
    return {folder.parent.name: Clas.from_pretrained(folder) for folder in folders} or {WITHOUT_TASK: clas}


@dataclass
class _Tables:
    """Writes tables into a run folder, and keeps count of those that could not be made, with the reasons."""

    run: RunFolder
    left_out: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, key: str, make: Frame) -> None:
        """One table, unless it is there already, made from the same inputs (`key`)."""
        path = self.run.tables / f"{name}.parquet"
        if resumed_table(path, KIND, key) is not None:
            return
        path.unlink(missing_ok=True)  # of other inputs: it must not stand beside new ones
        try:
            table = make()
        except AlignmentError as error:
            self.left_out[name] = str(error)
            return
        save_table(path, KIND, table, {"key": key})


def report_data_stage(
    config: ReportConfig,
    run: RunFolder,
    model: LensModel,
    stats: NeuronStatistics,
    cats: NeuronCategories,
    steered: Mapping[str, Clas],
    *,
    measured: ParallelCorpus,
    read: ParallelCorpus,
    batch_size: int,
    max_tokens: int,
    progress: bool = True,
) -> None:
    """Collect everything for the report: `representations/`, and in `tables/` a table for each figure.

    Sentences are read once unsteered and once for each different intervention, at all layers that any figure needs.

    Args:
        steered: CLAS by the setting that it is shown under (a task's name, or "clas").
        measured: the texts that `stats` were collected on.
        read: the texts of the cosines, the maps and the single neuron's distribution, all of them.
    """
    tables = _Tables(run)
    _category_tables(tables, stats, cats)
    made = content_key(stats.source(), cats.header(), config.neurons)
    tables.write("top_neurons", made, partial(_top_neurons, model, stats, cats, measured, config.neurons))
    # An intervention on generated tokens alone changes nothing in a text that is read.
    shown = {setting: clas for setting, clas in steered.items() if clas.positions != "generated"}
    how = {"batch_size": batch_size, "max_tokens": max_tokens, "progress": progress}
    if shown:
        _read_sentences(tables, model, stats, shown, read, **how)
        _read_neuron(tables, model, stats, cats, next(iter(shown.values())), read, config.neuron_languages, **how)
    else:
        tables.left_out["cosine"] = "CLAS steers generated tokens only, which texts that are read do not have"
    settings = {setting: clas.settings() for setting, clas in steered.items()}
    facts = {"corpus": read.name, "examples": len(read), "steered": settings, "left_out": tables.left_out}
    run.update_manifest("report data", config, **facts)


def collect_for_report(config: ReportConfig, run: RunFolder, *, progress: bool = True) -> None:
    """`report_data_stage` for a run folder that was collected and categorised, with its model and the texts measured.

    CLAS is what the tasks were answered with, or else the folder's own, or else at its default strengths.
    """
    collected = run.collected()
    cats, layers = load_categories(run)
    corpus = load_configured_corpus(collected)
    clas = Clas.from_pretrained(run.clas) if run.clas.is_dir() else build_clas(SteerConfig(), cats, layers)
    report_data_stage(
        config,
        run,
        load_configured_model(collected),
        NeuronStatistics.load(run.statistics, cats.languages),
        cats,
        evaluated_clas(run, clas),
        measured=corpus,
        read=corpus.take(range(min(config.examples, len(corpus)))),
        batch_size=collected.batch_size,
        max_tokens=collected.max_tokens,
        progress=progress,
    )


def _category_tables(tables: _Tables, stats: NeuronStatistics, cats: NeuronCategories) -> None:
    """What needs the statistics alone."""
    key = content_key(stats.source(), cats.header())
    tables.write("null_shares", key, partial(null_shares, cats))
    tables.write("language_overlap", key, partial(language_overlap, cats))
    band, rising = (_thresholds(stats, cats, steps) for steps in (BAND, RISING))
    tables.write("threshold_shares", key, partial(threshold_shares, stats, band, activity=cats.activity))
    tables.write("category_moves", key, partial(category_moves, stats, rising, activity=cats.activity))


def _thresholds(stats: NeuronStatistics, cats: NeuronCategories, steps: Sequence[float]) -> list[float]:
    """Thresholds about the categories' own, ascending; their unit has one digit, so that they read well."""
    values = {"mean": stats.mean, "abs_mean": stats.mean.abs(), "firing_rate": stats.firing_rate}[cats.activity]
    distances = (values - cats.threshold).abs().flatten()
    unit = float(f"{float(distances.median() or distances.max()):.1g}")
    found = {round(cats.threshold + step * unit, 10) for step in steps}
    return sorted(t for t in found if cats.activity != "firing_rate" or 0 <= t < 1)


def _top_neurons(
    model: LensModel, stats: NeuronStatistics, cats: NeuronCategories, corpus: ParallelCorpus, n: int
) -> pd.DataFrame:
    """The most selective neurons of every language."""
    frames = [top_neurons(stats, cats, corpus, code, n=n) for code in cats.languages]
    table = pd.concat(frames, ignore_index=True)
    return with_promoted_tokens(table.assign(text=table["text"].map(_shortened)), model)


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


def _read_neuron(
    tables: _Tables,
    model: LensModel,
    stats: NeuronStatistics,
    cats: NeuronCategories,
    clas: Clas,
    read: ParallelCorpus,
    n_languages: int,
    **how: Any,
) -> None:
    """One neuron's activation in every text, in a few languages."""
    layer, neuron = _shown_neuron(stats, cats, clas)
    corpus = _few(read, n_languages, clas.anchor)
    texts = {code: corpus.fingerprint(code) for code in corpus.languages}
    tables.write(
        "neuron_activations",
        content_key(stats.source(), clas.fingerprint(), layer, neuron, texts, how["max_tokens"]),
        lambda: neuron_activations(model, corpus, layer, neuron, intervention=clas, **how).assign(
            layer=layer, neuron=neuron
        ),
    )


def _read_sentences(
    tables: _Tables,
    model: LensModel,
    stats: NeuronStatistics,
    steered: Mapping[str, Clas],
    read: ParallelCorpus,
    **how: Any,
) -> None:
    """Cosines at every layer that any figure needs, maps and separation at the last but one."""
    first = next(iter(steered.values()))
    anchor, layer = first.anchor, map_layer(stats.n_layers)
    reading = partial(collect_representations, model, read, report_layers(first.layers, stats.n_layers), **how)
    before = reading(out=tables.run.representations / "before")
    after: dict[str, Representations] = {}
    for setting, clas in steered.items():
        same = [one for one in after.values() if one.intervention == clas.fingerprint()]
        folder = tables.run.representations / ("after" if setting == WITHOUT_TASK else f"after-{setting}")
        after[setting] = same[0] if same else reading(intervention=clas, out=folder)
    key = content_key(before.source(), before.texts, {name: one.intervention for name, one in after.items()}, anchor)
    frames: dict[str, Callable[[Representations], pd.DataFrame]] = {
        "cosine": lambda one: cosine_frame(before, one, anchor),
        "separation": lambda one: separation_frame(before, one, layer, anchor).assign(layer=layer),
        "sentence_map": lambda one: _map_points(before, one, layer, anchor),
    }
    for name, frame in frames.items():
        tables.write(name, key, partial(_by_setting, after, frame))
    tables.write("sentences", key, partial(_sentences, read))


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
