"""A cluster against one process: what the seam costs, how evenly two workers share the work, and where a study stops scaling.

Needs the extra `cluster`. Each worker has one thread; nothing else should be running. Starting Ray and loading are not counted.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch

import clas_lens as cl
from benchmarks.measure import Row, paired
from benchmarks.models import Size, hf_model, texts, tokenizer
from clas_lens.cluster.runner import RayCluster
from clas_lens.cluster.work import Runner, Tell
from clas_lens.corpus.reading import Reading, read_items, readings, tokenize_corpus
from clas_lens.models.sites import LensModel
from clas_lens.statistics.collect import measure_item

STUDY = "paper-llama-xnli"
RATE = 20_000.0  # tokens a second of one H100 for 8 billion parameters in bfloat16: an assumption, no measurement
STARTED = {"include_dashboard": False, "object_store_memory": 2 * 10**8}


def run(size: Size, rounds: int) -> list[Row]:
    """The seam, two workers, and the paper's study on paper."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _named_model(size) as model:
            return [_seam(model, size, rounds), *_two_workers(model, size, rounds), *on_paper(RATE)]
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _named_model(size: Size) -> Iterator[LensModel]:
    """A model that workers can load: by its name, or from a folder that is there for the while."""
    if size.model == "gemma-3-270m":
        yield cl.load_model(size.model)
        return
    with tempfile.TemporaryDirectory() as folder:
        hf_model(size.model, **size.stack).save_pretrained(folder)
        tokenizer(size.model).save_pretrained(folder)
        yield cl.load_model(folder)


def _seam(model: LensModel, size: Size, rounds: int) -> Row:
    """Processor time of the same items through the seam, without a cluster, against a bare loop over them."""
    items = readings(model, tokenize_corpus(model, texts(size), 512), size.batch)

    def bare() -> None:
        for item in items:
            _read(model, item, lambda done: None)

    def seam() -> None:
        for _ in read_items(model, items, _read, what="collect", progress=False):
            pass

    seam()
    ratios = paired(bare, seam, 2 * rounds)
    return {
        "what": "the seam without Ray against a bare loop over the same items",
        "time_ratio": round(median(ratios), 3),
    }


@dataclass(frozen=True)
class Pause:
    """An item that takes a while and no processor."""

    number: int
    language: str = "de"


def _pause(model: LensModel, item: Pause, tell: Tell) -> int:
    time.sleep(0.2)
    tell(1)
    return item.number


def _read(model: LensModel, item: Reading, tell: Tell) -> Any:
    return measure_item(model, item, tell, pooling="sample", histograms=False)


def _two_workers(model: LensModel, size: Size, rounds: int) -> list[Row]:
    """Seconds of many items on one worker and on two; efficiency is the first by twice the second."""
    held = tokenize_corpus(model, texts(size), 512)
    batches = [
        Reading(item.language, item.texts, (rows,), number=place)
        for item in readings(model, held, max(1, size.batch // 4))
        for place, rows in enumerate(item.batches)
    ]
    work: dict[str, Callable[[Runner], object]] = {
        f"{len(batches)} items of one batch each": lambda runner: _done(runner, model, _read, batches),
        "40 items that wait for 0.2 s: scheduling and transport alone": lambda runner: _done(
            runner, model, _pause, [Pause(number) for number in range(40)]
        ),
    }
    seconds: dict[tuple[str, int], float] = {}
    for workers in (1, 2):
        start = {**STARTED, "num_cpus": workers}  # one thread each
        with RayCluster(workers=workers, gpus_per_worker=0, start=start) as cluster:
            for name, run_on in work.items():
                run_on(cluster)  # the first round loads
                seconds[name, workers] = min(_seconds(partial(run_on, cluster)) for _ in range(rounds))
    return [
        {
            "what": name,
            "one_worker_s": round(seconds[name, 1], 2),
            "two_workers_s": round(seconds[name, 2], 2),
            "efficiency": round(seconds[name, 1] / seconds[name, 2] / 2, 3),
        }
        for name in work
    ]


def _done(runner: Runner, model: LensModel, work: Any, items: list[Any]) -> None:
    for _ in runner.results(model, work, items, lambda done: None):
        pass


def _seconds(run_once: Callable[[], object]) -> float:
    start = time.perf_counter()
    run_once()
    return time.perf_counter() - start


def on_paper(rate: float) -> list[Row]:
    """`paper-llama-xnli` by the plan: hours on 1, 8 and 64 workers of this rate, in chunks of 128 examples and of 16."""
    study, rows = cl.study.load_study(STUDY), []
    for chunk in (128, 16):
        config = study.model_copy(update={"evaluate": study.evaluate.model_copy(update={"chunk_size": chunk})})
        alone = float(cl.study.plan_study(config, workers=1, rate=rate)["hours"].sum())
        for workers in (1, 8, 64):
            plan = cl.study.plan_study(config, workers=workers, rate=rate)
            hours = float(plan["hours"].sum())
            rows.append(
                {
                    "what": f"{STUDY} on paper, {rate:g} tokens/s a worker, chunks of {chunk}",
                    "workers": workers,
                    "hours": round(hours, 3),
                    "efficiency": round(alone / hours / workers, 3),
                    "fewest_items": int(plan["items"].min()),
                }
            )
    return rows
