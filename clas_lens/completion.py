"""Scripts with which a shell completes `clas-lens`: `clas-lens completion bash`."""

import argparse
from typing import Literal, TypeAlias, get_args

Shell: TypeAlias = Literal["bash", "zsh", "fish"]
SHELLS: tuple[Shell, ...] = get_args(Shell)
# What a shell does with the script; `clas-lens completion --help` shows it.
INSTALL = """\
bash: clas-lens completion bash > ~/.local/share/bash-completion/completions/clas-lens
zsh:  clas-lens completion zsh > ~/.zsh/_clas-lens   (with ~/.zsh in fpath, before compinit)
fish: clas-lens completion fish > ~/.config/fish/completions/clas-lens.fish
A script knows the options of the version that wrote it: write it again after an update."""


def completion_script(parser: argparse.ArgumentParser, shell: Shell) -> str:
    """The script, made from the parser by shtab. It stands alone: pressing Tab starts no Python.

    Raises:
        ImportError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise ImportError("completion needs shtab: pip install 'clas-lens[completion]'") from error
    return str(shtab.complete(parser, shell=shell))
