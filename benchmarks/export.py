"""An exported model decodes as fast as the unsteered one: greedy decoding by plain transformers, in paired rounds.

By processor time, so that what else runs counts less; the unsteered model twice shows what chance makes of the ratio.
"""

import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.measure import Row, paired
from benchmarks.models import Size, clas_of, hf_model, lens_model, tokenizer
from clas_lens.export.checkpoint import copy_along, plan_folds, write_weights
from clas_lens.export.factors import factors
from clas_lens.export.parity import plain_model

PROMPT_LENGTH, NEW_TOKENS = 64, 16


def run(size: Size, rounds: int) -> list[Row]:
    """The size's own model, as it is and exported: times of the unsteered model's processor time."""
    plain = hf_model(size.model, **size.stack)
    scale = factors(clas_of(lens_model(plain, size.model), size), "de")
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "source", Path(scratch) / "steered"
        out.mkdir()
        plain.save_pretrained(source)
        tokenizer(size.model).save_pretrained(source)
        write_weights(source, out, plan_folds(source, scale))
        copy_along(source, out)
        unsteered, steered = plain_model(source), plain_model(out)
        again = plain_model(source)
    for model in (unsteered, steered, again):
        _decode(model)  # the first run does not count
    return [
        {"what": "unsteered", "time_ratio": 1.0, "new_tokens": NEW_TOKENS},
        _row("unsteered, loaded again", paired(partial(_decode, unsteered), partial(_decode, again), rounds)),
        _row("exported", paired(partial(_decode, unsteered), partial(_decode, steered), rounds)),
    ]


def _row(what: str, ratios: list[float]) -> Row:
    return {
        "what": what,
        "time_ratio": round(median(ratios), 3),
        "range": f"{min(ratios):.3f} to {max(ratios):.3f}",
        "rounds": len(ratios),
        "new_tokens": NEW_TOKENS,
    }


def _decode(model: Any) -> None:
    tokens = torch.arange(100, 100 + PROMPT_LENGTH)[None]
    with torch.inference_mode():
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
