"""Ctrl-C at any early moment of a command: one line, no traceback."""

import random
import signal
import subprocess
import sys
import time

import pytest

CALL = "import sys; sys.argv[0] = 'clas-lens'; from clas_lens.__main__ import main; print('on', flush=True); sys.exit(main())"
MOMENTS = [random.Random(seed).uniform(0, 1.5) for seed in range(5)]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment:.2f}s")
def test_an_interrupt_in_the_first_second_shows_no_traceback(moment, folders, tmp_path):
    words = ["collect", "--model", str(folders["llama"]), "--languages", "en", "de", "--out", str(tmp_path / "run")]
    command = subprocess.Popen(
        [sys.executable, "-c", CALL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "on\n"
    time.sleep(moment)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=100)
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    assert (command.returncode, "stopped" in said) in {(130, True), (0, False)}
