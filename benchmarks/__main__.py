"""Measure and print: `python -m benchmarks collection memory steering evaluation prefixes search loading growth decoding
probe coverage export cluster`; by its name alone `full-size`, which needs 16 GB of disk and of memory.

Each benchmark writes `<out>/<name>-<size>.json`. Ratios are from one run, contenders taking turns. Nothing else should be
running. The contenders of other packages need the extra `benchmark`,
the cluster the extra `cluster`.
"""

import argparse
import warnings
from importlib import import_module
from pathlib import Path

from benchmarks.full_size import NotEnoughRoomError
from benchmarks.measure import print_table, write_results
from benchmarks.models import SIZES

NAMES = (
    *("collection", "memory", "steering", "evaluation", "prefixes", "search", "loading", "growth", "decoding"),
    *("probe", "coverage", "export", "cluster"),
)
BY_NAME = ("full-size",)


def main() -> None:
    """The named benchmarks, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default all: {', '.join(NAMES)}; or {', '.join(BY_NAME)}"
    )
    parser.add_argument("--model", choices=("llama", "qwen"), default="llama", help="of full-size")
    parser.add_argument("--device", default="cpu", help="of full-size: cpu or cuda")
    parser.add_argument("--size", choices=list(SIZES), default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count; medians of them are taken")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    unknown = set(options.names) - {*NAMES, *BY_NAME}
    if unknown:
        parser.error(f"no benchmark {min(unknown)!r}; available: {', '.join((*NAMES, *BY_NAME))}")
    warnings.simplefilter("ignore")
    for name in options.names or NAMES:
        module = import_module(f"benchmarks.{name.replace('-', '_')}")
        own = {"model": options.model, "device": options.device} if name in BY_NAME else {}
        try:
            rows = module.run(SIZES[options.size], options.rounds, **own)
        except NotEnoughRoomError as error:
            parser.exit(1, f"{parser.prog}: {error}\n")
        file = "-".join([name, *own.values(), *(() if own and options.size == "cpu" else (options.size,))])
        print(f"\n{file}")
        print_table(rows)
        settings = {"size": options.size, "rounds": options.rounds, **own}
        write_results(options.out / f"{file}.json", name, settings, rows)
        if hasattr(module, "draw"):
            module.draw(rows, options.out)


if __name__ == "__main__":
    main()
