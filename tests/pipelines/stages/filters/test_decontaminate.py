"""Test rows in training data: hidden ones, and those that really are there."""

import hashlib
import json
import random

import numpy as np
import pytest
from filter_fixture import Surroundings, make_filter, of_answer, of_text, problems
from real_data import REAL_DATA, needs_data
from stage_fixture import write_jsonl

from pipelines.data.contents import normalized
from pipelines.host.errors import DataError
from pipelines.stages.data_filtering.filters.decontaminate import make_index, n_gram_hashes, word_hashes

pytestmark = pytest.mark.no_backend

WORDS = [f"word{number}" for number in range(400)]


def text(start, count):
    return " ".join(WORDS[start : start + count])


def own(tmp_path, rows, **options):
    write_jsonl(tmp_path / "test.jsonl", rows)
    options = {"against": [{"name": "mine", "path": "test.jsonl"}], **options}
    return make_filter("decontaminate", surroundings=Surroundings(tmp_path), **options)


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not(tmp_path):
    one = own(tmp_path, [{"question": text(0, 40)}])
    found = one.judge(of_text(f"so {text(20, 13)} and"))
    assert (found.reason, found.detail) == ("test rows", "mine:1, coverage 0.87")  # 13 of 15
    assert one.judge(of_text(f"so {text(20, 12)} and")).reason == ""
    assert one.judge(of_text(text(28, 12) + " " + text(0, 12))).reason == ""
    assert own(tmp_path, [{"question": text(0, 40)}], n=8).judge(of_text(text(20, 8))).reason == "test rows"


def test_case_spaces_and_punctuation_hide_nothing_and_any_column_counts(tmp_path):
    one = own(tmp_path, [{"id": 3, "choices": {"text": ["short", text(0, 20)]}}])
    hidden = text(0, 20).upper().replace(" ", ",\n\n")
    assert one.judge(of_answer("What?", hidden)).detail == "mine:1, coverage 0.95"  # 20 of 21


def test_a_short_test_text_counts_where_it_stands_whole(tmp_path):
    one = own(tmp_path, [{"q": text(0, 9)}, {"q": text(50, 7)}, {"q": text(100, 20)}])
    assert one.judge(of_text("a " + text(0, 9))).reason == "test rows"
    assert one.judge(of_text("a " + text(0, 8))).reason == "" and one.judge(of_text(text(50, 7))).reason == ""
    assert one.figures()["benchmarks"]["mine"] | {"mean_coverage": 0, "largest_coverage": 0} == {
        "rows": 3, "looked_for": 2, "met": 0, "in_rows": 0, "mean_coverage": 0, "largest_coverage": 0,
    }  # fmt: skip


def test_coverage_is_the_share_of_a_rows_words_and_can_be_asked_for(tmp_path):
    rows, document = [{"q": text(0, 20)}], of_text(f"{text(0, 20)} {text(100, 60)}")
    one = own(tmp_path, rows, coverage=0.25)
    assert one.judge(document).reason == "test rows"  # 20 of 80
    other = own(tmp_path, rows, coverage=0.26)
    verdict = other.judge(document)
    assert verdict.reason == "" and verdict.notes == {"met": {"mine": [1]}, "coverage": 0.25}
    other.add(verdict)
    other.add(other.judge(of_text(text(200, 30))))
    assert other.figures()["benchmarks"]["mine"] == {
        "rows": 1, "looked_for": 1, "met": 1, "in_rows": 1, "mean_coverage": 0.25, "largest_coverage": 0.25,
    }  # fmt: skip


def test_what_stands_in_many_test_rows_is_their_template(tmp_path):
    def rows(count):
        return [{"q": f"{text(0, 15)} {text(20 + 20 * number, 15)}"} for number in range(count)]

    assert own(tmp_path, rows(10)).judge(of_text(text(0, 15))).reason == "test rows"
    one = own(tmp_path, rows(11))
    assert one.judge(of_text(text(0, 15))).reason == "" and one.judge(of_text(text(20, 15))).reason == "test rows"


def test_columns_can_be_named_and_must_be_there(tmp_path):
    rows = [{"q": text(0, 20), "passage": text(50, 20)}]
    against = [{"name": "mine", "path": "test.jsonl", "columns": ["q"]}]
    one = own(tmp_path, rows, against=against)
    assert one.judge(of_text(text(50, 20))).reason == "" and one.judge(of_text(text(0, 20))).reason == "test rows"
    with pytest.raises(DataError, match=r"test\.jsonl:1: no column 'a'; the row has 'q', 'passage'"):
        own(tmp_path, rows, against=[{**against[0], "columns": ["a"]}])


