"""A function as an intervention: what it does against hooks written by hand, its contract, and its identity."""

from dataclasses import dataclass, replace

import pandas as pd
import pytest
import torch
from tiny import assert_no_hooks, logits

import clas_lens as cl
from clas_lens.evaluation.search import search_alpha
from clas_lens.models.sites import hooked, post_name, residual_name
from clas_lens.steering.intervention import given_intervention
from clas_lens.steering.rules import Rule
from clas_lens.tasks.xnli import XNLI

QUIET = {"progress": False}
OUTSIDE = torch.ones(3)
BY = 0.5


@cl.rule(layers=(1, 2), site="mlp")
def clip(h, language):
    return h.clamp(max=0.05)


@cl.rule(layers=(3,))
def towards_clip(h, language, alpha=2.0):
    return h + alpha * (h.clamp(max=0.05) - h)


def halved(h):
    return h * BY


@cl.rule(layers=(2, 4), site="residual")
def by_language(h, language, layer):
    return halved(h) if language == "de" else h + layer


def by_hand(model, tokens, names, function):
    """Logits with a function put in by TransformerLens's own hooks."""
    with hooked(model, [(name, function) for name in names]):
        return logits(model, tokens)


def test_equals_a_hand_written_hook(each_model, tokens):
    expected = by_hand(each_model, tokens, map(post_name, (1, 2)), lambda h, hook: h.clamp(max=0.05))
    with cl.steer(each_model, clip, "de"):
        found = logits(each_model, tokens)
    assert torch.equal(found, expected)
    assert not torch.equal(found, logits(each_model, tokens))


def test_each_row_in_its_own_language_at_any_site(model, tokens):
    base = logits(model, tokens)
    alone = {}
    for code, functions in {"de": (lambda h: h / 2,) * 2, "sw": (lambda h: h + 2, lambda h: h + 4)}.items():
        hooks = [(residual_name(layer), lambda h, hook, f=f: f(h)) for layer, f in zip((2, 4), functions, strict=True)]
        with hooked(model, hooks):
            alone[code] = logits(model, tokens)
    with cl.steer(model, by_language, ["sw", "de"]):
        mixed = logits(model, tokens)
    torch.testing.assert_close(mixed, torch.stack([alone["sw"][0], alone["de"][1]]))
    with cl.steer(model, by_language, ["en", "de"]):
        assert torch.equal(logits(model, tokens)[0], base[0])


def test_alpha(model, tokens):
    assert towards_clip.alpha == 2.0
    base = logits(model, tokens)
    for alpha in (0.0, 1.0):
        with cl.steer(model, replace(towards_clip, alpha=alpha), "de"):
            found = logits(model, tokens)
        if alpha == 0:
            assert torch.equal(found, base)
        else:
            once = by_hand(model, tokens, [post_name(3)], lambda h, hook: h.clamp(max=0.05))
            torch.testing.assert_close(found, once)
    with pytest.raises(cl.SteeringError, match="clip has one strength, 1, and none to search"):
        replace(clip, alpha=2.0)


@pytest.mark.parametrize("positions", ["last", "generated"])
def test_positions(model, tokens, positions):
    one = replace(clip, positions=positions)
    with cl.steer(model, one, "de", must_fire=False):
        found = logits(model, tokens)
    if positions == "generated":
        assert torch.equal(found, logits(model, tokens))
    else:
        last = by_hand(
            model,
            tokens,
            map(post_name, (1, 2)),
            lambda h, hook: torch.cat([h[:, :-1], h[:, -1:].clamp(max=0.05)], dim=1),
        )
        assert torch.equal(found, last)


def made(function, **options):
    return cl.rule(layers=(1,), **options)(function)


def alpha_adds(h, language, alpha):
    return h * (1 + alpha) + 1


