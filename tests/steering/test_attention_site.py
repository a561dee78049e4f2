"""Attention's units, measured and steered at `hook_z`, against what Transformers' own output projections are given."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from tiny import BACKENDS, FAMILIES, assert_no_hooks, logits

import clas_lens as cl
from clas_lens.corpus.tokens import pad, tokenize
from clas_lens.evaluation.passes import LayerCount, SharedPrompt
from clas_lens.evaluation.prefixes import whole_prompts
from clas_lens.models.forward import last_logits
from clas_lens.models.identity import neuron_fingerprint
from clas_lens.models.units import check_units, output_projection, to_heads
from clas_lens.steering.intervention import first_layer

LAYERS = (1, 2)
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}
EACH = [(family, backend) for family in FAMILIES for backend in BACKENDS]


@pytest.fixture(params=EACH, ids=lambda pair: "-".join(pair))
def pair(request, lens_models, hf_models):
    """A model and the plain Transformers model of the same weights."""
    model = lens_models[request.param]
    yield model, hf_models[request.param[0]]
    assert_no_hooks(model)


@pytest.fixture(scope="module")
def corpus(small_corpus):
    return small_corpus.take(range(0, 12, 3))


@pytest.fixture(scope="module")
def stats(lens_models, corpus):
    return cl.collect_statistics(lens_models["llama", "hooked"], corpus, site="attn", progress=False)


@pytest.fixture(scope="module")
def clas(stats):
    return cl.Clas(cl.categorize(stats), layers=LAYERS, alpha=-2.0)


@contextmanager
def before_o_proj(hf, see):
    """`see(layer, z)` is shown, or replaces, what each output projection is given."""

    def hook(layer):
        def inside(module, inputs):
            changed = see(layer, inputs[0])
            return None if changed is None else (changed, *inputs[1:])

        return inside

    handles = [
        block.self_attn.o_proj.register_forward_pre_hook(hook(layer)) for layer, block in enumerate(hf.model.layers)
    ]
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()


def z_of(hf, ids):
    """[layer pos unit] of one text."""
    seen = {}
    with before_o_proj(hf, lambda layer, z: seen.__setitem__(layer, z[0].clone())):
        hf(torch.tensor([ids]))
    return torch.stack([seen[layer] for layer in sorted(seen)])


def multiplied(scale, rows=slice(None), positions=slice(None)):
    """By hand: z times the factors, in some rows and positions."""

    def see(layer, z):
        if layer not in scale:
            return None
        out = z.clone()
        out[rows, positions] = z[rows, positions] * scale[layer].to(z.dtype)
        return out

    return see


def masks_of(model, **options):
    """Random disjoint masks of the model's attention units."""
    shape = (model.cfg.n_layers, model.cfg.n_heads * model.cfg.d_head)
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    described = {"site": "attn", "n_heads": model.cfg.n_heads, "d_head": model.cfg.d_head}
    return cl.RescaleMasks(drawn < 0.3, drawn > 0.7, LAYERS, alpha=-3.0, model=described, **options)


# --- measured ---


@pytest.mark.parametrize("side", ["left", "right"])
def test_statistics_are_of_what_the_output_projections_are_given(pair, corpus, side):
    model, hf = pair
    stats = cl.collect_statistics(
        model, corpus, site="attn", batch_size=3, padding_side=side, histograms=side == "left", progress=False
    )
    assert stats.site == "attn"
    assert stats.n_neurons == model.cfg.n_heads * model.cfg.d_head
    for row, language in enumerate(corpus.languages):
        texts = tokenize(model.tokenizer, corpus[language])
        seen = [z_of(hf, ids)[:, texts.n_prefix :] for ids in texts.ids]
        torch.testing.assert_close(stats.mean[row], torch.stack([z.mean(1) for z in seen]).mean(0), **TOLERANCE)
        whole = torch.cat(seen, dim=1)
        torch.testing.assert_close(stats.firing_rate[row], (whole > 0).float().mean(1), atol=0.01, rtol=0)
        torch.testing.assert_close(stats.max[row], whole.amax(1), **TOLERANCE)
        if side == "left":
            assert torch.equal(
                stats.histogram("h")[row].sum(-1), torch.full_like(stats.max_example[row], whole.shape[1])
            )


