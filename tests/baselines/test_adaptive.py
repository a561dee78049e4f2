"""Strengths that adapt: each example against plain CLAS at its own strength, batch = single, held, and the null."""

import copy
from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny import assert_no_hooks, logits

import clas_lens as cl
from analysis.dashboards import SteeringBench
from clas_lens.evaluation.search import search_alpha
from clas_lens.steering.generate import prompt_ids
from clas_lens.tasks.xnli import XNLI
from clas_lens.tasks.xquad import XQuAD

QUIET = {"progress": False}
PROMPTS = ("Wo liegt der Eiffelturm?", "Der Fluss ist lang und breit und", "Katzen schlafen")


@pytest.fixture(scope="module")
def task():
    return XNLI("bundled", ("en", "de"), limit=3, instruction="en", style="plain")


@pytest.fixture(params=["margin", "distance"])
def adaptive(request, model, small_corpus):
    stats = cl.collect_statistics(model, small_corpus.take(range(3)), **QUIET)
    clas = cl.Clas(cl.categorize(stats), layers=(2, 3), alpha=-3.0)
    if request.param == "margin":
        return cl.Adaptive(clas)
    states = cl.collect_representations(model, small_corpus.take(range(3, 8)), [1], pool="last", **QUIET)
    return cl.Adaptive.by_distance(clas, states)


def expected_strength(model, adaptive, ids):
    """By hand, from a pass of its own."""
    tokens = torch.tensor([ids])
    if adaptive.by == "margin":
        first, second = logits(model, tokens)[0, -1].softmax(-1).sort(descending=True).values[:2].tolist()
        return 1 - (first - second)
    _, cache = model.run_with_cache(tokens, attention_mask=torch.ones_like(tokens))
    x = cache["blocks.1.hook_resid_post"][0, -1].double()
    centroids = dict(zip(adaptive.languages, adaptive.centroids.double(), strict=True))
    line = centroids["de"] - centroids["en"]
    return float(((x - centroids["en"]) @ line / (line @ line)).clamp(0, 2))


def test_at_attention_each_example_is_steered_there(model, small_corpus):
    stats = cl.collect_statistics(model, small_corpus.take(range(3)), site="attn", **QUIET)
    adaptive = cl.Adaptive(cl.Clas(cl.categorize(stats), layers=(2, 3), alpha=-3.0))
    (ids,) = prompt_ids(model, PROMPTS[:1])
    strength, tokens = expected_strength(model, adaptive, ids), torch.tensor([ids])
    with cl.steer(model, replace(adaptive.clas, alpha=-3.0 * strength), "de"):
        plain = logits(model, tokens)
    with cl.steer(model, adaptive, "de"):
        torch.testing.assert_close(logits(model, tokens), plain, atol=1e-4, rtol=1e-4)


def test_each_example_at_its_own_strength(model, adaptive):
    ids = [prompt_ids(model, [text])[0] for text in PROMPTS]
    found = adaptive.strengths(model, PROMPTS, "de", batch_size=3)
    assert len(set(found.tolist())) > 1
    for one, strength in zip(ids, found.tolist(), strict=True):
        assert strength == pytest.approx(expected_strength(model, adaptive, one), abs=1e-5)
        tokens = torch.tensor([one])
        with cl.steer(model, adaptive, "de") as steering:
            steered = logits(model, tokens)
            assert steering.strengths.tolist() == pytest.approx([strength], abs=1e-5)
        with cl.steer(model, replace(adaptive.clas, alpha=-3.0 * strength), "de"):
            torch.testing.assert_close(steered, logits(model, tokens), atol=1e-4, rtol=1e-4)
    assert_no_hooks(model)


def test_held_while_generating_batch_as_single(model, adaptive):
    together = cl.steering.generate_tokens
    with cl.steer(model, adaptive, ["de", "en", "de"]):
        batched = together(model, PROMPTS, max_new_tokens=6)
    found = adaptive.strengths(model, PROMPTS, "de")
    for place, prompt in enumerate(PROMPTS):
        language = ["de", "en", "de"][place]
        with cl.steer(model, replace(adaptive.clas, alpha=-3.0 * float(found[place])), language):
            assert batched[place] == together(model, [prompt], max_new_tokens=6)[0]
        tokens = torch.tensor([prompt_ids(model, [prompt])[0]])
        with cl.steer(model, adaptive, language):
            own = model.generate(tokens, max_new_tokens=6, do_sample=False, verbose=False, stop_at_eos=False)
        assert own[0, tokens.shape[1] :][: len(batched[place])].tolist() == batched[place]


def test_anchor_and_alpha_zero_are_bit_identical(model, adaptive, tokens):
    base = logits(model, tokens)
    with cl.steer(model, replace(adaptive, alpha=0.0), "de"):
        assert torch.equal(logits(model, tokens), base)
    with cl.steer(model, adaptive, ["en", "de"]):
        mixed = logits(model, tokens)
    assert torch.equal(mixed[0], base[0])
    assert not torch.equal(mixed[1], base[1])


