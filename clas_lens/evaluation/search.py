"""Grids over the strength of an intervention, on examples that are then not reported on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from clas_lens.artifacts import load_table, save_table
from clas_lens.evaluation.plan import EvaluationError, check_task
from clas_lens.evaluation.rows import run_evaluation
from clas_lens.given import given_each, given_number, given_path, in_a_row, named
from clas_lens.models.sites import LensModel
from clas_lens.steering.intervention import STRENGTHS, Intervention, given_intervention
from clas_lens.tasks.base import Task

KIND = "search"


# What a search may vary: strengths, and the layer of an intervention that has vectors for several.
SEARCHED = (*STRENGTHS, "layer")


# The axes of the paper's Figure 6; those of Figure 5 are the tasks' own.
PAPER_BETAS = (0.2, 0.4, 0.6)


PAPER_GAMMAS = (0.1, 0.2, 0.4)


Setting = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What every setting scored on the tuning examples.

    Attributes:
        table: one row a setting and language: `task`; `alpha`, `beta`, `gamma`, `layer` (empty where the intervention has
            none); `language`, `score` (percent), `n` (examples), `overlap` (whether the neurons were measured on some of
            them), and `title` and `metric_title` of the task.
        chosen: the best setting of the strengths that were varied: the highest mean score over the languages that are not
            the anchor; of equal ones the weakest (smallest |alpha|, then |beta|, |gamma|, then the lowest layer).
        intervention: the best setting, which remembers the examples that it was tuned on.
        passes, passes_independent: prompt passes that were run, in whole forward passes of one prompt, and what independent
            runs would have taken; 0 for what was read from files. Searches made together share out their passes evenly.
    """

    table: pd.DataFrame
    chosen: Mapping[str, float]
    intervention: Intervention
    passes: float
    passes_independent: float

    def means(self) -> pd.DataFrame:
        """One row a setting: its mean score over the languages that are not the anchor."""
        return _means(self.table, self.intervention.anchor)

    def save(self, path: str | Path) -> Path:
        """Write the table, the choice and the examples as one parquet file."""
        header = {
            "chosen": dict(self.chosen),
            "tuned_on": sorted(self.intervention.tuned_on),
            "intervention": self.intervention.fingerprint(),
            "passes": self.passes,
            "passes_independent": self.passes_independent,
        }
        file = given_path("path", path)
        save_table(file, KIND, self.table, header)
        return file

    @classmethod
    def load(cls, path: str | Path, intervention: Intervention) -> "SearchResult":
        """Read what `save` wrote; `intervention` is the one that was searched over, at any strength.

        Raises:
            ArtifactError: missing, damaged or another kind of file.
            EvaluationError: the search was over another intervention.
        """
        table, header = load_table(given_path("path", path), KIND)
        tuned = _at(intervention, header["chosen"], frozenset(header["tuned_on"]))
        if tuned.fingerprint() != header["intervention"]:
            raise EvaluationError(
                f"{path} was searched over another intervention, or with other strengths, than this one; search again"
            )
        return cls(table, header["chosen"], tuned, header["passes"], header["passes_independent"])


def search_alpha(
    model: LensModel,
    task: Task,
    intervention: Intervention,
    alphas: Sequence[float] | None = None,
    **options: Any,
) -> SearchResult:
    """Score an intervention at each strength `alpha`.

    Args:
        task: the tuning examples (XNLI's validation split, XQuAD's tuning part); the paper takes 200 a language.
        intervention: any of this toolkit's; all have an alpha, so that each gets the same search.
        alphas: default the paper's axis: -8 to 2 on XNLI, -4 to 4 on XQuAD, in steps of 1.
        options: `languages`, `batch_size`, `chunk_size`, `out`, `allow_overlap`, `progress`, `cluster`, as in `evaluate`.

    Raises:
        EvaluationError: no alphas for a task without the paper's.
    """
    return search(model, task, intervention, alpha_settings(task, alphas), **options)