def test_the_flat_axis_is_head_by_head(llama, stats):
    with torch.no_grad():
        _, cache = llama.run_with_cache(torch.arange(3, 12)[None])
    z = cache["blocks.1.attn.hook_z"]
    assert torch.equal(to_heads(z.flatten(2), stats.model), z)
    written = z.flatten(2) @ output_projection(llama, "attn", 1) + llama.blocks[1].attn.b_O
    torch.testing.assert_close(written, cache["blocks.1.hook_attn_out"], **TOLERANCE)


def test_shares_by_head_are_counted_head_by_head(stats):
    cats = cl.categorize(stats)
    table = cats.by_head()
    n_heads, d_head = stats.model["n_heads"], stats.model["d_head"]
    assert len(table) == stats.n_layers * n_heads * 4
    labels = cats.labels.tolist()
    for line in table.itertuples():
        units = labels[line.layer][line.head * d_head : (line.head + 1) * d_head]
        count = sum(cl.NeuronCategory(label).label == line.category for label in units)
        assert (line.count, line.percent) == (count, pytest.approx(100 * count / d_head))
    by_layer = table.groupby(["layer", "category"], sort=False)["count"].sum()
    assert (by_layer.to_numpy() == cats.shares()["count"].to_numpy()).all()


def test_halves_merge_and_files_resume(llama, corpus, stats, tmp_path, monkeypatch):
    halves = [
        cl.collect_statistics(llama, corpus.take(r), site="attn", progress=False) for r in (range(2), range(2, 4))
    ]
    torch.testing.assert_close(halves[0].merge(halves[1]).mean, stats.mean, **TOLERANCE)
    cl.collect_statistics(llama, corpus, site="attn", out=tmp_path, progress=False)
    monkeypatch.setattr("clas_lens.statistics.collect.measure_item", not_again)
    again = cl.collect_statistics(llama, corpus, site="attn", out=tmp_path, progress=False)
    loaded = cl.NeuronStatistics.load(tmp_path, stats.languages)
    for kept in (again, loaded):
        assert torch.equal(kept.mean, stats.mean)
        assert kept.site == "attn"
        assert kept.model == stats.model
    with pytest.raises(KeyError):  # files of one site are none of the other's, which has to be measured
        cl.collect_statistics(llama, corpus, site="mlp", out=tmp_path, progress=False)


def not_again(*arguments, **options):
    raise KeyError("measured again")


def test_shares_by_example_and_single_units(llama, hf_models, corpus):
    texts = {code: tokenize(llama.tokenizer, corpus[code]).ids for code in corpus.languages}
    seen = {code: [z_of(hf_models["llama"], ids) for ids in of] for code, of in texts.items()}
    active = torch.stack([torch.stack([z[:, -1] > 0 for z in of]) for of in seen.values()]).sum(0)
    shares = cl.categories.instance_shares(llama, corpus, site="attn", progress=False)
    dead = shares[shares["category"] == "dead"]["percent"].to_numpy()
    assert dead == pytest.approx(100 * (active == 0).float().mean((0, 2)).numpy(), abs=0.5)
    found = cl.representations.neuron_activations(llama, corpus, 2, 17, site="attn", progress=False)
    expected = [float(z[2, 1:, 17].mean()) for of in seen.values() for z in of]
    assert found["value"].tolist() == pytest.approx(expected, abs=2e-5)


# --- steered ---


def test_logits_equal_transformers_with_z_multiplied(pair, tokens):
    model, hf = pair
    masks = masks_of(model)
    with torch.no_grad(), cl.steer(model, masks, language="de"):
        found = logits(model, tokens)
    with before_o_proj(hf, multiplied(masks.scale("de"))):
        torch.testing.assert_close(found, hf(tokens).logits, **TOLERANCE)
    assert float((found - logits(model, tokens)).abs().max()) > 0.01


def test_rows_are_in_their_own_language_and_the_anchor_stays_to_the_bit(pair, tokens):
    model, hf = pair
    masks, plain = masks_of(model), logits(model, tokens)
    with torch.no_grad(), cl.steer(model, masks, language=["en", "de"]):
        found = logits(model, tokens)
    assert torch.equal(found[0], plain[0])
    with before_o_proj(hf, multiplied(masks.scale("de"), rows=slice(1, None))):
        torch.testing.assert_close(found, hf(tokens).logits, **TOLERANCE)
    for language, one in (("en", masks), ("de", replace(masks, alpha=0.0))):
        with torch.no_grad(), cl.steer(model, one, language=language):
            assert torch.equal(logits(model, tokens), plain)


