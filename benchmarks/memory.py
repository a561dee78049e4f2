"""Peak memory of a collection above what lies there before, beside that of bare passes over the same batches."""

import clas_lens as cl
from benchmarks.collection import our_batches, run_batches
from benchmarks.measure import Row, in_child, timed
from benchmarks.models import SIZES, Size, hf_model, lens_model, texts
from clas_lens.models.sites import LensModel, device_of


def run(size: Size, rounds: int) -> list[Row]:
    """Few texts and many; the least of some rounds."""
    name = next(key for key, value in SIZES.items() if value == size)
    rows = []
    for count in (size.growth_texts[0], size.growth_texts[-1]):
        for what, child in (("bare forward", bare_child), ("collect_statistics", collect_child)):
            found = [in_child(child, name, count) for _ in range(rounds)]
            above = min(one["peak_mb"] - one["resting_mb"] for one in found)
            rows.append({"what": f"{what}, {count} texts a language", "above_mb": round(above)})
    return rows


def bare_child(name: str, count: int) -> Row:
    """Bare passes over so many texts, on the narrow stack; the batches are made before."""
    model, corpus = _narrow(name, count)
    batches = our_batches(SIZES[name], corpus, device_of(model))
    return timed(lambda: run_batches(model, batches))


def collect_child(name: str, count: int) -> Row:
    """A collection from so many texts, on the narrow stack."""
    model, corpus = _narrow(name, count)
    return timed(lambda: cl.collect_statistics(model, corpus, batch_size=SIZES[name].batch, progress=False))


def _narrow(name: str, count: int) -> tuple[LensModel, cl.ParallelCorpus]:
    size = SIZES[name]
    return lens_model(hf_model("stack", **{**size.stack, "num_hidden_layers": 4}), "stack"), texts(size, count)
