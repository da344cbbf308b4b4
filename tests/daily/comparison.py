"""Compares the rows of the job with those of the oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from otel_personalization.daily.engines import DuckDB, Engine
from otel_personalization.daily.job import Run, compute
from otel_personalization.daily.lines import FileLines
from otel_personalization.daily.manifest import Manifest
from otel_personalization.daily.snapshot import write
from otel_personalization.daily.tables import TABLES, DayTables
from tests.daily import oracle

CLOSE = 1e-9
"""How far floats may be from the oracle's, in parts of them."""


def snapshots(lines: Sequence[str], folder: Path) -> dict[date, Manifest]:
    """Snapshots of every day that lines have."""
    file = folder / "traces.ndjson"
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return write(FileLines([file]), folder / "snapshots")


def computed(
    manifests: Mapping[date, Manifest], run: Run, engine: type[Engine] = DuckDB
) -> DayTables:
    """What the job makes of snapshots."""
    needed = {day: manifest for day, manifest in manifests.items() if day in run.needed_days}
    with engine(list(needed.values()), run.org_id) as opened:
        return compute(opened, run, needed)


def differences(tables: DayTables, expected: Mapping[str, Sequence[oracle.Row]]) -> list[str]:
    """Where the rows are not the oracle's; a few of them, each with its key."""
    found = []
    for name, rows in tables.rows.items():
        found += differences_of_rows(name, rows.to_pylist(), expected[name])
    return found


def differences_of_rows(
    name: str, rows: Sequence[Mapping[str, Any]], expected: Sequence[oracle.Row]
) -> list[str]:
    """The same of the rows of one table, by its qualified name."""
    (table,) = (table for table in TABLES if table.qualified_name == name)
    keys = [column.name for column in table.key]
    got = {tuple(row[key] for key in keys): row for row in rows}
    want = {tuple(row[key] for key in keys): row for row in expected}
    assert len(got) == len(rows), "a key comes twice"
    found = [f"{table.name} {key}: missing" for key in want.keys() - got.keys()]
    found += [f"{table.name} {key}: too much" for key in got.keys() - want.keys()]
    for key in want.keys() & got.keys():
        found += [
            f"{table.name} {key}: {name} is {got[key][name]!r}, not {want[key][name]!r}"
            for name in table.column_names
            if name not in oracle.EXCLUDED and not _is_same(got[key][name], want[key][name])
        ]
    return found


def _is_same(got: Any, want: Any) -> bool:
    if isinstance(want, float) and isinstance(got, float):
        return math.isclose(got, want, rel_tol=CLOSE, abs_tol=CLOSE)
    return type(got) is type(want) and got == want
