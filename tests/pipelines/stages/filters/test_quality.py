"""Gopher's and C4's rules, each by a text that breaks it alone."""

import pytest
from filter_fixture import make_filter, of_answer, of_text

from pipelines.data.canonical import Piece
from pipelines.stages.data_filtering.filters.quality import c4_lines, gopher_reasons, repetition_reasons

pytestmark = pytest.mark.no_backend

# Sixty different words that are like prose: three letters or more each, with common words among them.
PROSE = (
    "Yesterday the old grey captain walked along that quiet harbour with his brother and spoke of distant islands "
    "where green parrots sleep under enormous leaves. They have counted seven ships since morning, none larger "
    "than a barn. Rain began to fall before evening came, so everybody went home early, lit their lamps, cooked some "
    "fish, then told stories until midnight."
)


def gopher(text, least=0):
    return [reason for reason, _ in gopher_reasons(text, text.split(), least)]


def repetition(text, least=0):
    return {reason for reason, _ in repetition_reasons(text, text.split(), least)}


def test_prose_breaks_no_rule():
    assert 50 <= len(PROSE.split()) < 70
    assert gopher(PROSE, 50) == [] and repetition(PROSE) == set()
    assert make_filter("quality").judge(of_text(PROSE)).reason == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the be " * 10 + "word words " * 10, "few words"),
        ("of to a I it " * 20, "word length"),  # 1.6 letters
        ("incomprehensibilities the internationalization of " * 20, "word length"),
        (PROSE + " #" * 8, "symbols"),
        ("... " * 8 + PROSE, "symbols"),
        ("- the gentlemen of antiquity\n" * 10, "bullets"),
        ("the gentlemen of antiquity had so much to say about that…\nand then they went home\n", "ellipses"),
        (PROSE + " 1234 5678" * 10, "words without letters"),
        ("green parrots sleep under enormous leaves near quiet harbours " * 8, "few common words"),
    ],
)
def test_gopher(text, reason):
    assert gopher(text, 50 if reason == "few words" else 0) == [reason]


def test_gophers_bounds_are_those_of_the_paper():
    at, over = PROSE + " #" * 6, PROSE + " #" * 7  # 6 of 66 words and 7 of 67
    assert len(PROSE.split()) == 60 and gopher(at) == [] and gopher(over) == ["symbols"]
    assert (
        gopher("the gentlemen of\n" + "- the gentlemen of antiquity\n" * 9) == []
    )  # nine of ten lines are not over 90 %
    assert gopher("the of " + "gentlemen " * 48, 50) == [] and gopher("the of " + "gentlemen " * 47, 50) == [
        "few words"
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a line of its own\nshort\nshort\nanother line of its own and much longer\n" * 1 + "short", "repeated lines"),
        ("one\n\ntwo and more\n\none\n\none", "repeated paragraphs"),
    ],
)
def test_repeated_lines_and_paragraphs(text, reason):
    assert reason in repetition(text)


def test_repeated_n_grams_are_counted_in_letters():
    words = [f"w{number:03d}" for number in range(100)]
    assert repetition(" ".join(words)) == set()

    def with_pairs(count):  # so many times 12 letters, each followed by a word of its own
        return " ".join([*words[:80], *(word for n in range(count) for word in ("quiet", "harbour", f"x{n:03d}"))])

    assert repetition(with_pairs(9)) == {"frequent n-grams"}  # 108 of 464 letters, over 20 %
    assert repetition(with_pairs(7)) == set()  # 84 of 432
    twice = words + words[:20]  # 20 words of 120 again: 17 % in each n-gram from 5 to 10, over all of their shares
    assert repetition(" ".join(twice)) == {"repeated n-grams"}
    assert repetition(" ".join(words + words[:10])) == set()  # 9 %
    assert repetition(" ".join(twice), least=121) == set()
    of_page, of_answers = (make_filter("quality", use=use, rules=["repetition"]) for use in ("text", "instruction"))
    assert of_page.judge(of_text(" ".join(twice))).reason == "repeated n-grams"
    assert of_answers.judge(of_answer("?", " ".join(twice))).reason == ""  # under 200 words


def test_c4_keeps_lines_that_are_sentences():
    page = (
        "Home | About\n"
        "The captain walked home early.[3]\n"
        "Too short.\n"
        "Please enable Javascript to read this page.\n"
        "We use cookies to make this better.\n"
        "The story goes on and on...\n"
        'He said: "That is all there is."'
    )
    assert c4_lines(page) == 'The captain walked home early.\nHe said: "That is all there is."'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Lorem ipsum dolor sit amet. " + PROSE, "lorem ipsum"),
        (PROSE + " int main() { return 0; }.", "code"),
        ("The captain walked home early. Nobody saw him.", "few sentences"),
    ],
)
def test_c4_pages(text, reason):
    assert make_filter("quality", rules=["c4"]).judge(of_text(text)).reason == reason


def test_lines_that_are_dropped_leave_a_changed_text():
    verdict = make_filter("quality", rules=["c4"]).judge(of_text(f"Menu\n{PROSE}"))
    assert verdict.reason == "" and verdict.changes == {0: PROSE}


def test_of_answers_repetition_alone_counts_and_nothing_of_what_is_avoided():
    quality = make_filter("quality", use="instruction")
    assert quality.judge(of_answer("6 * 7?", "#### 42")).reason == ""
    again = "I do not know what to say.\n" * 5
    assert quality.judge(of_answer("Well?", again)).reason == "repeated lines"
    assert quality.judge([Piece("prompt", again), Piece("rejected", again), Piece("completion", "Yes.")]).reason == ""
    assert make_filter("quality", use="instruction", rules=["gopher"]).judge(of_answer("?", "42")).reason == "few words"