def test_only_the_last_position(pair, tokens):
    model, hf = pair
    masks = masks_of(model, positions="last")
    with torch.no_grad(), cl.steer(model, masks, language="de"):
        found = logits(model, tokens)
    with before_o_proj(hf, multiplied(masks.scale("de"), positions=slice(-1, None))):
        torch.testing.assert_close(found, hf(tokens).logits, **TOLERANCE)


@pytest.mark.parametrize("positions", ["all", "generated"])
def test_generation_with_a_cache_and_left_padding(pair, positions):
    model, hf = pair
    masks = masks_of(model, positions=positions)
    prompts = ["Der Hund lief über die lange Straße nach Hause und", "Das Haus"]
    with cl.steer(model, masks, language="de"):
        found = cl.generate(model, prompts, max_new_tokens=5)
    assert found != cl.generate(model, prompts, max_new_tokens=5)
    for prompt, answer in zip(prompts, found, strict=True):
        assert answer == by_steps(model, hf, masks.scale("de"), prompt, positions)


def by_steps(model, hf, scale, prompt, positions):
    """Greedy, without a cache, with z multiplied at all positions or at those of generated tokens."""
    (ids,) = tokenize(model.tokenizer, [prompt]).ids
    ids, n = list(ids), len(ids)
    first = 0 if positions == "all" else n
    for _ in range(5):
        with before_o_proj(hf, multiplied(scale, positions=slice(first, None))):
            new = int(hf(torch.tensor([ids])).logits[0, -1].argmax())
        if new == model.tokenizer.eos_token_id:
            break
        ids.append(new)
    return model.tokenizer.decode(ids[n:], skip_special_tokens=True)


def test_lower_layers_are_run_once(model, clas):
    """What enters the layer is what enters its attention: nothing of that layer may come from the unsteered run."""
    ids = [(1, 40, 50, 60, 70), (1, 41, 51)]
    batch = pad(ids, range(2))
    segments = whole_prompts(model, ids, range(2))
    assert first_layer(model, clas, ["de"]) == 1
    prompt = SharedPrompt(model, segments, {1}, unsteered=True, columns=None, count=LayerCount(model.cfg.n_layers))
    with prompt.steered(clas, "de", 1) as (_, found):
        pass
    with cl.steer(model, clas, "de"):
        assert torch.equal(found, last_logits(model, batch.tokens, batch.attention_mask))
    assert not torch.equal(found, prompt.unsteered()[1])


def test_nothing_is_left_behind_whatever_is_raised(model, clas, tokens):
    plain = logits(model, tokens)
    with pytest.raises(KeyError), cl.steer(model, clas, language="de"):
        logits(model, tokens)
        raise KeyError("stop")
    assert torch.equal(logits(model, tokens), plain)


# --- controls ---


def test_controls_act_at_the_same_site(llama, stats, clas):
    magnitude = cl.baselines.neuron_magnitude(llama, stats)
    w_o = torch.stack([llama.blocks[layer].attn.W_O.detach() for layer in range(stats.n_layers)])
    expected = stats.mean.abs().mean(0) * w_o.norm(dim=-1).flatten(1)
    torch.testing.assert_close(magnitude, expected)
    drawn = cl.RescaleMasks.matched_random(clas, magnitude, seed=3)
    others = cl.RescaleMasks.other_categories(clas)
    own = cl.baselines.Amplify(cl.categories.category_selection(clas.categories, LAYERS))
    assert {site.kind for site in own.edits(llama, ["de"])} == {"attn"}
    for control in (drawn, others, cl.RescaleMasks.uniform(clas)):
        assert control.site == control.settings()["site"] == "attn"
        assert {site.kind for site in control.edits(llama, ["de"])} == {"attn"}
    for layer in LAYERS:
        for mine, theirs in zip(drawn.every_mask, clas.every_mask, strict=True):
            assert mine[layer].sum() == theirs[layer].sum()


def test_noise_moves_attention_s_output_as_far_as_clas(llama, clas, tokens):
    noise = cl.MatchedNoise.for_model(llama, clas, seed=1)
    only = replace(clas, layers=(1,))
    moved = {}
    for name, one in (("clas", only), ("noise", replace(noise, clas=only, directions=noise.directions[:1]))):
        with torch.no_grad():
            _, before = llama.run_with_cache(tokens)
            with cl.steer(llama, one, language="de"):
                _, after = llama.run_with_cache(tokens)
        moved[name] = after["blocks.1.hook_attn_out"] - before["blocks.1.hook_attn_out"]
    torch.testing.assert_close(moved["noise"].norm(dim=-1), moved["clas"].norm(dim=-1), rtol=1e-3, atol=1e-5)
    directions = torch.nn.functional.normalize(moved["noise"], dim=-1).flatten(0, 1)
    torch.testing.assert_close(directions, directions[:1].expand_as(directions), atol=2e-3, rtol=0)


