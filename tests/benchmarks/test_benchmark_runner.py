"""The benchmark measures what it says: in turns, medians, the right way round; and a library that fails does not stop
the others."""

import json
import textwrap

import pytest

from benchmarks import processes, run, table
from benchmarks.cases import CASES, case_named, tiny
from benchmarks.processes import Measurement, measure

pytestmark = pytest.mark.no_backend

MACHINE = {
    "cores": 2,
    "processor": "abacus",
    "memory_gib": 24.0,
    "python": "3.11",
    "versions": {"keras": "3.15.1"},
    "date": "2026-01-02",
}


@pytest.fixture
def fake_engines(tmp_path, monkeypatch):
    """A `benchmarks.worker` that logs each sample to a file instead of running a library; `broken` dies at its second
    sample."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "worker.py").write_text(
        textwrap.dedent("""
        import argparse, json, os, sys
        parser = argparse.ArgumentParser()
        for name in ("--engine", "--case"):
            parser.add_argument(name)
        parser.add_argument("--answers", type=int)
        parser.add_argument("--tiny", action="store_true")
        arguments = parser.parse_args()
        answers = os.fdopen(arguments.answers, "w", buffering=1)
        answers.write(json.dumps({"event": "ready", "parameters": 7, "memory_gib": 0.5}) + "\\n")
        for number, word in enumerate(iter(sys.stdin.readline, "")):
            if arguments.engine == "transformers" and number == 1:
                print("Traceback of the library")
                sys.exit("ValueError: out of cheese")
            with open("turns.txt", "a") as file:
                file.write(arguments.engine + " " + os.environ["KERAS_BACKEND"] + "\\n")
            seconds = 10.0 if number == 0 else float(number)
            answers.write(json.dumps({"event": "sample", "seconds": seconds, "memory_gib": 1.0 + number}) + "\\n")
        """)
    )
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    return tmp_path


def test_libraries_are_asked_in_turns_and_a_failing_one_is_reported(fake_engines):
    ours, keras_hub, transformers = measure(case_named("train"), "torch", samples=3, timeout=20, say=lambda line: None)
    turns = (fake_engines / "turns.txt").read_text().split()[::2]
    assert turns == ["ours", "keras_hub", "transformers", "ours", "keras_hub", "ours", "keras_hub", "ours", "keras_hub"]
    assert ours.first_call == 10.0
    # A sample of this case is four steps.
    assert ours.seconds == [0.25, 0.5, 0.75] and ours.median == 0.5
    assert ours.memory_gib == 4.0 and ours.parameters == 7 and ours.error is None
    assert keras_hub.seconds == ours.seconds
    assert transformers.error == "ended with status 1: ValueError: out of cheese"


def test_a_library_that_hangs_is_given_up(fake_engines):
    (fake_engines / "benchmarks" / "worker.py").write_text("import time; print('building', flush=True); time.sleep(60)")
    results = measure(case_named("generate_1"), "jax", samples=1, timeout=0.5, say=lambda line: None)
    assert [item.error for item in results] == ["no answer within 0 s: building"] * 2


def measured(engine, seconds, backend="torch", **changes):
    values = {"first_call": 3.0, "seconds": seconds, "memory_gib": 1.25, **changes}
    return Measurement("generate_16", backend, engine, **values)


def test_table_says_who_is_faster_and_by_how_much():
    results = table.merge(
        {"runs": [], "machine": {}},
        [measured("ours", [2.0, 1.0, 9.0]), measured("transformers", [4.0, 5.0, 6.0])],
        MACHINE,
    )
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.render(results).splitlines()
        if line.startswith("| torch")
    ]
    # 16 rows of 128 new tokens a step; medians 2 and 5 seconds.
    assert rows == [
        ["torch", "gemma_keras", "2 (1 to 9)", "1,024", "", "3.0", "1.25"],
        ["torch", "transformers", "5 (4 to 6)", "410", "2.50", "3.0", "1.25"],
    ]


def test_table_names_a_failure():
    failed = Measurement("generate_16", "torch", "keras_hub", error="ended with status 1: a|b")
    text = table.render(table.merge({"runs": [], "machine": {}}, [measured("ours", [1.0]), failed], MACHINE))
    assert "| torch | KerasHub | failed: ended with status 1: a\\|b |" in text


def test_merge_replaces_one_case_on_one_backend_only():
    stored = table.merge(
        {"runs": [], "machine": {}}, [measured("ours", [1.0]), measured("ours", [2.0], backend="jax")], MACHINE
    )
    merged = table.merge(stored, [measured("ours", [3.0])], MACHINE)
    assert [(item["backend"], item["seconds"]) for item in merged["runs"]] == [("jax", [2.0]), ("torch", [3.0])]


def test_write_keeps_what_stands_around_the_table(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write(path, "new")
    assert path.read_text() == f"# Title\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    path.write_text("no markers")
    with pytest.raises(ValueError, match="once each"):
        table.write(path, "new")


def test_sizes_are_those_of_the_published_comparison():
    sizes = {case.name: case for case in CASES}
    size = sizes["train"].size
    attention = 2 * size.hidden_dim * size.head_dim * (size.num_query_heads + size.num_key_value_heads)
    weights = size.vocabulary_size * size.hidden_dim + size.num_layers * (
        attention + 3 * size.hidden_dim * size.intermediate_dim
    )
    assert round(weights / 1e6) == 34
    assert sizes["train"].tokens == 2048 and sizes["generate_16"].tokens == 2048 and sizes["reinforce"].tokens == 8192
    assert sizes["train_large_vocabulary"].size.vocabulary_size == 256_000


def test_unknown_case_is_an_error(capsys):
    assert run.main(["--only", "trian", "--tiny"]) == 2
    assert "fits nothing" in capsys.readouterr().err


def test_a_real_run_of_ours_writes_results_and_table(tmp_path, monkeypatch):
    """The smallest case through real processes, ours only."""
    monkeypatch.setattr("benchmarks.processes.OURS", "ours")
    case = tiny(case_named("generate_1"))
    object.__setattr__(case, "peers", {"jax": ()})
    (result,) = measure(case, "jax", samples=2, tiny=True, timeout=200, say=lambda line: None)
    assert result.error is None
    assert len(result.seconds) == 2 and result.first_call > max(result.seconds) > 0
    assert 0.1 < result.memory_gib < 8
    results = table.merge({"runs": [], "machine": {}}, [result], run.machine())
    assert json.loads(json.dumps(results)) == results
    assert "| jax | gemma_keras |" in table.render(results)
