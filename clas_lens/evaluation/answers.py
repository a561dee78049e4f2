"""One item of work answered: a pure function of the model, the plan and the item."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.cluster.work import Tell
from clas_lens.evaluation.passes import LayerCount, SharedPrompt
from clas_lens.evaluation.plan import EvaluationError, EvaluationPlan, WorkItem
from clas_lens.evaluation.prefixes import Segment, prompt_batches, shared_segments, whole_prompts
from clas_lens.models.decoding import Answering, Decoder
from clas_lens.models.numbers import MEANS_NOTHING, unfinite_row
from clas_lens.models.room import in_parts_that_fit, noting_halvings
from clas_lens.models.sites import LensModel, device_of
from clas_lens.steering.intervention import first_layer


@dataclass(frozen=True, eq=False)
class Answered:
    """The rows of an item by intervention, and what they cost: whole forward passes of one prompt, answers by intervention.

    Attributes:
        halved: of how many prompts those batches were that the device had no memory for, and that were run in halves.
    """

    tables: Mapping[str, pd.DataFrame]
    passes: float
    answers: "Counter[str]"
    halved: tuple[int, ...] = ()


def answer_item(model: LensModel, item: WorkItem, tell: Tell, *, plan: EvaluationPlan) -> Answered:
    """Answer the item's examples under each of its interventions.

    Args:
        tell: called after each batch with the number of its answers, for a progress bar.

    Raises:
        EvaluationError: logits that are not finite.
    """
    answering = _Answering(model, plan, item)
    with noting_halvings() as halved:
        answers = answering.run(tell)
    tables = {name: _table(plan, item, name, answers[name]) for name in item.names}
    counts = Counter(dict.fromkeys(item.names, len(item.examples)))
    return Answered(tables, answering.count.passes, counts, tuple(halved))


def _table(plan: EvaluationPlan, item: WorkItem, name: str, answers: Sequence[Any]) -> pd.DataFrame:
    """One row an example."""
    task = plan.task
    first = {"task": task.name, "language": item.language, "intervention": name}
    facts = {"title": task.title, "metric": task.metric, "metric_title": task.metric_title}
    rows = []
    for example, prompt, answer in zip(item.examples, item.prompts, answers, strict=True):
        own = task.row(item.language, example, prompt, answer)
        if set(own) != set(task.row_columns):
            raise EvaluationError(
                f"{task.name}: its rows have the columns {', '.join(own)}, and it says {', '.join(task.row_columns)}"
            )
        rows.append({**first, **own, "overlap": task.key(example) in plan.overlap[name], **facts})
    return pd.DataFrame(rows)


class _Answering:
    """The batches of one item, run; `count` says how many layers that took."""

    def __init__(self, model: LensModel, plan: EvaluationPlan, item: WorkItem) -> None:
        self._model, self._plan, self._item = model, plan, item
        self.count = LayerCount(model.cfg.n_layers)
        changing = {
            name: chosen
            for name in item.names
            if (chosen := plan.interventions[name]) is not None and chosen.anchor != item.language
        }
        self._changing = changing
        self._starts = {name: first_layer(model, chosen, [item.language]) for name, chosen in changing.items()}

    def run(self, tell: Tell) -> dict[str, list[Any]]:
        """The answers by intervention, in the order of the examples."""
        item = self._item
        answers: dict[str, list[Any]] = {name: [None] * len(item.examples) for name in item.names}
        ids = [prompt.ids for prompt in item.prompts]
        groups = [example.group for example in item.examples]
        for rows in prompt_batches(ids, groups, self._plan.batch_size, device_of(self._model)):
            for part, found in in_parts_that_fit(rows, partial(self._answers, ids), what="prompts"):
                for name, of_name in found.items():
                    for row, answer in zip(part, of_name, strict=True):
                        answers[name][row] = answer
                tell(len(part) * len(found))
        return answers

    def _answers(self, ids: Sequence[Sequence[int]], rows: Sequence[int]) -> dict[str, list[Any]]:
        """A batch's answers by intervention."""
        return {
            name: found
            for together, segments in self._in_segments(ids, rows)
            for name, found in self._answer(rows, together, segments)
        }

    def _in_segments(
        self, ids: Sequence[Sequence[int]], rows: Sequence[int]
    ) -> Iterator[tuple[list[str], list[Segment]]]:
        """Which interventions read the batch in which segments: those on some positions alone need whole prompts."""
        whole = [
            name
            for name, chosen in self._changing.items()
            if chosen.positions != "all" or getattr(chosen, "reads_prompts", False)
        ]
        rest = [name for name in self._item.names if name not in whole]
        if rest:
            yield rest, shared_segments(self._model, ids, rows, new_tokens=self._plan.task.new_tokens)
        if whole:
            yield whole, whole_prompts(self._model, ids, rows)

    def _answer(
        self, rows: Sequence[int], names: Sequence[str], segments: Sequence[Segment]
    ) -> Iterator[tuple[str, list[Any]]]:
        """A batch's answers under each of these interventions."""
        task, language = self._plan.task, self._item.language
        unsteered = [name for name in names if name not in self._starts]
        # A single setting gains nothing from running its lower layers apart.
        starts = {self._starts[name] for name in names if name in self._starts} if len(names) > 1 else set()
        prompt = SharedPrompt(
            self._model, segments, starts, unsteered=bool(unsteered), columns=self._plan.columns, count=self.count
        )
        if unsteered:
            found = task.answer(self._model, self._finite(prompt.unsteered(), rows, unsteered[0]))
            yield from ((name, found) for name in unsteered)
        for name in (name for name in names if name in self._starts):
            with prompt.steered(self._changing[name], language, self._starts[name]) as answering:
                found = task.answer(self._model, self._finite(answering, rows, name))
            yield name, found

    def _finite(self, answering: Answering, rows: Sequence[int], name: str) -> Answering:
        """The same, which raises at the first logit that is none."""
        decoder, logits = answering
        examples = [self._item.examples[row].id for row in rows]
        watched = _Watched(decoder, examples, f"{self._plan.task.name} in {self._item.language!r} under {name!r}")
        return watched, watched.checked(logits)


class _Watched:
    """A decoder whose logits are finite numbers, or it raises and says of which example."""

    def __init__(self, decoder: Decoder, examples: Sequence[str], where: str) -> None:
        self._decoder, self._examples, self._where = decoder, list(examples), where

    def checked(self, logits: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """The logits.

        Raises:
            EvaluationError: one is NaN or infinite.
        """
        found = unfinite_row(logits)
        if found is not None:
            row, kind = found
            raise EvaluationError(
                f"{self._where}: the logits of example {self._examples[row]!r} are {kind}, {MEANS_NOTHING}"
            )
        return logits

    def step(
        self, tokens: Int[Tensor, "batch new"], mask: Int[Tensor, "batch new"], columns: Sequence[int] | None = None
    ) -> Float[Tensor, "batch columns"]:
        return self.checked(self._decoder.step(tokens, mask, columns))

    def keep(self, rows: Int[Tensor, "kept"]) -> None:
        self._examples = [self._examples[row] for row in rows.tolist()]
        self._decoder.keep(rows)

    def cached(self, layers: int) -> list[Any]:
        return self._decoder.cached(layers)

    def adopt(self, cached: Sequence[Any], layers: int) -> None:
        self._decoder.adopt(cached, layers)
