"""Conversations without a model: turns, commands, and what interrupts them."""

import json
import os
import subprocess
import sys

import pytest
from terminal_fixture import Typist

from pipelines.commands import conversation as module
from pipelines.commands.conversation import Conversation, converse

pytestmark = pytest.mark.no_backend


class Stage:
    """A conversation with a stand-in that answers with the number of turns and of the draw; what it wrote and said."""

    def __init__(self, *pieces, system=None):
        self.written, self.notices, self.asked = "", [], []
        self.pieces = pieces
        self.talk = Conversation(self.answer, system, self.write, self.notices.append)

    def answer(self, messages, draw):
        self.asked.append(messages)
        for piece in self.pieces or (f"turn {len(messages)}", f" draw {draw}"):
            if piece is KeyboardInterrupt:
                raise KeyboardInterrupt
            yield piece

    def write(self, text):
        self.written += text

    def run(self, *lines):
        """Take lines, then the end of the file."""
        waiting = iter(lines)

        def read():
            line = next(waiting, EOFError)
            if isinstance(line, str):
                return line
            raise line

        converse(self.talk, read)
        return list(waiting)

    @property
    def texts(self):
        return [message["content"] for message in self.talk.messages]


def test_an_answer_comes_piece_by_piece_without_blanks_around_it():
    stage, seen = Stage(" \n", " red", " ", "cat", " \n\n"), []
    stage.talk._write = seen.append
    stage.talk.take("hello ")
    assert seen == ["", "red", "", " cat", "", "\n"]
    assert stage.talk.messages == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "red cat"},
    ]


def test_each_turn_is_asked_with_all_before_it_and_draws_of_its_own():
    stage = Stage(system="be brief")
    assert stage.run("one", "two", "/new", "three") == []
    assert stage.written == "turn 2 draw 0\nturn 4 draw 1\nturn 2 draw 2\n"
    assert [message["role"] for message in stage.asked[1]] == ["system", "user", "assistant", "user"]
    assert stage.asked[2] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "three"}]


def test_undo_and_regenerate():
    stage = Stage()
    stage.run("one", "two", "/undo")
    assert stage.texts == ["one", "turn 1 draw 0"] and stage.notices == ["taken back; 1 turn is left"]
    stage.run("/regenerate", "/undo", "/undo", "/regenerate")
    assert stage.written.endswith("turn 1 draw 2\n"), "an answer anew has other draws"
    assert stage.texts == []
    assert stage.notices[1:] == ["taken back; 0 turns are left", "nothing to take back", "nothing to answer anew"]


def test_save_adds_a_line_that_the_training_data_reader_takes(tmp_path):
    stage, file = Stage(system="be brief"), tmp_path / "my talk.jsonl"
    stage.run("/save", f"/save {file}", "ä\u2028b", f"/save {file}", "/new", "two", f"/save {file}", "/save /nowhere/x")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [[turn["role"] for turn in row["messages"]] for row in rows] == [["system", "user", "assistant"]] * 2
    assert [row["messages"][1]["content"] for row in rows] == ["ä\u2028b", "two"]
    assert stage.notices == [
        "/save needs a file: /save talk.jsonl",
        "nothing to save",
        f"added to {file}",
        "a new conversation",
        f"added to {file}",
        "/nowhere/x: cannot write (No such file or directory); name another file",
    ]
    from pipelines.data.columns import read_instruction
    from pipelines.data.jsonl import read_jsonl

    assert [read_instruction(row, {}).messages for row in read_jsonl(file)] == [row["messages"] for row in rows]


def test_an_unknown_command_is_answered_and_not_sent():
    stage = Stage()
    stage.run("/regenrate", "/etc/passwd what is it", "/undo all", " /etc is a folder", "/help")
    assert stage.notices == [
        "no command /regenrate. Did you mean '/regenerate'? /help lists them",
        "no command /etc/passwd. /help lists them",
        "/undo takes nothing behind it",
        module.HELP,
    ]
    assert stage.texts == ["/etc is a folder", "turn 1 draw 0"]
    assert all(name in module.HELP for name in stage.talk._commands)


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said():
    stage = Stage("red ", "cat ", KeyboardInterrupt)
    stage.run("one", "/help")
    assert stage.written == "red cat\n" and stage.notices == ["stopped", module.HELP]
    assert stage.texts == ["one", "red cat"]


def test_ctrl_c_before_the_first_word_takes_the_turn_back():
    stage = Stage(" ", KeyboardInterrupt)
    stage.run("one")
    assert stage.texts == [] and stage.notices == ["stopped; your turn is taken back"]


@pytest.mark.parametrize("end", ["", "   ", EOFError, KeyboardInterrupt])
def test_what_ends_a_conversation(end):
    stage = Stage()
    assert stage.run("one", end, "two") == ["two"] and stage.texts == ["one", "turn 1 draw 0"]


def test_an_error_of_the_model_leaves_the_conversation_as_it_was():
    stage = Stage()

    def fail(messages, draw):
        raise ValueError("too long")
        yield

    stage.talk._answer = fail
    with pytest.raises(ValueError, match="too long"):
        stage.talk.take("one")
    assert stage.texts == []


def test_a_history_is_kept_for_its_owner_and_only_on_a_terminal(tmp_path, repository):
    """The arrow key finds what was typed in an earlier conversation; from a pipe nothing is kept."""
    pytest.importorskip("readline")
    code = (
        "from pipelines.commands.line_editing import lines\n"
        "with lines() as read:\n    print('<' + read() + '>')\n    print('<' + read() + '>')\n"
    )
    environment = {"GEMMA_KERAS_CACHE": str(tmp_path), "PYTHONPATH": str(repository)}
    file = tmp_path / "chat_history"

    def typed(*lines):
        typist = Typist("-c", code, **environment)
        for count, line in enumerate(lines, 1):
            typist.until("> ", count)
            typist.type(line + "\n")
            typist.until("<", count)
        typist.until("\n", 4)
        assert typist.end() == 0
        return typist.seen

    assert "<one>" in typed("one", "two")
    assert file.read_text().split() == ["one", "two"] and file.stat().st_mode & 0o077 == 0
    assert "<one>" in typed("\x1b[A\x1b[A", "three")
    before = file.read_bytes()
    piped = subprocess.run(
        [sys.executable, "-c", code], input="four\nfive\n", capture_output=True, text=True, env=os.environ | environment
    )
    assert piped.stdout == "<four>\n<five>\n" and file.read_bytes() == before
