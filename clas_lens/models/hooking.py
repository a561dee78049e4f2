"""Hooks that live as long as their block, whatever interrupts it, and act on one model in one thread alone."""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint, LensHandle
from transformer_lens.model_bridge.generalized_components import base

from clas_lens.given import given_each
from clas_lens.models.backends import HookedTransformer, LensModel, given_lens_model
from clas_lens.models.loading import ModelLoadError

HookFunction = Callable[..., Tensor | None]


KEPT = "_clas_lens_hook_points"  # of a bridge: on the model, not beside it, since hooks may hold the model


def hook_points(model: LensModel) -> Mapping[str, HookPoint]:
    """The model's hook points by name.

    A bridge makes its `hook_dict` anew at each call, which takes 10 ms for 18 layers and was a fifth of a collection's time. So
    it is kept while nothing that it is made of has changed: the registered points, and the aliases' count of changes.
    """
    changes = getattr(base, "alias_generation", None)
    if isinstance(model, HookedTransformer) or changes is None:
        return model.hook_dict
    kept = vars(model).get(KEPT)
    if kept is None or kept[0] != (model._hook_registry, changes()):
        kept = vars(model)[KEPT] = (dict(model._hook_registry), changes()), model.hook_dict
    points: Mapping[str, HookPoint] = kept[1]
    return points


_idle: "weakref.WeakSet[Any]" = weakref.WeakSet()


def mark_idle(functions: Iterable[HookFunction]) -> None:
    """Say that these hook functions do nothing but in passes that their owner runs itself, so they may stay on the model."""
    _idle.update(functions)


def acting_hooks(model: LensModel) -> list[tuple[str, Any]]:
    """The hooks that are on the model, idle ones apart: hook point and function, in their order."""
    return [
        (name, function_of(handle))
        for name, point in hook_points(model).items()
        for handle in point.fwd_hooks
        if function_of(handle) not in _idle
    ]


LIBRARIES = frozenset({"accelerate", "clas_lens", "torch", "transformer_lens", "transformers"})


def hooked_modules(model: LensModel) -> list[str]:
    """The modules with forward hooks that are no library's: PyTorch's own hooks, past all hook points (`acting_hooks`)."""
    return [
        name
        for name, module in model.named_modules()
        if not isinstance(module, HookPoint)
        and any(
            _is_yours(hook) for hooks in (module._forward_pre_hooks, module._forward_hooks) for hook in hooks.values()
        )
    ]


def _is_yours(hook: Any) -> bool:
    function = getattr(hook, "func", hook)  # of a partial
    return (getattr(function, "__module__", None) or "").partition(".")[0] not in LIBRARIES


class HookBlock:
    """One `with hooked(...)`: whether it is still open, and whose thread it is."""

    def __init__(self, hold: "WithHold | None" = None) -> None:
        self._is_closed = False
        self._hold = hold
        self.thread = threading.get_ident()

    @property
    def is_open(self) -> bool:
        return not self._is_closed and (self._hold is None or self._hold.is_held())

    def close(self) -> None:
        """From here on the hooks do nothing."""
        self._is_closed = True

    def acts_here(self) -> bool:
        """Whether hooks of this block may do something: it is open, and this is the thread that opened it."""
        return self.is_open and threading.get_ident() == self.thread


class WithHold:
    """Whether a `with` statement still holds the `__exit__` that it will call: known even where that call is interrupted.

    A Ctrl-C can come when `__exit__` has begun and nothing in it has run yet. By then the statement has let go of the method.
    """

    def __init__(self) -> None:
        self._method: weakref.ref[MethodType] | None = None

    def is_held(self) -> bool:
        """True also where no `with` statement is involved (`ExitStack`)."""
        return self._method is None or self._method() is not None

    def given(self, method: MethodType) -> MethodType:
        """The same method, watched from now on."""
        self._method = weakref.ref(method)
        return method


class HeldExit:
    """An `__exit__` for a class with a `hold`: its method `leave`, watched."""

    def __get__(self, instance: Any, owner: Any) -> Any:
        return owner.leave if instance is None else instance.hold.given(MethodType(owner.leave, instance))


