"""One row an example: batched equals single, several interventions equal each by itself, chunks survive."""

import pickle
from dataclasses import replace
from functools import partial
from importlib import import_module

import pandas as pd
import pytest
import torch
from tiny import BACKEND

import clas_lens as cl
from clas_lens.evaluation.answers import _Watched, answer_item
from clas_lens.evaluation.leakage import LeakageError
from clas_lens.evaluation.plan import (
    EvaluationError,
    check_named,
    check_task,
    check_task_languages,
    plan_evaluation,
)
from clas_lens.evaluation.rows import evaluate
from clas_lens.evaluation.store import RowStore
from clas_lens.models.sites import hooked
from clas_lens.provenance import provenance
from clas_lens.tasks.xnli import XNLI
from clas_lens.tasks.xquad import XQuAD

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def xnli():
    return XNLI("bundled", ("en", "de"), limit=5, instruction="en", style="plain")


@pytest.fixture(scope="module")
def xquad():
    return XQuAD("bundled", ("en", "de"), part="test", limit=4, style="plain", max_tokens=160, max_new_tokens=6)


@pytest.fixture
def clas(small_cats):
    return cl.Clas(small_cats, layers=(2, 3), alpha=-4.0)


def close(found, expected):
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", ["xnli", "xquad"])
def test_batched_equals_single(each_model, small_cats, request, task):
    task = request.getfixturevalue(task)
    stats = cl.collect_statistics(each_model, cl.ParallelCorpus.bundled(["en", "de"]).take(range(3)), **QUIET)
    clas = cl.Clas(cl.categorize(stats), layers=(2,), alpha=3.0)
    settings = {"base": None, "clas": clas}
    batched = evaluate(each_model, task, settings, batch_size=4, **QUIET)
    single = pd.concat(
        [evaluate(each_model, task, {name: one}, batch_size=1, languages=[code], **QUIET)
         for code in task.languages for name, one in settings.items()],
        ignore_index=True,
    )  # fmt: skip
    close(batched, single)
    assert list(batched.columns[:5]) == ["task", "language", "intervention", "id", "group"]
    assert len(batched) == 2 * 2 * len(task)
    assert not batched["overlap"].any()


def test_english_is_bit_identical_and_german_is_not(model, xnli, clas):
    rows = evaluate(model, xnli, {"base": None, "clas": clas}, **QUIET)
    scores = ["p_entailment", "p_neutral", "p_contradiction", "label_mass"]
    by = {key: table[scores].reset_index(drop=True) for key, table in rows.groupby(["language", "intervention"])}
    pd.testing.assert_frame_equal(by["en", "base"], by["en", "clas"], check_exact=True)
    assert not by["de", "base"].equals(by["de", "clas"])


def test_probabilities_against_the_plain_hugging_face_model(lens_models, hf_models, xnli):
    rows = evaluate(lens_models["qwen2", BACKEND], xnli, batch_size=3, **QUIET)
    hf, tokenizer = hf_models["qwen2"], lens_models["qwen2", BACKEND].tokenizer
    digits = [tokenizer(digit, add_special_tokens=False)["input_ids"][0] for digit in "012"]
    prompts = xnli.prompts(lens_models["qwen2", BACKEND], "de")
    found = rows[rows["language"] == "de"].reset_index(drop=True)
    for place, prompt in enumerate(prompts):
        with torch.no_grad():
            whole = hf(torch.tensor([prompt.ids])).logits[0, -1].softmax(-1)
        three = whole[digits] / whole[digits].sum()
        columns = ["p_entailment", "p_neutral", "p_contradiction"]
        torch.testing.assert_close(torch.tensor(found.loc[place, columns].tolist()), three, rtol=1e-3, atol=1e-5)
        assert found.loc[place, "label_mass"] == pytest.approx(float(whole[digits].sum()), rel=1e-3)
        assert found.loc[place, "prediction"] == int(three.argmax())


