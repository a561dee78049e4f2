"""A run's tables as a page shows them: plain cells, which the page escapes and sorts."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.figures.maps import MEASURE_NAMES
from analysis.report.run import MAIN, RunData
from analysis.tables.paper import PAPER_MODELS, paper_outputs, paper_table
from clas_lens.significance.pairs import facts_of_rows
from clas_lens.tasks.known import TASKS
from clas_lens.vocabulary import TaskName

MODEL_HEADINGS = dict(zip(PAPER_MODELS, ("Llama", "Qwen"), strict=True))


ANSWERED = 60  # rows of answers shown of each task


@dataclass(frozen=True)
class Table:
    """Text by row and column; columns of numbers are set to the right."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    note: str = ""
    filtered: bool = False


def table_of(
    frame: pd.DataFrame,
    title: str,
    *,
    digits: int = 2,
    signed: Sequence[str] = (),
    note: str = "",
    filtered: bool = False,
) -> Table:
    """A frame's columns as text: numbers with `digits`, those named in `signed` with their sign, nothing for NaN."""
    numeric = tuple(pd.api.types.is_numeric_dtype(frame[name]) for name in frame)
    columns = [_cells(frame[name], digits=digits, signed=name in signed) for name in frame]
    return Table(title, tuple(map(str, frame.columns)), tuple(zip(*columns, strict=True)), numeric, note, filtered)


def _cells(column: pd.Series, *, digits: int, signed: bool) -> list[str]:
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return ["" if pd.isna(value) else str(value) for value in column]
    if pd.api.types.is_integer_dtype(column):
        return [f"{value:,}" for value in column]
    return ["" if pd.isna(value) else _decimal(value, digits=digits, signed=signed) for value in column]


def _decimal(value: float, *, digits: int, signed: bool) -> str:
    rounded = round(float(value), digits) + 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def measured_table(data: RunData) -> Table | None:
    """How much text each language was measured on."""
    collect = data.facts("collect")
    if not collect:
        return None
    languages = collect["languages"]
    frame = pd.DataFrame(
        {
            "language": languages,
            "texts": [len(collect["examples"])] * len(languages),
            "tokens": [collect["n_tokens"][code] for code in languages],
            "cut": [collect["texts"][code]["truncated"] for code in languages],
        }
    )
    limit = collect["config"]["max_tokens"]
    return table_of(frame, "Texts that the neurons were measured on", note=f"Cut: texts longer than {limit} tokens.")


def neuron_table(data: RunData) -> Table | None:
    """The neuron browser."""
    frame = data.table("top_neurons")
    if frame is None:
        return None
    shown = pd.DataFrame(
        {
            "language": frame["language"],
            "layer": frame["layer"],
            "neuron": frame["neuron"].astype(str),  # a name, not an amount
            "category": frame["category"],
            "languages": frame["languages"],
            "selectivity": frame["selectivity"],
            "fires (%)": 100 * frame["firing_rate"],
            "max": frame["max"],
            "most exciting text": frame["text"],
            "promotes": ["\N{LEFT-TO-RIGHT MARK}" + " ".join(map(_token, tokens)) for tokens in frame["promoted"]],
        }
    )
    note = (
        "Selectivity: mean activation above the other languages' mean, in units of the neuron's root mean square. Languages: "
        "how many it is active in. Promotes: the tokens whose logits it raises most, through the unembedding alone."
    )
    return table_of(shown, "Neurons most selective for a language", note=note, filtered=True)


def _token(token: str) -> str:
    """A token whose spaces and line breaks show, and whose direction of writing turns nothing around it."""
    shown = token.replace(" ", "\N{OPEN BOX}").replace("\n", "\N{RETURN SYMBOL}")
    return f"\N{FIRST STRONG ISOLATE}{shown}\N{POP DIRECTIONAL ISOLATE}"


def effects_table(data: RunData) -> Table | None:
    """What steering changes of the next token."""
    frame = data.table("effects")
    if frame is None:
        return None
    frame = frame[frame["setting"].isin(list(data.settings))]
    settings = {"setting": frame["setting"].map(data.settings)} if len(data.settings) > 1 else {}
    shown = pd.DataFrame(
        {
            **settings,
            "language": frame["language"],
            "KL (nats)": frame["kl"],
            "top token changed (%)": 100 * frame["top1_changed"],
            "cosine before": frame["cosine_before"],
            "cosine after": frame["cosine_after"],
            "texts": frame["n_texts"],
        }
    )
    note = (
        "KL(unsteered || steered) of the token after each text; cosine to the anchor at the bridge layers. The anchor's row "
        "is a check: steering leaves it alone, so its KL is 0."
    )
    return table_of(shown, "The next token and the likeness to the anchor", digits=3, note=note)


