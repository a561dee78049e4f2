"""Ray itself: found or started, and what it has."""

import logging
import math
import socket
from collections.abc import Callable, Mapping
from typing import Any

from clas_lens.cluster.capacity import Room
from clas_lens.cluster.errors import ClusterError

STORE = 2**30  # bytes of the object store of a Ray that is started here; what does not fit goes to the disk
STARTS = 3


def connect(address: str | None, start: Mapping[str, Any], say: Callable[[str], None]) -> tuple[Any, bool]:
    """Ray's module, connected to a cluster, and whether the connection is ours to end.

    Raises:
        ImportError: Ray is not installed.
        ClusterError: no cluster at the address.
    """
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise ImportError("a cluster needs Ray: pip install 'clas-lens[cluster]'") from error
    if ray.is_initialized():
        return ray, False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        context = _started(ray, {"object_store_memory": STORE, **quiet, **start})
        at = "a Ray of its own on this machine"
    else:
        try:
            _check_answers(address)
            context = ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"no Ray cluster at {address!r} ({str(error).strip().splitlines()[0]}): start one (ray start --head), or "
                "give no address, which starts Ray on this machine"
            ) from error
        at = f"the Ray cluster at {address}"
    shown = context.dashboard_url
    say(f"{at}; {f'dashboard at http://{shown}' if shown else 'no dashboard'}")
    return ray, True


def _check_answers(address: str) -> None:
    """Raise OSError where nothing answers at host:port: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        with socket.create_connection((host, int(port)), timeout=10):
            pass


def _started(ray: Any, options: Mapping[str, Any]) -> Any:
    """A Ray of its own. It gives its helpers 15 s to start, which a busy machine may miss; so it is tried a few times.

    Raises:
        ClusterError: it does not start.
    """
    for _ in range(STARTS):
        try:
            return ray.init("local", **options)
        except Exception as error:  # Ray raises just that
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise ClusterError(f"Ray does not start on this machine: {error}") from error
    raise ClusterError(
        f"Ray did not start on this machine in {STARTS} tries: is it too busy? Its logs: /tmp/ray/session_latest"
    )


def room_of(ray: Any) -> Room:
    """What the connected cluster has."""
    total = ray.cluster_resources()
    machines = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return Room(machines, math.floor(total.get("GPU", 0.0)), total.get("memory", 0.0))
