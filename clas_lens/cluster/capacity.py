"""How many workers a cluster has room for, and with how many CPUs each; plain arithmetic, with the reason in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from clas_lens.cluster.errors import ClusterError

GIB = 2**30
# A worker's memory beside its weights: the interpreter, the libraries, a batch's activations. Loading peaks near the weights'
# size, and what is measured of every neuron is smaller than they are.
BESIDE_WEIGHTS = 1.5 * GIB
WEIGHTS = 1.5  # in times their size


@dataclass(frozen=True)
class Room:
    """What a cluster has.

    Attributes:
        cpus: of each machine.
        gpus: of all machines.
        memory: bytes, of all machines.
    """

    cpus: Sequence[float | int]
    gpus: float | int
    memory: float | int


@dataclass(frozen=True)
class Plan:
    """How many workers, what each takes, and why."""

    workers: int
    cpus: int
    gpus: float | int
    reason: str


def plan_workers(room: Room, *, workers: int | None, gpus_per_worker: float | int | None, weights: int) -> Plan:
    """As many workers as asked for, else as there are GPUs for, else as fit the memory and the CPUs.

    Args:
        gpus_per_worker: default 1 where the cluster has any, else 0.
        weights: bytes of the model.

    Raises:
        ClusterError: the cluster has not what is asked for.
    """
    gpus = gpus_per_worker if gpus_per_worker is not None else float(room.gpus > 0)
    asked = f"{'' if workers is None else f'{workers} '}workers of {gpus:g} GPU{'s' if gpus != 1 else ''}"
    total = int(sum(room.cpus))
    if gpus:
        most, reason = int(room.gpus // gpus), f"{room.gpus:g} GPUs, {gpus:g} a worker"
        if (workers or 1) > most:
            raise ClusterError(
                f"{asked} need {(workers or 1) * gpus:g} GPUs, and the cluster has {room.gpus:g}: ask for fewer, or give "
                "gpus_per_worker=0 for the CPUs"
            )
    else:
        need = WEIGHTS * weights + BESIDE_WEIGHTS
        fitting = int(room.memory // need)
        most = max(1, min(fitting, total))
        held = f"{room.memory / GIB:.1f} GiB of memory" if fitting < total else f"{total} CPUs"
        reason = f"no GPU asked for or found; {held}, and a worker takes about {need / GIB:.1f} GiB and a CPU at least"
    count = most if workers is None else workers
    if count > total:
        raise ClusterError(f"{asked} need {count} CPUs, and the cluster has {total}: ask for at most {total}")
    return Plan(count, _cpus_each(room.cpus, count), gpus, reason if workers is None else "as asked for")


def _cpus_each(machines: Sequence[float | int], workers: int) -> int:
    """As many CPUs a worker as can be had on these machines for all of them."""
    shares = range(int(sum(machines)) // workers, 0, -1)
    return next((each for each in shares if sum(int(cpus) // each for cpus in machines) >= workers), 1)
