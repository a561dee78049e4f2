"""INCLINE's released form by hand, against NumPy, and against Hugging Face with hooks on its MLPs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import BACKEND, logits

import clas_lens as cl
from clas_lens.baselines.load import load_intervention
from clas_lens.baselines.released_incline import ReleasedIncline, released_texts
from clas_lens.baselines.vectors import AddVector
from clas_lens.models.sites import Site
from clas_lens.representations.collect import collect_representations
from clas_lens.representations.sentences import Representations


def states_of(values, languages=("en", "de")):
    ids = tuple(str(i) for i in range(values.shape[1]))
    return Representations(values, languages, tuple(range(values.shape[2])), ids, site="mlp_out")


def test_by_hand_in_two_layers(llama):
    """Two examples in two dimensions. Layer 0: W maps (1, 0) to (0, 2) and (0, 1) to (3, 0). Layer 1: W doubles."""
    english = torch.tensor([[[0.0, 2.0], [2.0, 0.0]], [[3.0, 0.0], [0.0, 2.0]]])  # [example layer d_model]
    german = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    incline = ReleasedIncline.fit(states_of(torch.stack([english, german])), alpha=0.25)
    edits = incline.edits(llama, ["de", "en"])
    assert list(edits) == [Site("mlp_out", 0), Site("mlp_out", 1)]
    x = torch.tensor([[[4.0, 8.0]], [[-0.0, 1.0]]])
    first, second = (edit(x, [0, 1]) for edit in edits.values())
    torch.testing.assert_close(first[0], torch.tensor([[4 + 0.25 * 24, 8 + 0.25 * 8]]))
    torch.testing.assert_close(second[0], torch.tensor([[6.0, 12.0]]))
    assert torch.equal(first[1].view(torch.int32), x[1].view(torch.int32))
    # The Llama script subtracts: that is the other sign of alpha.
    (subtracted, _) = replace(incline, alpha=-0.25).edits(llama, ["de"]).values()
    torch.testing.assert_close(subtracted(x[:1], [0]), torch.tensor([[[4 - 6.0, 8 - 2.0]]]))


def test_every_second_text_has_english_before_it():
    corpus = cl.ParallelCorpus.from_texts(
        {"en": ["one", "two", "three", "four"], "de": ["eins", "zwei", "drei", "vier"]}
    )
    texts = released_texts(corpus)
    assert texts["de"] == ("eins", "two\nzwei", "drei", "four\nvier")
    assert texts["en"] == ("one", "two\ntwo", "three", "four\nfour")
    assert (texts.ids, texts.name) == (corpus.ids, corpus.name)


@pytest.fixture(scope="module")
def fitted(lens_models, small_corpus):
    corpus = released_texts(small_corpus.take(range(6)))
    states = collect_representations(lens_models["llama", BACKEND], corpus, range(5), site="mlp_out", progress=False)
    return states, ReleasedIncline.fit(states, alpha=0.7)


def test_equals_hugging_face_with_hooks_on_its_mlps(model, hf_models, fitted, tokens):
    states, incline = fitted
    hf, handles = hf_models["llama"], []

    def hook_of(layer):
        x, y = (states.at(code, layer).double().numpy() for code in ("de", "en"))
        w = torch.tensor(np.linalg.lstsq(x, y, rcond=None)[0]).float()

        def hook(module, inputs, output):
            output = output.clone()
            output[0, -1] += 0.7 * output[0, -1] @ w
            return output

        return hook

    for layer, block in enumerate(hf.model.layers):
        handles.append(block.mlp.register_forward_hook(hook_of(layer)))
    with torch.no_grad():
        expected = hf(tokens).logits
    for handle in handles:
        handle.remove()
    with cl.steer(model, incline, language=["de", "en"]):
        got = logits(model, tokens)
    torch.testing.assert_close(got.log_softmax(-1), expected.log_softmax(-1), atol=2e-3, rtol=1e-3)
    plain = logits(model, tokens)
    assert torch.equal(got[1], plain[1])
    assert torch.equal(got[0, :-1], plain[0, :-1])
    assert not torch.equal(got[0, -1], plain[0, -1])
    with cl.steer(model, replace(incline, alpha=0.0), language="de"):
        assert torch.equal(logits(model, tokens), plain)


def test_only_the_prompt_is_steered(model, fitted, tokens):
    """Of a prompt and three generated tokens the first pass alone."""
    with cl.steer(model, fitted[1], language="de") as steering:
        model.generate(tokens[:1], max_new_tokens=4, do_sample=False, verbose=False, stop_at_eos=False)
        assert set(steering.fired.values()) == {1}


def test_what_is_refused(llama, fitted, small_corpus):
    states, incline = fitted
    with pytest.raises(ValueError, match="got site='residual', pool='mean', intervention=None"):
        ReleasedIncline.fit(replace(states, site="residual"))
    with pytest.raises(ValueError, match="needs the residual stream, got site='mlp_out'"):
        AddVector.diff_mean(states, 2)
    with pytest.raises(ValueError, match="no language besides the anchor 'en'"):
        ReleasedIncline.fit(states.select(["en"]))
    with pytest.raises(cl.SteeringError, match="no map was fitted for 'fr'; available: de, zh, ar"):
        incline.edits(llama, ["fr"])
    with pytest.raises(cl.SteeringError, match="these maps are of 'tiny-llama', 4 layers 32 wide"):
        with cl.steer(llama, replace(incline, sources=incline.sources[:, :4], goals=incline.goals[:4]), language="de"):
            pass


def test_save_and_load(fitted, tmp_path):
    incline = fitted[1]
    loaded = load_intervention(incline.save_pretrained(tmp_path))
    assert isinstance(loaded, ReleasedIncline)
    assert loaded.fingerprint() == incline.fingerprint()
    assert loaded.settings() == incline.settings()
    assert loaded.source["pool"] == "mean"
