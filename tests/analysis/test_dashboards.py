"""The bench gives what `steer` and a whole pass give, and leaves no trace; moving a control changes what is shown."""

import gc
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from chromium import need
from nbclient import NotebookClient
from tiny import assert_no_hooks
from transformer_lens.hook_points import HookPoint

import clas_lens as cl
from analysis import layer_distribution, overlap_matrix
from analysis.dashboards import BenchResult, BenchView, LayerExplorer, NeuronBrowser, SteeringBench
from analysis.dashboards.bench_figures import bench_figures, bench_note, bench_said, lens_table
from analysis.dashboards.controls import LayerChoice, NumberSlider, layer_text, layers_of
from analysis.dashboards.dashboard import follow
from analysis.dashboards.fit import ABOVE, fitted
from analysis.dashboards.markup import BAR, table, text_bar
from analysis.dashboards.neuron_browser import highlighted
from analysis.dashboards.neuron_engine import Piece, language_profile, token_activations
from analysis.style.look import quoted
from clas_lens.baselines.masks import RescaleMasks, neuron_magnitude
from clas_lens.corpus.tokens import pad
from clas_lens.models.forward import last_logits
from clas_lens.models.sites import hooked

PROMPT = "Welche Raumsonde fotografierte als erste"
BLOCK = "\N{FULL BLOCK}"
WIDGET = "application/vnd.jupyter.widget-view+json"


def clas_of(model, corpus, **options):
    stats = cl.collect_statistics(model, corpus.take(range(3)), progress=False)
    return cl.Clas(cl.categorize(stats), layers=(2, 3), alpha=-2.0, **options), stats


def residuals_of(model, ids):
    """The last token's residual stream at every layer, from a whole pass with hooks of its own, and the logits."""
    found = {}
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
    hooks = [(name, lambda x, hook, name=name: found.update({name: x[0, -1].double()})) for name in names]
    batch = pad([ids], [0])
    with hooked(model, hooks):
        logits = last_logits(model, batch.tokens, batch.attention_mask)
    return [found[name] for name in names], logits


def registrations(monkeypatch):
    """Counts calls of `HookPoint.add_hook` from now on."""
    calls = []
    add = HookPoint.add_hook
    monkeypatch.setattr(HookPoint, "add_hook", lambda point, *a, **k: calls.append(point) or add(point, *a, **k))
    return calls


# --- the bench without widgets ---


def test_equals_steering_and_a_whole_pass(each_model, small_corpus):
    clas, stats = clas_of(each_model, small_corpus)
    tokenizer = each_model.tokenizer
    with SteeringBench(each_model, clas, PROMPT, "de", stats=stats, max_new_tokens=5) as bench:
        ids = bench._batch.tokens[0].tolist()
        before, base_logits = residuals_of(each_model, ids)
        plain = cl.generate(each_model, [ids], max_new_tokens=5)[0]
        magnitude = neuron_magnitude(each_model, stats)
        for masks, layers, alpha in (
            ("clas", (2, 3), -2.0),
            ("clas", (1, 4), 4.0),
            ("clas", (0,), 3.0),
            ("matched random", (2, 3), 3.0),
            ("other categories", (2, 3), 3.0),
            ("uniform", (2, 3), 3.0),
        ):
            setting = replace(clas, layers=layers, alpha=alpha)
            expected = {
                "clas": lambda s=setting: s,
                "matched random": lambda s=setting: RescaleMasks.matched_random(s, magnitude, seed=0),
                "other categories": lambda s=setting: RescaleMasks.other_categories(s),
                "uniform": lambda s=setting: RescaleMasks.uniform(s),
            }[masks]()
            with cl.steer(each_model, expected, "de"):
                after, logits = residuals_of(each_model, ids)
                steered = cl.generate(each_model, [ids], max_new_tokens=5)[0]
            found = bench.run(alpha=alpha, layers=layers, masks=masks)
            probabilities = logits[0].softmax(-1)
            table = found.next_tokens.set_index("token_id")
            assert table["after"].tolist() == probabilities[table.index].tolist()
            assert table["before"].tolist() == base_logits[0].softmax(-1)[table.index].tolist()
            assert set(probabilities.topk(8).indices.tolist()) <= set(table.index)
            assert (found.continuation_before, found.continuation_after) == (plain, steered)
            change = [float((b - a).norm() / a.norm()) for a, b in zip(before, after, strict=True)]
            assert found.layers["change"].tolist() == change
            assert found.layers["token_after"].iloc[-1] == tokenizer.decode([int(logits.argmax())])
            assert found.layers["p_after"].iloc[-1] == pytest.approx(float(probabilities.max()), rel=1e-4)
            divergence = torch.nn.functional.kl_div(
                logits.log_softmax(-1), base_logits.log_softmax(-1), log_target=True, reduction="sum"
            )
            assert found.kl == pytest.approx(float(divergence), rel=1e-3, abs=1e-6)


