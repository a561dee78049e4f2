"""A run folder with everything that a report shows: real measurements of a tiny model, made-up answers of two tasks."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd

import clas_lens as cl
from clas_lens.artifacts import save_table
from clas_lens.evaluation.search import KIND as SEARCH_KIND
from clas_lens.evaluation.store import KIND as ROWS
from clas_lens.study.config import (
    CollectConfig,
    EvaluateConfig,
    ReportConfig,
    SearchConfig,
    SteerConfig,
    StudyConfig,
    TaskConfig,
)
from clas_lens.study.folder import RunFolder
from clas_lens.study.run import Run
from clas_lens.study.stages import compare_stage
from clas_lens.study.tables import report_tables
from clas_lens.tasks.known import TASKS

LANGUAGES = ("en", "de", "zh", "ar", "fr", "sw")
METHODS = ("base", "clas", "random")
HOSTILE = (
    "<script>document.hacked = 1</script><img src=x onerror='document.hacked = 1'> {{7*7}} {% raw %} %{x} $a$ </script>"
)
GAIN = {"base": 0.0, "clas": 0.2, "random": 0.05}


def full_run(root, model, *, hostile: bool = False, anchor: str = "en") -> RunFolder:
    """The folder; `hostile` puts markup and template syntax into texts, answers, and names of models, methods and languages."""
    shutil.copytree(_made_once(model, hostile, anchor), root, dirs_exist_ok=True)
    return RunFolder(root)


@cache
def _made_once(model, hostile: bool, anchor: str) -> Path:
    """Such a folder, which takes seconds to make and is copied."""
    root = Path(mkdtemp(prefix="full_run"))
    atexit.register(shutil.rmtree, root)
    _make(RunFolder(root), model, hostile, anchor)
    return root


def _make(run: RunFolder, model, hostile: bool, anchor: str) -> None:
    word = HOSTILE if hostile else "tea"
    texts = {code: [f"{code} {word} {n}" for n in range(12)] for code in LANGUAGES}
    corpus = cl.ParallelCorpus.from_texts(texts, ids=[f"{word} {n}" for n in range(12)])
    config = StudyConfig(
        name="full",
        collect=CollectConfig(model="tiny", corpus="files", batch_size=8, max_tokens=64),
        steer=SteerConfig(anchor=anchor),
        report=ReportConfig(neurons=1),
    )
    made = Run(run.root, config, model=model, corpus=corpus, progress=False)
    for task, alpha in (("xnli", -4.0), ("xquad", 2.0)):
        clas = cl.Clas(made.categories, layers=made.bridge_layers, alpha=alpha, anchor=anchor)
        clas.save_pretrained(run.methods / task / "clas")
    report_tables(made)
    rng = np.random.default_rng(0)
    named = f"random {word}" if hostile else "random"
    spoken = (*LANGUAGES, f"xx {word}") if hostile else LANGUAGES
    for task in ("xnli", "xquad"):
        rows = _rows(task, rng, word, anchor).replace({"intervention": {"random": named}})
        if hostile:
            rows = pd.concat([rows, rows[rows["language"] == "de"].assign(language=spoken[-1])], ignore_index=True)
        save_table(run.answers(task), ROWS, rows, {})
        compare_stage(run, task, rows, anchor)
        _record(run, task, [named if name == "random" else name for name in METHODS], word)
    save_table(run.search / "xnli" / "clas.parquet", SEARCH_KIND, _searched(rng), {})


def _rows(task: str, rng: np.random.Generator, word: str, anchor: str) -> pd.DataFrame:
    rows = []
    for place, language in enumerate(LANGUAGES):
        luck = rng.random(20)
        for method in METHODS:
            gain = 0 if language == anchor else GAIN[method] * (place - 2)
            for n in range(20):
                right = luck[n] < 0.4 + gain
                row = {"task": task, "language": language, "intervention": method, "id": f"{n}", "group": f"{n // 2}"}
                row |= {
                    "title": TASKS[task].title,
                    "metric": TASKS[task].metric,
                    "metric_title": TASKS[task].metric_title,
                }
                row |= {"n_prompt_tokens": 9, "truncated": n == 0, "overlap": method == "clas" and n < 3}
                if task == "xnli":
                    row |= {"gold": n % 3, "prediction": n % 3 if right else (n + 1) % 3, "correct": right}
                    row |= dict.fromkeys(("p_entailment", "p_neutral", "p_contradiction"), 1 / 3) | {"label_mass": 0.5}
                else:
                    row |= {"gold": word, "prediction": f"{method} {word}", "f1": float(right), "em": float(right)}
                    row |= {"f1_segmented": float(right), "n_new_tokens": 4, "stopped": True, "gold_lost": False}
                rows.append(row)
    return pd.DataFrame(rows)


def _record(run: RunFolder, task: str, methods: list[str], word: str) -> None:
    source = TaskConfig(task=task, data=word, tuning_limit=6, allow_overlap=True)
    settings = {"prompt": f"{task}-v1", "instruction": "native", "max_new_tokens": 4}
    facts = {"task": settings, "source": source.model_dump(mode="json"), "languages": list(LANGUAGES), "n_examples": 20}
    run.update_manifest(
        f"search {task}", SearchConfig(), chosen={"clas": {"alpha": -4.0}}, examples=["a"] * 6, task=settings
    )
    run.update_manifest(f"evaluate {task}", EvaluateConfig(), **facts, overlapping=18, methods=dict.fromkeys(methods))


def _searched(rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        ("xnli", alpha, 0.4, 0.2, language, 40 + alpha + rng.normal(), 6)
        for alpha in (-4.0, -2.0, 0.0, 2.0)
        for language in LANGUAGES
    ]
    return pd.DataFrame(rows, columns=["task", "alpha", "beta", "gamma", "language", "score", "n"])