def test_only_the_missing_chunks_are_run(llama, xnli, clas, tmp_path, monkeypatch):
    settings = {"base": None, "clas": clas}
    expected = evaluate(llama, xnli, settings, **QUIET)
    save, ran = RowStore.save, []
    stop_at = [3]

    def counting(self, plan, item, name, table, **told):
        if item.number is not None:
            if len(ran) == stop_at[0]:
                raise KeyboardInterrupt
            ran.append((item.language, item.number, name))
        save(self, plan, item, name, table, **told)

    monkeypatch.setattr(RowStore, "save", counting)
    options = {"chunk_size": 2, "out": tmp_path, **QUIET}
    with pytest.raises(KeyboardInterrupt):
        evaluate(llama, xnli, settings, **options)
    assert len(list(tmp_path.rglob("*.parts/*.parquet"))) == 3
    stop_at[0] = None
    close(evaluate(llama, xnli, settings, **options), expected)
    assert len(ran) == len(set(ran)) == 2 * 3 * 2, "every chunk once"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        f"xnli/{code}/{name}.parquet" for code in ("de", "en") for name in ("base", "clas")
    ]
    left = (
        tmp_path / "xnli" / "de" / "clas.parts"
    )  # by a run that was killed between keeping the rows and deleting these
    left.mkdir()
    (left / "00000.parquet").write_bytes(b"")
    close(evaluate(llama, xnli, settings, **options), expected)
    assert len(ran) == 12, "nothing is run again"
    assert not left.exists()
    evaluate(llama, xnli, {"clas": replace(clas, alpha=1.0)}, **options)
    assert len(ran) == 18, "another strength is run again"


def test_an_overlap_raises_unless_it_is_asked_for(llama, xnli, clas):
    with pytest.raises(
        LeakageError, match="5 of the 5 xnli examples to report on share .* 'clas' was measured or tuned"
    ):
        evaluate(llama, xnli, {"clas": replace(clas, tuned_on=xnli.example_keys())}, **QUIET)
    one = sorted(xnli.example_keys())[0]
    rows = evaluate(
        llama, xnli, {"base": None, "clas": replace(clas, tuned_on=frozenset([one]))}, allow_overlap=True, **QUIET
    )
    marked = rows[rows["overlap"]]
    assert set(marked["intervention"]) == {"clas"}
    assert set(marked["language"]) == {"en", "de"}
    assert {xnli.units[f"bundled/{name}"] for name in marked["id"]} == {xnli.units[one]}


def test_statistics_on_the_reported_passages_are_an_overlap_too(llama, xnli):
    passage = xnli.examples("en")[0].unit
    texts = cl.ParallelCorpus.bundled(["en", "de"])
    own = texts.take([row for row, name in enumerate(texts.ids) if name.startswith(f"{passage}/")])
    clas = cl.Clas(cl.categorize(cl.collect_statistics(llama, own, **QUIET)), layers=(2,))
    with pytest.raises(LeakageError, match=f"such as 'bundled/{passage}"):
        evaluate(llama, xnli, clas, **QUIET)


def test_changed_golds_are_scored_again(llama, xnli, tmp_path):
    evaluate(llama, xnli, out=tmp_path, **QUIET)
    changed = XNLI("bundled", ("en", "de"), limit=5, instruction="en", style="plain")
    flipped = {code: tuple(replace(e, gold=2 - e.gold) for e in of) for code, of in changed.chosen.items()}
    object.__setattr__(changed, "chosen", flipped)
    rows = evaluate(llama, changed, out=tmp_path, **QUIET)
    assert rows["gold"].tolist() == [e.gold for code in ("en", "de") for e in flipped[code]]


def test_rows_are_of_the_named_interventions_alone(model, xnli, clas, tmp_path):
    with cl.steer(model, cl.Clas(clas.categories, layers=(2,)), "de", must_fire=False):
        with pytest.raises(EvaluationError, match="steered already"):
            evaluate(model, xnli, **QUIET)
    with hooked(model, [("blocks.1.hook_resid_post", lambda x, hook: x)]):
        with pytest.raises(EvaluationError, match="hooks of yours .at 'blocks.1.*without out="):
            evaluate(model, xnli, out=tmp_path, **QUIET)
        evaluate(model, xnli, languages=["en"], **QUIET)


