"""Whether a lens computes what the Transformers model computes: a short batch through both, before anyone measures with it.

The reference is taken first, because a bridge rewires the model that it wraps: each row alone, whole, without padding and
without a cache. The lens then reads both rows as one left-padded batch and goes on from its cache. So padding, positions, cache
and conversion are all held against the plainest forward pass that there is.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from clas_lens.models.backends import LensModel
from clas_lens.models.decoding import make_decoder
from clas_lens.models.hooking import hooked
from clas_lens.models.lean import allow_lean_attention, lean_passes, unseen_attentions
from clas_lens.models.loading import ModelLoadError
from clas_lens.models.sites import device_of, post_name

LENGTHS = (10, 6)
# The largest distance of a position's vector from the reference, in times that vector's length. What float error gives is
# below: on Gemma 3 270M 6e-6 in float32, .1 in bfloat16, .014 in float16; a tiny model that was cast from bfloat16, tables of
# positions and all, 3e-4. The smallest mistakes tried (exact GELU for tanh's, ten times the epsilon of Llama's norms) give 9e-4
# and hide; all others are far above.
TOLERANCE = {torch.float64: 1e-3, torch.float32: 2e-3, torch.float16: 3e-2, torch.bfloat16: 2e-1}
# What architectures call the matrix that the neurons go through on their way out.
DOWN_PROJECTIONS = ("down_proj", "dense_4h_to_h", "c_proj", "fc2", "fc_out", "w2", "wo")


@dataclass(frozen=True)
class Reference:
    """What the Transformers model computes for two rows of tokens.

    Attributes:
        rows: one row of ids each, the token of the second step last.
        logits: for each row [pos d_vocab].
        neurons: for each row and layer the input of the down projection [pos neuron].
    """

    rows: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]
    neurons: tuple[tuple[Tensor, ...], ...]


def take_reference(hf_model: PreTrainedModel) -> Reference:
    """Two short forward passes of the model as it is; it stays as it was (hooks, caches, gradients, training mode).

    Raises:
        ModelLoadError: its MLPs' down projections are not found, it fails by itself, or its logits are no numbers.
    """
    projections = down_projections(hf_model)
    embedding: Any = hf_model.get_input_embeddings()
    device = embedding.weight.device
    rows = tuple(row.to(device) for row in probe_tokens(hf_model))
    logits, neurons = [], []
    with torch.no_grad(), _in_eval_mode(hf_model):
        for row in rows:
            seen: dict[int, Tensor] = {}
            handles = [module.register_forward_pre_hook(_keep(seen, layer)) for layer, module in enumerate(projections)]
            try:
                output = hf_model(input_ids=row[None], attention_mask=torch.ones_like(row[None]), use_cache=False)
            except Exception as error:  # whatever a model's own code stumbles over
                raise ModelLoadError(
                    f"this {type(hf_model).__name__} itself fails on {len(row)} tokens in {hf_model.dtype}: "
                    f"{type(error).__name__}: {error}"
                ) from error
            finally:
                for handle in handles:
                    handle.remove()
            silent = next((layer for layer in range(len(projections)) if layer not in seen), None)
            if silent is not None:
                raise ModelLoadError(
                    f"layer {silent} of this {type(hf_model).__name__} does not run its own down projection: its forward was "
                    "replaced, by a patch or an optimiser. Load the model anew and give it as it is."
                )
            logits.append(output.logits[0].float().cpu())
            neurons.append(tuple(seen[layer].flatten(0, -2).float().cpu() for layer in range(len(projections))))
    broken = next((row for row in logits if not row.isfinite().all()), None)
    if broken is not None:
        raise ModelLoadError(
            f"the {type(hf_model).__name__}'s own logits are not numbers ({int((~broken.isfinite()).sum())} of "
            f"{broken.numel()} are NaN or infinite): its weights are damaged, or overflow in {hf_model.dtype}"
        )
    return Reference(rows, tuple(logits), tuple(neurons))


def _keep(seen: dict[int, Tensor], layer: int) -> Any:
    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[layer] = inputs[0].detach()

    return keep


def probe_tokens(hf_model: PreTrainedModel) -> tuple[Tensor, ...]:
    """Two rows of different ids that stand for themselves: no padding, no end, no image."""
    config: Any = hf_model.config
    named = [value for name, value in vars(config).items() if name.endswith(("token_id", "token_index"))]
    # Several ends of text are a list (Llama 3.1 Instruct has three).
    special = {token for value in named for token in (value if isinstance(value, list | tuple) else [value])}
    embedding: Any = hf_model.get_input_embeddings()
    size = embedding.weight.shape[0]
    count = sum(LENGTHS) + len(LENGTHS)
    step = max(1, (size // 2) // (2 * count))
    ids = [i % size for i in range(min(5, size // 4), size, step) if i not in special][:count]
    ids = (ids * count)[:count]
    first = LENGTHS[0] + 1
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(context, int) and context < first:
        raise ModelLoadError(
            f"the model's configuration says max_position_embeddings = {context}; the check against Transformers reads {first} "
            "tokens, and so would any text"
        )
    return torch.tensor(ids[:first]), torch.tensor(ids[first:])


def down_projections(hf_model: PreTrainedModel) -> list[nn.Module]:
    """Each layer's down projection: the module whose input are the MLP's neurons."""
    config: Any = hf_model.config.get_text_config()
    decoder: Any = hf_model.get_decoder() if hasattr(hf_model, "get_decoder") else hf_model.base_model
    stacks = [
        module
        for module in (decoder or hf_model).modules()
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers
    ]
    found = []
    for layer in stacks[0] if stacks else ():
        named = [
            module
            for name, module in layer.named_modules()
            if name.rsplit(".", 1)[-1] in DOWN_PROJECTIONS and not _in_attention(name)
        ]
        if len(named) != 1:
            break
        found.append(named[0])
    if not found or len(found) != config.num_hidden_layers:
        raise ModelLoadError(
            f"this {type(hf_model).__name__} cannot be checked against Transformers: no one down projection in each of its "
            f"layers (looked for {', '.join(DOWN_PROJECTIONS)}). load_model(..., check=False) loads it unchecked, which every "
            "result then records."
        )
    return found


def _in_attention(name: str) -> bool:
    """Whether a module's path goes through attention."""
    return "attn" in name or "attention" in name


