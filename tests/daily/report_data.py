"""Tables of made-up days for the tests of the report and the notebook: plausible, and extreme."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from otel_personalization.daily.tables import (
    ALL,
    BLEND_WEIGHTS_DAILY,
    NONE,
    PERCENTILES,
    PERSONALIZATION_DAILY,
    SOURCES_DAILY,
    TABLES,
    WEIGHTS,
    DayTables,
    Quality,
    Table,
    arrow_schema,
)

DAY = date(2026, 11, 23)
ORG = "6f0c2b1e-7a43-4f0e-9a43-0d8a5b2f0c11"
COHORTS = {"new": 0.3, "returning": 0.6, "unknown": 0.1}
DEVICES = {"web": 0.5, "app": 0.38, "tablet": 0.02, "unknown": 0.1}

Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Surface:
    """What a surface is like."""

    name: str
    decisions: int
    share: float
    coverage: float = 0.7
    overlap: float = 0.2
    brands: float = 40.0


@dataclass(frozen=True)
class Days:
    """Made-up days."""

    surfaces: Mapping[str, Sequence[Surface]]
    """By namespace."""
    history_days: int = 28
    missing: Sequence[int] = ()
    """Days ago that nothing is on record of."""
    experiment: str | None = None
    with_outcomes: bool = False
    p_value: float | None = 0.43
    several: int = 0
    """Users of several variants."""
    reliable: bool = True
    drop: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(namespace, surface) -> what is taken from its share on the day itself."""


SHOPS = Days(
    {
        "shop_eu": [
            Surface("home", 5200, 0.66, 0.74, 0.24, 120),
            Surface("pdp", 3900, 0.61, 0.66, 0.31, 64),
            Surface("cart", 1500, 0.52, 0.61, 0.42, 21),
            Surface("search", 700, 0.35, 0.52, 0.15, 180),
            Surface("email", 60, 0.71, 0.93, 0.1, 30),
        ],
        "media": [
            Surface("home", 2400, 0.72, 0.86, 0.29, 33),
            Surface("player", 1900, 0.63, 0.8, 0.37, 25),
            Surface("topics", 600, 0.48, 0.7, 0.2, 18),
            Surface("default", 240, 0.5, 0.4, 0.26, 14),
            Surface("newsletter", 25, 0.8, 1.0, 0.55, 6),
        ],
    },
    missing=(9, 10),
    experiment="blend-2026-11",
    with_outcomes=True,
    drop={("shop_eu", "pdp"): 0.09},
)


def tables_of(days: Days, *, quality: Quality | None = None) -> DayTables:
    """The tables of the day itself."""
    rows = _rows(days, 0)
    return DayTables(DAY, ORG, _arrow(rows), quality or QUALITY)


def history_of(days: Days) -> dict[str, pa.Table]:
    """The tables of the days before."""
    together: Rows = {}
    for ago in range(days.history_days, 0, -1):
        if ago not in days.missing:
            for name, rows in _rows(days, ago).items():
                together.setdefault(name, []).extend(rows)
    return _arrow(together) if together else {}


QUALITY = Quality(
    decisions=16_525,
    malformed={"no_items": 3, "unreadable": 1},
    skipped_lines=2,
    damaged_rests=1,
    undated=1,
    repeated=14,
    cohort_rules={"extras": 9000, "history": 6000, "unknown": 1525},
    device_rules={"extras": 12_000, "bucket_key": 2900, "unknown": 1625},
    history_days=28,
)
NOTHING = Quality(0, {}, 0, 0, 0, 0, {}, {}, 0)


def empty_tables() -> DayTables:
    """A day on which nothing was counted."""
    return DayTables(DAY, ORG, _arrow({}), NOTHING)