def test_a_language_that_an_intervention_cannot_serve_is_refused_at_once(llama, xquad, small_cats):
    clas = cl.Clas(small_cats, layers=(2,), specific="current")
    other = XNLI("bundled", ("en", "sw"), limit=2, instruction="en", style="plain")
    with pytest.raises(ValueError, match="no language-specific neurons for 'sw'"):
        evaluate(llama, other, clas, **QUIET)


def test_steering_generated_tokens_only(llama, xquad, xnli, small_cats):
    clas = cl.Clas(small_cats, layers=(2,), alpha=5.0, positions="generated")
    with pytest.raises(EvaluationError, match="'clas' steers generated tokens only, and xnli generates none"):
        evaluate(llama, xnli, clas, **QUIET)
    options = {"languages": ["de"], "allow_overlap": True, **QUIET}
    first = evaluate(llama, xquad, **options)
    steered = evaluate(llama, xquad, {"base": None, "clas": clas}, **options)
    close(steered[steered["intervention"] == "base"].reset_index(drop=True), first)
    with pytest.MonkeyPatch.context() as patch:  # every row of every batch ends at its first token
        patch.setattr(import_module("clas_lens.steering.generate"), "end_token_ids", lambda model: set(range(600)))
        rows = evaluate(llama, xquad, clas, **options)
    assert (rows["n_new_tokens"] == 1).all()


def test_names(llama, xnli, clas):
    assert set(evaluate(llama, xnli, languages=["en"], **QUIET)["intervention"]) == {"base"}
    tuned = replace(clas, tuned_on=frozenset({"xnli/elsewhere"}))
    assert set(evaluate(llama, xnli, tuned, languages=["en"], **QUIET)["intervention"]) == {"clas"}


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {}, "no interventions given"),
        ({"../x": None}, {}, "'../x' cannot be a file name"),
        (None, {"languages": ["sw"]}, "xnli: no language 'sw'; available: en, de"),
        (None, {"languages": []}, "xnli: no languages given; available: en, de"),
        (None, {"languages": ["en", "de", "en"]}, "'en' is asked for more than once in en, de, en"),
        (None, {"chunk_size": 0}, "chunk_size must be a whole number, at least 1; got 0"),
        (None, {"batch_size": 0}, "batch_size must be a whole number, at least 1; got 0"),
    ],
)
def test_errors(llama, xnli, settings, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(llama, xnli, settings, **options, **QUIET)


# Called with what the tests' runtime type checks would refuse before the functions see it.
@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (check_task, None, r"evaluate answers a task, such as cl.tasks.XNLI.*; got None"),
        (check_task, XNLI, r"XNLI is a class: make a task of it, XNLI\(...\)"),
        (check_task, cl.ParallelCorpus.bundled(["en"]), "got a ParallelCorpus"),
        (partial(check_named, "x"), cl.Clas, "'x': Clas is a class"),
        (partial(check_named, "x"), -2.0, "'x' is no intervention but a float"),
        (partial(check_named, 3), None, "'3' cannot be a file name"),
    ],
)
def test_what_is_no_task_and_no_intervention_is_told(check, value, message):
    with pytest.raises(EvaluationError, match=message):
        check(value)


def test_a_string_of_languages_is_no_list(xnli):
    with pytest.raises(EvaluationError, match=r"got the string 'en': give \['en'\]"):
        check_task_languages(xnli, "en")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["xnli", "xquad"])
def test_logits_that_are_no_numbers_are_refused_where_they_arise(folders, request, name, value):
    """In lm_head alone, where no activation shows it."""
    broken = cl.load_model(folders["llama"], device="cpu")
    task = request.getfixturevalue(name)
    with torch.no_grad():
        broken.W_U[:, 7] = value
    example = "example '[^']*' are (NaN|infinite), so that no answer means anything"
    with pytest.raises(EvaluationError, match=f"{name} in 'de' under 'base': the logits of {example}"):
        evaluate(broken, task, languages=["de"], **QUIET)


