"""The streaming pass against the plain definition, and the same numbers whatever the batches, padding or shards."""

from contextlib import nullcontext

import pytest
import torch
from tiny import BACKENDS, needs_hooked
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import clas_lens as cl
from clas_lens.corpus.reading import NonFiniteActivationError
from clas_lens.corpus.tokens import tokenize
from clas_lens.models.sites import gate_name, post_name
from clas_lens.statistics.histogram import count_bins

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4

TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}  # float32 forward passes of different widths
FIELDS = ("mean", "second_moment", "gate_mean", "gate_act_mean", "firing_rate", "gate_rate", "max")


def collect(model, corpus, **options):
    return cl.collect_statistics(model, corpus, progress=False, **options)


def assert_same(one, other, **tolerance):
    for name in FIELDS:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), **(tolerance or TOLERANCE))
    assert torch.equal(one.n_tokens, other.n_tokens)
    assert torch.equal(one.n_samples, other.n_samples)


def by_definition(model, texts, pooling):
    """Mean, P(h>0), P(gate>0), max per layer and neuron, from cached activations of one text at a time."""
    tokenized = tokenize(model.tokenizer, texts)
    names = [post_name(i) for i in range(model.cfg.n_layers)] + [gate_name(i) for i in range(model.cfg.n_layers)]
    pooled, fired, gated, maximum, total = [], 0, 0, None, 0
    for ids in tokenized.ids:
        _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=lambda name: name in names)
        h = torch.stack([cache[post_name(i)][0, tokenized.n_prefix :] for i in range(model.cfg.n_layers)])
        gate = torch.stack([cache[gate_name(i)][0, tokenized.n_prefix :] for i in range(model.cfg.n_layers)])
        if pooling == "last":
            h, gate = h[:, -1:], gate[:, -1:]
        pooled.append(h.mean(1) if pooling != "token" else h.sum(1))
        fired, gated, total = fired + (h > 0).sum(1), gated + (gate > 0).sum(1), total + h.shape[1]
        top = h.amax(1)
        maximum = top if maximum is None else torch.maximum(maximum, top)
    mean = sum(pooled) / (total if pooling == "token" else len(pooled))
    return mean, fired / total, gated / total, maximum


@pytest.mark.parametrize("pooling", ["sample", "token", "last"])
def test_equals_the_definition(llama, small_corpus, pooling):
    stats = collect(llama, small_corpus, batch_size=5, pooling=pooling)
    for row, language in enumerate(stats.languages):
        mean, firing, gate, maximum = by_definition(llama, small_corpus[language], pooling)
        torch.testing.assert_close(stats.mean[row], mean, **TOLERANCE)
        torch.testing.assert_close(stats.firing_rate[row], firing.float(), atol=0.01, rtol=0)
        torch.testing.assert_close(stats.gate_rate[row], gate.float(), atol=0.01, rtol=0)
        torch.testing.assert_close(stats.max[row], maximum, **TOLERANCE)


@pytest.mark.parametrize("pooling", ["sample", "token"])
def test_gate_statistics_equal_those_of_the_hugging_face_modules(each_model, hf_models, small_corpus, pooling):
    """The gate's means before and after its nonlinearity and its histogram, from hooks on gate_proj and act_fn."""
    corpus = small_corpus.select(["en", "ar"]).take(range(5))
    stats = collect(each_model, corpus, pooling=pooling, histograms=True)
    tokenized = tokenize(each_model.tokenizer, corpus["ar"])
    hf_model = hf_models[each_model.cfg.model_name.removeprefix("tiny-")]
    mlp = hf_model.model.layers[3].mlp
    for module, mean, of in ((mlp.gate_proj, stats.gate_mean, "gate"), (mlp.act_fn, stats.gate_act_mean, "gate_act")):
        seen = []
        handle = module.register_forward_hook(lambda module, args, out, seen=seen: seen.append(out[0]))
        with torch.no_grad():
            for ids in tokenized.ids:
                hf_model(torch.tensor([ids]))
        handle.remove()
        content = [values[tokenized.n_prefix :] for values in seen]
        together = torch.cat(content)
        pooled = together.mean(0) if pooling == "token" else torch.stack([v.mean(0) for v in content]).mean(0)
        torch.testing.assert_close(mean[1, 3], pooled, **TOLERANCE)
        counts, expected = stats.histogram(of)[1, 3], count_bins(together)
        assert counts.sum() == expected.sum()
        assert (counts - expected).abs().sum() <= 0.001 * expected.sum()  # values that float error puts past an edge


