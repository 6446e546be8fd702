"""The prompts of `generate`: from the command line, a file of JSON lines, or standard input."""

import codecs
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.data.columns import read_prompt
from pipelines.data.jsonl import Row, parse_line, read_jsonl
from pipelines.data.rejects import BadRow
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.spelling import did_you_mean

STANDARD_INPUT = "-"
COLUMNS = ("prompt", "messages")


@dataclasses.dataclass(frozen=True)
class Asked:
    """One prompt.

    Args:
        shown: as the user gave it, a text or turns.
        inputs: as the model is given it: a text to continue, turns, or what stands around a gap.
        origin: file:line, for errors; empty for one from the command line.
    """

    shown: Any
    inputs: Any
    origin: str = ""


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What to answer. `are_rows`: True where they came as JSON lines, and answers go out as such."""

    asked: Sequence[Asked]
    are_rows: bool


def read(texts: Sequence[str] | None, file: str | None, raw: bool = False, suffix: str | None = None) -> Prompts:
    """The prompts that a command names.

    Args:
        texts: those of `--prompt`. file: that of `--file`, `-` for standard input. Without both, standard input too.
        raw: texts are continued as they are, else they are a user's turn.
        suffix: what stands behind the gap that the model fills, or None.

    Raises:
        ConfigError: several sources, or none. DataError: no prompts, or a bad row, with file:line.
    """
    if texts and file:
        raise ConfigError("--prompt and --file: expected one of them, got both. Put all prompts into the file")
    if texts:
        return Prompts([_asked(text, "", raw, suffix) for text in texts], are_rows=False)
    if file is None and sys.stdin.isatty():
        raise ConfigError("no prompt: name one with --prompt TEXT or --file FILE, or pipe prompts in, one a line")
    if file in (None, STANDARD_INPUT):
        lines = sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8).splitlines()
        are_rows = next((line.lstrip().startswith(b"{") for line in lines if line.strip()), False)
        asked = list(_of_rows(_rows_of(lines), raw, suffix) if are_rows else _of_lines(lines, raw, suffix))
        place = "standard input"
    else:
        asked, are_rows, place = list(_of_rows(read_jsonl(Path(str(file))), raw, suffix)), True, f"{file}:1"
    if not asked:
        raise DataError(f'{place}: no prompts. Expected one a line, or JSON lines such as {{"prompt": "..."}}')
    return Prompts(asked, are_rows)


def _of_lines(lines: Sequence[bytes], raw: bool, suffix: str | None) -> Iterator[Asked]:
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"<stdin>:{number}: invalid UTF-8 at byte {error.start}: {error.reason}") from None
        if text.strip():
            yield _asked(text, f"<stdin>:{number}", raw, suffix)


def _rows_of(lines: Sequence[bytes]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            origin = f"<stdin>:{number}"
            try:
                yield Row(parse_line(line), origin)
            except BadRow as error:
                raise DataError(f"{origin}: {error}") from error


def _of_rows(rows: Iterator[Row], raw: bool, suffix: str | None) -> Iterator[Asked]:
    for row in rows:
        column = next((name for name in COLUMNS if name in row.values), None)
        if column is None:
            found = ", ".join(map(repr, row.values)) or "none"
            hints = [did_you_mean(name, COLUMNS) for name in row.values]
            hint = next(filter(None, hints), "")
            raise DataError(f"{row.origin}: expected a column 'prompt' or 'messages', got {found}.{hint}")
        try:
            prompt = read_prompt(Row({column: row.values[column]}, row.origin), {"prompt": column}).prompt
        except BadRow as error:
            raise DataError(f"{row.origin}: {error}") from error
        yield _asked(prompt, row.origin, raw, suffix)


def _asked(prompt: Any, origin: str, raw: bool, suffix: str | None) -> Asked:
    if not isinstance(prompt, str):
        if raw or suffix is not None:
            option = "--raw" if raw else "--suffix"
            raise DataError(f"{origin}: {option} takes a prompt that is text, got turns. Leave {option} out")
        return Asked(prompt, prompt, origin)
    if suffix is not None:
        return Asked(prompt, {"prefix": prompt, "suffix": suffix}, origin)
    return Asked(prompt, prompt if raw else [{"role": "user", "content": prompt}], origin)
