"""What leaves as weights, and what is refused with its reason."""

from dataclasses import replace

import pytest
import torch
from tiny import BACKEND

import clas_lens as cl
from clas_lens.categories.selection import category_selection


def test_clas_and_masks_give_their_factors(small_cats, masks):
    clas = cl.Clas(small_cats, layers=(1, 4), alpha=-2.0, beta=0.4, gamma=0.2)
    found = cl.export.factors(clas, "de")
    assert set(found) <= {1, 4}
    values = {round(float(value), 6) for factor in found.values() for value in factor}
    assert values <= {0.2, 1.0, 1.4}  # 1 - 2 * 0.4, 1, 1 + 2 * 0.2
    assert 0.2 in values or 1.4 in values
    boosted = cl.export.factors(masks, "sw")[3][masks.boost[3]]
    torch.testing.assert_close(boosted, torch.full_like(boosted, -0.2))


def test_a_tuned_one_is_what_it_wraps(masks):
    tuned = replace(masks, tuned_on=frozenset({"xnli/1"}))
    for layer, factor in cl.export.factors(tuned, "de").items():
        assert torch.equal(factor, cl.export.factors(masks, "de")[layer])


def test_layers_without_a_change_are_left_out(any_factors):
    any_factors.factor[4] = torch.ones(48, dtype=torch.float64)
    assert sorted(cl.export.factors(any_factors, "de")) == [0, 2]


@pytest.mark.parametrize(
    ("change", "language", "message"),
    [
        ({"positions": "last"}, "de", "positions='last'; weights act at all positions"),
        ({"positions": "generated"}, "de", "positions='generated'"),
        ({"alpha": 0.0}, "de", "nothing to export: at alpha=0"),
        ({}, "en", "'en' is the anchor, which stays untouched"),
        ({}, "xq", "unknown language 'xq'"),
        ({}, "DE", "written 'de'"),
        ({}, "german", "unknown language 'german'"),
    ],
)
def test_what_is_not_exported_says_why(masks, change, language, message):
    with pytest.raises(ValueError, match=message):
        cl.export.factors(replace(masks, **change), language)


def test_what_is_no_factor_is_refused(small_stats, small_cats, lens_models):
    overwrite = cl.Overwrite.int_mu(
        small_stats, category_selection(small_cats, (1, 2)), site="post", missing="untouched"
    )
    vector = cl.AddVector(torch.ones(1, 32), ("de",), 1)
    incline = cl.Incline(torch.eye(32)[None], ("de",), 1)
    model = lens_models["llama", BACKEND]
    noise = cl.MatchedNoise.for_model(model, cl.Clas(small_cats, layers=(1,)), seed=0)
    for intervention, reason in [
        (overwrite, "replaces activations by constants"),
        (vector, "cl.export.control_vector"),
        (incline, "by a matrix"),
        (noise, "depends on the input"),
    ]:
        with pytest.raises(
            cl.ExportError, match=f"{type(intervention).__name__} cannot be exported as weights: .*{reason}"
        ):
            cl.export.factors(intervention, "de")


def test_a_rule_and_a_strength_by_example_say_why_not(small_cats):
    rule = cl.rule(layers=(2,))(lambda h, language: h)
    with pytest.raises(cl.ExportError, match="function of the activations"):
        cl.export.factors(rule, "de")
    adaptive = cl.Adaptive(cl.Clas(small_cats, layers=(1,), alpha=-2.0))
    with pytest.raises(cl.ExportError, match="follows each example"):
        cl.export.factors(adaptive, "de")
