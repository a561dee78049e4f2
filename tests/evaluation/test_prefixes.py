"""Prompts that begin alike, run in pieces: the same answers as whole prompts, one by one, in fewer tokens."""

from dataclasses import replace

import pytest
import torch
from tiny import BACKENDS, tiny_tokenizer
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel

import clas_lens as cl
from clas_lens import tasks
from clas_lens.evaluation import prefixes
from clas_lens.evaluation.passes import LayerCount, SharedPrompt
from clas_lens.evaluation.prefixes import prompt_batches, shared_segments, whole_prompts
from clas_lens.models.forward import last_logits
from clas_lens.models.sites import attention_window
from clas_lens.steering.generate import generate_tokens, greedy

HEAD = tuple(range(10, 22))
PREMISES = {"a": tuple(range(100, 120)), "b": tuple(range(200, 215)), "c": tuple(range(300, 311))}
TAILS = ((7, 8, 9), (7, 8), (60, 61, 62, 63, 64))
IDS = [(1, *HEAD, *PREMISES[name], *tail) for name in "abc" for tail in TAILS] + [(1, *HEAD, 500, 501)]
GROUPS = [name for name in "abc" for _ in TAILS] + ["d"]


@pytest.fixture(autouse=True)
def _passes_are_free(monkeypatch):
    monkeypatch.setattr(prefixes, "PASS_TOKENS", 0)


@pytest.fixture(params=BACKENDS)
def llama_model(request, folders):
    return cl.load_model(folders["llama"], backend=request.param, device="cpu")


@pytest.fixture(params=BACKENDS)
def gemma_model(request, folders):
    return cl.load_model(folders["gemma3"], backend=request.param, device="cpu")


def clas_of(model, corpus):
    return cl.Clas(cl.categorize(cl.collect_statistics(model, corpus.take(range(3)), progress=False)), layers=(2, 3))


def read(segments):
    """The prompts that the segments say, without padding."""
    rows = [()]
    for segment in segments:
        parents = [0] * len(segment.tokens) if segment.parents is None else segment.parents.tolist()
        new = [tuple(t[m == 1].tolist()) for t, m in zip(segment.tokens, segment.attention_mask, strict=True)]
        assert all(new), "every row has a token in every segment"
        rows = [(*rows[parent], *own) for parent, own in zip(parents, new, strict=True)]
    return rows


def test_segments_spell_the_prompts_in_fewer_tokens(llama_model):
    order = [3, 9, 0, 5, 4, 8, 1, 2, 7, 6]
    segments = shared_segments(llama_model, IDS, order)
    assert read(segments) == [IDS[row] for row in order]
    assert [len(segment.tokens) for segment in segments] == [1, 4, 10]
    assert segments[0].tokens.shape == (1, 13)
    assert sum(segment.tokens.numel() for segment in segments) < sum(map(len, IDS)) / 2
    assert len(shared_segments(llama_model, [IDS[0]], [0])) == 1
    assert len(shared_segments(llama_model, [(5, 6, 7), (8, 9)], [0, 1])) == 1
    same = shared_segments(llama_model, [IDS[0], IDS[0]], [0, 1])
    assert read(same) == [IDS[0], IDS[0]]


def test_a_pass_has_to_earn_its_cost(llama_model, monkeypatch):
    monkeypatch.setattr(prefixes, "PASS_TOKENS", 10_000)
    assert len(shared_segments(llama_model, IDS, range(len(IDS)))) == 1


def test_logits_and_generation_are_those_of_single_prompts(llama_model, small_corpus):
    clas = clas_of(llama_model, small_corpus)
    settings = [replace(clas, alpha=alpha) for alpha in (-2.0, 3.0)]
    segments = shared_segments(llama_model, IDS, range(len(IDS)))
    assert len(segments) == 3
    count = LayerCount(llama_model.cfg.n_layers)
    prompt = SharedPrompt(llama_model, segments, {2}, unsteered=True, columns=None, count=count)
    options = {"max_new_tokens": 6, "stop_at_newline": False}
    for setting in settings:
        with prompt.steered(setting, "de", 2) as (decoder, logits):
            new, _ = greedy(llama_model, decoder, logits, **options)
        with cl.steer(llama_model, setting, "de"):
            torch.testing.assert_close(logits, _single_logits(llama_model), rtol=0, atol=2e-5)
            assert new == [generate_tokens(llama_model, [row], max_new_tokens=6)[0] for row in IDS]
    decoder, logits = prompt.unsteered()
    new, _ = greedy(llama_model, decoder, logits, **options)
    torch.testing.assert_close(logits, _single_logits(llama_model), rtol=0, atol=2e-5)
    assert new == generate_tokens(llama_model, IDS, max_new_tokens=6)


