"""The parts of the report with a plot and a table of the day each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from otel_personalization.conventions import MIN_OVERLAP_USERS
from otel_personalization.daily.report import plots
from otel_personalization.daily.report.changes import COVERAGE, REQUESTED_COVERAGE, SHARE
from otel_personalization.daily.report.days import everybody, rolled_first, surfaces_of
from otel_personalization.daily.report.estimates import Row, interval, number
from otel_personalization.daily.report.layout import Grid, Part
from otel_personalization.daily.report.plots import MAX_SHOWN, OVERLAP_LIMIT
from otel_personalization.daily.report.words import (
    DOWN,
    NO_DATA,
    NOT_RELIABLE,
    TOO_FEW,
    clean,
    count,
    day_name,
    decimal,
    percent,
    place,
    range_of,
    rolled,
)
from otel_personalization.daily.tables import ALL, DIMENSIONS, PERCENTILES

SILENT_DECISIONS: Final = 50
"""Decisions without a candidate of a source from which that is worth a sentence."""
NOTHING_SERVED: Final = "Nothing was served, so there is no share to draw."


def share(today: Sequence[Row], before: Sequence[Row], key: str) -> Part:
    """How many of the served items were personalised, by surface, and the volumes behind it."""
    part = Part(
        "Personalised share by surface",
        "Each bar is a day. Its height is the share of all served items that were personalised, "
        "and each colour is what one surface adds to it: a surface is thick because it is busy, "
        "or because much of what it serves is personalised. A gap is a day without data.",
    )
    part.draw("", plots.share_by_surface([*before, *today], key=f"{key}-share"))
    if not part.figures:
        part.notes.append(NOTHING_SERVED)
    rows = []
    by_surface = {row["surface"]: row for row in everybody(today)}
    for surface in surfaces_of(today):
        row = by_surface.get(surface)
        estimate = None if row is None else SHARE.estimate(row)
        rows.append(
            [
                place(surface),
                percent(number(row, "personalized_impression_rate")),
                range_of(estimate, percent, NO_DATA),
                count(number(row, "personalized_items")),
                count(number(row, "served_items")),
                count(number(row, "decisions")),
                count(number(row, "effective_decisions")),
                percent(number(row, "mean_decision_personalized_rate")),
                percent(number(row, "top10_exposure_share")),
                count(number(row, "catalog_items")),
                count(number(row, "cold_start_items")),
            ]
        )
    header = [
        "surface",
        "share",
        "95 % interval",
        "personalised items",
        "served items",
        "decisions",
        "effective decisions",
        "mean of decisions",
        "top ten items",
        "distinct items",
        "cold-start items",
    ]
    part.grids.append(Grid("Share and volumes of the day", header, rows))
    return part


def coverage(today: Sequence[Row], before: Sequence[Row], key: str) -> Part:
    """How many of the served items came with a reason, of all and of those asked for one."""
    part = Part(
        "Reason coverage",
        "Circles are the share of all served items that carry a reason, which falls, too, where "
        "callers ask for none; diamonds are the share of those whose caller asked, which falls "
        "only where explanations break. The green band is the target, 80 % or more. Above are the "
        "days of the whole namespace, below the surfaces on this day.",
    )
    part.draw("", plots.coverage([*before, *today], key=f"{key}-coverage"))
    if not part.figures:
        part.notes.append(NOTHING_SERVED)
    by_surface = {row["surface"]: row for row in everybody(today)}
    rows = []
    for surface in surfaces_of(today):
        row = by_surface.get(surface, {})
        rows.append(
            [
                place(surface),
                percent(number(row, "reason_coverage_rate")),
                range_of(COVERAGE.estimate(row), percent, NO_DATA),
                percent(number(row, "requested_reason_coverage_rate")),
                range_of(REQUESTED_COVERAGE.estimate(row), percent, NO_DATA),
                count(number(row, "reason_items")),
                count(number(row, "reason_requested_items")),
                count(number(row, "served_items")),
            ]
        )
    header = [
        "surface",
        "coverage",
        "95 % interval",
        "requested coverage",
        "95 % interval",
        "items with a reason",
        "items whose caller asked",
        "served items",
    ]
    part.grids.append(Grid("Coverage of the day", header, rows))
    return part


def overlap(today: Sequence[Row], key: str, *, missing_days: int) -> Part:
    """How much users' lists have in common, by surface, cohort and device.

    Args:
        today: the rows of the day.
        key: tells the plots of a page apart.
        missing_days: those of the window without a snapshot.
    """
    part = Part("Overlap by cohort and device", "")
    of_surfaces: dict[str, list[Row]] = {}
    for row in today:
        if row["surface"] != ALL:
            of_surfaces.setdefault(row["surface"], []).append(row)
    order = surfaces_of(today)[1:]
    for index, surface in enumerate(order[:MAX_SHOWN]):
        title = f"Overlap by cohort and device on {clean(surface)}"
        rows = of_surfaces[surface]
        part.draw(clean(surface), plots.overlap(rows, key=f"{key}-overlap-{index}", title=title))
    part.left_out = len(order[MAX_SHOWN:])
    ks = sorted({row["overlap_k"] for row in today if row.get("overlap_k") is not None})
    windows = sorted(
        {row["overlap_window_days"] for row in today if row.get("overlap_window_days") is not None}
    )
    lists = f"lists of {_days_of(windows, missing_days)}"
    part.how_to_read = (
        "A cell says what part of the items in two users' lists they have in common (Jaccard, "
        f"the first {', '.join(map(str, ks)) or 'K'} items, {lists}), as a "
        "mean over pairs of its users: 0 is nothing, 1 is the same list for everybody. Darker is "
        f"more alike; outlined is over {OVERLAP_LIMIT}, where the alert has its limit. Under it "
        f"stands how many users were compared (n). Grey cells have under {MIN_OVERLAP_USERS}, and "
        "say little."
    )
    if not part.figures:
        part.notes.append("No surface has two users whose lists could be compared.")
    grid_rows = []
    for surface in order:
        for row in sorted(
            of_surfaces[surface], key=lambda row: rolled_first(row, "cohort", "device")
        ):
            users = number(row, "overlap_users") or 0
            if not users and row["cohort"] != ALL:
                continue
            unknown = TOO_FEW if users < MIN_OVERLAP_USERS else NO_DATA
            grid_rows.append(
                [
                    clean(surface),
                    rolled(row["cohort"]),
                    rolled(row["device"]),
                    decimal(number(row, "jaccard_mean"), 3)
                    if row.get("jaccard_mean") is not None
                    else TOO_FEW,
                    range_of(
                        interval(row, "jaccard_mean"), lambda value: decimal(value, 3), unknown
                    ),
                    *(
                        decimal(value)
                        if (value := number(row, f"jaccard_p{p}")) is not None
                        else unknown
                        for p in PERCENTILES
                    ),
                    percent(number(row, "identical_list_share")),
                    percent(number(row, "overlap_short_list_share")),
                    count(users),
                    count(number(row, "overlap_eligible_users")),
                ]
            )
    header = [
        "surface",
        "cohort",
        "device",
        "mean",
        "95 % interval",
        *(f"p{p}" for p in PERCENTILES),
        "identical lists",
        "short lists",
        "users compared",
        "users with a list",
    ]
    part.grids.append(Grid("Overlap between users' lists", header, grid_rows, names=3))
    return part


def _days_of(windows: Sequence[int], missing: int) -> str:
    if windows == [1]:
        return "the day"
    days = f"the last {', '.join(map(str, windows))} days" if windows else "the window"
    return f"{days}, {missing} of them without a snapshot" if missing else days


def entropy(today: Sequence[Row], key: str) -> Part:
    """How varied brands and categories of the served items are, by surface."""
    part = Part(
        "Variety of brands and categories",
        "A longer bar is more variety: entropy of what was served, corrected for what was not "
        "seen. The line on it is its 95 % interval. To the right stands as how many equally "
        "served ones that is (effective), and of what part of the served items brand or category "
        "are known. Hatched grey bars are not reliable: too little of what could be served was "
        "seen, so compare them with nothing.",
    )
    by_surface = {row["surface"]: row for row in everybody(today)}
    for of in DIMENSIONS:
        heading = of.capitalize()
        plot = plots.entropy(today, of=of, key=f"{key}-{of}")
        part.draw(heading, plot)
        if plot is None:
            part.notes.append(f"{heading}: no served item has one on record.")
        rows = []
        unreliable = 0
        for surface in surfaces_of(today):
            row = by_surface.get(surface, {})
            value = number(row, f"entropy_{of}")
            reliable = bool(row.get(f"entropy_{of}_reliable"))
            unreliable += value is not None and not reliable
            unknown = NO_DATA if value is None else NOT_RELIABLE
            rows.append(
                [
                    place(surface),
                    decimal(value),
                    range_of(interval(row, f"entropy_{of}"), decimal, unknown),
                    decimal(number(row, f"entropy_{of}_observed")),
                    decimal(number(row, f"entropy_{of}_effective_number"), 1),
                    percent(number(row, f"entropy_{of}_known_share")),
                    percent(number(row, f"entropy_{of}_sample_coverage")),
                    NO_DATA if value is None else "yes" if reliable else NOT_RELIABLE,
                    percent(number(row, f"{of}_cap_hit_share")),
                ]
            )
        if unreliable:
            part.notes.append(f"{heading}: not reliable on {unreliable} of {len(rows)} rows.")
        header = [
            "surface",
            "entropy, nats",
            "95 % interval",
            "as served, nats",
            "effective number",
            "known share",
            "sample coverage",
            "reliable",
            "picks with a cap value",
        ]
        part.grids.append(Grid(f"Entropy of {of}", header, rows))
    return part


def sources(today: Sequence[Row], before: Sequence[Row]) -> Part:
    """What candidate sources found, and which of them have gone silent."""
    part = Part(
        "Candidate sources",
        "A streak is the longest run of decisions in which a source took part and found nothing. "
        "Some sources find nothing all day on a healthy day; look at one that is silent now and "
        "was not on the days before.",
    )
    past: dict[tuple[str, str], list[Row]] = {}
    for row in before:
        past.setdefault((row["surface"], row["source"]), []).append(row)
    rows = []
    for row in sorted(today, key=lambda row: (row["source"], *rolled_first(row, "surface"))):
        earlier = past.get((row["surface"], row["source"]), [])
        found = [row for row in earlier if number(row, "candidates")]
        decisions, empty = number(row, "decisions"), number(row, "empty_decisions")
        rows.append(
            [
                clean(row["source"]),
                place(row["surface"]),
                count(decisions),
                count(empty),
                percent(empty / decisions if decisions and empty is not None else None),
                count(number(row, "longest_empty_streak")),
                count(
                    max((number(row, "longest_empty_streak") or 0 for row in earlier), default=None)
                ),
                count(number(row, "candidates")),
                f"{len(found)} of {len(earlier)}" if earlier else NO_DATA,
            ]
        )
        is_silent = not number(row, "candidates") and (decisions or 0) >= SILENT_DECISIONS
        if is_silent and found and row["surface"] == ALL:
            last = max(row["day"] for row in found)
            part.notes.append(
                f"{DOWN} {clean(row['source'])} found nothing in any of {count(decisions)} "
                f"decisions; it last did on {day_name(last)}, and on {len(found)} of "
                f"{len(earlier)} days before."
            )
    if not today:
        part.notes.append("No decision of the day tells of its sources.")
    header = [
        "source",
        "surface",
        "decisions",
        "found nothing",
        "share of them",
        "longest streak",
        "longest on days before",
        "candidates",
        "days before with candidates",
    ]
    part.grids.append(Grid("Sources of the day", header, rows, names=2))
    return part
