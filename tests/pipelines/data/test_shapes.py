"""Every shape of a row × `validate` and the readers and encoders of a run: one verdict from both.

What is taken is compared with its turns written out by hand; what is refused with its place, reason and remedy.
"""

import json
from pathlib import Path

import pytest
from model_folder_fixture import folder_without_weights

from pipelines import cli
from pipelines.data.encoding import encode_instructions, encode_preferences, encode_texts
from pipelines.data.examples import load_examples
from pipelines.host.errors import DataError
from pipelines.sampling.prompts import encode_prompts
from pipelines.schema.data import FileData
from pipelines.workflow.data_checks import check_data
from pipelines.workflow.loading import load

pytestmark = pytest.mark.no_backend

STAGES = {
    "text": "kind: pretraining",
    "instruction": "kind: instruction_tuning",
    "prompt": "kind: best_of_n, reward: answer_format",
    "preference": "kind: reward_modeling",
}
USER, YES, NO = (
    {"role": role, "content": text} for role, text in (("user", "hi"), ("assistant", "yes"), ("assistant", "no"))
)


def part(text):
    return {"type": "text", "text": text}


SYSTEM = {"role": "system", "content": "be brief"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "clock", "arguments": "{}"}}]}
ASKED = "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n"
TOLD = ASKED + "yes<end_of_turn>"
BRIEF = ASKED.replace("hi", "be brief\n\nhi")
INPUT = ASKED.replace("hi", "add\n\n1 and 2")
PAIR = [ASKED + "yes<end_of_turn>", ASKED + "no<end_of_turn>"]

