"""Activation patching between parallel sentences: what of one language's run brings its answer back in the other's."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, assert_never, get_args

import pandas as pd
from tqdm import tqdm

from clas_lens.causal.answers import Question
from clas_lens.causal.components import each_head
from clas_lens.causal.exchange import Exchanged, Part, Place, Position, exchanges
from clas_lens.causal.intervals import ratio_interval
from clas_lens.causal.pairs import Texts, paired_questions
from clas_lens.corpus.arguments import check_bare, given_model
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.tokens import forward_batches
from clas_lens.given import given_number, given_whole, given_word, named
from clas_lens.models.room import in_parts_that_fit
from clas_lens.models.sites import LensModel, Site, check_layers, device_of
from clas_lens.models.units import check_units
from clas_lens.tasks.base import Task
from clas_lens.vocabulary import CauseMeasure, PatchSite

LAST = tuple(range(-8, 0))


def patch(
    model: LensModel,
    source: Texts,
    target: Texts,
    *,
    data: ParallelCorpus | Mapping[str, Sequence[str]] | Task | None = None,
    site: PatchSite = "residual",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | Literal["all"] = LAST,
    max_tokens: int = 512,
    batch_size: int = 8,
    seed: int = 0,
    level: float = 0.95,
    progress: bool = True,
) -> pd.DataFrame:
    """Run the target with the source's activations at one place, and see how far the source's answer comes back.

    The clean run is the source's, the corrupted run the target's. The answer is the token after the prompt: of a task the
    first of the source's gold, of texts the one that the unedited model finds most probable after the source. Sentences of two
    languages differ in length, so positions are counted from the end, where prompts of a task are alike; position -1 of the
    residual stream's last layer gives back the clean run, 100%.

    Args:
        source, target: parallel texts, one or a list; with `data` the codes of two of its languages.
        data: a corpus or a task.
        site: "residual" (a layer's output), "mlp" (all neurons) or "heads" (each attention head's output alone).
        positions: from the end, negative; or "all": all content tokens that both have, exchanged together.
        seed: of the draw of the control's examples.

    Returns:
        One row a layer, component, position and measure (`log_prob` of the answer; `kl` from the clean run's distribution):
        `recovery` in percent, 100 * (patched - corrupted) / (clean - corrupted) of the means, with `low` and `high` (t over
        groups of the linearised ratio, NaN of a single group); `control`, the recovery with another example's source
        activations (NaN where there is no other group); `gap`, clean - corrupted in nats, and `n`, the examples that have the
        position. Recovery of a `log_prob` whose gap is near 0 means nothing; that of `kl` needs only that the two runs differ.

    Raises:
        ValueError: texts that are not parallel, an unknown language, or an argument of another kind.
    """
    model = given_model(model)
    check_bare(model, "patch", kept=False)
    given_word("site", site, get_args(PatchSite))
    level = given_number("level", level, above=0, below=1)
    batch_size, seed = given_whole("batch_size", batch_size, least=1), given_whole("seed", seed)
    chosen = check_layers(range(model.cfg.n_layers) if layers is None else layers, model.cfg.n_layers)
    where = _given_positions(positions)
    clean, corrupted = paired_questions(
        model, source, target, data, max_tokens=given_whole("max_tokens", max_tokens, least=1)
    )
    parts = _parts(model, site, chosen)
    others = _others(clean, seed)
    found: dict[Place, list[Exchanged]] = {}
    lengths = [max(len(one.ids), len(other.ids)) for one, other in zip(clean, corrupted, strict=True)]

    def run(rows: Sequence[int]) -> list[tuple[Place, Exchanged]]:
        first, second = ([of[row] for row in rows] for of in (clean, corrupted))
        return list(exchanges(model, parts, where, first, second, [others[row] for row in rows]))

    batches = forward_batches(lengths, batch_size, device_of(model))
    for rows in tqdm(batches, desc="patch", unit="batch", disable=not progress):
        for _, results in in_parts_that_fit(rows, run, what="pairs"):
            for place, result in results:
                found.setdefault(place, []).append(result)
    names = ("source", "target") if data is None else (source, target)
    return pd.DataFrame(
        {
            "source": names[0],
            "target": names[1],
            "layer": part.site.layer,
            "component": part.name,
            "position": position,
            **row,
        }
        for part in parts
        for position in where
        for row in _rows(found.get((part.name, part.site.layer, position), []), level)
    )


def _given_positions(positions: Any) -> tuple[Position, ...]:
    if isinstance(positions, str):
        return (given_word("positions", positions, ("all",)),)
    listed = list(positions) if isinstance(positions, Sequence) else []
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one < 0 for one in listed)
    if not listed or not whole or len(set(listed)) != len(listed):
        raise ValueError(
            "positions are counted from the end, such as [-3, -2, -1], each once, or 'all'; got "
            f"{positions if isinstance(positions, Sequence) else named(positions)!r}"
        )
    return tuple(sorted(listed))


def _parts(model: LensModel, site: PatchSite, layers: Sequence[int]) -> list[Part]:
    match site:
        case "residual":
            return [Part("residual stream", Site("residual", layer)) for layer in layers]
        case "mlp":
            return [Part("MLP", Site("mlp", layer)) for layer in layers]
        case "heads":
            check_units(model, "attn")
            return [Part(head.name, head.site, head.mask) for head in each_head(model, layers)]
        case _:
            assert_never(site)


def _others(questions: Sequence[Question], seed: int) -> list[Question | None]:
    """For each an example of another group, drawn at random."""
    generator = random.Random(seed)
    found: list[Question | None] = []
    for one in questions:
        elsewhere = [other for other in questions if other.group != one.group]
        found.append(generator.choice(elsewhere) if elsewhere else None)
    return found


def _rows(results: Sequence[Exchanged], level: float) -> Iterator[dict[str, Any]]:
    """A row a measure; of a place that no example has, NaN."""
    measures: tuple[CauseMeasure, ...] = ("log_prob", "kl")
    for measure in measures:
        frame = pd.DataFrame(
            [asdict(one) for one in results if one.measure == measure],
            columns=["group", "clean", "corrupted", "patched", "control"],
        )
        whole = frame["clean"] - frame["corrupted"]
        recovery = ratio_interval(frame["patched"] - frame["corrupted"], whole, frame["group"], level=level)
        known = frame["control"].notna()
        control = ratio_interval(
            (frame["control"] - frame["corrupted"])[known], whole[known], frame["group"][known], level=level
        )
        yield {
            "measure": measure,
            "n": len(frame),
            "gap": float(whole.mean()),
            "recovery": 100 * recovery.estimate,
            "low": 100 * recovery.low,
            "high": 100 * recovery.high,
            "control": 100 * control.estimate,
        }
