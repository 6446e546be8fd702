"""The runner of mutants on a toy package, its operators by hand, and its lists against the source as it is."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import mutants
import operators
import pytest
import results

pytestmark = pytest.mark.no_backend

HERE = pathlib.Path(__file__).parent
TOY = """\
def total(values, start=0):
    \"\"\"1 + 1 and `axis=0` in a docstring are no code.\"\"\"
    if not values:
        raise ValueError(f"{len(values) + 1} values")
    found = start
    for value in values:
        found += value
    return found - start


def longest(values, limit):
    \"\"\"Nobody tests this one.\"\"\"
    return max(len(value) for value in values if len(value) < limit)
"""
TEST = """\
import pytest

from gemma_keras.toy import longest, total


def test_total():
    assert total([1, 2], start=3) == 3
    with pytest.raises(ValueError):
        total([])
"""
FILES = '[files."gemma_keras/toy.py"]\nkind = "formula"\ntests = ["tests/test_toy.py"]\ndrawn = 0\n'


def entry(original, replacement, **options):
    rows = {"file": "gemma_keras/toy.py", "original": original, "replacement": replacement, **options}
    return "[[mutant]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in rows.items())


@pytest.fixture
def toy(tmp_path):
    """A source tree with one module and its test, and three lists."""
    root = tmp_path / "root"
    for path, text in {
        "gemma_keras/__init__.py": "", "gemma_keras/toy.py": TOY, "tests/test_toy.py": TEST, "files.toml": FILES,
        "named.toml": entry("return found - start", "return found + start"), "equivalent.toml": "",
        "pyproject.toml": "[tool.pytest.ini_options]\\nmarkers = ['slow']\\n".replace("\\n", "\n"),
    }.items():  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def run(root, *arguments):
    """Exit status and output of the runner on a tree."""
    places = ("--root", root, "--lists", root, "--results", root / "results.jsonl")
    environment = {**os.environ, "KERAS_BACKEND": "none", "PYTHONPATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, HERE, *map(str, places), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_mutant_that_no_test_notices_is_named_and_fails(toy):
    (toy / "named.toml").write_text(
        entry("return found - start", "return found + start")
        + entry("found += value", "found += valeu")
        + entry("return max(", "return min(")
        + entry("len(value) < limit", "len(value) <= limit", equivalent="Nobody asks.")
    )
    before = (toy / "gemma_keras/toy.py").read_text()
    status, output = run(toy)
    assert status == 1
    assert "| all | 4 | 2 | 1 | 1 | 66.7 % |" in output
    assert "survived: gemma_keras/toy.py:13 [named" in output
    assert "A formula's mutant survived: gemma_keras/toy.py:13" in output
    assert "66.7 % of the 3 mutants are killed; expected at least 95 %." in output
    assert "25.0 % are argued to be equivalent; expected at most 10 %." in output
    assert (toy / "gemma_keras/toy.py").read_text() == before


def test_a_stopped_run_goes_on_and_only_what_changed_is_run_again(toy):
    (toy / "named.toml").write_text(
        entry("return found - start", "return found + start") + entry("found += value", "found -= value")
    )
    status, output = run(toy)
    assert status == 0 and "2 mutants to run, 0 known" in output
    lines = (toy / "results.jsonl").read_text().splitlines()
    (toy / "results.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    assert "1 mutants to run, 1 known" in run(toy)[1]
    status, output = run(toy)
    assert status == 0 and "0 mutants to run, 2 known" in output and "| all | 2 | 2 | 0 | 0 | 100.0 % |" in output
    with (toy / "tests/test_toy.py").open("a") as file:
        file.write("\n\ndef test_longest():\n    assert longest(['a', 'bb'], 9) == 2\n")
    (toy / "named.toml").write_text((toy / "named.toml").read_text() + entry("return max(", "return min("))
    status, output = run(toy)
    assert status == 0 and "3 mutants to run, 0 known" in output
    (toy / "tests/cases.yaml").write_text("1: one")
    assert "3 mutants to run, 0 known" in run(toy)[1] and "0 mutants to run, 3 known" in run(toy)[1]


def test_a_list_that_does_not_fit_the_source_is_an_error_that_names_every_entry(toy):
    (toy / "named.toml").write_text(
        entry("return found * start", "return found")
        + entry("values", "value")
        + entry("x", "y", file="gemma_keras/gone.py")
    )
    (toy / "equivalent.toml").write_text('[[mutant]]\nid = "gemma_keras/toy.py:00000000"\nbecause = "No."\n')
    (toy / "files.toml").write_text(FILES.replace("test_toy.py", "test_gone.py"))
    (toy / "named.toml").write_text((toy / "named.toml").read_text() + entry("found += value", "pass"))
    status, output = run(toy)
    assert status == 2 and output.startswith("These entries do not fit the source; mend or remove them:")
    assert "gemma_keras/toy.py has 0 times, expected once: return found * start" in output
    assert f"gemma_keras/toy.py has {TOY.count('values')} times, expected once: values" in output
    assert "named.toml: gemma_keras/gone.py is not in files.toml" in output
    assert "no mutant gemma_keras/toy.py:00000000 is drawn" in output
    assert "no tests tests/test_gone.py" in output


def test_tests_that_fail_without_a_fault_prove_nothing(toy):
    (toy / "tests/test_toy.py").write_text(TEST.replace("== 3", "== 4"))
    status, output = run(toy)
    assert status == 2 and "gemma_keras/toy.py: its tests fail without a fault (1)" in output


PROGRAM = """
import pathlib, sys
import forks
root = pathlib.Path(sys.argv[1])
text = (root / "gemma_keras/toy.py").read_text()
endless = text.replace("found += value", "values.append(value)")
jobs = [
    forks.Job("endless", "gemma_keras/toy.py", endless, ("tests/test_toy.py",), 1.0),
    forks.Job("broken", "gemma_keras/toy.py", "1 +", ("tests/test_toy.py",), 60.0),
    forks.Job("whole", "", "", ("tests/test_toy.py",), 60.0),
]
for outcome in forks.run_all(root, root / "copies", jobs, 1):
    print(outcome.name, outcome.status, outcome.passed, outcome.failed)