# use, columns named, row, and the text of its tokens (of a pair both sides).
TAKEN = [
    ("text", {}, {"text": "hi"}, "<bos>hi<eos>"),
    ("text", {"text": "body"}, {"body": "hi"}, "<bos>hi<eos>"),
    ("text", {}, {"instruction": "add", "output": "3", "text": "hi"}, "<bos>hi<eos>"),
    ("instruction", {}, {"text": "hi"}, "<bos>hi<eos>"),
    ("instruction", {}, {"messages": [USER, YES]}, TOLD + "\n"),
    ("instruction", {}, {"messages": [SYSTEM, USER, YES]}, BRIEF + "yes<end_of_turn>\n"),
    ("instruction", {}, {"messages": [USER, YES, USER, NO]}, f"{TOLD}\n{PAIR[1].removeprefix('<bos>')}\n"),
    ("instruction", {"messages": "chat"}, {"chat": [USER, YES]}, TOLD + "\n"),
    ("instruction", {}, {"messages": [USER, {**YES, "tool_calls": None}], "tools": []}, TOLD + "\n"),
    ("instruction", {}, {"prompt": "hi", "completion": "yes"}, TOLD),
    ("instruction", {"prompt": "q", "completion": "a"}, {"q": "hi", "a": "yes"}, TOLD),
    ("instruction", {}, {"prompt": [USER], "completion": [YES]}, TOLD),
    ("instruction", {}, {"prompt": [SYSTEM, USER], "completion": [YES]}, BRIEF + "yes<end_of_turn>"),
    ("instruction", {}, {"instruction": "hi", "output": "yes"}, TOLD),
    ("instruction", {}, {"instruction": "hi", "input": " ", "output": "yes"}, TOLD),
    ("instruction", {}, {"instruction": "add", "input": "1 and 2", "output": "yes"}, INPUT + "yes<end_of_turn>"),
    ("instruction", {}, {"instruction": "hi", "input": "", "output": "yes", "text": "### Add"}, TOLD),
    ("instruction", {}, {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]},
     TOLD + "\n"),
    ("instruction", {"messages": "talk"},
     {"talk": [{"from": "system", "value": "be brief"}, {"from": "human", "value": "hi"},
               {"from": "gpt", "value": "yes"}]}, BRIEF + "yes<end_of_turn>\n"),
    ("instruction", {}, {"messages": [{"role": "user", "content": [part("hi")]}, YES]}, TOLD + "\n"),
    ("instruction", {}, {"messages": [{"role": "user", "content": [part("h"), part("i")]}, YES]},
     TOLD + "\n"),
    ("instruction", {}, {"prompt": [USER], "completion": [{"role": "assistant", "content": [part("yes")]}]},
     TOLD),
    ("prompt", {}, {"prompt": "hi"}, ASKED),
    ("prompt", {}, {"prompt": [SYSTEM, USER]}, BRIEF),
    ("prompt", {}, {"prompt": [USER, YES, USER]}, f"{TOLD}\n{ASKED.removeprefix('<bos>')}"),
    ("prompt", {}, {"prompt": [{"role": "user", "content": [part("hi")]}], "answer": 2}, ASKED),
    ("prompt", {"prompt": "q", "answer": "a"}, {"q": "hi", "a": "yes"}, ASKED),
    ("prompt", {}, {"prompt": "hi", "messages": [{**USER, "content": "other"}, YES]}, ASKED),
    ("prompt", {"messages": "chat"}, {"prompt": "other", "chat": [USER, YES]}, ASKED),
    ("prompt", {}, {"messages": [USER, YES]}, ASKED),
    ("prompt", {}, {"messages": [USER]}, ASKED),
    ("prompt", {}, {"messages": [SYSTEM, USER, YES]}, BRIEF),
    ("prompt", {}, {"messages": [USER, YES, USER, NO]}, f"{TOLD}\n{ASKED.removeprefix('<bos>')}"),
    ("prompt", {}, {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}, ASKED),
    ("prompt", {}, {"instruction": "add", "input": "1 and 2", "output": "3"}, INPUT),
    ("preference", {}, {"prompt": "hi", "chosen": "yes", "rejected": "no"}, PAIR),
    ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}, {"q": "hi", "a": "yes", "b": "no"}, PAIR),
    ("preference", {}, {"prompt": [USER], "chosen": [YES], "rejected": [NO]}, PAIR),
    ("preference", {}, {"chosen": "hi yes", "rejected": "hi no"}, PAIR),
    ("preference", {}, {"chosen": [USER, YES], "rejected": [USER, NO]}, PAIR),
    ("preference", {}, {"chosen": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}],
                        "rejected": [USER, NO]}, PAIR),
    ("preference", {}, {"instruction": "hi", "input": "", "chosen": "yes", "rejected": "no"}, PAIR),
]  # fmt: skip

