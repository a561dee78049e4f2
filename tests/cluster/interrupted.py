"""Run by a test: the command line over two workers of a small Ray of its own, measuring until it is interrupted."""

import signal
import sys
from functools import partial

import clas_lens.study.configured as configured
from clas_lens.cli import main
from clas_lens.cluster.runner import RayCluster

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what it runs in the background
    small = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 10**8}
    configured.RayCluster = partial(RayCluster, start=small)
    options = [
        "--model",
        sys.argv[1],
        "--out",
        sys.argv[2],
        "--batch-size",
        "1",
        "--max-tokens",
        "16",
        "--ray",
        "--workers",
        "2",
    ]
    sys.exit(main(["collect", *options]))
