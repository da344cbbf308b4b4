"""Stored decision traces as lines of JSON, from PostgreSQL.

::

    lines = PostgresLines("postgresql://USER@HOST/DATABASE", date(2026, 11, 21))
    for batch in lines.batches():
        print(lines.place_of(batch["ordinal"][0].as_py()))  # ('rec_decisions', 1)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Final

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from otel_personalization.daily.lines import NO_JSON, Problems, SourceError, batch_of
from otel_personalization.daily.postgres import PostgresUrl, UnreadableUrlError
from otel_personalization.daily.tables import UNKNOWN
from otel_personalization.ndjson import Problem

TABLE: Final = "rec_decisions"
"""Of the service, found on the search path."""
JSON_COLUMNS: Final = ("effective_config", "bandit", "final_items", "mmr_info", "caps", "extras")
COLUMNS: Final = ("decision_id", "org_id", "namespace", "surface", "user_hash", *JSON_COLUMNS)
"""What is read of it, beside ts: all that a snapshot holds comes from these."""
ROWS_AT_FIRST: Final = 50
MOST_ROWS: Final = 2000
FETCH_BYTES: Final = 4 << 20
"""Of one fetch, about: it has as many rows as had so many bytes the last time."""

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
    """

    def __init__(self, url: str, day: date, org_id: str | None = None) -> None:
        self.problems = Problems()
        self.day = day
        self._url = url
        self._org_id = org_id

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Lines`."""
        with _connected(self._url) as connection, connection.cursor(name="decisions") as cursor:
            cursor.adapters.register_loader("text", _BytesLoader)
            cursor.execute(*self._query())
            count, limit = 0, ROWS_AT_FIRST
            while rows := cursor.fetchmany(limit):
                block = b"\n".join(line for (line,) in rows)
                batch, read = batch_of(block, count, self._note_encoding)
                limit = max(1, min(MOST_ROWS, FETCH_BYTES * read // len(block)))
                count += read
                del rows, block
                yield batch

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
