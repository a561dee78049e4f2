"""Which language's word is probable at each layer, before and after steering."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.cluster.work import Tell
from clas_lens.corpus.arguments import check_bare, given_model
from clas_lens.corpus.reading import Reading, in_corpus_order, read_batches, read_items, readings
from clas_lens.corpus.tokens import TokenBatch, TokenizedTexts, require_tokenizer, tokenize
from clas_lens.given import given_number, given_whole, given_word
from clas_lens.lens.prompts import lens_prompt, promptable, shown_words, source_of
from clas_lens.lens.reading import LensPass
from clas_lens.lens.top import check_room
from clas_lens.lens.words import given_languages, given_words, word_tokens
from clas_lens.models.sites import LensModel, check_layers
from clas_lens.significance.intervals import Interval, intervals_of
from clas_lens.significance.pairs import PairedScores
from clas_lens.steering.intervention import Intervention, given_intervention
from clas_lens.steering.steer import steer
from clas_lens.vocabulary import LensPrompt


def latent_language(
    model: LensModel,
    languages: Sequence[str] | None = None,
    *,
    intervention: Intervention | None = None,
    prompt: LensPrompt = "translation",
    source: str | None = None,
    compare: Sequence[str] | None = None,
    words: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    shots: int = 4,
    seed: int = 0,
    batch_size: int = 8,
    level: float = 0.95,
    n_boot: int = 1000,
    progress: bool = True,
) -> pd.DataFrame:
    """The logit lens on prompts whose next word is known: how probable it is at each layer in each language.

    After Wendler et al. (2024, "Do Llamas Work in English?", arXiv:2402.10588). The prompts are of `lens_prompt`; what is
    read is the next token at their end (`LensPass`). The probability of a word is the sum over the tokens of `word_tokens`,
    those that no other of the compared languages shares; a word that has none left in a language is left out there. So
    languages are of different words where `n` differs, and words that begin alike are not told apart.

    Args:
        languages: those that are asked for, all 16 of the word list by default.
        intervention: rows `when="after"` are with it, each language's prompts steered as text of that language, its
            shots and what is translated too. The anchor is not steered.
        source: of a translation: the language translated from. None for French, and for German into French.
        compare: the languages whose words are looked for; None for `languages`, English and what is translated from.
        words: by their English; None for all 60 (20 of them for a cloze).
        shots, seed: of `lens_prompt`.
        level, n_boot: of the intervals: bootstrap quantiles over words, narrow where words are few.

    Returns:
        One row a language, `when` ("before", and "after" if there is an intervention), layer and `word_language`: `probability`
        (0 to 1, mean over words) with `low` and `high` (NaN of a single word); `control`, the mean probability of the other
        words in that language, those in the prompt not counted (NaN where there is none); `n` words, and `left_out`, the words
        all of whose tokens are shared. `source` and `prompt` say what was asked.

    Raises:
        ValueError: a model of another kind or inside `steer`; an unknown language or word; prompts that are too long; a
            tokenizer that `word_tokens` refuses.
        ModelLoadError: a model that the lens does not read.
    """
    model = given_model(model)
    check_bare(model, "latent_language", kept=False)
    given_word("prompt", prompt, get_args(LensPrompt))
    asked = given_languages(languages)
    sources = {code: source_of(code, prompt, source) for code in asked}
    compared = given_languages(tuple(dict.fromkeys([*asked, "en", *sources.values()])) if compare is None else compare)
    chosen = given_words(words) if words is not None else promptable(prompt)
    if intervention is not None:
        given_intervention(intervention)
    places = check_layers(range(model.cfg.n_layers) if layers is None else layers, model.cfg.n_layers)
    batch_size, n_boot = given_whole("batch_size", batch_size, least=1), given_whole("n_boot", n_boot, least=2)
    level = given_number("level", level, above=0, below=1)
    texts = {
        code: _tokenized(
            model, [lens_prompt(one, code, prompt, source=source, shots=shots, seed=seed) for one in chosen]
        )
        for code in asked
    }
    found = _Words(word_tokens(model, compared, chosen), [shown_words(one, prompt, shots, seed) for one in chosen])
    items = readings(model, texts, batch_size)
    whens: dict[str, Intervention | None] = {"before": None} | ({} if intervention is None else {"after": intervention})
    answers = {
        (item.language, when): probabilities
        for when, steered in whens.items()
        for item, probabilities in read_items(
            model,
            items,
            partial(_read, layers=places, words=found, intervention=steered),
            what="latent language",
            progress=progress,
        )
    }
    rows: list[dict[str, Any]] = []
    for code, when in product(asked, whens):
        told = {"language": code, "source": sources[code], "prompt": prompt, "when": when}
        own, control = answers[code, when]
        rows += [told | row for row in _rows(own, control, places, found, level=level, n_boot=n_boot, seed=seed)]
    return pd.DataFrame(rows)


def _tokenized(model: LensModel, prompts: Sequence[str]) -> TokenizedTexts:
    """The prompts' token ids, if the model has room for them."""
    held = tokenize(require_tokenizer(model), prompts)
    check_room(model, held.ids)
    return held


