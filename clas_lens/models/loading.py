"""What every loader shares: the error, the cache folder, quiet."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ModelLoadError(ValueError):
    """A model could not be found, read or converted; the message says what to do."""


def cache_folder() -> Path:
    """Where converted checkpoints are kept: `$CLAS_LENS_CACHE`, or `~/.cache/clas_lens`."""
    return Path(os.environ.get("CLAS_LENS_CACHE") or Path.home() / ".cache" / "clas_lens")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars or advice from transformers while we load."""
    from transformers.utils import logging

    was_on, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if was_on:
            logging.enable_progress_bar()