"""


def test_an_endless_mutant_is_stopped_and_the_copy_is_whole_again_after_each(toy):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, toy],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE), "KERAS_BACKEND": "none", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=True,
    )
    assert done.stdout.splitlines() == [f"endless {-signal.SIGXCPU} 0 ", "broken 2 0 ", "whole 0 1 "]


def test_what_cannot_be_imported_is_not_killed(toy):
    (toy / "named.toml").write_text(
        entry("def total(values, start=0):", "def total(values, start=none):")
        + entry("return found - start", "return found + start")
    )
    status, output = run(toy)
    assert status == 1 and "NameError: name 'none' is not defined" in output
    assert "| all | 2 | 1 | 0 | 0 | 100.0 % |" in output
    assert "Not judged, as no test was the one to fail: gemma_keras/toy.py:1 [named" in output
    assert "1 mutants to run, 1 known" in run(toy)[1]


SOURCE = '''
LIMIT = 8


def first(values: "Array[3]", reverse=False, most=4):
    """3 + 4"""
    total = ops.sum(values, axis=-1) / len(values)
    if total < most and values is not None:
        sort(values, reverse=reverse, strict=True)
    self.best = min(values[1:])
    return f"{total + 1}" if any(values) else -total
'''


def test_the_operators_by_hand():
    found = {(change.operator, change.original, change.replacement) for change in operators.changes(SOURCE)}
    assert found == {
        ("constant", "4", "5"), ("axis", "-1", "0"), ("arithmetic", "/", "*"), ("comparison", "<", "<="),
        ("comparison", "<", ">="), ("comparison", "is not", "is"), ("argument", "reverse=reverse, ", ""),
        ("condition", "total < most and values is not None", "not (total < most and values is not None)"),
        ("statement", "sort(values, reverse=reverse, strict=True)", "pass"),
        ("statement", "self.best = min(values[1:])", "pass"), ("minmax", "min", "max"), ("constant", "1", "2"),
        ("condition", "any(values)", "not (any(values))"), ("minmax", "any", "all"), ("arithmetic", "-total", "total"),
    }  # fmt: skip
    one = next(change for change in operators.changes(SOURCE) if change.original == "is not")
    assert (one.place, one.line) == ("first", 8)
    assert one.applied(SOURCE) == SOURCE.replace("is not", "is")


def test_a_draw_is_the_same_every_time_and_after_an_edit_elsewhere():
    drawn = operators.draw(SOURCE, 4)
    assert len(drawn) == 4 and len({change.line for change in drawn}) == 4
    assert len({change.operator for change in drawn}) == 4
    later = operators.draw("# A note.\n" + SOURCE.replace("LIMIT = 8", "LIMIT = 9"), 4)
    assert [change.digest for change in later] == [change.digest for change in drawn]
    assert [change.line for change in later] == [change.line + 1 for change in drawn]


def test_the_lists_fit_the_source_and_are_long_enough(repository):
    found = mutants.read(repository, HERE)
    named = [mutant for mutant in found if mutant.operator == mutants.NAMED]
    assert len(found) >= 150 and len(named) >= 52 and len(found) - len(named) >= 50
    assert len({mutant.identifier for mutant in found}) == len(found)
    assert sum(bool(mutant.equivalent) for mutant in found) <= results.MOST_EQUIVALENT * len(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_fault_in_a_formula_is_noticed(tmp_path):
    command = [sys.executable, HERE, "--formulas", "--results", tmp_path / "results.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
