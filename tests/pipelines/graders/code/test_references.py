"""The reference programs of HumanEval and MBPP pass their own tests, each in a fifth of a second."""

import gzip
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from real_data import REAL_DATA
from sandboxes import needs_a_sandbox

from pipelines.graders.code.extraction import extract_code
from pipelines.graders.code.grade import grade_code
from pipelines.graders.code.sandbox import choose

HUMAN_EVAL, MBPP = REAL_DATA / "humaneval" / "HumanEval.jsonl.gz", REAL_DATA / "evaluation" / "mbpp" / "mbpp.jsonl"
pytestmark = [
    pytest.mark.no_backend,
    needs_a_sandbox,
    pytest.mark.skipif(
        not (HUMAN_EVAL.is_file() and MBPP.is_file()),
        reason=f"no HumanEval and MBPP in {REAL_DATA}; set GEMMA_KERAS_DATA to its folder",
    ),
]
OBJECTS_OF_THE_PROGRAM = 367
"""MBPP's test of trees, the one of the 500 whose tests build objects of the program's own class."""


def human_eval():
    with gzip.open(HUMAN_EVAL, "rt") as lines:
        return [json.loads(line) for line in lines]


def mbpp():
    rows = [json.loads(line) for line in MBPP.read_text().splitlines()]
    return [row for row in rows if 11 <= row["task_id"] <= 510]


def grade_human_eval(row, answer=None, seconds=10.0):
    answer = row["canonical_solution"] if answer is None else answer
    source = extract_code(answer, row["prompt"], row["entry_point"])
    return grade_code(source, row["test"], row["entry_point"], row["prompt"], seconds=seconds)


def grade_mbpp(row, answer=None, seconds=10.0):
    source = extract_code(f"```python\n{row['code']}\n```" if answer is None else answer)
    return grade_code(source, [row["test_setup_code"], *row["test_list"]], seconds=seconds)


def failures(grade, rows):
    """task → reason; prints what it takes."""
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(grade, rows))
    print(f"\n{len(rows)} problems, {(time.monotonic() - started) / len(rows):.3f} s each, 8 at a time")
    return {row["task_id"]: verdict.reason for row, verdict in zip(rows, verdicts, strict=True) if not verdict.passed}


@pytest.mark.slow
def test_all_references_of_human_eval_pass():
    rows = human_eval()
    assert len(rows) == 164
    assert failures(grade_human_eval, rows) == {}


@pytest.mark.slow
def test_the_references_of_mbpp_pass_but_one():
    rows = mbpp()
    assert len(rows) == 500
    assert set(failures(lambda row: grade_mbpp(row, seconds=30.0), rows)) == {OBJECTS_OF_THE_PROGRAM}


HELPERS = (32, 38, 50)
"""Exercises of HumanEval whose tests call a function of the prompt's."""


def test_some_references_of_human_eval_pass():
    rows = human_eval()
    assert failures(grade_human_eval, rows[:160:20] + [rows[number] for number in HELPERS]) == {}


def test_some_references_of_mbpp_pass():
    rows = mbpp()
    by_task = {row["task_id"]: row for row in rows}
    # A Counter, and a function called `sum`.
    assert failures(grade_mbpp, rows[::50] + [by_task[88], by_task[126]]) == {}


def test_what_is_no_plain_data_fails_and_says_so():
    (row,) = [row for row in mbpp() if row["task_id"] == OBJECTS_OF_THE_PROGRAM]
    assert grade_mbpp(row).reason == "it raised NotPlain: a Node is no plain data"


@pytest.mark.parametrize("answer", ["    pass\n", "    return None\n", "    raise ValueError\n", "    return 1\n"])
def test_wrong_answers_to_human_eval_fail(answer):
    rows = human_eval()[:160:20]
    assert len(failures(lambda row: grade_human_eval(row, answer), rows)) == len(rows)


def test_a_helper_that_the_answer_redefines_does_not_count():
    """HumanEval/32 asks for a zero of a polynomial, and its tests call the prompt's `poly`."""
    row = human_eval()[32]
    answer = "def poly(xs, x):\n    return 0.0\n\n\ndef find_zero(xs):\n    return 1.0\n"
    verdict = grade_human_eval(row, answer)
    assert not verdict.passed and verdict.reason.startswith("AssertionError")


def test_the_reference_of_another_problem_fails():
    rows = mbpp()[:80:8]
    others = [f"{row['code']}\n" for row in mbpp()[1:80:8]]
    with ThreadPoolExecutor(8) as pool:
        assert not any(verdict.passed for verdict in pool.map(grade_mbpp, rows, others))


def test_a_problem_takes_a_fifth_of_a_second():
    seconds = [grade_human_eval(row).seconds for row in human_eval()[:160:16]]
    print(f"\n{choose('auto')}: {statistics.median(seconds):.3f} s a problem")
    assert statistics.median(seconds) <= 0.2
