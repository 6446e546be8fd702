"""What a judge is told, which verdicts a strict reader finds, and the judges that read nothing."""

import numpy as np
import pytest

from pipelines.scoring.pairwise.base import Comparison, by_odds
from pipelines.scoring.pairwise.questions import RUBRICS, question_text, read_answers, read_verdict, rubric_for
from pipelines.scoring.pairwise.rules import RuleJudge

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("A is short.\nVerdict: A", 1),
        ("Verdict: B", -1),
        ("Both fail.\n\n**Verdict: tie**\n\n", 0),
        ("Verdict: Tie.", 0),
        ("Verdict: [[B]]", -1),
        ("### Verdict: **A**", 1),
        ("verdict: b", -1),
        ("", None),
        ("   \n", None),
        ("A", None),
        ("Verdict: C", None),
        ("Verdict: A or B", None),
        ("The verdict: A", None),
        ("Verdict: A\nBut then again no.", None),
        ("Verdict: A\nVerdict: B", None),
        ("Verdict: A\nVerdict: A", None),
        ("Verdict: `A`, `B` or `tie`", None),
    ],
)
def test_a_verdict_is_the_last_line_and_the_only_one(answer, choice):
    assert read_verdict(answer) == choice


def test_answers_to_verdicts():
    found = read_answers(["Verdict: A", "Verdict: B", "Verdict: tie", "?", None])
    assert found.choice.tolist() == [1, -1, 0, 0, 0] and found.state.tolist() == [0, 0, 0, 1, 2]
    assert found.answers[-1] == "" and np.isnan(found.log_odds).all()


def test_the_question_names_everything_in_its_place():
    turns = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Sing."},
    ]  # fmt: skip
    text = question_text(Comparison("Be kind.", turns, "La.", "No.", "r:1"), with_reasoning=False)
    assert text == (
        "Two answers to the same request are compared.\n\nBe kind.\n\n[Request]\nSystem: Be brief.\n\nUser: Hi\n\n"
        "Assistant: Hello.\n\nUser: Sing.\n\n[Answer A]\nLa.\n\n[Answer B]\nNo.\n\n[End]\n"
        "Which answer is better? Reply with A or B alone."
    )
    assert "[Request]\nHi\n\n" in question_text(Comparison("", "Hi", "a", "b", "r:1"), with_reasoning=True)


def test_sets_have_rubrics_by_their_names():
    assert rubric_for("Instruction-Following") == RUBRICS["instruction_following"]
    assert rubric_for("safety") == RUBRICS["safety"] and rubric_for("ours") == rubric_for("all") == RUBRICS["general"]


def test_rules():
    asked = [Comparison("", "p", "abc", "x", "r:1", ("i",)), Comparison("", "p", "a", "xy", "r:2", ("j",))]
    asked.append(Comparison("", "p", "a", "x", "r:3", ("k",)))
    assert RuleJudge("longest", 0).decide(asked).choice.tolist() == [1, -1, 0]
    assert RuleJudge("shortest", 0).decide(asked).choice.tolist() == [-1, 1, 0]
    many = [Comparison("", "p", "a", "x", "r:1", (number,)) for number in range(400)]
    drawn = RuleJudge("random", 3).decide(many).choice
    assert set(drawn.tolist()) == {1, -1} and abs(drawn.mean()) < 0.1
    assert (RuleJudge("random", 3).decide(many).choice == drawn).all()
    assert (RuleJudge("random", 4).decide(many).choice != drawn).any()


def test_odds_to_choices():
    assert by_odds(np.array([0.5, -0.5, 1e-7, np.nan]), 1e-6).tolist() == [1, -1, 0, 0]
