"""What the nightly job tells of a day, surface by surface; and writes for Loki, in lines.

::

    previous = previous_overlap(
        day_tables, warehouse.read(PERSONALIZATION_DAILY, org_id, before, before)
    )
    write_lines(day_tables, sys.stdout, previous)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from otel_personalization.conventions import (
    CATALOG_OVERLAP,
    CATALOG_OVERLAP_LOWER,
    CATALOG_OVERLAP_PREVIOUS_DAY,
    CATALOG_OVERLAP_UPPER,
    CATALOG_OVERLAP_USERS,
    DAILY_EVENT,
    DAILY_FIGURES,
    DIVERSITY_ENTROPY_BRAND,
    DIVERSITY_ENTROPY_CATEGORY,
    DIVERSITY_KNOWN_BRAND_SHARE,
    DIVERSITY_KNOWN_CATEGORY_SHARE,
    MAX_LOG_VALUE_LENGTH,
    MIN_OVERLAP_USERS,
    Gauge,
)
from otel_personalization.daily.tables import (
    ALL,
    OVERLAP_SETTINGS,
    PERSONALIZATION_DAILY,
    DayTables,
)

Place = tuple[str, str]
"""Namespace and surface."""


class PublishError(Exception):
    """The Pushgateway did not take it: what is wrong, where, and what to do. Shows no password."""


def surface_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """The rows of single surfaces, with every cohort and device."""
    of_everybody = pc.and_(pc.equal(rows["cohort"], ALL), pc.equal(rows["device"], ALL))
    found = rows.filter(pc.and_(of_everybody, pc.not_equal(rows["surface"], ALL)))
    return list(found.to_pylist())


def place_of(row: Mapping[str, Any]) -> Place:
    """Where a row belongs."""
    return row["namespace"], row["surface"]


def figures_of(row: Mapping[str, Any], previous_overlap: float | None) -> dict[Gauge, float | None]:
    """What is told of a row; None is absent."""
    users = row["overlap_users"]
    has_overlap = users is not None and users >= MIN_OVERLAP_USERS

    def percent(name: str) -> float | None:
        return 100 * row[name] if has_overlap and row[name] is not None else None

    def entropy(of: str) -> float | None:
        return row[f"entropy_{of}"] if row[f"entropy_{of}_reliable"] else None

    figures = {
        CATALOG_OVERLAP: percent("jaccard_mean"),
        CATALOG_OVERLAP_USERS: users,
        CATALOG_OVERLAP_LOWER: percent("jaccard_mean_lower"),
        CATALOG_OVERLAP_UPPER: percent("jaccard_mean_upper"),
        CATALOG_OVERLAP_PREVIOUS_DAY: previous_overlap,
        DIVERSITY_ENTROPY_BRAND: entropy("brand"),
        DIVERSITY_ENTROPY_CATEGORY: entropy("category"),
        DIVERSITY_KNOWN_BRAND_SHARE: row["entropy_brand_known_share"],
        DIVERSITY_KNOWN_CATEGORY_SHARE: row["entropy_category_known_share"],
    }
    return {
        gauge: value if value is not None and math.isfinite(value) else None
        for gauge, value in figures.items()
    }


def previous_overlap(day_tables: DayTables, day_before: pa.Table) -> dict[Place, float]:
    """Mean overlap of two users' lists on the day before, in percent, by namespace and surface.

    Args:
        day_tables: the day that it is to be compared with.
        day_before: rows of `analytics.personalization_daily` of the day before.

    Returns:
        Only what has enough users, and is of the same K and window on both days.
    """
    settings_of = {
        place_of(row): [row[name] for name in OVERLAP_SETTINGS]
        for row in surface_rows(day_tables.rows[PERSONALIZATION_DAILY.qualified_name])
    }
    return {
        place: overlap
        for row in surface_rows(day_before)
        if (place := place_of(row)) in settings_of
        and settings_of[place] == [row[name] for name in OVERLAP_SETTINGS]
        and (overlap := figures_of(row, None)[CATALOG_OVERLAP]) is not None
    }


def write_lines(
    day_tables: DayTables, stream: IO[str], previous_day_overlap: Mapping[Place, float]
) -> None:
    """Write one line of JSON for each namespace and surface, with the fields `DAILY_LOG_FIELDS`.

    Args:
        day_tables: the day.
        stream: takes the lines, which are ASCII.
        previous_day_overlap: see `previous_overlap`; empty where that day is missing.

    Raises:
        OSError: the stream does not take them.
    """
    for row in surface_rows(day_tables.rows[PERSONALIZATION_DAILY.qualified_name]):
        place = place_of(row)
        figures = figures_of(row, previous_day_overlap.get(place))
        line = {
            "timestamp": datetime.now(timezone.utc).isoformat(timespec="microseconds")[:26] + "Z",
            "level": "INFO",
            "event": DAILY_EVENT,
            "day": day_tables.day.isoformat(),
            "org_id": _cut(day_tables.org_id),
            "namespace": _cut(place[0]),
            "surface": _cut(place[1]),
            **{gauge.prometheus_name: figures[gauge] for gauge in DAILY_FIGURES},
        }
        stream.write(json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LOG_VALUE_LENGTH else text[: MAX_LOG_VALUE_LENGTH - 1] + "…"
