"""Where `generate` takes its prompts from, and what it says of bad ones."""

import io
import json

import pytest

from pipelines import cli
from pipelines.commands import prompts
from pipelines.host.errors import ConfigError, DataError

pytestmark = pytest.mark.no_backend
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]


class Pipe(io.TextIOWrapper):
    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))


def user(text):
    return [{"role": "user", "content": text}]


def test_texts_of_the_command_line():
    found = prompts.read(["one", "two"], None)
    assert [(asked.shown, asked.inputs) for asked in found.asked] == [("one", user("one")), ("two", user("two"))]
    assert not found.are_rows
    assert prompts.read([" one"], None, raw=True).asked[0].inputs == " one"
    assert prompts.read(["one"], None, suffix="end").asked[0].inputs == {"prefix": "one", "suffix": "end"}


def test_rows_of_a_file(tmp_path):
    file = tmp_path / "p.jsonl"
    rows = [{"prompt": "one", "answer": 3}, {"messages": TURNS}, {"prompt": TURNS}]
    file.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    found = prompts.read(None, str(file))
    assert found.are_rows
    assert [asked.shown for asked in found.asked] == ["one", TURNS, TURNS]
    assert [asked.inputs for asked in found.asked] == [user("one"), TURNS, TURNS]
    assert [asked.origin for asked in found.asked] == [f"{file}:{line}" for line in (1, 3, 5)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "a"', ":2: cut off line"),
        ("[1]", ":2: expected a JSON object"),
        ('{"promt": "a"}', ":2: expected a column 'prompt' or 'messages', got 'promt'. Did you mean 'prompt'?"),
        ('{"prompt": 3}', ":2: column 'prompt': expected text, got int."),
        ('{"prompt": " "}', ":2: column 'prompt': the text is empty."),
        (json.dumps({"messages": TURNS[:2]}), ":2: column 'messages': roles out of order: expected the last turn"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', ":2: column 'messages', turn 1: unknown role 'robot'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message, capsys, monkeypatch):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "good"}\n' + row + "\n")
    with pytest.raises(DataError) as caught:
        prompts.read(None, str(file))
    assert str(caught.value).startswith(f"{file}{message}")
    monkeypatch.setattr("sys.stdin", Pipe(file.read_bytes()))
    with pytest.raises(DataError) as caught:
        prompts.read(None, "-")
    assert str(caught.value).startswith(f"<stdin>{message}")


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", Pipe("one\r\n\n  zwei ä\n{no json\n".encode()))
    found = prompts.read(None, None, raw=True)
    assert [asked.inputs for asked in found.asked] == ["one", "  zwei ä", "{no json"] and not found.are_rows
    monkeypatch.setattr("sys.stdin", Pipe(b'\xef\xbb\xbf\n{"prompt": "one"}\n'))
    found = prompts.read(None, None)
    assert [asked.inputs for asked in found.asked] == [user("one")] and found.are_rows
    monkeypatch.setattr("sys.stdin", Pipe(b"one\n\xff\n"))
    with pytest.raises(DataError, match=r"<stdin>:2: invalid UTF-8 at byte 0"):
        prompts.read(None, None)


def test_no_prompt_or_two_sources(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"--prompt and --file: expected one of them, got both. Put all"):
        prompts.read(["a"], "p.jsonl")
    monkeypatch.setattr("sys.stdin", Pipe(b"\n \n"))
    with pytest.raises(DataError, match="standard input: no prompts. Expected one a line, or JSON lines"):
        prompts.read(None, None)
    empty = tmp_path / "p.jsonl"
    empty.touch()
    with pytest.raises(DataError, match="p.jsonl:1: no prompts"):
        prompts.read(None, str(empty))
    with pytest.raises(DataError, match="nowhere.jsonl:1: cannot be read"):
        prompts.read(None, "nowhere.jsonl")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    with pytest.raises(ConfigError, match=r"no prompt: name one with --prompt TEXT or --file FILE, or pipe prompts in"):
        prompts.read(None, None)


@pytest.mark.parametrize(("options", "said"), [({"raw": True}, "--raw"), ({"suffix": "b"}, "--suffix")])
def test_turns_are_neither_continued_nor_filled_in(tmp_path, options, said):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"messages": TURNS}) + "\n")
    with pytest.raises(DataError, match=f"p.jsonl:1: {said} takes a prompt that is text, got turns. Leave {said} out"):
        prompts.read(None, str(file), **options)


def test_what_is_wrong_is_said_before_a_model_is_loaded(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "p.jsonl").write_text("{}\n")
    assert cli.main(["generate", str(tmp_path), "--file", str(tmp_path / "p.jsonl")]) == 65
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/p.jsonl:1: expected a column")
    assert cli.main(["generate", str(tmp_path), "--prompt", "a", "--batch-size", "0"]) == 2
    assert capsys.readouterr().err == "error: --batch-size 0: expected 1 or more\n"
    assert cli.main(["chat", str(tmp_path), "--max-new-tokens", "0"]) == 2
    assert capsys.readouterr().err == "error: --max-new-tokens 0: expected 1 or more\n"
