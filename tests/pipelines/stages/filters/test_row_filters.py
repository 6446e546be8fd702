"""Personal data and toxicity as filters: what is dropped, what is changed, what is not looked at."""

import pytest
from filter_fixture import Surroundings, make_filter, of_answer, of_text, problems

from pipelines.data.canonical import Piece
from pipelines.stages.data_filtering.filters import toxicity

pytestmark = pytest.mark.no_backend

MAIL, CARD = "ann@example.org", "4111111111111111"


def test_personal_data_is_dropped_by_its_highest_severity_and_counted():
    one = make_filter("personal_data")
    verdicts = [one.judge(of_answer(f"I am {MAIL}", text)) for text in (f"Pay {CARD} or {CARD}.", "Hello.")]
    assert [(verdict.reason, verdict.detail) for verdict in verdicts] == [
        ("sensitive", "email, credit_card"), ("personal", "email"),
    ]  # fmt: skip
    for verdict in (*verdicts, one.judge(of_text("nothing"))):
        one.add(verdict)
    assert one.figures() == {"found": {"credit_card": 2, "email": 2}} and not one.shows_rows


def test_personal_data_is_redacted_in_every_text():
    verdict = make_filter("personal_data", action="redact").judge(of_answer(f"I am {MAIL}", f"Pay {CARD}."))
    assert verdict.reason == "" and verdict.changes == {0: "I am [EMAIL]", 1: "Pay [CREDIT_CARD]."}


def test_severities_and_kinds_can_be_left_out():
    sensitive = make_filter("personal_data", severities=["sensitive"])
    assert sensitive.judge(of_text(MAIL)).reason == "" and sensitive.judge(of_text(CARD)).reason == "sensitive"
    assert make_filter("personal_data", leave=["email"]).judge(of_text(MAIL)).reason == ""
    (message,) = problems("personal_data", leave=["emial"])
    assert message.startswith("leave.0: no kind 'emial'. Did you mean 'email'? Kinds: private_key, ")
    (message,) = problems("personal_data", regions=["US", "usa"])
    assert message == "regions.1: no country 'usa'; expected two capital letters of ISO 3166, such as US"


def test_toxicity_looks_at_what_is_learned_alone_and_says_what_its_list_cannot():
    surroundings = Surroundings()
    one = make_filter("toxicity", surroundings=surroundings)
    assert surroundings.warnings == [toxicity.LEXICON_WARNING] and "no better than chance" in toxicity.LEXICON_WARNING
    assert one.judge(of_answer("Why?", "Because you are an asshole.")).reason == "toxic"
    assert one.judge([Piece("prompt", "you asshole"), Piece("rejected", "asshole")]).reason == ""
    assert one.judge(of_text("455 / 5 = 91, and the class passes.")).reason == ""


def test_toxicity_has_one_scorer():
    assert problems("toxicity", classifier="a", hub="b") == [
        "hub: expected one of classifier and hub; without both it is the list of swear words"
    ]
    one = make_filter("toxicity", threshold=0.7)
    one._score = lambda prompt, text: len(text) / 10
    assert [one.judge(of_text("x" * size)).reason for size in (6, 7)] == ["", "toxic"]
