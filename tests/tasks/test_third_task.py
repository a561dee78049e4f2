"""A task of one's own, defined here alone, through everything that evaluates, compares, tabulates and draws."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

import clas_lens as cl
from analysis import alpha_curve
from analysis.tables import decision_table, decision_view, results_view
from clas_lens.corpus.bundled import bundled_items
from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.significance.comparisons import compare_all
from clas_lens.tasks.base import Example, Task
from clas_lens.tasks.parallel import ParallelTask
from clas_lens.tasks.prompts import encode_prompt

LABELS = ("no", "yes")


@dataclass(frozen=True)
class Paraphrase(ParallelTask):
    """Do two sentences say the same? Two labels, as in PAWS-X."""

    source: str = "bundled"
    languages: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = 0
    dataset: str = field(init=False, repr=False)
    chosen: dict = field(init=False, repr=False, compare=False)
    units: dict = field(init=False, repr=False, compare=False)

    name: ClassVar[str] = "pawsx"
    title: ClassVar[str] = "PAWS-X"
    metric: ClassVar[str] = "right"
    metric_title: ClassVar[str] = "share of right answers"
    row_columns: ClassVar = ("id", "group", "gold", "prediction", "right", "p_no", "p_yes")
    version: ClassVar[int] = 1
    paper_alphas: ClassVar = (-1.0, 1.0)
    new_tokens: ClassVar[int] = 0
    generates: ClassVar[bool] = False

    def __post_init__(self):
        loaded = {
            code: [
                Example(
                    f"{item.id}/{other}", item.id, item.id, int(other == "entailment"), {"other": getattr(item, other)}
                )
                for item in bundled_items(code)
                for other in ("entailment", "contradiction")
            ]
            for code in self.languages
        }
        rows = loaded[self.languages[0]]
        texts = [(item.passage, item.id) for item in bundled_items("en")]
        self._hold(loaded, range(len(rows)), texts, data="bundled")

    def settings(self, model):
        return {"task": self.name, "prompt": "pawsx-v1"}

    def prompts(self, model, language):
        tokenizer = require_tokenizer(model)
        texts = [example.fields["other"] for example in self.examples(language)]
        return [encode_prompt(tokenizer, f"{text}\n", style="plain") for text in texts]

    def columns(self, model):
        return (15, 16)

    def answer(self, model, answering):
        return answering[1].double().softmax(-1).tolist()

    def row(self, language, example, prompt, answer):
        prediction = int(answer[1] > answer[0])
        return {
            "id": example.id,
            "group": example.group,
            "gold": example.gold,
            "prediction": prediction,
            "right": prediction == example.gold,
            **{f"p_{label}": share for label, share in zip(LABELS, answer, strict=True)},
        }


def test_a_third_task(llama, small_cats, tmp_path):
    task = Paraphrase(languages=("en", "de", "zh"), limit=12)
    assert isinstance(task, Task)
    clas = cl.Clas(small_cats, layers=(2,), alpha=-4.0)
    options = {"out": tmp_path, "allow_overlap": True, "progress": False}
    found = cl.search_alpha(llama, task, clas, **options)
    assert set(found.table["alpha"]) == {-1.0, 1.0}
    figure = alpha_curve(found.table)
    assert figure.layout.yaxis.title.text == "share of right answers (%)"
    rows = cl.evaluate(llama, task, {"base": None, "clas": clas}, **options)
    (comparison,) = compare_all(rows, "en")
    assert (comparison.title, comparison.metric) == ("PAWS-X", "right")
    card = cl.RowsCard(rows)
    assert card.scores["base"] == pytest.approx(100 * rows[rows["intervention"] == "base"]["right"].mean())
    assert "PAWS-X" in card._repr_html_()
    shown = results_view([comparison])._repr_html_()
    assert "PAWS-X: share of right answers in percent" in shown
    table = decision_table(rows)
    assert {"accuracy", "macro_f1", "predicted_no", "predicted_yes"} <= set(table)
    assert (table["predicted_no"] + table["predicted_yes"]).to_numpy() == pytest.approx(100)
    assert "PAWS-X: how the model decides" in decision_view(rows)._repr_html_()
