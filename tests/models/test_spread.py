"""Models over several devices: what is asked for is understood; a dispatched model computes what an undispatched one does."""

import pytest
import torch
from accelerate import dispatch_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import clas_lens as cl
from clas_lens.models.load import _to_bridge
from clas_lens.models.sites import device_of
from clas_lens.models.spread import is_spread, spread_options

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4
PARTS = ("model.embed_tokens", "model.rotary_emb", *(f"model.layers.{i}" for i in range(5)), "model.norm", "lm_head")
ON_CPU = dict.fromkeys(PARTS, "cpu")


def test_nothing_asked_for_is_nothing():
    assert spread_options() == {}
    assert spread_options(device_map="balanced") == {"device_map": "balanced"}
    assert spread_options(max_memory={0: "1GiB"}) == {"device_map": "auto", "max_memory": {0: "1GiB"}}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device_map": "auto", "device": "cpu"}, "device='cpu' puts all of a model on one device"),
        ({"device_map": "auto", "backend": "hooked"}, "need 'bridge'"),
        ({"device_map": "everywhere"}, "device_map 'everywhere': expected one of auto, balanced"),
        ({"device_map": {}}, r"device_map \{\}: expected"),
        ({"device_map": 0}, "device_map 0: expected"),
        ({"max_memory": "20GiB"}, "max_memory '20GiB': expected memory by device"),
        ({"n_devices": 99}, "n_devices must be a whole number of GPUs, at least 1; got 99, and"),
        ({"n_devices": True}, "got True"),
        ({"n_devices": 1, "device_map": "auto"}, "leave out device_map="),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_loaded(folders, asked, message):
    with pytest.raises(cl.ModelLoadError, match=message):
        cl.load_model(folders["llama"], **asked)


def test_an_object_is_placed_already(hf_models):
    with pytest.raises(cl.ModelLoadError, match="place a model as it is loaded: give its name or folder"):
        cl.load_model(hf_models["llama"], device_map="auto")


def test_offloaded_weights_are_refused(folders):
    with pytest.raises(
        cl.ModelLoadError, match=r"offloaded \(model.layers.3.*Load it whole, in a smaller dtype or on more"
    ):
        cl.load_model(folders["llama"], device_map={**ON_CPU, "model.layers.3": "disk"})


@pytest.mark.parametrize("device_map", ["auto", ON_CPU], ids=["auto", "by module"])
def test_a_spread_model_gives_the_same(folders, lens_models, small_corpus, tokens, device_map):
    model, plain = cl.load_model(folders["llama"], device_map=device_map), lens_models["llama", "bridge"]
    assert cl.models.describe_model(model) == cl.models.describe_model(plain)
    assert_same_work(model, plain, small_corpus, tokens)


def assert_same_work(model, plain, corpus, tokens):
    few = corpus.take(range(4))
    stats, expected = (cl.collect_statistics(one, few, histograms=True, progress=False) for one in (model, plain))
    torch.testing.assert_close(
        stats.mean, expected.mean, atol=2e-5, rtol=1e-4
    )  # one of them with the attention pattern
    assert torch.equal(stats.max_example, expected.max_example)
    clas = cl.Clas(cl.categorize(expected), layers=(1, 3), alpha=-2.0)
    answers = []
    for one in (model, plain):
        with cl.steer(one, clas, language="de"):
            answers.append((one(tokens), cl.generate(one, ["Tee ist", "Ein See"], max_new_tokens=4)))
    assert torch.equal(answers[0][0], answers[1][0])
    assert answers[0][1] == answers[1][1]


def test_accelerate_s_hooks_and_ours_go_together(folders, lens_models, small_corpus, tokens):
    """As Accelerate dispatches a model to several devices: every module moves what it is given to where it runs."""
    hf_model = AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float32, attn_implementation="eager")
    hf_model = dispatch_model(
        hf_model.eval().requires_grad_(False), device_map=ON_CPU, main_device="cpu", force_hooks=True
    )
    assert hf_model.model.layers[2]._hf_hook is not None
    assert is_spread(hf_model)
    assert not any(weight.is_meta for weight in hf_model.parameters())
    model = _to_bridge(hf_model, AutoTokenizer.from_pretrained(folders["llama"]), "tiny-llama")
    assert device_of(model) == torch.device("cpu")
    assert_same_work(model, lens_models["llama", "bridge"], small_corpus, tokens)
    with pytest.raises(cl.ModelLoadError, match="spread over devices; load it again with device='cpu'"):
        cl.load_model(model, device="cpu")