def test_a_setting_runs_its_layers_alone_and_registers_nothing(model, small_corpus, monkeypatch):
    clas, _ = clas_of(model, small_corpus)
    ran = []
    hooks = [(f"blocks.{i}.hook_resid_post", lambda x, hook, i=i: ran.append((i, x.shape[1]))) for i in range(5)]
    with hooked(model, hooks), SteeringBench(model, clas, PROMPT, "de", max_new_tokens=2) as bench:
        bench.run()
        length = bench._batch.tokens.shape[1]
        calls = registrations(monkeypatch)
        for alpha, layers, first in ((3.0, (2, 3), 2), (1.0, (4,), 4), (1.0, (0,), 0)):
            ran.clear()
            bench.run(alpha=alpha, layers=layers)
            assert [layer for layer, width in ran if width == length] == list(range(first, 5))
        assert calls == []


def test_between_runs_the_model_is_untouched(model, small_corpus):
    clas, _ = clas_of(model, small_corpus)
    tokens = torch.tensor([[1, 40, 50, 60]])
    expected = model(tokens)
    bench = SteeringBench(model, clas, PROMPT, "de")
    assert_no_hooks(model)
    bench.run(alpha=5.0)
    assert torch.equal(model(tokens), expected)
    model.reset_hooks()
    assert bench.run(alpha=5.0).kl > 0
    bench.close()
    assert_no_hooks(model)
    assert bench.run(alpha=5.0).kl > 0
    del bench
    gc.collect()
    assert_no_hooks(model)


def test_what_is_kept_can_be_measured_beside_an_open_bench(model, small_corpus, tmp_path):
    clas, _ = clas_of(model, small_corpus)
    task = cl.tasks.XNLI("bundled", ("de",), split="test", limit=2)
    with SteeringBench(model, clas, PROMPT, "de") as bench:
        bench.run(alpha=5.0)
        measured = cl.collect_statistics(model, small_corpus, out=tmp_path / "stats", progress=False)
        rows = cl.evaluate(model, task, out=tmp_path / "rows", progress=False)
    assert torch.equal(measured.mean, cl.collect_statistics(model, small_corpus, progress=False).mean)
    assert rows.equals(cl.evaluate(model, task, progress=False))


