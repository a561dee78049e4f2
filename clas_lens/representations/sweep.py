"""Some prompts under many strengths of one intervention: how far the next token moves, and what is answered."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.corpus.arguments import check_bare, given_model
from clas_lens.corpus.tokens import length_batches, require_tokenizer
from clas_lens.given import given_number, given_whole, in_a_row, named
from clas_lens.models.room import in_parts_that_fit
from clas_lens.models.sites import LensModel
from clas_lens.representations.effects import kl_divergence
from clas_lens.steering.generate import Prompt, continued, prompt_ids
from clas_lens.steering.intervention import Intervention, SteeringError, given_intervention
from clas_lens.steering.steer import steer


def sweep(
    model: LensModel,
    intervention: Intervention,
    alphas: Iterable[float],
    prompts: Sequence[Prompt],
    *,
    language: str | Sequence[str],
    max_new_tokens: int = 12,
    batch_size: int = 16,
) -> pd.DataFrame:
    """What each prompt's next token and greedy continuation become as the strength changes; the model runs unsteered once.

    Args:
        alphas: strengths; at 0 nothing is run again.
        language: of all prompts, or one a prompt.

    Returns:
        Tidy, alphas in their order: alpha, prompt (its place), language, kl (of the next token's distributions, unsteered ||
        steered, in nats), next (the likeliest next token), answer (the continuation), changed (whether the answer is another
        than the unsteered one).

    Raises:
        SteeringError: an intervention without a strength, or another number of languages than of prompts.
        ValueError: no strengths or one twice, no prompts, a model that something else acts on, or an argument of another kind.
    """
    given_intervention(intervention)
    if not hasattr(intervention, "alpha"):
        raise SteeringError(f"{type(intervention).__name__} has no alpha to sweep")
    strengths = [given_number("an alpha", value) for value in (alphas if in_a_row(alphas) else ())]
    if not strengths or len(set(strengths)) < len(strengths):
        raise ValueError(f"alphas must be different numbers, at least one; got {alphas!r}")
    check_bare(given_model(model), "sweep", kept=False)
    runs = _Runs(model, prompts, language, given_whole("max_new_tokens", max_new_tokens, least=1), batch_size)
    return pd.DataFrame(list(runs.rows(intervention, strengths)))


class _Runs:
    """The prompts, run as often as they are wanted."""

    def __init__(
        self, model: LensModel, prompts: Sequence[Prompt], language: str | Sequence[str], new: int, batch_size: int
    ) -> None:
        self._model, self._new = model, new
        self._ids = prompt_ids(model, prompts, new_tokens=new)
        if not isinstance(language, str) and not in_a_row(language):
            raise SteeringError(f"language must be a code or a list of codes, one a prompt; got {named(language)}")
        self._languages = [language] * len(self._ids) if isinstance(language, str) else list(language)
        if len(self._languages) != len(self._ids):
            raise SteeringError(
                f"{len(self._languages)} languages for {len(self._ids)} prompts: one a prompt, or one for all"
            )
        self._batches = length_batches([len(row) for row in self._ids], given_whole("batch_size", batch_size, least=1))

    def rows(self, intervention: Any, strengths: Sequence[float]) -> Iterator[dict[str, Any]]:
        """One row a strength and prompt."""
        tokenizer = require_tokenizer(self._model)
        before, unsteered = self._run(None)
        for alpha in strengths:
            logits, answers = (before, unsteered) if alpha == 0 else self._run(replace(intervention, alpha=alpha))
            apart = kl_divergence(before, logits).tolist()
            for row, code in enumerate(self._languages):
                yield {
                    "alpha": alpha,
                    "prompt": row,
                    "language": code,
                    "kl": max(apart[row], 0.0),
                    "next": tokenizer.decode([int(logits[row].argmax())]),
                    "answer": tokenizer.decode(answers[row], skip_special_tokens=True),
                    "changed": answers[row] != unsteered[row],
                }

    def _continued(self, rows: Sequence[int]) -> tuple[Float[Tensor, "row d_vocab"], list[list[int]]]:
        return continued(self._model, self._ids, rows, self._new)

    def _run(self, intervention: Intervention | None) -> tuple[Float[Tensor, "prompt d_vocab"], list[list[int]]]:
        """Logits after each prompt, on the CPU, and its continuation."""
        on: AbstractContextManager[Any] = nullcontext()
        if intervention is not None:
            on = steer(self._model, intervention, self._languages, must_fire=False)
        logits: dict[int, Tensor] = {}
        answers: dict[int, list[int]] = {}
        with on:
            for batch in self._batches:
                for rows, (seen, new) in in_parts_that_fit(batch, self._continued, what="prompts"):
                    logits |= dict(zip(rows, seen.float().cpu(), strict=True))
                    answers |= dict(zip(rows, new, strict=True))
        places = range(len(self._ids))
        return torch.stack([logits[place] for place in places]), [answers[place] for place in places]
