"""Edit one component after the other and see what each language's answers lose."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd
from tqdm import tqdm

from clas_lens.categories.categorize import NeuronCategories
from clas_lens.categories.selection import NeuronSelection
from clas_lens.causal.answers import questions_of
from clas_lens.causal.components import Component, by_category, each_head, each_neuron, whole_layers
from clas_lens.causal.intervals import change_interval
from clas_lens.causal.means import unit_means
from clas_lens.causal.trials import Editor, Means, Scores, Trial, batches_of, plan_trials, scores_of
from clas_lens.corpus.arguments import check_bare, given_model
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.given import given, given_frame, given_number, given_whole, given_word
from clas_lens.models.sites import LensModel, check_layers
from clas_lens.models.units import check_units, n_units, site_of
from clas_lens.significance.intervals import Interval
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.intervention import check_neurons
from clas_lens.tasks.base import Task
from clas_lens.vocabulary import ComponentEdit, ScanOver, UnitSite

PLACE = ("layer", "component", "measure")  # what a row of a scan is of, beside its language


def scan(
    model: LensModel,
    data: ParallelCorpus | Mapping[str, Sequence[str]] | Task,
    over: ScanOver = "layers",
    *,
    edit: ComponentEdit = "mean",
    languages: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    cats: NeuronCategories | NeuronSelection | None = None,
    neurons: Mapping[int, Sequence[int]] | None = None,
    site: UnitSite | None = None,
    stats: NeuronStatistics | None = None,
    factor: float | int | None = None,
    draws: int = 1,
    seed: int = 0,
    answer_tokens: int = 8,
    max_tokens: int = 512,
    batch_size: int = 8,
    level: float = 0.95,
    progress: bool = True,
) -> pd.DataFrame:
    """What editing each component does to the answer, by language, beside the same edit of random units that match it.

    Units are MLP neurons or attention's (`site="attn"`). They are edited at all content tokens: not at BOS, on which much of
    a model rests. What lies below a component is run once a batch.

    Args:
        data: a corpus, where the answer is each text's last `answer_tokens` tokens, or a task, where it is the example's gold.
        over: "layers" (all attention units, and all MLP neurons, of a layer; one of the two with `site`), "categories" (those
            of `cats` in a layer), "heads", or "neurons" (those of `neurons`: layer to numbers).
        edit: units set to their "mean" over languages and tokens, to "zero", or times `factor` ("rescale").
        stats: the means, where they are of the site that is edited; else they are measured on the examples themselves.
        draws: how many random components each component is compared with; 0 for none.

    Returns:
        One row a language, layer, component and measure: `n_units`, `n` (examples), `clean`, `change` (edited - clean) with
        `low` and `high`, `null` (the same of random units: as many of the same layer and deciles of size of effect; for whole
        layers as many of all layers) and `beyond` (change - null) with `beyond_low` and `beyond_high`. Measures: `log_prob` of
        the answer (nats a token), `kl` from the clean distribution (nats a token), `score` (share of answer tokens that are
        the most probable, 0 to 1). Intervals are t over groups of examples, NaN of a single group; a component without units
        is NaN.

    Raises:
        ValueError: an argument of another kind, one that `over` or `edit` needs or does not take, or units of another model.
    """
    model = given_model(model)
    check_bare(model, "scan", kept=False)
    given_word("over", over, get_args(ScanOver))
    _check_edit(edit, factor)
    level = given_number("level", level, above=0, below=1)
    draws, batch_size = given_whole("draws", draws), given_whole("batch_size", batch_size, least=1)
    answer_tokens, max_tokens = (
        given_whole(name, value, least=1)
        for name, value in (("answer_tokens", answer_tokens), ("max_tokens", max_tokens))
    )
    seed = given_whole("seed", seed)
    if stats is not None:
        given(stats, NeuronStatistics, "scan takes NeuronStatistics as stats", "collect_statistics(model, corpus)")
    chosen = check_layers(range(model.cfg.n_layers) if layers is None else layers, model.cfg.n_layers)
    components = _components(model, over, chosen, cats=cats, neurons=neurons, site=site)
    questions = questions_of(model, data, languages, answer_tokens=answer_tokens, max_tokens=max_tokens)
    sites = list(dict.fromkeys(component.kind for component in components))
    means: Means = {}
    if edit == "mean" or (draws and over != "layers"):
        means = unit_means(model, questions, sites, stats, batch_size)
    trials, edits = plan_trials(model, components, means, whole=over == "layers", draws=draws, seed=seed)
    editor = Editor(model, edit, {kind: of.mean(0) for kind, of in means.items()}, factor)
    rows: list[dict[str, Any]] = []
    n_batches = sum(len(batches_of(model, asked, batch_size)) for asked in questions.values())
    with tqdm(total=n_batches, unit="batch", disable=not progress) as bar:
        for language, asked in questions.items():
            bar.set_description(f"scan {language}")
            clean, found = scores_of(editor, asked, edits, batch_size, bar.update)
            groups = [question.group for question in asked]
            rows += [
                {"language": language, **row} for trial in trials for row in _rows(trial, clean, found, groups, level)
            ]
    return pd.DataFrame(rows)


def _check_edit(edit: ComponentEdit, factor: float | int | None) -> None:
    given_word("edit", edit, get_args(ComponentEdit))
    if (edit == "rescale") != (factor is not None):
        raise ValueError(f"factor= goes with edit='rescale' and with it alone; got edit={edit!r}, factor={factor!r}")
    if factor is not None:
        given_number("factor", factor)


def _components(
    model: LensModel,
    over: ScanOver,
    layers: Sequence[int],
    *,
    cats: NeuronCategories | NeuronSelection | None,
    neurons: Mapping[int, Sequence[int]] | None,
    site: UnitSite | None,
) -> list[Component]:
    if site is not None:
        given_word("site", site, get_args(UnitSite))
    for name, value, owner in (("cats", cats, "categories"), ("neurons", neurons, "neurons")):
        if (value is not None) != (over == owner):
            raise ValueError(f"{name}= goes with over={owner!r} and with it alone; got over={over!r}, {name}={value!r}")
    match over:
        case "layers":
            sites: tuple[UnitSite, ...] = get_args(UnitSite)[::-1] if site is None else (site,)
            for one in sites:
                check_units(model, one)
            return whole_layers(model, sites, layers)
        case "categories":
            return _of_categories(model, layers, cats, site)
        case "heads":
            if site == "mlp":
                raise ValueError("over='heads' is of site='attn'; MLP neurons have no heads")
            check_units(model, "attn")
            return each_head(model, layers)
        case "neurons":
            one = site or "mlp"
            check_units(model, one)
            return each_neuron(model, _given_neurons(model, neurons, one), one)


def _of_categories(model: LensModel, layers: Sequence[int], cats: Any, site: UnitSite | None) -> list[Component]:
    given(
        cats,
        NeuronCategories | NeuronSelection,
        "over='categories' needs cats=, NeuronCategories or a NeuronSelection",
        "categorize(stats) or lape(stats)",
    )
    check_neurons(model, cats.model, n_layers=cats.n_layers, n_neurons=cats.n_neurons)
    of: UnitSite = site_of(cats.model)
    if site not in (None, of):
        raise ValueError(f"asked for site={site!r}; the units of cats= are of site={of!r}")
    return by_category(cats, of, layers)


def _given_neurons(model: LensModel, neurons: Any, site: UnitSite) -> dict[int, list[int]]:
    given(neurons, Mapping, "over='neurons' needs neurons=, layer to numbers", "such as {12: [4, 99]}")
    check_layers(list(neurons), model.cfg.n_layers)
    last = n_units(model, site) - 1
    return {
        layer: [given_whole(f"neurons[{layer}]", one, most=last) for one in dict.fromkeys(chosen)]
        for layer, chosen in neurons.items()
    }


def _rows(
    trial: Trial, clean: Scores, found: Sequence[Scores], groups: Sequence[str], level: float
) -> Iterator[dict[str, Any]]:
    """A row a measure."""
    component, nan = trial.component, float("nan")
    for measure, before in clean.items():
        row = {
            "layer": component.layer,
            "component": component.name,
            "measure": measure,
            "n_units": int(component.mask.sum()),
            "n": len(groups),
            "clean": float(before.mean()),
        }
        change = null = beyond = Interval(nan, nan, nan)
        if trial.own is not None:
            after = found[trial.own][measure]
            change = change_interval(before, after, groups, level=level)
            if trial.nulls:
                random = np.mean([found[place][measure] for place in trial.nulls], axis=0)
                null = change_interval(before, random, groups, level=level)
                beyond = change_interval(random, after, groups, level=level)
        yield row | {
            "change": change.estimate,
            "low": change.low,
            "high": change.high,
            "null": null.estimate,
            "beyond": beyond.estimate,
            "beyond_low": beyond.low,
            "beyond_high": beyond.high,
        }


def own_minus_others(frame: pd.DataFrame, column: str = "change") -> pd.DataFrame:
    """The same table with `specific`: a language's change minus the mean of the other languages' at the same component.

    Raises:
        ValueError: no table of `scan`, or one of a single language.
    """
    given_frame(frame, (*PLACE, "language", column), "own_minus_others", "scan(...)")
    n = frame["language"].nunique()
    if n < 2:
        raise ValueError(f"own_minus_others compares languages; the table has {frame['language'].iloc[0]!r} alone")
    mean = frame.groupby(list(PLACE), sort=False)[column].transform("mean")
    # x - (sum - x) / (n - 1), of n languages
    return frame.assign(specific=(frame[column] - mean) * n / (n - 1))
