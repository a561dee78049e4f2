"""What the choice of bridge layers is worth: the same search at every window of layers that is as wide as the bridge."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, cast

import pandas as pd

from clas_lens.artifacts import named_layers
from clas_lens.corpus.arguments import given_model
from clas_lens.evaluation.plan import EvaluationError
from clas_lens.evaluation.search import SearchResult, Setting, alpha_settings, search_grids
from clas_lens.given import given_frame, given_whole
from clas_lens.models.sites import LensModel, check_layers
from clas_lens.steering.intervention import Intervention, given_intervention
from clas_lens.tasks.base import Task

KIND = "bridge windows"

Window = tuple[int, ...]


def search_windows(
    model: LensModel, task: Task, intervention: Intervention, alphas: Sequence[float] | None = None, **options: Any
) -> pd.DataFrame:
    """`search_alpha` at every run of consecutive layers that is as long as the intervention's own, but for the last two layers.

    Layers below a window are run once a batch for all windows. The scores are of tuning examples. They say what the choice of
    layers is worth; a window that is picked by them must be reported on other examples, as an alpha must.

    Args:
        task, alphas, options: as for `search_alpha`.
        intervention: one that steers several layers, such as `Clas`.

    Returns:
        One row a window, setting and language: the columns of `SearchResult.table`, and `layers` (as text), `first`, `last`,
        `own` (whether these are the intervention's layers), `anchor`.

    Raises:
        EvaluationError: as `search_alpha`, or an intervention without layers to move.
    """
    given_model(model)
    grids = window_grids(intervention, model.cfg.n_layers, alpha_settings(task, alphas))
    return window_table(search_grids(model, task, grids, **options), cast(Any, intervention).layers)


def bridge_windows(layers: Sequence[int], n_layers: int) -> list[Window]:
    """Every run of as many consecutive layers as `layers` has, but for the last two; and `layers`, if not among them.

    Raises:
        ValueError: layers that are not different ones of `n_layers`.
    """
    own = check_layers(layers, given_whole("n_layers", n_layers, least=1))
    runs = [tuple(range(first, first + len(own))) for first in range(n_layers - 2 - len(own) + 1)]
    return runs if own in runs else [*runs, own]


def window_grids(
    intervention: Intervention, n_layers: int, settings: Sequence[Setting]
) -> dict[str, tuple[Intervention, Sequence[Setting]]]:
    """The intervention at each window with these settings, for `search_grids`.

    Raises:
        EvaluationError: an intervention without layers to move.
    """
    given_intervention(intervention)
    layers = getattr(intervention, "layers", None)
    if not is_dataclass(intervention) or hasattr(intervention, "layer") or not isinstance(layers, tuple) or not layers:
        raise EvaluationError(
            f"{type(intervention).__name__} has no layers that could be others; search_windows takes one that has, such as Clas"
        )
    windows = bridge_windows(layers, n_layers)
    return {
        f"window-{named_layers(window)}": (
            cast(Intervention, replace(cast(Any, intervention), layers=window)),
            settings,
        )
        for window in windows
    }


def window_table(results: Mapping[str, SearchResult], layers: Sequence[int]) -> pd.DataFrame:
    """What `search_windows` returns, from the searches at each window."""
    frames = []
    for found in results.values():
        window = tuple(cast(Any, found.intervention).layers)
        facts = {"layers": "-".join(map(str, window)), "first": window[0], "last": window[-1]}
        frames.append(found.table.assign(**facts, own=window == tuple(layers), anchor=found.intervention.anchor))
    return pd.concat(frames, ignore_index=True)


def window_bests(table: pd.DataFrame) -> pd.DataFrame:
    """One row a task and window: `alpha` and `score` of its best setting (mean over languages but the anchor; of equal ones the
    weakest), `unsteered` (the mean at alpha 0, NaN if it was not searched) and `gain`, in points.

    Raises:
        ValueError: no table of `search_windows`.
    """
    window = ["task", "layers", "first", "last", "own"]
    given_frame(table, (*window, "alpha", "language", "anchor", "score"), "window_bests", "search_windows(...)")
    counted = table[table["language"] != table["anchor"]]
    counted = counted if len(counted) else table
    means = counted.groupby([*window, "alpha"], sort=False)["score"].mean().reset_index()
    weakest = means.assign(size=means["alpha"].abs()).sort_values(["score", "size"], ascending=[False, True])
    best = weakest.drop_duplicates(["task", "layers"]).drop(columns="size").sort_values(["task", "first"])
    unsteered = means[means["alpha"] == 0].groupby("task")["score"].mean()
    best = best.assign(unsteered=best["task"].map(unsteered).astype(float))
    return best.assign(gain=best["score"] - best["unsteered"]).reset_index(drop=True)