def test_hashes_are_of_words_in_their_order():
    numbers = word_hashes(["a", "b", "c", "b", "a"])
    assert numbers[0] == numbers[4] and len({*numbers.tolist()}) == 3
    # The same in any process, which Python's own hashes are not.
    assert int(numbers[0]) == int.from_bytes(hashlib.blake2b(b"a", digest_size=8).digest(), "little")
    grams = n_gram_hashes(numbers, 2)
    assert grams.shape == (4,) and len({*grams.tolist()}) == 4 and n_gram_hashes(numbers, 6).shape == (0,)
    assert np.array_equal(n_gram_hashes(word_hashes(["c", "b"]), 2), grams[2:3])


def test_an_index_keeps_rows_of_several_sets_apart():
    index = make_index({"a": [[text(0, 20)], ["too short"]], "b": [[text(0, 20), text(30, 20)]]}, 13)
    found, covered = index.find([*text(0, 20).split(), "x"])
    assert [index.places[one] for one in sorted(found)] == [("a", 1), ("b", 1)]
    assert covered.tolist() == [True] * 20 + [False]
    assert index.sizes == {"a": {"rows": 2, "looked_for": 1}, "b": {"rows": 1, "looked_for": 1}}


def test_a_set_that_can_hardly_be_looked_for_is_warned_of(tmp_path):
    surroundings = Surroundings(tmp_path)
    write_jsonl(tmp_path / "test.jsonl", [{"q": "1 + 1"}, {"q": "2 + 2"}, {"q": text(0, 20)}])
    make_filter("decontaminate", surroundings=surroundings, against=[{"name": "mine", "path": "test.jsonl"}])
    assert surroundings.warnings == [
        "decontaminate: of mine only 1 of 3 test rows have a text of 8 words that is not its template; the others are "
        "not looked for"
    ]


def test_what_it_compares_with_must_be_said(tmp_path):
    assert problems("decontaminate") == [
        ": decontaminate compares with nothing; expected suite: gemma_paper with data, or against: [...]"
    ]
    assert problems("decontaminate", suite="gsm8k") == [
        "data: needs the folder with the benchmarks' rows; a filter reads nothing of the hub"
    ]
    assert problems("decontaminate", suite="gsm8", data="d")[0].startswith(
        "suite: no suite or benchmark 'gsm8'. Did you"
    )
    assert problems("decontaminate", suite="lm_eval:x", data="d") == [
        "suite: tasks of lm-eval's are not read here; give their rows as a file: against: [{name, path}]"
    ]
    with pytest.raises(DataError, match=r":1: no rows of gsm8k: expected the folder gsm8k\. Bring it"):
        make_filter("decontaminate", suite="gsm8k", data=str(tmp_path))


def hidden(question, way):
    """A test question as training data might hold it."""
    if way == "cut":
        return question[: len(question) * 8 // 10]
    return {
        "case": question.upper(),
        "spacing": question.replace(" ", " \n "),
        "punctuation": question.replace(" ", ", "),
    }[way]


@needs_data
def test_two_hundred_hidden_questions_are_found_each_under_its_number():
    rows = [json.loads(line) for line in (REAL_DATA / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    filler = [json.loads(line)["question"] for line in (REAL_DATA / "gsm8k" / "train.jsonl").open(encoding="utf-8")][
        :50
    ]
    one = make_filter("decontaminate", suite="gsm8k", data=str(REAL_DATA))
    draw = random.Random(5)
    ways = ["case", "spacing", "punctuation", "cut"]
    long = [number for number, row in enumerate(rows) if len(row["question"].split()) > 20]
    for place, number in enumerate(draw.sample(long, 200)):
        text = f"{draw.choice(filler)} {hidden(rows[number]['question'], ways[place % 4])} {draw.choice(filler)}"
        assert number + 1 in one.judge(of_answer("Solve this.", text)).notes["met"]["gsm8k"]


@needs_data
def test_the_overlap_of_two_real_sets_is_that_of_their_sets_of_words():
    test = [json.loads(line) for line in (REAL_DATA / "gsm8k" / "test.jsonl").open(encoding="utf-8")]
    train = [json.loads(line) for line in (REAL_DATA / "gsm8k" / "train.jsonl").open(encoding="utf-8")][:1400]

    def grams(text):
        words = normalized(text).split()
        return {tuple(words[start : start + 13]) for start in range(len(words) - 12)}

    tested: dict[tuple[str, ...], set[int]] = {}
    for number, row in enumerate(test, 1):
        for gram in grams(row["question"]) | grams(row["answer"]):
            tested.setdefault(gram, set()).add(number)
    one = make_filter("decontaminate", suite="gsm8k", data=str(REAL_DATA))
    found, expected = {}, {}
    for number, row in enumerate(train, 1):
        met = set().union(*(tested.get(gram, ()) for text in row.values() for gram in grams(text)))
        if met:
            expected[number] = sorted(met)
        verdict = one.judge(of_answer(row["question"], row["answer"]))
        if verdict.reason:
            found[number] = verdict.notes["met"]["gsm8k"]
    assert found == expected and found == {21: [633], 407: [582], 700: [807], 1315: [603]}