def search_beta_gamma(
    model: LensModel,
    task: Task,
    intervention: Intervention,
    betas: Sequence[float] = PAPER_BETAS,
    gammas: Sequence[float] = PAPER_GAMMAS,
    **options: Any,
) -> SearchResult:
    """Score every pair of `beta` and `gamma` at the intervention's own alpha (the paper's Figure 6 has alpha=1).

    For Figure 6's two curves give `gammas=[0]` and then `betas=[0]`. Only alpha * beta and alpha * gamma matter.

    Args:
        task, options: as for `search_alpha`.
    """
    return search(model, task, intervention, beta_gamma_settings(betas, gammas), **options)


def alpha_settings(task: Task, alphas: Sequence[float] | None = None) -> list[Setting]:
    """The settings of `search_alpha`, which says what the default is.

    Raises:
        EvaluationError: no alphas for a task without the paper's.
    """
    check_task(task)
    if alphas is None and not task.paper_alphas:
        raise EvaluationError(f"the task {task.name!r} has no alphas of the paper's; give alphas=")
    return [{"alpha": alpha} for alpha in _numbers("alphas", task.paper_alphas if alphas is None else alphas)]


def sweep_settings(intervention: Intervention, alphas: Sequence[Setting]) -> Sequence[Setting]:
    """These settings at each of the intervention's layers, if it is one that can be put at several (`UnitDiffMean`)."""
    given_intervention(intervention)
    alphas = given_settings(alphas)
    if not (hasattr(intervention, "layer") and hasattr(intervention, "layers")):
        return alphas
    return [{"layer": float(layer), **one} for layer in cast(Any, intervention).layers for one in alphas]


def beta_gamma_settings(betas: Sequence[float] = PAPER_BETAS, gammas: Sequence[float] = PAPER_GAMMAS) -> list[Setting]:
    """Every pair, as settings for `search_grids`."""
    pairs = [(beta, gamma) for beta in _numbers("betas", betas) for gamma in _numbers("gammas", gammas)]
    return [{"beta": beta, "gamma": gamma} for beta, gamma in pairs]


def given_settings(settings: Any) -> list[Setting]:
    """Settings such as `{"alpha": 1.0}`, each a mapping of strengths to numbers.

    Raises:
        EvaluationError: anything else.
    """
    what, how = "settings must be a list of mappings of strengths", 'give [{"alpha": 1.0}], say'
    listed: list[Setting] = given_each(settings, Mapping, what, how, error=EvaluationError)
    return [
        {key: given_number(f"settings: {key}", value, error=EvaluationError) for key, value in one.items()}
        for one in listed
    ]


def _numbers(name: str, values: Any) -> list[float]:
    if not in_a_row(values):
        raise EvaluationError(f"{name} must be a list of numbers, got {values!r}")
    return [given_number(f"each of {name}", value, error=EvaluationError) for value in values]


def search(
    model: LensModel,
    task: Task,
    intervention: Intervention,
    settings: Sequence[Setting],
    **options: Any,
) -> SearchResult:
    """Score an intervention at several settings of its strengths; the layers below it are run once a batch for all of them.

    Raises:
        EvaluationError: no settings, one twice, or a strength that the intervention does not have.
    """
    return search_grids(model, task, {"": (intervention, settings)}, **options)[""]


