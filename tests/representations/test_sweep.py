"""`sweep` against one call of the model and of `generate` a strength."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

import clas_lens as cl

PROMPTS = ["Der Tee wächst", "Tea", "Tea grows on hills"]
LANGUAGES = ["de", "en", "de"]
ALPHAS = (-2.0, 0.0, 6.0)


@pytest.fixture(scope="module")
def clas(small_cats):
    return cl.Clas(small_cats, layers=(1, 2))


@pytest.mark.bridge
def test_equal_to_runs_one_by_one(model, clas):
    found = cl.sweep(model, clas, ALPHAS, PROMPTS, language=LANGUAGES, max_new_tokens=4, batch_size=2)
    assert found["alpha"].tolist() == [alpha for alpha in ALPHAS for _ in PROMPTS]
    plain = cl.generate(model, PROMPTS, max_new_tokens=4)
    for (alpha, place), row in found.set_index(["alpha", "prompt"]).iterrows():
        prompt, language = PROMPTS[place], LANGUAGES[place]
        tokens = torch.tensor([model.tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            before = model(tokens)[:, -1].double().log_softmax(-1)
            with cl.steer(model, replace(clas, alpha=alpha), language):
                after = model(tokens)[:, -1].double().log_softmax(-1)
                answer = cl.generate(model, [prompt], max_new_tokens=4)[0]
        assert row["kl"] == pytest.approx(float((before.exp() * (before - after)).sum()), abs=1e-5)
        assert row["next"] == model.tokenizer.decode([int(after.argmax())])
        assert row["answer"] == answer
        assert row["changed"] == (answer != plain[place])
    unmoved = found[(found["alpha"] == 0) | (found["language"] == "en")]
    assert (unmoved["kl"] == 0).all()
    assert not unmoved["changed"].any()


def test_the_unsteered_model_runs_once(lens_models, clas):
    model, passes = lens_models["llama", "hooked"], []
    handle = model.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    try:
        cl.sweep(model, clas, [0.0, 1.0], PROMPTS, language="de", max_new_tokens=1)
    finally:
        handle.remove()
    assert len(passes) == 2


@pytest.mark.parametrize(
    ("alphas", "prompts", "language", "message"),
    [
        ([], PROMPTS, "de", "different numbers, at least one"),
        ([1.0, 1.0], PROMPTS, "de", "different numbers"),
        ([float("nan")], PROMPTS, "de", "an alpha must be a finite number"),
        ([1.0], PROMPTS, ["de"], "1 languages for 3 prompts"),
        ([1.0], [], "de", "prompts"),
        ([1.0], PROMPTS, "EN", "written 'en'"),
    ],
)
def test_what_is_refused(lens_models, clas, alphas, prompts, language, message):
    with pytest.raises(ValueError, match=message):
        cl.sweep(lens_models["llama", "hooked"], clas, alphas, prompts, language=language)


def test_inside_steer_it_is_refused(lens_models, clas):
    model = lens_models["llama", "hooked"]
    with cl.steer(model, clas, "de", must_fire=False), pytest.raises(ValueError, match="outside `steer`"):
        cl.sweep(model, clas, [1.0], PROMPTS, language="de")


def test_the_frame(lens_models, clas):
    found = cl.sweep(lens_models["llama", "hooked"], clas, [1.0], PROMPTS, language="de", max_new_tokens=1)
    assert isinstance(found, pd.DataFrame)
    assert list(found.columns) == ["alpha", "prompt", "language", "kl", "next", "answer", "changed"]
