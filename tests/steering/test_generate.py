"""Our greedy generation: equal to the model's own, whatever the batches; rows steered in their own language."""

from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from tiny import BACKENDS, tiny_hf_model, tiny_tokenizer

import clas_lens as cl
from clas_lens.corpus.tokens import tokenize
from clas_lens.given import given_whole
from clas_lens.models.decoding import Decoder
from clas_lens.steering.generate import checked_prompts, end_token_ids, generate_tokens

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4

N = 10


@pytest.fixture
def prompts(small_corpus):
    """Prompts of very different lengths in several languages."""
    return [
        small_corpus["de"][0],
        small_corpus["en"][3],
        small_corpus["zh"][1],
        small_corpus["de"][7],
        small_corpus["ar"][4],
    ]


LANGUAGES = ["de", "en", "zh", "de", "ar"]


def own_generation(model, ids):
    out = model.generate(
        torch.tensor([ids]), max_new_tokens=N, do_sample=False, verbose=False, stop_at_eos=True, eos_token_id=2
    )
    return out[0, len(ids) :].tolist()


def test_batched_equals_the_models_own(each_model, prompts):
    ids = tokenize(each_model.tokenizer, prompts).ids
    expected = [own_generation(each_model, row) for row in ids]
    for size in (1, 2, 5):
        assert generate_tokens(each_model, prompts, max_new_tokens=N, batch_size=size) == expected
    texts = cl.generate(each_model, prompts, max_new_tokens=N)
    assert texts == [each_model.tokenizer.decode(row, skip_special_tokens=True) for row in expected]


def test_token_id_prompts_are_taken_as_they_are(llama, prompts):
    ids = [list(row) for row in tokenize(llama.tokenizer, prompts).ids]
    assert cl.generate(llama, ids, max_new_tokens=4) == cl.generate(llama, prompts, max_new_tokens=4)


def test_rows_are_steered_in_their_own_language(each_model, prompts, small_corpus):
    cats = cl.categorize(cl.collect_statistics(each_model, small_corpus, progress=False))
    clas = cl.Clas(cats, layers=(1, 2), alpha=-6.0)
    plain = generate_tokens(each_model, prompts, max_new_tokens=N)
    one_by_one = []
    for prompt, language in zip(prompts, LANGUAGES, strict=True):
        with cl.steer(each_model, clas, language=language):
            one_by_one += generate_tokens(each_model, [prompt], max_new_tokens=N)
    assert one_by_one[1] == plain[1]
    assert one_by_one != plain
    for size in (2, 5):
        with cl.steer(each_model, clas, language=LANGUAGES):
            assert generate_tokens(each_model, prompts, max_new_tokens=N, batch_size=size) == one_by_one


def test_finished_rows_are_dropped_and_change_nothing(model, prompts, small_cats, monkeypatch):
    """Make a token that some rows produce early the end token; every row must equal its own single run."""
    clas = cl.Clas(small_cats, layers=(1, 2), alpha=-2.0)
    with cl.steer(model, clas, language=LANGUAGES):
        free = generate_tokens(model, prompts, max_new_tokens=N)
    end = free[2][2]
    monkeypatch.setattr(import_module("clas_lens.steering.generate"), "end_token_ids", lambda model: {end})
    with cl.steer(model, clas, language=LANGUAGES):
        stopped = generate_tokens(model, prompts, max_new_tokens=N)
    expected = [row[: row.index(end) + 1] if end in row else row for row in free]
    assert stopped == expected
    assert len({len(row) for row in stopped}) > 1


def test_stop_at_newline(model, monkeypatch):
    newline = model.tokenizer.encode("\n", add_special_tokens=False)[-1]
    letter = model.tokenizer.encode("a", add_special_tokens=False)[-1]
    script = iter([newline, letter, letter, newline, letter, letter])

    class Scripted(Decoder):
        def step(self, tokens, mask, columns=None):
            return torch.nn.functional.one_hot(torch.tensor([next(script)]), 600).float()

    monkeypatch.setattr(import_module("clas_lens.steering.generate"), "make_decoder", lambda model, batch: Scripted())
    assert cl.generate(model, ["x"], max_new_tokens=6, stop_at_newline=True) == ["aa"]
    assert next(script) == letter  # the first newline came before any text and did not stop it


def test_wrong_numbers_of_languages_are_refused(model, prompts, small_cats):
    clas = cl.Clas(small_cats, layers=(1, 2))
    with (
        pytest.raises(cl.SteeringError, match="given 2 languages, one a batch row, but there are 5 rows"),
        cl.steer(model, clas, language=["de", "en"]),
    ):
        cl.generate(model, prompts)


def test_bad_prompts(model):
    for prompts, message in (
        ([], "no prompts given"),
        ([[1, 2], []], "prompt 1 is empty"),
        ([[99999]], "token id 99999 is not in the model's vocabulary of 600"),
        ([[-1]], "token id -1 is not"),
        ([[1] * 510], "longest prompt has 510 tokens; with 32 new ones it exceeds the context of 512"),
    ):
        with pytest.raises(ValueError, match=message):
            cl.generate(model, prompts)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("Hallo", "must be a list of texts or of lists of token ids, got 'Hallo'"),
        (["a", [1]], "all texts or all lists"),
        ([None], "prompt 0 is neither a text nor a list of token ids but None"),
        ([5], "prompt 0 is neither"),
        ([[1.5]], "prompt 0 is neither"),
    ],
)
def test_what_is_no_list_of_prompts(prompts, message):
    with pytest.raises(ValueError, match=message):
        checked_prompts(prompts)


@pytest.mark.parametrize("count", [0, -1, 2.5, None, "3", True])
def test_counts_of_new_tokens(count):
    with pytest.raises(ValueError, match="max_new_tokens must be a whole number, at least 1"):
        given_whole("max_new_tokens", count, least=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("saved", [False, True], ids=["object", "folder"])
def test_the_end_tokens_of_the_generation_config_end_answers(tmp_path, backend, saved):
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.add_special_tokens({"bos_token": "<bos>"})  # defined, and not added: as in Yi and many fine-tunes
    free = generate_tokens(
        cl.load_model(tiny_hf_model("llama"), tokenizer=tokenizer), ["Hello there"], max_new_tokens=8
    )[0]
    hf = tiny_hf_model("llama")
    hf.generation_config.eos_token_id = [2, free[2]]
    ids = tokenizer("Hello there", return_tensors="pt")["input_ids"]
    own = hf.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :].tolist()
    if saved:
        hf.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
    model = cl.load_model(tmp_path if saved else hf, backend=backend, **({} if saved else {"tokenizer": tokenizer}))
    assert end_token_ids(model) == {2, free[2]}
    assert list(tokenize(model.tokenizer, ["Hello there"]).ids[0]) == ids[0].tolist()
    assert generate_tokens(model, ["Hello there"], max_new_tokens=8)[0] == own == free[:3]


def test_a_file_of_end_tokens_counts_alone_and_else_the_tokenizers(llama, monkeypatch):
    given = SimpleNamespace(eos_token_id=[7, 9], _from_model_config=False)
    monkeypatch.setattr(llama, "generation_config", given)
    assert end_token_ids(llama) == {7, 9}
    given._from_model_config = True
    assert end_token_ids(llama) == {2, 7, 9}
    monkeypatch.setattr(llama, "generation_config", None)
    assert end_token_ids(llama) == {2}
