"""Activation patching against plain Transformers; what must give the clean run back does."""

import jaxtyping
import numpy as np
import pytest
import torch
from tiny import BACKEND, BACKENDS, assert_no_hooks

import clas_lens as cl
from clas_lens.causal.exchange import exchanged
from clas_lens.tasks.xnli import LABELS

CLEAN = ["The cat sleeps on the roof", "She bought fresh bread today", "Rivers run to the sea"]
CORRUPTED = ["Die Katze schläft auf dem Dach", "Sie kaufte heute frisches Brot", "Flüsse fließen ins Meer"]


def last(hf, ids):
    with torch.no_grad():
        return hf(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)


def oracle(hf, clean, corrupted, module, position, columns=slice(None)):
    """Recovery in percent of both measures, one pair after the other, without padding."""
    parts = {"log_prob": [], "kl": []}
    for one, other in zip(clean, corrupted, strict=True):
        seen = []

        def keep(module, inputs, seen=seen):
            seen.append(inputs[0].clone())

        handle = module.register_forward_pre_hook(keep)
        before = last(hf, one)
        handle.remove()
        after = last(hf, other)

        def replaced(module, inputs, seen=seen):
            new = inputs[0].clone()
            new[:, position, columns] = seen[0][:, position, columns]
            return (new,)

        handle = module.register_forward_pre_hook(replaced)
        patched = last(hf, other)
        handle.remove()
        answer = int(before.argmax())
        parts["log_prob"].append((float(patched[answer] - after[answer]), float(before[answer] - after[answer])))

        def kl(found, before=before):
            return float((before.exp() * (before - found)).sum())

        parts["kl"].append((kl(patched) - kl(after), -kl(after)))
    return {name: 100 * np.sum([a for a, _ in pairs]) / np.sum([b for _, b in pairs]) for name, pairs in parts.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_patching_is_that_of_transformers(lens_models, hf_models, family, backend):
    model, hf = lens_models[family, backend], hf_models[family]
    clean, corrupted = ([model.tokenizer(text)["input_ids"] for text in texts] for texts in (CLEAN, CORRUPTED))
    d_head = int(model.cfg.d_head)
    for site, name, module, columns in (
        ("residual", "residual stream", hf.model.layers[3].input_layernorm, slice(None)),
        ("mlp", "MLP", hf.model.layers[2].mlp.down_proj, slice(None)),
        ("heads", "head 3", hf.model.layers[2].self_attn.o_proj, slice(3 * d_head, 4 * d_head)),
    ):
        frame = cl.causal.patch(
            model, CLEAN, CORRUPTED, site=site, layers=[2], positions=[-2, -1], batch_size=2, progress=False
        )
        assert_no_hooks(model)
        for position in (-2, -1):
            rows = frame[(frame["position"] == position) & (frame["component"] == name)].set_index("measure")
            if site == "residual":
                expected = residual_oracle(hf, clean, corrupted, 2, position)
            else:
                expected = oracle(hf, clean, corrupted, module, position, columns)
            for measure in ("log_prob", "kl"):
                assert rows.loc[measure, "recovery"] == pytest.approx(expected[measure], abs=0.02)
                assert rows.loc[measure, "n"] == 3


def residual_oracle(hf, clean, corrupted, layer, position):
    """The output of a layer, at which Transformers has no module of its own."""
    parts = {"log_prob": [], "kl": []}
    for one, other in zip(clean, corrupted, strict=True):
        with torch.no_grad():
            held = hf(torch.tensor([one]), output_hidden_states=True).hidden_states[layer + 1]
        before, after = last(hf, one), last(hf, other)

        def replaced(module, inputs, output, held=held):
            hidden = output[0] if isinstance(output, tuple) else output
            new = hidden.clone()
            new[:, position] = held[:, position]
            return (new, *output[1:]) if isinstance(output, tuple) else new

        handle = hf.model.layers[layer].register_forward_hook(replaced)
        patched = last(hf, other)
        handle.remove()
        answer = int(before.argmax())
        parts["log_prob"].append((float(patched[answer] - after[answer]), float(before[answer] - after[answer])))
        kls = [float((before.exp() * (before - found)).sum()) for found in (patched, after)]
        parts["kl"].append((kls[0] - kls[1], -kls[1]))
    return {name: 100 * np.sum([a for a, _ in pairs]) / np.sum([b for _, b in pairs]) for name, pairs in parts.items()}


def test_patching_everything_gives_the_clean_run_back(each_model):
    tokenizer = each_model.tokenizer
    pairs = [(a, b) for a in CLEAN for b in CLEAN if a != b and _length(tokenizer, a) == _length(tokenizer, b)]
    pairs = pairs or [("The red cat sat", "The cat sat red")]
    clean, corrupted = zip(*pairs, strict=True)
    assert [_length(tokenizer, one) for one in clean] == [_length(tokenizer, one) for one in corrupted]
    frame = cl.causal.patch(each_model, list(clean), list(corrupted), positions="all", layers=[0, 2, 4], progress=False)
    assert frame["recovery"].tolist() == pytest.approx([100] * len(frame), abs=1e-3)
    final = cl.causal.patch(each_model, CLEAN, CORRUPTED, positions=[-1], layers=[4], progress=False)
    assert final["recovery"].tolist() == pytest.approx([100, 100], abs=1e-3)
    assert (final["control"] < 100).all()


def _length(tokenizer, text):
    return len(tokenizer(text)["input_ids"])


def test_a_task_and_a_corpus_are_patched_by_language(model, small_corpus):
    task = cl.tasks.XNLI("bundled", languages=("en", "de"), limit=6)
    frame = cl.causal.patch(model, "en", "de", data=task, positions=[-1], layers=[1, 4], progress=False)
    assert frame[["source", "target"]].drop_duplicates().to_numpy().tolist() == [["en", "de"]]
    rows = cl.evaluate(model, task, progress=False)
    gold = rows.apply(lambda row: np.log(row[f"p_{LABELS[row['gold']]}"] * row["label_mass"]), axis=1)
    means = gold.groupby(rows["language"]).mean()
    gaps = frame.loc[frame["measure"] == "log_prob", "gap"]
    assert gaps.tolist() == pytest.approx([means["en"] - means["de"]] * 2, abs=1e-5)
    top = frame[(frame["layer"] == 4) & (frame["measure"] == "log_prob")]
    assert top["recovery"].iloc[0] == pytest.approx(100, abs=0.05)
    found = cl.causal.patch(model, "de", "zh", data=small_corpus.take(range(3)), site="mlp", layers=[0], progress=False)
    assert len(found) == 8 * 2
    assert found["n"].between(1, 3).all()


def test_a_position_that_no_text_has_is_unknown(llama):
    frame = cl.causal.patch(llama, "A b", "C d", positions=[-90, -1], layers=[4], progress=False)
    far, near = (frame[frame["position"] == position] for position in (-90, -1))
    assert (far["n"] == 0).all()
    assert far["recovery"].isna().all()
    assert near["recovery"].tolist() == pytest.approx([100, 100], abs=1e-3)
    assert near[["low", "high", "control"]].isna().all(axis=None)  # one pair


def test_only_the_named_columns_are_exchanged():
    target, source = torch.randn(2, 5, 3), torch.randn(2, 4, 3)
    where = torch.tensor([[False, True, False, True], [False, False, False, False]])
    mask = torch.tensor([True, False, True])
    new = exchanged(target, source, where, mask)
    expected = target.clone()
    expected[0, 2, [0, 2]] = source[0, 1, [0, 2]]
    expected[0, 4, [0, 2]] = source[0, 3, [0, 2]]
    assert torch.equal(new, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": ["a b"]}, "parallel texts"),
        ({"source": [], "target": []}, "parallel texts"),
        ({"positions": [0]}, "counted from the end"),
        ({"positions": "first"}, "unknown positions 'first'"),
        ({"positions": []}, "counted from the end"),
        ({"site": "attn"}, "unknown site 'attn'; available: residual, mlp, heads"),
        ({"layers": [5]}, "among 0..4"),
        ({"data": {"en": ["a b"], "de": ["c d"]}}, "code of one of its languages"),
        ({"source": "en", "target": "en", "data": {"en": ["a b"], "de": ["c d"]}}, "both 'en'"),
        ({"source": "en", "target": "sw", "data": {"en": ["a b"], "de": ["c d"]}}, "sw"),
    ],
)
def test_what_is_refused(lens_models, arguments, message):
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=message):
            cl.causal.patch(
                lens_models["llama", BACKEND], **{"source": CLEAN, "target": CORRUPTED, "progress": False, **arguments}
            )
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
