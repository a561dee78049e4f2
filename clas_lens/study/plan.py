"""What a study will do, before it does it: forward passes, tokens and disk, estimated without a model or a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from clas_lens.corpus.reading import PART
from clas_lens.evaluation.windows import bridge_windows
from clas_lens.given import given, given_number, given_whole
from clas_lens.models.presets import PRESETS
from clas_lens.significance.power import planned_gain
from clas_lens.study.config import StudyConfig, TaskConfig
from clas_lens.study.methods import pass_layers
from clas_lens.tasks.base import Expected
from clas_lens.tasks.known import TASKS
from clas_lens.vocabulary import Method

# What is known of each corpus: languages, texts in each, and tokens a text with Llama 3.1's tokenizer.
CORPORA = {"bundled": (16, 120, 30), "xquad": (12, 1190, 289), "xnli": (15, 2490, 59), "files": (1, 0, 50)}


BYTES_A_NEURON = 76  # what is kept of each neuron and language


BYTES_A_ROW = 120


CHANGED = (0.1, 0.2)  # shares of the answers of a language that steering changes from right to wrong or back


LAYERS = 24  # of a model that is not known


@dataclass(frozen=True)
class Step:
    """One line of a plan; `passes` are whole forward passes of one prompt or text, lower layers counted once where shared."""

    stage: str
    what: str
    passes: int | float
    tokens: int | float
    bytes: int | float
    items: int


def plan_study(config: StudyConfig, *, workers: int | None = None, rate: float | int | None = None) -> pd.DataFrame:
    """A row a stage: `stage`, `what`, `passes` (of a text or prompt through the whole model; layers that settings share are
    counted once), `tokens` (through the whole model, generated ones included), `disk_mb`.

    What an evaluation can show in a language is in its `what`: `planned_gain`, with examples as if none belonged together.

    All are estimates: token counts are averages over languages, and generation is taken to use all the tokens it may.

    Args:
        workers: of a cluster (1 with a rate alone). Adds `items` (of work: languages x parts or chunks) and
            `tokens_a_worker`, the tokens of the busiest one, who does whole items: workers past the items have nothing to do.
        rate: tokens a second of one worker, such as a short collect tells; adds `hours`, without loading and what the driver
            does alone.
    """
    given(config, StudyConfig, "a plan needs a StudyConfig", "load_study(...) gives one")
    steps = [_collect(config)]
    for task in config.tasks:
        if config.search is not None:
            steps.append(_search(config, task))
        steps.append(_evaluate(config, task))
    steps.append(_report(config))
    frame = pd.DataFrame([vars(step) for step in steps])
    items = frame.pop("items")
    frame["disk_mb"] = (frame.pop("bytes") / 1e6).round(1)
    frame = frame.round({"passes": 0, "tokens": 0}).astype({"passes": int, "tokens": int})
    return frame if workers is None and rate is None else _with_workers(frame, items.tolist(), workers, rate)


def _with_workers(
    frame: pd.DataFrame, items: Sequence[int], workers: int | None, rate: float | int | None
) -> pd.DataFrame:
    """The same with what falls to the busiest worker."""
    count = given_whole("workers", 1 if workers is None else workers, least=1)
    rounds = [-(-n // count) for n in items]
    busiest = frame["tokens"] * rounds / items
    frame = frame.assign(items=items, tokens_a_worker=busiest.round().astype(int))
    return frame if rate is None else frame.assign(hours=busiest / given_number("rate", rate, above=0) / 3600)


def _shape(config: StudyConfig) -> tuple[int, float]:
    """Neurons of the model (0 where unknown, as for attention), and the share of its layers from the first bridge layer on;
    a guess for an unknown model.
    """
    preset, of_neurons = PRESETS.get(config.collect.model), config.collect.site == "mlp"
    if preset is None:
        return 0, 0.25
    n_layers, n_neurons, _ = preset.signature
    layers = config.categorize.layers or (preset.bridge_layers if of_neurons else None)
    return of_neurons * n_layers * n_neurons, 1 - min(layers) / n_layers if layers else 0.25


def _corpus(config: StudyConfig) -> tuple[int, int]:
    """How many languages, and texts in each."""
    corpus = config.collect
    languages, texts, _ = CORPORA[corpus.corpus]
    return len(corpus.languages) if corpus.languages else languages, corpus.limit or texts


def _collect(config: StudyConfig) -> Step:
    languages, texts = _corpus(config)
    neurons, _ = _shape(config)
    what = f"{languages} languages x {texts} texts of {config.collect.corpus}"
    passes = languages * texts
    return Step(
        "collect",
        what if neurons else f"{what}; disk unknown for this {'model' if config.collect.site == 'mlp' else 'site'}",
        passes,
        passes * CORPORA[config.collect.corpus][2],
        languages * neurons * BYTES_A_NEURON,
        languages * max(1, -(-texts // PART)),
    )


def _search(config: StudyConfig, task: TaskConfig) -> Step:
    assert config.search is not None
    known = TASKS[task.task]
    expected = known.expected(task, "tuning")
    alphas = len(config.search.alphas or known.paper_alphas)
    pairs = len(config.search.betas) * len(config.search.gammas)
    searched = [method for _, method in config.methods.searched(config.search.fixed)]
    grids = [grid for method in searched for grid in _searched(config, method, alphas)]
    grids += [(_upper(config, "clas"), pairs)] * (pairs > 0)
    windows = _windows(config) if config.search.windows else []
    grids += [(upper, alphas) for upper in windows]
    what = f"{len(searched)} methods x {alphas} alphas" + (f" and {pairs} pairs of beta and gamma" if pairs else "")
    what += f", clas at {len(windows)} windows of layers x {alphas} alphas" if windows else ""
    what += "".join(
        f", {method} at {_n_layers(config) - 1} layers" for method in searched if pass_layers(method) == "searched"
    )
    return _step(
        f"search {task.task}",
        f"{task.task}: {what}, x {expected.languages} languages x {expected.examples} examples",
        expected,
        passes=1 - min((upper for upper, _ in grids), default=1) + sum(upper * settings for upper, settings in grids),
        answers=sum(settings for _, settings in grids),
        chunk=config.evaluate.chunk_size,
    )


def _searched(config: StudyConfig, method: Method, alphas: int) -> list[tuple[float, int]]:
    """The shares of the layers that a method's settings take, each with how many settings take it."""
    if pass_layers(method) != "searched":
        return [(_upper(config, method), alphas)]
    n_layers = _n_layers(config)
    return [(1 - layer / n_layers, alphas) for layer in range(n_layers - 1)]  # each layer but the last


