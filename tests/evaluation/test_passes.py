"""Lower layers run once give exactly what independent runs give, after the prompt and in every decoding step."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny_tokenizer
from transformers import BloomConfig, BloomForCausalLM

import clas_lens as cl
from clas_lens.corpus.tokens import pad
from clas_lens.evaluation.passes import LayerCount, SharedPrompt
from clas_lens.evaluation.prefixes import whole_prompts
from clas_lens.models.forward import last_logits
from clas_lens.models.sites import hooked
from clas_lens.steering.generate import generate_tokens, greedy

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4

IDS = [(1, 40, 50, 60, 70, 80, 90), (1, 41, 51), (1, 42, 52, 62, 72)]


@pytest.fixture
def clas(each_model, small_corpus):
    stats = cl.collect_statistics(each_model, small_corpus.take(range(3)), progress=False)
    return cl.Clas(cl.categorize(stats), layers=(2, 3), alpha=-2.0)


def shared(model, starts, *, unsteered, columns=None):
    count = LayerCount(model.cfg.n_layers)
    batch = pad(IDS, range(3))
    segments = whole_prompts(model, IDS, range(3))
    return SharedPrompt(model, segments, starts, unsteered=unsteered, columns=columns, count=count), batch, count


def test_every_setting_equals_an_independent_run(each_model, clas):
    prompt, batch, count = shared(each_model, {2}, unsteered=True)
    _, unsteered = prompt.unsteered()
    torch.testing.assert_close(unsteered, last_logits(each_model, batch.tokens, batch.attention_mask), rtol=0, atol=0)
    for alpha in (-2.0, 0.5, 3.0):
        setting = replace(clas, alpha=alpha)
        with prompt.steered(setting, "de", 2) as (_, logits):
            pass
        with cl.steer(each_model, setting, "de"):
            alone = last_logits(each_model, batch.tokens, batch.attention_mask)
        torch.testing.assert_close(logits, alone, rtol=0, atol=0)
        assert not torch.equal(logits, unsteered)
    assert count.layers == 3 * (5 + 3 * 3)
    assert count.passes == 3 * (5 + 9) / 5


def test_generation_goes_on_from_a_shared_prompt(each_model, clas):
    """Lengths differ, so this also holds padding, and Gemma's sliding windows, to account."""
    prompt, _, _ = shared(each_model, {2}, unsteered=True)
    options = {"max_new_tokens": 9, "stop_at_newline": False}
    for setting in (clas, replace(clas, alpha=2.0)):
        with prompt.steered(setting, "zh", 2) as answering:
            found, _ = greedy(each_model, *answering, **options)
        with cl.steer(each_model, setting, "zh"):
            assert found == generate_tokens(each_model, IDS, max_new_tokens=9)
    found, ended = greedy(each_model, *prompt.unsteered(), **options)
    assert found == generate_tokens(each_model, IDS, max_new_tokens=9)
    assert ended == [tokens[-1] == 2 for tokens in found]


def test_without_the_unsteered_run_no_layer_above_the_start_is_run(model, small_cats):
    clas = cl.Clas(small_cats, layers=(3,), alpha=2.0)
    ran = []
    hooks = [(f"blocks.{i}.hook_resid_post", lambda x, hook, i=i: ran.append(i)) for i in range(5)]
    with hooked(model, hooks):
        prompt, _, count = shared(model, {3}, unsteered=False)
        assert ran == [0, 1, 2]
        with prompt.steered(clas, "de", 3):
            pass
    assert ran == [0, 1, 2, 3, 4]
    assert count.layers == 3 * 5


def test_some_columns_of_the_logits(each_model, clas):
    whole, _, _ = shared(each_model, {2}, unsteered=True)
    some, _, _ = shared(each_model, {2}, unsteered=True, columns=(17, 15))
    torch.testing.assert_close(some.unsteered()[1], whole.unsteered()[1][:, [17, 15]], rtol=1e-5, atol=1e-5)
    with whole.steered(clas, "de", 2) as (_, expected):
        pass
    with some.steered(clas, "de", 2) as (_, found):
        pass
    torch.testing.assert_close(found, expected[:, [17, 15]], rtol=1e-5, atol=1e-5)


def test_blocks_that_hand_on_tuples():
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=600, hidden_size=32, n_layer=4, n_head=4)
    tokenizer = tiny_tokenizer(bos=True)
    model = cl.load_model(BloomForCausalLM(config).eval(), tokenizer=tokenizer, backend="bridge", device="cpu")
    batch = pad([(1, 5, 9, 30)], [0])
    segments = whole_prompts(model, [(1, 5, 9, 30)], [0])
    prompt = SharedPrompt(model, segments, {2}, unsteered=False, columns=None, count=LayerCount(4))
    vector = cl.AddVector(torch.ones(1, 32), ("de",), layer=2)
    with prompt.steered(vector, "de", 2) as (_, found):
        pass
    with cl.steer(model, vector, "de"):
        torch.testing.assert_close(found, last_logits(model, batch.tokens, batch.attention_mask))