def test_logits_of_the_second_token_are_watched_too(llama, xquad):
    """The decoder that a task gets names the right example after rows were dropped."""
    plan = plan_evaluation(llama, xquad, {"base": None}, languages=["de"])
    item = plan.item(llama, "de")

    class Broken:
        def step(self, tokens, mask, columns=None):
            return torch.tensor([[0.0, 1.0], [0.0, float("nan")]])

        def keep(self, rows): ...

        def cached(self, layers): ...

        def adopt(self, cached, layers): ...

    watched = _Watched(Broken(), [example.id for example in item.examples], "here")
    watched.keep(torch.tensor([0, 2]))
    with pytest.raises(EvaluationError, match=f"here: the logits of example '{item.examples[2].id}' are NaN"):
        watched.step(torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.long))


def test_an_item_of_work_is_small_and_says_everything(llama, xnli, clas):
    """Another process that has the model and the plan answers it alike."""
    plan = plan_evaluation(llama, xnli, {"base": None, "clas": clas})
    item = next(plan.item(llama, "de").chunks(2))
    assert (item.language, item.number, item.names) == ("de", 0, ("base", "clas"))
    sent = pickle.dumps(item)
    assert len(sent) < 20_000
    here, there = (answer_item(llama, one, lambda answers: None, plan=plan) for one in (item, pickle.loads(sent)))
    for name in item.names:
        pd.testing.assert_frame_equal(here.tables[name], there.tables[name])
    assert here.answers == {"base": 2, "clas": 2}
    assert 2 < here.passes == there.passes < 4, "the lower layers are shared"


def test_a_mended_score_is_not_served_from_old_files(llama, xnli, tmp_path, monkeypatch):
    evaluate(llama, xnli, languages=["de"], out=tmp_path, **QUIET)
    row = XNLI.row
    monkeypatch.setattr(XNLI, "row", lambda *args: row(*args) | {"correct": True})
    old = evaluate(llama, xnli, languages=["de"], out=tmp_path, **QUIET)
    monkeypatch.setattr(XNLI, "version", XNLI.version + 1)
    new = evaluate(llama, xnli, languages=["de"], out=tmp_path, **QUIET)
    assert new["correct"].all()
    assert not old["correct"].all()


def test_rows_say_with_which_versions_they_were_answered(llama, xnli, tmp_path, monkeypatch):
    """Also those of chunks that an earlier release has left, once they are part of a whole language."""
    options = {"languages": ["de"], "chunk_size": 2, "out": tmp_path, **QUIET}
    store = RowStore(tmp_path / "xnli")
    now = provenance()
    earlier = {**now, "versions": {**now["versions"], "torch": "1.0"}}
    monkeypatch.setattr("clas_lens.artifacts.provenance", lambda: earlier)
    with monkeypatch.context() as patch:
        patch.setattr("clas_lens.evaluation.rows.answer_item", fails_after_one())
        with pytest.raises(KeyboardInterrupt):
            cl.evaluate(llama, xnli, **options)
    assert [one["versions"]["torch"] for one in store.made("de", "base", 0)] == ["1.0"]
    monkeypatch.undo()
    cl.evaluate(llama, xnli, **options)
    assert [one["versions"]["torch"] for one in store.made("de", "base")] == ["1.0", now["versions"]["torch"]]
    assert store.made("zh", "base") == []


def fails_after_one():
    done = []

    def answer(*args, **options):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return answer_item(*args, **options)

    return answer


def test_rows_of_a_model_with_a_hook_of_pytorch_are_not_taken_for_its_own(llama, xnli, tmp_path):
    handle = llama.blocks[1].mlp.register_forward_hook(lambda mlp, inputs, output: -2 * output)
    try:
        changed = evaluate(llama, xnli, out=tmp_path, **QUIET)
    finally:
        handle.remove()
    own = evaluate(llama, xnli, out=tmp_path, **QUIET)
    close(own, evaluate(llama, xnli, **QUIET))
    assert not own["p_entailment"].equals(changed["p_entailment"])
