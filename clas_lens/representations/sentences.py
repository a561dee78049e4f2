"""Sentence representations: the residual stream (or an MLP output) pooled over each text, with or without an intervention."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.artifacts import (
    ArtifactError,
    Content,
    content_key,
    keep,
    load_tensors,
    provenance,
    remembered,
    tensor_fingerprint,
)
from clas_lens.cluster.work import Runner, Tell, runner_of
from clas_lens.corpus.arguments import check_bare, given_corpus, given_model
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
from clas_lens.given import given_path, given_whole, given_word
from clas_lens.models.identity import describe_model
from clas_lens.models.sites import LensModel, check_layers
from clas_lens.statistics.files import check_language_of, language_path
from clas_lens.steering.intervention import Intervention, given_intervention
from clas_lens.steering.steer import steer
from clas_lens.vocabulary import Pool, ReadSite, check_languages

KIND = "sentence representations"


SHARED = ("layers", "example_ids", "pool", "intervention", "model", "corpus", "site")


@dataclass(frozen=True, eq=False)
class Representations:
    """One vector a text and layer: the residual stream at the output of the layer (or its MLP's output), pooled over the text.

    Attributes:
        values: float32, on the CPU.
        languages, layers, example_ids: the names of the first three axes; layers are 0-based.
        pool: "mean" over content tokens (no padding, no BOS), or the "last" token.
        intervention: the fingerprint of what the model was steered with, or None.
        model: see `describe_model`.
        texts: per language: the texts' `fingerprint` and how many were `truncated`.
        corpus: the name of the corpus that the examples are of.
        made: per language: when and with which versions it was read (`provenance`), kept when it is saved again.
        site: "residual", the stream at the output of the layer, or "mlp_out", what its MLP adds to the stream.
    """

    values: Float[Tensor, "lang example layer d_model"]
    languages: tuple[str, ...]
    layers: tuple[int, ...]
    example_ids: tuple[str, ...]
    pool: Pool = "mean"
    intervention: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    corpus: str = "texts"
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    site: ReadSite = "residual"

    def __post_init__(self) -> None:
        named = (len(self.languages), len(self.example_ids), len(self.layers))
        if named != tuple(self.values.shape[:3]):
            raise ValueError(f"{named} names of languages, examples and layers for values {tuple(self.values.shape)}")

    def of(self, language: str) -> Float[Tensor, "example layer d_model"]:
        """One language's.

        Raises:
            ValueError: not among the languages.
        """
        if language not in self.languages:
            raise ValueError(f"no representations in {language!r}; available: {', '.join(self.languages)}")
        return self.values[self.languages.index(language)]

    def at(self, language: str, layer: int) -> Float[Tensor, "example d_model"]:
        """One language's at the output of one layer.

        Raises:
            ValueError: not among the languages or layers.
        """
        if layer not in self.layers:
            raise ValueError(f"no representations of layer {layer}; available: {', '.join(map(str, self.layers))}")
        return self.of(language)[:, self.layers.index(layer)]

    def select(self, languages: Sequence[str]) -> "Representations":
        """Only these languages, in this order."""
        return self.with_values({code: self.of(code) for code in check_languages(languages, "representations")})

    def with_values(self, values: Mapping[str, Float[Tensor, "example layer d_model"]]) -> "Representations":
        """The same, of these languages."""
        texts = {code: self.texts[code] for code in values if code in self.texts}
        made = {code: self.made[code] for code in values if code in self.made}
        return replace(self, values=torch.stack(list(values.values())), languages=tuple(values), texts=texts, made=made)

    def source(self) -> dict[str, Any]:
        """What these vectors are of, JSON-able."""
        return {
            "layers": list(self.layers),
            "example_ids": list(self.example_ids),
            "pool": self.pool,
            "intervention": self.intervention,
            "model": dict(self.model),
            "corpus": self.corpus,
            "site": self.site,
        }

    def fingerprint(self) -> str:
        """A hash of the values and of what they are."""
        return content_key(self.source(), self.languages, tensor_fingerprint(self.values))

    def __repr__(self) -> str:
        return (
            f"Representations({self.model.get('name')!r}, {len(self.languages)} languages x {len(self.example_ids)} "
            f"examples x {len(self.layers)} layers x {self.values.shape[-1]}, pool={self.pool!r}, "
            f"intervention={self.intervention!r})"
        )

    def save(self, folder: str | Path) -> Path:
        """Write one `<language>.safetensors` a language; `load` reads them back."""
        for language in self.languages:
            self.save_language(folder, language, self.of(language))
        return Path(folder)

    def save_language(self, folder: str | Path, language: str, values: Float[Tensor, "example layer d_model"]) -> None:
        """Write one language's file."""
        header = {**self._file(language), "provenance": dict(self.made.get(language) or provenance())}
        keep(language_path(Path(folder), language), KIND, self._key(language), Content({"values": values}, header))

    def saved_language(self, folder: str | Path | None, language: str) -> Content | None:
        """What a language's file in `folder` holds, if it is of just these texts, model and settings."""
        return remembered(None if folder is None else language_path(Path(folder), language), KIND, self._key(language))

    def _file(self, language: str) -> dict[str, Any]:
        return {**self.source(), "language": language, "text": dict(self.texts.get(language, {}))}

    def _key(self, language: str) -> str:
        return content_key(self._file(language))

    @classmethod
    def load(cls, folder: str | Path, languages: Sequence[str] | None = None) -> "Representations":
        """Read what `save` or `collect_representations(..., out=)` wrote; default all languages there, by name.

        Raises:
            ArtifactError: nothing there, a damaged file, one of another language than its name says, or files of different
                models, texts, layers or interventions.
        """
        found = sorted(file.stem for file in Path(folder).glob("*.safetensors"))
        chosen = found if languages is None else list(check_languages(languages, "representations"))
        if not chosen:
            raise ArtifactError(f"no {KIND} in {folder}")
        read = {code: load_tensors(language_path(Path(folder), code), KIND) for code in chosen}
        first = read[chosen[0]][1]
        for code, (_, header) in read.items():
            check_language_of(language_path(Path(folder), code), header, code)
            differing = [name for name in SHARED if header[name] != first[name]]
            if differing:
                raise ArtifactError(
                    f"{folder}: {code!r} and {chosen[0]!r} differ in {', '.join(differing)}; "
                    "collect them again together, or load(languages=[...]) those that belong together"
                )
        return cls(
            torch.stack([tensors["values"] for tensors, _ in read.values()]),
            tuple(chosen),
            tuple(first["layers"]),
            tuple(first["example_ids"]),
            first["pool"],
            first["intervention"],
            first["model"],
            {code: header["text"] for code, (_, header) in read.items()},
            first["corpus"],
            {code: header["provenance"] for code, (_, header) in read.items()},
            first["site"],
        )


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
    batch_size, max_tokens = (
        given_whole("batch_size", batch_size, least=1),
        given_whole("max_tokens", max_tokens, least=1),
    )
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
    content = list(dict.fromkeys(corpus.content))
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
                "content": content,
            }
            for code, tokens in texts.items()
        },
        corpus.name,
        site=site,
    )


def check_steers_texts(intervention: Intervention) -> None:
    """Raise `ValueError` for an intervention that a single pass over a text would not show."""
    given_intervention(intervention)
    if intervention.positions == "generated":
        raise ValueError(
            "texts are read, not generated: an intervention with positions='generated' would change nothing; "
            "give one with positions='all' or 'last'"
        )