def test_copies_are_not_steered_and_nothing_is_left(model, adaptive, tokens):
    base = logits(model, tokens)
    with cl.steer(model, adaptive, "de", must_fire=False):
        copied = copy.deepcopy(model)
        assert torch.equal(logits(copied, tokens), base)
        copied.load_state_dict({name: value * 1.01 for name, value in model.state_dict().items()})
        assert not torch.equal(logits(copied, tokens), base), "its own forward, not the original's"
    with pytest.raises(KeyboardInterrupt), cl.steer(model, adaptive, "de"):
        logits(model, tokens)
        raise KeyboardInterrupt
    inner = getattr(model, "original_model", model)
    assert "forward" not in vars(model)
    assert "forward" not in vars(inner)
    assert torch.equal(logits(model, tokens), base)


def test_other_positions(model, adaptive):
    generated = replace(adaptive, clas=replace(adaptive.clas, positions="generated"))
    found = float(adaptive.strengths(model, PROMPTS[:1], "de")[0])
    with cl.steer(model, generated, "de"):
        mine = cl.steering.generate_tokens(model, PROMPTS[:1], max_new_tokens=6)
    with cl.steer(model, replace(generated.clas, alpha=-3.0 * found), "de"):
        assert mine == cl.steering.generate_tokens(model, PROMPTS[:1], max_new_tokens=6)


def test_searched_evaluated_and_compared_like_all(model, adaptive, task, tmp_path):
    null = adaptive.shuffled(model, task, seed=1)
    methods = {"base": None, "clas": adaptive.clas, "mine": adaptive, "null": null}
    rows = cl.evaluate(model, task, methods, batch_size=5, allow_overlap=True, **QUIET)
    alone = cl.evaluate(model, task, {"mine": adaptive, "null": null}, batch_size=1, allow_overlap=True, **QUIET)
    columns = ["intervention", "language", "id"]
    scores, single = (table.set_index(columns)["p_neutral"] for table in (rows, alone))
    pd.testing.assert_series_equal(
        scores.loc[["mine", "null"]], single.loc[["mine", "null"]], rtol=1e-3, check_like=True
    )
    assert scores["mine"]["en"].equals(scores["base"]["en"])
    found = search_alpha(model, task, adaptive, [2.0], allow_overlap=True, **QUIET)
    assert found.intervention.by == adaptive.by
    assert found.intervention.alpha == 2.0
    prompts = [prompt.ids for prompt in task.prompts(model, "de")]
    own, dealt = (one.strengths(model, prompts, "de") for one in (adaptive, null))
    assert all(min(abs(one - other) for other in own) < 1e-4 for one in dealt)
    if adaptive.by == "margin":  # far from all texts, these prompts' distances are the largest there are, and equal
        torch.testing.assert_close(own.sort().values, dealt.sort().values)
        assert not torch.allclose(own, dealt)
    rescaled = cl.load_intervention(null.save_pretrained(tmp_path))
    assert rescaled.fingerprint() == null.fingerprint()


def test_answers_in_words(model, adaptive):
    task = XQuAD("bundled", ("en", "de"), limit=3, instruction="en", max_new_tokens=4, max_tokens=150)
    rows, alone = (
        cl.evaluate(model, task, adaptive, batch_size=size, allow_overlap=True, **QUIET)["prediction"].tolist()
        for size in (6, 1)
    )
    assert rows == alone


def test_leakage_and_errors(llama, small_corpus, small_cats):
    clas = cl.Clas(small_cats, layers=(2, 3))
    with pytest.raises(cl.SteeringError, match=r"needs the languages' centroids.*\[1\], pool='last'"):
        cl.Adaptive(clas, by="distance")
    with pytest.raises(cl.SteeringError, match="layer 0 has none below"):
        cl.Adaptive(cl.Clas(small_cats, layers=(0, 3)), by="distance")
    states = cl.collect_representations(llama, small_corpus.take(range(3)), [2], pool="last", **QUIET)
    with pytest.raises(cl.SteeringError, match=r"at layer 1, pool='last'.*layers \[2\]"):
        cl.Adaptive.by_distance(clas, states)
    below = cl.collect_representations(llama, small_corpus, [1], pool="last", **QUIET)
    made = cl.Adaptive.by_distance(clas, below)
    assert set(made.source["example_keys"]) >= {*clas.source["example_keys"], *made.measured["example_keys"]}
    assert made.measured["example_keys"]
    with pytest.raises(cl.SteeringError, match="no centroid of 'sw'"), cl.steer(llama, made, "sw"):
        pass


def test_in_the_bench(model, adaptive):
    strength = float(adaptive.strengths(model, PROMPTS[:1], "de")[0])
    with SteeringBench(model, adaptive, PROMPTS[0], "de") as mine:
        with SteeringBench(model, replace(adaptive.clas, alpha=-3.0 * strength), PROMPTS[0], "de") as plain:
            one, other = mine.run(), plain.run()
    assert one.kl == pytest.approx(other.kl, rel=1e-3)
    assert one.continuation_after == other.continuation_after
