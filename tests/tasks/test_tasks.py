"""Tasks: their examples, the prompts that the real tokenizers make of them, and how an answer is scored."""

import json
import math
from collections import Counter

import pytest
import torch
from tiny import shared_data
from transformers import AutoTokenizer

from clas_lens.models.decoding import make_decoder
from clas_lens.tasks.base import Task, TaskError
from clas_lens.tasks.prompts import EncodedPrompt
from clas_lens.tasks.xnli import XNLI, near_ties
from clas_lens.tasks.xquad import XQuAD


def as_model(name, n_ctx=2048):
    """A model of one small layer with a real tokenizer: enough to make prompts."""
    pytest.importorskip("transformer_lens.HookedTransformer", reason="TransformerLens 4 has no HookedTransformer")
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    shape = {"n_layers": 1, "d_model": 8, "d_head": 4, "d_vocab": 32, "act_fn": "silu", "n_ctx": n_ctx}
    model = HookedTransformer(HookedTransformerConfig(**shape, device="cpu", model_name=name))
    model.tokenizer = AutoTokenizer.from_pretrained(shared_data("tokenizers", name))
    return model


@pytest.mark.parametrize("task", [XNLI("bundled", ("en", "sw")), XQuAD("bundled", ("en", "sw"), part="tuning")])
def test_bundled_tasks(task):
    assert isinstance(task, Task)
    assert [e.id for e in task.examples("en")] == [e.id for e in task.examples("sw")]
    assert len(task) == len(task.example_keys()) == len(task.examples("sw"))
    assert set(task.example_keys()) <= set(task.units)
    with pytest.raises(TaskError, match=f"{task.name}: no language 'de'; available: en, sw"):
        task.examples("de")


def test_xnli_of_the_real_files():
    folder = str(shared_data("data", "xnli"))
    task = XNLI(folder, ("en", "sw"), split="test")
    assert len(task) == 5010
    assert Counter(example.gold for example in task.examples("sw")) == {0: 1670, 1: 1670, 2: 1670}
    groups = Counter(example.group for example in task.examples("en"))
    assert set(groups.values()) == {3}, "three hypotheses a premise"
    urdu = XNLI(folder, ("ur",), split="test")
    assert [e.group for e in urdu.examples("ur")] == [e.group for e in task.examples("en")]
    sample = XNLI(folder, ("en", "sw"), split="test", limit=20, seed=3)
    assert [e.id for e in sample.examples("en")] == [e.id for e in sample.examples("sw")]
    assert sample.example_keys() < task.example_keys()
    assert len(sample) == 20
    with pytest.raises(TaskError, match="xnli: asked for 9999 examples of 2490"):
        XNLI(folder, ("en",), limit=9999)


@pytest.mark.parametrize("name", ["llama-3.1", "qwen-2.5"])
@pytest.mark.parametrize("instruction", ["native", "en"])
def test_xnli_prompts_end_right_after_the_assistant_header(name, instruction):
    model = as_model(name)
    task = XNLI("bundled", limit=3, instruction=instruction)
    header = {"llama-3.1": "<|start_header_id|>assistant<|end_header_id|>\n\n", "qwen-2.5": "<|im_start|>assistant\n"}
    for language in task.languages:
        for prompt in task.prompts(model, language):
            assert model.tokenizer.decode(prompt.ids).endswith(header[name])
            assert Counter(prompt.ids)[model.tokenizer.bos_token_id] <= 1
    assert task.columns(model) is None
    assert XNLI("bundled", ("en",), label_mass=False).columns(model) == (15, 16, 17)


@pytest.mark.parametrize(
    ("task", "field", "value"), [(XNLI("bundled"), "split", "Validation"), (XQuAD("bundled"), "part", "train")]
)
def test_unknown_parts(task, field, value):
    object.__setattr__(
        task, field, value
    )  # as given to the class, where the tests' runtime type checks refuse it first
    with pytest.raises(TaskError, match=f"{value!r}.* available: "):
        task.__post_init__()


def test_a_premise_is_never_cut():
    model = as_model("llama-3.1")
    with pytest.raises(
        TaskError, match=r"xnli: example .* in 'hi' has \d+ tokens, more than 64; a premise cannot be cut"
    ):
        XNLI("bundled", ("hi",), max_tokens=64).prompts(model, "hi")
    with pytest.raises(TaskError, match="max_tokens=4096 and 0 new tokens do not fit .* give at most 2048"):
        XNLI("bundled", ("hi",), max_tokens=4096).prompts(model, "hi")


