"""Work done by the workers of a Ray cluster: actors that hold the model, each doing one item at a time.

Ray schedules, starts workers that have died anew, does their items again, and carries items and results. Here is only what is
particular: which workers, which model, and what is said of an item that fails.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from clas_lens.cluster.capacity import Plan, plan_workers
from clas_lens.cluster.connection import connect, room_of
from clas_lens.cluster.errors import ClusterError
from clas_lens.cluster.work import ItemT, Result, Tell, Work, described
from clas_lens.cluster.worker import ModelSpec, Worker
from clas_lens.given import given_number, given_whole
from clas_lens.models.hooking import hook_points
from clas_lens.models.identity import model_fingerprint
from clas_lens.models.sites import LensModel

TRIES = 3  # of an item, and of loading a model
PATIENCE = 60  # seconds


def _silent(text: str) -> None:
    """Say nothing."""


class RayCluster:
    """Workers that each hold a model, on a Ray cluster or on one that is started on this machine: for `cluster=`.

    Nothing is started before there is work. The workers load the model by its name and show that it is the driver's (its
    fingerprint); they are kept from stage to stage, until `close()` or the end of a `with` block. Results are those of one
    process to the last bit, on the same kind of hardware with the same number of threads (`threads`), dtype and versions;
    else to float error. Only the driver writes files.

    Args:
        workers: default as many as there are GPUs for, else as fit the memory; `say` is told how many and why.
        gpus_per_worker: default 1 where the cluster has GPUs, else 0; several workers can share one (0.5).
        address: of a Ray cluster that is there ("auto" finds one on this machine); None starts Ray here, and ends it again.
        say: told what is going on.
        start: options for `ray.init` where Ray is started here.

    Raises:
        ValueError: an argument of another kind.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        gpus_per_worker: float | int | None = None,
        address: str | None = None,
        say: Callable[[str], None] = _silent,
        start: Mapping[str, Any] | None = None,
    ) -> None:
        self.workers = None if workers is None else given_whole("workers", workers, least=1)
        self.gpus_per_worker = (
            None if gpus_per_worker is None else given_number("gpus_per_worker", gpus_per_worker, least=0)
        )
        self.address, self.say, self._start = address, say, dict(start or {})
        self._ray: Any = None
        self._ours = False
        self._plan: Plan | None = None
        self._actors: list[Any] = []
        self._held: tuple[weakref.ref[LensModel], str] | None = None  # the driver's model, and its fingerprint

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and the Ray that was started for them; later work starts them anew."""
        if self._ray is None:
            return
        ray, self._ray, self._plan = self._ray, None, None
        if ray.is_initialized():
            self._end_workers(ray)
            if self._ours:
                ray.shutdown()

    def device(self, model: LensModel) -> torch.device:
        """The workers'."""
        return torch.device(_device_of(self._planned(model)))

    def results(
        self, model: LensModel, work: Work[ItemT, Result], items: Iterable[ItemT], tell: Tell
    ) -> Iterator[tuple[ItemT, Result]]:
        """See `work.Runner`. A worker that dies is started anew and its item done again.

        Raises:
            ClusterError: an item has failed three times; all others that were begun are handed out before that. Or the
                workers cannot have this model.
        """
        coming = iter(items)
        first = next(coming, None)
        if first is None:  # no worker is needed to do nothing
            return
        yield from _Round(self._ray_for(model), self._workers_with(model), work).results(first, coming, tell)

    # --- workers ---

    def _ray_for(self, model: LensModel) -> Any:
        self._planned(model)
        return self._ray

    def _planned(self, model: LensModel) -> Plan:
        if self._plan is None or not self._ray.is_initialized():
            self._ray, self._ours = connect(self.address, self._start, self.say)
            weights = sum(p.numel() * p.element_size() for p in model.parameters())
            room = room_of(self._ray)
            try:
                self._plan = plan_workers(
                    room, workers=self.workers, gpus_per_worker=self.gpus_per_worker, weights=weights
                )
            except ClusterError:
                self.close()
                raise
        return self._plan

    def _workers_with(self, model: LensModel) -> list[Any]:
        """Actors that hold this model, as it is now."""
        hooked_at = next((name for name, point in hook_points(model).items() if point.fwd_hooks), None)
        if hooked_at is not None:
            raise ClusterError(
                f"the model has hooks (at {hooked_at!r}), and the workers' models would have none: remove them, or work "
                "without cluster="
            )
        fingerprint = model_fingerprint(model)
        if self._held is not None and self._held[0]() is model and self._held[1] == fingerprint and self._actors:
            return self._actors
        ray, plan = self._ray, self._planned(model)
        self._end_workers(ray)
        device = _device_of(plan)
        spec = ModelSpec.of(model, device=device, threads=plan.cpus if device == "cpu" else None)
        self.say(
            f"{plan.workers} workers ({plan.reason}), each with {plan.cpus} CPU threads and {plan.gpus:g} GPUs; loading"
        )
        # Retries are the actor's, not a call's alone: then calls wait while it restarts, and do not fail at once.
        lasting = {"max_restarts": -1, "max_task_retries": TRIES - 1}
        made = ray.remote(Worker).options(num_cpus=plan.cpus, num_gpus=plan.gpus, **lasting)
        self._actors = [made.remote(spec) for _ in range(plan.workers)]
        try:
            nodes = self._waited(ray, [actor.ready.remote() for actor in self._actors])
        except ray.exceptions.RayError as error:
            self._end_workers(ray)
            raise ClusterError(f"a worker could not load {spec.origin.name}: {_cause(error)}") from error
        self._held = weakref.ref(model), fingerprint
        dtype = str(spec.dtype).removeprefix("torch.")
        self.say(f"every worker has {spec.origin.name} in {dtype}, on {', '.join(sorted(set(nodes)))}")
        return self._actors

    def _waited(self, ray: Any, coming: list[Any]) -> list[str]:
        """The machines of the workers, once all are there; says so now and then where that takes long."""
        while missing := ray.wait(coming, num_returns=len(coming), timeout=PATIENCE)[1]:
            ray.get([one for one in coming if one not in missing])  # raises what is wrong with one now
            self.say(
                f"waiting for {len(missing)} of {len(coming)} workers: loading, or the cluster is busy with other work"
            )
        return list(ray.get(coming))

    def _end_workers(self, ray: Any) -> None:
        actors, self._actors, self._held = self._actors, [], None
        for actor in actors:
            ray.kill(actor)


