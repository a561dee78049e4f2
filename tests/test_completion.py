"""The scripts of `clas-lens completion`: each shell that is here reads its own, and bash completes with it."""

import shutil
import subprocess

import pytest

from clas_lens.cli import _parser, main
from clas_lens.completion import SHELLS, completion_script

pytest.importorskip("shtab", reason="needs the extra completion")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_commands_and_options(shell, tmp_path, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("clas-lens", "collect", "evaluate", "threshold", "mean"):
        assert word in script
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(script)
        subprocess.run([shell, "-n", file], check=True)


def completed(*words: str) -> set[str]:
    """What bash offers for the last word."""
    line = f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}"
    call = 'function=$(complete -p clas-lens | sed "s/.*-F \\([^ ]*\\).*/\\1/")'
    code = f'{completion_script(_parser(), "bash")}\n{call}\n{line}\n$function\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    return set(subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_choices():
    assert completed("clas-lens", "cat") == {"categorize"}
    assert "--threshold" in completed("clas-lens", "categorize", "runs/demo", "--thr")
    assert completed("clas-lens", "tables", "runs/demo", "--format", "") >= {"latex", "csv", "html"}


def test_without_shtab_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'clas-lens[completion]'" in capsys.readouterr().err