def separation_table(data: RunData) -> Table | None:
    """Every measure of separation by language."""
    frame = data.table("separation")
    if frame is None:
        return None
    named = frame.assign(measure=frame["measure"].map(MEASURE_NAMES), change=frame["after"] - frame["before"])
    named = named[named["setting"].isin(list(data.settings))]
    names = ["language", "measure", "before", "after", "change", "chance"]
    if len(data.settings) > 1:
        named["setting"] = named["setting"].map(data.settings)
        names.insert(0, "setting")
    note = (
        "Silhouette and neighbours: how far a language lies apart. Retrieval and CKA: how well it agrees with the anchor. "
        "Chance: languages mixed at random."
    )
    return table_of(
        named[names], "Separation in all dimensions", digits=3, signed=("change",), note=note, filtered=True
    )


def paper_beside(data: RunData, task: TaskName) -> Table:
    """The paper's Table 1 or 2, with this run's scores in further columns."""
    table = paper_table(task)
    frame = pd.DataFrame({"language": sorted(table["language"].unique())})
    for model, part in table.groupby("model"):
        name = MODEL_HEADINGS[str(model)]
        columns = {"base": name, "intmu_gain": f"{name} Int_mu", "clas_gain": f"{name} CLAS"}
        frame = frame.merge(part[["language", *columns]].rename(columns=columns), on="language")
    gains = [str(name) for name in frame if str(name).endswith(("Int_mu", "CLAS"))]
    for comparison in data.comparisons.get(task, []):
        if comparison.intervention in (MAIN, "int-mu"):
            own = comparison.languages[["language", "baseline", "gain"]]
            heading = f"yours {comparison.intervention}"
            gains.append(heading)
            own = own.rename(columns={"baseline": "yours", "gain": heading})
            frame = frame.merge(own.drop(columns="yours") if "yours" in frame else own, on="language", how="outer")
    note = "" if task in data.tasks else f"Your columns come with: clas-lens evaluate {data.run.root} --task {task}"
    title = f"{TASKS[task].title}: {TASKS[task].metric_title} in percent, gains in points"
    return table_of(frame, title, signed=gains, note=note)


def paper_answers() -> Table:
    """The paper's Table 3."""
    frame = paper_outputs().rename(columns={"base": "unsteered", "clas": "CLAS"})
    return table_of(frame, "The paper's answers (Table 3): Llama, German")


def answer_tables(data: RunData) -> list[Table]:
    """Answers in words, unsteered and steered: all if they are few, else those that steering changed."""
    found = [_answers_of(rows) for rows in data.rows.values() if "n_new_tokens" in rows]
    return [table for table in found if table is not None]


def _answers_of(rows: pd.DataFrame) -> Table | None:
    """The answers of one task."""
    if not {"base", MAIN} <= set(rows["intervention"]):
        return None
    facts = facts_of_rows(rows)
    sides = rows[rows["intervention"].isin(["base", MAIN])]
    wide = sides.pivot(index=["language", "id"], columns="intervention", values=["prediction", facts.metric])
    gold = rows.drop_duplicates(["language", "id"]).set_index(["language", "id"])["gold"]
    frame = pd.DataFrame(
        {
            "gold": gold.reindex(wide.index),
            "unsteered": wide["prediction", "base"],
            "steered": wide["prediction", MAIN],
            f"{facts.metric_title} unsteered": 100 * wide[facts.metric, "base"].astype(float),
            f"{facts.metric_title} steered": 100 * wide[facts.metric, MAIN].astype(float),
        }
    ).reset_index()
    moved = frame[frame["unsteered"] != frame["steered"]]
    note = f"Steering changed {len(moved)} answers of {len(frame)}."
    few = len(frame) <= ANSWERED
    title = f"{facts.title}: {'answers' if few else 'answers that steering changed'}"
    return table_of(frame if few else moved.head(ANSWERED), title, digits=0, note=note, filtered=True)