def _device_of(plan: Plan) -> str:
    return "cuda" if plan.gpus else "cpu"


class _Round:
    """The items of one stage on their way through the workers."""

    def __init__(self, ray: Any, actors: list[Any], work: Work[Any, Any]) -> None:
        self._ray, self._n = ray, len(actors)
        self._pool = ray.util.ActorPool(actors)
        self._work = ray.put(work)  # sent to each machine once
        self._begun: dict[int, tuple[Any, Any]] = {}  # by place: the item, and the reference of its result

    def results(self, first: Any, coming: Iterator[Any], tell: Tell) -> Iterator[tuple[Any, Any]]:
        """See `RayCluster.results`."""
        failure: ClusterError | None = None
        following: Any = first
        place = 0
        while True:
            while following is not None and failure is None and len(self._begun) < self._n:
                self._begin(place, following)
                place, following = place + 1, next(coming, None)
            if not self._begun:
                break
            try:
                done, made, told = self._pool.get_next_unordered()
            except self._ray.exceptions.RayError as error:
                failed = self._take_failed(error)
                failure = failure or failed
                continue
            item, _ = self._begun.pop(done)
            tell(told)
            yield item, made
        if failure is not None:
            raise failure

    def _begin(self, place: int, item: Any) -> None:
        def begin(actor: Any, item: Any) -> Any:
            # All errors count, not deaths alone: what failed once for want of memory may do another time.
            reference = actor.do.options(retry_exceptions=True).remote(self._work, place, item)
            self._begun[place] = item, reference
            return reference

        self._pool.submit(begin, item)

    def _take_failed(self, error: Exception) -> ClusterError:
        """Which item it was: of those begun, one whose result is an error."""
        for place, (item, reference) in list(self._begun.items()):
            if self._ray.wait([reference], timeout=0)[0]:
                try:
                    self._ray.get(reference)
                except self._ray.exceptions.RayError as found:
                    del self._begun[place]
                    failed = ClusterError(f"{described(item)} failed {TRIES} times, the last time with {_cause(found)}")
                    failed.__cause__ = found
                    return failed
        raise error


def _cause(error: Exception) -> str:
    """An error in a worker, in one line."""
    cause = getattr(error, "cause", None) or error
    first = str(cause).strip().splitlines()[0] if str(cause).strip() else ""
    if type(cause).__name__ in ("ActorDiedError", "ActorUnavailableError"):
        return "the death of its worker (killed, out of memory, or its machine gone)"
    return f"{type(cause).__name__}: {first}"
