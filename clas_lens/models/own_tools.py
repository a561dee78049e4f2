"""The model's own tokenizer and generation config, kept on what TransformerLens makes of the model.

TransformerLens puts a BOS in front of every text: it reloads a tokenizer that does not add its BOS with add_bos_token=True,
also where the model never saw one (Yi, many fine-tunes). And it takes one end token, where a generation config lists several.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clas_lens.models.sites import LensModel


@contextmanager
def taken_as_it_is(tokenizer: PreTrainedTokenizerBase | None) -> Iterator[None]:
    """TransformerLens reloads no tokenizer inside that says that it adds its BOS; so this one says so for the while."""
    if tokenizer is None:
        yield
        return
    before = dict(tokenizer.init_kwargs)
    tokenizer.init_kwargs["add_bos_token"] = True
    try:
        yield
    finally:
        tokenizer.init_kwargs = before


def keep_own_tools(model: LensModel, hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Give a lens model the tokenizer as it is, but for left padding, and `generation_config` where there is one."""
    target: Any = model
    target.generation_config = getattr(hf_model, "generation_config", None)
    if tokenizer is not None:
        tokenizer.padding_side = "left"
        if target.tokenizer is not tokenizer:
            raise AssertionError("TransformerLens replaced the tokenizer")
        target.cfg.tokenizer_prepends_bos = len(tokenizer("")["input_ids"]) > 0
