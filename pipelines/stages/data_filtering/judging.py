"""Chunks of rows to verdicts, in this process or in several: the chunks, their order and so every byte are the same."""

import collections
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from pipelines.data.canonical import Piece
from pipelines.host.errors import InternalError
from pipelines.host.parts import Keep
from pipelines.schema.base import Use
from pipelines.stages.data_filtering.filters.base import KEEP, Filter, MemoryFilter, Verdict
from pipelines.stages.data_filtering.filters.registry import copied

Rows = list[list[Piece]]
Arrays = dict[str, np.ndarray]

SAID = "said"
"""Array of a chunk with its verdicts, as JSON."""


class Chunk(Protocol):
    """Rows that are judged together."""

    @property
    def pieces(self) -> Rows:
        """The texts of each."""


AnyChunk = TypeVar("AnyChunk", bound=Chunk)


def judge(filters: Sequence[Filter], rows: Rows) -> Arrays:
    """What filters say of some rows that depends on no other row.

    Each row goes through the filters until one drops it. A filter with a memory gets its signature, of the texts as
    they are by then, and is taken to keep the row; `verdicts` asks it.

    Returns:
        `said`: uint8, JSON, row → filter → verdict, where it says anything; and for each filter with a memory its
        signatures, uint8 (rows, k), zeros where a row did not come to it.
    """
    said: dict[int, dict[int, Any]] = {}
    signatures: dict[str, list[np.ndarray | None]] = {
        one.name: [None] * len(rows) for one in filters if isinstance(one, MemoryFilter)
    }
    for row, pieces in enumerate(rows):
        for step, one in enumerate(filters):
            if isinstance(one, MemoryFilter):
                signatures[one.name][row] = one.signature(pieces)
                continue
            verdict = one.judge(pieces)
            if verdict != KEEP:
                said.setdefault(row, {})[step] = verdict.plain()
            if verdict.reason:
                break
            pieces = changed(pieces, verdict)
    arrays = {SAID: np.frombuffer(json.dumps(said).encode(), np.uint8)}
    for name, found in signatures.items():
        size = next((one.size for one in found if one is not None), 0)
        empty = np.zeros(size, np.uint8)
        arrays[name] = np.array([empty if one is None else one for one in found], np.uint8).reshape(len(rows), size)
    return arrays


def changed(pieces: Sequence[Piece], verdict: Verdict) -> list[Piece]:
    """The texts of a row after a verdict that keeps it."""
    return [
        Piece(piece.part, verdict.changes[index], piece.place) if index in verdict.changes else piece
        for index, piece in enumerate(pieces)
    ]


def verdicts(
    filters: Sequence[Filter], arrays: Arrays, said: Mapping[str, Any], row: int, origin: str
) -> Iterator[tuple[int, Verdict]]:
    """The verdicts on a row, one after the other, until one drops it: place of the filter, and what it says. Rows come
    in order, as filters with a memory remember them here.

    Args:
        arrays: what `judge` found of the chunk. said: of this row, by filter. row: in the chunk. origin: of the row.
    """
    for step, one in enumerate(filters):
        if isinstance(one, MemoryFilter):
            verdict = one.meet(arrays[one.name][row], origin)
        else:
            verdict = Verdict.of_plain(said[str(step)]) if str(step) in said else KEEP
        one.add(verdict)
        yield step, verdict
        if verdict.reason:
            return


class Judges:
    """What judges chunks: this process, or several others, which work ahead."""

    def __init__(self, filters: Sequence[Filter], pool: ProcessPoolExecutor | None, processes: int) -> None:
        self._filters, self._pool = filters, pool
        self._ahead = 2 * processes if pool is not None else 1

    def judged(self, chunks: Iterator[AnyChunk], keep: Keep) -> Iterator[tuple[AnyChunk, Arrays]]:
        """Every chunk, in order, with what `judge` finds of it or an earlier process found.

        Args:
            keep: keeps what was found, for when this is interrupted. So many chunks are read ahead as are judged.
        """
        waiting: collections.deque[AnyChunk] = collections.deque()
        futures: dict[int, Future[Arrays]] = {}
        is_new = False
        number = 0
        while True:
            while len(waiting) < self._ahead and (chunk := next(chunks, None)) is not None:
                waiting.append(chunk)
            if not waiting:
                return

            def compute(first: int = number) -> Arrays:
                nonlocal is_new
                is_new = True  # those before were kept, those behind are not
                self._submit(waiting, futures, first)
                return self._result(waiting[0], futures.pop(first, None))

            arrays = dict(keep(str(number), compute))
            yield waiting.popleft(), arrays
            number += 1
            if is_new:
                self._submit(waiting, futures, number)

    def _submit(self, waiting: Sequence[Chunk], futures: dict[int, Future[Arrays]], first: int) -> None:
        if self._pool is None:
            return
        for number, chunk in enumerate(waiting, first):
            if number not in futures:
                futures[number] = self._pool.submit(_judge_there, chunk.pieces)

    def _result(self, chunk: Chunk, future: Future[Arrays] | None) -> Arrays:
        if future is None:
            return judge(self._filters, chunk.pieces)
        try:
            return future.result()
        except BrokenProcessPool:
            raise InternalError(
                "a process that judged rows was ended from outside, perhaps for want of memory; try fewer `processes`"
            ) from None


@contextmanager
def judges(filters: Sequence[Filter], processes: int) -> Iterator[Judges]:
    """What judges, until the block ends; of one process it is this one."""
    if processes == 1:
        yield Judges(filters, None, 1)
        return
    options = [one.options.model_dump(mode="json") for one in filters]
    handed = (options, filters[0].use, [one.read for one in filters])
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, handed)
    try:
        yield Judges(filters, pool, processes)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_filters: Sequence[Filter] = ()


def _begin(options: Sequence[Any], use: Use, read: Sequence[Any]) -> None:
    """In a new process: Ctrl-C is for the one that started it, and none outlives it."""
    global _filters
    _filters = copied(options, use, read)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="parent watch").start()


def _judge_there(rows: Rows) -> Arrays:
    return judge(_filters, rows)