def plain_mlp_model(backend, folder, tokenizer):
    """A random model whose MLPs have no gate."""
    shape = {"n_layers": 3, "d_model": 32, "n_ctx": 512, "d_head": 8, "d_mlp": 48, "d_vocab": 600}
    if backend == "hooked":
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        cfg = HookedTransformerConfig(**shape, act_fn="gelu_new", model_name="plain", seed=0, device="cpu")
        return HookedTransformer(cfg, tokenizer, default_padding_side="left")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=600, n_embd=32, n_layer=3, n_head=4, n_inner=48, n_positions=512)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return cl.load_model(folder, backend="bridge", device="cpu")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_mlp_without_a_gate(folders, tmp_path, small_corpus, backend):
    """Its pre-activation counts as the gate, so act(gate) is h."""
    model = plain_mlp_model(backend, tmp_path / "gpt2", AutoTokenizer.from_pretrained(folders["llama"]))
    stats = collect(model, small_corpus.select(["en", "de"]).take(range(4)), histograms=True)
    torch.testing.assert_close(stats.gate_act_mean, stats.mean)
    assert not torch.allclose(stats.gate_mean, stats.mean)
    assert (stats.histogram("gate_act") - stats.histogram("h")).abs().sum() <= 0.001 * stats.histogram("h").sum()


@pytest.mark.parametrize("pooling", ["sample", "last"])
def test_histograms_count_what_the_rates_count(llama, small_corpus, pooling):
    stats = collect(llama, small_corpus, pooling=pooling, histograms=True)
    for of, rate in (("h", stats.firing_rate), ("gate", stats.gate_rate)):
        counts = stats.histogram(of)
        assert torch.equal(counts.sum(-1), stats.n_counted[:, None, None].expand(counts.shape[:-1]))
        assert torch.equal((counts[..., 32:].sum(-1).double() / stats.n_counted[:, None, None]).float(), rate)


def test_batches_padding_and_backends_change_nothing(each_model, small_corpus):
    corpus = small_corpus.select(["en", "zh"])
    one_by_one = collect(each_model, corpus, batch_size=1)
    assert_same(collect(each_model, corpus, batch_size=5), one_by_one)
    assert_same(collect(each_model, corpus, batch_size=5, padding_side="right"), one_by_one)


