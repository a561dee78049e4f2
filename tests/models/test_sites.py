"""Sites: values in the order of a forward pass, and the hook points that they mean."""

import pytest

from clas_lens.models.sites import Site

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4


def test_sites_are_values_in_the_order_of_a_forward_pass(model):
    sites = [Site(kind, layer) for layer in (0, 3) for kind in ("up", "mlp", "residual")]
    shuffled = [sites[place] for place in (3, 0, 5, 2, 4, 1)]
    assert sorted(shuffled) == sites
    assert min({Site("up", 3): 1, Site("residual", 0): 2}).layer == 0
    assert Site("mlp", 1) == Site("mlp", 1) != Site("up", 1)
    fired = []
    with model.hooks([(site.hook_name(model), lambda x, hook: fired.append(hook.name)) for site in reversed(sites)]):
        model("a b")
    assert fired == [model.hook_dict[site.hook_name(model)].name for site in sites]


def test_a_site_that_a_model_does_not_have_is_named(llama):
    with pytest.raises(ValueError, match=r"tiny-llama has no 'mlp' site in layer 9 \(blocks\.9\.mlp\.hook_post\)"):
        Site("mlp", 9).hook_name(llama)
