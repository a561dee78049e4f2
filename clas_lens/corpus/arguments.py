"""What functions that read texts are given, checked at their door: each refusal is one line that says what to do."""

from collections.abc import Mapping

import torch
from torch.nn import Module
from transformers import PreTrainedModel

from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.given import given_whole, named
from clas_lens.models.hooking import acting_hooks
from clas_lens.models.sites import LensModel, device_of

# Hook functions from here change activations; `steer` attaches them.
STEERING = "clas_lens.steering."


def given_model(model: object) -> LensModel:
    """The model, if it is one of TransformerLens's.

    Raises:
        ValueError: anything else; the message says how to make one of it.
    """
    if isinstance(model, LensModel):
        return model
    if isinstance(model, PreTrainedModel):
        raise ValueError(
            f"a Hugging Face model ({type(model).__name__}) has no hook points; give load_model(model, tokenizer=...)"
        )
    if isinstance(getattr(model, "_orig_mod", None), Module):
        raise ValueError("a compiled model does not run its hooks; give the model that torch.compile was given")
    raise ValueError(
        f"a HookedTransformer or TransformerBridge is needed, got {named(model)}; load_model(...) gives one"
    )


def given_corpus(corpus: object) -> ParallelCorpus:
    """The corpus; a mapping of language code to texts becomes one.

    Raises:
        ValueError: anything else.
        CorpusError: a mapping of texts that are not parallel.
    """
    if isinstance(corpus, ParallelCorpus):
        return corpus
    if isinstance(corpus, Mapping):
        return ParallelCorpus.from_texts(corpus)
    raise ValueError(
        f"a ParallelCorpus is needed, got {named(corpus)}; "
        'ParallelCorpus.from_texts({"en": [...], "de": [...]}) makes one of lists of texts'
    )


def given_sizes(batch_size: object, max_tokens: object) -> tuple[int, int]:
    """Texts a pass and tokens a text, each at least 1.

    Raises:
        ValueError: another number, or none.
    """
    return given_whole("batch_size", batch_size, least=1), given_whole("max_tokens", max_tokens, least=1)


def check_bare(model: LensModel, what: str, *, kept: bool) -> None:
    """Raise unless `what` reads the model as it is: steered activations would pass for the model's own.

    Args:
        what: the function that reads.
        kept: whether its results go to files, which cannot say what hooks of the user do.

    Raises:
        ValueError: inside `steer` or `torch.autocast`; or with the user's own hooks, if the results are kept.
    """
    refuse_autocast(model, what)
    hooks = acting_hooks(model)
    if any((getattr(hook, "__module__", None) or "").startswith(STEERING) for _, hook in hooks):
        raise ValueError(f"the model is steered, and so would be what is measured: call {what} outside `steer`")
    if kept and hooks:
        raise ValueError(
            f"the model has hooks of yours (at {hooks[0][0]!r}), and files cannot say what they do: "
            f"call {what} without out=, or remove them"
        )


def refuse_autocast(model: LensModel, what: str) -> None:
    """Raise `ValueError` inside `torch.autocast`: what is measured would be of another dtype than what it says of itself."""
    device = device_of(model).type
    if torch.is_autocast_enabled(device):
        dtype = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        raise ValueError(
            f"inside torch.autocast the model computes in {dtype}, which no result would say: call {what} outside, or load "
            f"the model in that dtype (load_model(..., dtype={dtype!r}))"
        )