def _windows(config: StudyConfig) -> list[float]:
    """The share of the layers that each window of the bridge's width takes with those above it."""
    preset, n_layers = PRESETS.get(config.collect.model), _n_layers(config)
    paper = preset.bridge_layers if preset is not None and config.collect.site == "mlp" else None
    layers = config.categorize.layers or paper or tuple(range(max(1, n_layers // 8)))
    return [1 - window[0] / n_layers for window in bridge_windows(layers, n_layers)]


def _n_layers(config: StudyConfig) -> int:
    preset = PRESETS.get(config.collect.model)
    return LAYERS if preset is None else preset.signature[0]


def _evaluate(config: StudyConfig, task: TaskConfig) -> Step:
    expected = TASKS[task.task].expected(task, "test")
    methods = [method for _, method, _ in config.methods.named()]
    shares = " or ".join(f"{100 * share:g}%" for share in CHANGED)
    least = " or ".join(f"{planned_gain(max(expected.examples, 2), changed=share):.1f}" for share in CHANGED)
    what = (
        f"{task.task}: {len(methods)} methods x {expected.languages} languages x {expected.examples} examples; shows gains in "
        f"a language from {least} points on, where {shares} of its answers change"
    )
    return _step(
        f"evaluate {task.task}",
        what,
        expected,
        passes=1 + sum(_upper(config, method) for method in methods),
        answers=len(methods),
        chunk=config.evaluate.chunk_size,
    )


def _upper(config: StudyConfig, method: Method) -> float:
    """The share of the layers that a method's own pass takes."""
    match pass_layers(method):
        case "none":
            return 0.0
        case "bridge":
            return _shape(config)[1]
        case "all" | "searched":
            return 1.0


def _step(stage: str, what: str, expected: Expected, *, passes: int | float, answers: int, chunk: int) -> Step:
    prompts = expected.languages * expected.examples
    tokens = prompts * (passes * expected.tokens + answers * expected.new_tokens)
    items = expected.languages * -(-expected.examples // chunk)
    return Step(stage, what, prompts * passes, tokens, prompts * answers * BYTES_A_ROW, items)


def _report(config: StudyConfig) -> Step:
    languages, texts = _corpus(config)
    read = min(texts, config.report.examples)
    what = f"representations before and after, {languages} languages x {read} texts"
    passes = 2 * languages * read
    return Step("report", what, passes, passes * CORPORA[config.collect.corpus][2], 0, languages)
