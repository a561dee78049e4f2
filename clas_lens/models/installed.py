"""Which TransformerLens is installed, known without loading it: the command line's defaults hang on that."""

from importlib.metadata import version

from clas_lens.vocabulary import Backend

FIRST_WITHOUT_HOOKED = 4


def transformer_lens_version() -> str:
    """The installed version, such as "3.9.0"."""
    return version("transformer-lens")


def default_backend() -> Backend:
    """The backend that `load_model` takes when none is named: "hooked" where TransformerLens has it (before 4.0)."""
    return "hooked" if int(transformer_lens_version().split(".")[0]) < FIRST_WITHOUT_HOOKED else "bridge"
