"""What a study will do, before it does it: forward passes, tokens and disk, estimated without a model or a network."""

from dataclasses import dataclass

import pandas as pd

from clas_lens.models.presets import PRESETS
from clas_lens.study.config import StudyConfig, TaskConfig
from clas_lens.vocabulary import Method

# Languages and rows of the data sets by use, where nothing narrower is asked for; XQuAD's parts are those of split seed 0.
LANGUAGES = {"xnli": 15, "xquad": 12, "bundled": 16}


ROWS = {
    ("xnli", "tuning"): 2490,
    ("xnli", "test"): 5010,
    ("xquad", "tuning"): 210,
    ("xquad", "test"): 434,
    ("xquad", "whole"): 1190,
    ("bundled", "tuning"): 4,
    ("bundled", "test"): 10,
    ("bundled", "whole"): 24,
}


TEXTS = {"bundled": 120, "xquad": 1190, "xnli": 2490, "files": 0}


# Tokens a prompt, averaged over the languages, with Llama 3.1's tokenizer: text (59 and 289) and instruction.
TOKENS = {"xnli": 150, "xquad": 350}


BUNDLED_TOKENS = {"xnli": 170, "xquad": 130}


CORPUS_TOKENS = {"xquad": 289, "xnli": 59, "bundled": 30, "files": 50}


BYTES_A_NEURON = 76  # what is kept of each neuron and language


BYTES_A_ROW = 120


FROM_THE_FIRST_LAYER: tuple[Method, ...] = ("int-mu",)


@dataclass(frozen=True)
class Step:
    """One line of a plan; `passes` are whole forward passes of one prompt or text, lower layers counted once where shared."""

    stage: str
    what: str
    passes: int | float
    tokens: int | float
    bytes: int | float


def plan_study(config: StudyConfig) -> pd.DataFrame:
    """A row a stage: `stage`, `what`, `passes` (of a text or prompt through the whole model; layers that settings share are
    counted once), `tokens` (through the whole model, generated ones included), `disk_mb`.

    All are estimates: token counts are averages over languages, and generation is taken to use all the tokens it may.
    """
    steps = [_collect(config)]
    for task in config.tasks:
        if config.search is not None:
            steps.append(_search(config, task))
        steps.append(_evaluate(config, task))
    steps.append(_report(config))
    frame = pd.DataFrame([vars(step) for step in steps])
    frame["disk_mb"] = (frame.pop("bytes") / 1e6).round(1)
    return frame.round({"passes": 0, "tokens": 0}).astype({"passes": int, "tokens": int})


def _shape(config: StudyConfig) -> tuple[int, float]:
    """Neurons of the model, and the share of its layers from the first bridge layer on; a guess for an unknown model."""
    preset = PRESETS.get(config.collect.model)
    if preset is None:
        return 0, 0.25
    n_layers, n_neurons, _ = preset.signature
    layers = config.categorize.layers or preset.bridge_layers
    return n_layers * n_neurons, 1 - min(layers) / n_layers if layers else 0.25


def _corpus(config: StudyConfig) -> tuple[int, int]:
    corpus = config.collect
    languages = len(corpus.languages) if corpus.languages else LANGUAGES.get(corpus.corpus, 1)
    return languages, corpus.limit or TEXTS[corpus.corpus]


def _collect(config: StudyConfig) -> Step:
    languages, texts = _corpus(config)
    neurons, _ = _shape(config)
    what = f"{languages} languages x {texts} texts of {config.collect.corpus}"
    passes = languages * texts
    return Step(
        "collect",
        what if neurons else f"{what}; disk unknown for this model",
        passes,
        passes * CORPUS_TOKENS[config.collect.corpus],
        languages * neurons * BYTES_A_NEURON,
    )


def _examples(task: TaskConfig, use: str) -> tuple[int, int]:
    """How many languages and examples."""
    bundled = task.data == "bundled"
    part = "whole" if task.whole and task.task == "xquad" else use
    rows = ROWS["bundled" if bundled else task.task, part] * (3 if bundled and task.task == "xnli" else 1)
    limit = task.tuning_limit if use == "tuning" else task.limit
    languages = len(task.languages) if task.languages else LANGUAGES["bundled" if bundled else task.task]
    return languages, min(rows, limit) if limit else rows


def _search(config: StudyConfig, task: TaskConfig) -> Step:
    assert config.search is not None
    languages, examples = _examples(task, "tuning")
    alphas = len(config.search.alphas or range(11 if task.task == "xnli" else 9))
    pairs = len(config.search.betas) * len(config.search.gammas)
    searched = [method for _, method in config.methods.searched(config.search.fixed)]
    grids = [(_upper(config, method), alphas) for method in searched] + [(_upper(config, "clas"), pairs)] * (pairs > 0)
    what = f"{len(searched)} methods x {alphas} alphas" + (f" and {pairs} pairs of beta and gamma" if pairs else "")
    return _step(
        f"search {task.task}",
        f"{task.task}: {what}, x {languages} languages x {examples} examples",
        task,
        prompts=languages * examples,
        passes=1 - min((upper for upper, _ in grids), default=1) + sum(upper * settings for upper, settings in grids),
        answers=sum(settings for _, settings in grids),
    )


def _evaluate(config: StudyConfig, task: TaskConfig) -> Step:
    languages, examples = _examples(task, "test")
    methods = [method for _, method, _ in config.methods.named()]
    what = f"{task.task}: {len(methods)} methods x {languages} languages x {examples} examples"
    return _step(
        f"evaluate {task.task}",
        what,
        task,
        prompts=languages * examples,
        passes=1 + sum(_upper(config, method) for method in methods if method != "base"),
        answers=len(methods),
    )


def _upper(config: StudyConfig, method: Method) -> float:
    """The share of the layers that a method's own pass takes."""
    return 1.0 if method in FROM_THE_FIRST_LAYER else _shape(config)[1]


def _step(stage: str, what: str, task: TaskConfig, *, prompts: int, passes: int | float, answers: int) -> Step:
    tokens = (BUNDLED_TOKENS if task.data == "bundled" else TOKENS)[task.task]
    tokens = min(tokens, task.max_tokens or tokens)
    new = task.max_new_tokens if task.task == "xquad" else 0
    return Step(
        stage, what, prompts * passes, prompts * (passes * tokens + answers * new), prompts * answers * BYTES_A_ROW
    )


def _report(config: StudyConfig) -> Step:
    languages, texts = _corpus(config)
    read = min(texts, config.report.examples)
    what = f"representations before and after, {languages} languages x {read} texts"
    passes = 2 * languages * read
    return Step("report", what, passes, passes * CORPUS_TOKENS[config.collect.corpus], 0)
