"""The streaming pass against the plain definition, and the same numbers whatever the batches, padding or shards."""

import pytest
import torch

import clas_lens as cl
from clas_lens.accumulate import NonFiniteActivationError
from clas_lens.sites import gate_name, post_name
from clas_lens.tokens import tokenize

TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}  # float32 forward passes of different widths
FIELDS = ("mean", "second_moment", "firing_rate", "gate_rate", "max")


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


def test_batches_padding_and_backends_change_nothing(each_model, small_corpus):
    corpus = small_corpus.select(["en", "zh"])
    one_by_one = collect(each_model, corpus, batch_size=1)
    assert_same(collect(each_model, corpus, batch_size=5), one_by_one)
    assert_same(collect(each_model, corpus, batch_size=5, padding_side="right"), one_by_one)


def test_both_backends_agree(lens_models, small_corpus):
    hooked, bridge = (collect(lens_models["gemma3", backend], small_corpus) for backend in ("hooked", "bridge"))
    assert_same(hooked, bridge)
    assert hooked.model["neurons"] == bridge.model["neurons"]


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


def test_finished_languages_are_skipped_unless_something_changed(folders, small_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("clas_lens.tokens.CPU_BATCH_TOKENS", 10**6)  # one batch a language
    model = cl.load_model(folders["llama"])
    collect(model, small_corpus.select(["en"]), out=tmp_path)
    passes = []
    real = cl.collect.run_layers

    def counted(*args):
        passes.append(1)
        real(*args)

    monkeypatch.setattr("clas_lens.collect.run_layers", counted)

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
    assert n_passes(both, pooling="token")[0] == 2
    assert n_passes(both.take(range(4)))[0] == 2
    with torch.no_grad():
        model.blocks[0].mlp.W_in[1, 1] += 0.5
    assert n_passes(both.take(range(4)))[0] == 2
    assert n_passes(both.take(range(4)))[0] == 0
    model.cfg.eps *= 10
    assert n_passes(both.take(range(4)))[0] == 2


def test_interrupted_runs_lose_one_language_at_most(llama, small_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("clas_lens.tokens.CPU_BATCH_TOKENS", 10**6)  # one batch a language
    real, seen = cl.collect.run_layers, []

    def interrupt(*args):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(1)
        real(*args)

    monkeypatch.setattr("clas_lens.collect.run_layers", interrupt)
    with pytest.raises(KeyboardInterrupt):
        collect(llama, small_corpus, batch_size=100, out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["de.safetensors", "en.safetensors"]


def test_a_model_without_tokenizer_says_what_to_do(hf_models, small_corpus):
    from clas_lens.hooked import to_hooked_transformer

    with pytest.raises(ValueError, match="has no tokenizer"):
        collect(to_hooked_transformer(hf_models["llama"], None, name="x"), small_corpus)


def test_memory_does_not_grow_with_the_corpus(llama):
    """The accumulator's size depends on the model alone."""
    texts = cl.ParallelCorpus.bundled(["en", "de"])

    def size(n):
        return sum(t.numel() * t.element_size() for t in collect(llama, texts.take(range(n))).sums.values())

    assert size(3) == size(60)


def test_progress_can_be_silent(llama, small_corpus, capsys):
    cl.collect_statistics(llama, small_corpus, progress=False)
    assert capsys.readouterr().err == ""
    cl.collect_statistics(llama, small_corpus, progress=True)
    assert "batch/s" in capsys.readouterr().err
