"""The Chromium of the system, for tests that open pages."""

import os
import shutil

import pytest

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1280,1000"),
)


def need(*programs: str) -> list[str]:
    """Their paths; elsewhere than in CI a test that wants one is skipped when it is missing."""
    found = [shutil.which(program) for program in programs]
    if None in found:
        missing = f"needs {' and '.join(programs)}: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return [path for path in found if path]
