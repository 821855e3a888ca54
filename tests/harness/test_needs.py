"""The mark ``needs``: loud where a part is missing, a failure where all parts are required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SUITE = """
import pytest

@pytest.mark.needs("collector")
def test_that_needs_one():
    pass

def test_that_needs_none():
    pass

def test_that_fails_beside_a_part():
    import sys
    from tests.harness import Program
    with Program([sys.executable, "-c", "import time; print('words of the part', flush=True); time.sleep(60)"],
                 until=lambda it: "words" in it.output()):
        assert False
"""


def run_suite(folder: Path, **env: str) -> str:
    """Output of a pytest of its own over ``SUITE``, on a machine whose cache of parts is empty."""
    (folder / "test_example.py").write_text(SUITE)
    base = {name: value for name, value in os.environ.items() if name != "REQUIRE_PARTS"}
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"), str(folder)]
    done = subprocess.run(
        [*argv, "-p", "no:cacheprovider"],
        env={**base, "XDG_CACHE_HOME": str(folder / "cache"), **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tolerant(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run_suite(tmp_path_factory.mktemp("tolerant"))


def test_a_test_whose_part_is_missing_is_skipped_and_listed_with_the_mend(tolerant: str) -> None:
    assert "1 failed, 1 passed, 1 skipped" in tolerant
    assert "NOT RUN: 1 tests need collector" in tolerant
    assert "mend: ./dev parts collector" in tolerant
    assert "test_example.py::test_that_needs_one" in tolerant


def test_a_failing_test_shows_the_own_log_of_its_parts(tolerant: str) -> None:
    assert "end of the log of program" in tolerant
    assert "\nwords of the part" in tolerant


def test_with_require_parts_it_is_an_error_instead(tmp_path: Path) -> None:
    out = run_suite(tmp_path, REQUIRE_PARTS="1")
    assert "1 failed, 1 passed, 1 error" in out
    assert "REQUIRE_PARTS=1, but OpenTelemetry Collector" in out