def check_parity(model: LensModel, reference: Reference, *, allowed: float | None = None) -> float:
    """Raise unless the lens gives the reference's logits and neurons, left-padded as a batch and from its cache.

    Args:
        allowed: default `TOLERANCE` of the model's dtype.

    Returns:
        The largest distance, in times the length of the vector that it is from.

    Raises:
        ModelLoadError: with the place, the distance and what is allowed.
    """
    tokens, mask = _left_padded(reference, device_of(model))
    compare = _Comparison(model, allowed)
    with torch.no_grad():
        whole = model(tokens[:, :-1], attention_mask=mask[:, :-1])
        _check_steps(model, reference, compare)
        if unseen_attentions(model):
            with suppress(ModelLoadError):  # then patterns are computed: slower, in more memory, and not otherwise
                with lean_passes(model, probing=True):
                    _check_steps(model, reference, _Comparison(model, allowed))
                allow_lean_attention(model)
    compare(whole.float().cpu(), [logits[:-1] for logits in reference.logits], "logits")
    if model.cfg.d_mlp != (width := reference.neurons[0][0].shape[-1]):
        model.cfg.d_mlp = (
            width  # the bridge takes four times d_model for OPT and XGLM, whatever their configuration says
        )
    mark_checked(model)
    return compare.largest