# --- kept, and not taken for the other site ---


def test_files_say_their_site(clas, stats, tmp_path, small_cats):
    clas.save_pretrained(tmp_path / "clas")
    loaded = cl.load_intervention(tmp_path / "clas")
    assert loaded.site == "attn"
    assert loaded.fingerprint() == clas.fingerprint()
    assert loaded.settings() == clas.settings()
    other = replace(clas, categories=replace(clas.categories, model={**stats.model, "site": "mlp"}))
    assert other.fingerprint() != clas.fingerprint()
    assert cl.Clas(small_cats, layers=LAYERS).site == "mlp"
    assert "4 heads x 8" in repr(stats)
    assert "4 heads x 8" in repr(clas.categories)


def test_fingerprints_are_of_the_site_and_see_through_backends(lens_models):
    prints = {neuron_fingerprint(lens_models["gemma3", backend], "attn") for backend in BACKENDS}
    assert len(prints) == 1
    assert prints != {neuron_fingerprint(lens_models["gemma3", "hooked"])}


def test_one_site_is_not_taken_for_the_other(llama, corpus, stats, small_stats, small_cats, clas):
    cats = clas.categories
    selection = cl.categories.category_selection(cats)
    with pytest.raises(ValueError, match="statistics of site='mlp' and categories of site='attn'"):
        cl.categories.top_neurons(small_stats, cats, corpus, "de")
    with pytest.raises(ValueError, match="different model"):
        small_stats.merge(replace(stats, settings=small_stats.settings))
    with pytest.raises(cl.SteeringError, match="magnitudes are"):
        cl.RescaleMasks.matched_random(clas, cl.baselines.neuron_magnitude(llama, small_stats), seed=0)
    with pytest.raises(cl.SteeringError, match="Overwrite is for site='mlp'; these are of site='attn'"):
        cl.Overwrite.int_mu(stats, selection, site="post")
    with pytest.raises(ValueError, match="another site"):
        cl.Overwrite.int_mu(small_stats.select(stats.languages), selection, site="post")
    last = replace(stats, pooling="last")
    for gated, options in ((cl.lape, {}), (cl.act_prob, {"share": 0.1}), (cl.baselines.sadi_neurons, {})):
        with pytest.raises(ValueError, match="which has no gate"):
            gated(last, **options)
    with pytest.raises(ValueError, match="MLP neurons have no heads"):
        small_cats.by_head()
    with pytest.raises(ValueError, match="unknown site 'z'"):
        _ = cl.Clas(replace(cats, model={"site": "z"}), layers=LAYERS).site
    with (
        pytest.raises(cl.SteeringError, match="5 layers x 48 neurons"),
        cl.steer(llama, cl.Clas(replace(small_cats, model=stats.model), layers=LAYERS), "de"),
    ):
        pass


def test_top_units_name_their_head(llama, corpus, stats, clas):
    table = cl.categories.top_neurons(stats, clas.categories, corpus, "de", n=4)
    assert (table["head"] == table["neuron"] // 8).all()
    line = table.iloc[0]
    direction = llama.blocks[line.layer].attn.W_O[line["head"], line.neuron % 8].detach()
    top = cl.models.direct_logits(llama, direction[None])[0, : len(llama.tokenizer)].argmax()
    promoted = cl.categories.with_promoted_tokens(table, llama)["promoted"].iloc[0]
    assert promoted[0] == llama.tokenizer.decode([int(top)])


def test_a_model_without_the_hook_point_is_refused(folders, corpus, clas):
    model = cl.load_model(folders["llama"], check=False)
    del model.hook_dict["blocks.3.attn.hook_z"]
    with pytest.raises(cl.ModelLoadError, match=r"no attention hook point 'blocks.3.attn.hook_z' \(1 of 5 layers"):
        cl.collect_statistics(model, corpus, site="attn")
    with pytest.raises(cl.ModelLoadError, match="Use site='mlp'"), cl.steer(model, clas, "de"):
        pass
    check_units(model, "mlp")
    model = cl.load_model(folders["llama"], check=False)
    model.cfg.d_head = 6
    with pytest.raises(cl.ModelLoadError, match="takes 32 inputs, not one for each of 4 heads x 6"):
        check_units(model, "attn")
