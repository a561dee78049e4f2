"""A run's tables as a page shows them: plain cells, which the page escapes and sorts."""

import pandas as pd

from clas_lens.evaluation.windows import window_bests
from clas_lens.significance.pairs import facts_of_rows
from clas_lens.tasks.known import TASKS
from clas_lens.vocabulary import BASE, CLAS, TaskName

from ..figures.maps import MEASURE_NAMES
from ..style.numbers import percent
from ..tables.paper import PAPER_MODELS, PAPER_TASKS, PLACES, paper_outputs, paper_table
from ..tables.table import Table, table_of
from ..tables.verdicts import verdict_view
from ..tables.views import decision_view, results_view
from .run import RunData

MODEL_HEADINGS = dict(zip(PAPER_MODELS, ("Llama", "Qwen"), strict=True))


ANSWERED = 60  # rows of answers shown of each task


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
    return table_of(
        frame, "Texts that the neurons were measured on", notes=(f"Cut: texts longer than {limit} tokens.",)
    )


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
    return table_of(
        shown, "Neurons most selective for a language", digits={"fires (%)": 0}, notes=(note,), filtered=True
    )


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
            "top token changed": [
                percent(round(float(share) * int(n)), int(n))
                for share, n in zip(frame["top1_changed"], frame["n_texts"], strict=True)
            ],
            "cosine before": frame["cosine_before"],
            "cosine after": frame["cosine_after"],
            "texts": frame["n_texts"],
        }
    )
    note = (
        "KL(unsteered || steered) of the token after each text; cosine to the anchor at the bridge layers. The anchor's row "
        "is a check: steering leaves it alone, so its KL is 0."
    )
    return table_of(shown, "The next token and the likeness to the anchor", digits=3, notes=(note,))


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
        named[names], "Separation in all dimensions", digits=3, signed=("change",), notes=(note,), filtered=True
    )


def anchors_table(data: RunData) -> Table | None:
    """Which anchor: what each language would bring as one."""
    frame = data.table("anchors")
    if frame is None:
        return None
    shown = frame.drop(columns=["gain", "ci_low", "ci_high"]).rename(
        columns={
            "active": "active (%)",
            "specific": "specific (%)",
            "partial": "partial-shared (%)",
            "shared": "all-shared (%)",
        }
    )
    gains = {}
    for task in data.tasks:
        comparison = data.main_comparison(task)
        if comparison is not None and comparison.anchor in set(frame["language"]):
            name = f"{data.title(task)}: gain with {comparison.intervention}"
            gains[name] = frame["language"].map({comparison.anchor: comparison.targets.estimate}).astype(float)
    note = (
        f"Each language as if it were the anchor. This run's is {data.anchor}; gains with another need a run with it "
        "(--anchor), and cl.study.compare_anchors puts runs side by side. Shares: of the bridge layers' neurons, those active "
        "in the language, in it alone, in it and some others, in all. Cosine: of the other languages' unsteered sentences to "
        "its own, mean over the bridge layers."
    )
    digits = {"cosine": 4} | {str(name): 1 for name in shown if str(name).endswith("(%)")}
    return table_of(shown.assign(**gains), "Which anchor", digits=digits, signed=tuple(gains), notes=(note,))


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
        if comparison.intervention in (CLAS, "int-mu"):
            own = comparison.languages[["language", "baseline", "gain"]]
            heading = f"yours {comparison.intervention}"
            gains.append(heading)
            own = own.rename(columns={"baseline": "yours", "gain": heading})
            frame = frame.merge(own.drop(columns="yours") if "yours" in frame else own, on="language", how="outer")
    notes = () if task in data.tasks else (f"Your columns come with: clas-lens evaluate {data.run.root} --task {task}",)
    title = f"{TASKS[task].title}: {TASKS[task].metric_title} in percent, gains in points"
    return table_of(frame, title, signed=gains, notes=notes)


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
    if not {BASE, CLAS} <= set(rows["intervention"]):
        return None
    facts = facts_of_rows(rows)
    sides = rows[rows["intervention"].isin([BASE, CLAS])]
    wide = sides.pivot(index=["language", "id"], columns="intervention", values=["prediction", facts.metric])
    gold = rows.drop_duplicates(["language", "id"]).set_index(["language", "id"])["gold"]
    frame = pd.DataFrame(
        {
            "gold": gold.reindex(wide.index),
            "unsteered": wide["prediction", BASE],
            "steered": wide["prediction", CLAS],
            f"{facts.metric_title} unsteered": 100 * wide[facts.metric, BASE].astype(float),
            f"{facts.metric_title} steered": 100 * wide[facts.metric, CLAS].astype(float),
        }
    ).reset_index()
    moved = frame[frame["unsteered"] != frame["steered"]]
    note = f"Steering changed {len(moved)} answers of {len(frame)}."
    few = len(frame) <= ANSWERED
    title = f"{facts.title}: {'answers' if few else 'answers that steering changed'}"
    return table_of(frame if few else moved.head(ANSWERED), title, digits=0, notes=(note,), filtered=True)


def window_table(data: RunData) -> Table | None:
    """The best tuning score at every window of layers, where a search was asked for it."""
    if data.windows is None:
        return None
    bests = window_bests(data.windows)
    shown = pd.DataFrame(
        {
            "task": bests["task"].map(data.title),
            "layers": bests["layers"],
            "bridge": ["yes" if own else "" for own in bests["own"]],
            "best alpha": bests["alpha"],
            "score": bests["score"],
            "unsteered": bests["unsteered"],
            "gain": bests["gain"],
        }
    )
    note = (
        "Tuning examples, mean over languages but the anchor, in percent. Chosen by tuning scores: no window may be picked by "
        "its score on the examples that are reported on."
    )
    return table_of(shown, "Windows of layers as wide as the bridge", signed=("gain",), notes=(note,))


def run_tables(data: RunData) -> dict[str, Table]:
    """All tables that the run has data for, by name; the paper's with its numbers."""
    RunData.given(data)
    tables: dict[str, Table | None] = {
        "texts": measured_table(data),
        "neurons": neuron_table(data),
        "effects": effects_table(data),
        "separation": separation_table(data),
        "anchors": anchors_table(data),
        "table-3-paper_answers": paper_answers(),
    }
    for task, rows in data.rows.items():
        place = PLACES.get(task, "table").lower().replace(" ", "-")
        if data.comparisons[task]:
            tables[f"verdicts_{task}"] = verdict_view(data.comparisons[task])
            tables[f"{place}-results_{task}"] = results_view(data.comparisons[task], model=data.model)
        tables[f"decisions_{task}"] = decision_view(rows, model=data.model)
    tables["windows"] = window_table(data)
    tables |= {f"paper_{task}": paper_beside(data, task) for task in PAPER_TASKS}
    tables |= {f"answers_{place}": table for place, table in enumerate(answer_tables(data), start=1)}
    return {name: table for name, table in tables.items() if table is not None}
