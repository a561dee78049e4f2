"""Which architectures load exactly: a tiny random model of each, saved, loaded on both backends and held against Transformers.

"exact": the probe of `load_model` passed, and logits of a longer left-padded batch agree. "refused": `load_model` says why.
Anything else would be "WRONG".
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import clas_lens as cl
from benchmarks.measure import Row
from benchmarks.models import Size
from clas_lens.models.backends import HAS_HOOKED

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2}
HEADS = {"head_dim": 8}
GEMMA = {**GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64}
EXPERTS = {**GROUPED, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# What people call it, the class of its model without "ForCausalLM", and what its configuration wants beside the shape.
ARCHITECTURES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Llama", "Llama", GROUPED),
    ("Qwen 2", "Qwen2", GROUPED),
    ("Qwen 3", "Qwen3", {**GROUPED, **HEADS}),
    ("Gemma 1", "Gemma", {**GROUPED, **HEADS}),
    ("Gemma 2", "Gemma2", GEMMA),
    ("Gemma 3", "Gemma3", GEMMA),
    ("Mistral", "Mistral", GROUPED),
    ("Ministral", "Ministral", {**GROUPED, **HEADS}),
    ("Phi-3", "Phi3", GROUPED),
    ("Cohere (Aya)", "Cohere", GROUPED),
    ("Cohere 2", "Cohere2", {**GROUPED, "sliding_window": 64}),
    ("Bloom", "Bloom", {"n_layer": 3, "n_head": 4}),
    ("XGLM", "XGLM", {"d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4, "init_std": 0.15}),
    ("Apertus", "Apertus", GROUPED),
    ("OLMo 2", "Olmo2", GROUPED),
    ("OLMo 3", "Olmo3", {**GROUPED, "sliding_window": 64}),
    ("SmolLM3", "SmolLM3", GROUPED),
    ("Granite", "Granite", GROUPED),
    ("GLM-4", "Glm4", {**GROUPED, **HEADS}),
    ("GPT-NeoX", "GPTNeoX", {}),
    ("OPT", "OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.15}),
    ("Falcon", "Falcon", {}),
    ("StableLM", "StableLm", GROUPED),
    ("Starcoder2", "Starcoder2", GROUPED),
    ("GPT-2", "GPT2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}),
    ("Seed-OSS", "SeedOss", {**GROUPED, **HEADS}),
    ("Helium", "Helium", {**GROUPED, **HEADS}),
    ("Mixtral", "Mixtral", EXPERTS),
    ("Qwen 3 MoE", "Qwen3Moe", EXPERTS),
)


def run(size: Size, rounds: int) -> list[Row]:
    """One row an architecture; the same in every size."""
    return [_row(*architecture) for architecture in ARCHITECTURES]


def _row(title: str, stem: str, settings: dict[str, Any]) -> Row:
    row: Row = {"what": title, "class": model_class(stem).__name__}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hf_model = tiny_model(stem, settings)
        hf_model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        for backend in ("hooked", "bridge") if HAS_HOOKED else ("bridge",):
            row[backend], row[f"{backend}_why"] = outcome(folder, hf_model, backend)
    return row


def model_class(stem: str) -> Any:
    """The class with the LM head: most are called ...ForCausalLM, GPT-2's ...LMHeadModel."""
    return getattr(transformers, f"{stem}ForCausalLM", None) or getattr(transformers, f"{stem}LMHeadModel")


def tiny_model(stem: str, settings: dict[str, Any]) -> PreTrainedModel:
    """Random weights, also where an architecture starts at constants."""
    torch.manual_seed(0)
    kind = model_class(stem)
    hf_model = kind(kind.config_class(**{**SHAPE, **settings})).eval()
    with torch.no_grad():
        for parameter in hf_model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return hf_model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the three control tokens."""
    vocabulary = {name: place for place, name in enumerate(["<pad>", "<bos>", "<eos>"])}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<pad>"
    )


def outcome(folder: str, hf_model: PreTrainedModel, backend: Any) -> tuple[str, str]:
    """ "exact", "refused" with the reason, or "WRONG" with the distance or the foreign error."""
    try:
        model = cl.load_model(folder, backend=backend, dtype=torch.float32, device="cpu")
    except cl.ModelLoadError as error:
        return "refused", " ".join(
            str(error).replace(folder, "the folder").replace(Path(folder).name, title_of(hf_model)).split()
        )
    except Exception as error:  # an error that is not ours is a fault of ours
        return "WRONG", f"{type(error).__name__}: {error}"
    distance = _distance(model, hf_model)
    return ("exact", f"{distance:.0e}") if distance < 1e-3 else ("WRONG", f"logits off by {distance:.2g}")


def title_of(hf_model: PreTrainedModel) -> str:
    """What messages call a model that has no name of its own."""
    return f"this {type(hf_model).__name__}"


def _distance(model: Any, hf_model: PreTrainedModel) -> float:
    """The largest difference of logits between two rows in one left-padded batch and each row by itself."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 250, (length,), generator=generator) for length in (40, 23)]
    tokens = torch.stack([rows[0], torch.cat([torch.zeros(17, dtype=torch.long), rows[1]])])
    mask = torch.ones_like(tokens)
    mask[1, :17] = 0
    with torch.no_grad():
        ours = model(tokens, attention_mask=mask)
        apart = [hf_model(input_ids=row[None]).logits[0] for row in rows]
    return max(float((ours[place, -len(right) :] - right).abs().max()) for place, right in enumerate(apart))


def draw(rows: Sequence[Row], out: Path) -> None:
    """The table as Markdown, for the README."""
    lines = ["| architecture | hooked | bridge |", "|---|---|---|"]
    lines += [f"| {row['what']} | {_cell(row, 'hooked')} | {_cell(row, 'bridge')} |" for row in rows]
    (out / "coverage.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(row: Row, backend: str) -> str:
    verdict = row.get(backend, "not offered")
    return verdict if verdict != "refused" else f"refused: {_short(row[f'{backend}_why'])}"


# What a refusal says, and the same in a few words.
REASONS = (
    ("mixture of", "no hook point within an expert"),
    ("does not compute", "TransformerLens computes it otherwise than Transformers"),
    ("no HookedTransformer conversion", "TransformerLens has no conversion"),
    ("does not fit it", "TransformerLens's conversion leaves tensors out"),
    ("do not fit the model", "TransformerLens's conversion leaves tensors out"),
    ("Could not determine", "TransformerLens does not know it"),
    ("cannot bridge", "TransformerLens does not know it"),
)


def _short(why: str) -> str:
    """The reason in a few words; one that no other has is given whole."""
    return next((words for mark, words in REASONS if mark in why), why.replace("|", "/"))
