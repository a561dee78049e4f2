"""Edits that are run together, or after what no edit changes was read once, are those run one by one from the beginning."""

import pytest
import torch

from clas_lens.causal import passes
from clas_lens.causal.answers import CleanAnswers, Question
from clas_lens.causal.passes import CleanPass, padded
from clas_lens.models.forward import last_logits
from clas_lens.models.sites import Site

LONG, SHORT = (5, 6, 7, 8, 9, 10, 11, 12, 13), (20, 21, 22)


def question(ids, n_prefix=1, answer=(3,), choices=()):
    return Question("a", "a", tuple(ids), answer, choices, n_prefix)


def doubled(columns):
    def hook(activation, hook):
        new = activation.clone()
        new[:, columns] = 2 * new[:, columns]
        return new

    return hook


EDITS = [
    {Site("mlp", 3): doubled([-1])},
    {Site("residual", 1): doubled([-2, -1])},
    {Site("mlp", 3): doubled([-2])},
    {Site("attn", 0): doubled([-1]), Site("mlp", 4): doubled([-2])},
]


def one_by_one(model, batch, edit):
    """From the first layer, the whole batch at once."""
    hooks = [(site.hook_name(model), hook) for site, hook in edit.items()]
    for name, hook in hooks:
        model.hook_dict[name].add_hook(hook)
    try:
        return last_logits(model, batch.tokens, batch.attention_mask)
    finally:
        for name, _ in hooks:
            model.hook_dict[name].remove_hooks("fwd")


@pytest.mark.parametrize("columns", [None, 2, 5, 40])
def test_edits_together_are_those_one_by_one(each_model, columns):
    batch = padded(each_model, [question(LONG), question(SHORT)])
    clean = CleanPass(each_model, batch, 1, columns=columns)
    assert torch.allclose(clean.logits[:, 0], last_logits(each_model, batch.tokens, batch.attention_mask), atol=1e-5)
    found = dict(clean.edited(EDITS))
    assert sorted(found) == [0, 1, 2, 3]
    for place, edit in enumerate(EDITS):
        assert torch.allclose(found[place][:, 0], one_by_one(each_model, batch, edit), atol=1e-5)


def test_what_lies_before_the_edits_is_read_once(llama):
    batch, seen = padded(llama, [question(LONG), question(SHORT)]), []
    handle = llama.blocks[4].mlp.register_forward_hook(lambda mlp, inputs, output: seen.append(output.shape[:2]))
    try:
        list(CleanPass(llama, batch, 1, columns=2).edited(EDITS))
    finally:
        handle.remove()
    # Before the edits, clean, and then three first layers: 0, 1, and 3 with two edits as rows of one batch.
    assert [tuple(shape) for shape in seen] == [(2, 7), (2, 2), (2, 2), (2, 2), (4, 2)]


def test_no_more_edits_run_together_than_there_is_room_for(llama, monkeypatch):
    batch = padded(llama, [question(LONG), question(SHORT)])
    together = dict(CleanPass(llama, batch, 1).edited(EDITS))
    monkeypatch.setattr(passes, "STACKED_LOGITS", 1)
    alone = dict(CleanPass(llama, batch, 1).edited(EDITS))
    for place in range(len(EDITS)):
        assert torch.allclose(together[place], alone[place], atol=1e-5)


def test_rows_with_and_without_bos_each_have_their_own_content(llama):
    batch = padded(llama, [question((1, 2, 3, 4)), question((5, 6), n_prefix=0), question((7, 8, 9), n_prefix=2)])
    assert batch.content_mask.tolist() == [
        [False, True, True, True],
        [False, False, True, True],
        [False, False, False, True],
    ]


def test_measures_are_those_worked_out_at_length():
    generator = torch.Generator().manual_seed(0)
    clean, edited = (torch.randn(3, 2, 11, generator=generator) for _ in range(2))
    edited[0, :, 4] = edited[0, :, 2] = 9.0  # equal, and the first counts
    asked = [
        question(SHORT, answer=(2, 4)),
        question(SHORT, answer=(7,)),
        question(SHORT, answer=(5,), choices=(5, 6)),
    ]
    found = CleanAnswers(clean, asked).measured(edited)
    for row, one in enumerate(asked):
        n = len(one.answer)
        before, after = (of[row, -n:].double().log_softmax(-1) for of in (clean, edited))
        assert found["log_prob"][row] == pytest.approx(float(after[range(n), list(one.answer)].mean()), abs=1e-6)
        assert found["kl"][row] == pytest.approx(float((before.exp() * (before - after)).sum(-1).mean()), abs=1e-6)
    assert found["score"][0] == 0.5
    assert found["score"][2] == float(edited[2, -1, 5] >= edited[2, -1, 6])
    same = CleanAnswers(clean, asked).measured(clean)
    assert same["kl"] == [0, 0, 0]


def test_a_wide_vocabulary_costs_no_digits():
    generator = torch.Generator().manual_seed(0)
    clean = 3 * torch.randn(1, 1, 262_144, generator=generator)
    edited = clean + 2 * torch.randn(clean.shape, generator=generator)
    found = CleanAnswers(clean, [question(SHORT)]).measured(edited)["kl"][0]
    before, after = (of[0, 0].double().log_softmax(-1) for of in (clean, edited))
    assert found == pytest.approx(float((before.exp() * (before - after)).sum()), abs=1e-4)