def test_xnli_answers_by_hand():
    task = XNLI("bundled", ("en",))
    model = as_model("llama-3.1")
    logits = torch.full((2, 20), -torch.inf)
    logits[0, 15:18] = torch.tensor([1.0, 3.0, 2.0]).log()
    logits[0, 3] = math.log(6.0)  # as much as the three digits together
    logits[1, 15:18] = 0.0  # a tie: the smaller digit wins
    first, second = task.answer(model, (make_decoder(model, 2), logits))
    prompt = EncodedPrompt((1, 2, 3), False, 0)
    example = task.examples("en")[1]
    row = task.row("en", example, prompt, first)
    assert (row["gold"], row["prediction"], row["correct"]) == (1, 1, True)
    assert row["p_neutral"] == pytest.approx(0.5)
    assert row["p_entailment"] == pytest.approx(1 / 6)
    assert row["label_mass"] == pytest.approx(0.5)
    assert row["n_prompt_tokens"] == 3
    assert not row["near_tie"]
    tied = task.row("en", example, prompt, second)
    assert (tied["prediction"], tied["near_tie"]) == (0, True)
    bare = XNLI("bundled", ("en",), label_mass=False)
    (answer,) = bare.answer(model, (make_decoder(model, 1), torch.tensor([[1.0, 3.0, 2.0]]).log()))
    assert bare.row("en", example, prompt, answer)["p_neutral"] == pytest.approx(0.5)
    assert math.isnan(bare.row("en", example, prompt, answer)["label_mass"])


def test_near_ties_are_within_one_step_of_the_dtype():
    """Between 16 and 32 bfloat16 has steps of 1/8; a third label does not matter; the step is that of the larger logit."""
    logits = torch.tensor([[20.0, 20.125, -9.0], [20.0, 20.25, 20.0], [15.9375, 16.0, 0.0], [-20.125, -20.0, -30.0]])
    assert near_ties(logits, torch.bfloat16).tolist() == [True, False, True, True]
    assert near_ties(logits.bfloat16(), torch.bfloat16).tolist() == [True, False, True, True]
    assert near_ties(logits, torch.float32).tolist() == [False] * 4
    assert near_ties(torch.tensor([[1.0, 1.0, -torch.inf]]), torch.float16).tolist() == [True]


def test_xquad_golds_lie_where_they_say_in_every_language():
    """hi and ar contexts are not NFC, so this fails after any normalisation."""
    task = XQuAD(str(shared_data("data", "xquad")))
    assert len(task.languages) == 12
    assert len(task) == 1190
    for language in task.languages:
        for example in task.examples(language):
            start = example.fields["answer_start"]
            assert example.fields["context"][start : start + len(example.gold)] == example.gold
    assert len({example.group for example in task.examples("hi")}) == 240


def test_lost_golds_are_counted():
    """At the paper's 512 tokens Qwen loses much of el and hi, and nothing of en."""
    folder = str(shared_data("data", "xquad"))
    model = as_model("qwen-2.5")
    lost = {}
    for language in ("el", "en"):
        task = XQuAD(folder, (language,), limit=60, max_tokens=512)
        rows = [
            task.row(language, example, prompt, ("", 0, True))
            for example, prompt in zip(task.examples(language), task.prompts(model, language), strict=True)
        ]
        lost[language] = sum(row["gold_lost"] for row in rows)
        assert all(row["truncated"] or not row["gold_lost"] for row in rows)
        assert all(row["n_prompt_tokens"] <= 512 for row in rows)
    assert lost["en"] == 0
    assert lost["el"] > 15


def test_xquad_rows_by_hand():
    task = XQuAD("bundled", ("en",))
    example = task.examples("en")[0]
    end = example.fields["answer_start"] + len(example.gold)
    row = task.row("en", example, EncodedPrompt((1,) * 9, True, end), (f"the {example.gold}.", 7, True))
    assert (row["f1"], row["em"], row["f1_segmented"]) == (1.0, 1.0, 1.0)
    assert (row["n_new_tokens"], row["stopped"], row["truncated"], row["gold_lost"]) == (7, True, True, False)
    assert task.row("en", example, EncodedPrompt((1,), True, end - 1), ("", 1, False))["gold_lost"]


def test_the_first_line_is_scored_beside_the_whole_answer():
    task = XQuAD("bundled", ("en",))
    example = task.examples("en")[0]
    row = task.row("en", example, EncodedPrompt((1,), False, 9999), (f"\n{example.gold}\nand more words here", 7, True))
    assert row["f1_first_line"] == 1.0
    assert 0 < row["f1"] < 1


def test_settings_tell_the_tokens_around_a_prompt_and_the_data():
    model = as_model("llama-3.1")
    task = XNLI("bundled", ("en",), chat_template_kwargs={"date_string": "1 May 2025"})
    settings = task.settings(model)
    assert settings["bos"] == ["<|begin_of_text|>"]
    assert settings["chat_template_kwargs"]["date_string"] == "1 May 2025"
    assert settings["chat_template_kwargs"]["enable_thinking"] is False
    assert (settings["data"], settings["dropped"], settings["on_bad"]) == ("bundled", 0, "raise")
    json.dumps(settings)
    assert "chat_template_kwargs" not in XQuAD("bundled", ("en",), style="plain").settings(model)
    hash(task)
