"""How everything here is measured: interleaved rounds in one process, memory in fresh ones, ratios from one run."""

import ctypes
import gc
import json
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

Row = dict[str, Any]
PACKAGES = ("clas-lens", "torch", "transformers", "transformer-lens", "nnsight")


Seconds = Mapping[str, Sequence[float]]


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every round, in which all take turns; one round before them does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            gc.collect()
            _finish()
            start = time.perf_counter()
            run()
            _finish()
            taken = time.perf_counter() - start
            print(f"round {number}/{rounds}  {taken:8.2f} s  {name}", file=sys.stderr, flush=True)
            if number:
                seconds[name].append(taken)
    return seconds


def paired(reference: Callable[[], object], other: Callable[[], object], rounds: int) -> list[float]:
    """By round, the other's processor time in times the reference's. They take turns at being first.

    Processor time of all threads, so that what else runs counts less; with OMP_NUM_THREADS=1 no thread waits.
    """
    ratios = []
    for number in range(rounds):
        seconds = {}
        for run in (reference, other) if number % 2 == 0 else (other, reference):
            gc.collect()
            start = time.process_time()
            run()
            seconds[run] = time.process_time() - start
        ratios.append(seconds[other] / seconds[reference])
        print(f"round {number + 1}/{rounds}  {seconds[reference]:8.2f} s  {seconds[other]:8.2f} s", file=sys.stderr)
    return ratios


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compared(seconds: Seconds, reference: str, *, amount: float | int, unit: str, **facts: Any) -> list[Row]:
    """A row a contender: how much a second, and its time in times the reference's of the same round (below 1 is faster).

    Both are medians over the rounds, the ratio with its smallest and largest.
    """
    rows = []
    for name, taken in seconds.items():
        ratios = [own / other for own, other in zip(taken, seconds[reference], strict=True)]
        rows.append(
            {
                "what": name,
                f"{unit}/s": round(amount / median(taken), 2),
                "time_ratio": round(median(ratios), 3),
                "range": f"{min(ratios):.3f} to {max(ratios):.3f}",
                "rounds": len(ratios),
                **facts,
            }
        )
    return rows


def in_child(function: Callable[..., Row], *arguments: Any) -> Row:
    """The row that a function of a module returns, run in a fresh process, with `peak_mb`, that process's peak memory."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sending, function, arguments))
    process.start()
    sending.close()
    try:
        return receiving.recv()
    except EOFError as error:
        raise RuntimeError(f"{function.__module__}.{function.__name__}{arguments} failed in its own process") from error
    finally:
        process.join()


def _child(sending: Any, function: Callable[..., Row], arguments: Sequence[Any]) -> None:
    row = function(*arguments)
    sending.send({**row, "peak_mb": _memory_mb("VmHWM")})
    sending.close()


def timed(run: Callable[[], object]) -> Row:
    """The `seconds` of a run, and the `resting_mb` that its process held before. Its peak memory counts from here on."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, so that it does not hide what the run takes
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak so far
    resting = _memory_mb("VmRSS")
    start = time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - start, "resting_mb": resting}


def _memory_mb(name: str) -> float:
    """A line of Linux's account of this process: `VmRSS` it holds now, `VmHWM` it has held at most (`ru_maxrss` begins with
    the parent's).
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def machine() -> Row:
    """What the numbers depend on beside the code."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def print_table(rows: Sequence[Row]) -> None:
    """Rows under headings, aligned; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([str(row.get(name, "")) for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def write_results(path: Path, name: str, settings: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """One JSON file a benchmark, with the command's settings and the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"benchmark": name, "settings": dict(settings), "machine": machine(), "rows": list(rows)}
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
