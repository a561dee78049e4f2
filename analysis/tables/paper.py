"""The published numbers, to set beside one's own: facts of arXiv 2601.16390v1 (CLAS), transcribed as printed.

Not printed there, and so not here: the alpha behind Tables 1 and 2; the values behind the figures (the cosines of Figures 2
and 8, the alignment change of 3 and 7, the curves of 5 and 6), whose text has axis ticks only; confidence intervals; XNLI's F1,
though section 3.2 announces it; which test finds the spread over languages unchanged.

Where the print disagrees with itself: Table 1 has Qwen gain 0.05 in English, which CLAS leaves untouched (section 2.5);
Table 2's p = 0.10 for Llama is 0.106 when computed from its gains; the abstract's 2.3% and 3.4% are the gains relative to the
base scores, both models pooled, where the tables have points; Llama's English F1 is below eight other languages', though the
anchor is to be the model's strongest language.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from clas_lens.models.presets import PRESETS
from clas_lens.vocabulary import TaskName

# Language; then for Llama and for Qwen the base score, the gain of Int_mu and the gain of CLAS. Accuracy in percent.
_TABLE_1 = """
ar 38.88 -0.76 +4.71 60.45 +0.09 +0.45
bg 42.28 -1.60 -2.14 60.75 -0.01 +0.71
de 43.65 +2.12 +1.62 66.22 +0.11 +0.77
el 40.58 +0.72 +5.39 58.02 +0.04 +0.48
en 52.63  0.00  0.00 71.73 +0.05 +0.05
es 46.95 -0.36 -0.72 65.56 -0.05 +0.73
fr 44.53 -1.42 +2.34 64.47 -0.14 +0.66
hi 41.78 -0.68 +5.80 55.56 -0.05 +0.51
ru 43.75 +0.04 +1.14 61.87 -0.17 +0.25
sw 41.10 +0.32 -3.06 40.31 -0.35 +0.21
th 40.68 +3.71 +4.09 57.80 -0.02 +0.38
tr 44.17 -0.36 +0.66 59.18 -0.08 +0.72
ur 36.09 +0.28 +7.00 51.07 +0.09 +0.43
vi 44.81 -1.96 -3.73 62.11 +0.07 +0.31
zh 44.63 -3.25 +5.89 63.81  0.00 +0.08
"""


# The same for token F1 in percent.
_TABLE_2 = """
ar 23.20 -1.95 +1.01 28.73 +0.26 +5.06
de 38.54 -5.46 +6.25 34.77 -2.76 -0.96
el 25.18 +1.50 +0.23 37.06 -0.06 -1.51
en 23.47  0.00  0.00 48.88 +0.11  0.00
es 34.23 +1.08 +1.84 38.53 -2.53 +2.63
hi 29.47 -0.09 -0.10 33.12 -2.12 -5.28
ro 30.01 +6.97 -0.03 34.48 -0.48 +0.48
ru 27.32 -0.08 -0.06 27.58 -0.58 +8.94
th 19.23 -3.40 -0.46 28.51 +7.48 +0.98
tr 23.74 -2.11 +1.14 29.19 -2.19 -2.31
vi 34.91 +5.08 +1.67 31.67 -5.67 +1.36
zh 12.84 +0.05 -0.25 20.24 -1.24 +3.76
"""


_TABLES: Mapping[TaskName, str] = {"xnli": _TABLE_1, "xquad": _TABLE_2}


PAPER_TASKS = tuple(_TABLES)


PLACES = {"xnli": "Table 1", "xquad": "Table 2"}


_SCORES = ["base", "intmu_gain", "clas_gain"]


# The tables' last rows, in the same columns: averages with English, standard deviations of scores without it.
_AVERAGES = {"xnli": "43.10 -0.21 +1.93 59.93 -0.03 +0.45", "xquad": "26.85 +0.13 +0.94 32.73 -0.82 +1.10"}


_SIGMAS = {"xnli": "2.82 2.77 3.19 6.78 6.84 6.87", "xquad": "7.43 8.75 8.83 5.16 5.45 4.95"}


_P_VALUES = {"xnli": ("p < 0.05", "p < 0.001"), "xquad": ("p = 0.10", "p = 0.33")}


PAPER_MODELS = ("llama-3.1-8b", "qwen-2.5-7b")  # the instruct models, by their names in `load_model`


def paper_table(task: str) -> pd.DataFrame:
    """Table 1 (XNLI accuracy) or 2 (XQuAD token F1), in percent.

    Returns:
        One row a model and language: `model`, `language`, `base`, and in points `intmu_gain` and `clas_gain`.

    Raises:
        ValueError: not "xnli" or "xquad".
    """
    lines = [line.split() for line in _of(_TABLES, task).strip().splitlines()]
    parts = [_split(cells).assign(language=code)[["model", "language", *_SCORES]] for code, *cells in lines]
    table = pd.concat(parts)
    return table.sort_values(["model", "language"], ignore_index=True)


def paper_summary(task: str) -> pd.DataFrame:
    """The last rows of Table 1 or 2, as printed; `summarize_languages` recomputes them.

    Returns:
        One row a model: `model`; the averages `base`, `intmu_gain`, `clas_gain`; the standard deviations over languages
        `sigma_base`, `sigma_intmu`, `sigma_clas`; and `clas_p`, in words the result of its t-test over languages, which holds
        for its own examples only, as every test over languages.
    """
    sigmas = _split(_of(_SIGMAS, task).split())[_SCORES].set_axis(["sigma_base", "sigma_intmu", "sigma_clas"], axis=1)
    return pd.concat([_split(_AVERAGES[task].split()), sigmas], axis=1).assign(clas_p=_P_VALUES[task])


def paper_outputs() -> pd.DataFrame:
    """Table 3: German XQuAD questions and Llama's answers, `question`, `base`, `clas`."""
    return pd.DataFrame(
        [
            {
                "question": "Was benannte die Generalkonferenz für Maß und Gewicht 1960 nach Tesla?",
                "base": "SI-Maßeinheit der magnetischen Flussdichte. stop. Die SI-Maßeinheit der magnetischen Flussdichte",
                "clas": "SI-Maßeinheit der magnetischen Flussdichte.",
            },
            {
                "question": "Die Lutherbibel beeinflusste wessen englische Übersetzung der Bibel?",
                "base": "William Tyndale Die Lutherbibel beeinflusste die englische Bibel von William Tyndale. "
                "Tyndale war ein eng",
                "clas": "William Tyndale.",
            },
        ]
    )


def paper_model(name: str) -> str | None:
    """Which of `PAPER_MODELS` a model is, by its short name, Hub id or the last part of it; None for any other model.

    "llama-3.1-8b" is this package's name of the instruct model; "Llama-3.1-8B" is Meta's of the base model, so not the paper's.
    """
    for short in PAPER_MODELS:
        hub_id = PRESETS[short].hub_id.lower()
        if name == short or name.lower() in (hub_id, hub_id.rpartition("/")[2]):
            return short
    return None


def _of(tables: Mapping[Any, str], task: str) -> str:
    if not isinstance(task, str) or task not in tables:
        raise ValueError(f"the paper has no table of the task {task!r}; it has: {', '.join(tables)}")
    return tables[task]


def _split(cells: list[str]) -> pd.DataFrame:
    """Six numbers as one row a model."""
    numbers = [float(cell) for cell in cells]
    rows = [(model, *numbers[3 * place : 3 * place + 3]) for place, model in enumerate(PAPER_MODELS)]
    return pd.DataFrame(rows, columns=["model", *_SCORES])
