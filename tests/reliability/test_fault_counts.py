"""The count of faults: marked tests alone, each backend's own, none again that has passed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_backend
ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

@pytest.mark.fault("row a")
@pytest.mark.parametrize("n", [1, 2])
def test_a(n):
    assert n != FAILS

@pytest.mark.fault("row b")
def test_b():
    pass

@pytest.mark.fault("row c")
@pytest.mark.parametrize("n", [1, 2])
def test_c(n, record_property):
    record_property("cases", 10 * n)
    assert n != FAILS

def test_other():
    assert False
"""


def count(folder, backend, fails, *options):
    (folder / "test_faults.py").write_text(f"FAILS = {fails}\n{TESTS}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "fault_counts", "--faults", "faults.json", "--faults-page",
         "page.md", "-p", "no:cacheprovider", "-c", "/dev/null", "test_faults.py", *options],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/fixtures"},
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


@pytest.fixture
def page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- make test-faults writes from here -->\n<!-- faults: to here -->\n")
    return page


def test_cases_are_counted_by_row_and_a_failed_one_again(tmp_path, page):
    assert count(tmp_path, "torch", fails=2).startswith("2 failed, 3 passed, 1 deselected")
    assert "| row a | 2 | 1 |\n| row b | 1 | 1 |\n| row c | 30 | 10 |" in page.read_text()
    assert count(tmp_path, "torch", fails=0).startswith("2 passed, 4 deselected")
    assert count(tmp_path, "jax", fails=0).startswith("5 passed, 1 deselected")
    assert "| row a | 4 | 4 |\n| row b | 2 | 2 |\n| row c | 60 | 60 |" in page.read_text()
    cases = json.loads((tmp_path / "faults.json").read_text())
    assert len(cases) == 10 and {case["passed"] for case in cases.values()} == {True}


@pytest.mark.slow
def test_processes_side_by_side_count_the_same(tmp_path, page):
    assert count(tmp_path, "torch", 2, "-n", "2").startswith("2 failed, 3 passed")
    found = json.loads((tmp_path / "faults.json").read_text())
    assert sorted((case["row"][-1], case["cases"], case["passed"]) for case in found.values()) == [
        ("a", 1, False), ("a", 1, True), ("b", 1, True), ("c", 10, True), ("c", 20, False),
    ]  # fmt: skip
    assert count(tmp_path, "torch", 0, "-n", "2").startswith("2 passed")
    assert "| row c | 30 | 30 |" in page.read_text()
