"""Reading texts into sentence representations, with or without an intervention."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.artifacts import content_key, provenance
from clas_lens.cluster.work import Runner, Tell, runner_of
from clas_lens.corpus.arguments import check_bare, given_corpus, given_model, given_sizes
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.reading import (
    Reading,
    check_finite,
    in_corpus_order,
    in_one_pass,
    pooling_residuals,
    read_batches,
    read_items,
    readings,
    tokenize_corpus,
)
from clas_lens.corpus.tokens import TokenizedTexts
from clas_lens.given import given_path, given_word
from clas_lens.models.identity import describe_model
from clas_lens.models.sites import LensModel, check_layers
from clas_lens.representations.sentences import Representations
from clas_lens.steering.intervention import Intervention, given_intervention
from clas_lens.steering.steer import steer
from clas_lens.vocabulary import AFTER_PROMPTS, Pool, ReadSite


def collect_representations(
    model: LensModel,
    corpus: ParallelCorpus | Mapping[str, Sequence[str]],
    layers: Sequence[int],
    *,
    intervention: Intervention | None = None,
    pool: Pool = "mean",
    site: ReadSite = "residual",
    batch_size: int = 16,
    max_tokens: int = 512,
    out: str | Path | None = None,
    progress: bool = True,
    cluster: Runner | None = None,
) -> Representations:
    """Read every text once and pool the residual stream at the output of each of these layers.

    The figures of alignment, of its change and of the maps share one such reading: at the bridge layers and the last but
    one, without an intervention and with it. Each text is steered in its own language. Nothing is kept per token, and the
    unembedding is skipped.

    Args:
        corpus: parallel texts; a mapping of language code to texts is taken as `ParallelCorpus.from_texts` takes it.
        layers: 0-based.
        intervention: on the model while it reads; None reads it as it is.
        pool: "mean" over content tokens (no padding, no BOS), in float32; or the "last" token.
        site: the "residual" stream at the layers' outputs, or what their MLPs add to it ("mlp_out").
        batch_size: texts a forward pass, at most; it changes results only by float error.
        max_tokens: longer texts are cut here; how many were is in `texts[language]["truncated"]`.
        out: a folder for one file a language. A language whose file is there, for the same model, texts, layers, pooling
            and intervention, is not read again, so an interrupted run goes on where it stopped.
        progress: show a bar over all languages' batches.
        cluster: who reads, such as `cl.cluster.RayCluster(workers=8)`; None is this process. Results are the same.

    Raises:
        ClusterError: of the cluster.
        ValueError: a layer out of range or twice, a model without a tokenizer or on which something else acts (`steer`; your
            own hooks, with `out`), an intervention on generated tokens only, or an argument of another kind.
        NonFiniteActivationError: a representation with NaN or infinite values.
    """
    if out is not None:
        given_path("out", out)
    model, corpus = given_model(model), given_corpus(corpus)
    batch_size, max_tokens = given_sizes(batch_size, max_tokens)
    pool = given_word("pool", pool, get_args(Pool))
    site = given_word("site", site, get_args(ReadSite))
    chosen = check_layers(layers, model.cfg.n_layers)
    if intervention is not None:
        check_steers_texts(intervention)
    runner = runner_of(cluster)
    check_bare(model, "collect_representations", kept=out is not None)
    texts = tokenize_corpus(model, corpus, max_tokens)
    unread = unread_representations(model, corpus, texts, chosen, pool=pool, intervention=intervention, site=site)
    found = {code: unread.saved_language(out, code) for code in texts}
    values = {code: content.tensors["values"] for code, content in found.items() if content is not None}
    made = {code: content.header["provenance"] for code, content in found.items() if content is not None}
    unread = replace(unread, made={code: provenance() for code in texts} | made)
    unread_texts = {code: held for code, held in texts.items() if code not in values}
    todo = readings(model, unread_texts, batch_size, cluster=runner) if unread_texts else []
    read = partial(_read_item, intervention=intervention, layers=chosen, pool=pool, site=site)
    for item, read_values in read_items(model, todo, read, what="read", progress=progress, cluster=runner):
        values[item.language] = read_values
        if out is not None:
            unread.save_language(out, item.language, read_values)
    return unread.with_values({code: values[code] for code in texts})


def _read_item(
    model: LensModel,
    item: Reading,
    tell: Tell,
    *,
    intervention: Intervention | None,
    layers: Sequence[int],
    pool: Pool,
    site: ReadSite,
) -> Float[Tensor, "example layer d_model"]:
    """One item's representations, in corpus order."""
    read = in_one_pass(model, lambda batch: pooling_residuals(model, batch, layers, pool, site))
    with nullcontext() if intervention is None else steer(model, intervention, language=item.language):
        parts = ((batch, (pooled,)) for batch, pooled in read_batches(model, item, read, tell))
        (values,) = in_corpus_order(item, parts)
    check_finite(values, layers, item.language)
    return values


def unread_representations(
    model: LensModel,
    corpus: ParallelCorpus,
    texts: Mapping[str, TokenizedTexts],
    layers: Sequence[int],
    *,
    pool: Pool,
    intervention: Intervention | None,
    site: ReadSite = "residual",
) -> Representations:
    """Representations of no language yet, that say what they will be of; `texts` has what will be read in each."""
    return Representations(
        torch.zeros(0, len(corpus), len(layers), model.cfg.d_model),
        (),
        tuple(layers),
        tuple(corpus.ids),
        pool,
        None if intervention is None else intervention.fingerprint(),
        describe_model(model),
        {
            code: {
                "fingerprint": content_key(corpus.ids, tokens.ids),
                "truncated": len(tokens.truncated),
                "content": corpus.known_by(code),
            }
            for code, tokens in texts.items()
        },
        corpus.name,
        site=site,
    )


def check_steers_texts(intervention: Intervention) -> None:
    """Raise `ValueError` for an intervention that a single pass over a text would not show."""
    given_intervention(intervention)
    if intervention.positions in AFTER_PROMPTS:
        raise ValueError(
            f"texts are read, not generated: an intervention with positions={intervention.positions!r} would change nothing; "
            "give one with positions='all' or 'last'"
        )
