"""Greedy decoding, side by side in one process: Hugging Face, HookedTransformer in the stock layout, and ours.

    python benchmarks/decoding.py [--model gemma-3-270m | wide-llama] [--new-tokens 16] [--rounds 5] [--out FILE.json]

`wide-llama` is a random bfloat16 stack of Llama 3.1 8B's width, 3 layers deep. Every contender decodes the same prompt with
a KV cache and the same number of new tokens, from the same weights; rounds are interleaved and the fastest of each counts.
Ratios are to Hugging Face: above 1 is faster.
"""

import argparse
import copy
import json
import platform
import time
import warnings
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from clas_lens.checkpoints import find_checkpoint
from clas_lens.generation import make_decoder
from clas_lens.models import load_model
from clas_lens.sites import LensModel

WIDE_LLAMA = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=3,
    num_attention_heads=32,
    num_key_value_heads=8,
)
PROMPT_LENGTH = 64


def hugging_face_model(name: str) -> PreTrainedModel:
    """The plain model: random at full width, or a checkpoint in float32."""
    if name == "wide-llama":
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(WIDE_LLAMA, dtype=torch.bfloat16).eval()
    return AutoModelForCausalLM.from_pretrained(find_checkpoint(name).folder, dtype=torch.float32).eval()


def stock_layout(model: LensModel) -> LensModel:
    """A copy in the layout that `HookedTransformer.from_pretrained` leaves."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return model


def own_generate(model: LensModel, tokens: torch.Tensor, new: int) -> None:
    """The model's own generate; Hugging Face's and TransformerLens's differ in their options."""
    if isinstance(model, PreTrainedModel):
        model.generate(
            tokens, attention_mask=torch.ones_like(tokens), min_new_tokens=new, max_new_tokens=new, do_sample=False
        )
    else:
        decoder = make_decoder(model, len(tokens))
        mask = torch.ones_like(tokens)
        for _ in range(new):
            tokens = decoder.step(tokens, mask).argmax(-1)[:, None]
            mask = torch.ones_like(tokens)


def main() -> None:
    """Measure, print and optionally write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    hf_model = hugging_face_model(options.model)
    ours = load_model(hf_model)
    contenders = {"Hugging Face": hf_model, "HookedTransformer, stock layout": stock_layout(ours), "clas_lens": ours}
    tokens = torch.arange(100, 100 + PROMPT_LENGTH)[None]
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(options.rounds):
        for name, model in contenders.items():
            start = time.perf_counter()
            with torch.inference_mode():
                own_generate(model, tokens, options.new_tokens)
            best[name] = min(best[name], time.perf_counter() - start)
    rows = [
        {
            "what": name,
            "tokens_per_s": round(options.new_tokens / seconds, 2),
            "ratio": round(best["Hugging Face"] / seconds, 2),
        }
        for name, seconds in best.items()
    ]
    for row in rows:
        print(f"{row['what']:34s} {row['tokens_per_s']:8.2f} tokens/s   {row['ratio']:5.2f} x Hugging Face")
    if options.out is not None:
        facts = {
            "model": options.model,
            "prompt_tokens": PROMPT_LENGTH,
            "new_tokens": options.new_tokens,
            "dtype": str(ours.cfg.dtype),
            "torch": torch.__version__,
            "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
            "rows": rows,
        }
        options.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
