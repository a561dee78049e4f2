"""Percentiles of the gate as ActProb's released code takes them: of each batch by itself, then averaged over batches."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.cluster.work import Tell
from clas_lens.corpus.arguments import check_bare, given_corpus, given_model, given_sizes
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.reading import Reading, in_one_pass, read_batches, read_items, readings, tokenize_corpus
from clas_lens.corpus.tokens import TokenBatch
from clas_lens.given import given_number
from clas_lens.models.sites import HookFunction, LensModel, check_mlp_hooks, gate_name, hooked


def mean_batch_percentiles(
    model: LensModel,
    corpus: ParallelCorpus | Mapping[str, Sequence[str]],
    *,
    percentile: float = 90.0,
    batch_size: int = 4,
    max_tokens: int = 512,
    progress: bool = True,
) -> Float[Tensor, "lang layer neuron"]:
    """The mean over batches of a neuron's percentile of its gate (before the nonlinearity) within each batch, float32.

    What `act_prob(..., quantile_over="language", thresholds=...)` takes. Unlike all other statistics it depends on what
    stands in one batch: `batch_size` texts of similar length (Mondal et al. 2025 draw random ones, and count padding too).

    Raises:
        ValueError: a percentile out of range, something else that acts on the model, or an argument of another kind.
    """
    model, corpus = given_model(model), given_corpus(corpus)
    batch_size, max_tokens = given_sizes(batch_size, max_tokens)
    percentile = given_number("a percentile", percentile, above=0, below=100)
    check_mlp_hooks(model)
    check_bare(model, "mean_batch_percentiles", kept=False)
    items = readings(model, tokenize_corpus(model, corpus, max_tokens), batch_size, full=True)
    read = partial(_mean_percentiles, q=percentile / 100)
    done = read_items(model, items, read, what="percentiles", progress=progress)
    found = {item.language: values for item, values in done}
    return torch.stack([found[code] for code in corpus.languages])


def _mean_percentiles(model: LensModel, item: Reading, tell: Tell, *, q: float) -> Float[Tensor, "layer neuron"]:
    """One language's."""

    @contextmanager
    def watching(batch: TokenBatch) -> Iterator[Float[Tensor, "layer neuron"]]:
        values = torch.zeros(model.cfg.n_layers, model.cfg.d_mlp)
        content = batch.content_mask.bool()

        def on_gate(layer: int) -> HookFunction:
            def hook(gate: Tensor, hook: object) -> None:
                values[layer] = token_quantile(gate[content.to(gate.device)].float(), q).cpu()

            return hook

        with hooked(model, [(gate_name(layer), on_gate(layer)) for layer in range(model.cfg.n_layers)]):
            yield values

    read = in_one_pass(model, watching)
    batches = [values for _, values in read_batches(model, item, read, tell, divisible=False)]
    return torch.stack(batches).double().mean(0).float()


def token_quantile(values: Float[Tensor, "token neuron"], q: float) -> Float[Tensor, "neuron"]:
    """Each neuron's q-quantile over tokens, linear between neighbours (`torch.quantile` refuses inputs this large)."""
    ordered = values.sort(0).values
    place = q * (len(ordered) - 1)
    low, high = int(place), min(int(place) + 1, len(ordered) - 1)
    return ordered[low].lerp(ordered[high], place - low)
