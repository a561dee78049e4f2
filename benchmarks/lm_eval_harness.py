"""XNLI by lm-eval with an exported adapter (`peft=`) against `cl.evaluate`: `python -m benchmarks.lm_eval_harness`.

Gemma 3 270M in float32, the same German prompts, written to a local task file. Needs lm_eval and peft: `pip install lm_eval`.
"""

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import clas_lens as cl
from benchmarks.measure import Row, print_table, write_results
from clas_lens.models.checkpoints import find_checkpoint
from clas_lens.models.sites import LensModel

MODEL, LANGUAGE, NAME = "gemma-3-270m", "de", "clas_xnli_de"
DATA = Path(__file__).parents[2] / "shared" / "data" / "xnli"
TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: ["0", "1", "2"]
doc_to_target: label
target_delimiter: ""
metric_list:
  - metric: acc
"""


def write_task(folder: Path, model: LensModel, task: cl.tasks.XNLI) -> None:
    """A task file and its examples: the prompts as text, without BOS, which lm-eval adds."""
    tokenizer, lines = model.tokenizer, []
    for example, prompt in zip(task.examples(LANGUAGE), task.prompts(model, LANGUAGE), strict=True):
        text = tokenizer.decode(prompt.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if tokenizer(text)["input_ids"] != list(prompt.ids):
            raise ValueError(f"{example.id}: its prompt is not the same tokens as text")
        lines.append(json.dumps({"prompt": text, "label": example.gold}))
    data = folder / "examples.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / f"{NAME}.yaml").write_text(TASK.format(name=NAME, data=data), encoding="utf-8")


def by_lm_eval(folder: Path, base: Path, peft: Path | None) -> list[int]:
    """lm-eval's predictions: the most probable of the three digits."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    arguments: dict[str, Any] = {"pretrained": str(base), "dtype": "float32", "add_bos_token": True}
    if peft is not None:
        arguments["peft"] = str(peft)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(
        "hf", arguments, tasks=[NAME], task_manager=manager, device="cpu", batch_size=4, bootstrap_iters=0
    )
    samples = sorted(found["samples"][NAME], key=lambda sample: sample["doc_id"])
    return [max(range(3), key=lambda digit: sample["filtered_resps"][digit][0]) for sample in samples]


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lm_eval_harness", description=__doc__)
    parser.add_argument("--examples", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    model = cl.load_model(MODEL)
    corpus = cl.ParallelCorpus.bundled(["en", "de", "zh", "sw"]).take(range(24))
    cats = cl.categorize(cl.collect_statistics(model, corpus))
    clas = cl.Clas(cats, layers=cl.select_bridge_layers(cats), alpha=-2.0)
    task = cl.tasks.XNLI(str(DATA), (LANGUAGE,), split="test", limit=options.examples)
    gold = [example.gold for example in task.examples(LANGUAGE)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_task(folder, model, task)
        out = cl.export.adapter(clas, languages=[LANGUAGE], source=MODEL, out=folder / "adapters")
        for what, intervention, peft in (("unsteered", None, None), ("steered", clas, out / LANGUAGE)):
            found = cl.evaluate(model, task, intervention=intervention).set_index("id")["prediction"]
            ours: list[int] = [found.loc[example.id] for example in task.examples(LANGUAGE)]
            theirs = by_lm_eval(folder, find_checkpoint(MODEL).folder, peft)
            rows.append(
                {
                    "what": what,
                    "examples": len(gold),
                    "cl.evaluate_right": sum(one == label for one, label in zip(ours, gold, strict=True)),
                    "lm_eval_right": sum(one == label for one, label in zip(theirs, gold, strict=True)),
                    "same_predictions": sum(one == other for one, other in zip(ours, theirs, strict=True)),
                }
            )
    print_table(rows)
    settings = {"model": MODEL, "language": LANGUAGE, "lm_eval": version("lm_eval"), "peft": version("peft")}
    write_results(options.out / "lm_eval.json", "lm_eval", {**settings, "clas": clas.settings()}, rows)


if __name__ == "__main__":
    main()