def of_the_batch(h, language):
    return h - h.mean(0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda h, language: None, "returned NoneType: return the new tensor"),
        (lambda h, language: h[..., :3], r"returned the shape .*: keep the shape"),
        (lambda h, language: h.double(), "returned torch.float64 on cpu for torch.float32"),
        (lambda h, language: h.mul_(2), "changed h in place"),
        (alpha_adds, r"at alpha 0 it changes h by up to 1: say h \+ alpha"),
    ],
)
def test_a_broken_contract_is_told_at_first_use(llama, tokens, function, message):
    broken = made(function)
    with pytest.raises(cl.SteeringError, match=f"breaks its contract in layer 1: .*{message}") as told:
        with cl.steer(llama, broken, "de"):
            logits(llama, tokens)
    assert "\n" not in str(told.value)
    assert_no_hooks(llama)
    with pytest.raises(cl.SteeringError, match=message):
        cl.check_intervention(llama, broken)


def test_good_interventions_pass_and_a_mix_of_rows_does_not(model, small_cats):
    for good in (clip, towards_clip, by_language):
        cl.check_intervention(model, good)
    with pytest.raises(cl.SteeringError, match="treats a row alone otherwise than in a batch"):
        cl.check_intervention(model, made(of_the_batch))
    with pytest.raises(cl.SteeringError, match="'en' is its anchor"):
        cl.check_intervention(model, clip, "en")


def test_the_toolkits_own_keep_the_contract(llama, small_cats, small_corpus):
    clas = cl.Clas(small_cats, layers=(1, 2), alpha=-2.0)
    means, lasts = (
        cl.collect_representations(llama, small_corpus, [2], pool=pool, **QUIET) for pool in ("mean", "last")
    )
    for one in (clas, cl.RescaleMasks.uniform(clas), cl.MatchedNoise.for_model(llama, clas)):
        cl.check_intervention(llama, one)
    for one in (cl.AddVector.diff_mean(means, 2), cl.Incline.fit(lasts, 2)):
        cl.check_intervention(llama, one)


class Half:
    """Only some of what is needed."""

    positions, anchor = "all", "en"

    def edits(self, model, languages):
        return {}


@dataclass(frozen=True, eq=False)
class Loud(cl.steering.SavedIntervention):
    """All members, and an edit that knows no anchor and no alpha."""

    kind = "loud"
    alpha: float = 1.0
    anchor: str = "en"
    positions: str = "all"

    @property
    def source(self):
        return {}

    def check(self, model):
        pass

    def edits(self, model, languages):
        return {cl.models.Site("mlp", 2): lambda h, rows: h + 1}


def test_every_missing_member_is_named_at_once(llama, tokens):
    with pytest.raises(cl.SteeringError) as told:
        cl.check_intervention(llama, Half())
    for name in ("alpha", "source", "tuned_on", "check", "settings", "fingerprint", "save_pretrained"):
        assert f"- it has no {name}" in str(told.value)
    assert "it is no dataclass" in str(told.value)
    assert "it has no edits" not in str(told.value)
    with pytest.raises(cl.SteeringError, match="it lacks alpha, source, tuned_on"):
        given_intervention(Half())
    with pytest.raises(cl.SteeringError, match="Half is a class"):
        cl.check_intervention(llama, Half)
    with pytest.raises(cl.SteeringError, match=r"(?s)a row in its anchor 'en'.*at alpha 0 it changes"):
        cl.check_intervention(llama, Loud())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda h: h, r"a rule is a function of \(h, language\), .* takes \(h\)"),
        (lambda h, language, other: h, r"takes \(h, language, other\)"),
        (lambda h, alpha: h, r"takes \(h, alpha\)"),
        (torch.nn.Linear, "got <class"),
    ],
)
def test_functions_of_other_arguments_are_refused(function, message):
    with pytest.raises(cl.SteeringError, match=message):
        Rule(function, (1,))


