"""A warehouse in a PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, ClassVar, Final

import psycopg
import pyarrow as pa
from psycopg import errors

from otel_personalization.daily.postgres import PostgresUrl, UnreadableUrlError
from otel_personalization.daily.tables import Kind, Table
from otel_personalization.daily.warehouse.contract import Warehouse, WarehouseError
from otel_personalization.daily.warehouse.database import Database, Found, name_of, names

LOCK_SECONDS: Final = 600
"""How long a run waits for another one on the same PostgreSQL, which takes seconds."""


@contextmanager
def open_server(url: str) -> Iterator[Warehouse]:
    """The warehouse as it is; see `open_warehouse`."""
    try:
        server = PostgresUrl(url)
    except UnreadableUrlError as error:
        raise WarehouseError(str(error)) from None
    try:
        connection = server.connect(
            "otel-personalization daily",
            autocommit=True,
            prepare_threshold=None,  # for poolers that give each transaction another connection
        )
    except psycopg.Error as error:
        raise WarehouseError(
            f"{server.place} cannot be reached: {server.shown(error)}; see that it runs, that "
            "host, port and database are right, and so are name and password"
        ) from None
    with closing(connection):
        # In a stricter one a run that waited for another would not see what that has done.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        yield _PostgreSQL(connection, server)


class _PostgreSQL(Database):
    _types: ClassVar = {
        Kind.DATE: "date",
        Kind.TEXT: "text",
        Kind.INTEGER: "bigint",
        Kind.NUMBER: "double precision",
        Kind.BOOLEAN: "boolean",
    }
    _copied: ClassVar = {
        Kind.DATE: "date",
        Kind.TEXT: "text",
        Kind.INTEGER: "int8",
        Kind.NUMBER: "float8",
        Kind.BOOLEAN: "bool",
    }
    """The same, as psycopg names them."""
    _parameter = "%s"
    _schemas = "SELECT nspname FROM pg_namespace"
    _lock = 0x6F74656C5F646179
    """Of the job, among all advisory locks of the database: "otel_day"."""

    def __init__(self, connection: psycopg.Connection[Any], server: PostgresUrl) -> None:
        super().__init__(server.place)
        self._connection = connection
        self._server = server

    def _find(self, table: Table) -> Found | None:
        tables = self._run(
            "SELECT c.oid, c.relkind IN ('r', 'p'), obj_description(c.oid, 'pg_class') "
            "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relname = %s",
            (table.schema, table.name),
        )
        if not tables:
            return None
        ((oid, is_table, comment),) = tables
        columns = self._run(
            "SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) "
            "FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
            (oid,),
        )
        return Found(is_table, comment, {name: (kind, said) for name, kind, said in columns})

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            # One run at a time, whatever it replaces: they cannot wait for each other in a circle,
            # nor make the same schema at once.
            self._run(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            self._run("SELECT pg_advisory_xact_lock(%s)", (self._lock,))
            yield

    def _run(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        # Without parameters a % is just that.
        cursor = self._connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def _insert(self, table: Table, rows: pa.Table) -> None:
        statement = f"COPY {name_of(table)} ({names(table.columns)}) FROM STDIN (FORMAT BINARY)"
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([self._copied[column.kind] for column in table.columns])
            for batch in rows.to_batches(max_chunksize=10_000):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    copy.write_row(row)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            remedy = "see the server's log and its disk"
            for kind, other in _REMEDIES.items():
                if isinstance(error, kind):
                    remedy = other
            raise WarehouseError(
                f"{self._place} refused: {self._server.shown(error)}; nothing was changed: {remedy}"
            ) from None


_REMEDIES: Final[Mapping[type[psycopg.Error], str]] = {
    errors.InsufficientPrivilege: (
        "grant the role CREATE on the database, or have its owner run the job once, then grant "
        "USAGE on the schemas and SELECT, INSERT and DELETE on the tables"
    ),
    errors.LockNotAvailable: (
        "another run, or a session that has left a transaction open, is in the way; "
        "pg_stat_activity and pg_locks show which"
    ),
}