@needs_hooked
def test_both_backends_agree(lens_models, small_corpus):
    hooked, bridge = (collect(lens_models["gemma3", backend], small_corpus) for backend in ("hooked", "bridge"))
    assert_same(hooked, bridge)
    assert hooked.model["neurons"] == bridge.model["neurons"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gate_is_the_same_whether_its_nonlinearity_is_seen_or_computed_again(
    lens_models, small_corpus, backend, monkeypatch
):
    model = lens_models["gemma3", backend]
    with monkeypatch.context() as patch:
        patch.delattr("clas_lens.statistics.collect.gate_activation")  # nothing is computed again
        seen = collect(model, small_corpus)
    monkeypatch.setattr("clas_lens.statistics.collect.gate_activations_seen", lambda *_: nullcontext())
    assert_same(seen, collect(model, small_corpus), atol=1e-7, rtol=1e-6)


@needs_hooked
def test_the_nonlinearity_is_put_back(llama, small_corpus):
    before = [block.mlp.act_fn for block in llama.blocks]
    collect(llama, small_corpus.take(range(2)))
    assert [block.mlp.act_fn for block in llama.blocks] == before


def test_maxima_point_at_their_token(llama, small_corpus):
    stats = collect(llama, small_corpus, batch_size=3)
    layer, neuron, row = 2, 7, 1
    example, position = int(stats.max_example[row, layer, neuron]), int(stats.max_position[row, layer, neuron])
    tokenized = tokenize(llama.tokenizer, [small_corpus[stats.languages[row]][example]])
    _, cache = llama.run_with_cache(torch.tensor([tokenized.ids[0]]))
    value = cache[post_name(layer)][0, tokenized.n_prefix + position, neuron]
    torch.testing.assert_close(value, stats.max[row, layer, neuron], **TOLERANCE)


def test_merged_shards_equal_one_pass(llama, small_corpus):
    whole = collect(llama, small_corpus, batch_size=1)
    first = collect(llama, small_corpus.take(range(5)), batch_size=1)
    rest = collect(llama, small_corpus.take(range(5, len(small_corpus))), batch_size=1)
    merged = first.merge(rest)
    assert_same(merged, whole, atol=1e-7, rtol=1e-6)
    assert torch.equal(merged.max_example, whole.max_example)
    assert merged.example_ids == whole.example_ids
    with pytest.raises(ValueError, match="is in both shards"):
        first.merge(first)
    with pytest.raises(ValueError, match="different languages"):
        first.merge(rest.select(["en", "de"]))


def test_bos_and_padding_do_not_count(llama, small_corpus):
    stats = collect(llama, small_corpus)
    content = sum(len(ids) - 1 for ids in tokenize(llama.tokenizer, small_corpus["en"]).ids)
    assert stats.n_tokens[stats.languages.index("en")] == content


def test_truncation_is_counted(llama, small_corpus):
    stats = collect(llama, small_corpus, max_tokens=20)
    assert stats.settings["max_tokens"] == 20
    assert stats.texts["en"]["truncated"] == sum(
        len(ids) > 20 for ids in tokenize(llama.tokenizer, small_corpus["en"]).ids
    )
    assert stats.texts["en"]["truncated"] > 0


def test_nan_weights_name_layer_and_language(folders, small_corpus):
    model = cl.load_model(folders["llama"])
    with torch.no_grad():
        model.blocks[3].mlp.W_gate[0, 0] = float("nan")
    with pytest.raises(NonFiniteActivationError, match="layer 3, language 'en'"):
        collect(model, small_corpus)


def one_batch_a_language(monkeypatch):
    for name in ("CPU_BATCH_TOKENS", "CPU_BATCH_COST"):
        monkeypatch.setattr(f"clas_lens.corpus.tokens.{name}", 10**6)


def test_finished_languages_are_skipped_unless_something_changed(folders, small_corpus, tmp_path, monkeypatch):
    one_batch_a_language(monkeypatch)
    model = cl.load_model(folders["llama"])
    collect(model, small_corpus.select(["en"]), out=tmp_path)
    passes = []
    real = cl.corpus.reading.run_layers

    def counted(*args):
        passes.append(1)
        real(*args)

    monkeypatch.setattr("clas_lens.corpus.reading.run_layers", counted)

    def n_passes(corpus, **options):
        passes.clear()
        stats = collect(model, corpus, out=tmp_path, batch_size=100, **options)
        return len(passes), stats

    both = small_corpus.select(["en", "de"])
    count, stats = n_passes(both)
    assert count == 1  # only de
    assert stats.languages == ("en", "de")
    assert n_passes(both)[0] == 0
    assert_same(stats, collect(model, both, batch_size=100))
    assert n_passes(both, histograms=True)[0] == 2
    assert n_passes(both, histograms=True)[0] == 0
    assert n_passes(both)[0] == 2
    assert n_passes(both, pooling="token")[0] == 2
    assert n_passes(both.take(range(4)))[0] == 2
    with torch.no_grad():
        model.blocks[0].mlp.W_in[1, 1] += 0.5
    assert n_passes(both.take(range(4)))[0] == 2
    assert n_passes(both.take(range(4)))[0] == 0
    model.cfg.eps *= 10
    assert n_passes(both.take(range(4)))[0] == 2


def test_interrupted_runs_lose_one_language_at_most(llama, small_corpus, tmp_path, monkeypatch):
    one_batch_a_language(monkeypatch)
    real, seen = cl.corpus.reading.run_layers, []

    def interrupt(*args):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(1)
        real(*args)

    monkeypatch.setattr("clas_lens.corpus.reading.run_layers", interrupt)
    with pytest.raises(KeyboardInterrupt):
        collect(llama, small_corpus, batch_size=100, out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["de.safetensors", "en.safetensors"]


def test_a_damaged_or_exchanged_file_is_measured_again_and_a_kept_one_keeps_its_versions(llama, small_corpus, tmp_path):
    corpus = small_corpus.select(["en", "de"]).take(range(3))
    first = collect(llama, corpus, out=tmp_path)
    english, german = tmp_path / "en.safetensors", tmp_path / "de.safetensors"
    english.write_bytes(german.read_bytes())
    kept = german.read_bytes()
    again = collect(llama, corpus, out=tmp_path)
    assert torch.equal(again.mean, first.mean)
    assert german.read_bytes() == kept
    assert again.made["de"] == first.made["de"]
    assert torch.equal(cl.NeuronStatistics.load(tmp_path, ["en", "de"]).mean, first.mean)


def test_what_is_saved_by_hand_is_not_measured_again(llama, small_corpus, tmp_path, monkeypatch):
    first = collect(llama, small_corpus.take(range(2)))
    first.save(tmp_path)
    monkeypatch.setattr("clas_lens.corpus.reading.run_layers", lambda *args: pytest.fail("measured again"))
    assert torch.equal(collect(llama, small_corpus.take(range(2)), out=tmp_path).mean, first.mean)


def test_what_something_else_acts_on_is_not_measured(llama, small_cats, small_corpus, tmp_path):
    with cl.steer(llama, cl.Clas(small_cats, layers=(1,)), language="de", must_fire=False):
        with pytest.raises(ValueError, match="call collect_statistics outside `steer`"):
            collect(llama, small_corpus)
    few = small_corpus.take(range(2))
    with cl.models.hooked(llama, [(post_name(0), lambda h, hook: 2 * h)]):
        with pytest.raises(ValueError, match=r"hooks of yours \(at 'blocks.0.mlp."):
            collect(llama, few, out=tmp_path)
        doubled = collect(llama, few)
    torch.testing.assert_close(doubled.mean[:, 0], 2 * collect(llama, few).mean[:, 0])


def test_what_a_hook_of_pytorch_changed_is_not_taken_for_the_models_own(model, small_corpus, tmp_path):
    """Nobody can tell what it does: it is recorded, and what was kept with it is measured again without."""
    few = small_corpus.take(range(2))
    handle = model.blocks[1].mlp.register_forward_hook(lambda mlp, inputs, output: 2 * output)
    try:
        changed = collect(model, few, out=tmp_path)
    finally:
        handle.remove()
    assert [name.rpartition(".")[2] for name in changed.model["hooked_modules"]] == ["mlp"]
    own = collect(model, few, out=tmp_path)
    assert "hooked_modules" not in own.model
    assert not torch.allclose(own.mean, changed.mean)
    assert torch.equal(own.mean, collect(model, few).mean)


def test_a_mapping_of_texts_is_taken_for_a_corpus(llama, small_corpus):
    corpus = small_corpus.take(range(2))
    texts = {code: list(corpus[code]) for code in corpus.languages}
    assert torch.equal(collect(llama, texts).mean, collect(llama, cl.ParallelCorpus.from_texts(texts)).mean)


@needs_hooked
def test_a_model_without_tokenizer_says_what_to_do(hf_models, small_corpus):
    from clas_lens.models.hooked import to_hooked_transformer  # a bridge has one

    with pytest.raises(ValueError, match="has no tokenizer"):
        collect(to_hooked_transformer(hf_models["llama"], None, name="x"), small_corpus)


def test_memory_does_not_grow_with_the_corpus(llama):
    """The accumulator's size depends on the model alone."""
    texts = cl.ParallelCorpus.bundled(["en", "de"])

    def size(n):
        return sum(t.numel() * t.element_size() for t in collect(llama, texts.take(range(n))).sums.tensors().values())

    assert size(3) == size(60)


def test_progress_can_be_silent(llama, small_corpus, capsys):
    cl.collect_statistics(llama, small_corpus, progress=False)
    assert capsys.readouterr().err == ""
    cl.collect_statistics(llama, small_corpus, progress=True)
    assert "batch/s" in capsys.readouterr().err