def test_settings_are_checked(llama, small_cats):
    for options, message in (
        ({"anchor": "english"}, "unknown language"),
        ({"version": ""}, "version must be a text"),
    ):
        with pytest.raises(ValueError, match=message):
            Rule(clip.function, (1,), **options)
    with pytest.raises(cl.SteeringError, match="layers must be different ones among 0..4"):
        replace(clip, layers=(9,)).check(llama)
    with pytest.raises(cl.SteeringError, match="cannot be saved"):
        clip.save_pretrained("nowhere")


# --- identity ---


def around_a_tensor():
    shift = torch.ones(3)

    @cl.rule(layers=(1,))
    def shifted(h, language):
        return h + shift.sum()

    return shifted


def around_a_number(by):
    @cl.rule(layers=(1,))
    def scaled(h, language):
        return h * by

    return scaled


@cl.rule(layers=(1,))
def with_a_global_tensor(h, language):
    return h + OUTSIDE.sum()


def test_the_source_text_is_the_identity_and_is_stated():
    said = clip.settings()
    assert "return h.clamp(max=0.05)" in said["function"]
    assert said["layers"] == [1, 2]
    assert "return h * BY" in by_language.identity, "its helpers, too"
    assert "BY = 0.5" in by_language.identity
    prints = {around_a_number(by).fingerprint() for by in (2, 3)} | {replace(clip, layers=(1,)).fingerprint()}
    assert len(prints | {clip.fingerprint()}) == 4
    assert around_a_number(2).fingerprint() == around_a_number(2).fingerprint()
    one, other = (made(lambda h, language: h, version=version) for version in ("1", "2"))
    assert one.fingerprint() != other.fingerprint()
    assert one.settings()["function"] == "version 1"


@pytest.mark.parametrize(
    ("mine", "reason"),
    [
        (made(lambda h, language: h), "a lambda has no source text of its own"),
        (around_a_tensor(), "it uses 'shift' from outside, Tensor"),
        (with_a_global_tensor, "it uses 'OUTSIDE' from outside, Tensor"),
    ],
)
def test_without_an_identity_nothing_is_kept(llama, mine, reason, tmp_path):
    task = XNLI("bundled", ("en", "de"), limit=2, instruction="en", style="plain")
    with pytest.raises(cl.SteeringError, match=f"has no identity: {reason}.*give version="):
        cl.evaluate(llama, task, mine, out=tmp_path, **QUIET)
    assert mine.settings()["function"] is None
    assert len(cl.evaluate(llama, task, mine, **QUIET)) == 4, "without out= it is answered"


def test_evaluated_searched_and_kept_like_the_papers(llama, small_cats, tmp_path):
    task = XNLI("bundled", ("en", "de", "zh"), limit=4, instruction="en", style="plain")
    clas = cl.Clas(small_cats, layers=(3,), alpha=-2.0)
    methods = {"base": None, "clip": clip, "mine": towards_clip, "clas": clas}
    rows = cl.evaluate(llama, task, methods, out=tmp_path, allow_overlap=True, **QUIET)
    again = cl.evaluate(llama, task, methods, out=tmp_path, allow_overlap=True, **QUIET)
    pd.testing.assert_frame_equal(rows, again)
    scores = rows.set_index(["intervention", "language", "id"])["p_neutral"]
    assert (scores["clip"]["en"] == scores["base"]["en"]).all()
    assert not scores["clip"]["de"].equals(scores["base"]["de"])
    alone = cl.evaluate(llama, task, clip, batch_size=1, **QUIET).set_index(["language", "id"])["p_neutral"]
    pd.testing.assert_series_equal(scores["clip"], alone, rtol=1e-4)
    found = search_alpha(llama, task, towards_clip, [0.0, 1.0], **QUIET)
    assert found.intervention.alpha in (0.0, 1.0)
    assert found.intervention.tuned_on == task.example_keys()
    assert cl.evaluate(llama, task, clip, languages=["de"], **QUIET)["intervention"].unique() == ["clip"]
    with pytest.raises(cl.SteeringError, match="clip has one strength"):
        search_alpha(llama, task, clip, [0.0, 1.0], **QUIET)