def search_grids(
    model: LensModel,
    task: Task,
    grids: Mapping[str, tuple[Intervention, Sequence[Setting]]],
    **options: Any,
) -> dict[str, SearchResult]:
    """Several searches, of one intervention or of several, in one run: what they share is run once a batch for all.

    Args:
        grids: by a name of your own, an intervention and the settings to score it at, such as `{"alpha": 1.0}`.
        task, options: as for `search_alpha`.

    Returns:
        By the same names what `search` of each alone would return.

    Raises:
        EvaluationError: as `search`, or no grids.
    """
    if not isinstance(grids, Mapping) or not grids:
        raise EvaluationError("no grids given: name an intervention and the settings to score it at")
    for pair in grids.values():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise EvaluationError(f"a grid is an intervention and the settings to score it at, got {named(pair)}")
    grids = {name: (intervention, given_settings(settings)) for name, (intervention, settings) in grids.items()}
    runs = {name: _named_settings(name, intervention, settings) for name, (intervention, settings) in grids.items()}
    run = run_evaluation(model, task, {name: one for grid in runs.values() for name, one in grid.items()}, **options)
    scores = (
        run.rows.groupby(["intervention", "language"], sort=False)
        .agg(mean=(task.metric, "mean"), n=(task.metric, "size"), overlap=("overlap", "any"))
        .reset_index()
    )
    results = {}
    for name, (intervention, settings) in grids.items():
        table = _table(task, runs[name], scores)
        best = _best(table, intervention.anchor)
        chosen = {strength: float(best[strength]) for strength in settings[0]}
        tuned = _at(intervention, chosen, task.example_keys() | intervention.tuned_on)
        answered = float(sum(run.answers[setting] for setting in runs[name]))
        passes = run.passes * answered / max(run.answers.total(), 1)
        results[name] = SearchResult(table, chosen, tuned, passes, answered)
    return results


def _named_settings(grid: str, intervention: Intervention, settings: Sequence[Setting]) -> dict[str, Intervention]:
    """The intervention at each setting, by the name of the file of its rows."""
    given_intervention(intervention)
    own = [strength for strength in SEARCHED if hasattr(intervention, strength)]
    names = [",".join(f"{key}={value:g}" for key, value in setting.items()) for setting in settings]
    unknown = {key for setting in settings for key in setting} - set(own)
    uneven = len({tuple(setting) for setting in settings}) > 1
    if not settings or not all(settings) or unknown or uneven or len(set(names)) != len(names):
        raise EvaluationError(
            f"a search needs different settings of {', '.join(own)} (all that {type(intervention).__name__} has); "
            f"got {names or 'none'}"
        )
    prefix = f"{grid}," if grid else ""
    return {
        prefix + name: _at(intervention, setting, frozenset()) for name, setting in zip(names, settings, strict=True)
    }


def _table(task: Task, grid: Mapping[str, Intervention], scores: pd.DataFrame) -> pd.DataFrame:
    """One row a setting of this grid and language."""
    return pd.DataFrame(
        [
            {
                "task": task.name,
                **{strength: getattr(grid[name], strength, float("nan")) for strength in SEARCHED},
                "language": language,
                "score": 100.0 * mean,
                "n": size,
                "overlap": overlap,
            }
            for name, language, mean, size, overlap in scores.itertuples(index=False)
            if name in grid
        ]
    ).assign(title=task.title, metric_title=task.metric_title)


def _at(intervention: Intervention, strengths: Mapping[str, float], tuned_on: frozenset[str]) -> Intervention:
    """The intervention, a dataclass as all of this toolkit's are, at other strengths."""
    if not is_dataclass(intervention):
        raise EvaluationError(
            f"{type(intervention).__name__} is no dataclass, so that its strength cannot be set: write "
            "@dataclass(frozen=True, eq=False) above the class; check_intervention(model, it) says what else it needs"
        )
    return cast(Intervention, replace(cast(Any, intervention), **strengths, tuned_on=tuned_on))


def _means(table: pd.DataFrame, anchor: str) -> pd.DataFrame:
    others = table[table["language"] != anchor]
    counted = others if len(others) else table  # the anchor alone: its own score is all there is
    return counted.groupby(list(SEARCHED), dropna=False, sort=False)["score"].mean().reset_index()


def _best(table: pd.DataFrame, anchor: str) -> pd.Series:
    means = _means(table, anchor)
    top = means[means["score"] == means["score"].max()]
    weakest = top[list(SEARCHED)].abs().sort_values(list(SEARCHED), na_position="first")
    return means.loc[weakest.index[0]]
