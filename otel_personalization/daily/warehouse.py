"""Where the nightly job keeps its tables: a DuckDB file, PostgreSQL, or a folder of Parquet.

A day of an organisation is replaced as a whole or not at all, and a second run changes nothing::

    with open_warehouse("personalization.duckdb") as warehouse:
        warehouse.replace(day_tables)
        week = warehouse.read(PERSONALIZATION_DAILY, "acme", date(2026, 11, 17), date(2026, 11, 23))

Opening one makes what is missing of its schemas, tables and columns, and writes their meanings into
the database's own comments. It changes nothing where all is there, so that a role without the right
to make tables is enough from then on. Names come from `tables.py` only, values are parameters only.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg import errors as postgres_errors

from otel_personalization.daily.files import locked, sync
from otel_personalization.daily.postgres import PostgresUrl, UnreadableUrlError
from otel_personalization.daily.tables import (
    PERSONALIZATION_DAILY,
    TABLES,
    Column,
    DayTables,
    Kind,
    Table,
    arrow_schema,
)

LOCK_SECONDS: Final = 600
"""How long a run waits for another one on the same PostgreSQL, which takes seconds."""


class WarehouseError(Exception):
    """The warehouse cannot be used: what is wrong, where, and what to do. Shows no password."""


class Warehouse(ABC):
    """The tables of the nightly job."""

    def replace(self, day_tables: DayTables) -> None:
        """Put the rows of a day of an organisation in place of those that are there.

        Args:
            day_tables: its rows; of all tables.

        Raises:
            WarehouseError: the rows are not of that day, or not told apart by their keys, or they
                could not be stored. What was there is there still.
        """
        rows = {table: _checked(table, day_tables) for table in TABLES}
        with self._telling():
            self._replace(day_tables.day, day_tables.org_id, rows)

    def read(self, table: Table, org_id: str, first_day: date, last_day: date) -> pa.Table:
        """The rows of an organisation.

        Args:
            table: one of `TABLES`.
            org_id: the organisation.
            first_day: UTC date.
            last_day: UTC date, included.

        Returns:
            Rows of `arrow_schema`, in the order of their keys; none where there are none. Columns
            that a file lacks are null.

        Raises:
            WarehouseError: they could not be read.
        """
        with self._telling():
            rows = self._read(table, org_id, first_day, last_day)
        # By code points, whatever the collation of a database is.
        return rows.sort_by([(column.name, "ascending") for column in table.key])

    @abstractmethod
    def last_day(self, org_id: str) -> date | None:
        """The newest day that an organisation has rows of; None if it has none.

        Raises:
            WarehouseError: it could not be read.
        """

    @abstractmethod
    def _replace(self, day: date, org_id: str, rows: Mapping[Table, pa.Table]) -> None: ...

    @abstractmethod
    def _read(self, table: Table, org_id: str, first_day: date, last_day: date) -> pa.Table: ...

    @abstractmethod
    def _telling(self) -> AbstractContextManager[None]:
        """Turns what the engine raises into a `WarehouseError`."""


@contextmanager
def open_warehouse(target: str) -> Iterator[Warehouse]:
    """Open a warehouse, and make what it lacks.

    Args:
        target: ``FILE.duckdb``, ``postgresql://NAME:PASSWORD@HOST:PORT/DATABASE``, or a folder for
            Parquet, which exists or ends with ``/``.

    Raises:
        WarehouseError: it is none of these, cannot be opened, or holds a table that is another.
    """
    if re.match(r"postgres(ql)?://", target):
        opened = _open_postgres(target)
    elif scheme := re.match(r"\w[\w+.-]*:", target):  # the rest may hold a password
        raise WarehouseError(f"{scheme[0]}... is no warehouse; {_TARGETS}")
    elif target.endswith("/") or (target and Path(target).is_dir()):
        opened = _open_folder(Path(target))
    elif target.endswith(".duckdb"):
        opened = _open_duckdb(Path(target))
    else:
        named = target if re.fullmatch(r"[\w./ -]+", target) else "that"  # could be a password
        raise WarehouseError(f"{named} is no warehouse; {_TARGETS}")
    with opened as warehouse:
        yield warehouse


_TARGETS: Final = (
    "give FILE.duckdb, postgresql://NAME:PASSWORD@HOST:PORT/DATABASE, or a folder for Parquet "
    "with a / at its end"
)


def _checked(table: Table, day_tables: DayTables) -> pa.Table:
    """The rows of a table, with its columns in their order."""
    name, day, org_id = table.qualified_name, day_tables.day, day_tables.org_id
    if name not in day_tables.rows:
        raise WarehouseError(f"no rows of {name} were given for {day}; nothing was replaced")
    try:
        rows = day_tables.rows[name].select(list(table.column_names)).cast(arrow_schema(table))
    except (KeyError, ValueError) as error:  # Arrow's own errors are of these
        raise WarehouseError(
            f"the rows of {name} for {day} are not as tables.py has them: {_one_line(error)}; "
            "nothing was replaced"
        ) from None
    keys = [column.name for column in table.key]
    for problem, is_so in (
        ("have a key that is null", any(rows[key].null_count for key in keys)),
        ("are of another day", not _are_all(rows["day"], day)),
        ("are of another organisation", not _are_all(rows["org_id"], org_id)),
        (
            f"have the same {', '.join(keys)}",
            rows.group_by(keys).aggregate([]).num_rows != rows.num_rows,
        ),
    ):
        if is_so:
            raise WarehouseError(f"rows of {name} for {day} {problem}; nothing was replaced")
    return rows


def _are_all(values: pa.ChunkedArray, value: date | str) -> bool:
    return pc.all(pc.equal(values, pa.scalar(value, values.type)), min_count=0).as_py() is True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


# --- databases --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A table as the database has it."""

    is_table: bool
    """Else it is a view, or something else of that name."""
    comment: str | None
    columns: Mapping[str, tuple[str, str | None]]
    """Type and comment, by name."""


