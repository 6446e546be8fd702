"""Duplicates, beside similarities that are computed of all pairs."""

import itertools
import json
import random

import numpy as np
import pytest
from filter_fixture import make_filter, of_answer, of_text, problems
from real_data import REAL_DATA, needs_data

from pipelines.data.contents import normalized
from pipelines.stages.data_filtering.filters.duplicates import SHINGLE, shingles

pytestmark = pytest.mark.no_backend


def kept(one, rows):
    """Origins of the rows that are kept, numbers from 0."""
    return [number for number, row in enumerate(rows) if not one.meet(one.signature(row), str(number)).reason]


def grams(text):
    """Word 5-grams, by another way than the filter's."""
    words = text.split()
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def jaccard(first, second):
    """Of two sets."""
    return len(first & second) / len(first | second)


def test_case_spaces_and_punctuation_make_no_other_text():
    one = make_filter("duplicates")
    rows = [of_text(text) for text in ("A cat, a dog.", "a CAT  a dog", "a cat a dog a", "a cat a dog!")]
    assert kept(one, rows) == [0, 2]
    verdict = one.meet(one.signature(rows[3]), "x")
    assert (verdict.reason, verdict.detail) == ("the same text", "as 0") and one.figures() == {"remembered": 2}


def test_the_parts_of_a_row_are_compared_each_and_prompts_alone_where_asked():
    rows = [of_answer("a", "b c"), of_answer("a b", "c"), of_answer("a", "d")]
    assert kept(make_filter("duplicates"), rows) == [0, 1, 2]
    assert kept(make_filter("duplicates", of="prompt"), rows) == [0, 1]


def test_a_near_row_is_compared_with_those_that_were_kept_alone():
    words = [f"word{number}" for number in range(100)]
    texts = [" ".join(words[start : start + 60]) for start in (0, 3, 6, 40)]
    # Of neighbours 53 of 59 shingles are shared, 0.90; of the first and the third 50 of 62, 0.81.
    first, second, third, _ = map(grams, texts)
    assert jaccard(first, second) == pytest.approx(53 / 59) and jaccard(first, third) == 50 / 62
    rows = [of_text(text) for text in texts]
    assert kept(make_filter("duplicates", near=0.85), rows) == [0, 2, 3]
    assert kept(make_filter("duplicates", near=0.7), rows) == [0, 3]
    assert kept(make_filter("duplicates"), rows) == [0, 1, 2, 3]
    one = make_filter("duplicates", near=0.7)
    verdicts = [one.meet(one.signature(row), f"f.jsonl:{number}") for number, row in enumerate(rows)]
    assert verdicts[1].reason == "nearly the same text"
    text, _, similarity = verdicts[1].detail.partition(", similarity ")
    assert text == "as f.jsonl:0" and abs(float(similarity) - 53 / 59) < 0.08


def test_shingles_are_words_in_a_row_and_a_short_text_is_one():
    assert shingles(["a b c d e f", "g h"]) == {"a b c d e", "b c d e f", "g h"}


def planted(texts, seed=3):
    """Each text, and the same with some of its words replaced, from none to a third."""
    draw = random.Random(seed)
    found = []
    for text in texts:
        words = text.split()
        for place in draw.sample(range(len(words)), draw.randint(0, len(words) // 3)):
            words[place] = f"x{draw.randint(0, 10**6)}"
        found += [text, " ".join(words)]
    return found


@pytest.fixture(scope="module")
def pairs():
    """Texts, and the similarity of each second one with the one before; no others are alike."""
    lines = (REAL_DATA / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:120]
    texts = planted([normalized(json.loads(line)["question"] + " " + json.loads(line)["answer"]) for line in lines])
    sets = [grams(text) for text in texts]
    similar = {(a, b): jaccard(sets[a], sets[b]) for a, b in itertools.combinations(range(len(texts)), 2)}
    planted_ones = {b: similar.pop((b - 1, b)) for b in range(1, len(texts), 2)}
    assert max(similar.values()) < 0.4
    return texts, planted_ones


@needs_data
@pytest.mark.parametrize("near", [0.5, 0.7, 0.9])
def test_near_duplicates_in_real_text_are_those_of_all_pairs(pairs, near):
    texts, similar = pairs
    one = make_filter("duplicates", near=near)
    dropped = set(range(len(texts))) - set(kept(one, map(of_text, texts)))
    clear = {b: value for b, value in similar.items() if abs(value - near) > 0.08}  # 2.5 deviations of the estimate
    right = [(b in dropped) == (value > near) for b, value in clear.items()]
    assert len(right) > 70 and np.mean(right) >= 0.98


def test_a_similarity_that_is_none():
    assert problems("duplicates", near=1.0) == [
        "near: 1 is no similarity between two texts; expected over 0 and under 1, e.g. 0.8"
    ]
    assert problems("duplicates", near=0.8) == [] == problems("duplicates")
