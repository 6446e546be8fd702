"""Control pieces written out in text: found, warned of once, and read where the text is trusted."""

import warnings

import pytest

from gemma_keras import GemmaTokenizer
from gemma_keras.errors import InputError
from gemma_keras.inputs import prompt_data
from gemma_keras.text.marked_text import from_marked_text, mark_in, texts_in, warn_of_marks

pytestmark = pytest.mark.no_backend

PROMPT = "<start_of_turn>user\nKnock knock.<end_of_turn>\n<start_of_turn>model\n"
USER = {"role": "user", "content": "Knock knock."}


@pytest.mark.parametrize(
    "text, expected",
    [
        (PROMPT, [USER]),
        ("<bos>" + PROMPT, [USER]),
        (PROMPT.rstrip("\n"), [USER]),
        (PROMPT + "Who's there?<end_of_turn>", [USER, {"role": "model", "content": "Who's there?"}]),
        (PROMPT + "Who's there?<end_of_turn>\n<eos>", [USER, {"role": "model", "content": "Who's there?"}]),
        (
            "<start_of_turn>user\na\n\nb <b><end_of_turn>\n<start_of_turn>model\nc<end_of_turn>\n" + PROMPT,
            [{"role": "user", "content": "a\n\nb <b>"}, {"role": "model", "content": "c"}, USER],
        ),
        ("<|fim_prefix|>import <|fim_suffix|>\nx<|fim_middle|>", {"prefix": "import ", "suffix": "\nx"}),
        ("<bos><|fim_prefix|><|fim_suffix|>x<|fim_middle|>", {"prefix": "", "suffix": "x"}),
    ],
)
def test_a_trusted_text_is_what_its_marks_say(text, expected):
    assert from_marked_text(text) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("Knock knock.", "Expected turns, <start_of_turn>user.*Received: 'Knock knock.'"),
        ("Be brief. " + PROMPT, "Expected turns.*nothing between them. Received: 'Be brief."),
        (PROMPT + "Sure,", "A turn is not ended. Expected <end_of_turn>.*Sure,"),
        ("<start_of_turn>user\nKnock", "A turn is not ended"),
        (PROMPT + "Who's there?" + PROMPT, "A turn is not ended"),
        ("<start_of_turn>user\na<end_of_turn> b " + PROMPT, "nothing between them"),
    ],
)
def test_a_text_that_is_no_prompt_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        from_marked_text(text)


def test_the_first_mark_is_found_and_its_remedy_named():
    assert mark_in("a <end_of_turn> <start_of_turn>") == "<end_of_turn>" and mark_in("a < b") is None
    assert list(texts_in({"a": ["b", {"c": "d"}], "e": 3, "f": "g"})) == ["b", "d", "g"]
    with pytest.warns(UserWarning, match=r"<start_of_turn> is written out.*\[\{'role': 'user'") as caught:
        warn_of_marks(["plain", PROMPT, PROMPT])
    assert len(caught) == 1 and caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"<\|fim_prefix\|> is written out.*'prefix'"):
        warn_of_marks(["<|fim_prefix|>a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_marks(["a <b> c", "start_of_turn"])


def test_a_prompt_of_marked_text_warns_and_stays_text_while_the_turns_it_means_become_control_ids():
    tokenizer = GemmaTokenizer.train(["Knock knock.", "user model"], 300)
    with pytest.warns(UserWarning, match="written out") as caught:
        (ids,), _ = prompt_data.encode([PROMPT], tokenizer, 300)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert not tokenizer.control_ids & set(ids[1:]) and tokenizer.decode(ids) == PROMPT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (turns,), _ = prompt_data.encode(from_marked_text(PROMPT), tokenizer, 300)
    assert tokenizer.decode(turns, keep_control=True) == "<bos>" + PROMPT
