"""What a warehouse does, wherever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from otel_personalization.daily.tables import TABLES, DayTables, Table, arrow_schema


class WarehouseError(Exception):
    """The warehouse cannot be used: what is wrong, where, and what to do. Shows no password."""


class Warehouse(ABC):
    """The tables of the nightly job."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what is missing.

        Raises:
            WarehouseError: it cannot be made, or something else is in its place.
        """

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
    def _replace(self, day: date, org_id: str, rows: Mapping[Table, pa.Table]) -> None: ...

    @abstractmethod
    def _read(self, table: Table, org_id: str, first_day: date, last_day: date) -> pa.Table: ...

    @abstractmethod
    def _telling(self) -> AbstractContextManager[None]:
        """Turns what the engine raises into a `WarehouseError`."""


def _checked(table: Table, day_tables: DayTables) -> pa.Table:
    """The rows of a table, with its columns in their order."""
    name, day, org_id = table.qualified_name, day_tables.day, day_tables.org_id
    if name not in day_tables.rows:
        raise WarehouseError(f"no rows of {name} were given for {day}; nothing was replaced")
    try:
        rows = day_tables.rows[name].select(list(table.column_names)).cast(arrow_schema(table))
    except (KeyError, ValueError) as error:  # Arrow's own errors are of these
        raise WarehouseError(
            f"the rows of {name} for {day} are not as tables.py has them: {one_line(error)}; "
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


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())
