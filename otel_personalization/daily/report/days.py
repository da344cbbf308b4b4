"""The rows that the report is made of, by namespace, day and surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from otel_personalization.daily.report.estimates import Row, number
from otel_personalization.daily.tables import (
    ALL,
    BLEND_WEIGHTS_DAILY,
    PERSONALIZATION_DAILY,
    SOURCES_DAILY,
    DayTables,
    Table,
)


class Days:
    """The rows of the day and of those before, by namespace.

    Args:
        tables: the day.
        history: rows of days before; those of the day itself, of later ones and of other
            organisations are left aside.
    """

    def __init__(self, tables: DayTables, history: Mapping[str, pa.Table]) -> None:
        self.day = tables.day
        self.quality = tables.quality
        self._tables = tables
        self._history = history
        self._rows = {
            table.qualified_name: self._by_namespace(table)
            for table in (PERSONALIZATION_DAILY, SOURCES_DAILY, BLEND_WEIGHTS_DAILY)
        }

    def namespaces(self) -> list[str]:
        """Those of the day, the busiest first."""
        rows = [
            row
            for rows in self._rows[PERSONALIZATION_DAILY.qualified_name].values()
            for row in everybody(rows)
            if row["day"] == self.day and row["surface"] == ALL
        ]
        return busiest(rows, "namespace")

    def rows(self, table: Table, namespace: str, *, before: bool = False) -> list[Row]:
        """The rows of a namespace on the day; or on the days before, where those of
        personalization_daily are of all cohorts and devices, and there are no other ones of
        blend_weights_daily.
        """
        rows = self._rows[table.qualified_name].get(namespace, [])
        return [row for row in rows if (row["day"] != self.day) == before]

    @property
    def on_record(self) -> list[date]:
        """The days before that have rows."""
        rows = self._rows[PERSONALIZATION_DAILY.qualified_name].values()
        return sorted({row["day"] for of_one in rows for row in of_one} - {self.day})

    def _by_namespace(self, table: Table) -> dict[str, list[Row]]:
        rows: list[Row] = []
        if (of_day := self._tables.rows.get(table.qualified_name)) is not None:
            rows += of_day.to_pylist()
        earlier = self._history.get(table.qualified_name)
        if earlier is not None and table is not BLEND_WEIGHTS_DAILY:
            wanted = (pc.field("day") < self.day) & (pc.field("org_id") == self._tables.org_id)
            if table is PERSONALIZATION_DAILY:
                wanted &= (pc.field("cohort") == ALL) & (pc.field("device") == ALL)
            rows += earlier.filter(wanted).to_pylist()
        by_namespace: dict[str, list[Row]] = {}
        for row in rows:
            by_namespace.setdefault(row["namespace"], []).append(row)
        return by_namespace


def by_day(rows: Sequence[Row]) -> dict[tuple[date, str], Row]:
    """(day, surface) -> the row of all cohorts and devices."""
    return {(row["day"], row["surface"]): row for row in everybody(rows)}


def surfaces_of(rows: Sequence[Row]) -> list[str]:
    """``all``, then the others, the busiest first."""
    return [ALL, *busiest(everybody(rows))]


def rolled_first(row: Row, *names: str) -> tuple[tuple[bool, str], ...]:
    """A key that sorts rows by columns, with `all` first in each."""
    return tuple((row[name] != ALL, row[name]) for name in names)


def busiest(rows: Sequence[Row], column: str = "surface") -> list[str]:
    """Surfaces, or other values, with the most served items over all rows first; not ``all``."""
    items: dict[str, float] = {}
    for row in rows:
        if row[column] != ALL:
            items[row[column]] = items.get(row[column], 0) + (number(row, "served_items") or 0)
    return sorted(items, key=lambda name: (-items[name], name))


def everybody(rows: Sequence[Row]) -> list[Row]:
    """The rows of all cohorts and devices together."""
    return [row for row in rows if row["cohort"] == ALL and row["device"] == ALL]
