"""Sentence representations against Hugging Face's own hidden states, streamed, resumed, steered."""

import pytest
import torch
from tiny import BACKENDS

import clas_lens as cl
from clas_lens.artifacts import ArtifactError
from clas_lens.corpus.reading import NonFiniteActivationError
from clas_lens.corpus.tokens import tokenize
from clas_lens.models.sites import post_name, residual_name
from clas_lens.representations.alignment import AlignmentError, cosine_frame
from clas_lens.representations.collect import collect_representations
from clas_lens.representations.sentences import Representations

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4

LAYERS = (1, 3)


@pytest.fixture(scope="module")
def few(small_corpus):
    """Five beginnings of texts, of very different lengths, in three languages."""
    texts = {code: [t[: 4 * 2**i] for i, t in enumerate(small_corpus[code][:5])] for code in ("en", "de", "zh")}
    return cl.ParallelCorpus.from_texts(texts)


@pytest.fixture
def clas(small_cats):
    return cl.Clas(small_cats, layers=(1, 2), alpha=-2.0)


def collect(model, corpus, layers=LAYERS, **options):
    return collect_representations(model, corpus, layers, progress=False, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_equal_to_hugging_faces_hidden_states(lens_models, hf_models, few, family, backend):
    model = lens_models[family, backend]
    mean, last = (collect(model, few, pool=pool, batch_size=3) for pool in ("mean", "last"))
    assert mean.values.shape == (3, 5, 2, 32)
    assert mean.values.dtype == torch.float32
    for language in ("de", "zh"):
        texts = tokenize(model.tokenizer, few[language])
        for row, ids in enumerate(texts.ids):
            with torch.no_grad():
                hidden = hf_models[family](torch.tensor([ids]), output_hidden_states=True).hidden_states
            outputs = torch.stack([hidden[layer + 1][0] for layer in LAYERS])
            expected = outputs[:, texts.n_prefix :].mean(1)
            torch.testing.assert_close(mean.of(language)[row], expected, atol=2e-4, rtol=2e-4)
            torch.testing.assert_close(last.of(language)[row], outputs[:, -1], atol=2e-4, rtol=2e-4)


def test_batched_equals_single(model, few):
    for pool in ("mean", "last"):
        single, batched = (collect(model, few, pool=pool, batch_size=size) for size in (1, 5))
        torch.testing.assert_close(single.values, batched.values, atol=1e-5, rtol=1e-4)


def test_steered_equals_the_steered_models_own_cache(model, clas, few):
    after, before = collect(model, few, intervention=clas), collect(model, few)
    assert (before.intervention, after.intervention) == (None, clas.fingerprint())
    assert torch.equal(after.of("en"), before.of("en"))
    assert not torch.equal(after.of("de"), before.of("de"))
    steered = [(post_name(i), lambda h, hook, i=i: h * clas.scale("de")[i].float()) for i in clas.layers]
    seen = {}
    read = [(residual_name(i), lambda x, hook, i=i: seen.update({i: x[0, 1:].mean(0)})) for i in LAYERS]
    for row, text in enumerate(few["de"]):
        with torch.no_grad():
            model.run_with_hooks(torch.tensor(tokenize(model.tokenizer, [text]).ids), fwd_hooks=steered + read)
        expected = torch.stack([seen[layer] for layer in LAYERS])
        torch.testing.assert_close(after.of("de")[row], expected, atol=1e-5, rtol=1e-4)


def test_alpha_zero_is_bit_identical(model, small_cats, few):
    nothing = cl.Clas(small_cats, layers=(1,), alpha=0.0)
    assert torch.equal(collect(model, few, intervention=nothing).values, collect(model, few).values)


def test_layers_do_not_depend_on_each_other(llama, few):
    assert torch.equal(collect(llama, few, (3,)).values, collect(llama, few, (3, 0, 1)).values[:, :, 2:])
    assert collect(llama, few, (3, 0)).layers == (0, 3)


def test_an_interrupted_collection_goes_on(llama, clas, few, tmp_path, monkeypatch):
    whole = collect(llama, few, intervention=clas)
    real, passes = cl.corpus.reading.run_layers, []

    def interrupted(*args):
        passes.append(1)
        if len(passes) == 4:  # two batches a language: in the second language
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr("clas_lens.corpus.reading.run_layers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(llama, few, intervention=clas, out=tmp_path, batch_size=3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["en.safetensors"]
    resumed = collect(llama, few, intervention=clas, out=tmp_path, batch_size=3)
    assert len(passes) == 4 + 2 * 2
    torch.testing.assert_close(resumed.values, whole.values, atol=1e-5, rtol=1e-4)
    again = collect(llama, few, intervention=clas, out=tmp_path)
    assert len(passes) == 8
    assert again.fingerprint() == resumed.fingerprint()


@pytest.mark.parametrize("change", ["unsteered", "layers", "pool", "max_tokens"])
def test_files_of_other_settings_are_not_taken(llama, clas, few, tmp_path, change):
    options = {"layers": LAYERS, "intervention": clas, "pool": "mean", "max_tokens": 512}
    collect(llama, few, out=tmp_path, **options)
    options |= {"unsteered": {"intervention": None}, "layers": {"layers": (0,)}, "pool": {"pool": "last"}}.get(
        change, {"max_tokens": 4}
    )
    mixed = collect(llama, few, out=tmp_path, **options)
    assert mixed.fingerprint() == collect(llama, few, **options).fingerprint()
    if change == "max_tokens":
        assert mixed.texts["de"]["truncated"] == 4


def test_save_load_and_select(llama, few, tmp_path):
    made = collect(llama, few)
    loaded = Representations.load(made.save(tmp_path))
    assert loaded.languages == ("de", "en", "zh")
    assert loaded.select(["en", "de", "zh"]).fingerprint() == made.fingerprint()
    assert torch.equal(loaded.at("zh", 3), made.values[2, :, 1])
    assert loaded.select(["zh"]).texts == {"zh": made.texts["zh"]}
    with pytest.raises(ValueError, match="no representations in 'fr'; available: en, de, zh"):
        made.select(["fr"])
    with pytest.raises(ValueError, match="no representations of layer 2; available: 1, 3"):
        made.at("de", 2)
    with pytest.raises(ArtifactError, match="no sentence representations in"):
        Representations.load(tmp_path / "nowhere")
    collect(llama, few.select(["de"]), (1,)).save(tmp_path)
    with pytest.raises(ArtifactError, match="'en' and 'de' differ in layers"):
        Representations.load(tmp_path)


def test_names_must_fit_the_values():
    with pytest.raises(ValueError, match=r"\(1, 2, 1\) names .* for values \(1, 2, 2, 3\)"):
        Representations(torch.zeros(1, 2, 2, 3), ("en",), (0,), ("a", "b"))


def test_what_is_refused(llama, small_cats, few, monkeypatch):
    with pytest.raises(ValueError, match=r"among 0\.\.4, at least one; got \[5\]"):
        collect(llama, few, (5,))
    with pytest.raises(ValueError, match="positions='generated' would change nothing"):
        collect(llama, few, intervention=cl.Clas(small_cats, layers=(1,), positions="generated"))
    with cl.models.hooked(llama, [(residual_name(1), lambda x, hook: x * float("nan"))]):
        with pytest.raises(NonFiniteActivationError, match="layer 1, language 'en'"):
            collect(llama, few)


def test_exchanged_files_are_refused_and_read_again(llama, few, tmp_path):
    first = collect(llama, few, out=tmp_path)
    (tmp_path / "en.safetensors").write_bytes((tmp_path / "de.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match="holds sentence representations of 'de', not of 'en'"):
        Representations.load(tmp_path)
    again = collect(llama, few, out=tmp_path)
    assert again.fingerprint() == first.fingerprint()
    assert again.made["zh"] == first.made["zh"]
    assert Representations.load(tmp_path, few.languages).fingerprint() == first.fingerprint()


def test_a_steered_model_is_not_read(llama, clas, few, tmp_path):
    with cl.steer(llama, clas, language="de", must_fire=False):
        with pytest.raises(ValueError, match="call collect_representations outside `steer`"):
            collect(llama, few, intervention=clas)
        with pytest.raises(ValueError, match="call measure_effects outside `steer`"):
            cl.measure_effects(llama, clas, few, progress=False)
    with cl.models.hooked(llama, [(residual_name(1), lambda x, hook: x + 1)]):
        with pytest.raises(ValueError, match="hooks of yours"):
            collect(llama, few, out=tmp_path)


def test_what_the_mlp_adds_to_the_stream(each_model, small_corpus):
    """The residual stream's steps: MLP output = stream after the MLP - stream before it, in every family."""
    corpus = small_corpus.select(["en", "zh"]).take(range(3))
    read = collect_representations(each_model, corpus, (1, 3), site="mlp_out", progress=False)
    assert read.site == "mlp_out"
    for row, code in enumerate(corpus.languages):
        for place, text in enumerate(corpus[code]):
            tokenized = tokenize(each_model.tokenizer, [text])
            _, cache = each_model.run_with_cache(torch.tensor(tokenized.ids))
            steps = cache["blocks.3.hook_resid_post"] - cache["blocks.3.hook_resid_mid"]
            expected = steps[0, tokenized.n_prefix :].mean(0)
            torch.testing.assert_close(read.values[row, place, 1], expected, atol=1e-4, rtol=1e-3)
    stream = collect_representations(each_model, corpus, (1, 3), progress=False)
    assert stream.fingerprint() != read.fingerprint()
    with pytest.raises(AlignmentError, match="different site before and after: mlp_out and residual"):
        cosine_frame(read, stream)


def test_files_of_the_mlp_output_are_not_those_of_the_stream(llama, small_corpus, tmp_path):
    corpus = small_corpus.select(["en", "de"]).take(range(2))
    read = collect_representations(llama, corpus, (1,), site="mlp_out", out=tmp_path, progress=False)
    assert Representations.load(tmp_path, ["en", "de"]).site == "mlp_out"
    stream = collect_representations(llama, corpus, (1,), out=tmp_path, progress=False)
    assert not torch.equal(read.values, stream.values)
