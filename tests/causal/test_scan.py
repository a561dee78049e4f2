"""Ablation against plain Transformers with hand-written hooks, nulls that match, and what a scan refuses."""

import math

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as scipy_stats
from tiny import BACKEND, BACKENDS, assert_no_hooks

import clas_lens as cl
from clas_lens.causal.components import Component, edited, matched_units, spread_units
from clas_lens.causal.intervals import change_interval, ratio_interval
from clas_lens.tasks.xnli import LABELS

TEXTS = {
    "en": ["The cat sleeps on the warm roof", "She bought bread", "Rivers run to the sea in spring"],
    "de": ["Die Katze schläft auf dem warmen Dach", "Sie kaufte Brot", "Flüsse fließen im Frühling ins Meer"],
}


@pytest.fixture
def as_users_run_it():
    """Without the runtime checks of types: the code's own refusals."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def oracle_scores(hf, ids, n_prefix, n_answer, hooks):
    """Log-probability and KL of one text's last tokens, from Transformers with hooks of one's own, without padding."""

    def run(attached):
        handles = [module.register_forward_pre_hook(hook) for module, hook in attached]
        with torch.no_grad():
            out = hf(torch.tensor([ids[:-1]])).logits[0, -n_answer:].double().log_softmax(-1)
        for handle in handles:
            handle.remove()
        return out

    clean, changed = run([]), run(hooks(n_prefix))
    answer = torch.tensor(ids[-n_answer:])
    place = torch.arange(n_answer)
    return (
        float((changed - clean)[place, answer].mean()),
        float((clean.exp() * (clean - changed)).sum(-1).mean()),
    )


def at_content(n_prefix, change):
    def hook(module, inputs):
        new = inputs[0].clone()
        new[:, n_prefix:] = change(new[:, n_prefix:])
        return (new,)

    return hook


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("site", ["mlp", "attn"])
def test_layers_at_zero_are_those_of_transformers(lens_models, hf_models, family, backend, site):
    model, hf = lens_models[family, backend], hf_models[family]
    frame = cl.causal.scan(
        model, TEXTS, edit="zero", site=site, layers=[0, 3], answer_tokens=3, batch_size=3, progress=False
    )
    assert_no_hooks(model)
    tokenizer = model.tokenizer
    for language, texts in TEXTS.items():
        for layer in (0, 3):
            block = hf.model.layers[layer]
            module = block.mlp.down_proj if site == "mlp" else block.self_attn.o_proj

            def hooks(n_prefix, module=module):
                return [(module, at_content(n_prefix, torch.zeros_like))]

            found = [oracle_scores(hf, tokenizer(text)["input_ids"], 1, 3, hooks) for text in texts]
            rows = frame[(frame["language"] == language) & (frame["layer"] == layer)].set_index("measure")
            assert rows.loc["log_prob", "change"] == pytest.approx(np.mean([one for one, _ in found]), abs=2e-5)
            assert rows.loc["kl", "change"] == pytest.approx(np.mean([kl for _, kl in found]), abs=2e-5)
            changes = [one for one, _ in found]
            low, high = scipy_stats.t.interval(0.95, 2, np.mean(changes), scipy_stats.sem(changes))
            assert rows.loc["log_prob", ["low", "high"]].tolist() == pytest.approx([low, high], abs=1e-4)


def test_heads_at_their_mean_and_factors_are_those_of_transformers(model, hf_models, small_cats):
    hf = hf_models["llama"]
    tokenizer, d_head, n_units = model.tokenizer, int(model.cfg.d_head), 32
    seen = {code: [] for code in TEXTS}
    for code, texts in TEXTS.items():
        for text in texts:
            handle = hf.model.layers[2].self_attn.o_proj.register_forward_pre_hook(
                lambda module, inputs, code=code: seen[code].append(inputs[0][0, 1:])
            )
            with torch.no_grad():
                hf(torch.tensor([tokenizer(text)["input_ids"][:-1]]))
            handle.remove()
    mean = torch.stack([torch.cat(rows).mean(0) for rows in seen.values()]).mean(0)
    mine = slice(d_head, 2 * d_head)

    def to_mean(z):
        z[..., mine] = mean[mine]
        return z

    frame = cl.causal.scan(model, TEXTS, "heads", layers=[2], answer_tokens=2, draws=2, progress=False)
    o_proj = hf.model.layers[2].self_attn.o_proj
    expected = [
        oracle_scores(
            hf, tokenizer(text)["input_ids"], 1, 2, lambda n_prefix: [(o_proj, at_content(n_prefix, to_mean))]
        )
        for text in TEXTS["de"]
    ]
    row = frame.query("language == 'de' and component == 'head 1'").set_index("measure")
    assert row.loc["log_prob", "change"] == pytest.approx(np.mean([one for one, _ in expected]), abs=2e-5)
    assert row.loc["kl", "change"] == pytest.approx(np.mean([kl for _, kl in expected]), abs=2e-5)
    assert row["n_units"].eq(d_head).all()
    assert frame["n_units"].sum() == 3 * 2 * n_units
    assert (row["beyond"] - (row["change"] - row["null"])).abs().max() < 1e-8

    mask = small_cats.mask("partial-shared")[1]
    frame = cl.causal.scan(
        model,
        TEXTS,
        "categories",
        cats=small_cats,
        layers=[1],
        edit="rescale",
        factor=3,
        answer_tokens=2,
        progress=False,
    )
    down = hf.model.layers[1].mlp.down_proj
    expected = [
        oracle_scores(
            hf,
            tokenizer(text)["input_ids"],
            1,
            2,
            lambda n_prefix: [(down, at_content(n_prefix, lambda h: torch.where(mask, 3 * h, h)))],
        )
        for text in TEXTS["en"]
    ]
    row = frame.query("language == 'en' and component == 'partial-shared'").set_index("measure")
    assert row.loc["kl", "change"] == pytest.approx(np.mean([kl for _, kl in expected]), abs=2e-5)


def test_statistics_give_the_means(llama, small_corpus, small_stats):
    few = small_corpus.take(range(3))
    options = {"over": "neurons", "neurons": {1: [5]}, "draws": 0, "progress": False, "languages": ["en", "zh"]}
    given = cl.causal.scan(llama, few, stats=small_stats, **options)
    to_zero = cl.causal.scan(llama, few, edit="zero", **options)
    assert given["null"].isna().all()
    assert set(given["component"]) == {"neuron 5"}
    # At a mean of nearly nothing the two edits are one: the mean is where the difference comes from.
    kl = given["measure"] == "kl"
    assert (given.loc[kl, "change"] - to_zero.loc[kl, "change"]).abs().max() > 0
    with pytest.raises(cl.SteeringError, match=r"layers x|other weights"):
        cl.causal.scan(llama, few, stats=_of_another(small_stats), **options)


def _of_another(stats):
    from dataclasses import replace

    return replace(stats, model={**stats.model, "neurons": "else"})


def test_a_task_is_asked_for_its_gold(model):
    task = cl.tasks.XNLI("bundled", languages=("en", "de"), limit=4)
    frame = cl.causal.scan(model, task, site="mlp", layers=[4], edit="rescale", factor=1, progress=False)
    rows = cl.evaluate(model, task)
    for language in ("en", "de"):
        mine = frame[frame["language"] == language].set_index("measure")
        theirs = rows[rows["language"] == language]
        gold = [row[f"p_{LABELS[row['gold']]}"] * row["label_mass"] for _, row in theirs.iterrows()]
        assert mine.loc["log_prob", "clean"] == pytest.approx(np.log(gold).mean(), abs=1e-5)
        assert mine.loc["score", "clean"] == pytest.approx(theirs["correct"].mean())
        assert mine["change"].tolist() == [0.0, 0.0, 0.0]  # times 1
    questions = cl.tasks.XQuAD("bundled", languages=("en",), limit=2)
    found = cl.causal.scan(model, questions, layers=[1], edit="zero", progress=False)
    assert set(found["component"]) == {"MLP", "attention"}
    assert (found.loc[found["measure"] == "kl", "change"] > 0).all()


def test_batches_change_nothing(llama):
    one, three = (cl.causal.scan(llama, TEXTS, layers=[2], draws=0, batch_size=size, progress=False) for size in (1, 3))
    pd.testing.assert_frame_equal(one, three, atol=2e-5)


def test_the_edit_is_where_it_is_meant_and_nowhere_else():
    activation = torch.randn(2, 3, 4)
    units = torch.tensor([True, False, True, False])
    positions = torch.tensor([[False, True, True], [True, True, True]])
    where = positions[:, :, None] & units
    mean = torch.arange(4.0)
    for edit, expected in (
        ("zero", torch.zeros_like(activation)),
        ("mean", mean.expand(2, 3, 4)),
        ("rescale", 2 * activation),
    ):
        new = edited(activation, units, positions, edit, mean=mean, factor=2)
        assert torch.equal(new[where], expected[where])
        assert torch.equal(new[~where], activation[~where])


def test_random_units_match(llama):
    magnitude = torch.arange(48.0)
    mask = torch.zeros(48, dtype=torch.bool)
    mask[[0, 1, 20, 47]] = True
    generator = torch.Generator().manual_seed(1)
    ((site, drawn),) = matched_units(Component("c", "mlp", 3, mask), magnitude, generator).items()
    assert (site.kind, site.layer) == ("mlp", 3)
    assert not (drawn & mask).any()
    decile = torch.arange(48) * 10 // 48
    assert drawn.sum() == 4
    assert decile[drawn].tolist() == decile[mask].tolist()
    everything = torch.ones(48, dtype=torch.bool)
    everything[:5] = False  # 43 units, and only 5 others
    ((_, drawn),) = matched_units(Component("c", "mlp", 0, everything), magnitude, generator).items()
    assert drawn.sum() == 43
    assert drawn[:5].all()
    spread = spread_units(llama, "mlp", seed=0)
    assert sum(int(units.sum()) for units in spread.values()) == 48
    assert len(spread) > 1


def test_a_component_without_units_is_unknown(llama, small_cats):
    frame = cl.causal.scan(llama, TEXTS, "categories", cats=small_cats, layers=[0, 1], progress=False)
    empty = frame["n_units"] == 0
    assert frame["change"].isna().equals(empty)
    assert not frame.loc[~empty, ["change", "low", "high", "null", "beyond"]].isna().any(axis=None)


def test_languages_against_the_others(llama):
    frame = cl.causal.own_minus_others(
        cl.causal.scan(llama, {**TEXTS, "es": TEXTS["en"][::-1]}, layers=[0], site="mlp", draws=0, progress=False)
    )
    change = frame[frame["measure"] == "kl"].set_index("language")["change"]
    specific = frame[frame["measure"] == "kl"].set_index("language")["specific"]
    assert specific["de"] == pytest.approx(change["de"] - (change["en"] + change["es"]) / 2)
    with pytest.raises(ValueError, match="'de' alone"):
        cl.causal.own_minus_others(frame[frame["language"] == "de"])


def test_intervals():
    groups = ["a", "a", "b", "c"]
    found = change_interval([0, 0, 0, 0], [1, 3, 2, 4], ["a", "b", "c", "d"], level=0.9)
    low, high = scipy_stats.t.interval(0.9, 3, 2.5, scipy_stats.sem([1, 3, 2, 4]))
    assert found == pytest.approx((2.5, low, high))
    assert math.isnan(change_interval([0, 0], [1, 2], ["a", "a"], level=0.9).low)
    ratio = ratio_interval([1, 2, 3, 4], [2, 4, 6, 8], groups, level=0.9)
    assert ratio == pytest.approx((0.5, 0.5, 0.5))
    assert math.isnan(ratio_interval([1, 2], [1, -1], ["a", "b"], level=0.9).estimate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over": "blocks"}, "unknown over 'blocks'; available: layers"),
        ({"edit": "half"}, "unknown edit 'half'"),
        ({"edit": "rescale"}, "factor= goes with edit='rescale'"),
        ({"factor": 2}, "factor= goes with edit='rescale'"),
        ({"over": "categories"}, "cats= goes with over='categories'"),
        ({"neurons": {0: [1]}}, "neurons= goes with over='neurons'"),
        ({"over": "neurons", "neurons": {0: [48]}}, "at most 47"),
        ({"over": "neurons", "neurons": {9: [1]}}, "among 0..4"),
        ({"over": "neurons", "neurons": [1]}, "layer to numbers"),
        ({"over": "heads", "site": "mlp"}, "no heads"),
        ({"over": "categories", "cats": 3}, "categorize"),
        ({"layers": [7]}, "among 0..4"),
        ({"languages": ["sw"]}, "sw"),
        ({"level": 1}, "level"),
        ({"draws": -1}, "draws"),
        ({"stats": 3}, "collect_statistics"),
    ],
)
def test_what_is_refused(lens_models, as_users_run_it, options, message):
    model = lens_models["llama", BACKEND]
    with pytest.raises(ValueError, match=message):
        cl.causal.scan(model, TEXTS, progress=False, **options)


def test_a_scan_is_of_the_bare_model(llama, small_cats):
    clas = cl.Clas(small_cats, layers=[2], alpha=1.0)
    with (
        cl.steer(llama, clas, "de", must_fire=False),
        pytest.raises(ValueError, match="call scan outside"),
    ):
        cl.causal.scan(llama, TEXTS, progress=False)


def test_a_text_of_one_token_has_no_answer(lens_models):
    with pytest.raises(ValueError, match="single token"):
        cl.causal.scan(lens_models["qwen2", BACKEND], {"en": ["a"], "de": ["b"]}, progress=False)
