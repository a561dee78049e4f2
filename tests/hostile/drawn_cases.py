"""Hostile inputs of what draws and runs: figures, tables, files of figures, reports, studies."""

from types import SimpleNamespace
from typing import Any

from hostile.case import Case, misused, refused
from hostile.measured_cases import FINITE, IN_RANGE, INF, NAN, _gains
from hostile.scored_cases import grown

import analysis
import clas_lens as cl
from clas_lens.study.run import Run

# Figures of one frame, and columns that they want.
FRAMED = {
    "cosine_to_english": "before, after",
    "alpha_curve": "alpha, beta, gamma",
    "beta_gamma_curve": "alpha, beta, gamma",
    "gain_heatmap": "gain, change",
    "forest": "ci_low, ci_high",
    "layer_distribution": "category, percent",
    "neuron_browser": "selectivity",
    "overlap_matrix": "jaccard",
    "category_flow": "from_threshold",
}


def _fit(world: SimpleNamespace) -> Any:
    return cl.representations.fit_gain_alignment(_gains())


def _forest(world: SimpleNamespace, **options: Any) -> Any:
    return analysis.forest(cl.compare(grown(world), "clas").languages, **options)


FIGURES = [
    *[
        case
        for name, columns in FRAMED.items()
        for case in misused(
            name,
            columns,
            lambda w, x, name=name: getattr(analysis, name)(x),
            "None, a text, a list, a frame, statistics, a corpus",
        )
    ],
    *refused(
        "layers: shaded",
        IN_RANGE,
        lambda w, x: analysis.layer_distribution(w.cats, bridge_layers=x),
        [[99], [1.5], [1, 1], "12"],
    ),
    *misused(
        "layers: null", "null_shares(...)", lambda w, x: analysis.layer_distribution(w.cats, null=x), "a frame, a text"
    ),
    *misused(
        "layers: bands",
        "threshold_shares(...)",
        lambda w, x: analysis.layer_distribution(w.cats, sensitivity=x),
        "a frame, a text",
    ),
    *misused(
        "layers: panels",
        "category, percent",
        lambda w, x: analysis.layer_distribution({"a": x}),
        "a frame, None, statistics",
    ),
    *misused(
        "gains: fit", "needs a GainFit", lambda w, x: analysis.gain_vs_alignment(_gains(), x), "None, a dict, a frame"
    ),
    *misused("gains: frame", "gain, change", lambda w, x: analysis.gain_vs_alignment(x, _fit(w)), "None, a frame"),
    Case(
        "gains: another fit",
        lambda w: analysis.gain_vs_alignment(_gains(language=["ja", "ko", "fi", "nl"]), _fit(w)),
        "the fit was made without 'ja'",
    ),
    *misused("map", "needs a SentenceMap", lambda w, x: analysis.tsne_map(x, x), "None, a frame, statistics"),
    *misused(
        "distribution",
        "language, when, value",
        lambda w, x: analysis.neuron_distribution(x, 1, 1),
        "None, a frame, a dict",
    ),
    *refused("forest: level", FINITE, lambda w, x: _forest(w, level=x), [0, 1, NAN, 5, "x", None]),
    *refused("forest: confidence", FINITE, lambda w, x: _forest(w, confidence=x), [0, 1, INF, 5, "x", None]),
    *refused("heat map", "no number", lambda w, x: analysis.gain_heatmap(_gains(gain=x)), [[NAN] * 4, ["a"] * 4]),
    Case("heat map: twice", lambda w: analysis.gain_heatmap(_gains(language=["de", "de", "zh", "ar"])), "there twice"),
    *misused("paper gains", "tables by task", lambda w, x: analysis.figures.paper_gains(x), "None, a list, a text"),
    Case("paper gains: task", lambda w: analysis.figures.paper_gains({"x": _gains()}), "available: xnli, xquad"),
    *refused("language style", "a language code is needed", lambda w, x: analysis.language_style(x), [None, 5, ["de"]]),
    *misused("themed", "needs a figure", lambda w, x: analysis.themed(x, dark=True), "None, a frame"),
]

TABLES = [
    *[
        case
        for name in ("results_table", "results_view")
        for case in misused(
            name,
            "compare(rows, ...) makes one",
            lambda w, x, name=name: getattr(analysis.tables, name)(x),
            "None, a text, a frame, a dict, a list",
        )
    ],
    Case("results: none", lambda w: analysis.tables.results_table([]), "no comparisons"),
    Case(
        "results: one", lambda w: analysis.tables.results_table(cl.compare(grown(w), "clas")), "a list of Comparisons"
    ),
    Case(
        "results: correction",
        lambda w: analysis.tables.results_view([cl.compare(grown(w), "clas")], correction="x"),
        "available: holm, bh",
    ),
    *[
        case
        for name in ("decision_table", "decision_view")
        for case in misused(
            name,
            "evaluate(...) returns them",
            lambda w, x, name=name: getattr(analysis.tables, name)(x),
            "None, a text, statistics",
        )
    ],
    *refused("paper table", "the paper has no table", lambda w, x: analysis.tables.paper_table(x), ["x", None, 5, []]),
    *misused("save figure", "needs a figure", lambda w, x: analysis.save_figure(x, w.new() / "x"), "None, a frame"),
    *refused(
        "save figure: stem",
        "stem must be a path",
        lambda w, x: analysis.save_figure(analysis.layer_distribution(w.cats), x),
        ["", None, 5],
    ),
    *refused(
        "export: formats", "format", lambda w, x: analysis.style.export_figures({}, w.new(), x), [("bmp",), "html"]
    ),
    *misused(
        "export", "figures by name", lambda w, x: analysis.style.export_figures(x, w.new()), "None, a list, a frame"
    ),
]

STUDIES = [
    *refused("report", "a run folder must be a path", lambda w, x: analysis.report.build_report(x), [None, 5, ""]),
    Case("report: nowhere", lambda w: analysis.report.build_report("/nowhere"), "is not a run folder"),
    Case("report: a file", lambda w: analysis.report.RunData.open(w.run.manifest), "is not a run folder"),
    *refused("Run.open", "folder must be a path", lambda w, x: Run.open(x), [None, 5, ""]),
    Case("Run.open: stage", lambda w: Run.open(w.run.root, stages=1), "no stage 'stages'; available: name, collect"),
    *misused("Run: config", "a Run needs a StudyConfig", lambda w, x: Run(w.new(), x), "None, a dict, a text"),
    *misused("plan", "a plan needs a StudyConfig", lambda w, x: cl.study.plan_study(x), "None, a dict"),
    *refused(
        "study", "no study", lambda w, x: cl.study.load_study(x), [None, "", "x" * 300, "a\0b", "/nowhere.toml", 5]
    ),
]

CASES = [*FIGURES, *TABLES, *STUDIES]
