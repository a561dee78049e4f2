"""Hooks end with their block: for copies, other threads, after interrupts anywhere in the clean-up."""

import copy
import gc
import pickle
import sys
import threading
import weakref

import pytest
import torch
from tiny import BACKEND, assert_no_hooks, logits

import clas_lens as cl
from clas_lens.models.hooking import hook_points, hooked, refuse_compiled
from clas_lens.models.sites import check_mlp_hooks, post_name
from clas_lens.steering.steer import steerings_on

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4


@pytest.fixture
def clas(small_cats):
    return cl.Clas(small_cats, layers=(1, 2), alpha=-2.0)


def test_a_copy_made_inside_is_not_steered(model, clas, tokens):
    plain = logits(model, tokens)
    with cl.steer(model, clas, "de"):
        twin = copy.deepcopy(model)
        assert not torch.equal(logits(model, tokens), plain)
        assert torch.equal(logits(twin, tokens), plain)
    assert torch.equal(logits(twin, tokens), plain)


def test_a_pickle_made_inside_is_not_steered(llama, clas, tokens):
    plain = logits(llama, tokens)
    with cl.steer(llama, clas, "de", must_fire=False):
        blocks = pickle.dumps(llama.blocks[1].mlp.hook_post)
    point = pickle.loads(blocks)
    values = torch.ones(1, 2, 48)
    assert torch.equal(point(values), values)
    assert torch.equal(logits(llama, tokens), plain)


def test_another_thread_is_not_steered(model, clas, tokens):
    plain, found = logits(model, tokens), []
    with cl.steer(model, clas, "de"):
        thread = threading.Thread(target=lambda: found.append(logits(model, tokens)))
        thread.start()
        thread.join()
        assert not torch.equal(logits(model, tokens), plain)
    assert torch.equal(found[0], plain)


def steer_once(model, clas):
    with cl.steer(model, clas, "de", must_fire=False):
        pass


FILES = ("clas_lens/models/hooking.py", "clas_lens/steering/steer.py", "contextlib.py")
TRACED = ("hooked", "_attach", "_detach", "close", "leave", "_steered", "__enter__", "__exit__")


def interrupted(run, at):
    """Whether `run` reached its `at`-th traced event in hooking.py, steer.py or contextlib.py; there it is interrupted."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_name not in TRACED or not frame.f_code.co_filename.endswith(FILES):
            return None
        count += 1
        if count == at:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except KeyboardInterrupt:
        return True, sys.exc_info()[1]
    finally:
        sys.settrace(before)
    return False, None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of blocks interrupted before `with`
def test_an_interrupt_anywhere_ends_the_steering(lens_models, clas):
    """Nothing is steered while the interrupt is still held (Jupyter holds the last error); once it is gone, no hook is left."""
    model = lens_models["llama", BACKEND]
    points = [model.blocks[layer].mlp.hook_post for layer in clas.layers]
    values, at, hit = torch.ones(1, 2, model.cfg.d_mlp), 0, True
    while hit:
        at += 1
        hit, error = interrupted(lambda: steer_once(model, clas), at)
        assert all(torch.equal(point(values), values) for point in points), f"steered after an interrupt at event {at}"
        assert not steerings_on(model)
        del error
        with hooked(model, []):  # what an interrupted clean-up has left does nothing, and goes with the next block
            pass
        assert not any(point.fwd_hooks or point._forward_hooks for point in points), f"hooks left at event {at}"
    assert at > 40
    assert_no_hooks(model)


def test_steer_without_with_warns(llama, clas):
    with pytest.warns(UserWarning, match=r"write `with steer\(model"):
        cl.steer(llama, clas, "de")


def test_compiled_models_are_told_apart(llama, clas):
    with pytest.raises(cl.ModelLoadError, match=r"compiled code does not see hooks.*model\._orig_mod"):
        refuse_compiled(torch.compile(llama))
    block = llama.blocks[1]
    block._compiled_call_impl = lambda *args: None
    try:
        with pytest.raises(cl.ModelLoadError, match=r"blocks\.1 is compiled"):
            with hooked(llama, [(post_name(0), print)]):
                pass
    finally:
        block._compiled_call_impl = None


@pytest.mark.parametrize(("what", "message"), [(None, "got a NoneType"), (torch.nn.Linear(2, 2), "got a Linear")])
def test_what_has_no_hook_points_is_told(what, message):
    with pytest.raises(cl.ModelLoadError, match=message):
        check_mlp_hooks(what)


def test_an_unknown_hook_name_is_refused(model):
    """TransformerLens's own bridge passes over one in 3.9."""
    with pytest.raises(ValueError, match="no hook point 'blocks.9.mlp.hook_post' in tiny-llama"):
        with hooked(model, [(post_name(9), lambda h, hook: None)]):
            pass


def test_hook_points_are_those_of_the_model_as_it_is_now(folders):
    model = cl.load_model(folders["llama"], backend="bridge", device="cpu", check=False)
    points = hook_points(model)
    assert points == model.hook_dict
    assert hook_points(model) is points
    assert hook_points(copy.deepcopy(model))[post_name(0)] is not points[post_name(0)]
    model.enable_compatibility_mode(disable_warnings=True)
    assert hook_points(model) == model.hook_dict
    model.add_hook(post_name(0), lambda h, hook, held=model: None)  # a user's hook that holds its model
    freed = weakref.ref(model)
    del model, points
    gc.collect()
    assert freed() is None
