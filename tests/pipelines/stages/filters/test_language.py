"""Languages, by sentences whose language is known."""

import pytest
from filter_fixture import make_filter, of_answer, of_text, problems

pytestmark = pytest.mark.no_backend

GERMAN = "Der alte Kapitän ging gestern mit seinem Bruder am stillen Hafen entlang und sprach von fernen Inseln."
ENGLISH = "Yesterday the old captain walked along the quiet harbour with his brother and spoke of distant islands."


def test_other_languages_are_dropped_and_counted():
    keep_english, keep_both = make_filter("language"), make_filter("language", keep=["en", "de"])
    verdict = keep_english.judge(of_text(GERMAN))
    assert verdict.reason == "other language" and verdict.detail.startswith("text: de ")
    assert keep_english.judge(of_text(ENGLISH)).reason == "" and keep_both.judge(of_text(GERMAN)).reason == ""
    assert make_filter("language", keep=["de"]).judge(of_text(ENGLISH)).reason == "other language"
    for _ in range(2):
        keep_english.add(verdict)
    assert keep_english.figures() == {"languages": {"de": 2}}


def test_any_text_of_a_row_counts_but_for_those_too_short_to_tell():
    language = make_filter("language")
    assert language.judge(of_answer(ENGLISH, GERMAN)).detail.startswith("completion: de ")
    assert language.judge(of_answer(ENGLISH, "Ja, natürlich.")).reason == ""
    assert language.judge(of_text("for (i = 0; i < 10; i++) 1 + 1 = 2")).reason == ""


def test_an_unknown_language_is_named_with_the_nearest():
    (message,) = problems("language", keep=["en", "german"])
    assert message.startswith("keep.1: unknown language 'german'.") and "Known: " in message and " de," in message
