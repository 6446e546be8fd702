"""Named reward functions: what counts as the answer, and what does not."""

import pytest

from pipelines.graders.answers import answer_format, exact_answer, final_number, reward_function

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        ("3 + 4 = 7\n#### 7", "She has 3 + 4 = 7.\n#### 7", 1.0),
        ("#### 7 apples, not 8", "#### 7", 1.0),
        ("so he pays $1,234.50.", "1234.5", 1.0),
        ("The answer is 1,000.", "#### 1000", 1.0),
        ("the final answer is: $18.", "#### 18", 1.0),
        ("18.00", "18", 1.0),
        ("It is -5", "-5", 1.0),
        ("It is -$5", "-5", 1.0),
        ("It is 5", "-5", 0.0),
        ("3-4", "4", 1.0),
        ("50%", "50", 1.0),
        ("half of it, .5", "0.5", 1.0),
        ("7 and then 8", "7", 0.0),
        ("#### 7\nThat leaves 8", "7", 1.0),
        ("#### 7\n#### 8", "7", 0.0),
        ("The answer is 7. No, the answer is 8.", "8", 1.0),
        ("####", "7", 0.0),
        ("12 ####", "12", 0.0),
        ("", "7", 0.0),
        ("seven", "7", 0.0),
        ("17", "7", 0.0),
        ("7,8", "78", 0.0),
        ("1234567890123456789012345678901", "1234567890123456789012345678902", 0.0),
        ("The answer is Paris.", "Paris", 1.0),
        (' "paris" ', "Paris", 1.0),
        ("Paris or Rome", "Paris", 0.0),
        ("room 12", "room 12", 1.0),
        ("12", "room 12", 0.0),
    ],
)
def test_exact_answer(completion, answer, expected):
    assert exact_answer(completion, answer) == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("3 + 4 = 7\n#### 7", 1.0),
        ("So the answer is $1,200.", 1.0),
        ("7", 0.0),
        ("#### 7\nand more", 0.0),
        ("#### 7\n#### 7", 0.0),
        ("#### 7 or 8", 0.0),
        ("####", 0.0),
    ],
)
def test_answer_format(completion, expected):
    assert answer_format(completion, "1") == expected


def test_a_long_run_of_digits_and_signs_is_read_in_linear_time():
    assert final_number("-" * 50_000 + "1" * 50_000) is not None
    assert final_number("1," * 50_000) is not None


def test_a_missing_answer_and_an_unknown_name_are_errors():
    with pytest.raises(ValueError, match="needs an answer with each prompt"):
        exact_answer("7", None)
    with pytest.raises(
        ValueError, match="Unknown reward function 'exact_anser'. Did you mean 'exact_answer'\\? Known: exact_answer"
    ):
        reward_function("exact_anser")
