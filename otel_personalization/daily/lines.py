"""Stored decision traces as lines of JSON, from files or from PostgreSQL, in constant memory.

A source gives batches, by which DuckDB reads, and knows where each line is from::

    lines = FileLines([Path("traces.ndjson.gz")])
    for batch in lines.batches():  # of SCHEMA
        print(lines.place_of(batch["ordinal"][0].as_py()))  # ('traces.ndjson.gz', 1)
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from otel_personalization import ndjson
from otel_personalization.daily.postgres import PostgresUrl, UnreadableUrlError
from otel_personalization.daily.tables import UNKNOWN
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

TABLE: Final = "rec_decisions"
"""Of the service, found on the search path."""
JSON_COLUMNS: Final = ("effective_config", "bandit", "final_items", "mmr_info", "caps", "extras")
COLUMNS: Final = ("decision_id", "org_id", "namespace", "surface", "user_hash", *JSON_COLUMNS)
"""What is read of it, beside ts: all that a snapshot holds comes from these."""
ROWS_AT_FIRST: Final = 50
MOST_ROWS: Final = 2000
FETCH_BYTES: Final = 4 << 20
"""Of one fetch, about: it has as many rows as had so many bytes the last time."""


class SourceError(RemediedError):
    """Traces could not be read from PostgreSQL. No text of it shows a password."""


def in_words(counts: Mapping[str, int]) -> str:
    """How many problems of each kind there are, such as ``1 no JSON, 2 undated``."""
    kinds = (f"{count:,} {_WORDS.get(kind, kind)}" for kind, count in sorted(counts.items()))
    return ", ".join(kinds).replace("_", " ")


_WORDS: Final = {NO_JSON: "no JSON", DAMAGED: "damaged rests of files"}


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
                batch, count = _batch(block, self._next, self._note_encoding)
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


def _batch(
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


# --- PostgreSQL -------------------------------------------------------------------------------

# Made for the indexes that the service has, (namespace, ts) and (org_id, namespace, ts): a range of
# ts alone would read the whole table, and candidates_pre, which is most of a trace, is never read.
# The namespaces are found by stepping through an index, a look-up each.
_STATEMENT: Final = """
WITH RECURSIVE namespaces AS (
    (SELECT namespace FROM {table} WHERE {org} ORDER BY namespace LIMIT 1)
    UNION ALL
    SELECT (
        SELECT next.namespace FROM {table} AS next
        WHERE next.namespace > namespaces.namespace AND {org}
        ORDER BY next.namespace LIMIT 1
    )
    FROM namespaces WHERE namespaces.namespace IS NOT NULL
)
SELECT jsonb_build_object({fields})::text
FROM namespaces CROSS JOIN LATERAL (
    SELECT * FROM {table} AS of_namespace
    WHERE of_namespace.namespace = namespaces.namespace
        AND ts >= {begin} AND ts < {end} AND {org}
) AS decisions
UNION ALL
SELECT jsonb_build_object({fields})::text
FROM {table} AS decisions
WHERE namespace IS NULL AND ts >= {begin} AND ts < {end} AND {org}
"""
# RFC 3339, to the microsecond that a timestamptz holds.
_TS: Final = """'ts', to_char(
    decisions.ts AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
)"""


class PostgresLines:
    """The decisions of one UTC day, from the service's table ``rec_decisions``.

    They are read in one read-only transaction, so what is written meanwhile is not seen.

    Args:
        url: ``postgresql://USER@HOST/DATABASE``, or what else libpq takes; a password may be in it,
            in PGPASSWORD or in a password file.
        day: UTC date of their ``ts``.
        org_id: of which organisation; ``unknown`` is those without one, None all.
        progress: called now and then with how many rows have been read.
    """

    def __init__(
        self,
        url: str,
        day: date,
        org_id: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.problems = Problems()
        self.day = day
        self._url = url
        self._org_id = org_id
        self._progress = progress

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Lines`."""
        with _connected(self._url) as connection, connection.cursor(name="decisions") as cursor:
            cursor.adapters.register_loader("text", _BytesLoader)
            cursor.execute(*self._query())
            count, limit = 0, ROWS_AT_FIRST
            while rows := cursor.fetchmany(limit):
                block = b"\n".join(line for (line,) in rows)
                batch, read = _batch(block, count, self._note_encoding)
                limit = max(1, min(MOST_ROWS, FETCH_BYTES * read // len(block)))
                count += read
                del rows, block
                yield batch
                if self._progress is not None:
                    self._progress(count)

    def place_of(self, ordinal: int) -> tuple[str, int]:
        """See `Lines`; the table, and which of the rows that were read."""
        return TABLE, ordinal + 1

    def _query(self) -> tuple[sql.Composed, dict[str, Any]]:
        begin = datetime.combine(self.day, time(), timezone.utc)
        if self._org_id is None:
            org = sql.SQL("true")
        elif self._org_id == UNKNOWN:
            org = sql.SQL("org_id IS NULL")
        else:
            org = sql.SQL("org_id = %(org)s")
        fields = [
            sql.SQL("{}, {}").format(sql.Literal(name), sql.Identifier("decisions", name))
            for name in COLUMNS
        ]
        statement = sql.SQL(_STATEMENT).format(
            table=sql.Identifier(TABLE),
            org=org,
            fields=sql.SQL(", ").join([sql.SQL(_TS), *fields]),
            begin=sql.Placeholder("begin"),
            end=sql.Placeholder("end"),
        )
        return statement, {"begin": begin, "end": begin + timedelta(days=1), "org": self._org_id}

    def _note_encoding(self, ordinal: int, error: UnicodeDecodeError) -> None:
        problem = Problem(*self.place_of(ordinal), f"no JSON: {error}")
        self.problems.note(NO_JSON, ordinal, problem)


class _BytesLoader(Loader):
    """Text as the bytes that it came in."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    """A read-only transaction; whatever goes wrong in it is a `SourceError`."""
    try:
        server = PostgresUrl(url)
    except UnreadableUrlError as error:
        raise SourceError(error.what, error.remedy) from None
    try:
        with server.connect("otel-personalization snapshot", client_encoding="utf8") as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            yield connection
    except psycopg.Error as error:
        raise SourceError(f"{server.place}: {server.shown(error)}", _remedy(error)) from None


def _remedy(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.UndefinedTable):
        return f"is it the service's database, and {TABLE} on the search path?"
    if isinstance(error, psycopg.errors.UndefinedColumn):
        return f"{TABLE} is read by its columns ts, {', '.join(COLUMNS)}"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"GRANT SELECT ON {TABLE} to this user"
    if isinstance(error, psycopg.DataError):
        return "is the organisation's id one that the table can hold?"
    return "is the address right, the server up, and the user allowed in? Then run it again"
