"""Rows under the names that every stage knows: written and read again, they say the same."""

import pytest

from pipelines.data.canonical import Piece, canonical_row, pieces_of, with_texts
from pipelines.data.contents import prompt_hashes
from pipelines.data.examples import read_examples
from pipelines.data.jsonl import Row
from pipelines.data.rejects import Rejects
from pipelines.schema.data import FileData
from pipelines.tasks import task

pytestmark = pytest.mark.no_backend

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
HH = "\n\nHuman: Hi\n\nAssistant: "


def read(values, use, **names):
    """The example of a row, and the canonical row."""
    spec = FileData(path="x.jsonl", **names)
    ((example, row),) = read_examples([Row(values, "x.jsonl:1")], spec, use, Rejects())
    return example, canonical_row(example, row.values, spec.columns)


@pytest.mark.parametrize(
    ("values", "use", "names", "expected"),
    [
        ({"body": "A.", "url": "u"}, "text", {"text": "body"}, {"text": "A.", "url": "u"}),
        ({"q": "A?", "a": "B", "n": 1}, "instruction", {"prompt": "q", "completion": "a"},
         {"prompt": "A?", "completion": "B", "n": 1}),
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, "instruction", {},
         {"prompt": "Add.\n\n1, 2", "completion": "3"}),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, "instruction", {},
         {"messages": TURNS}),
        ({"question": "A?", "gold": 3, "level": 2}, "prompt", {"prompt": "question", "answer": "gold"},
         {"prompt": "A?", "answer": "3", "level": 2}),
        ({"chosen": HH + "A", "rejected": HH + "B"}, "preference", {"format": "hh_rlhf"},
         {"prompt": TURNS[:1], "chosen": "A", "rejected": "B"}),
        ({"prompt": "A?", "chosen": "B", "rejected": "C", "margin": 0.5, "prompt_ids": [2], "chosen_ids": [3],
          "rejected_ids": [4]}, "preference", {},
         {"prompt": "A?", "chosen": "B", "rejected": "C", "prompt_ids": [2], "chosen_ids": [3], "rejected_ids": [4],
          "margin": 0.5}),
        ({"prompt": "A?", "chosen": "B", "rejected": "C", "prompt_ids": [2], "chosen_ids": [3], "rejected_ids": [4]},
         "instruction", {"completion": "chosen"},
         {"prompt": "A?", "completion": "B", "prompt_ids": [2], "completion_ids": [3]}),
        ({"prompt": "A?", "completion": "B", "text": "no filter reads this"}, "instruction", {},
         {"prompt": "A?", "completion": "B"}),
    ],
)  # fmt: skip
def test_a_row_is_written_so_that_it_is_read_alike_without_names(values, use, names, expected):
    example, row = read(values, use, **names)
    assert row == expected and list(row) == list(expected)
    again, same = read(row, use)
    assert same == row and prompt_hashes(again) == prompt_hashes(example)


def test_what_a_task_says_of_its_contents_survives_a_file():
    item = task("small_world").prompts("sft", 1, 7)[0]
    values = {"prompt": item.prompt, "completion": item.demonstration, "answer": item.answer, "item": item}
    for use in ("instruction", "prompt"):
        ((example, _),) = read_examples([Row(values, "t:1")], "stage", use, Rejects())
        row = canonical_row(example, values, {})
        assert row["content_hash"] == item.content and "item" not in row
        again, _ = read(row, use)
        assert prompt_hashes(again) == prompt_hashes(example)


def test_the_texts_of_a_row_and_what_each_is_there_for():
    row = {
        "prompt": [*TURNS, {"role": "user", "content": "And?"}],
        "chosen": "A",
        "rejected": [{"role": "model", "content": "B"}, {"role": "user", "content": "C"}, *TURNS[1:]],
        "margin": 1,
    }
    pieces = pieces_of(row)
    assert [(piece.part, piece.text) for piece in pieces] == [
        ("prompt", "Hi"), ("prompt", "Hello"), ("prompt", "And?"), ("completion", "A"), ("rejected", "B"),
        ("prompt", "C"), ("rejected", "Hello"),
    ]  # fmt: skip
    assert pieces_of({"messages": TURNS}) == [
        Piece("prompt", "Hi", ("messages", 0, "content")), Piece("completion", "Hello", ("messages", 1, "content")),
    ]  # fmt: skip


def test_other_texts_are_put_in_place_and_ids_that_would_be_read_in_their_stead_go():
    row = {
        "prompt": "A",
        "chosen": [dict(TURNS[1])],
        "rejected": "C",
        "prompt_ids": [1],
        "chosen_ids": [2],
        "margin": 1,
    }
    new = with_texts(row, {("chosen", 0, "content"): "X", ("prompt",): "Y"})
    assert new == {"prompt": "Y", "chosen": [{"role": "assistant", "content": "X"}], "rejected": "C", "margin": 1}
    assert row["chosen"] == [TURNS[1]] and with_texts(row, {}) == row