def test_hooks_are_inert_after_an_error(model, small_corpus, monkeypatch):
    clas, _ = clas_of(model, small_corpus)
    tokens = torch.tensor([[1, 40, 50, 60]])
    expected = model(tokens)
    with SteeringBench(model, clas, PROMPT, "de") as bench:
        bench.run()

        def interrupted(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("analysis.dashboards.bench_engine.greedy", interrupted)
            with pytest.raises(KeyboardInterrupt):
                bench.run(alpha=4.0)
        assert torch.equal(model(tokens), expected)


def test_with_hooks_of_the_user(model, small_corpus):
    """They stay, they act, and the prompt is run anew when they come and go."""
    clas, _ = clas_of(model, small_corpus)

    def ablate(activation, hook):
        return activation * 0.5

    def shift(activation, hook):
        return activation + 1.0

    with SteeringBench(model, clas, PROMPT, "de") as bench:
        ids = bench._batch.tokens[0].tolist()
        untouched = bench.run(alpha=3.0)
        for name, hook in (("blocks.0.mlp.hook_post", ablate), ("blocks.3.mlp.hook_post", shift)):
            model.add_hook(name, hook)
        try:
            _, base = residuals_of(model, ids)
            with cl.steer(model, replace(clas, alpha=3.0), "de"):
                _, logits = residuals_of(model, ids)
            table = bench.run(alpha=3.0).next_tokens.set_index("token_id")
            assert table["before"].tolist() == base[0].softmax(-1)[table.index].tolist()
            assert table["after"].tolist() == logits[0].softmax(-1)[table.index].tolist()
            bench.close()
            functions = [handle.user_hook for point in model.hook_dict.values() for handle in point.fwd_hooks]
            assert set(functions) == {ablate, shift}
        finally:
            model.reset_hooks()
        assert bench.run(alpha=3.0).kl == untouched.kl


def test_two_benches_on_one_model(model, small_corpus, monkeypatch):
    clas, _ = clas_of(model, small_corpus)
    with SteeringBench(model, clas, PROMPT, "de") as one, SteeringBench(model, clas, "Wo ist", "de") as other:
        first, second = one.run(alpha=3.0).kl, other.run(alpha=3.0).kl
        calls = registrations(monkeypatch)
        assert (one.run(alpha=3.0).kl, other.run(alpha=3.0).kl) == (first, second)
        assert calls == []


def test_anchor_and_positions(llama, small_corpus):
    clas, _ = clas_of(llama, small_corpus)
    with SteeringBench(llama, clas, "The capital of", "en") as bench:
        found = bench.run(alpha=5.0)
        assert found.kl == 0
        assert found.next_tokens["after"].tolist() == found.next_tokens["before"].tolist()
        assert set(found.layers["change"]) == {0.0}
        bench.ask(PROMPT, "de")
        assert bench.run(alpha=5.0).kl > 0
    for positions, unchanged in (("generated", True), ("last", False)):
        with SteeringBench(llama, replace(clas, positions=positions), PROMPT, "de", max_new_tokens=6) as bench:
            found = bench.run(alpha=8.0)
            with cl.steer(llama, replace(clas, positions=positions, alpha=8.0), "de"):
                assert found.continuation_after == cl.generate(llama, [PROMPT], max_new_tokens=6)[0]
            assert (found.kl == 0) == unchanged


def test_refusals(llama, small_corpus):
    clas, stats = clas_of(llama, small_corpus)
    bench = SteeringBench(llama, clas, PROMPT, "de")
    assert bench.mask_kinds == ("clas", "other categories", "uniform")
    with pytest.raises(cl.SteeringError, match=r"no 'matched random' masks here; available: clas, .*needs stats"):
        bench.run(masks="matched random")
    with pytest.raises(ValueError, match=r"exceeds the context of 512\. Shorten the prompt"):
        bench.ask("a b " * 400, "de")
    with pytest.raises(ValueError, match="language 'EN' is written 'en'"):
        bench.ask("a", "EN")
    assert (bench.prompt, bench.language) == (PROMPT, "de")
    assert SteeringBench(llama, replace(clas, specific="current"), PROMPT, "de", stats=stats).mask_kinds == (
        "clas",
        "other categories",
        "uniform",
    )


# --- widgets ---


def drawn(widget):
    """What a figure widget shows, without the ids that it gives its traces."""
    shown = json.loads(go.Figure(widget).to_json())
    for trace in shown["data"]:
        trace.pop("uid", None)
    return shown


def goes_on(view, model, clas, stats):
    """What the copied code prints, as a list."""
    code = view.code.replace("print(", "said.extend(")
    said = []
    exec(code, {"model": model, "clas": clas, "stats": stats, "said": said})
    return said


def test_bench_sliders(model, small_corpus, monkeypatch):
    clas, stats = clas_of(model, small_corpus)
    view = BenchView(model, clas, PROMPT, "de", stats=stats)
    try:
        calls = registrations(monkeypatch)
        for name, value in (
            ("alpha", 5.0),
            ("beta", 0.9),
            ("gamma", 0.7),
            ("layers", (1, 2, 3)),
            ("masks", "uniform"),
            ("language", "en"),
            ("prompt", "Wo <script>liegt</script>"),
        ):
            figure, said, note = drawn(view.figures[0]), view.top.value, view.note.value
            view.controls[name].value = value
            assert drawn(view.figures[0])["data"] != figure["data"]
            assert view.top.value != said
            assert view.note.value != note
            assert goes_on(view, model, clas, stats) == [view.result.continuation_after]
        assert calls == []
        assert view.layers == (1, 2, 3)
        assert view.result.kl == 0  # English
        assert "en, anchor: not steered" in view.top.value
        assert ("en (anchor: not steered)", "en") in view.controls["language"].options
        (before, after), (change,) = view.figures[0].data, view.figures[1].data
        assert list(before.x) == list(after.x) == [100 * p for p in view.result.next_tokens["after"]]
        assert list(change.y) == [0.0] * 5
        expected = view.bench.run(alpha=5.0, beta=0.9, gamma=0.7, layers=(1, 2, 3), masks="uniform")
        assert view.result.continuation_after == expected.continuation_after
    finally:
        view.close()


@cl.rule(layers=(2, 3), site="residual")
def shrunk(h, language, alpha=0.5):
    return h * (1 - 0.2 * alpha)


@cl.rule(layers=(1,))
def clipped(h, language):
    return h.clamp(max=0.05)


def test_bench_of_rules_and_other_interventions(model, small_corpus):
    states = cl.collect_representations(model, small_corpus.take(range(3)), [2], progress=False)
    vector = cl.AddVector.diff_mean(states, 2)
    for mine, controls in ((shrunk, {"site", "layers", "alpha"}), (clipped, {"site", "layers"}), (vector, {"alpha"})):
        view = BenchView(model, mine, PROMPT, "de")
        try:
            assert set(view.controls) == {"prompt", "language", *controls}
            assert view.layers == ((vector.layer,) if mine is vector else mine.layers)
            ids = view.bench._batch.tokens[0].tolist()
            with cl.steer(model, mine, "de"):
                residuals, logits = residuals_of(model, ids)
            before, _ = residuals_of(model, ids)
            moved = [float((b - a).norm() / b.norm()) for b, a in zip(before, residuals, strict=True)]
            assert view.result.layers["change"].tolist() == pytest.approx(moved, abs=1e-5)
            top = view.result.next_tokens.set_index("token_id")["after"]
            found = logits[0].softmax(-1)[top.index.to_list()].tolist()
            assert top.tolist() == pytest.approx(found, rel=1e-4)
            for name in controls - {"site"}:
                shown = drawn(view.figures[0])["data"]
                view.controls[name].value = (2, 4) if name == "layers" else 3.0
                assert drawn(view.figures[0])["data"] != shown
            view.controls["language"].value = "en"
            assert view.result.kl == 0
        finally:
            view.close()
    with pytest.raises(cl.SteeringError, match="this Rule has no 'beta' to set here; available: alpha, layers"):
        SteeringBench(model, shrunk, PROMPT, "de").run(beta=0.3)


def test_what_the_model_says_is_escaped():
    bad = "<script>alert()</script>"
    tokens = pd.DataFrame({"token": [bad], "token_id": [3], "before": [0.5], "after": [0.25]})
    lens = {
        "layer": [0],
        "change": [0.1],
        "token_before": [bad],
        "p_before": [0.5],
        "token_after": [bad],
        "p_after": [0.5],
    }
    result = BenchResult(tokens, 0.125, pd.DataFrame(lens), bad, bad)
    note = bench_note(result) + lens_table(result) + bench_said(result, bad, "de", "en", (0,))
    assert "<script" not in note
    assert note.count("&lt;script&gt;") == 6
    assert "KL 0.1250 nats" in note
    assert f"{BAR * BLOCK}\N{NO-BREAK SPACE}50.0%" in note
    assert f">{BAR // 2 * BLOCK}\N{NO-BREAK SPACE}25.0%" in note
    figure = bench_figures(result, (0,))[0]
    assert figure.layout.yaxis.ticktext == ("“&lt;script&gt;alert()&lt;/script&gt;”",)
    assert "<script>alert" not in figure.to_html(full_html=False)


def test_bench_says_what_it_cannot_show(llama, small_corpus):
    clas, _ = clas_of(llama, small_corpus)
    view = BenchView(llama, clas, PROMPT, "de")
    try:
        shown = drawn(view.figures[0])
        view.controls["prompt"].value = "<b> " * 600
        assert "Not shown: the longest prompt has " in view.top.value
        assert drawn(view.figures[0]) == shown
        view.controls["prompt"].value = PROMPT
        assert "KL " in view.top.value
        view.controls["layers"].box.value = "2, 99"
        assert "Not shown: layers 0 to 4 are there" in view.top.value
        view.controls["layers"].box.value = "1, 3-4"
        assert view.layers == (1, 3, 4)
        assert "layers 1, 3-4: KL " in view.top.value
    finally:
        view.close()


def test_bench_of_several_interventions_and_sites(model, small_corpus):
    clas, stats = clas_of(model, small_corpus)
    view = BenchView(model, {"CLAS": clas, "mine": shrunk}, PROMPT, "de", stats=stats)
    try:
        view.controls["alpha"].value = 5.0
        view.controls["intervention"].value = "mine"
        assert set(view.controls) == {"prompt", "language", "intervention", "site", "layers", "alpha"}
        for site in ("mlp", "attn", "residual"):
            view.controls["site"].value = site
            view.controls["alpha"].value = 2.0
            with cl.steer(model, replace(shrunk, site=site, alpha=2.0), "de"):
                assert view.result.continuation_after == cl.generate(model, [PROMPT], max_new_tokens=6)[0]
            assert f"replace(interventions['mine'], site='{site}', layers=(2, 3), alpha=2.0)" in view.code.replace(
                "alpha=2.0, layers=(2, 3)", "layers=(2, 3), alpha=2.0"
            )
        view.controls["intervention"].value = "CLAS"
        assert view.controls["alpha"].value == -2.0
        assert view.result.kl == pytest.approx(SteeringBench(model, clas, PROMPT, "de").run().kl, rel=1e-5)
    finally:
        view.close()
    assert_no_hooks(model)
    with pytest.raises(ValueError, match="empty mapping"):
        BenchView(model, {}, PROMPT, "de")


def test_a_typed_number_moves_the_slider_and_its_limits():
    number = NumberSlider("alpha", 0.3, -8.0, 8.0)
    assert number.slider.step == 0.05
    heard = []
    number.observe(lambda change: heard.append(change["new"]), "value")
    number.box.value = -12.3
    assert (number.value, number.slider.value, number.slider.min, number.slider.step) == (-12.3, -12.3, -12.3, 0.05)
    number.slider.value = 2.0
    assert (number.value, number.box.value, number.slider.min) == (2.0, 2.0, -8.0)
    number.box.value = float("nan")
    assert (number.value, number.box.value) == (2.0, 2.0)
    assert heard == [-12.3, 2.0]


def test_layers_are_dragged_or_typed():
    choice = LayerChoice((2, 3, 7), 10)
    assert (choice.box.value, choice.slider.value) == ("2-3, 7", (2, 7))
    choice.slider.value = (4, 6)
    assert (choice.value, choice.box.value) == ((4, 5, 6), "4-6")
    choice.box.value = "1, 9-8"
    assert "the smaller layer comes first" in choice.wrong
    assert choice.value == (4, 5, 6)
    for text in ("x", "", "3-12", "1-2-3", "7-5"):
        with pytest.raises(ValueError, match="got"):
            layers_of(text, 10)
    assert layers_of(layer_text((0, 1, 2, 5, 8, 9)), 10) == (0, 1, 2, 5, 8, 9)


def test_a_click_on_a_row_shows_its_texts(llama, small_stats, small_corpus):
    view = NeuronBrowser(llama, small_stats, small_corpus, category=cl.NeuronCategory.PARTIAL_SHARED)
    view._clicked(None, SimpleNamespace(point_inds=[[3, 0]]), None)
    chosen = view.neurons["neuron"][3]
    assert f"Neuron 2.{chosen}, " in view.note.value
    (frame,) = view.figures[0].layout.shapes
    assert (frame.y0, frame.y1) == (2.5, 3.5)
    view.close()


def test_layer_explorer(small_stats):
    view = LayerExplorer(small_stats)
    for activity, threshold in (("mean", 0.01), ("abs_mean", 0.02), ("firing_rate", 0.4)):
        view.controls["activity"].value = activity
        assert view.cats.activity == activity
        view.controls["threshold"].value = threshold
        cats = cl.categorize(small_stats, threshold, activity)
        layers = cl.select_bridge_layers(cats)
        for shown, figure in zip(
            view.figures, (layer_distribution(cats, bridge_layers=layers), overlap_matrix(cats)), strict=True
        ):
            assert drawn(shown) == drawn(fitted(figure, view.panel_width))
        assert f"bridge layers: {layers[0]}" in view.note.value
    low = small_stats.mean.min()
    view.controls["activity"].value = "mean"
    assert low < view.controls["threshold"].min < 0 < view.controls["threshold"].max < small_stats.mean.max()
    view.close()
    fixed = LayerExplorer(small_stats, bridge_layers=(1,))
    assert fixed.bridge_layers == (1,)
    fixed.close()


def test_figures_are_as_wide_as_their_cell(small_stats):
    view = LayerExplorer(small_stats)
    layers, overlap = view.figures
    for cell, width in ((1400, 688), (900, 438), (600, 596), (320, 316), (100, 240)):
        view._cell.width = cell
        assert layers.layout.width == overlap.layout.width == width
        assert layers.layout.height - layers.layout.margin.b == 420 - view.originals[0].layout.margin.t + ABOVE - 80
    assert layers.layout.margin.b > 80  # the legend has several rows
    view.controls["threshold"].value = 0.01
    assert layers.layout.width == 240
    view.close()


def test_token_activations_find_the_maximum(each_model, small_corpus):
    """The statistics, collected in batches, say which content token of which text excites a neuron most."""
    corpus = small_corpus.take(range(3))
    stats = cl.collect_statistics(each_model, corpus, progress=False)
    for row, language in enumerate(corpus.languages):
        for layer, neuron in ((0, 3), (2, 7), (4, 40)):
            text = corpus[language][int(stats.max_example[row, layer, neuron])]
            pieces = token_activations(each_model, text, layer, neuron)
            assert "".join(piece.text for piece in pieces).strip() == text
            assert max(piece.activation for piece in pieces) == pytest.approx(
                float(stats.max[row, layer, neuron]), rel=1e-4, abs=1e-5
            )


def test_language_profile(small_stats):
    frame = language_profile(small_stats, 2, [5, 1]).set_index(["neuron", "language"])
    row = frame.loc[(1, "zh")]
    at = small_stats.languages.index("zh")
    assert row["mean"] == float(small_stats.mean[at, 2, 1])
    assert row["firing_rate"] == float(small_stats.firing_rate[at, 2, 1])
    assert row["max"] == float(small_stats.max[at, 2, 1])
    rms = float(small_stats.second_moment[:, 2, 1].mean()) ** 0.5
    assert row["relative"] == pytest.approx(row["mean"] / rms, rel=1e-5)


def test_neuron_browser(llama, small_stats, small_corpus):
    view = NeuronBrowser(llama, small_stats, small_corpus)
    cats = cl.categorize(small_stats)
    for layer, category in ((1, cl.NeuronCategory.PARTIAL_SHARED), (3, cl.NeuronCategory.ALL_SHARED)):
        view.controls["layer"].value = layer
        view.controls["category"].value = category
        there = cats.mask(category)[layer].nonzero().flatten().tolist()
        assert set(view.neurons["neuron"]) <= set(there)
        assert len(view.neurons) == min(30, len(there)) > 1
        assert view.neurons["selectivity"].is_monotonic_decreasing
        heat = view.figures[0].data[0]
        assert list(heat.y) == [f"{layer}.{neuron}" for neuron in view.neurons["neuron"]]
        assert list(heat.x) == list(small_stats.languages)
        first, second = view.neurons["neuron"][:2]
        assert f"Neuron {layer}.{first}, " in view.note.value
        view.controls["neuron"].value = second
        assert f"Neuron {layer}.{second}, " in view.note.value
        assert view.note.value.count("<u ") == 4
    view.close()
    with pytest.raises(ValueError, match="give the corpus that collect_statistics had"):
        NeuronBrowser(llama, small_stats, small_corpus.take(range(2)))


def test_layer_without_such_neurons(llama, small_stats, small_corpus, small_cats):
    none_active = replace(small_cats, active=torch.zeros_like(small_cats.active))
    view = NeuronBrowser(llama, small_stats, small_corpus, cats=none_active)
    assert "Layer 2 has no language-specific neurons" in view.note.value
    view.controls["category"].value = cl.NeuronCategory.DEAD
    assert "Neuron 2." in view.note.value
    view.close()


def test_highlighting_is_escaped_and_cut():
    pieces = [Piece("<b>", -1.0), Piece(" x", 1.0), Piece("y", 4.0)]
    html = highlighted(pieces, "<i>")
    assert "<b>" not in html
    assert "&lt;i&gt;" in html
    assert [float(a) for a in re.findall(r"114,178,([\d.]+)", html)] == [0.0, 0.15, 0.6]
    assert re.findall(r"<u [^>]*>([^<]*)</u>", html) == ["y"]
    assert len(highlighted([*pieces, *[Piece("w", 0.0)] * 5000], "de")) < 10_000


def test_markup():
    assert "<script>" not in table({"<script>": ["<script>"]})
    bars = [text_bar(share, "x").split("\N{NO-BREAK SPACE}") for share in (0.5, 2.0, -1.0, 0.3)]
    whole, rest = divmod(round(8 * BAR * 0.3), 8)
    assert bars == [[BAR // 2 * BLOCK, "x"], [BAR * BLOCK, "x"], ["", "x"], [whole * BLOCK + chr(0x2590 - rest), "x"]]
    assert quoted(" a\n") == "“ a\N{RETURN SYMBOL}”"


def test_follow_keeps_the_figure(small_cats):
    shown = go.FigureWidget(overlap_matrix(small_cats))
    ids = [trace.uid for trace in shown.data]
    follow(shown, overlap_matrix(small_cats, title="other"))
    assert shown.layout.title.text == "other"
    assert [trace.uid for trace in shown.data] == ids


# --- where they run ---


def test_without_widgets_a_static_figure_is_shown(small_stats):
    view = LayerExplorer(small_stats)
    need("chromium")
    html = view.static_html()
    assert html.count('src="data:image/png;base64,') == 2
    assert 'alt="MLP neurons by the number of languages they are active in. tiny-llama, ' in html
    assert "<table" in html
    assert "<script" not in html
    assert len(html) < 800_000
    assert view._repr_mimebundle_()["text/plain"] == "LayerExplorer(activity='mean', threshold=0.0)"
    view.close()


def test_in_a_kernel(folders):
    """A notebook moves the controls; its outputs have the widgets and what stands in for them."""
    cells = [
        "import clas_lens as cl\nfrom analysis.dashboards import BenchResult, BenchView, LayerExplorer, NeuronBrowser\n"
        f"model = cl.load_model({str(folders['llama'])!r}, device='cpu')\n"
        "corpus = cl.ParallelCorpus.bundled(['en', 'de', 'zh']).take(range(3))\n"
        "stats = cl.collect_statistics(model, corpus, progress=False)\n"
        "clas = cl.Clas(cl.categorize(stats), layers=(2, 3), alpha=-2.0)",
        f"bench = BenchView(model, clas, {PROMPT!r}, 'de', stats=stats)\nbench",
        "before = bench.result.kl, tuple(bench.figures[0].data[1].x)\nbench.controls['alpha'].value = 6.0\n"
        "assert bench.result.kl != before[0] and tuple(bench.figures[0].data[1].x) != before[1]",
        "explorer = LayerExplorer(stats)\nexplorer",
        "before = tuple(explorer.figures[0].data[0].y)\nexplorer.controls['threshold'].value = 0.05\n"
        "assert tuple(explorer.figures[0].data[0].y) != before",
        "browser = NeuronBrowser(model, stats, corpus)\nbrowser",
        "before = browser.note.value\nbrowser.controls['layer'].value = 0\nassert browser.note.value != before",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook = NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for place in (1, 3, 5):
        picture, output = notebook.cells[place].outputs
        assert set(picture["data"]) == {"text/html"}
        assert set(output["data"]) == {WIDGET, "text/plain"}
    states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    shown = [state["state"] for state in states.values() if state["state"].get("description") == "alpha"]
    assert shown[0]["value"] == 6.0
