"""The README says what is there."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.no_backend


def test_the_two_commands_stand_first(repository):
    top = (repository / "README.md").read_text()[:1500]
    assert top.index("make quickstart") < top.index("make test")


def test_the_tree_is_that_of_the_repository(repository):
    outcome = subprocess.run([sys.executable, str(repository / "docs/tree.py"), "--check"], check=False)
    assert outcome.returncode == 0, "README.md's tree or docs/files.md is out of date: run python docs/tree.py"


def test_the_tree_is_read_at_a_glance(repository):
    tree = (repository / "README.md").read_text().split("<!-- tree -->")[1].split("<!-- /tree -->")[0]
    assert 15 < len(tree.strip().strip("`").strip().splitlines()) <= 28
