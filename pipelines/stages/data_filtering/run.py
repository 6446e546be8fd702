"""Filters rows, chunk by chunk: at most some chunks of rows are in memory, and of the others only what `duplicates`
remembers."""

import contextlib
import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from pipelines.data.canonical import Piece, Place, canonical_row, pieces_of, with_texts
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.examples import read_examples
from pipelines.data.rejects import Rejects
from pipelines.data.sources import ROWS_FILE, iterate_rows
from pipelines.host.errors import DataError
from pipelines.schema.data import FileData
from pipelines.stages.context import StageContext
from pipelines.stages.data_filtering.config import DataFiltering
from pipelines.stages.data_filtering.filters.base import Filter, Verdict
from pipelines.stages.data_filtering.filters.registry import filters_of
from pipelines.stages.data_filtering.judging import SAID, changed, judges, verdicts

CHUNK_ROWS = 256
"""Rows that are judged together and kept as one part; of it depend no results, but an unfinished stage's state."""
EXAMPLES, EXAMPLE_LETTERS = 3, 200
"""Rejected rows of each filter that the report shows, and how much of each."""
MUCH = 0.5
"""Share of the rows that a filter saw, from which its dropping them is worth a warning."""
REJECTED_FILE = "rejected.jsonl"


@dataclasses.dataclass
class Chunk:
    """Rows that are judged together.

    Args:
        rows: canonical ones. origins: file:line of each. pieces: texts of each.
        bad: lines among them that could not be read, as `Rejects` has them.
    """

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    origins: list[str] = dataclasses.field(default_factory=list)
    pieces: list[list[Piece]] = dataclasses.field(default_factory=list)
    bad: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Tally:
    """What one filter did."""

    seen: int = 0
    dropped: int = 0
    changed: int = 0
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    examples: list[dict[str, str]] = dataclasses.field(default_factory=list)


def run(config: DataFiltering, context: StageContext) -> dict:
    """Filter rows.

    Args:
        config: the stage's options. context: its surroundings; `rows.jsonl` and, where any were dropped,
            `rejected.jsonl` go into `context.output`.

    Returns:
        `rows_in`, `rows_out`, `bad_rows` and, of each of the `filters`, its `name`, how many rows it has `seen`,
        `dropped` and `changed`, the `reasons` with their counts, some `examples`, and what it counts beside.
    """
    context.doing("reading what rows are compared with")
    filters = filters_of(config.filters, config.use)
    for one in filters:
        one.open(context)
    tallies = [Tally() for _ in filters]
    counts = Counter(rows_in=0, rows_out=0, bad_rows=0)
    with contextlib.ExitStack() as stack:
        working = stack.enter_context(judges(filters, config.processes))
        progress = stack.enter_context(context.progress(None, "filtering", unit="rows"))
        kept, rejected = (
            stack.enter_context((context.output / name).open("w", encoding="utf-8", newline="\n"))
            for name in (ROWS_FILE, REJECTED_FILE)
        )
        keep = context.parts("verdicts", is_all=True)
        for chunk, arrays in working.judged(_chunks(config, context), keep):
            said = json.loads(arrays[SAID].tobytes())
            for bad in chunk.bad:
                _write(rejected, {"origin": bad["origin"], "filter": None, **bad})
            for number, (row, origin) in enumerate(zip(chunk.rows, chunk.origins, strict=True)):
                found = verdicts(filters, arrays, said.get(str(number), {}), number, origin)
                changes, dropped = _settle(found, filters, tallies, chunk.pieces[number], origin)
                if dropped is None:
                    _write(kept, with_texts(row, changes))
                    counts["rows_out"] += 1
                else:
                    _write(rejected, {"origin": origin, **dropped, "row": row})
            counts["rows_in"] += len(chunk.rows)
            counts["bad_rows"] += len(chunk.bad)
            progress.advance(len(chunk.rows))
    _carry_seen(config, context)
    _check(config, context, filters, tallies, counts)
    return {
        **counts,
        "filters": [
            {
                "name": one.name,
                **dataclasses.asdict(tally),
                "reasons": dict(tally.reasons.most_common()),
                **one.figures(),
            }
            for one, tally in zip(filters, tallies, strict=True)
        ],
    }