@dataclass(frozen=True)
class _Words:
    """Which words are looked for, by `word_tokens`; `shown[i]` are those in the prompt for word i."""

    table: pd.DataFrame
    shown: Sequence[Sequence[str]]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(self.table["word"]))

    @property
    def languages(self) -> list[str]:
        return list(dict.fromkeys(self.table["language"]))

    def ids(self) -> list[int]:
        """Every token that is looked for, once."""
        return list(dict.fromkeys(one for tokens in self.table["tokens"] for one in tokens))

    def members(self) -> Float[Tensor, "token word lang"]:
        """1 where a token is one of a word's in a language."""
        place = {token: number for number, token in enumerate(self.ids())}
        found = torch.zeros(len(place), len(self.table), dtype=torch.float64)
        for column, tokens in enumerate(self.table["tokens"]):
            found[[place[one] for one in tokens], column] = 1
        return found.reshape(len(place), len(self.names), len(self.languages))

    def known(self) -> Float[Tensor, "word lang"]:
        """1 where a word has a token of its own."""
        return self.members().sum(0).clamp(max=1)

    def controls(self) -> Float[Tensor, "asked word lang"]:
        """For the prompt of each word, the weights of a mean over the other words that are not in it; NaN if there is none."""
        names = self.names
        others = [
            [float(name != own and name not in seen) for name in names]
            for own, seen in zip(names, self.shown, strict=True)
        ]
        weights = torch.tensor(others, dtype=torch.float64)[:, :, None] * self.known()
        return weights / weights.sum(1, keepdim=True)


def _read(
    model: LensModel,
    item: Reading,
    tell: Tell,
    *,
    layers: Sequence[int],
    words: _Words,
    intervention: Intervention | None,
) -> tuple[Float[np.ndarray, "word layer lang"], Float[np.ndarray, "word layer lang"]]:
    """The probabilities of the words (NaN without a token of their own) and of their controls, in the words' order."""
    ids, members, known, controls = words.ids(), words.members(), words.known(), words.controls()

    def read(batch: TokenBatch) -> tuple[Tensor, Tensor]:
        rows = list(batch.rows)
        with nullcontext() if intervention is None else steer(model, intervention, item.language):
            lens = LensPass(model, batch, layers)
        own, other = [], []
        for found in lens.log_probs():
            sums = torch.einsum("rt,twl->rwl", found[:, -1, ids].cpu().double().exp(), members)
            own.append(torch.where(known[rows] > 0, sums[range(len(rows)), rows], float("nan")))
            other.append((sums * controls[rows]).sum(1))
        return torch.stack(own, 1), torch.stack(other, 1)

    own, other = in_corpus_order(item, read_batches(model, item, read, tell))
    return own.numpy(), other.numpy()


def _rows(
    own: Float[np.ndarray, "word layer lang"],
    other: Float[np.ndarray, "word layer lang"],
    layers: Sequence[int],
    words: _Words,
    *,
    level: float,
    n_boot: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """A row a layer and language of the words."""
    spans = [_intervals(own[:, :, place], level, n_boot, seed) for place in range(len(words.languages))]
    for row, layer in enumerate(layers):
        for place, code in enumerate(words.languages):
            known = np.isfinite(own[:, row, place])
            yield {
                "layer": layer,
                "word_language": code,
                "probability": spans[place][row].estimate,
                "low": spans[place][row].low,
                "high": spans[place][row].high,
                "control": float(other[known, row, place].mean()) if known.any() else float("nan"),
                "n": int(known.sum()),
                "left_out": int((~known).sum()),
            }


def _intervals(values: Float[np.ndarray, "word layer"], level: float, n_boot: int, seed: int) -> list[Interval]:
    """One a layer, of the mean over the words that have a token."""
    there = values[np.isfinite(values[:, 0])].T
    n_layers, n_words = there.shape
    if n_words < 2:
        return [Interval(float(line.mean()) if n_words else float("nan"), float("nan"), float("nan")) for line in there]
    pairs = PairedScores(tuple(map(str, range(n_layers))), np.zeros_like(there), there, np.arange(n_words))
    interval = intervals_of(pairs, "percentile", level=level, n_boot=n_boot, seed=seed)
    return [interval([row]) for row in range(n_layers)]
