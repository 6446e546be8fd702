"""Bad rows in both modes, good rows in every column form, and random files: a DataError with its place or typed
examples, nothing else."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from real_data import REAL_DATA, needs_data

from pipelines.data.columns import Conversation, Preference, Prompt, PromptCompletion, Text, as_messages
from pipelines.data.examples import load_examples
from pipelines.data.rejects import Rejects
from pipelines.host.errors import DataError
from pipelines.schema.data import FileData, TaskData

pytestmark = pytest.mark.no_backend
USER, REPLY = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}
OTHER = {"role": "assistant", "content": "no"}
DIALOGUE = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"


def load(tmp_path, lines, use, rejects=None, **spec):
    """Examples from lines given as bytes, text, or values to write as JSON."""
    encoded = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(encoded))
    return load_examples(FileData.model_validate({"path": "rows.jsonl", **spec}), use, tmp_path, rejects=rejects)


GOOD = {
    "text": {"text": "fine"},
    "instruction": {"prompt": "p", "completion": "c"},
    "prompt": {"prompt": "p"},
    "preference": {"prompt": "p", "chosen": "a", "rejected": "b"},
}
BAD_ROWS = [
    ("text", b'{"text": "a",}', "bad JSON"),
    ("text", b"text", "bad JSON"),
    ("text", b'{"text": "never clos', "cut off line"),
    ("text", b'{"text": "a"', "cut off line"),
    ("text", b'{"text": "\xff"}', "invalid UTF-8 at byte 10"),
    ("text", b'{"text": "\\ud800"}', "surrogate"),
    ("text", b'["text"]', "expected a JSON object with named columns, got list"),
    ("text", b"3", "got int"),
    ("text", b'{"text": "a", "text": "b"}', "key 'text' stands twice"),
    ("text", b"[" * 100_000, "nested too deeply"),
    ("text", b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "bad JSON"),
    ("text", b'{"text": "a", "n": NaN}', "NaN is no JSON number"),
    ("text", b'{"text": "a", "n": 1e999}', "too large for a float"),
    ("text", {"text": 3}, "column 'text': expected text, got int"),
    ("text", {"text": None}, "expected text, got NoneType"),
    ("text", {"txt": "a"}, "column 'text' is missing; the row has 'txt'. Did you mean 'txt'?"),
    ("text", {"text": " \n"}, "column 'text': the text is empty"),
    ("instruction", {"prompt": "p"}, "column 'completion' is missing"),
    ("instruction", {"prompt": "p", "completion": ""}, "column 'completion': the text is empty"),
    ("instruction", {"messages": [REPLY, USER]}, "roles out of order"),
    ("instruction", {"messages": [USER, USER, REPLY]}, "roles out of order"),
    ("instruction", {"messages": [USER]}, "the last turn to be assistant"),
    ("instruction", {"messages": []}, "roles out of order"),
    ("instruction", {"messages": "hi"}, "expected a list of {role, content}, got str"),
    ("instruction", {"messages": [{"role": "user"}]}, "expected {role, content}"),
    ("instruction", {"messages": [{"role": "judge", "content": "x"}, REPLY]}, "unknown role 'judge'"),
    ("instruction", {"messages": [USER, {"role": "system", "content": "x"}, REPLY]}, "roles out of order"),
    ("instruction", {"prompt": [USER], "completion": [USER]}, "a response starts with 'assistant'"),
    ("prompt", {"prompt": [USER, REPLY]}, "the last turn to be user"),
    ("prompt", {"prompt": "p", "answer": [1]}, "column 'answer': expected text or a number, got list"),
    ("preference", {"prompt": "p", "chosen": "a", "rejected": "a"}, "chosen equals rejected"),
    ("preference", {"chosen": [USER, REPLY], "rejected": [USER, REPLY]}, "chosen equals rejected"),
    ("preference", {"chosen": "one", "rejected": "two"}, "share no prompt"),
    ("preference", {"chosen": DIALOGUE + " x", "rejected": DIALOGUE}, "turn 4 of the dialogue is empty"),
    (
        "preference",
        {"prompt": "p", "chosen": "a", "rejected": "b", "margin": "big"},
        "column 'margin': expected a number, got str",
    ),
    ("preference", b'{"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": NaN}', "NaN is no JSON number"),
    ("preference", {"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": "x"}, "expected a number, got str"),
    ("preference", {"prompt": "p", "chosen": "a", "rejected": "b", "probability": 1.5}, "from 0 to 1, got 1.5"),
    ("preference", {"prompt": "p", "chosen": "a", "rejected": "b", "prompt_ids": [2]}, "go together"),
    ("preference", {"prompt": "p", "chosen": "a", "rejected": "b", "prompt_ids": [-2]}, "expected a list of token ids"),
]


@pytest.mark.parametrize(("use", "bad", "reason"), BAD_ROWS)
def test_bad_row_strict_and_lenient(tmp_path, use, bad, reason):
    lines = [GOOD[use], bad]
    with pytest.raises(DataError) as caught:
        load(tmp_path, lines, use)
    assert str(caught.value).startswith(f"{tmp_path / 'rows.jsonl'}:2: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 65

    rejects = Rejects("lenient")
    assert len(load(tmp_path, [*lines, ""], use, rejects=rejects)) == 1
    assert rejects.count == 1
    rejects.write(tmp_path)
    (written,) = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert written["origin"] == f"{tmp_path / 'rows.jsonl'}:2"
    assert written["row"]
    assert load(tmp_path, lines, use, on_bad_row="lenient")


def test_nothing_usable_is_an_error_in_both_modes(tmp_path):
    for lines in ([], ["", "  "], ["bad"], [{"txt": "x"}]):
        with pytest.raises(DataError, match=r"no rows|no usable row"):
            load(tmp_path, lines, "text", on_bad_row="lenient")


def test_every_column_form(tmp_path):
    assert load(tmp_path, [{"text": "a\u2028b"}, {"text": "c"}], "text")[0].text == "a\u2028b"
    assert load(tmp_path, [b'\xef\xbb\xbf{"text": "bom"}\r', b"", b'{"text": "b"}'], "text") == [
        Text("bom", f"{tmp_path}/rows.jsonl:1"),
        Text("b", f"{tmp_path}/rows.jsonl:3"),
    ]
    rows = [
        {"prompt": "p", "completion": "c"},
        {"prompt": [USER], "completion": [REPLY]},
        {"prompt": [USER], "completion": [REPLY, USER, OTHER]},
        {"messages": [{"role": "system", "content": "s"}, USER, REPLY]},
        {"text": "t"},
    ]
    place = f"{tmp_path}/rows.jsonl"
    assert load(tmp_path, rows, "instruction") == [
        PromptCompletion("p", "c", f"{place}:1"),
        PromptCompletion([USER], "yes", f"{place}:2"),
        PromptCompletion([USER, REPLY, USER], "no", f"{place}:3"),
        Conversation([{"role": "system", "content": "s"}, USER, REPLY], f"{place}:4"),
        Text("t", f"{place}:5"),
    ]
    assert load(tmp_path, [{"q": "two?", "a": 2}], "prompt", prompt="q", answer="a") == [
        Prompt("two?", "2", f"{place}:1")
    ]
    assert load(tmp_path, [{"prompt": "p", "answer": None}], "prompt") == [Prompt("p", None, f"{place}:1")]


def test_a_prompt_keeps_its_row_for_rewards_and_no_mark_in_it_is_a_notice(tmp_path):
    """Columns that no model reads may say what they like."""
    rows = [{"prompt": "p", "answer": 2, "solution": "<start_of_turn>", "steps": [1, 2]}]
    rejects = Rejects()
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (found,) = load_examples(FileData(path="rows.jsonl"), "prompt", tmp_path, rejects=rejects)
    assert found.columns == rows[0] and found.answer == "2" and rejects.notices == {}
    (item,) = load_examples(TaskData(task="small_world", split="rl", size=1), "prompt", tmp_path)
    assert set(item.columns) == {"prompt", "completion", "answer", "kind", "must_refuse"}
    dialogue = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c", "level": 3}
    (one,) = load(tmp_path, [dialogue], "prompt", format="hh_rlhf")
    assert one.columns == dialogue


def test_every_preference_form(tmp_path):
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 2},
        {"prompt": [USER], "chosen": [REPLY], "rejected": [OTHER]},
        {"chosen": [USER, REPLY], "rejected": [USER, OTHER]},
        {"chosen": DIALOGUE + " good", "rejected": DIALOGUE + " bad"},
        {"chosen": "the sky is blue", "rejected": "the sky is big"},
        {"prompt": "p", "chosen": "", "rejected": "", "prompt_ids": [2], "chosen_ids": [1], "rejected_ids": [3]},
    ]
    found = load(tmp_path, rows, "preference")
    turns = [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    assert [(f.prompt, f.chosen, f.rejected) for f in found] == [
        ("p", "a", "b"),
        ([USER], "yes", "no"),
        ([USER], "yes", "no"),
        (turns, "good", "bad"),
        ("the sky is", "blue", "big"),
        ("p", "", ""),
    ]
    assert found[0].margin == 2.0 and found[1].margin == 0.0
    assert found[5].chosen_ids == [1]
    assert found[3].conversation("rejected") == [*turns, {"role": "assistant", "content": "bad"}]
    assert as_messages("x") == [{"role": "user", "content": "x"}]


def test_dialogues_that_part_before_the_last_turn(tmp_path):
    row = {
        "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
        "rejected": "\n\nHuman: a\n\nAssistant: e",
    }
    (pair,) = load(tmp_path, [row], "preference", format="hh_rlhf")
    assert pair.prompt == [{"role": "user", "content": "a"}]
    assert [turn["content"] for turn in pair.chosen] == ["b", "c", "d"]
    assert pair.rejected == "e"
    (prompt,) = load(tmp_path, [row], "prompt", format="hh_rlhf")
    assert [turn["content"] for turn in prompt.prompt] == ["a", "b", "c"]
    (taught,) = load(tmp_path, [row], "instruction", format="hh_rlhf")
    assert taught.messages[-1] == {"role": "assistant", "content": "d"}


def test_random_files_never_escape(tmp_path):
    """Mutations of good lines, and noise: typed examples or a DataError that names a place."""
    random = np.random.default_rng(0)
    seeds = [json.dumps(GOOD[use]).encode() for use in GOOD] + [json.dumps({"messages": [USER, REPLY]}).encode()]
    uses = list(GOOD)
    outcomes = {"examples": 0, "errors": 0}
    for number in range(400):
        blob = bytearray(b"\n".join(seeds[int(i)] for i in random.integers(len(seeds), size=3)))
        for _ in range(int(random.integers(0, 5))):
            at = int(random.integers(len(blob)))
            change = int(random.integers(3))
            if change == 0:
                blob[at] = int(random.integers(256))
            elif change == 1:
                del blob[at : at + int(random.integers(1, 9))]
            else:
                blob[at:at] = random.bytes(3)
            blob = blob or bytearray(b" ")
        if number % 10 == 0:
            blob = bytearray(random.bytes(200))
        (tmp_path / "f.jsonl").write_bytes(blob)
        for mode in ("strict", "lenient"):
            try:
                found = load_examples(FileData(path="f.jsonl", on_bad_row=mode), uses[number % 4], tmp_path)
                outcomes["examples"] += 1
                assert all(isinstance(e, Text | Conversation | PromptCompletion | Prompt | Preference) for e in found)
            except DataError as error:
                outcomes["errors"] += 1
                assert re.match(r".*f\.jsonl:\d+: ", str(error))
    assert min(outcomes.values()) > 50


@needs_data
def test_real_gsm8k():
    from pipelines.graders.answers import exact_answer

    spec = {"path": str(REAL_DATA / "gsm8k" / "test.jsonl"), "prompt": "question", "answer": "answer"}
    found = load_examples(FileData.model_validate(spec), "prompt", Path())
    assert len(found) == 1319
    assert all(re.fullmatch(r"-?[\d,.]+", e.answer.split("####")[-1].strip()) for e in found)
    assert exact_answer("18", found[0].answer) == 1  # the first problem of the published test split
    assert (
        len(
            load_examples(
                FileData(path=str(REAL_DATA / "gsm8k"), split="train[:50]", prompt="question", completion="answer"),
                "instruction",
                Path(),
            )
        )
        == 50
    )


@needs_data
def test_real_hh_rlhf():
    rejects = Rejects("lenient")
    path = REAL_DATA / "hh_rlhf_harmless" / "pairs.jsonl"
    found = load_examples(FileData(path=str(path)), "preference", Path(), rejects=rejects)
    assert len(found) + rejects.count == 2023
    assert rejects.count < 40
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for pair in found:
        line = raw[int(pair.origin.rsplit(":", 1)[1]) - 1]
        assert pair.prompt[-1]["role"] == "user"
        for response in ("chosen", "rejected"):
            turns = pair.conversation(response)
            assert turns[-1]["role"] == "assistant"
            joined = "".join(turn["content"] for turn in turns)
            assert re.sub(r"\s|Human:|Assistant:", "", joined) == re.sub(r"\s|Human:|Assistant:", "", line[response])