def _chunks(config: DataFiltering, context: StageContext) -> Iterator[Chunk]:
    """The rows, `CHUNK_ROWS` at a time."""
    data = config.data
    rejects = Rejects(data.on_bad_row) if isinstance(data, FileData) else Rejects()
    names = data.columns if isinstance(data, FileData) else {}
    known = context.disjoint_prompts(data) if isinstance(data, FileData) else SeenPrompts()
    rows = iterate_rows(data, context.base_folder, context.inputs, context.seed, rejects)
    chunk, left_out = Chunk(), 0
    for example, row in read_examples(rows, data, config.use, rejects):
        if known.contents and not known.contents.isdisjoint(prompt_hashes(example).contents):
            left_out += 1
            continue
        chunk.rows.append(canonical_row(example, row.values, names))
        chunk.origins.append(row.origin)
        chunk.pieces.append(pieces_of(chunk.rows[-1]))
        if len(chunk.rows) == CHUNK_ROWS:
            yield _closed(chunk, rejects)
            chunk = Chunk()
    if chunk.rows or rejects.rows:
        yield _closed(chunk, rejects)
    for notice, origin in rejects.notices.items():
        context.warn(f"{origin}: {notice}")
    if left_out:
        context.log(0, left_out_rows=left_out)


def _closed(chunk: Chunk, rejects: Rejects) -> Chunk:
    """With the bad lines that were met since the last one."""
    chunk.bad = list(rejects.rows)
    rejects.rows.clear()
    return chunk


def _settle(
    found: Iterator[tuple[int, Verdict]],
    filters: Sequence[Filter],
    tallies: Sequence[Tally],
    pieces: list[Piece],
    origin: str,
) -> tuple[dict[Place, str], dict[str, Any] | None]:
    """The texts of a row that have changed, and what `rejected.jsonl` says of one that is dropped, else None."""
    changes: dict[Place, str] = {}
    for step, verdict in found:
        tally = tallies[step]
        tally.seen += 1
        if verdict.reason:
            tally.dropped += 1
            tally.reasons[verdict.reason] += 1
            reason = f"{verdict.reason}: {verdict.detail}" if verdict.detail else verdict.reason
            if len(tally.examples) < EXAMPLES:
                tally.examples.append({"origin": origin, "reason": reason, "text": _shown(filters[step], pieces)})
            return changes, {"filter": filters[step].name, "reason": reason}
        tally.changed += bool(verdict.changes)
        changes |= {pieces[index].place: text for index, text in verdict.changes.items()}
        pieces = changed(pieces, verdict)
    return changes, None


def _shown(one: Filter, pieces: Sequence[Piece]) -> str:
    """The beginning of a row for the report, which is handed on more freely than data; nothing of personal data."""
    if not one.shows_rows:
        return ""
    text = " | ".join(" ".join(piece.text.split()) for piece in pieces)
    return text if len(text) <= EXAMPLE_LETTERS else f"{text[:EXAMPLE_LETTERS]}\N{HORIZONTAL ELLIPSIS}"


def _carry_seen(config: DataFiltering, context: StageContext) -> None:
    """What the stage that collected these rows had learned from is known behind this one too."""
    seen = SeenPrompts.read(context.inputs[config.data]) if isinstance(config.data, str) else None
    if seen is not None:
        seen.write(context.output)


def _check(
    config: DataFiltering,
    context: StageContext,
    filters: Sequence[Filter],
    tallies: Sequence[Tally],
    counts: Mapping[str, int],
) -> None:
    """Warns of what is dropped in masses.

    Raises:
        DataError: no row is left, or there was none.
    """
    name = config.data if isinstance(config.data, str) else getattr(config.data, "path", context.name)
    by_filter = {one.name: tally.dropped for one, tally in zip(filters, tallies, strict=True) if tally.dropped}
    if not counts["rows_out"]:
        why = ", ".join(f"{count} by {one}" for one, count in by_filter.items()) or "none could be read"
        raise DataError(
            f"{name}:1: no row is left of {counts['rows_in']}: {why} ({counts['bad_rows']} bad ones). Expected at "
            f"least one; see {REJECTED_FILE}, and loosen the filters or read the rows as something else."
        )
    if counts["bad_rows"]:
        context.warn(f"{counts['bad_rows']} bad rows set aside, see {REJECTED_FILE}")
    for one, tally in zip(filters, tallies, strict=True):
        if tally.dropped > MUCH * tally.seen:
            reason, times = tally.reasons.most_common(1)[0]
            context.warn(f"{one.name} dropped {tally.dropped} of {tally.seen} rows, {times} of them for: {reason}")


_dumps = functools.partial(json.dumps, ensure_ascii=False, default=str)


def _write(file: TextIO, row: Mapping[str, Any]) -> None:
    file.write(_dumps(row) + "\n")
