"""`clas-lens` and `python -m clas_lens`: also Ctrl-C while Python is still importing ends in one line."""

import sys


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        from clas_lens.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("\nstopped before anything was done", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
