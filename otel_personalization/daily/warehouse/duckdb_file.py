"""A warehouse in a file of DuckDB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa

from otel_personalization.daily.tables import TABLES, Kind, Table
from otel_personalization.daily.warehouse.contract import Warehouse, WarehouseError, one_line
from otel_personalization.daily.warehouse.database import Database, Found, name_of, names


def check_name(file: Path) -> None:
    """Whether a file of DuckDB may be called so.

    Raises:
        WarehouseError: it may not.
    """
    # DuckDB calls the catalogue after the file, up to the first dot. One that is called as a schema
    # makes `analytics.personalization_daily` ambiguous for everybody who asks.
    schemas = {table.schema for table in TABLES}
    if file.name.partition(".")[0].lower() in schemas:
        raise WarehouseError(
            f"the DuckDB file {file} may not be called as a schema in it ({', '.join(schemas)}); "
            "give it another name, such as personalization.duckdb"
        )


@contextmanager
def open_file(file: Path) -> Iterator[Warehouse]:
    """The warehouse as it is; see `open_warehouse`."""
    try:
        connection = duckdb.connect(str(file))
    except duckdb.Error as error:
        said = one_line(error)
        if "lock" in said:
            holder = re.search(r"PID \d+", said)
            raise WarehouseError(
                f"the DuckDB file {file} is open in another process"
                + (f" ({holder[0]})" if holder else "")
                + "; close it there, or wait for it to end. Where several are to use it at a time, "
                "take PostgreSQL"
            ) from None
        raise WarehouseError(
            f"the DuckDB file {file} cannot be opened: {said}; see that its folder is there and "
            "writable, and that the file is one of DuckDB"
        ) from None
    with closing(connection):
        yield _DuckDB(connection, f"the DuckDB file {file}")


class _DuckDB(Database):
    _types: ClassVar = {
        Kind.DATE: "DATE",
        Kind.TEXT: "VARCHAR",
        Kind.INTEGER: "BIGINT",
        Kind.NUMBER: "DOUBLE",
        Kind.BOOLEAN: "BOOLEAN",
    }
    _parameter = "?"
    _schemas = (
        "SELECT schema_name FROM information_schema.schemata "
        "WHERE catalog_name = current_database()"
    )

    def __init__(self, connection: duckdb.DuckDBPyConnection, place: str) -> None:
        super().__init__(place)
        self._connection = connection

    def _find(self, table: Table) -> Found | None:
        name = (table.schema, table.name)
        here = "database_name = current_database() AND schema_name = ?"
        comments = self._run(
            f"SELECT comment FROM duckdb_tables() WHERE {here} AND table_name = ?", name
        )
        columns = self._run(
            "SELECT column_name, data_type, comment FROM duckdb_columns() "
            f"WHERE {here} AND table_name = ?",
            name,
        )
        if not columns:
            return None
        return Found(
            is_table=bool(comments),
            comment=comments[0][0] if comments else None,
            columns={column: (kind, comment) for column, kind, comment in columns},
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.begin()
        try:
            yield
            self._connection.commit()
        except BaseException:
            with suppress(duckdb.Error):  # after some errors there is no transaction any more
                self._connection.rollback()
            raise

    def _run(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, parameters).fetchall()

    def _insert(self, table: Table, rows: pa.Table) -> None:
        columns = names(table.columns)
        self._connection.register("new_rows", rows)
        self._run(f"INSERT INTO {name_of(table)} ({columns}) SELECT {columns} FROM new_rows")
        self._connection.unregister("new_rows")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise WarehouseError(
                f"{self._place} refused: {one_line(error)}; nothing was changed. See that its "
                "disk has room and that the file may be written"
            ) from None
