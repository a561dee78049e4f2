"""A study: all stages in order over one run folder, from a TOML file. Killed and started again, it goes on where it was."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clas_lens.artifacts import ArtifactError, content_key, resumed_table, save_table, write_text
from clas_lens.categories.categorize import NeuronCategories
from clas_lens.corpus.bundled import bundled_items, bundled_languages
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.evaluation.search import SearchResult
from clas_lens.models.identity import model_fingerprint
from clas_lens.models.sites import LensModel
from clas_lens.representations.effects import measure_effects
from clas_lens.steering.clas import Clas
from clas_lens.steering.generate import generate, prompt_ids
from clas_lens.steering.steer import steer
from clas_lens.study.config import DemoConfig, ReportConfig, StudyConfig
from clas_lens.study.folder import RunFolder
from clas_lens.study.stages import (
    build_clas,
    categorize_stage,
    collect_stage,
    compare_stage,
    evaluate_stage,
    load_configured_corpus,
    load_configured_model,
    methods_stage,
    search_stage,
)
from clas_lens.study.tables import WITHOUT_TASK, evaluated_clas, report_data_stage, report_layers
from clas_lens.tasks.prompts import QA_PROMPT_VERSION, qa_prompt

Say = Callable[[str], None]


def run_study(config: StudyConfig, out: Path, say: Say, *, progress: bool = True) -> dict[str, pd.DataFrame]:
    """Everything, in order; returns the rows of each task.

    Raises:
        ArtifactError: the folder holds a run of another study.
    """
    run = RunFolder(out)
    _claim(run, config)
    say(f"loading {config.collect.model}")
    model = load_configured_model(config.collect)
    corpus = load_configured_corpus(config.collect)
    say("measuring every MLP neuron in every language")
    stats = collect_stage(config.collect, run, model, corpus, progress=progress)
    cats, layers = categorize_stage(config.categorize, run)
    say(f"{cats!r}\nbridge layers {', '.join(map(str, layers))}")
    clas = build_clas(config.steer, cats, layers)
    clas.save_pretrained(run.clas)
    methods = methods_stage(
        config.methods,
        run,
        model,
        corpus,
        stats,
        clas,
        max_tokens=config.collect.max_tokens,
        batch_size=config.collect.batch_size,
        progress=progress,
    )
    rows: dict[str, pd.DataFrame] = {}
    for task in config.tasks:
        searches: dict[str, SearchResult] = {}
        if config.search is not None:
            say(f"{task.task}: tuning on {task.tuning_limit or 'all'} examples a language")
            searched = {name: methods[name] for name, _ in config.methods.searched(config.search.fixed)}
            searches = search_stage(config.search, run, model, task, config.evaluate, searched, clas, progress=progress)
            say("; ".join(f"{name}: alpha={searches[name].chosen['alpha']:g}" for name in searched))
        say(f"{task.task}: reporting")
        rows[task.task] = evaluate_stage(config.evaluate, run, model, task, methods, searches, progress=progress)
        compare_stage(run, task.task, rows[task.task], clas.anchor)
    say("collecting what the report shows")
    report_data_stage(
        config.report,
        run,
        model,
        stats,
        cats,
        evaluated_clas(run, clas),
        measured=corpus,
        read=corpus.take(range(min(config.report.examples, len(corpus)))),
        batch_size=config.collect.batch_size,
        max_tokens=config.collect.max_tokens,
        progress=progress,
    )
    return rows


def _claim(run: RunFolder, config: StudyConfig) -> None:
    """A folder belongs to one study: what is in it is resumed, never mixed."""
    if run.manifest.exists():
        held = run.read_manifest().get("study", {}).get("config")
        if held is not None and held != config.model_dump(mode="json"):
            raise ArtifactError(
                f"{run.root} holds a run of another study, or of another version of {config.name!r}. "
                "Give --out another folder, or delete this one."
            )
    run.update_manifest("study", config)


ANSWERS = "answers"


SHOWCASE = ("de", "es", "ru", "sw", "zh", "en")


def answers_stage(
    config: DemoConfig, run: RunFolder, model: LensModel, clas: Clas, languages: Sequence[str], *, progress: bool = True
) -> pd.DataFrame:
    """Ask questions about bundled passages with and without steering: one row a question and language.

    All languages go through in mixed batches, each row steered in its own.

    Columns: language, id, question, gold, unsteered, steered.
    """
    path = run.tables / "answers.parquet"
    items = [(code, item) for code in languages for item in bundled_items(code)[: config.questions]]
    tokenizer = require_tokenizer(model)
    prompts = [qa_prompt(tokenizer, model.cfg.model_name, item, code) for code, item in items]
    key = content_key(clas.fingerprint(), model_fingerprint(model), prompt_ids(model, prompts), config.max_new_tokens)
    done = resumed_table(path, ANSWERS, key)
    if done is not None:
        return done
    if not items:
        return pd.DataFrame(columns=["language", "id", "question", "gold", "unsteered", "steered"])
    options: dict[str, Any] = {
        "max_new_tokens": config.max_new_tokens,
        "batch_size": 2 * config.batch_size,
        "stop_at_newline": True,
        "progress": progress,
    }
    unsteered = generate(model, prompts, **options)
    with steer(model, clas, language=[code for code, _ in items]):
        steered = generate(model, prompts, **options)
    answers = pd.DataFrame(
        {
            "language": [code for code, _ in items],
            "id": [item.id for _, item in items],
            "question": [item.question for _, item in items],
            "gold": [item.answer for _, item in items],
            "unsteered": unsteered,
            "steered": steered,
        }
    )
    save_table(path, ANSWERS, answers, {"key": key, "prompts": QA_PROMPT_VERSION})
    return answers


def answer_languages(config: DemoConfig, measured: Sequence[str]) -> tuple[str, ...]:
    """The languages to ask in: those configured, or up to six of the measured ones that the bundled corpus has.

    Raises:
        ValueError: a configured language without bundled questions.
    """
    known = bundled_languages()
    if config.answer_languages is not None:
        missing = [code for code in config.answer_languages if code not in known]
        if missing:
            raise ValueError(f"no bundled questions in {missing[0]!r}; available: {', '.join(known)}")
        return config.answer_languages
    bundled = [code for code in measured if code in known]
    preferred = [code for code in SHOWCASE if code in bundled]
    return tuple([*preferred, *(code for code in bundled if code not in preferred)][: len(SHOWCASE)])


def effects_corpus(config: DemoConfig, corpus: ParallelCorpus) -> ParallelCorpus:
    """The texts on which `demo` shows what steering changes: bundled sentences, or else the first texts measured.

    Raises:
        ValueError: the anchor is in neither.
    """
    wanted = list(dict.fromkeys([*corpus.languages, config.anchor]))
    if set(wanted) <= set(bundled_languages()):
        return ParallelCorpus.bundled(wanted, fields=("entailment",)).take(range(config.effect_texts))
    if config.anchor not in corpus.languages:
        raise ValueError(
            f"the anchor {config.anchor!r} is not among the corpus's languages: {', '.join(corpus.languages)}"
        )
    return corpus.take(range(min(config.effect_texts, len(corpus))))


def run_demo(config: DemoConfig, say: Say, *, progress: bool = True) -> tuple[NeuronCategories, tuple[int, ...]]:
    """Everything that `clas-lens demo` does but the figure: measure, sort, steer, compare, write."""
    run = RunFolder(config.out)
    corpus = load_configured_corpus(config)
    asked, compared = answer_languages(config, corpus.languages), effects_corpus(config, corpus)
    say(f"loading {config.model}")
    model = load_configured_model(config)
    say("measuring every MLP neuron in every language")
    stats = collect_stage(config, run, model, corpus, progress=progress)
    cats, layers = categorize_stage(config, run)
    say(f"{cats!r}\nbridge layers {', '.join(map(str, layers))}")
    clas = build_clas(config, cats, layers)
    clas.save_pretrained(run.clas)
    say("asking questions, unsteered and steered")
    answers = answers_stage(config, run, model, clas, asked, progress=progress)
    say("measuring what steering changes")
    effects = measure_effects(
        model,
        clas,
        compared,
        batch_size=config.batch_size,
        max_tokens=config.max_tokens,
        out=run.rows / "effects",
        representations=run.representations,
        more_layers=report_layers(clas.layers, stats.n_layers),
        progress=progress,
    )
    save_table(run.tables / "effects.parquet", "steering effects", effects, {})
    run.update_manifest("demo", config, clas=clas.settings(), effects=effects.to_dict("records"))
    write_text(run.root / "summary.md", summary(config, cats, clas, answers, effects))
    say("collecting what the report shows")
    report_data_stage(
        ReportConfig(examples=len(compared), neuron_languages=4),
        run,
        model,
        stats,
        cats,
        {WITHOUT_TASK: clas},
        measured=corpus,
        read=compared,
        batch_size=config.batch_size,
        max_tokens=config.max_tokens,
        progress=progress,
    )
    return cats, layers


def summary(
    config: DemoConfig, cats: NeuronCategories, clas: Clas, answers: pd.DataFrame, effects: pd.DataFrame
) -> str:
    """The run in one page of Markdown."""
    strength = f"alpha={clas.alpha:g}, beta={clas.beta:g}, gamma={clas.gamma:g}"
    lines = [
        f"# {config.model}, steered",
        "",
        f"{cats!r}",
        "",
        f"Bridge layers {', '.join(map(str, clas.layers))}; {strength}; anchor {clas.anchor}.",
        "",
        "## What steering changes",
        "",
        "KL(unsteered || steered) of the next-token distribution in nats; share of texts whose most likely next token changed; "
        f"cosine of the sentence representation to {clas.anchor}, mean over the bridge layers.",
        "",
        _markdown(effects.round({"kl": 4, "top1_changed": 3, "cosine_before": 4, "cosine_after": 4})),
        "",
        "## Answers side by side",
        "",
        _markdown(answers) if len(answers) else "The bundled corpus has no questions in these languages.",
        "",
    ]
    if config.corpus == "bundled":
        lines += ["The neurons were measured on texts of the same corpus: this shows mechanics, not gains.", ""]
    return "\n".join(lines)


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        return str(value).replace("|", "\\|").replace("\n", " ")

    rows = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(cell(value) for value in row) + " |" for row in rows)
