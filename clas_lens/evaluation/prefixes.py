"""Prompts that begin alike (a premise's three hypotheses, a paragraph's questions): what they share is run once.

A batch is fed to a decoder in segments. A row of one segment can be the beginning of several rows of the next, so that their
keys and values are computed once. Exact but for float error, as any other batching.

Two prompts, the first three tokens alike. The first segment is what they share, one row; the second is what is left of each,
two rows that both go on from row 0 of the first:

>>> prompts = [(5, 6, 7, 10, 11), (5, 6, 7, 20)]
>>> _common(prompts)
3
>>> shared = _Level(stops=(3, 3), nodes=("both", "both"))  # up to token 3 the prompts are one node
>>> own = _Level(stops=(5, 4), nodes=(0, 1))  # up to their ends each is its own
>>> _spans(prompts, [shared, own])  # by level and node: whose tokens, from where to where
[[(0, 0, 3)], [(0, 3, 5), (1, 3, 4)]]

That is 1 x 3 + 2 x 2 tokens with padding in two passes, where both prompts whole take 2 x 5 in one. A pass more has its price,
so that here the prompts are read whole; with 100 tokens in common they are not:

>>> [_cost(prompts, levels) - len(levels) * PASS_TOKENS for levels in ([own], [shared, own])]
[10, 7]
>>> len(min(_plans(prompts), key=lambda levels: _cost(prompts, levels)))
1
>>> longer = [(*range(30, 130), *prompt) for prompt in prompts]
>>> len(min(_plans(longer), key=lambda levels: _cost(longer, levels)))
2
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from clas_lens.corpus.tokens import CPU_BATCH_TOKENS, pad
from clas_lens.models.sites import LensModel, attention_window, counts_columns, device_of

ALIKE = 8  # prompts that go on alike for this many tokens after the common beginning are taken to be of one group


PASS_TOKENS = 64  # a further forward pass has to save at least as many tokens as this


@dataclass(frozen=True)
class Segment:
    """What one forward pass adds to a batch.

    Attributes:
        tokens, attention_mask: left-padded; every row has a token at the end.
        parents: the row of the segment before that each row goes on from; None in the first segment.
    """

    tokens: Int[Tensor, "row pos"]
    attention_mask: Int[Tensor, "row pos"]
    parents: Int[Tensor, "row"] | None = None


@dataclass(frozen=True)
class _Level:
    """Up to where each prompt belongs to this level, and which prompts are one node of it."""

    stops: tuple[int, ...]
    nodes: tuple[Hashable, ...]


def whole_prompts(model: LensModel, ids: Sequence[Sequence[int]], rows: Sequence[int]) -> list[Segment]:
    """The prompts `ids[row] for row in rows` as one segment."""
    batch = pad(ids, rows, device=device_of(model))
    return [Segment(batch.tokens, batch.attention_mask)]


def shared_segments(
    model: LensModel, ids: Sequence[Sequence[int]], rows: Sequence[int], *, new_tokens: int | None = 0
) -> list[Segment]:
    """The prompts in the segments that take the fewest tokens, or in one.

    Padding then also stands between a prompt's segments, where masks and position ids pass over it. Attention windows and
    ALiBi count columns instead: a model with ALiBi gets one segment, and so does a prompt that with its new tokens would not
    fit into the narrowest window.

    Args:
        new_tokens: how many may be generated afterwards, at most; None if that is not known.
    """
    own = [tuple(ids[row]) for row in rows]
    plan = min(_plans(own), key=lambda levels: _cost(own, levels))
    segments = _segments(model, own, plan)
    width = None if new_tokens is None else new_tokens + sum(part.tokens.shape[1] for part in segments)
    if len(segments) > 1 and not read_in_pieces(model, width):
        return whole_prompts(model, ids, rows)
    return segments


def prompt_batches(
    ids: Sequence[Sequence[int]], groups: Sequence[Hashable], batch_size: int, device: torch.device
) -> list[list[int]]:
    """Rows in batches of similar length, longest first, with a group's rows together where they fit.

    On a CPU batches are also bounded in the tokens to run, past which passes get slower there.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    limit = CPU_BATCH_TOKENS if device.type == "cpu" else None
    batches: list[list[int]] = []
    cost = 0
    for unit in _units(ids, groups, batch_size):
        tokens = _unit_cost([tuple(ids[row]) for row in unit])
        full = not batches or len(batches[-1]) + len(unit) > batch_size
        if full or (limit is not None and cost + tokens > limit):
            batches.append([])
            cost = 0
        batches[-1] += unit
        cost += tokens
    return batches


