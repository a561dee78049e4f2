"""ReCoVeR and DiffMean with unit vectors by hand, and on models; a search over layers."""

from dataclasses import replace

import pytest
import torch
from tiny import BACKEND, logits

import clas_lens as cl
from clas_lens.baselines.load import load_intervention
from clas_lens.baselines.recover import Recover
from clas_lens.baselines.unit_vectors import UnitDiffMean
from clas_lens.evaluation.search import sweep_settings
from clas_lens.models.sites import Site
from clas_lens.representations.collect import collect_representations
from clas_lens.representations.sentences import Representations


def states(values, languages=("en", "de")):
    """[lang example layer d_model]"""
    ids = tuple(map(str, range(values.shape[1])))
    return Representations(values, languages, tuple(range(values.shape[2])), ids)


def test_recover_by_hand(llama):
    """Means (2, 0) and (0, 0): centred (1, 0) and (-1, 0). x = (0, 5), alpha 5: (-5, 5) at x's norm: (-1, 1) * 5 / sqrt 2."""
    values = torch.tensor([[[2.0, 1.0]], [[0.0, 1.0]]])[:, :, None]
    recover = Recover.fit(states(values), alpha=5.0)
    x = torch.tensor([[[0.0, 5.0]], [[-0.0, 3.0]]])
    (edit,) = recover.edits(llama, ["de", "en"]).values()
    moved = edit(x, [0, 1])
    torch.testing.assert_close(moved[0], torch.tensor([[-1.0, 1.0]]) * 5 / 2**0.5)
    assert torch.equal(moved[1].view(torch.int32), x[1].view(torch.int32))
    # Towards the anchor: (1, 0) - beta (-1, 0), whatever beta here the unit vector (1, 0).
    (edit,) = replace(recover, toward="anchor", beta=0.5).edits(llama, ["de"]).values()
    torch.testing.assert_close(edit(x[:1], [0])[0], torch.tensor([[1.0, 1.0]]) * 5 / 2**0.5)


def test_beta_weighs_the_own_language():
    values = torch.tensor([[[3.0, 0.0]], [[0.0, 3.0]], [[0.0, 0.0]]])[:, :, None]  # mean over languages (1, 1)
    recover = Recover.fit(states(values, ("en", "de", "zh")), toward="anchor")
    # en (2, -1), de (-1, 2): en - de = (3, -3); en - 2 de = (4, -5)
    torch.testing.assert_close(recover.direction("de")[0], torch.tensor([1.0, -1.0]).double() / 2**0.5)
    torch.testing.assert_close(
        replace(recover, beta=2.0).direction("de")[0], torch.tensor([4.0, -5.0]).double() / 41**0.5
    )


def test_unit_vectors_by_hand(llama):
    """en - de is (3, 4) in layer 0 and (0, -2) in layer 1: unit (0.6, 0.8) and (0, -1)."""
    values = torch.tensor([[[[3.0, 5.0], [0.0, 0.0]]], [[[0.0, 1.0], [0.0, 2.0]]]])
    unit = UnitDiffMean.fit(states(values), alpha=10.0)
    torch.testing.assert_close(unit.values[0], torch.tensor([[0.6, 0.8], [0.0, -1.0]]))
    x = torch.tensor([[[1.0, 1.0]]])
    for layer, moved in ((0.0, [7.0, 9.0]), (1, [1.0, -9.0])):
        here = replace(unit, layer=layer)
        ((site, edit),) = here.edits(llama, ["de"]).items()
        assert site == Site("residual", int(layer))
        torch.testing.assert_close(edit(x, [0])[0, 0], torch.tensor(moved))
    with pytest.raises(cl.SteeringError, match="no vectors for layer 2; available: 0, 1"):
        replace(unit, layer=2)
    assert sweep_settings(unit, [{"alpha": 1.0}, {"alpha": 2.0}]) == [
        {"layer": 0.0, "alpha": 1.0},
        {"layer": 0.0, "alpha": 2.0},
        {"layer": 1.0, "alpha": 1.0},
        {"layer": 1.0, "alpha": 2.0},
    ]


@pytest.fixture(scope="module")
def read(lens_models, small_corpus):
    corpus = small_corpus.take(range(4))
    return collect_representations(lens_models["llama", BACKEND], corpus, range(5), progress=False)


def test_recover_equals_hugging_face_with_hooks(model, hf_models, read, tokens):
    recover = Recover.fit(read, alpha=2.0)
    vectors = read.values.mean(1) - read.values.mean(1).mean(0)
    handles = []
    for layer, block in enumerate(hf_models["llama"].model.layers):
        v = vectors[read.languages.index("de"), layer]

        def hook(module, inputs, output, v=v):
            x = output[0] if isinstance(output, tuple) else output
            out = x + 2.0 * v / v.norm()
            out = out / out.norm(dim=-1, keepdim=True) * x.norm(dim=-1, keepdim=True)
            out = torch.stack([out[0], x[1]])
            return (out, *output[1:]) if isinstance(output, tuple) else out

        handles.append(block.register_forward_hook(hook))
    with torch.no_grad():
        expected = hf_models["llama"](tokens).logits
    for handle in handles:
        handle.remove()
    with cl.steer(model, recover, language=["de", "en"]):
        got = logits(model, tokens)
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)
    plain = logits(model, tokens)
    assert torch.equal(got[1], plain[1])
    for quiet in (replace(recover, alpha=0.0), UnitDiffMean.fit(read, alpha=0.0)):
        with cl.steer(model, quiet, language="de"):
            assert torch.equal(logits(model, tokens), plain)


def test_a_search_over_layers(llama, read):
    task = cl.tasks.XNLI("bundled", ("en", "de"), limit=3, instruction="en", style="plain")
    unit = UnitDiffMean.fit(read)
    found = cl.evaluation.search_grids(
        llama,
        task,
        {"unit": (unit, sweep_settings(unit, [{"alpha": -40.0}, {"alpha": 40.0}]))},
        progress=False,
        allow_overlap=True,
    )["unit"]
    assert sorted(found.table["layer"].unique()) == [0, 1, 2, 3, 4]
    assert len(found.table) == 5 * 2 * 2
    assert found.intervention.layer == found.chosen["layer"]
    best = found.means().sort_values(["score", "layer"], ascending=[False, True]).iloc[0]
    assert found.means()["score"].max() == best["score"]


def test_save_and_load(read, tmp_path):
    for made in (Recover.fit(read, toward="anchor"), UnitDiffMean.fit(read, alpha=3.0)):
        loaded = load_intervention(made.save_pretrained(tmp_path))
        assert loaded.fingerprint() == made.fingerprint()
        assert loaded.settings() == made.settings()
    with pytest.raises(ValueError, match="token means of several languages"):
        Recover.fit(replace(read, pool="last"))
