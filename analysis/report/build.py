"""`clas-lens report`: a run folder as one page that tells its story, from what was run to the command that runs it again."""

from collections.abc import Iterable
from pathlib import Path

from clas_lens.artifacts import write_text
from clas_lens.models.units import units_fact
from clas_lens.study.tables import WITHOUT_TASK

from ..style.numbers import number
from ..tables.paper import PAPER_TASKS
from ..tables.verdicts import verdict_view
from ..tables.views import decision_view, results_view
from .figures import run_figures
from .methods import methods_paragraphs, reproduce_text
from .page import Block, Code, Facts, Prose, Section, render_page
from .pieces import Missing, Piece, collecting, evaluating
from .relation_tables import relation_tables
from .run import RunData
from .tables import (
    anchors_table,
    answer_tables,
    effects_table,
    measured_table,
    neuron_table,
    paper_answers,
    paper_beside,
    separation_table,
    window_table,
)

LEADS = {
    "categories": "Neurons sorted by the number of languages they are active in. CLAS rescales partial-shared and "
    "language-specific ones in the shaded bridge layers.",
    "neurons": "Single neurons: what excites them, what they promote, what steering does to one of them.",
    "changes": "Inside the model, before and after steering, on the same sentences. {anchor} is the same in both.",
    "results": "Scores with intervals and tests. A gain is worth believing where its interval leaves 0 and where random "
    "neurons under the same search do not gain as much.",
    "paper": "The published numbers (Pokharel, Agrawal and Nagar, 2026, arXiv:2601.16390) and this run's. Another model or "
    "other data are another experiment: read them side by side, not as a replication.",
    "answers": "What the model says with and without steering, to judge by reading.",
}


def build_report(root: str | Path, *, title: str | None = None) -> Path:
    """Write `report.html` into a run folder, from its tables alone; returns its path.

    What is not there yet is named in its place, with the command that brings it. The page works offline: plotly.js is in it.

    Raises:
        ArtifactError: not a run folder, or a damaged table.
    """
    data = RunData.open(root)
    languages = len(data.facts("collect").get("languages", ()))
    page = render_page(
        report_sections(data),
        title=title or f"Cross-lingual steering of {data.model}",
        subtitle=f"{languages} languages, anchor {data.anchor}; run folder {data.run.root.name}",
    )
    path = data.run.root / "report.html"
    write_text(path, page)
    return path


def report_sections(data: RunData) -> list[Section]:
    """The page's sections, in the order of its story."""
    figures = run_figures(data)
    neurons = neuron_table(data)
    missing = Missing("neurons", data.why_missing("top_neurons", collecting(data)))
    parts: list[tuple[str, str, list[Block]]] = [
        ("run", "What was run", _known([_facts(data), measured_table(data)])),
        ("categories", "Neurons by layer", [*figures["categories"]]),
        ("neurons", "Single neurons", [neurons or missing, *figures["neurons"]]),
        ("changes", "What steering changes", _changes(data, figures["changes"])),
        ("results", "Does it help", _results(data, figures["results"])),
        ("paper", "Paper and yours", [*figures["paper"], *(paper_beside(data, task) for task in PAPER_TASKS)]),
        ("answers", "Answers", _answers(data)),
        ("methods", "Methods", [Prose(tuple(methods_paragraphs(data)))]),
        ("reproduce", "Reproduce", [Code(reproduce_text(data))]),
    ]
    return [
        Section(name, title, LEADS.get(name, "").format(anchor=data.anchor_name), blocks)
        for name, title, blocks in parts
    ]


def _known(blocks: Iterable[Block | None]) -> list[Block]:
    return [block for block in blocks if block is not None]


def _facts(data: RunData) -> Facts:
    collect = data.facts("collect")
    steered = data.facts("report data").get("steered") or {}
    items = [("model", data.model)]
    if collect:
        model = collect["model"]
        items += [
            *units_fact(model, model["n_layers"], model["n_neurons"]).items(),
            ("languages", f"{len(collect['languages'])}: {' '.join(collect['languages'])}"),
            ("corpus", f"{collect['config']['corpus']}, {len(collect['examples'])} texts a language"),
            ("tokens measured", f"{sum(collect['n_tokens'].values()):,}"),
        ]
    if data.bridge_layers:
        items.append(("bridge layers", ", ".join(map(str, data.bridge_layers))))
    for setting, one in steered.items():
        strengths = ", ".join(f"{name} {number(one[name])}" for name in ("alpha", "beta", "gamma"))
        items.append(("CLAS" if setting == WITHOUT_TASK else f"CLAS on {data.title(setting)}", strengths))
    items.append(("tasks", ", ".join(map(data.title, data.tasks)) or "none evaluated"))
    return Facts(tuple(items))


def _changes(data: RunData, figures: list[Piece]) -> list[Block]:
    return _known([effects_table(data), *figures, separation_table(data), anchors_table(data)])


def _results(data: RunData, figures: list[Piece]) -> list[Block]:
    views: list[Block] = []
    for task in data.tasks:
        if data.comparisons[task]:
            views.append(verdict_view(data.comparisons[task]))
            views.append(results_view(data.comparisons[task], model=data.model))
    decisions = [decision_view(data.rows[task], model=data.model) for task in data.tasks]
    windows = window_table(data)
    return [*views, *figures, *([] if windows is None else [windows]), *relation_tables(data), *decisions]


def _answers(data: RunData) -> list[Block]:
    own: list[Block] = [*answer_tables(data)]
    none = Missing("answers", f"No answers yet. This brings them: {evaluating(data, PAPER_TASKS[-1])}")
    return [*(own or [none]), paper_answers()]
