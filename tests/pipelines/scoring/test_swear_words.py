"""The list of swear words, asked quickly: the same verdicts as the package gives, in a fraction of its time."""

import json

import better_profanity
import pytest
from real_data import REAL_DATA, needs_data

from pipelines.scoring.toxicity import lexicon

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    "text", ["what an a$$hole", "sh1t happens", "F*CK", "a hand_job and a hand job", "scunthorpe", ""]
)
def test_spellings(text):
    assert lexicon()("", text) == better_profanity.Profanity().contains_profanity(text)


@needs_data
def test_answers_of_people():
    lines = (REAL_DATA / "hh_rlhf_harmless" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["chosen"][-80:] for line in lines[:40]]
    slow, quick = better_profanity.Profanity(), lexicon()
    assert [quick("", text) for text in texts] == [slow.contains_profanity(text) for text in texts]
    assert 0 < sum(quick("", text) for text in texts) < len(texts)


def test_a_number_is_no_word():
    assert lexicon()("", "455 and 4 55") == 0 and better_profanity.Profanity().contains_profanity("455")