class _Database(Warehouse):
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

    def migrate(self) -> None:
        """Make what is missing; see `open_warehouse`."""
        with self._telling():
            if any(True for _ in self._missing()):
                with self._transaction():  # in which another run may have been first
                    for statement in self._missing():
                        self._run(statement)

    def last_day(self, org_id: str) -> date | None:
        table = PERSONALIZATION_DAILY
        with self._telling():
            ((newest,),) = self._run(
                f"SELECT max(day) FROM {_name_of(table)} WHERE org_id = {self._parameter}",
                (org_id,),
            )
        return newest if isinstance(newest, date) else None

    def _replace(self, day: date, org_id: str, rows: Mapping[Table, pa.Table]) -> None:
        parameter = self._parameter
        with self._transaction():
            for table, new in rows.items():
                self._run(
                    f"DELETE FROM {_name_of(table)} WHERE day = {parameter} "
                    f"AND org_id = {parameter}",
                    (day, org_id),
                )
                self._insert(table, new)

    def _read(self, table: Table, org_id: str, first_day: date, last_day: date) -> pa.Table:
        parameter = self._parameter
        rows = self._run(
            f"SELECT {_names(table.columns)} FROM {_name_of(table)} WHERE org_id = {parameter} "
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
                    f"CREATE TABLE {_name_of(table)} ("
                    + ", ".join(f'"{one.name}" {self._types[one.kind]}' for one in table.columns)
                    + f", PRIMARY KEY ({_names(table.key)}))"
                )
                found = _Found(is_table=True, comment=None, columns={})
            else:
                yield from self._missing_columns(table, found)
            # Comments last, and only those that differ: who may not own the table needs none.
            if found.comment != table.meaning:
                yield f"COMMENT ON TABLE {_name_of(table)} IS {_literal(table.meaning)}"
            for column in table.columns:
                if found.columns.get(column.name, ("", None))[1] != column.meaning:
                    yield (
                        f'COMMENT ON COLUMN {_name_of(table)}."{column.name}" '
                        f"IS {_literal(column.meaning)}"
                    )

    def _missing_columns(self, table: Table, found: _Found) -> Iterator[str]:
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
                yield f'ALTER TABLE {_name_of(table)} ADD COLUMN "{column.name}" {wanted}'
            elif (is_of := found.columns[column.name][0]) != wanted:
                raise WarehouseError(
                    f"column {column.name} of {where} is {is_of}, not {wanted}; convert it "
                    f"(ALTER TABLE {table.qualified_name} ALTER COLUMN {column.name} TYPE "
                    f"{wanted}), or rename the table, and the job makes its own"
                )

    @abstractmethod
    def _find(self, table: Table) -> _Found | None: ...

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def _run(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""

    @abstractmethod
    def _insert(self, table: Table, rows: pa.Table) -> None: ...


def _name_of(table: Table) -> str:
    return f'"{table.schema}"."{table.name}"'


def _names(columns: Iterable[Column]) -> str:
    return ", ".join(f'"{column.name}"' for column in columns)


def _literal(text: str) -> str:
    """A text of `tables.py`; a comment cannot be a parameter."""
    return "'" + text.replace("'", "''") + "'"


# --- DuckDB -----------------------------------------------------------------------------------


@contextmanager
def _open_duckdb(file: Path) -> Iterator[Warehouse]:
    # DuckDB calls the catalogue after the file, up to the first dot. One that is called as a schema
    # makes `analytics.personalization_daily` ambiguous for everybody who asks.
    schemas = {table.schema for table in TABLES}
    if file.name.partition(".")[0].lower() in schemas:
        raise WarehouseError(
            f"the DuckDB file {file} may not be called as a schema in it ({', '.join(schemas)}); "
            "give it another name, such as personalization.duckdb"
        )
    try:
        connection = duckdb.connect(str(file))
    except duckdb.Error as error:
        said = _one_line(error)
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
        warehouse = _DuckDB(connection, f"the DuckDB file {file}")
        warehouse.migrate()
        yield warehouse


class _DuckDB(_Database):
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

    def _find(self, table: Table) -> _Found | None:
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
        return _Found(
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
        columns = _names(table.columns)
        self._connection.register("new_rows", rows)
        self._run(f"INSERT INTO {_name_of(table)} ({columns}) SELECT {columns} FROM new_rows")
        self._connection.unregister("new_rows")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise WarehouseError(
                f"{self._place} refused: {_one_line(error)}; nothing was changed. See that its "
                "disk has room and that the file may be written"
            ) from None


# --- PostgreSQL -------------------------------------------------------------------------------


@contextmanager
def _open_postgres(url: str) -> Iterator[Warehouse]:
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
        warehouse = _Postgres(connection, server)
        warehouse.migrate()
        yield warehouse


class _Postgres(_Database):
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

    def _find(self, table: Table) -> _Found | None:
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
        return _Found(is_table, comment, {name: (kind, said) for name, kind, said in columns})

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
        statement = f"COPY {_name_of(table)} ({_names(table.columns)}) FROM STDIN (FORMAT BINARY)"
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([self._copied[column.kind] for column in table.columns])
            for batch in rows.to_batches(max_chunksize=10_000):
                for row in zip(*(_values(column) for column in batch.columns), strict=True):
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
    postgres_errors.InsufficientPrivilege: (
        "grant the role CREATE on the database, or have its owner run the job once, then grant "
        "USAGE on the schemas and SELECT, INSERT and DELETE on the tables"
    ),
    postgres_errors.LockNotAvailable: (
        "another run, or a session that has left a transaction open, is in the way; "
        "pg_stat_activity and pg_locks show which"
    ),
}


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_string(column.type):
        # The one character that PostgreSQL has no place for; a name with it must not cost a day.
        column = pc.replace_substring(column, "\0", "\ufffd")
    return list(column.to_pylist())


# --- Parquet ----------------------------------------------------------------------------------


@contextmanager
def _open_folder(folder: Path) -> Iterator[Warehouse]:
    warehouse = _Folder(folder)
    with warehouse._telling():  # noqa: SLF001  # of the class below
        folder.mkdir(parents=True, exist_ok=True)
    yield warehouse


class _Folder(Warehouse):
    """``SCHEMA/TABLE/day=YYYY-MM-DD/org-ORG.parquet``, each file whole at any time.

    The files of a day come into place one after the other, once all of them are on the disk: a run
    that is killed in that instant leaves a table of its own beside one of the run before. The next
    run mends it; a database has no such instant.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def last_day(self, org_id: str) -> date | None:
        with self._telling():
            return max(
                (
                    day
                    for day, file in self._files(PERSONALIZATION_DAILY, org_id)
                    if pq.read_metadata(file).num_rows
                ),
                default=None,
            )

    def _replace(self, day: date, org_id: str, rows: Mapping[Table, pa.Table]) -> None:
        with locked(self._folder / ".lock"):  # one run at a time
            written = []
            for table, new in rows.items():
                file = self._file(table, day, org_id)
                file.parent.mkdir(parents=True, exist_ok=True)
                # What a killed run left is written over; readers take no such name.
                unfinished = file.with_name(f".{file.name}.unfinished")
                pq.write_table(new, unfinished)
                sync(unfinished)
                written.append((unfinished, file))
            for unfinished, file in written:
                unfinished.replace(file)
                sync(file.parent)

    def _read(self, table: Table, org_id: str, first_day: date, last_day: date) -> pa.Table:
        found = [
            self._rows(table, file)
            for day, file in self._files(table, org_id)
            if first_day <= day <= last_day
        ]
        return pa.concat_tables([arrow_schema(table).empty_table(), *found])

    def _rows(self, table: Table, file: Path) -> pa.Table:
        with pq.ParquetFile(file) as opened:
            rows = opened.read()
        columns = []
        for wanted, field in zip(table.columns, arrow_schema(table), strict=True):
            if field.name in rows.column_names:
                columns.append(rows[field.name])
            elif wanted.is_key:
                raise WarehouseError(f"{file} has no column {field.name}; run that day again")
            else:
                columns.append(pa.nulls(rows.num_rows, field.type))
            if columns[-1].type != field.type:
                raise WarehouseError(
                    f"column {field.name} of {file} is {columns[-1].type}, not {field.type}; "
                    "run that day again"
                )
        return pa.Table.from_arrays(columns, schema=arrow_schema(table))

    def _file(self, table: Table, day: date, org_id: str) -> Path:
        name = f"org-{quote(org_id, safe='')}.parquet"
        return self._folder / table.schema / table.name / f"day={day}" / name

    def _files(self, table: Table, org_id: str) -> Iterator[tuple[date, Path]]:
        for folder in (self._folder / table.schema / table.name).glob("day=*"):
            with suppress(ValueError):  # of somebody else
                day = date.fromisoformat(folder.name.removeprefix("day="))
                file = self._file(table, day, org_id)
                if file.exists():
                    yield day, file

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise WarehouseError(
                f"the folder of Parquet {self._folder} cannot be used: {_one_line(error)}; see "
                "that it may be written and has room. A damaged file goes when its day is run again"
            ) from None
