"""What the installed TransformerLens offers: both backends up to 3.9, from 4.0 on the bridge alone.

All that 4.0 removed is imported here and in `hooked.py`, which nothing loads before a `HookedTransformer` is wanted.
"""

from typing import Any, TypeAlias, get_args

from transformer_lens.model_bridge import TransformerBridge

from clas_lens.given import given, given_word
from clas_lens.models.installed import default_backend, transformer_lens_version
from clas_lens.models.loading import ModelLoadError
from clas_lens.vocabulary import Backend

try:
    from transformer_lens import HookedTransformer
except ImportError:

    class _NoHookedTransformer:
        """Stands in for the class that TransformerLens 4 has no more; nothing is one."""

    HookedTransformer: Any = _NoHookedTransformer  # type: ignore[no-redef]
    HAS_HOOKED = False
else:
    HAS_HOOKED = True

LensModel: TypeAlias = HookedTransformer | TransformerBridge
HOW_TO_LOAD = "load_model(...) gives one"


def given_lens_model(model: object) -> LensModel:
    """The model, if it is one of TransformerLens's.

    Raises:
        ModelLoadError: anything else.
    """
    what = "a HookedTransformer or TransformerBridge is needed"
    return given(model, LensModel, what, HOW_TO_LOAD, error=ModelLoadError)


def check_backend(backend: Any) -> Backend:
    """The backend that is meant; None is the default.

    Raises:
        ModelLoadError: an unknown one, or "hooked" on TransformerLens 4.
    """
    if backend is None:
        return default_backend()
    chosen = given_word("backend", backend, get_args(Backend), error=ModelLoadError)
    if chosen == "hooked" and not HAS_HOOKED:
        raise ModelLoadError(
            f"backend='hooked' needs HookedTransformer, which transformer-lens {transformer_lens_version()} does not have: "
            "pip install 'transformer-lens>=3.9,<4', or use backend='bridge'"
        )
    return chosen


def official_hub_id(name: str) -> str | None:
    """The Hub id behind a name that TransformerLens knows ("gpt2", "pythia-70m"), or None."""
    try:
        from transformer_lens.loading_from_pretrained import get_official_model_name
    except ImportError:
        return _official_hub_id_of_4(name)
    try:
        return get_official_model_name(name)
    except ValueError:
        return None


def _official_hub_id_of_4(name: str) -> str | None:
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

    by_alias = {alias: official for official, aliases in MODEL_ALIASES.items() for alias in aliases}
    return by_alias.get(name) or (name if name in OFFICIAL_MODEL_NAMES else None)
