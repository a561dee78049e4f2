"""Blocks that were passed over are as they were."""

import pytest
import torch
from tiny import assert_no_hooks

from clas_lens.models.blocks import only_layers

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4


def test_blocks_are_whole_again_after_an_error(model):
    with pytest.raises(KeyError), only_layers(model, 2, 4, torch.zeros(1, 1, 32)):
        raise KeyError
    assert not [block for block in model.blocks if "forward" in vars(block)]
    assert_no_hooks(model)


def test_a_users_own_forward_stays(llama):
    own = llama.blocks[0].forward

    def wrapped(*inputs, **options):
        return own(*inputs, **options)

    vars(llama.blocks[0])["forward"] = wrapped  # a bridge's block hands setattr on
    try:
        with only_layers(llama, 1, 4, torch.zeros(1, 1, 32)):
            assert llama.blocks[0].forward is not wrapped
        assert llama.blocks[0].forward is wrapped
    finally:
        del vars(llama.blocks[0])["forward"]
