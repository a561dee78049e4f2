"""The logit lens against plain Transformers, by hand, on both backends; steered and not."""

import numpy as np
import pytest
import torch
from tiny import BACKENDS, FAMILIES, assert_no_hooks

import clas_lens as cl
from clas_lens.corpus.tokens import pad
from clas_lens.lens.prompts import shown_words
from clas_lens.lens.reading import LensPass
from clas_lens.models.loading import ModelLoadError

WORDS = ("water", "sun", "dog", "two", "bread")


def lens_of_transformers(hf, ids):
    """Log-probabilities after every block at every position: [layer pos d_vocab]."""
    seen = []
    handles = [
        block.register_forward_hook(
            lambda module, inputs, output: seen.append(output if torch.is_tensor(output) else output[0])
        )
        for block in hf.model.layers
    ]
    with torch.no_grad():
        own = hf(torch.tensor([ids])).logits[0].log_softmax(-1)
        read = torch.stack([hf.lm_head(hf.model.norm(residual))[0].log_softmax(-1) for residual in seen])
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(read[-1], own)
    return read


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_lens_is_that_of_transformers(lens_models, hf_models, family, backend):
    model, hf = lens_models[family, backend], hf_models[family]
    prompts = [cl.lens.lens_prompt(word, "de", shots=shots) for word, shots in (("sun", 1), ("dog", 2))]
    ids = [model.tokenizer(text)["input_ids"] for text in prompts]
    lens = LensPass(model, pad(ids, [0, 1]), range(5), n=3)
    assert_no_hooks(model)
    for row, one in enumerate(ids):
        expected = lens_of_transformers(hf, one)[:, -3:]
        for layer, found in enumerate(lens.log_probs()):
            torch.testing.assert_close(found[row], expected[layer], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_soft_cap_is_the_models_own(lens_models, backend, monkeypatch, tokens):
    """With a cap that Transformers applies too, the lens has it at each layer; a cap that it does not is refused."""
    model = lens_models["gemma3", backend]
    batch = pad(tokens.tolist(), [0, 1])
    plain = LensPass(model, batch, [2, 4]).logits(2)
    monkeypatch.setattr(model.cfg, "output_logits_soft_cap", 2.0)
    if backend == "bridge":
        with pytest.raises(ModelLoadError, match="does more after its last block"):
            LensPass(model, batch, [2, 4])
        monkeypatch.setattr(model.original_model.config, "final_logit_softcapping", 2.0)
    capped = LensPass(model, batch, [2, 4]).logits(2)
    torch.testing.assert_close(capped, 2 * torch.tanh(plain / 2))


def by_hand(hf, tokenizer, word, language, compared, **options):
    """The probabilities of one word at every layer by language, and those of the words that are not in its prompt."""
    prompt = cl.lens.lens_prompt(word, language, **options)
    probs = lens_of_transformers(hf, tokenizer(prompt)["input_ids"])[:, -1].exp().double()
    table = cl.lens.everyday_words(compared)
    own, other = {}, {}

    def first(name, code):
        found = set()
        for before, text in ((': "', table.loc[name, code]), ("a", " " + table.loc[name, code])):
            whole = tokenizer(before + text, add_special_tokens=False)["input_ids"]
            found.add(whole[len(tokenizer(before, add_special_tokens=False)["input_ids"])])
        return {token for token in found if tokenizer.decode([token]).strip()}

    seen = shown_words(word, "translation", options["shots"], options.get("seed", 0))
    for code in compared:
        tokens = {
            name: first(name, code) - set().union(*(first(name, one) for one in compared if one != code))
            for name in WORDS
        }
        own[code] = probs[:, sorted(tokens[word])].sum(-1) if tokens[word] else torch.full((5,), torch.nan)
        rest = [probs[:, sorted(tokens[n])].sum(-1) for n in WORDS if n != word and n not in seen and tokens[n]]
        other[code] = torch.stack(rest).mean(0)
    return own, other


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_frame_by_hand(lens_models, hf_models, backend):
    model, hf = lens_models["llama", backend], hf_models["llama"]
    frame = cl.lens.latent_language(
        model, ["de", "sw"], words=WORDS, shots=1, seed=3, batch_size=2, n_boot=50, progress=False
    )
    compared = ["de", "sw", "en", "fr"]
    assert list(dict.fromkeys(frame["word_language"])) == compared
    assert set(frame["when"]) == {"before"}
    assert len(frame) == 2 * 5 * 4
    for language in ("de", "sw"):
        parts = [by_hand(hf, model.tokenizer, word, language, compared, shots=1, seed=3) for word in WORDS]
        for code in compared:
            own = np.stack([own[code] for own, _ in parts])
            control = np.stack([other[code] for _, other in parts])
            known = np.isfinite(own[:, 0])
            rows = frame[(frame["language"] == language) & (frame["word_language"] == code)].sort_values("layer")
            np.testing.assert_allclose(rows["probability"], own[known].mean(0), rtol=2e-3, atol=1e-8)
            np.testing.assert_allclose(rows["control"], control[known].mean(0), rtol=2e-3, atol=1e-8)
            assert set(rows["n"]) == {known.sum()}
            assert set(rows["left_out"]) == {(~known).sum()}
            assert ((rows["low"] <= rows["probability"] + 1e-9) & (rows["probability"] <= rows["high"] + 1e-9)).all()


def test_before_and_after(llama, small_cats):
    clas = cl.Clas(small_cats, layers=(2, 3), alpha=-2.0)
    options = {"words": WORDS, "shots": 1, "n_boot": 20, "progress": False}
    both = cl.lens.latent_language(llama, ["de", "en"], intervention=clas, **options)
    alone = cl.lens.latent_language(llama, ["de", "en"], **options)
    before, after = (both[both["when"] == when].reset_index(drop=True) for when in ("before", "after"))
    assert before.equals(alone)
    moved = (before["probability"] != after["probability"]).groupby([before["language"], before["layer"]]).any()
    assert moved["de"].tolist() == [False, False, True, True, True]
    assert not moved["en"].any()  # the anchor
    steered = by_rule(llama, clas)
    again = cl.lens.top_tokens(llama, "Ein Hund und", intervention=clas, language="de", k=1, n_positions=1)
    assert again.loc[again["layer"] == 4, "probability"].item() == pytest.approx(steered, rel=1e-5)
    assert_no_hooks(llama)


def by_rule(model, clas):
    with torch.no_grad(), cl.steer(model, clas, "de"):
        logits = model(torch.tensor([model.tokenizer("Ein Hund und")["input_ids"]]))
    return float(logits[0, -1].softmax(-1).max())


def test_strengths_that_adapt_are_read_steered(llama, small_cats):
    clas = cl.Clas(small_cats, layers=(2, 3), alpha=-2.0)
    adaptive = cl.Adaptive(clas)
    found = cl.lens.top_tokens(llama, "Ein Hund und", intervention=adaptive, language="de", k=1, n_positions=1)
    with torch.no_grad(), cl.steer(llama, adaptive, "de"):
        logits = llama(torch.tensor([llama.tokenizer("Ein Hund und")["input_ids"]]))
    assert found["probability"].iloc[-1] == pytest.approx(float(logits[0, -1].softmax(-1).max()), rel=1e-5)


def test_top_tokens_are_those_of_transformers(each_model, hf_models):
    hf = hf_models[next(family for family in FAMILIES if family in each_model.cfg.model_name)]
    ids = each_model.tokenizer("Die Katze schläft")["input_ids"]
    frame = cl.lens.top_tokens(each_model, "Die Katze schläft", n_positions=3, k=2)
    expected = lens_of_transformers(hf, ids).exp()
    assert len(frame) == 5 * 3 * 2
    for row in frame.itertuples():
        assert row.token == each_model.tokenizer.decode([ids[row.position]])
        assert row.top == each_model.tokenizer.decode([row.token_id])
        best = expected[row.layer, row.position].sort(descending=True).values[row.rank - 1]
        assert row.probability == pytest.approx(float(best), rel=2e-3)
    short = cl.lens.top_tokens(each_model, "a", n_positions=20)
    assert set(short["position"]) == {-1}  # BOS is not read


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["xx"]}, "unknown language 'xx'"),
        ({"languages": "de"}, "list"),
        ({"languages": ["ja"]}, "unknown language 'ja'; available: ar, bg"),
        ({"words": ["watr"]}, "unknown word 'watr'"),
        ({"words": ["dog", "dog"]}, "each once"),
        ({"words": []}, "at least one"),
        ({"words": ["water"], "prompt": "cloze"}, "'water' has no definition"),
        ({"source": "de"}, "source and language are both 'de'"),
        ({"source": "fr", "prompt": "cloze"}, "goes with prompt='translation'"),
        ({"shots": 60}, "shots must be a whole number, at least 0 and at most 59"),
        ({"layers": [5]}, "layers must be"),
        ({"level": 1.0}, "level must be"),
        ({"n_boot": 1}, "n_boot must be"),
        ({"shots": 40}, "has room for 512: fewer shots"),
    ],
)
def test_refusals(llama, options, message):
    with pytest.raises(ValueError, match=message):
        cl.lens.latent_language(llama, **{"languages": ["de"], "progress": False, **options})


def test_refusals_of_top_tokens(llama, small_cats):
    clas = cl.Clas(small_cats, layers=(2, 3), alpha=-2.0)
    with pytest.raises(ValueError, match="go together"):
        cl.lens.top_tokens(llama, "a", intervention=clas)
    with cl.steer(llama, clas, "de", must_fire=False), pytest.raises(ValueError, match="outside `steer`"):
        cl.lens.top_tokens(llama, "a")


def test_one_word_has_no_interval(llama):
    frame = cl.lens.latent_language(llama, ["de"], words=["dog"], shots=1, compare=["de"], progress=False)
    assert frame["probability"].notna().all()
    assert frame[["low", "high", "control"]].isna().all(axis=None)