def _units(ids: Sequence[Sequence[int]], groups: Sequence[Hashable], batch_size: int) -> list[list[int]]:
    """Rows that stay together: a group, or as much of it as a batch holds; the unit with the longest prompt first."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    units = [
        of_group[start : start + batch_size]
        for of_group in members.values()
        for start in range(0, len(of_group), batch_size)
    ]
    return sorted(units, key=lambda unit: (-max(len(ids[row]) for row in unit), unit[0]))


def _unit_cost(own: Sequence[tuple[int, ...]]) -> int:
    shared = _common(own) if len(own) > 1 else 0
    return shared + len(own) * (max(map(len, own)) - shared)


def _common(own: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all begin with; less than any has, so that each has some left."""
    first, last = min(own), max(own)  # in lexicographic order no two differ earlier
    length = min(map(len, own)) - 1
    return next((place for place in range(length) if first[place] != last[place]), length)


def _plans(own: Sequence[tuple[int, ...]]) -> list[list[_Level]]:
    lengths = tuple(map(len, own))
    rows = _Level(lengths, tuple(range(len(own))))
    common = _common(own)
    everything = _Level((common,) * len(own), (0,) * len(own))
    grouped = _grouped(own, common)
    plans = [[rows]]
    if common:
        plans.append([everything, rows])
    if grouped is not None:
        plans.append([grouped, rows])
        if common:
            plans.append([everything, grouped, rows])
    return plans


def _grouped(own: Sequence[tuple[int, ...]], common: int) -> _Level | None:
    """Prompts that go on alike after the common beginning, or None if no two do."""
    nodes = [row[: common + ALIKE] for row in own]
    members: dict[Hashable, list[tuple[int, ...]]] = {}
    for row, node in zip(own, nodes, strict=True):
        members.setdefault(node, []).append(row)
    shared = {node: _common(rows) for node, rows in members.items() if len(rows) > 1}
    shared = {node: stop for node, stop in shared.items() if stop > common}
    if not shared:
        return None
    longest = max(shared.values())  # a prompt alone is cut where that pads least
    stops = [shared.get(node, min(len(row) - 1, longest)) for row, node in zip(own, nodes, strict=True)]
    if min(stops) <= common:
        return None
    return _Level(tuple(stops), tuple(nodes))


def _spans(own: Sequence[tuple[int, ...]], levels: Sequence[_Level]) -> list[list[tuple[int, int, int]]]:
    """Per level and node: a prompt that is of it, and from where to where that prompt's tokens are the node's."""
    spans = []
    before: tuple[int, ...] = (0,) * len(own)
    for level in levels:
        first = {node: row for row, node in reversed(list(enumerate(level.nodes)))}
        spans.append(
            [(first[node], before[first[node]], level.stops[first[node]]) for node in dict.fromkeys(level.nodes)]
        )
        before = level.stops
    return spans


def _cost(own: Sequence[tuple[int, ...]], levels: Sequence[_Level]) -> int:
    """Padded tokens, with what a pass costs beside them."""
    return sum(
        len(spans) * max(stop - start for _, start, stop in spans) + PASS_TOKENS for spans in _spans(own, levels)
    )


def _segments(model: LensModel, own: Sequence[tuple[int, ...]], levels: Sequence[_Level]) -> list[Segment]:
    device = device_of(model)
    segments: list[Segment] = []
    above: Sequence[Hashable] = ()
    for level, spans in zip(levels, _spans(own, levels), strict=True):
        batch = pad([own[row][start:stop] for row, start, stop in spans], range(len(spans)), device=device)
        parents = None
        if above:
            places = {node: place for place, node in enumerate(dict.fromkeys(above))}
            parents = torch.tensor([places[above[row]] for row, _, _ in spans], device=device)
        segments.append(Segment(batch.tokens, batch.attention_mask, parents))
        above = level.nodes
    return segments


def read_in_pieces(model: LensModel, width: int | None) -> bool:
    """Whether so many columns can be read piece by piece: nothing counts columns, and no window is narrower.

    Args:
        width: None if it is not known.
    """
    if counts_columns(model):
        return False
    window = attention_window(model)
    return window is None or (width is not None and width <= window)
