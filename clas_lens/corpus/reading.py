"""The one loop that reads texts through a model: tokenise, batch by length, pad, attach, run, count.

Work is cut into items (`Reading`: some texts of one language, in batches). What is made of an item is a function of the
model and the item alone, so items can be read here, one after another, or on a cluster, in any order (`read_items`). What
is done to a batch is passed in; the loop knows nothing of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clas_lens.cluster.work import Runner, Tell, Work, runner_of
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.tokens import (
    TokenBatch,
    TokenizedTexts,
    forward_batches,
    length_batches,
    pad,
    require_tokenizer,
    tokenize,
)
from clas_lens.models.forward import run_layers
from clas_lens.models.room import in_parts_that_fit
from clas_lens.models.sites import HookFunction, LensModel, Site, device_of, hooked
from clas_lens.vocabulary import PaddingSide, Pool, ReadSite

Result = TypeVar("Result")

PART = 512  # texts of one language that are read as one item, where parts can be put together


class NonFiniteActivationError(ValueError):
    """An activation is NaN or infinite."""


@dataclass(frozen=True)
class Reading:
    """An item of work: some texts of one language and the batches to read them in.

    Attributes:
        batches: the texts' positions, each batch of similar length, the longest first.
        side: where the padding goes.
        number: which part of the language's batches these are, from 0; None for all of them.
    """

    language: str
    texts: TokenizedTexts
    batches: tuple[tuple[int, ...], ...]
    side: PaddingSide = "left"
    number: int | None = None

    def parts(self) -> "list[Reading]":
        """The same batches in items of about `PART` texts, whoever reads them, so that what is added up is the same."""
        found: list[list[tuple[int, ...]]] = [[]]
        for batch in self.batches:
            if sum(map(len, found[-1])) >= PART:
                found.append([])
            found[-1].append(batch)
        return [replace(self, batches=tuple(part), number=number) for number, part in enumerate(found)]


def tokenize_corpus(model: LensModel, corpus: ParallelCorpus, max_tokens: int) -> dict[str, TokenizedTexts]:
    """Every language's texts, cut at `max_tokens` or at what the model has room for.

    Raises:
        ValueError: a model without a tokenizer, or a text without a token.
    """
    tokenizer = require_tokenizer(model)
    return {
        code: tokenize(tokenizer, corpus[code], max_tokens=token_limit(model, max_tokens)) for code in corpus.languages
    }


def token_limit(model: LensModel, max_tokens: int) -> int:
    """`max_tokens`, or what the model has room for."""
    return min(max_tokens, model.cfg.n_ctx)


def readings(
    model: LensModel,
    texts: Mapping[str, TokenizedTexts],
    batch_size: int,
    *,
    full: bool = False,
    cluster: Runner | None = None,
) -> list[Reading]:
    """One item a language, in batches for the device that will read them.

    Args:
        full: batches of `batch_size` texts each, on every device: where results depend on which are in a batch together.
    """
    device = runner_of(cluster).device(model)

    def cut(lengths: list[int]) -> tuple[tuple[int, ...], ...]:
        batches = length_batches(lengths, batch_size) if full else forward_batches(lengths, batch_size, device)
        return tuple(map(tuple, batches))

    return [Reading(code, held, cut([len(ids) for ids in held.ids])) for code, held in texts.items()]


def parallel_readings(model: LensModel, texts: Mapping[str, TokenizedTexts], batch_size: int) -> list[Reading]:
    """Items of one batch: the same examples in every language, then the next examples; all with the same batches.

    An example is as long as in its longest language.
    """
    lengths = [max(map(len, rows)) for rows in zip(*(held.ids for held in texts.values()), strict=True)]
    batches = forward_batches(lengths, batch_size, device_of(model))
    return [Reading(code, held, (tuple(rows),)) for rows in batches for code, held in texts.items()]


def read_items(
    model: LensModel,
    items: Sequence[Reading],
    read: Work[Reading, Result],
    *,
    what: str,
    progress: bool,
    cluster: Runner | None = None,
) -> Iterator[tuple[Reading, Result]]:
    """What `read` makes of each item, with one bar over all batches; in order, but for what a cluster has done before.

    Args:
        read: given the model, an item and a function to call after each batch; its result depends on the first two alone.
        cluster: who reads; None is this process.
    """

    def shown() -> Iterator[Reading]:
        for item in items:
            bar.set_description(f"{what} {item.language}")
            yield item

    total = sum(len(item.batches) for item in items)
    with tqdm(total=total, unit="batch", disable=not (progress and total)) as bar:
        yield from runner_of(cluster).results(model, read, shown(), bar.update)


def read_batches(
    model: LensModel, item: Reading, read: Callable[[TokenBatch], Result], tell: Tell, *, divisible: bool = True
) -> Iterator[tuple[TokenBatch, Result]]:
    """An item's batches, each with what `read` makes of it; one that the device has no memory for comes in parts.

    Args:
        divisible: False where results depend on which rows are in a batch together; running out of memory is an error then.
    """
    texts, device = item.texts, device_of(model)

    def run(rows: Sequence[int]) -> tuple[TokenBatch, Result]:
        batch = pad(texts.ids, rows, n_prefix=texts.n_prefix, side=item.side, device=device)
        return batch, read(batch)

    for rows in item.batches:
        if divisible:
            yield from (found for _, found in in_parts_that_fit(rows, run, what="texts"))
        else:
            yield run(rows)
        tell(1)


def in_one_pass(
    model: LensModel, watching: Callable[[TokenBatch], AbstractContextManager[Result]]
) -> Callable[[TokenBatch], Result]:
    """A `read` for `read_batches`: one forward pass without the unembedding, inside what `watching` gives for the batch."""

    def read(batch: TokenBatch) -> Result:
        with watching(batch) as seen:
            run_layers(model, batch.tokens, batch.attention_mask)
        return seen

    return read


def in_corpus_order(item: Reading, parts: Iterator[tuple[TokenBatch, tuple[Tensor, ...]]]) -> tuple[Tensor, ...]:
    """One tensor for each of the tensors that a batch gives (rows first, on the CPU), with a row a text, in corpus order."""
    whole: tuple[Tensor, ...] = ()
    for batch, part in parts:
        whole = whole or tuple(one.new_zeros(len(item.texts.ids), *one.shape[1:]) for one in part)
        for one, values in zip(whole, part, strict=True):
            one[list(batch.rows)] = values
    return whole


# --- the residual stream or the MLP output, pooled over texts ---


@contextmanager
def pooling_residuals(
    model: LensModel, batch: TokenBatch, layers: Sequence[int], pool: Pool = "mean", site: ReadSite = "residual"
) -> Iterator[Float[Tensor, "batch layer d_model"]]:
    """Gives a tensor that a forward pass of `batch` inside fills: the pooled residual stream at each layer's output, or what
    the layer's MLP adds to it (site="mlp_out").
    """
    pooled = torch.zeros(len(batch.rows), len(layers), model.cfg.d_model)
    weights = torch.zeros_like(batch.content_mask, dtype=torch.float32)
    match pool:
        case "mean":
            weights += batch.content_mask / batch.content_mask.sum(1, keepdim=True)
        case "last":
            weights[:, -1] = 1  # padding is on the left

    unseen = set(layers)

    def on_residual(place: int, layer: int) -> HookFunction:
        def hook(residual: Tensor, hook: object) -> None:
            pooled[:, place] = torch.einsum("bp,bpd->bd", weights.to(residual.device), residual.float()).cpu()
            unseen.discard(layer)

        return hook

    with hooked(
        model, [(Site(site, layer).hook_name(model), on_residual(place, layer)) for place, layer in enumerate(layers)]
    ):
        yield pooled
    if unseen:
        raise ValueError(f"no forward pass of {model.cfg.model_name} gave the {site} of layer {min(unseen)}")


def check_finite(values: Float[Tensor, "example layer d_model"], layers: Sequence[int], language: str) -> None:
    """Raise `NonFiniteActivationError` for NaN or infinite values."""
    bad = [layer for place, layer in enumerate(layers) if not values[:, place].isfinite().all()]
    if bad:
        raise NonFiniteActivationError(
            f"NaN or infinite representations in layer {bad[0]}, language {language!r}. "
            "Try dtype=torch.float32 or bfloat16 (float16 overflows), and check the weights."
        )