def arrow(table: Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of the contract; columns that a row lacks are null."""
    names = table.column_names
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in names} for row in rows], schema=arrow_schema(table)
    )


def _arrow(rows: Rows) -> dict[str, pa.Table]:
    return {
        table.qualified_name: arrow(table, rows.get(table.qualified_name, [])) for table in TABLES
    }


def _rows(days: Days, ago: int) -> Rows:
    day = DAY - timedelta(days=ago)
    daily, blends, sources = [], [], []
    for namespace, surfaces in days.surfaces.items():
        common = {"day": day, "org_id": ORG, "namespace": namespace}
        cells = []
        for surface in surfaces:
            for cohort, of_cohort in {ALL: 1.0, **COHORTS}.items():
                for device, of_device in {ALL: 1.0, **DEVICES}.items():
                    chance = random.Random(f"{namespace}{surface.name}{cohort}{device}{ago}")
                    part = of_cohort * of_device * chance.uniform(0.9, 1.1)
                    share = surface.share + chance.uniform(-0.015, 0.015)
                    if ago == 0:
                        share -= days.drop.get((namespace, surface.name), 0)
                    row = _cell(days, surface, round(surface.decisions * part), share, chance)
                    place = {"surface": surface.name, "cohort": cohort, "device": device}
                    cells.append(common | place | row)
        rolled = _rolled(cells, common)
        daily += cells + rolled
        overall = [row | {"experiment": ALL, "variant": ALL} for row in cells + rolled]
        blends += _with_outcomes(days, overall)
        if days.experiment is not None:
            for experiment, variant, part in (
                (days.experiment, ALL, 0.5),
                (days.experiment, "control", 0.25),
                (days.experiment, "more profile", 0.25),
                (NONE, NONE, 0.5),
            ):
                names = {"experiment": experiment, "variant": variant}
                arms = [
                    _scaled(row, part, 0.04 if variant == "more profile" else 0.0) | names
                    for row in cells + rolled
                    if row["cohort"] == row["device"] == ALL
                ]
                blends += _with_outcomes(days, arms)
        sources += _sources(namespace, common, rolled[0]["decisions"], ago)
    return {
        PERSONALIZATION_DAILY.qualified_name: daily,
        SOURCES_DAILY.qualified_name: sources,
        BLEND_WEIGHTS_DAILY.qualified_name: blends,
    }


def _cell(
    days: Days, surface: Surface, decisions: int, share: float, chance: random.Random
) -> dict[str, Any]:
    served = decisions * 12
    asked = round(served * surface.coverage)
    users = round(decisions * 0.8)
    row: dict[str, Any] = {
        "decisions": decisions,
        "empty_decisions": decisions // 60,
        "users": users,
        "known_user_share": 0.93 if decisions else None,
        "served_items": served,
        "effective_decisions": decisions / 2.5 if decisions else None,
        "personalized_items": round(served * share),
        "reason_items": round(asked * 0.998),
        "reason_requested_items": asked,
        "cold_start_items": served // 50,
        "mean_decision_personalized_rate": share - 0.02 if decisions else None,
        "top10_exposure_share": 0.18 if decisions else None,
        "catalog_items": round(served**0.7),
        "mmr_picks": served,
        "brand_cap_hit_share": 0.44 if decisions else None,
        "category_cap_hit_share": 0.6 if decisions else None,
        "overlap_users": min(users, 5000),
        "overlap_pairs": min(users, 5000) * (min(users, 5000) - 1) // 2,
        "overlap_eligible_users": users,
        "overlap_k": 10,
        "overlap_window_days": 1,
    }
    row |= _rates(row)
    if users >= 2:
        mean = surface.overlap + chance.uniform(-0.02, 0.02)
        row |= {
            "jaccard_mean": mean,
            "identical_list_share": mean / 40,
            "overlap_short_list_share": 0.04,
        }
        if users >= 30:
            half = mean / math.sqrt(users) * 1.5
            row |= {"jaccard_mean_lower": mean - half, "jaccard_mean_upper": mean + half}
            for p in PERCENTILES:
                row[f"jaccard_p{p}"] = min(1.0, mean * (0.9 + (p - 50) / 30))
    for of, number in (("brand", surface.brands), ("category", surface.brands / 3 + 2)):
        seen = 1 - min(0.5, number / max(served, 1) * 10)
        reliable = days.reliable and seen >= 0.95
        entropy = math.log(number) + chance.uniform(-0.02, 0.02)
        row |= {
            f"entropy_{of}": entropy,
            f"entropy_{of}_observed": entropy - 0.04,
            f"entropy_{of}_lower": entropy - 0.05 if reliable else None,
            f"entropy_{of}_upper": entropy + 0.06 if reliable else None,
            f"entropy_{of}_effective_number": math.exp(entropy),
            f"entropy_{of}_known_share": 0.45 if of == "brand" else 0.62,
            f"entropy_{of}_sample_coverage": seen,
            f"entropy_{of}_reliable": reliable,
        }
    return row


def _rates(row: Mapping[str, Any]) -> dict[str, float | None]:
    served, asked = row["served_items"], row["reason_requested_items"]
    return {
        "personalized_impression_rate": row["personalized_items"] / served if served else None,
        "reason_coverage_rate": row["reason_items"] / served if served else None,
        "requested_reason_coverage_rate": row["reason_items"] / asked if asked else None,
    }


_SUMMED = (
    "decisions",
    "empty_decisions",
    "users",
    "served_items",
    "effective_decisions",
    "personalized_items",
    "reason_items",
    "reason_requested_items",
    "cold_start_items",
    "catalog_items",
    "mmr_picks",
)


def _rolled(cells: Sequence[dict[str, Any]], common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of all surfaces; the first is that of everybody."""
    rows = []
    for cohort in (ALL, *COHORTS):
        for device in (ALL, *DEVICES):
            of_cell = [row for row in cells if (row["cohort"], row["device"]) == (cohort, device)]
            widest = max(of_cell, key=lambda row: row["decisions"])
            row = {name: value for name, value in widest.items() if "jaccard" not in name}
            row = {name: value for name, value in row.items() if "overlap" not in name}
            for name in _SUMMED:
                row[name] = sum(cell[name] or 0 for cell in of_cell)
            rows.append(row | dict(common) | {"surface": ALL} | _rates(row))
    return rows


def _scaled(row: Mapping[str, Any], part: float, lift: float) -> dict[str, Any]:
    scaled = dict(row)
    for name in _SUMMED:
        if row[name] is not None:
            scaled[name] = (
                row[name] * part if name == "effective_decisions" else round(row[name] * part)
            )
    scaled["personalized_items"] = min(
        scaled["served_items"], round(scaled["personalized_items"] * (1 + lift))
    )
    return scaled | _rates(scaled)


def _with_outcomes(days: Days, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    done = []
    weights = dict(zip(WEIGHTS, (0.6, 0.25, 0.15, 0.4, 0.8), strict=True))
    for row in rows:
        row = dict(row) | weights | {"weight_settings": 1}
        if row["variant"] == "more profile":
            row["profile_boost"] = 0.7
        if days.with_outcomes and row["served_items"]:
            shown = row["served_items"]
            ctr = 0.012 + 0.03 * row["personalized_impression_rate"]
            half = 2.5 * math.sqrt(ctr * (1 - ctr) / shown)
            row |= {
                "impressions": shown,
                "clicks": round(shown * ctr),
                "ctr": ctr,
                "ctr_lower": max(0.0, ctr - half),
                "ctr_upper": ctr + half,
                "personalized_ctr": ctr * 1.1,
                "other_ctr": ctr * 0.85,
                "ctr_difference": ctr * 0.25,
                "ctr_difference_lower": ctr * 0.25 - 2 * half,
                "ctr_difference_upper": ctr * 0.25 + 2 * half,
            }
        if row["variant"] == ALL and row["experiment"] != ALL:
            row["sample_ratio_p_value"] = days.p_value
            row["users_of_several_variants"] = days.several
        done.append(row)
    return done


def _sources(
    namespace: str, common: Mapping[str, Any], decisions: int, ago: int
) -> list[dict[str, Any]]:
    rows = []
    for source, mean in (("popularity", 60), ("collaborative", 9), ("content", 22)):
        is_silent = source == "collaborative" and (namespace == "media" or ago == 0)
        candidates = 0 if is_silent else decisions * mean
        empty = decisions if is_silent else decisions // 4 if source == "collaborative" else 0
        rows += [
            dict(common)
            | {
                "surface": surface,
                "source": source,
                "candidates": round(candidates * part),
                "decisions": round(decisions * part),
                "empty_decisions": round(empty * part),
                "longest_empty_streak": round(empty * part) if is_silent else min(empty, 6),
            }
            for surface, part in ((ALL, 1.0), ("home", 0.6))
        ]
    return rows


HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "$\\frac{1}{0}$ & $x",
    "</style></svg></title><b>",
    "__init__ {{ 7 * 7 }} {% raw %}",
    "שלום \u202eعالم",  # noqa: RUF001
    "日本語のとても長い名前のサーフェス" * 3,
    "🛒🎁👩\u200d👩\u200d👧 emoji",
    "x" * 300,
    "a\x00b\x0bc\nd\te",
    "&amp;&lt;#x3c;",
    "]]><!--",
)
"""Names as nobody would give them, but a trace may."""
