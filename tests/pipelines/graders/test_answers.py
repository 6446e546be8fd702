"""Named reward functions: what counts as the answer, and what does not."""

import json
import random
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import REAL_DATA

from pipelines.graders.answers import answer_format, exact_answer, reward_function
from pipelines.graders.statements import last_statement

pytestmark = pytest.mark.no_backend
CASES = yaml.safe_load((Path(__file__).parent / "answer_cases.yaml").read_text(encoding="utf-8"))


def real_rows(*names):
    """Rows of a data set's JSON lines; the test is skipped where they are missing."""
    paths = [REAL_DATA / name for name in names]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"no {', '.join(names)} in {REAL_DATA}; set GEMMA_KERAS_DATA to its folder")
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("group", CASES)
def test_the_cases_that_were_graded_by_hand(group):
    wrong = [case for case in CASES[group] if exact_answer(case[0], case[1]) != case[2]]
    assert wrong == []


def test_there_are_enough_cases_of_both_kinds():
    truths = [truth for cases in CASES.values() for _, _, truth in cases]
    assert truths.count(1) >= 100 and truths.count(0) >= 100


PIECES = [
    *(
        "18",
        "19",
        "7",
        "1",
        "2",
        "5,600",
        "0.5",
        "½",
        " ",
        " ",
        " or ",
        " and ",
        ",",
        ".",
        "/",
        ":",
        "-",
        "+",
        "=",
        "%",
    ),
    *(
        "$",
        "\\$",
        "\\boxed{",
        "}",
        "{",
        "(",
        ")",
        "[",
        "]",
        "\n",
        "#### ",
        "The answer is ",
        "\\frac{",
        "\\text{",
        "\\",
    ),
    *(
        "km",
        "apples",
        "x",
        "I",
        "\\infty",
        "!",
        "?",
        "<<",
        ">>",
        "**",
        "^",
        "_",
        "^\\circ",
        "pm",
        "\\left(",
        "\\,",
        "!=",
    ),
]


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join))
def test_no_wording_fits_two_answers(completion):
    answers = ["18", "19", "7", "1", "2", "12", "187", "-18", "5600", "36", "(1,2)", "1:2", "1/2", "18/19", "1, 2"]
    assert sum(exact_answer(completion, answer) for answer in answers) <= 1
    assert answer_format(completion) in (0, 1)


def test_gsm8k_grades_its_own_solutions_right_and_no_others():
    rows = real_rows("gsm8k/train.jsonl", "gsm8k/test.jsonl")
    assert len(rows) == 7473 + 1319
    others = random.Random(0).sample(rows, len(rows))
    for row, other in zip(rows, others, strict=True):
        assert exact_answer(row["answer"], row["answer"]) == 1
        mine, theirs = (Fraction(text["answer"].split("####")[1].replace(",", "")) for text in (row, other))
        assert exact_answer(row["answer"], other["answer"]) == (mine == theirs)
    # Without the marker the last sentence must say it: some solutions end in another number, or with two.
    unmarked = sum(exact_answer(row["answer"].split("####")[0], row["answer"]) for row in rows)
    assert unmarked / len(rows) > 0.93


def test_math_grades_its_own_solutions_right():
    """The 24 of 5,000 that it refuses box either of two answers, or speak of an answer behind the box."""
    rows = real_rows("evaluation/math/math.jsonl")
    refused = [row for row in rows if exact_answer(row["chain_of_thought"], row["answer"]) == 0]
    assert len(rows) == 5000 and len(refused) == 24
    assert all(last_statement(row["chain_of_thought"]) != row["answer"] for row in refused)
    unlike = [row["answer"] for row in rows if not exact_answer(f"The answer is ${row['answer']}$.", row["answer"])]
    assert unlike == ["90\\text{ square\nunits}"]  # whose line ends within it


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("3 + 4 = 7\n#### 7", 1.0),
        ("So the answer is $1,200.", 1.0),
        ("So the answer is $\\boxed{7}$.", 1.0),
        ("So $3 + 4 = \\boxed{7}$.", 1.0),
        ("#### (2, 3)", 1.0),
        ("7", 0.0),
        ("", 0.0),
        ("#### 7\nand more", 0.0),
        ("\\boxed{7} and more", 0.0),
        ("#### 7\n#### 7", 0.0),
        ("#### #### 7", 0.0),
        ("The answer is #### 7", 0.0),
        ("#### The answer is \\boxed{7}", 0.0),
        ("The answer is 7.\n#### 7", 0.0),
        ("\\boxed{7}\n#### 7", 0.0),
        ("\\boxed{7}\n\\boxed{7}", 0.0),
        ("The answer is \\boxed{7}, \\boxed{7}", 0.0),
        ("#### 7 or 8", 0.0),
        ("#### seven", 0.0),
        ("####", 0.0),
    ],
)
def test_answer_format(completion, expected):
    assert answer_format(completion, "1") == expected


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["1", "-", "1,", "1 ", "1. ", "1\n", "= - ", "x+", "{", "$", "<<", "\\", "\\text{", "\\frac", "\\boxed{",
              "\\boxed{1}", "#### 1 ", "the answer is ", "the final "],
)  # fmt: skip
def test_hostile_texts_are_read_in_linear_time(piece):
    for text in (piece * 20_000, f"#### {piece * 20_000}1", f"\\boxed{{1}}{' ' * 20_000}or{piece * 20_000}"):
        for answer in ("18", "Paris", "1/2"):
            assert exact_answer(text, answer) in (0, 1)
        assert exact_answer("18", text) == 0 and answer_format(text) in (0, 1)


def test_a_missing_answer_and_an_unknown_name_are_errors():
    with pytest.raises(ValueError, match="needs an answer with each prompt"):
        exact_answer("7", None)
    with pytest.raises(
        ValueError, match="Unknown reward function 'exact_anser'. Did you mean 'exact_answer'\\? Known: exact_answer"
    ):
        reward_function("exact_anser")
