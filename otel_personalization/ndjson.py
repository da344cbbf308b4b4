"""Files of JSON lines: gzipped where the content is, whatever the name; ``-`` is standard input.

Line by line, or in blocks of many where millions are read::

    for number, line in lines(Path("traces.ndjson.gz"), problems.append):
        trace = json.loads(line)
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

STDIN: Final = Path("-")
MAX_PROBLEMS: Final = 1000
"""Problems that a report tells one by one."""
MAX_LINE_BYTES: Final = 64 << 20
"""Of a line in a block; the largest recorded trace has 146 KB."""
BLOCK_BYTES: Final = 4 << 20


class Format(str, Enum):
    """What the lines of a file are."""

    trace = "trace"
    response = "response"


Progress = Callable[[Path, int], None]
"""Called now and then with a file and how many of its bytes have been read."""


@dataclass(frozen=True)
class Problem:
    """A line, or the rest of a file, that was not counted."""

    file: str
    line: int
    """The first line is 1."""
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def lines(
    file: Path, note: Callable[[Problem], None], progress: Progress | None = None
) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers. A damaged gzip ends where it is damaged.

    Args:
        file: what to read.
        note: is told of a damage.
        progress: see `Progress`.

    Raises:
        OSError: it cannot be opened or read.
    """
    with _opened(file) as (raw, content):
        number = 0
        while True:
            number += 1
            try:
                line = content.readline()
            except _DAMAGES as error:
                note(Problem(str(file), number, _damage(error)))
                return
            if not line:
                return
            if progress is not None and number % _LINES_A_STEP == 0:
                progress(file, raw.tell() if raw.seekable() else 0)
            if not line.isspace():
                yield number, line


def blocks(
    file: Path,
    note_damage: Callable[[str], None],
    note_line: Callable[[str], None],
    progress: Progress | None = None,
    *,
    block_bytes: int = BLOCK_BYTES,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Iterator[bytes]:
    """The same lines, blank ones among them, many at a time. Who reads them counts them.

    Args:
        file: what to read.
        note_damage: is told what is wrong with a damaged gzip, whose rest is not read.
        note_line: is told what is wrong with the next line, which is left out: it is too long.
        progress: see `Progress`.
        block_bytes: of a block, about.
        max_line_bytes: of a line, about. So no block has more than both together.

    Raises:
        OSError: it cannot be opened or read.
    """
    with _opened(file) as (raw, content):
        # Pieces are joined once: to append to bytes would copy a long line for each.
        whole: list[bytes | memoryview] = []  # lines
        unfinished: list[bytes | memoryview] = []  # the beginning of one
        whole_bytes = unfinished_bytes = 0
        is_in_long_line = False
        damage = None
        while True:
            try:
                piece = content.read1(_READ_BYTES[content is raw])
            except _DAMAGES as error:
                damage = error
                break
            if not piece:
                break
            if is_in_long_line:
                _, newline, piece = piece.partition(b"\n")
                if not newline:
                    continue
                is_in_long_line = False
            if end := piece.rfind(b"\n") + 1:
                whole += [*unfinished, memoryview(piece)[:end]]
                whole_bytes += unfinished_bytes + end
                unfinished, unfinished_bytes = [], 0
            unfinished.append(memoryview(piece)[end:])
            unfinished_bytes += len(piece) - end
            is_in_long_line = unfinished_bytes > max_line_bytes
            if whole and (is_in_long_line or whole_bytes + unfinished_bytes >= block_bytes):
                yield b"".join(whole)
                whole, whole_bytes = [], 0
                if progress is not None:
                    progress(file, raw.tell() if raw.seekable() else 0)
            if is_in_long_line:
                note_line(f"longer than {max_line_bytes:,} bytes; it was not read")
                unfinished, unfinished_bytes = [], 0
        # What is unfinished where a gzip is damaged is not a line.
        if rest := b"".join(whole if damage else [*whole, *unfinished]):
            yield rest
        if damage is not None:
            note_damage(_damage(damage))


_LINES_A_STEP: Final = 100
# Of a gzip, what one read gives is lost where the damage is within it; larger ones are no faster.
_READ_BYTES: Final = {True: 1 << 20, False: 8 << 10}
_DAMAGES: Final = (EOFError, zlib.error, gzip.BadGzipFile)


def _damage(error: Exception) -> str:
    return f"the gzip stream is damaged; nothing after was read: {error}"


@contextmanager
def _opened(file: Path) -> Iterator[tuple[io.BufferedReader, io.BufferedReader | gzip.GzipFile]]:
    """A file as it is, and its content, which is the same unless it is gzipped."""
    if file == STDIN:
        stdin: Any = io.BufferedReader(sys.stdin.buffer)
        yield stdin, _content(stdin)
        stdin.detach()  # it stays open
    else:
        with file.open("rb") as raw:
            yield raw, _content(raw)


def _content(raw: io.BufferedReader) -> io.BufferedReader | gzip.GzipFile:
    is_gzip = raw.peek(2)[:2] == b"\x1f\x8b"
    # Not buffered once more: a buffer would lose whole lines before the damage.
    return gzip.GzipFile(fileobj=raw) if is_gzip else raw
