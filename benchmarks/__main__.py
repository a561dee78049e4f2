"""Measure and print: `python -m benchmarks collection memory steering evaluation prefixes search loading growth decoding
coverage export cluster`.

Each benchmark writes `<out>/<name>-<size>.json`. Ratios are from one run, contenders taking turns. Nothing else should be
running. The contenders of other packages need the extra `benchmark`,
the cluster the extra `cluster`.
"""

import argparse
import warnings
from importlib import import_module
from pathlib import Path

from benchmarks.measure import print_table, write_results
from benchmarks.models import SIZES

NAMES = (
    *("collection", "memory", "steering", "evaluation", "prefixes", "search", "loading", "growth", "decoding"),
    *("coverage", "export", "cluster"),
)


def main() -> None:
    """The named benchmarks, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(NAMES)}")
    parser.add_argument("--size", choices=list(SIZES), default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count; the fastest of each is taken")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {min(unknown)!r}; available: {', '.join(NAMES)}")
    warnings.simplefilter("ignore")
    for name in options.names or NAMES:
        module = import_module(f"benchmarks.{name}")
        rows = module.run(SIZES[options.size], options.rounds)
        print(f"\n{name} ({options.size})")
        print_table(rows)
        settings = {"size": options.size, "rounds": options.rounds}
        write_results(options.out / f"{name}-{options.size}.json", name, settings, rows)
        if hasattr(module, "draw"):
            module.draw(rows, options.out)


if __name__ == "__main__":
    main()