TOOLS = "Tools are not supported: Gemma's turns are text of a user and of the model. Write calls and results into"
CALLED = f"a tool is called, or answers. {TOOLS}"
ROLES = "roles out of order: expected user first and then in turn, got"
# use, columns named, row, reason (and remedy, where it is not that of every bad row).
REFUSED = [
    ("text", {}, {"body": "hi"}, "column 'text' is missing; the row has 'body'. Name yours in the data specification"),
    ("text", {}, {"messages": [USER, YES]}, "column 'text' is missing; the row has 'messages'."),
    ("text", {}, {"text": " "}, "column 'text': the text is empty."),
    ("instruction", {}, {"prompt": "hi"}, "column 'completion' is missing; the row has 'prompt'."),
    ("instruction", {}, {"prompt": "hi", "completion": ""}, "column 'completion': the text is empty."),
    ("instruction", {}, {"instruction": "hi"}, "column 'prompt' is missing; the row has 'instruction'."),
    ("instruction", {}, {"instruction": "hi", "output": ""}, "column 'output': the text is empty."),
    ("instruction", {}, {"instruction": "hi", "input": 3, "output": "yes"}, "column 'input': expected text, got int."),
    ("instruction", {}, {"instruction": "hi", "output": "yes", "history": [["a", "b"]]},
     "column 'history' is not read and would be left out unseen. Write what it says into the turns of a column"),
    ("instruction", {}, {"messages": [YES, USER]}, f"column 'messages': {ROLES} ['assistant', 'user']."),
    ("instruction", {}, {"messages": [USER, {**YES, "content": " "}]}, "column 'messages', turn 2: the text is empty."),
    ("instruction", {}, {"messages": [USER, {**YES, "content": None}]}, "turn 2: expected text, got NoneType."),
    ("instruction", {}, {"messages": [USER]}, "expected the last turn to be assistant"),
    ("instruction", {}, {"conversations": [{"from": "gpt", "value": "yes"}]}, f"column 'conversations': {ROLES}"),
    ("instruction", {}, {"conversations": [{"from": "bot", "value": "yes"}]},
     "turn 1: unknown role 'bot', expected one of human, gpt, system, user, assistant, model."),
    ("instruction", {}, {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
                         "system": "be brief"}, "column 'system' is not read and would be left out unseen."),
    ("instruction", {}, {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}]},
     f"column 'conversations', turn 2: {CALLED}"),
    ("instruction", {}, {"messages": [USER, CALL]}, f"column 'messages', turn 2: {CALLED}"),
    ("instruction", {}, {"messages": [USER, YES, {"role": "tool", "content": "12:00"}]},
     f"turn 3: {CALLED}"),
    ("instruction", {}, {"messages": [USER, YES], "tools": [{"name": "clock"}]},
     f"column 'tools' defines tools. {TOOLS}"),
    ("instruction", {}, {"messages": [{"role": "user", "content": [part("hi"), {"type": "image"}]}, YES]},
     "column 'messages', turn 1: part 2 of the content is 'image'; only text is supported: "
     '{"type": "text", "text": "..."}. Take other parts out'),
    ("instruction", {}, {"messages": [{"role": "user", "content": ["hi"]}, YES]}, "part 1 of the content is 'str'"),
    ("instruction", {}, {"messages": [{"role": "user", "content": []}, YES]}, "turn 1: the text is empty."),
    ("prompt", {}, {"text": "hi"}, "column 'prompt' is missing; the row has 'text'."),
    ("prompt", {}, {"prompt": [USER, YES]}, "expected the last turn to be user"),
    ("prompt", {}, {"messages": [SYSTEM, YES]}, f"column 'messages': {ROLES} ['system']."),
    ("prompt", {}, {"messages": [USER, CALL]}, f"turn 2: {CALLED}"),
    ("prompt", {"prompt": "q", "answer": "a"}, {"q": "hi", "a": None}, "column 'a': expected text or a number"),
    ("preference", {}, {"prompt": "hi", "chosen": "yes"},
     "column 'rejected' is missing; the row has 'prompt', 'chosen'."),
    ("preference", {}, {"prompt": "hi", "chosen": "yes", "rejected": "yes"}, "chosen equals rejected"),
    ("preference", {}, {"prompt": [USER], "chosen": [CALL], "rejected": [NO]}, f"turn 1: {CALLED}"),
    ("preference", {}, {"chosen": [USER, YES], "rejected": [YES]}, f"column 'rejected': {ROLES} ['assistant']."),
]  # fmt: skip
GOOD = {
    "text": {"text": "a", "body": "a"},
    "instruction": {"prompt": "a", "completion": "b"},
    "prompt": {"prompt": "a"},
    "preference": {"prompt": "a", "chosen": "b", "rejected": "c"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_configs):
    """A folder with models of two families; and their tokenizers."""
    folder = tmp_path_factory.mktemp("models")
    return folder, {
        family: folder_without_weights(folder / family, tiny_configs[family]) for family in ("gemma2", "gemma3")
    }


def write(folder, models, use, names, rows, family="gemma3", options=""):
    """A workflow of one stage that reads `rows`."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = json.dumps({"path": "rows.jsonl", **names})
    stage = f"{{{STAGES[use]}, from: {models[0] / family}, data: {spec}{options}}}"
    (folder / "w.yaml").write_text(f"name: w\nstages:\n  s: {stage}\n")
    return str(folder / "w.yaml"), f"{folder / 'rows.jsonl'}"


def as_run(folder, use, names, tokenizer, max_length=1024, overlong="drop", room=0):
    """The rows read and encoded with what the stages call: a list of ids for each, two of a pair."""
    examples = load_examples(FileData.model_validate({"path": "rows.jsonl", **names}), use, folder)
    if use == "prompt":
        return encode_prompts(tokenizer, examples, max_length, room).token_ids
    encode = {"text": encode_texts, "instruction": encode_instructions, "preference": encode_preferences}[use]
    found = encode(tokenizer, examples, max_length, overlong).examples
    return [[one.chosen_ids, one.rejected_ids] if use == "preference" else one.token_ids for one in found]


@pytest.mark.parametrize(("use", "names", "row", "expected"), TAKEN)
def test_taken_by_both(tmp_path, models, capsys, use, names, row, expected):
    file, _ = write(tmp_path, models, use, names, [row])
    assert cli.main(["validate", file]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == f"{file}: valid, 1 stages: s\n"
    tokenizer = models[1]["gemma3"]
    (ids,) = as_run(tmp_path, use, names, tokenizer)
    if use == "preference":
        assert [tokenizer.decode(side, keep_control=True) for side in ids] == expected
    else:
        assert tokenizer.decode(ids, keep_control=True) == expected


@pytest.mark.parametrize(("use", "names", "row", "reason"), REFUSED)
def test_refused_by_both_with_place_and_remedy(tmp_path, models, capsys, use, names, row, reason):
    first = GOOD[use] if not names else {names[key]: value for key, value in (("prompt", "a"), ("answer", "b"))}
    file, place = write(tmp_path, models, use, names, [first, row])
    with pytest.raises(DataError) as caught:
        as_run(tmp_path, use, names, models[1]["gemma3"])
    assert str(caught.value).startswith(f"{place}:2: ") and reason in str(caught.value)
    assert cli.main(["validate", file]) == 65
    remedy = "Mend them, or set them aside: --set stages.s.data.on_bad_row=lenient"
    assert capsys.readouterr().err == f"error: {caught.value} {remedy}\n"


# What the readers take and only the encoders refuse: family, use, row, options of the stage, reason.
NO_SYSTEM = "gemma2 has no system role (message 0). Expected user first; put the system text into the first user turn."
LONG = {"text": "hi " * 40, "prompt": "hi " * 40, "completion": "yes", "chosen": "yes", "rejected": "no"}
ENCODED = [
    ("gemma2", "instruction", {"messages": [SYSTEM, USER, YES]}, {}, NO_SYSTEM),
    ("gemma2", "instruction", {"prompt": [SYSTEM, USER], "completion": "yes"}, {}, NO_SYSTEM),
    ("gemma2", "prompt", {"messages": [SYSTEM, USER, YES]}, {}, NO_SYSTEM),
    ("gemma2", "preference", {"chosen": [SYSTEM, USER, YES], "rejected": [SYSTEM, USER, NO]}, {}, NO_SYSTEM),
    ("gemma3", "instruction", {"prompt": "a", "completion": "b", "prompt_ids": [2], "completion_ids": [300]}, {},
     "token id 300 is outside the model's vocabulary of 300. Rows with ids belong to the tokenizer that sampled them"),
    ("gemma3", "text", {"text": LONG["text"]}, {"max_length": 30, "overlong": "error"},
     "tokens, more than max_length 30. Raise max_length, or set `overlong: drop`."),
    ("gemma3", "preference", LONG, {"max_length": 30, "overlong": "error"}, "Raise it, or set `overlong: drop`."),
]  # fmt: skip


@pytest.mark.parametrize(("family", "use", "row", "options", "reason"), ENCODED)
def test_what_the_encoder_refuses_is_refused_before_the_run(
    tmp_path, models, capsys, family, use, row, options, reason
):
    more = "".join(f", {key}: {value}" for key, value in options.items())
    file, place = write(tmp_path, models, use, {}, [GOOD[use], row], family, more)
    with pytest.raises(DataError) as caught:
        as_run(tmp_path, use, {}, models[1][family], **options)
    assert str(caught.value).startswith(f"{place}:2: ") and reason in str(caught.value)
    assert cli.main(["validate", file]) == 65
    assert capsys.readouterr().err == f"error: {caught.value}\n"


@pytest.mark.parametrize(
    ("use", "options", "reason"),
    [
        ("text", "", "all 2 examples are over max_length 60 tokens. Raise it."),
        ("instruction", "", "all 2 examples are over max_length 60 tokens. Raise it."),
        ("preference", "", "all 2 pairs are over max_length 60 tokens. Raise it."),
        ("prompt", ", max_new_tokens: 8", "none of 2 prompts leaves room for max_new_tokens=8 within max_length=60."),
    ],
)
def test_rows_of_which_none_fits(tmp_path, models, capsys, use, options, reason):
    rows = {"prompt": [LONG] * 2, "text": [{"text": LONG["text"]}] * 2}.get(use, [LONG] * 2)
    names = {"prompt": "prompt", "completion": "completion"} if use == "instruction" else {}
    file, place = write(tmp_path, models, use, names, rows, "gemma3", ", max_length: 60" + options)
    with pytest.raises(DataError) as caught:
        as_run(tmp_path, use, names, models[1]["gemma3"], 60, room=8)
    assert reason in str(caught.value)
    assert cli.main(["validate", file]) == 65
    assert capsys.readouterr().err == f"error: {caught.value}\n"
    # One that fits is enough, and rows behind the first 200 may be that one.
    short = GOOD[use]
    write(tmp_path, models, use, names, [*rows, short], "gemma3", ", max_length: 60" + options)
    assert cli.main(["validate", file]) == 0
    write(tmp_path, models, use, names, rows * 150, "gemma3", ", max_length: 60" + options)
    assert cli.main(["validate", file]) == 0


def test_the_family_is_known_without_the_model(tmp_path, models, capsys):
    rows = [{"messages": [SYSTEM, USER, YES]}]
    for name, code in (
        ("google/gemma-2-2b-it", 65),
        ("google/gemma-7b", 65),
        ("google/codegemma-7b-it", 65),
        ("google/gemma-3-1b-it", 0),
        ("someone/finetune", 0),
    ):
        file, _ = write(tmp_path, models, "instruction", {}, rows)
        text = (tmp_path / "w.yaml").read_text().replace(str(models[0] / "gemma3"), name)
        (tmp_path / "w.yaml").write_text(
            text.replace(f"from: {name}, ", "").replace("name: w", f"name: w\nmodel: {name}")
        )
        assert cli.main(["validate", file]) == code, name
        assert ("has no system role" in capsys.readouterr().err) == (code == 65)


def test_a_model_without_a_tokenizer(tmp_path, models, capsys, tiny_configs):
    folder_without_weights(tmp_path / "bare", tiny_configs["gemma3"])
    for file in ("tokenizer.model", "tokenizer.json"):
        (tmp_path / "bare" / file).unlink()
    for use in ("instruction", "prompt"):
        file, _ = write(tmp_path, models, use, {}, [GOOD[use]])
        (tmp_path / "w.yaml").write_text((tmp_path / "w.yaml").read_text().replace(str(models[0] / "gemma3"), "bare"))
        assert cli.main(["validate", file]) == 2
        assert "w.yaml:3:6: the model has no tokenizer, so text cannot be encoded." in capsys.readouterr().err


def test_an_input_that_the_names_leave_out_is_told(tmp_path, models, capsys):
    names = {"prompt": "instruction", "completion": "output"}
    rows = [{"instruction": "a", "input": "", "output": "b"}, {"instruction": "add", "input": "1", "output": "1"}]
    file, place = write(tmp_path, models, "instruction", names, rows)
    assert cli.main(["validate", file]) == 0
    (note, _) = capsys.readouterr().out.splitlines()
    assert note.startswith(f"stages.s.data: {place}:2: column 'input' says more than nothing and is left out.")
    write(tmp_path, models, "instruction", names, rows[:1])
    assert cli.main(["validate", file]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "/etc/passwd:1: a file whose name does not say what it is. Expected JSON lines (.jsonl, "),
        ("sheet.xlsx", "sheet.xlsx:1: unknown kind of file '.xlsx'. Expected JSON lines (.jsonl, .ndjson, .json) or a "
         "table (.parquet, .csv, .arrow). Save the sheet as .csv."),
        ("rows.tsv", "Write a JSON object a line, such as {\"text\": \"...\"}."),
        ("rows.jsonl.gz", "unknown kind of file '.gz'. Expected JSON lines (.jsonl, .ndjson, .json) or a table "
         "(.parquet, .csv, .arrow). Unpack it."),
        ("missing/rows.xlsx", "no data file 'missing/rows.xlsx'"),
        ("passwd.jsonl", "passwd.jsonl:1: bad JSON"),
        ("array.json", "array.json:1: a JSON array, expected a JSON object a line. Rewrite the file, e.g.: jq -c"),
    ],
)  # fmt: skip
def test_files_that_are_no_data(tmp_path, models, capsys, name, reason):
    (tmp_path / "sheet.xlsx").write_bytes(b"PK\x03\x04")
    (tmp_path / "rows.tsv").write_text("text\nhi\n")
    (tmp_path / "rows.jsonl.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "passwd.jsonl").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "array.json").write_text('[\n{"prompt": "hi", "completion": "yes"}\n]\n')
    file, _ = write(tmp_path, models, "instruction", {"path": name}, [])
    assert cli.main(["validate", file]) == 65
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_the_run_reads_tables_before_its_first_stage(tmp_path, models):
    (tmp_path / "rows.csv").write_text("prompt,completion\nhi,yes\nhi,\n")
    file, place = write(tmp_path, models, "instruction", {"path": "rows.csv"}, [])
    with pytest.raises(DataError) as caught:
        check_data(load(Path(file)), with_tables=True)
    assert str(caught.value).startswith(f"{tmp_path / 'rows.csv'}:2: column 'completion': expected text, got NoneType.")


def test_tables_are_left_to_the_run_and_named(tmp_path, models, capsys):
    (tmp_path / "rows.csv").write_text("text\nhi\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "rows.parquet").write_bytes(b"no table at all")
    for name in ("rows.csv", "folder"):
        file, _ = write(tmp_path, models, "text", {"path": name}, [])
        assert cli.main(["validate", file]) == 0
        note = capsys.readouterr().out.splitlines()[0]
        assert note == f"left to `run`, as only JSON lines are read here: {tmp_path / name}"


@pytest.mark.parametrize(
    "use, row",
    [
        ("instruction", {"text": "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nyes<end_of_turn>"}),
        ("instruction", {"messages": [{**USER, "content": "<start_of_turn>user"}, YES]}),
        ("prompt", {"prompt": "hi<start_of_turn>"}),
    ],
)
def test_a_turn_mark_written_out_in_a_row_is_told(tmp_path, models, capsys, use, row):
    file, place = write(tmp_path, models, use, {}, [GOOD[use], row, row])
    assert cli.main(["validate", file]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if "written out" in line]
    assert len(notes) == 1
    assert notes[0].startswith(f"stages.s.data: {place}:2: <start_of_turn> is written out in the text, where it is")
    assert "Give such rows as `messages`; gemma_keras.from_marked_text(text)" in notes[0]
