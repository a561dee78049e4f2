"""A run in one page of Markdown, to read in a terminal."""

import pandas as pd

from clas_lens.study.folder import REPORT_DATA
from clas_lens.study.run import Run

SHOWN_ANSWERS = 30


def summary(run: Run) -> str:
    """What was measured and steered, what steering changes, and answers side by side."""
    clas, config = run.clas, run.config
    strength = f"alpha={clas.alpha:g}, beta={clas.beta:g}, gamma={clas.gamma:g}"
    lines = [
        f"# {config.collect.model}, steered",
        "",
        f"{run.categories!r}",
        "",
        f"Bridge layers {', '.join(map(str, clas.layers))}; {strength}; anchor {clas.anchor}.",
        "",
        "## What steering changes",
        "",
        "KL(unsteered || steered) of the next-token distribution in nats; share of texts whose most likely next token changed; "
        f"cosine of the sentence representation to {clas.anchor}, mean over the bridge layers; moved: how far it went, as a "
        "share of its length.",
        "",
        _effects(run),
        "",
        "## Answers side by side",
        "",
        *_answers(run),
    ]
    if config.collect.corpus == "bundled":
        lines += ["", "The neurons were measured on texts of the same corpus: this shows mechanics, not gains."]
    return "\n".join(lines) + "\n"


def _effects(run: Run) -> str:
    effects = run.folder.table("effects", REPORT_DATA)
    if effects is None:
        return "Nothing was read with steering."
    digits = {"kl": 4, "top1_changed": 3, "cosine_before": 4, "cosine_after": 4, "moved": 4}
    return _markdown(effects.round(digits))


def _answers(run: Run) -> list[str]:
    """Of the tasks whose answers are text."""
    found = [
        rows
        for rows in run.rows.values()
        if {"base", "clas"} <= set(rows["intervention"]) and pd.api.types.is_string_dtype(rows["prediction"])
    ]
    if not found:
        return ["No questions were asked in these languages."]
    rows = found[0]
    wide = rows.pivot(index=["language", "id", "gold"], columns="intervention", values="prediction")
    table = wide[["base", "clas"]].rename(columns={"base": "unsteered", "clas": "steered"}).reset_index()
    left = f"The first {SHOWN_ANSWERS} of {len(table)}." if len(table) > SHOWN_ANSWERS else ""
    return [_markdown(table.head(SHOWN_ANSWERS)), *([left] if left else [])]


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        return str(value).replace("|", "\\|").replace("\n", " ")

    rows = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(cell(value) for value in row) + " |" for row in rows)
