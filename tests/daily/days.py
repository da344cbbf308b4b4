"""Days of tables that differ in every row, as the sinks get them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from otel_personalization.daily.tables import (
    ALL,
    BLEND_WEIGHTS_DAILY,
    NONE,
    PERSONALIZATION_DAILY,
    SOURCES_DAILY,
    TABLES,
    DayTables,
    Kind,
    Quality,
    Table,
    arrow_schema,
)

DAY = date(2026, 11, 21)
ORG = "acme"
PLACES = (("shop_eu", "home"), ("shop_eu", "cart"))
QUALITY = Quality(
    decisions=1,
    malformed={},
    skipped_lines=0,
    damaged_rests=0,
    undated=0,
    repeated=0,
    cohort_rules={},
    device_rules={},
    history_days=0,
)


def day_tables(
    day: date = DAY,
    org_id: str = ORG,
    places: Sequence[tuple[str, str]] = PLACES,
    version: int = 0,
    **values: Any,
) -> DayTables:
    """Rows of some namespaces and surfaces, by cohort.

    Args:
        day: of all rows.
        org_id: of all rows.
        places: namespaces and surfaces.
        version: another one gives other figures in every row.
        **values: of the columns of that name.
    """
    rows: dict[str, list[dict[str, Any]]] = {table.qualified_name: [] for table in TABLES}
    for namespace, surface in (*places, *sorted({(name, ALL) for name, _ in places})):
        for cohort in (ALL, "new"):
            key = {"day": day, "org_id": org_id, "namespace": namespace, "surface": surface}
            people = {"cohort": cohort, "device": ALL}
            arm = {"experiment": NONE, "variant": NONE}
            for table, further in (
                (PERSONALIZATION_DAILY, people),
                (SOURCES_DAILY, {"source": f"source of {cohort}"}),
                (BLEND_WEIGHTS_DAILY, people | arm),
            ):
                found = rows[table.qualified_name]
                found.append(_figures(table, version + len(found)) | values | key | further)
    return DayTables(
        day, org_id, {table.qualified_name: _table(table, rows) for table in TABLES}, QUALITY
    )


def _figures(table: Table, number: int) -> dict[str, Any]:
    figures = {
        Kind.INTEGER: 1000 + number,
        Kind.NUMBER: None if number % 5 == 4 else (number + 1) / 7,
        Kind.BOOLEAN: None if number % 5 == 4 else True,
    }
    return {one.name: figures[one.kind] for one in table.columns if one.kind in figures}


def _table(table: Table, rows: dict[str, list[dict[str, Any]]]) -> pa.Table:
    schema = arrow_schema(table)
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows[table.qualified_name]],
        schema,
    )


def with_rows(tables: DayTables, table: Table, rows: pa.Table) -> DayTables:
    """The same, with other rows of one table."""
    return DayTables(
        tables.day, tables.org_id, {**tables.rows, table.qualified_name: rows}, tables.quality
    )
