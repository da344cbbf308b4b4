"""Where the nightly job keeps its tables: a DuckDB file, PostgreSQL, or a folder of Parquet.

A day of an organisation is replaced as a whole or not at all, and a second run changes nothing::

    with open_warehouse("personalization.duckdb") as warehouse:
        warehouse.replace(day_tables)
        week = warehouse.read(PERSONALIZATION_DAILY, "acme", date(2026, 11, 17), date(2026, 11, 23))

Opening one makes what is missing of its schemas, tables and columns, and writes their meanings into
the database's own comments. It changes nothing where all is there, so that a role without the right
to make tables is enough from then on. Names come from `tables.py` only, values are parameters only.

::

    contract.py     what a warehouse does, wherever it is
    database.py     what DuckDB and PostgreSQL have in common
    duckdb_file.py  a file of DuckDB
    postgresql.py   a PostgreSQL
    parquet.py      a folder of Parquet
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import Final

from otel_personalization.daily.warehouse.contract import Warehouse, WarehouseError
from otel_personalization.daily.warehouse.duckdb_file import check_name, open_file
from otel_personalization.daily.warehouse.parquet import Folder
from otel_personalization.urls import is_postgresql

__all__ = ["Warehouse", "WarehouseError", "check_target", "open_warehouse"]


@contextmanager
def open_warehouse(target: str) -> Iterator[Warehouse]:
    """Open a warehouse, and make what it lacks.

    Args:
        target: ``FILE.duckdb``, ``postgresql://NAME:PASSWORD@HOST:PORT/DATABASE``, or a folder for
            Parquet, which exists or ends with ``/``.

    Raises:
        WarehouseError: it is none of these, cannot be opened, or holds a table that is another.
        ModuleNotFoundError: it is a PostgreSQL, and psycopg is not installed.
    """
    opened: AbstractContextManager[Warehouse]
    kind = _kind_of(target)
    if kind is _Kind.POSTGRESQL:
        # Few have one, and its client takes a tenth of a second to import.
        from otel_personalization.daily.warehouse.postgresql import open_server  # noqa: PLC0415

        opened = open_server(target)
    elif kind is _Kind.FOLDER:
        opened = nullcontext(Folder(Path(target)))
    else:
        opened = open_file(Path(target))
    with opened as warehouse:
        warehouse.prepare()
        yield warehouse


def check_target(target: str) -> None:
    """Whether it names a warehouse; it is not opened.

    Args:
        target: see `open_warehouse`.

    Raises:
        WarehouseError: it is none.
    """
    _kind_of(target)


class _Kind(Enum):
    POSTGRESQL = "postgresql"
    FOLDER = "folder"
    DUCKDB = "duckdb"


def _kind_of(target: str) -> _Kind:
    if is_postgresql(target):
        return _Kind.POSTGRESQL
    if scheme := re.match(r"\w[\w+.-]*:", target):  # the rest may hold a password
        raise WarehouseError(f"{scheme[0]}... is no warehouse; {_TARGETS}")
    if target.endswith("/") or (target and Path(target).is_dir()):
        return _Kind.FOLDER
    if target.endswith(".duckdb"):
        check_name(Path(target))
        return _Kind.DUCKDB
    named = target if re.fullmatch(r"[\w./ -]+", target) else "that"  # could be a password
    raise WarehouseError(f"{named} is no warehouse; {_TARGETS}")


_TARGETS: Final = (
    "give FILE.duckdb, postgresql://NAME:PASSWORD@HOST:PORT/DATABASE, or a folder for Parquet "
    "with a / at its end"
)
