"""What the report says of other days: which figures changed, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from otel_personalization.conventions import MIN_OVERLAP_USERS
from otel_personalization.daily.report import estimates
from otel_personalization.daily.report.days import by_day, surfaces_of
from otel_personalization.daily.report.estimates import Estimate, Row, interval, number
from otel_personalization.daily.report.layout import Grid, Headline, Part
from otel_personalization.daily.report.words import (
    DOWN,
    NO_DATA,
    NOT_RELIABLE,
    TOO_FEW,
    UP,
    clean,
    count,
    decimal,
    percent,
    place,
    range_of,
    signed,
)
from otel_personalization.daily.tables import ALL, DIMENSIONS, OVERLAP_SETTINGS

MAX_SENTENCES: Final = 10
"""Clear changes of a namespace that are told in words; its table has all."""


_OTHER_DAYS: Final = (("yesterday", 1), ("the same day last week", 7))


@dataclass(frozen=True)
class _Measure:
    """A figure that is compared with that of other days."""

    name: str
    value: Callable[[Row], float | None]
    estimate: Callable[[Row], Estimate | None]
    no_interval: str
    """Why a value has no interval."""
    unit: str
    scale: float
    digits: int
    say: Callable[[float | None], str]
    same: Sequence[str] = ()
    """Columns that have to be the same on both days."""


def _share_of(items: str, of: str) -> Callable[[Row], Estimate | None]:
    return lambda row: estimates.share(
        number(row, items), number(row, of), number(row, "effective_decisions")
    )


def _column(name: str) -> Callable[[Row], float | None]:
    return lambda row: number(row, name)


MEASURES: Final = (
    _Measure(
        "personalised share",
        _column("personalized_impression_rate"),
        _share_of("personalized_items", "served_items"),
        NO_DATA,
        "points",
        100,
        1,
        percent,
    ),
    _Measure(
        "reason coverage",
        _column("reason_coverage_rate"),
        _share_of("reason_items", "served_items"),
        NO_DATA,
        "points",
        100,
        1,
        percent,
    ),
    _Measure(
        "requested coverage",
        _column("requested_reason_coverage_rate"),
        estimates.requested_share,
        NO_DATA,
        "points",
        100,
        1,
        percent,
    ),
    _Measure(
        "overlap",
        _column("jaccard_mean"),
        lambda row: interval(row, "jaccard_mean"),
        TOO_FEW,
        "",
        1,
        3,
        lambda value: decimal(value, 3),
        OVERLAP_SETTINGS,
    ),
    *(
        _Measure(
            f"{of} entropy",
            _column(f"entropy_{of}"),
            lambda row, of=of: interval(row, f"entropy_{of}"),  # type: ignore[misc]
            NOT_RELIABLE,
            "nats",
            1,
            2,
            decimal,
        )
        for of in DIMENSIONS
    ),
)


SHARE, COVERAGE, REQUESTED_COVERAGE = MEASURES[:3]


@dataclass(frozen=True)
class _Compared:
    """A figure beside that of another day."""

    text: str
    change: Estimate | None = None


def _compare(measure: _Measure, now: Row | None, before: Row | None) -> _Compared:
    if now is None or before is None:
        return _Compared(NO_DATA)
    if measure.value(now) is None or measure.value(before) is None:
        return _Compared(NO_DATA)
    if any(now.get(name) != before.get(name) for name in measure.same):
        return _Compared("not comparable: another K or window")
    estimate, earlier = measure.estimate(now), measure.estimate(before)
    if estimate is None or earlier is None:
        return _Compared(measure.no_interval)
    change = estimates.change(estimate, earlier)
    value, lower, upper = (
        signed(measure.scale * limit, measure.digits)
        for limit in (change.value, change.lower, change.upper)
    )
    limits = f"({lower} to {upper})"
    if not change.is_clear:
        return _Compared(f"no clear change {limits}", change)
    unit = f" {measure.unit}" if measure.unit else ""
    return _Compared(f"{UP if change.value > 0 else DOWN} {value}{unit} {limits}", change)


def changes(today: Sequence[Row], before: Sequence[Row], day: date) -> Part:
    """The figures of the day beside those of the day and of the week before, and what that says."""
    part = Part(
        "What changed",
        "Beside each difference stands its 95 % interval. A change is called clear where that "
        "leaves 0 out, and even where nothing changed one comparison in twenty looks clear. Shares "
        "rest on effective decisions, overlap and entropy on their own intervals.",
    )
    rows_of = by_day([*before, *today])
    rows, clear, compared = [], [], 0
    for surface in surfaces_of(today):
        now = rows_of.get((day, surface))
        others = [rows_of.get((day - timedelta(days=ago), surface)) for _, ago in _OTHER_DAYS]
        for measure in MEASURES:
            values = [None if row is None else measure.value(row) for row in (now, *others)]
            if all(value is None for value in values):
                continue
            cells = [place(surface), measure.name, measure.say(values[0])]
            for (than, _), other, value in zip(_OTHER_DAYS, others, values[1:], strict=True):
                result = _compare(measure, now, other)
                cells += [measure.say(value), result.text]
                if result.change is None:
                    continue
                compared += 1
                if result.change.is_clear:
                    clear.append((result.change, measure, surface, than))
            rows.append(cells)
    if not compared:
        part.notes.append(
            "No figure of yesterday, or of the same weekday last week, is there to compare with."
        )
    elif not clear:
        part.notes.append(f"None of {compared} comparisons shows a clear change.")
    else:
        part.notes.append(
            f"{len(clear)} of {compared} comparisons {'shows' if len(clear) == 1 else 'show'} a "
            f"clear change; by chance alone it would be about {max(round(compared / 20), 1)}."
        )
    # The clearest first: by how far 0 is from the interval, in widths of it.
    clear.sort(key=lambda found: -_distance(found[0]))
    for change, measure, surface, than in clear[:MAX_SENTENCES]:
        fell = change.value < 0
        lower, upper = sorted((abs(change.lower), abs(change.upper)))
        size, least, most = (
            f"{measure.scale * value:,.{measure.digits}f}"
            for value in (abs(change.value), lower, upper)
        )
        unit = f" {measure.unit}" if measure.unit else ""
        part.notes.append(
            f"{DOWN if fell else UP} {place(surface)}: {measure.name} "
            f"{'fell' if fell else 'rose'} by {size}{unit} since {than} (between {least} and "
            f"{most})."
        )
    header = ["surface", "measure", "today", "yesterday", "change", "last week", "change"]
    part.grids.append(Grid("Compared with other days", header, rows, names=2))
    return part


def _distance(change: Estimate) -> float:
    width = change.upper - change.lower
    return min(abs(change.lower), abs(change.upper)) / width if width else float("inf")


def headline(name: str, today: Sequence[Row], before: Sequence[Row], day: date) -> Headline:
    """The figures of a namespace that are read first; the share is compared with yesterday."""
    rows_of = by_day([*before, *today])
    row = rows_of.get((day, ALL), {})
    result = _compare(SHARE, row, rows_of.get((day - timedelta(days=1), ALL)))
    since = {NO_DATA: "no data of yesterday"}.get(result.text, f"{result.text} since yesterday")
    overlaps = [
        (mean, surface)
        for (of_day, surface), cell in rows_of.items()
        if of_day == day
        and (mean := number(cell, "jaccard_mean")) is not None
        and (number(cell, "overlap_users") or 0) >= MIN_OVERLAP_USERS
    ]
    most = max(overlaps, default=None)
    brands = number(row, "entropy_brand_effective_number")
    is_reliable = brands is None or row.get("entropy_brand_reliable")
    facts = [
        ("requested coverage", percent(number(row, "requested_reason_coverage_rate"))),
        ("reason coverage", percent(number(row, "reason_coverage_rate"))),
        ("highest overlap", TOO_FEW if most is None else f"{most[0]:.2f}, {place(most[1])}"),
        ("effective brands", count(brands) if is_reliable else NOT_RELIABLE),
        ("served items", count(number(row, "served_items"))),
        ("decisions", count(number(row, "decisions"))),
        ("users", count(number(row, "users"))),
    ]
    return Headline(
        clean(name),
        percent(SHARE.value(row)),
        range_of(SHARE.estimate(row), percent, NO_DATA),
        since,
        facts,
    )