def _single_logits(model):
    rows = [torch.tensor([row]) for row in IDS]
    return torch.cat([last_logits(model, row, torch.ones_like(row)) for row in rows])


def test_attention_windows_count_columns(gemma_model, small_corpus):
    """Padding inside a prompt would move its beginning out of a window; in wide enough ones nothing is out of sight."""
    assert attention_window(gemma_model) == 6
    assert len(shared_segments(gemma_model, IDS, range(len(IDS)))) == 1
    short = [(1, 2, 3, 9), (1, 2, 3, 8, 7)]
    assert len(shared_segments(gemma_model, short, [0, 1], new_tokens=1)) == 2
    assert len(shared_segments(gemma_model, short, [0, 1], new_tokens=2)) == 1
    assert len(shared_segments(gemma_model, short, [0, 1], new_tokens=None)) == 1


def test_groups_stay_together_where_they_fit():
    ids = [(0,) * length for length in (9, 3, 7, 3, 9, 2, 7, 1)]
    groups = ["x", "y", "x", "y", "z", "z", "x", "y"]
    device = torch.device("cpu")
    assert prompt_batches(ids, groups, 4, device) == [[0, 2, 6], [4, 5], [1, 3, 7]]
    assert prompt_batches(ids, groups, 2, device) == [[0, 2], [4, 5], [6], [1, 3], [7]]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        prompt_batches(ids, groups, 0, device)
    long = [(0,) * 1000 + (row,) for row in range(4)] + [(9,) * 1000 + (row,) for row in range(4)]
    assert [len(rows) for rows in prompt_batches(long, list("aaaabbbb"), 16, device)] == [4, 4]
    assert [len(rows) for rows in prompt_batches(long, list("abcdefgh"), 16, device)] == [1] * 8


@pytest.mark.parametrize("positions", ["all", "last"])
def test_evaluation_equals_one_by_one(llama_model, small_corpus, positions):
    clas = replace(clas_of(llama_model, small_corpus), positions=positions)
    methods = {"base": None, "clas": clas}
    for task in (
        tasks.XNLI("bundled", ("en", "de"), split="test", limit=9, instruction="en"),
        tasks.XQuAD("bundled", ("en", "de"), limit=5, max_tokens=180, max_new_tokens=4, instruction="en"),
    ):
        together = cl.evaluate(llama_model, task, methods, allow_overlap=True, progress=False)
        one_by_one = cl.evaluate(llama_model, task, methods, allow_overlap=True, progress=False, batch_size=1)
        numbers = together.select_dtypes("number").columns
        torch.testing.assert_close(
            torch.tensor(together[numbers].to_numpy(dtype=float)),
            torch.tensor(one_by_one[numbers].to_numpy(dtype=float)),
            rtol=0,
            atol=2e-5,
            equal_nan=True,
        )
        assert together.drop(columns=numbers).equals(one_by_one.drop(columns=numbers))


def test_whole_prompts(llama_model):
    (segment,) = whole_prompts(llama_model, IDS, [1, 0])
    assert read([segment]) == [IDS[1], IDS[0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_learned_positions_follow_the_mask(backend):
    torch.manual_seed(0)
    if backend == "hooked":
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        shape = {"n_layers": 3, "d_model": 32, "n_ctx": 128, "d_head": 8, "d_vocab": 600, "act_fn": "gelu"}
        model = HookedTransformer(HookedTransformerConfig(**shape, positional_embedding_type="standard", seed=0))
    else:
        config = GPT2Config(vocab_size=600, n_embd=32, n_layer=3, n_head=4, n_positions=128)
        options = {"tokenizer": tiny_tokenizer(bos=True), "backend": backend, "device": "cpu"}
        model = cl.load_model(GPT2LMHeadModel(config).eval(), **options)
    segments = shared_segments(model, IDS, range(len(IDS)))
    assert len(segments) == 3
    count = LayerCount(model.cfg.n_layers)
    _, logits = SharedPrompt(model, segments, (), unsteered=True, columns=None, count=count).unsteered()
    torch.testing.assert_close(logits, _single_logits(model), rtol=0, atol=2e-5)


def test_models_that_count_columns_read_whole_prompts():
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=600, hidden_size=32, n_layer=2, n_head=4)
    tokenizer = tiny_tokenizer(bos=True)
    model = cl.load_model(BloomForCausalLM(config).eval(), tokenizer=tokenizer, backend="bridge", device="cpu")
    assert len(shared_segments(model, IDS, range(len(IDS)))) == 1