class _LiveHook:
    """A forward hook of one hook point. A copy of it, in a copy of the model, is dead; so is one whose block is over."""

    def __init__(self, function: HookFunction, block: HookBlock, point: HookPoint) -> None:
        self.function, self.block, self.point = function, block, point

    def __call__(self, module: nn.Module, inputs: object, output: Any) -> Any:
        if module is not self.point or not self.block.acts_here():
            return None
        conversion: Any = self.point.hook_conversion  # from the bridge's shapes to a HookedTransformer's, and back
        seen = output if conversion is None else conversion.convert(output)
        changed = self.function(seen, hook=self.point)
        return changed if changed is None or conversion is None else conversion.revert(changed)

    def __deepcopy__(self, memo: object) -> "_DeadHook":
        return _DeadHook()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _DeadHook, ()


class _DeadHook:
    """What a copied or pickled model keeps of a hook."""

    def __call__(self, *arguments: object, **options: object) -> None:
        return None


@contextmanager
def hooked(
    model: LensModel, hooks: Sequence[tuple[str, HookFunction]], hold: WithHold | None = None
) -> Iterator[HookBlock]:
    """Attach forward hooks and detach exactly these at the end, whatever happens in between.

    The user's own hooks stay, also those that they add inside; `model.reset_hooks()` inside leaves ours in place. Copies of the
    model made inside, and other threads that call it, are left alone.

    Args:
        hold: of a `with` statement around this one; when it is over, so are these hooks.

    Raises:
        ValueError: hooks that are no pairs, or a name that the model does not have (`TransformerBridge.add_hook` may pass over
            one).
        ModelLoadError: another kind of model, or a compiled one, which would not see them.
    """
    refuse_compiled(model)
    hooks = given_each(hooks, tuple, "hooks must be a list of pairs", "each a hook point's name and a function")
    points = hook_points(model)
    unknown = [name for name, _ in hooks if name not in points]
    if unknown:
        raise ValueError(f"no hook point {unknown[0]!r} in {model.cfg.model_name}")
    _sweep(points.values())
    block = HookBlock(hold)
    mine = [points[name] for name, _ in hooks]
    try:
        try:
            for name, function in hooks:
                _attach(points[name], function, block)
            yield block
        finally:
            block.close()
            _detach(mine, block)
    finally:  # once more, for a Ctrl-C inside the first time; otherwise it finds nothing
        block.close()
        _detach(mine, block)


def _attach(point: HookPoint, function: HookFunction, block: HookBlock) -> None:
    live = _LiveHook(function, block, point)
    # Not point.add_hook: it wraps the function in a closure that copies of the model would share.
    point.fwd_hooks.append(LensHandle(point.register_forward_hook(live), is_permanent=True, user_hook=live))


def _detach(points: Sequence[HookPoint], block: HookBlock) -> None:
    for point in points:
        for key, hook in list(point._forward_hooks.items()):
            if isinstance(hook, _LiveHook) and hook.block is block:
                point._forward_hooks.pop(key, None)
        point.fwd_hooks[:] = [handle for handle in point.fwd_hooks if not _is_of(handle, block)]


def function_of(handle: LensHandle) -> Any:
    """The function that somebody asked to hook, also where it was attached by `hooked`."""
    return handle.user_hook.function if isinstance(handle.user_hook, _LiveHook) else handle.user_hook


def _sweep(points: Iterable[HookPoint]) -> None:
    """Take away what blocks that are over have left, interrupted in their clean-up: it does nothing any more."""
    left = {id(hook.block): hook.block for point in points for hook in point._forward_hooks.values() if _is_dead(hook)}
    for block in left.values():
        _detach(list(points), block)


def _is_dead(hook: object) -> bool:
    return isinstance(hook, _LiveHook) and not hook.block.is_open


def _is_of(handle: LensHandle, block: HookBlock) -> bool:
    return isinstance(handle.user_hook, _LiveHook) and handle.user_hook.block is block


def refuse_compiled(model: Any) -> None:
    """Raise for a model that `torch.compile` has been over: compiled code runs past hooks that come later.

    Raises:
        ModelLoadError: that, or no model of TransformerLens.
    """
    if hasattr(model, "_orig_mod"):
        raise ModelLoadError(
            "this model is compiled: compiled code does not see hooks. Steer and measure the model inside, model._orig_mod."
        )
    given_lens_model(model)
    compiled = next((name or "the model" for name, module in model.named_modules() if _is_compiled(module)), None)
    if compiled is not None:
        raise ModelLoadError(
            f"{compiled} is compiled (.compile()): compiled code does not see hooks. Load the model again and leave it "
            "uncompiled."
        )


def _is_compiled(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None or type(module).__name__ == "OptimizedModule"