def _check_steps(model: LensModel, reference: Reference, compare: "_Comparison") -> None:
    """Compare the neurons and logits of two steps of a decoder, all tokens but the last and the last from the cache."""
    tokens, mask = _left_padded(reference, device_of(model))
    seen: list[list[Tensor]] = [[] for _ in range(model.cfg.n_layers)]

    def keep(layer: int) -> Any:
        return lambda h, hook: seen[layer].append(h.detach().float().cpu())

    decoder = make_decoder(model, len(reference.rows))
    with hooked(model, [(post_name(layer), keep(layer)) for layer in range(model.cfg.n_layers)]):
        first = decoder.step(tokens[:, :-1], mask[:, :-1])
        second = decoder.step(tokens[:, -1:], mask[:, -1:])
    for layer, steps in enumerate(seen):
        where = f"MLP neurons (hook_post) of layer {layer}"
        if len(steps) != 2:
            raise ModelLoadError(
                f"{model.cfg.model_name}: the {where} were seen {len(steps)} times in 2 forward passes"
            )
        expected = [neurons[layer] for neurons in reference.neurons]
        compare(steps[0], [h[:-1] for h in expected], where)
        compare(steps[1], [h[-1:] for h in expected], f"{where}, second step from the cache")
    for logits, place, name in ((first, -2, "first"), (second, -1, "cached")):
        expected = [every[place][None] for every in reference.logits]
        compare(logits[:, None].float().cpu(), expected, f"the {name} step's logits")


class _Comparison:
    """Holds tensors against the reference's; `largest` is the largest distance so far."""

    def __init__(self, model: LensModel, allowed: float | None) -> None:
        self._name = model.cfg.model_name
        self._kind = type(model).__name__
        self._dtype = next(iter(model.parameters())).dtype
        self._allowed = TOLERANCE[self._dtype] if allowed is None else allowed
        self.largest = 0.0

    def __call__(self, got: Tensor, expected: list[Tensor], where: str) -> None:
        """`got` is left-padded: [row pos width]; `expected` has the real positions of each row."""
        allowed = self._allowed
        for row, right in enumerate(expected):
            ours = got.reshape(len(expected), -1, got.shape[-1])[row, -len(right) :]
            if ours.shape != right.shape:
                raise self._error(f"{where} are {ours.shape[-1]} wide, in Transformers {right.shape[-1]}")
            distance = (ours - right).norm(dim=-1) / right.norm(dim=-1).clamp(min=1e-6)
            self.largest = max(self.largest, float(distance.max()))
            if not bool((distance <= allowed).all()):  # NaN is no agreement
                place = int((~(distance <= allowed)).nonzero()[0])
                largest = float((ours - right).abs().max())
                raise self._error(
                    f"{where} are off by up to {largest:.2g} ({float(distance[place]):.2g} of the vector's length at position "
                    f"{place} of row {row}; {allowed:g} is allowed in {str(self._dtype).removeprefix('torch.')})"
                )

    def _error(self, what: str) -> ModelLoadError:
        other = "bridge" if self._kind == "HookedTransformer" else "hooked"
        return ModelLoadError(
            f"{self._name} as a {self._kind} does not compute what the Transformers model computes: {what}. TransformerLens "
            f"converts this architecture wrongly. Try backend={other!r}; check=False loads it all the same, and every result "
            "then records that it was not checked."
        )


def _left_padded(reference: Reference, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, reference.rows))
    tokens = torch.stack([torch.cat([row.new_full((longest - len(row),), int(row[0])), row]) for row in reference.rows])
    lengths = torch.tensor([len(row) for row in reference.rows], device=tokens.device)
    mask = (torch.arange(longest, device=tokens.device) >= longest - lengths[:, None]).long()
    return tokens.to(device), mask.to(device)


@contextmanager
def _in_eval_mode(hf_model: PreTrainedModel) -> Iterator[None]:
    training = [module for module in hf_model.modules() if module.training]
    try:
        hf_model.eval()
        yield
    finally:
        for module in training:
            module.training = True


_checked: "weakref.WeakSet[Any]" = weakref.WeakSet()


def mark_checked(model: LensModel) -> None:
    """Remember that this model agreed with Transformers."""
    _checked.add(model)


def was_checked(model: LensModel) -> bool:
    """Whether `load_model` has held this model against Transformers."""
    return model in _checked
