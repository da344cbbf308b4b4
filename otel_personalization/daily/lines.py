"""Stored decision traces as lines of JSON, here from files, in constant memory.

A source gives batches, by which DuckDB reads, and knows where each line is from::

    lines = FileLines([Path("traces.ndjson.gz")])
    for batch in lines.batches():  # of SCHEMA
        print(lines.place_of(batch["ordinal"][0].as_py()))  # ('traces.ndjson.gz', 1)
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from otel_personalization import ndjson
from otel_personalization.errors import RemediedError
from otel_personalization.ndjson import MAX_PROBLEMS, Problem, Progress

SCHEMA: Final = pa.schema(
    [
        pa.field("line", pa.string(), nullable=False),  # its line end may be there
        pa.field("ordinal", pa.int64(), nullable=False),  # grows, and need not be dense
    ]
)
NO_JSON: Final = "no_json"
"""Kind of problem: a line that is no JSON, no UTF-8, or too long to be read."""
DAMAGED: Final = "damaged"
"""Kind of problem: the rest of a file whose gzip stream is damaged."""
OTHER_DAYS: Final = "other_days"
"""Traces of days that were not asked for; counted beside the problems, though it is none."""


class SourceError(RemediedError):
    """Traces could not be read from PostgreSQL. No text of it shows a password."""


def in_words(counts: Mapping[str, int]) -> str:
    """How many problems of each kind there are, such as ``1 no JSON, 2 undated``."""
    kinds = (f"{count:,} {_WORDS.get(kind, kind)}" for kind, count in sorted(counts.items()))
    return ", ".join(kinds).replace("_", " ")


_WORDS: Final = {
    NO_JSON: "no JSON",
    DAMAGED: "damaged rests of files",
    OTHER_DAYS: "of days that were not asked for",
}


class Problems:
    """What could not be read, and where. Threads may note at once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Of all, by kind."""
        self._told: list[tuple[int, Problem]] = []
        self._lock = Lock()

    @property
    def said(self) -> str:
        """How many there are of each kind, in words."""
        return in_words(self.counts)

    @property
    def first(self) -> list[Problem]:
        """The first `MAX_PROBLEMS` that were noted, in the order of the lines."""
        return [problem for _, problem in sorted(self._told, key=itemgetter(0))]

    def note(self, kind: str, ordinal: int, problem: Problem) -> None:
        """Take note of one."""
        with self._lock:
            self.counts[kind] += 1
            if len(self._told) < MAX_PROBLEMS:
                self._told.append((ordinal, problem))


class Lines(Protocol):
    """A source of lines. It is read by threads of DuckDB's, one at a time."""

    problems: Problems
    """Of what is in no batch; whoever reads the batches adds what it finds there."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The lines that are not blank, once; of `SCHEMA`.

        Raises:
            OSError: a file cannot be opened or read.
            SourceError: PostgreSQL does not give them.
        """

    def place_of(self, ordinal: int) -> tuple[str, int]:
        """The file and the number of a line that was in a batch, by its ordinal."""


class FileLines:
    """The lines of files, as `ndjson.blocks` reads them.

    Args:
        files: one trace a line; gzipped where the content is; ``-`` is standard input.
        progress: see `ndjson.Progress`; called by whichever thread reads.
    """

    def __init__(self, files: Sequence[Path], progress: Progress | None = None) -> None:
        self.problems = Problems()
        self._files = files
        self._progress = progress
        self._begins: list[int] = []
        """Of each file that was opened, the ordinal of its first line."""
        self._next = 0
        """The ordinal of the line that is to be read."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Lines`."""
        for file in self._files:
            self._begins.append(self._next)
            for block in ndjson.blocks(
                file, self._note_damage, self._note_long_line, self._progress
            ):
                batch, count = batch_of(block, self._next, self._note_encoding)
                self._next += count
                yield batch

    def place_of(self, ordinal: int) -> tuple[str, int]:
        """See `Lines`."""
        index = bisect_right(self._begins, ordinal) - 1
        return str(self._files[index]), ordinal - self._begins[index] + 1

    def _note_damage(self, what: str) -> None:
        self._note(DAMAGED, self._next, what)

    def _note_long_line(self, what: str) -> None:
        self._note(NO_JSON, self._next, what)
        self._next += 1

    def _note_encoding(self, ordinal: int, error: UnicodeDecodeError) -> None:
        self._note(NO_JSON, ordinal, f"no JSON: {error}")

    def _note(self, kind: str, ordinal: int, what: str) -> None:
        self.problems.note(kind, ordinal, Problem(*self.place_of(ordinal), what))


def batch_of(
    block: bytes, first: int, note_encoding: Callable[[int, UnicodeDecodeError], None]
) -> tuple[pa.RecordBatch, int]:
    """The lines of a block that are not blank, and how many it has in all.

    Args:
        block: whole lines; the last may lack its end.
        first: ordinal of its first line.
        note_encoding: is told of a line that is no UTF-8, by its ordinal.
    """
    bounds = [0]
    while end := block.find(b"\n", bounds[-1]) + 1:
        bounds.append(end)
    if bounds[-1] < len(block):
        bounds.append(len(block))
    count = len(bounds) - 1
    offsets = np.array(bounds, np.int32)
    ordinals = np.arange(first, first + count)
    # As a rule they need not be looked at one by one: the block is the batch's memory.
    heads = np.frombuffer(block, np.uint8)[offsets[:-1]]
    lines = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(block))
    if np.isin(heads, _ODD_HEADS).any() or not _is_text(lines):
        texts = []
        kept = []
        for ordinal, line in enumerate(block.split(b"\n")[:count], first):
            if line.isspace() or not line:
                continue
            try:
                texts.append(line.decode("utf-8-sig"))
                kept.append(ordinal)
            except UnicodeDecodeError as error:
                note_encoding(ordinal, error)
        lines = pa.array(texts, pa.string())
        ordinals = np.array(kept, np.int64)
    return pa.record_batch([lines, pa.array(ordinals, pa.int64())], schema=SCHEMA), count


# A line that begins so may be blank, or have a byte order mark before it.
_ODD_HEADS: Final = np.frombuffer(b" \t\n\v\f\r\xef", np.uint8)


def _is_text(lines: pa.StringArray) -> bool:
    try:
        lines.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
