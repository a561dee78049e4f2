"""The per-example view of the same categories (Wang et al. 2024, "Sharing Matters")."""

from typing import Literal

import pandas as pd
import torch
from tqdm import tqdm

from clas_lens.categories import NeuronCategory, categories_of
from clas_lens.corpus import ParallelCorpus
from clas_lens.sites import HookFunction, LensModel, check_mlp_hooks, device_of, hooked, post_name, run_layers
from clas_lens.tokens import forward_batches, pad, require_tokenizer, tokenize


def instance_shares(
    model: LensModel,
    corpus: ParallelCorpus,
    *,
    position: Literal["last", "mean"] = "last",
    batch_size: int = 16,
    max_tokens: int = 512,
    progress: bool = True,
) -> pd.DataFrame:
    """Categorise every neuron once per example, and average the shares over examples.

    A neuron is all-shared *for an example* if h > 0 in all languages of that example, and so on; so a neuron's category
    can change from one example to the next, unlike in `categorize`.

    Args:
        position: "last" content token (Wang et al.'s code), or the "mean" of h over a text's content tokens.
        batch_size: examples held at a time; each takes one byte a neuron.

    Returns:
        Tidy: layer, category (label), percent (mean over examples, 0 to 100).
    """
    check_mlp_hooks(model)
    if len(corpus.languages) < 2:
        raise ValueError(f"instance shares compare languages: at least 2 are needed, got {corpus.languages}")
    tokenizer = require_tokenizer(model)
    limit = min(max_tokens, model.cfg.n_ctx)
    texts = {code: tokenize(tokenizer, corpus[code], max_tokens=limit) for code in corpus.languages}
    # All languages of an example go together, so an example is as long as in its longest language.
    lengths = [max(len(text.ids[row]) for text in texts.values()) for row in range(len(corpus))]
    batches = forward_batches(lengths, batch_size, device_of(model))
    layers = range(model.cfg.n_layers)
    totals = torch.zeros(model.cfg.n_layers, len(NeuronCategory), dtype=torch.int64)
    for rows in tqdm(batches, unit="batch", desc="instance shares", disable=not progress):
        counts = torch.zeros(len(rows), model.cfg.n_layers, model.cfg.d_mlp, dtype=torch.int8)
        for text in texts.values():
            batch = pad(text.ids, rows, n_prefix=text.n_prefix, device=device_of(model))
            weights = batch.content_mask.float()
            if position == "last":
                weights = torch.zeros_like(weights)
                weights[:, -1] = 1.0  # left padding: the last column is every row's last token

            def on_post(layer: int, weights: torch.Tensor = weights, counts: torch.Tensor = counts) -> HookFunction:
                def hook(activation: torch.Tensor, hook: object) -> None:
                    pooled = torch.einsum("bp,bpn->bn", weights, activation.float())
                    counts[:, layer] += (pooled > 0).to(torch.int8).cpu()

                return hook

            with hooked(model, [(post_name(layer), on_post(layer)) for layer in layers]):
                run_layers(model, batch.tokens, batch.attention_mask)
        labels = categories_of(counts, len(corpus.languages))
        for category in NeuronCategory:
            totals[:, int(category)] += (labels == int(category)).sum(dim=(0, 2))
    percent = 100.0 * totals.double() / (len(corpus) * model.cfg.d_mlp)
    return pd.DataFrame(
        [(layer, c.label, float(percent[layer, int(c)])) for layer in layers for c in NeuronCategory],
        columns=["layer", "category", "percent"],
    )
