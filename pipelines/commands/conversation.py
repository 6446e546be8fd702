"""A conversation on the terminal: turns, and the commands that begin with a slash. Knows no model, only a function that
answers."""

import json
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.host.spelling import did_you_mean

Message = dict[str, str]
Answer = Callable[[list[Message], int], Iterator[str]]
"""(turns, number of the draw) → the answer piece by piece."""

HELP = """\
/new         start over
/undo        take the last turn and its answer back
/regenerate  answer the last turn anew
/save FILE   add the conversation to a file, one line of JSON each: {"messages": [...]}
/help        this
An empty line or Ctrl-D ends the conversation. Ctrl-C stops an answer; where none is being given it ends it too.
To send a text that begins with a slash, put a blank before it."""


class Conversation:
    """The turns so far, and what can be done with them.

    Args:
        answer: gives answers. system: instructions before the first turn, or None.
        write: receives the answers, piece by piece. notice: receives everything else, a line or more.
    """

    def __init__(
        self,
        answer: Answer,
        system: str | None = None,
        write: Callable[[str], Any] = sys.stdout.write,
        notice: Callable[[str], Any] = print,
    ) -> None:
        self._answer, self._write, self._notice = answer, write, notice
        self._start: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.messages = list(self._start)
        self._draws = 0
        self._commands = {
            "/new": self.new,
            "/undo": self.undo,
            "/regenerate": self.regenerate,
            "/save": self.save,
            "/help": lambda: self._notice(HELP),
        }

    def take(self, line: str) -> None:
        """What a line asks for: a command where it begins with a slash, else it is a turn."""
        if not line.startswith("/"):
            self.ask(line.strip())
            return
        name, _, argument = line.strip().partition(" ")
        if name not in self._commands:
            self._notice(f"no command {name}.{did_you_mean(name, self._commands)} /help lists them")
        elif name == "/save":
            self.save(argument.strip())
        elif argument:
            self._notice(f"{name} takes nothing behind it")
        else:
            self._commands[name]()

    def ask(self, text: str) -> None:
        """Answer a turn. Ctrl-C stops the answer: what was written of it stays, a turn without any is taken back."""
        self.messages.append({"role": "user", "content": text})
        said, shown = "", ""
        try:
            for piece in _until_ctrl_c(self._answer(list(self.messages), self._draws)):
                said += piece
                # Blanks around an answer are no part of it: those at the end wait for what follows them.
                text = said.strip()
                self._write(text[len(shown) :])
                shown = text
        except KeyboardInterrupt:
            self._write("\n")
            self._notice("stopped" if shown else "stopped; your turn is taken back")
            if not shown:
                self.messages.pop()
        except BaseException:
            self.messages.pop()
            raise
        else:
            self._write("\n")
        self._draws += 1
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages.append({"role": "assistant", "content": shown})

    def new(self) -> None:
        """Start over."""
        self.messages = list(self._start)
        self._notice("a new conversation")

    def undo(self) -> str | None:
        """Take the last turn and its answer back; returns that turn."""
        if len(self.messages) == len(self._start):
            self._notice("nothing to take back")
            return None
        *self.messages, turn, _ = self.messages
        left = (len(self.messages) - len(self._start)) // 2
        self._notice(f"taken back; {left} {'turn is' if left == 1 else 'turns are'} left")
        return turn["content"]

    def regenerate(self) -> None:
        """Answer the last turn anew, with other draws."""
        if len(self.messages) == len(self._start):
            self._notice("nothing to answer anew")
            return
        *self.messages, turn, _ = self.messages
        self.ask(turn["content"])

    def save(self, file: str = "") -> None:
        """Add the conversation to a file of JSON lines."""
        if not file:
            self._notice("/save needs a file: /save talk.jsonl")
            return
        if len(self.messages) == len(self._start):
            self._notice("nothing to save")
            return
        path = Path(os.path.expanduser(file))
        try:
            with path.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        except OSError as error:
            self._notice(f"{file}: cannot write ({error.strerror}); name another file")
            return
        self._notice(f"added to {file}")


def _until_ctrl_c(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces; Ctrl-C is noted and raised between two of them. Raised wherever it comes it may fall into a callback
    of the backend's, where Python drops it."""
    pressed = False

    def note(number: int, frame: types.FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, note)
    try:
        for piece in pieces:
            if pressed:
                raise KeyboardInterrupt
            yield piece
    finally:
        signal.signal(signal.SIGINT, before)


def converse(conversation: Conversation, read: Callable[[], str]) -> None:
    """Take lines until an empty one, the end of the file, or Ctrl-C where no answer is being given."""
    while True:
        try:
            line = read()
        except (EOFError, KeyboardInterrupt):
            return
        if not line.strip():
            return
        conversation.take(line)
