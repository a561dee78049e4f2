"""Tiny random models of the real architectures, a tokenizer for them, the shared data, and the check for left hooks."""

import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import clas_lens as cl
from clas_lens.models.backends import HAS_HOOKED

FAMILIES = ("llama", "qwen2", "gemma3")
BACKENDS = ("hooked", "bridge") if HAS_HOOKED else ("bridge",)
BACKEND = BACKENDS[0]  # where a test is about neither
needs_hooked = pytest.mark.skipif(not HAS_HOOKED, reason="TransformerLens 4 has no HookedTransformer")
SHARED = Path(__file__).parents[2] / "shared"
VOCAB = 600
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def shared_data(*parts: str) -> Path:
    """A path under ../shared; elsewhere than in CI a test that wants it is skipped when it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing in CI")
        pytest.skip(f"needs {path}")
    return path


def tiny_hf_model(family: str, *, rope_context: int = 64) -> torch.nn.Module:
    """A random model with every feature of its family that a conversion can get wrong."""
    torch.manual_seed(0)
    match family:
        case "llama":
            rope = {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": rope_context,
            }
            model = LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=rope))
        case "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**SHAPE))
        case "gemma3":
            config = Gemma3TextConfig(
                **SHAPE, head_dim=16, query_pre_attn_scalar=16, sliding_window=6, sliding_window_pattern=2
            )
            model = Gemma3ForCausalLM(config)
        case _:
            raise ValueError(family)
    with torch.no_grad():  # biases and norm weights start at constants; make them matter
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
                assert "bias" in name or "norm" in name
    return model.eval()


def tiny_tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the bundled corpus: every text in it round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = cl.ParallelCorpus.bundled()
    tokenizer.train_from_iterator((text for lang in corpus.languages for text in corpus[lang]), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        **({"bos_token": "<bos>"} if bos else {}),
    )


def logits(model, tokens):
    """All logits of a batch without padding."""
    with torch.no_grad():
        return model(tokens, attention_mask=torch.ones_like(tokens))


def assert_no_hooks(model) -> None:
    """No hook is left on any hook point, of ours or of torch's."""
    left = [n for n, p in model.hook_dict.items() if p.fwd_hooks or p.bwd_hooks or p._forward_hooks]
    assert not left, f"hooks left on {left}"
