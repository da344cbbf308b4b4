"""What DuckDB and PostgreSQL have in common, which is most of their SQL."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import Any, ClassVar

import pyarrow as pa

from otel_personalization.daily.tables import (
    TABLES,
    Column,
    Kind,
    Table,
    arrow_schema,
)
from otel_personalization.daily.warehouse.contract import Warehouse, WarehouseError


@dataclass(frozen=True)
class Found:
    """A table as the database has it."""

    is_table: bool
    """Else it is a view, or something else of that name."""
    comment: str | None
    columns: Mapping[str, tuple[str, str | None]]
    """Type and comment, by name."""


class Database(Warehouse):
    """What DuckDB and PostgreSQL have in common, which is most of their SQL.

    Args:
        place: what and where it is, as it can be shown.
    """

    _types: ClassVar[Mapping[Kind, str]]
    """As the engine itself names them."""
    _parameter: ClassVar[str]
    """The mark of one."""
    _schemas: ClassVar[str]
    """Gives the names of the schemas that there are."""

    def __init__(self, place: str) -> None:
        self._place = place

    def prepare(self) -> None:
        """See `Warehouse`."""
        with self._telling():
            if any(True for _ in self._missing()):
                with self._transaction():  # in which another run may have been first
                    for statement in self._missing():
                        self._run(statement)

    def _replace(self, day: date, org_id: str, rows: Mapping[Table, pa.Table]) -> None:
        parameter = self._parameter
        with self._transaction():
            for table, new in rows.items():
                self._run(
                    f"DELETE FROM {name_of(table)} WHERE day = {parameter} "
                    f"AND org_id = {parameter}",
                    (day, org_id),
                )
                self._insert(table, new)

    def _read(self, table: Table, org_id: str, first_day: date, last_day: date) -> pa.Table:
        parameter = self._parameter
        rows = self._run(
            f"SELECT {names(table.columns)} FROM {name_of(table)} WHERE org_id = {parameter} "
            f"AND day BETWEEN {parameter} AND {parameter}",
            (org_id, first_day, last_day),
        )
        schema = arrow_schema(table)
        columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
        return pa.Table.from_arrays(
            [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)],
            schema=schema,
        )

    def _missing(self) -> Iterator[str]:
        """The statements that make what is missing.

        Raises:
            WarehouseError: a table is another one.
        """
        schemas = {name for (name,) in self._run(self._schemas)}
        for name in sorted({table.schema for table in TABLES} - schemas):
            yield f'CREATE SCHEMA IF NOT EXISTS "{name}"'
        for table in TABLES:
            found = self._find(table)
            if found is None:
                yield (
                    f"CREATE TABLE {name_of(table)} ("
                    + ", ".join(f'"{one.name}" {self._types[one.kind]}' for one in table.columns)
                    + f", PRIMARY KEY ({names(table.key)}))"
                )
                found = Found(is_table=True, comment=None, columns={})
            else:
                yield from self._missing_columns(table, found)
            # Comments last, and only those that differ: who may not own the table needs none.
            if found.comment != table.meaning:
                yield f"COMMENT ON TABLE {name_of(table)} IS {_literal(table.meaning)}"
            for column in table.columns:
                if found.columns.get(column.name, ("", None))[1] != column.meaning:
                    yield (
                        f'COMMENT ON COLUMN {name_of(table)}."{column.name}" '
                        f"IS {_literal(column.meaning)}"
                    )

    def _missing_columns(self, table: Table, found: Found) -> Iterator[str]:
        where = f"{table.qualified_name} of {self._place}"
        if not found.is_table:
            raise WarehouseError(f"{where} is no table; rename it, and the job makes its own")
        for column in table.columns:
            wanted = self._types[column.kind]
            if column.name not in found.columns:
                if column.is_key:
                    raise WarehouseError(
                        f"{where} has no column {column.name}, which tells its rows apart, so it "
                        "is another table; rename it, and the job makes its own"
                    )
                yield f'ALTER TABLE {name_of(table)} ADD COLUMN "{column.name}" {wanted}'
            elif (is_of := found.columns[column.name][0]) != wanted:
                raise WarehouseError(
                    f"column {column.name} of {where} is {is_of}, not {wanted}; convert it "
                    f"(ALTER TABLE {table.qualified_name} ALTER COLUMN {column.name} TYPE "
                    f"{wanted}), or rename the table, and the job makes its own"
                )

    @abstractmethod
    def _find(self, table: Table) -> Found | None: ...

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def _run(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""

    @abstractmethod
    def _insert(self, table: Table, rows: pa.Table) -> None: ...


def name_of(table: Table) -> str:
    """A table's name in a statement."""
    return f'"{table.schema}"."{table.name}"'


def names(columns: Iterable[Column]) -> str:
    """Names of columns in a statement."""
    return ", ".join(f'"{column.name}"' for column in columns)


def _literal(text: str) -> str:
    """A text of `tables.py`; a comment cannot be a parameter."""
    return "'" + text.replace("'", "''") + "'"
