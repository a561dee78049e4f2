"""What runs in a worker: it loads the model by its name, once, shows that it is the driver's, and does one item at a time."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from clas_lens.cluster.errors import ClusterError
from clas_lens.cluster.work import Item, Work
from clas_lens.models.identity import model_fingerprint
from clas_lens.models.load import load_model
from clas_lens.models.origin import Origin, origin_of
from clas_lens.models.sites import LensModel

NUMERIC = ("clas-lens", "torch", "transformers", "transformer-lens")


@dataclass(frozen=True)
class ModelSpec:
    """All that is sent of a model: how to load it, and how to tell that it is the same.

    Attributes:
        device: of the worker, "cuda" or "cpu".
        threads: CPU threads of its passes; None leaves them as they are.
        fingerprint: `model_fingerprint` of the driver's.
        versions: of the packages that the numbers depend on, at the driver.
    """

    origin: Origin
    dtype: torch.dtype
    device: str
    threads: int | None
    fingerprint: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, model: LensModel, *, device: str, threads: int | None) -> "ModelSpec":
        """The driver's model.

        Raises:
            ClusterError: a model that no name stands for.
        """
        origin = origin_of(model)
        if origin is None:
            raise ClusterError(
                "the workers of a cluster load the model by its name, and this one was made from an object: give what "
                "load_model makes of a preset, a Hub id, a folder or a .gguf file"
            )
        dtype = next(iter(model.parameters())).dtype
        return cls(origin, dtype, device, threads, model_fingerprint(model), numeric_versions())

    def load(self) -> LensModel:
        """The worker's model.

        Raises:
            ClusterError: other versions than the driver's, or another model by this name.
            ModelLoadError: there is none by this name here.
        """
        here = numeric_versions()
        if here != dict(self.versions):
            raise ClusterError(
                f"a worker on {platform.node()} has {_listed(here)}; the driver has {_listed(self.versions)}"
            )
        model = load_model(
            self.origin.name, backend=self.origin.backend, dtype=self.dtype, device=self.device, check=False
        )
        found = model_fingerprint(model)
        if found != self.fingerprint:
            raise ClusterError(
                f"{self.origin.name} on {platform.node()} is another model than the driver's (fingerprint {found}, not "
                f"{self.fingerprint}): copy the same files there, and change no weights after loading"
            )
        return model


def numeric_versions() -> dict[str, str]:
    """Of the packages that the numbers depend on, in this process."""
    return {name: version(name) for name in NUMERIC}


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


class Worker:
    """Made a Ray actor by `runner.py`. What is started anew after a death loads the model again."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._model: LensModel | None = None

    def ready(self) -> str:
        """Load the model; returns the machine's name."""
        self._loaded()
        return platform.node()

    def _loaded(self) -> LensModel:
        if self._model is None:
            if self._spec.threads is not None:
                torch.set_num_threads(self._spec.threads)
            self._model = self._spec.load()
        return self._model

    def do(self, work: Work[Any, Any], place: int, item: Item) -> tuple[int, Any, int]:
        """The item's place, what `work` makes of it, and how much was told to be done meanwhile."""
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            told += done

        made = work(self._loaded(), item, tell)
        return place, made, told
