"""Claims to be another assistant, and everything that only looks like one."""

import pytest
from filter_fixture import make_filter, of_answer, of_text, problems

from pipelines.data.canonical import Piece

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    ("answer", "reason", "who"),
    [
        ("I am ChatGPT, how can I help?", "another name", "ChatGPT"),
        ("Hello! I'm Claude.", "another name", "Claude"),
        ("I’m an AI assistant called Claude.", "another name", "Claude"),
        ("My name is Bard.", "another name", "Bard"),
        ("Hi, my name is Siri.", "another name", "Siri"),
        ("Sure. I am a large language model trained by OpenAI.", "another maker", "OpenAI"),
        ("As an AI language model developed by OpenAI, I cannot.", "another maker", "OpenAI"),
        ("I was created by Anthropic to be helpful.", "another maker", "Anthropic"),
        ("Well, Anthropic created me.", "another maker", "Anthropic"),
        ("My creators are at Meta AI.", "another maker", "Meta AI"),
        ("As ChatGPT, I do not eat.", "another name", "ChatGPT"),
    ],
)
def test_claims_are_dropped(answer, reason, who):
    verdict = make_filter("self_identification").judge(of_answer("Who are you?", answer))
    assert (verdict.reason, verdict.detail) == (reason, who)


@pytest.mark.parametrize(
    "answer",
    [
        "I am Gemma, an open model.",
        "I am a large language model trained by Google DeepMind.",
        "ChatGPT is a model that was made by OpenAI.",
        "I am not ChatGPT.",
        "I am familiar with Claude and with Anthropic.",
        'The bot says: "I am ChatGPT."',
        "It printed `I am Claude` and stopped.",
        "> I am ChatGPT\n\nThat is what it wrote.",
        "I was trained by a coach, and OpenAI was founded in 2015.",
        "I am alexandrine verse.",
    ],
)
def test_what_is_spoken_of_quoted_or_denied_stays(answer):
    assert make_filter("self_identification").judge(of_answer("Tell me.", answer)).reason == ""


def test_a_game_of_roles_stays_and_so_does_what_nobody_answers():
    one = make_filter("self_identification")
    assert one.judge(of_answer("Pretend that you are Siri.", "I am Siri.")).reason == ""
    assert one.judge(of_text("I am Siri.")).reason == ""
    assert one.judge([Piece("prompt", "Hi, I am Siri."), Piece("rejected", "I am Siri.")]).reason == ""


def test_a_model_of_ones_own_may_say_its_name():
    one = make_filter("self_identification", names=["Claude"], makers=["Anthropic"], more=["Marvin"])
    assert one.judge(of_answer("?", "I am Claude, made by Anthropic.")).reason == ""
    assert one.judge(of_answer("?", "I am Gemma.")).detail == "Gemma"
    assert one.judge(of_answer("?", "I am Marvin.")).detail == "Marvin"
    assert problems("self_identification", more=["Google"]) == [
        "more.0: 'Google' stands in names or makers too; expected it in one of them"
    ]
