"""What the report says: its figures as words, and the tables and plots of each part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from otel_personalization.daily.report import estimates, plots
from otel_personalization.daily.report.estimates import Estimate, Row, interval, number
from otel_personalization.daily.report.plots import (
    MAX_SHOWN,
    MIN_USERS,
    OVERLAP_LIMIT,
    Plot,
    busiest,
    clean,
    day_name,
    everybody,
)
from otel_personalization.daily.tables import (
    ALL,
    BLEND_WEIGHTS_DAILY,
    DIMENSIONS,
    NONE,
    PERCENTILES,
    PERSONALIZATION_DAILY,
    SOURCES_DAILY,
    WEIGHTS,
    DayTables,
    OutcomeQuality,
    Quality,
    Table,
)

NO_DATA: Final = "no data"
TOO_FEW: Final = "too few users"
NOT_RELIABLE: Final = "not reliable"
UP: Final = "▲"
DOWN: Final = "▼"

SPLIT_P_VALUE: Final = 0.001
"""Chance of a split at least as odd, under which the arms of an experiment do not hold the users
that they should (Fabijan et al., 2019, KDD)."""
SILENT_DECISIONS: Final = 50
"""Decisions without a candidate of a source from which that is worth a sentence."""
MAX_SENTENCES: Final = 10
"""Clear changes of a namespace that are told in words; its table has all."""
OPEN_ROWS: Final = 12
"""Rows of a table that is open at first; longer ones open on a click, and in print."""


@dataclass(frozen=True)
class Grid:
    """A table of text, whose first `names` columns say what a row is about."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1

    @property
    def is_open(self) -> bool:
        """Whether it is short enough to stand open."""
        return len(self.rows) <= OPEN_ROWS


@dataclass(frozen=True)
class Figure:
    """A plot with its heading; None where there is nothing to draw."""

    heading: str
    plot: Plot


@dataclass
class Part:
    """A part of a namespace's report: how to read it, what was drawn, and the numbers."""

    heading: str
    how_to_read: str
    figures: list[Figure] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences that stand before the plots."""
    left_out: int = 0
    """Surfaces or variants that the plots have no place for."""

    def draw(self, heading: str, plot: Plot | None) -> None:
        """Add a plot, if there is one."""
        if plot is not None:
            self.figures.append(Figure(heading, plot))
            self.left_out = max(self.left_out, plot.left_out)


@dataclass(frozen=True)
class Headline:
    """The figures of a namespace that are read first."""

    namespace: str
    share: str
    share_interval: str
    since_yesterday: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Namespace:
    """The report of a namespace."""

    name: str
    headline: Headline
    parts: Sequence[Part]


class Days:
    """The rows of the day and of those before, by namespace.

    Args:
        tables: the day.
        history: rows of days before; those of the day itself, of later ones and of other
            organisations are left aside.
    """

    def __init__(self, tables: DayTables, history: Mapping[str, pa.Table]) -> None:
        self.day = tables.day
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


def namespace_report(days: Days, name: str, key: str) -> Namespace:
    """The report of a namespace.

    Args:
        days: the day and those before.
        name: the namespace.
        key: tells it from others in the page.
    """
    today = days.rows(PERSONALIZATION_DAILY, name)
    before = days.rows(PERSONALIZATION_DAILY, name, before=True)
    blends = days.rows(BLEND_WEIGHTS_DAILY, name)
    parts = [
        _changes(today, before, days.day),
        _share(today, before, key),
        _coverage(today, before, key),
        _overlap(today, key),
        _entropy(today, key),
        _experiments(blends, key),
        _sources(days.rows(SOURCES_DAILY, name), days.rows(SOURCES_DAILY, name, before=True)),
    ]
    return Namespace(clean(name), _headline(name, today, before, days.day), parts)


# --- figures as words -------------------------------------------------------------------------


def percent(value: float | None) -> str:
    """A share, 0 to 1, such as ``60.3 %``."""
    return NO_DATA if value is None else f"{100 * value:.1f}\u00a0%"


def count(value: float | None) -> str:
    """A number of things."""
    return NO_DATA if value is None else f"{value:,.0f}"


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with so many digits after the point."""
    return NO_DATA if value is None else f"{value:,.{digits}f}".replace("-", "\u2212")


def signed(value: float, digits: int) -> str:
    """A difference, with its sign, and none where it rounds to 0."""
    text = f"{value:+,.{digits}f}"
    return text[1:] if float(text.replace(",", "")) == 0 else text.replace("-", "\u2212")


def _range(estimate: Estimate | None, say: Callable[[float | None], str], otherwise: str) -> str:
    if estimate is None:
        return otherwise
    lower = say(estimate.lower).removesuffix("\u00a0%")
    return f"{lower} to {say(estimate.upper)}"


def _place(surface: str) -> str:
    return "all surfaces" if surface == ALL else clean(surface)


def _rolled(value: str) -> str:
    return "all" if value == ALL else clean(value)


# --- what changed -----------------------------------------------------------------------------


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


_MEASURES: Final = (
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
        ("overlap_k", "overlap_window_days"),
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


def _by_day(rows: Sequence[Row]) -> dict[tuple[date, str], Row]:
    return {(row["day"], row["surface"]): row for row in everybody(rows)}


def _surfaces(rows: Sequence[Row]) -> list[str]:
    """``all``, then the others, the busiest first."""
    return [ALL, *busiest(everybody(rows))]


_OTHER_DAYS: Final = (("yesterday", 1), ("the same day last week", 7))


def _changes(today: Sequence[Row], before: Sequence[Row], day: date) -> Part:
    part = Part(
        "What changed",
        "Beside each difference stands its 95 % interval. A change is called clear where that "
        "leaves 0 out, and even where nothing changed one comparison in twenty looks clear. Shares "
        "rest on effective decisions, overlap and entropy on their own intervals.",
    )
    by_day = _by_day([*before, *today])
    rows, clear, compared = [], [], 0
    for surface in _surfaces(today):
        now = by_day.get((day, surface))
        others = [by_day.get((day - timedelta(days=ago), surface)) for _, ago in _OTHER_DAYS]
        for measure in _MEASURES:
            values = [None if row is None else measure.value(row) for row in (now, *others)]
            if all(value is None for value in values):
                continue
            cells = [_place(surface), measure.name, measure.say(values[0])]
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
        part.notes.append("There is no other day on record to compare this one with.")
    elif not clear:
        part.notes.append(f"None of {compared} comparisons shows a clear change.")
    else:
        part.notes.append(
            f"{len(clear)} of {compared} comparisons show a clear change; by chance alone it would "
            f"be about {max(round(compared / 20), 1)}."
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
            f"{DOWN if fell else UP} {_place(surface)}: {measure.name} "
            f"{'fell' if fell else 'rose'} by {size}{unit} since {than} (between {least} and "
            f"{most})."
        )
    header = ["surface", "measure", "today", "yesterday", "change", "last week", "change"]
    part.grids.append(Grid("Compared with other days", header, rows, names=2))
    return part


def _distance(change: Estimate) -> float:
    width = change.upper - change.lower
    return min(abs(change.lower), abs(change.upper)) / width if width else float("inf")


def _headline(name: str, today: Sequence[Row], before: Sequence[Row], day: date) -> Headline:
    by_day = _by_day([*before, *today])
    row = by_day.get((day, ALL), {})
    measure = _MEASURES[0]
    result = _compare(measure, row, by_day.get((day - timedelta(days=1), ALL)))
    since = {NO_DATA: "no data of yesterday"}.get(result.text, f"{result.text} since yesterday")
    overlaps = [
        (mean, surface)
        for (of_day, surface), cell in by_day.items()
        if of_day == day
        and (mean := number(cell, "jaccard_mean")) is not None
        and (number(cell, "overlap_users") or 0) >= MIN_USERS
    ]
    most = max(overlaps, default=None)
    facts = [
        ("requested coverage", percent(number(row, "requested_reason_coverage_rate"))),
        ("reason coverage", percent(number(row, "reason_coverage_rate"))),
        ("highest overlap", TOO_FEW if most is None else f"{most[0]:.2f}, {_place(most[1])}"),
        ("brands, effectively", count(number(row, "entropy_brand_effective_number"))),
        ("served items", count(number(row, "served_items"))),
        ("decisions", count(number(row, "decisions"))),
        ("users", count(number(row, "users"))),
    ]
    return Headline(
        clean(name),
        percent(measure.value(row)),
        _range(measure.estimate(row), percent, NO_DATA),
        since,
        facts,
    )


# --- the parts --------------------------------------------------------------------------------


def _share(today: Sequence[Row], before: Sequence[Row], key: str) -> Part:
    part = Part(
        "Personalised share by surface",
        "Each bar is a day. Its height is the share of all served items that were personalised, "
        "and each colour is what one surface adds to it: a surface is thick because it is busy, "
        "or because much of what it serves is personalised. A gap is a day without data.",
    )
    part.draw("", plots.share_by_surface([*before, *today], key=f"{key}-share"))
    rows = []
    by_surface = {row["surface"]: row for row in everybody(today)}
    for surface in _surfaces(today):
        row = by_surface.get(surface)
        estimate = None if row is None else _MEASURES[0].estimate(row)
        rows.append(
            [
                _place(surface),
                percent(number(row, "personalized_impression_rate")),
                _range(estimate, percent, NO_DATA),
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


def _coverage(today: Sequence[Row], before: Sequence[Row], key: str) -> Part:
    part = Part(
        "Reason coverage",
        "Circles are the share of all served items that carry a reason, which falls, too, where "
        "callers ask for none; diamonds are the share of those whose caller asked, which falls "
        "only where explanations break. The green band is the target, 80 % or more. Above are the "
        "days of the whole namespace, below the surfaces on this day.",
    )
    part.draw("", plots.coverage([*before, *today], key=f"{key}-coverage"))
    by_surface = {row["surface"]: row for row in everybody(today)}
    rows = []
    for surface in _surfaces(today):
        row = by_surface.get(surface, {})
        rows.append(
            [
                _place(surface),
                percent(number(row, "reason_coverage_rate")),
                _range(_MEASURES[1].estimate(row), percent, NO_DATA),
                percent(number(row, "requested_reason_coverage_rate")),
                _range(_MEASURES[2].estimate(row), percent, NO_DATA),
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


def _overlap(today: Sequence[Row], key: str) -> Part:
    part = Part("Overlap by cohort and device", "")
    of_surfaces: dict[str, list[Row]] = {}
    for row in today:
        if row["surface"] != ALL:
            of_surfaces.setdefault(row["surface"], []).append(row)
    order = _surfaces(today)[1:]
    for index, surface in enumerate(order[:MAX_SHOWN]):
        title = f"Overlap by cohort and device on {clean(surface)}"
        rows = of_surfaces[surface]
        part.draw(clean(surface), plots.overlap(rows, key=f"{key}-overlap-{index}", title=title))
    part.left_out = len(order[MAX_SHOWN:])
    ks = sorted({row["overlap_k"] for row in today if row.get("overlap_k") is not None})
    windows = sorted(
        {row["overlap_window_days"] for row in today if row.get("overlap_window_days") is not None}
    )
    part.how_to_read = (
        "A cell says what part of the items in two users' lists they have in common (Jaccard, "
        f"the first {', '.join(map(str, ks)) or 'K'} items, lists of {_days_of(windows)}), as a "
        "mean over pairs of its users: 0 is nothing, 1 is the same list for everybody. Darker is "
        f"more alike; outlined is over {OVERLAP_LIMIT}, where the alert has its limit. Under it "
        f"stands how many users were compared (n). Grey cells have under {MIN_USERS}, and say "
        "little."
    )
    if not part.figures:
        part.notes.append("No surface has two users whose lists could be compared.")
    grid_rows = []
    for surface in order:
        for row in sorted(
            of_surfaces[surface], key=lambda row: _rolled_first(row, "cohort", "device")
        ):
            users = number(row, "overlap_users") or 0
            if not users and row["cohort"] != ALL:
                continue
            unknown = TOO_FEW if users < MIN_USERS else NO_DATA
            grid_rows.append(
                [
                    clean(surface),
                    _rolled(row["cohort"]),
                    _rolled(row["device"]),
                    decimal(number(row, "jaccard_mean"), 3)
                    if row.get("jaccard_mean") is not None
                    else TOO_FEW,
                    _range(interval(row, "jaccard_mean"), lambda value: decimal(value, 3), unknown),
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


def _days_of(windows: Sequence[int]) -> str:
    if windows == [1]:
        return "the day"
    return f"the last {', '.join(map(str, windows))} days" if windows else "the window"


def _rolled_first(row: Row, *names: str) -> tuple[tuple[bool, str], ...]:
    return tuple((row[name] != ALL, row[name]) for name in names)


def _entropy(today: Sequence[Row], key: str) -> Part:
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
        plot = plots.entropy(today, of=of, key=f"{key}-{of}", title=f"Entropy of {of} by surface")
        part.draw(heading, plot)
        if plot is None:
            part.notes.append(f"{heading}: no served item has one on record.")
        rows = []
        unreliable = 0
        for surface in _surfaces(today):
            row = by_surface.get(surface, {})
            value = number(row, f"entropy_{of}")
            reliable = bool(row.get(f"entropy_{of}_reliable"))
            unreliable += value is not None and not reliable
            unknown = NO_DATA if value is None else NOT_RELIABLE
            rows.append(
                [
                    _place(surface),
                    decimal(value),
                    _range(interval(row, f"entropy_{of}"), decimal, unknown),
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


def _experiments(blends: Sequence[Row], key: str) -> Part:
    part = Part("Experiments, and share against CTR", "")
    together = everybody(blends)
    surfaces = [row for row in together if row["experiment"] == ALL and row["variant"] == ALL]
    arms = [row for row in together if ALL not in (row["experiment"], row["variant"])]
    of_all = sorted(
        (row for row in arms if row["surface"] == ALL),
        key=lambda row: (row["experiment"] == NONE, row["experiment"], row["variant"]),
    )
    names = {row["experiment"] for row in of_all} - {NONE}
    if not names:
        part.notes.append("No decision of the day names an experiment.")
    has_outcomes = any(number(row, "ctr") is not None for row in together)
    if has_outcomes:
        part.how_to_read = (
            "Bars are the personalised share, read on the lower axis; dots are click-through, read "
            "on the upper one, with its 95 % interval, clustered by user. The two axes have "
            "nothing in common: look whether long bars go with dots far to the right."
        )
        part.notes.append(
            "Between surfaces, and between personalised and other items, it is correlation, not "
            "proof: nobody drew lots over who sees what."
        )
        part.notes += _splits(together, sorted(names))
        by_surface = {row["surface"]: row for row in surfaces}
        order = [
            (_place(name), by_surface[name]) for name in _surfaces(surfaces) if name in by_surface
        ]
        part.draw("By surface", plots.share_and_ctr(order, key=f"{key}-ctr-surface"))
        if names:
            plot = plots.share_and_ctr(
                [(_arm(row), row) for row in of_all],
                key=f"{key}-ctr-variant",
                title="Personalised share and CTR by variant",
            )
            part.draw("By variant", plot)
        part.grids.append(_outcomes_grid("By surface", [([name], row) for name, row in order]))
    else:
        part.how_to_read = (
            "No outcomes were given, so there is no CTR. Overlap is compared on each surface, as "
            "above."
        )
    if names:
        named = [([_named(row["experiment"]), _named(row["variant"])], row) for row in of_all]
        if has_outcomes:
            part.grids.append(_outcomes_grid("By variant", named))
        part.grids.append(_weights_grid(named))
        part.grids.append(_arms_overlap_grid(arms))
    return part


def _named(value: str) -> str:
    return "no experiment" if value == NONE else clean(value)


def _arm(row: Row) -> str:
    if row["experiment"] == NONE:
        return "no experiment"
    return f"{clean(row['variant'])} ({clean(row['experiment'])})"


def _splits(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    """Of each experiment, what may be said of a difference between its arms."""
    notes = []
    for name in names:
        p = next(
            (
                value
                for row in rows
                if (row["experiment"], row["variant"], row["surface"]) == (name, ALL, ALL)
                and (value := number(row, "sample_ratio_p_value")) is not None
            ),
            None,
        )
        if p is None:
            said = "correlation, not proof: it is not known how users were split."
        elif p < SPLIT_P_VALUE:
            said = (
                f"correlation, not proof: the variants do not have the users that they should "
                f"(p = {p:.1g}), so find out why before comparing them."
            )
        else:
            said = (
                f"the variants have the users that they should (p = {p:.2g}), as a random split "
                "gives them: a difference in CTR whose intervals stand apart is caused by the "
                "variant, whatever in it did so."
            )
        notes.append(f"Experiment {clean(name)}: {said}")
    return notes


def _outcomes_grid(what: str, rows: Sequence[tuple[list[str], Row]]) -> Grid:
    names = ["experiment", "variant"] if what == "By variant" else ["surface"]
    header = [
        *names,
        "share",
        "CTR",
        "95 % interval",
        "impressions",
        "clicks",
        "CTR, personalised",
        "CTR, others",
        "difference",
        "users",
    ]
    return Grid(
        f"Share and CTR, {what.lower()}",
        header,
        [
            [
                *name,
                percent(number(row, "personalized_impression_rate")),
                _fine(number(row, "ctr")),
                _range(interval(row, "ctr"), _fine, NO_DATA),
                count(number(row, "impressions")),
                count(number(row, "clicks")),
                _fine(number(row, "personalized_ctr")),
                _fine(number(row, "other_ctr")),
                _points(interval(row, "ctr_difference")),
                count(number(row, "users")),
            ]
            for name, row in rows
        ],
        names=len(names),
    )


def _fine(value: float | None) -> str:
    """A small share, such as ``2.31 %``."""
    return NO_DATA if value is None else f"{100 * value:.2f}\u00a0%"


def _points(change: Estimate | None) -> str:
    if change is None:
        return NO_DATA
    value, lower, upper = (
        signed(100 * limit, 2) for limit in (change.value, change.lower, change.upper)
    )
    return f"{value} points ({lower} to {upper})"


def _weights_grid(rows: Sequence[tuple[list[str], Row]]) -> Grid:
    header = [
        "experiment",
        "variant",
        "share",
        "95 % interval",
        "coverage",
        *(weight.replace("_", " ") for weight in WEIGHTS),
        "settings on record",
        "decisions",
        "users",
    ]
    return Grid(
        "Blend weights on record, most frequent",
        header,
        [
            [
                *name,
                percent(number(row, "personalized_impression_rate")),
                _range(_MEASURES[0].estimate(row), percent, NO_DATA),
                percent(number(row, "reason_coverage_rate")),
                *(decimal(number(row, weight)) for weight in WEIGHTS),
                count(number(row, "weight_settings")),
                count(number(row, "decisions")),
                count(number(row, "users")),
            ]
            for name, row in rows
        ],
        names=2,
    )


def _arms_overlap_grid(arms: Sequence[Row]) -> Grid:
    rows = sorted(
        (row for row in arms if row["surface"] != ALL and row["experiment"] != NONE),
        key=lambda row: (row["experiment"], row["surface"], row["variant"]),
    )
    header = ["experiment", "variant", "surface", "overlap", "95 % interval", "users compared"]
    return Grid(
        "Overlap by variant",
        header,
        [
            [
                _named(row["experiment"]),
                _named(row["variant"]),
                clean(row["surface"]),
                decimal(mean, 3) if (mean := number(row, "jaccard_mean")) is not None else TOO_FEW,
                _range(interval(row, "jaccard_mean"), lambda value: decimal(value, 3), TOO_FEW),
                count(number(row, "overlap_users")),
            ]
            for row in rows
        ],
        names=3,
    )


def _sources(today: Sequence[Row], before: Sequence[Row]) -> Part:
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
    for row in sorted(today, key=lambda row: (row["source"], *_rolled_first(row, "surface"))):
        earlier = past.get((row["surface"], row["source"]), [])
        found = [row for row in earlier if number(row, "candidates")]
        decisions, empty = number(row, "decisions"), number(row, "empty_decisions")
        rows.append(
            [
                clean(row["source"]),
                _place(row["surface"]),
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


# --- data quality -----------------------------------------------------------------------------


def quality_grids(quality: Quality, days: Days, names: Sequence[str]) -> list[Grid]:
    """What became of the day's traces, and of what part users, brands and categories are known."""
    rows = [
        ["decisions that were counted", count(quality.decisions)],
        ["further deliveries of a decision, not counted", count(quality.repeated)],
        ["lines that are no JSON, skipped", count(quality.skipped_lines)],
        ["traces without a readable time, of no day", count(quality.undated)],
        ["malformed traces", count(sum(quality.malformed.values()))],
        *(
            [f"malformed: {clean(reason).replace('_', ' ')}", count(number_of)]
            for reason, number_of in sorted(quality.malformed.items())
        ),
        *(
            [f"cohort from {_RULES.get(rule, clean(rule))}", count(number_of)]
            for rule, number_of in sorted(quality.cohort_rules.items())
        ),
        *(
            [f"device from {_RULES.get(rule, clean(rule))}", count(number_of)]
            for rule, number_of in sorted(quality.device_rules.items())
        ),
        ["days before by which users are new or returning", count(quality.history_days)],
        ["days before in this report", count(len(days.on_record))],
    ]
    grids = [Grid("Traces of the day", ["what", "number"], rows)]
    if quality.outcomes is not None:
        grids.append(Grid("Outcomes", ["what", "number"], _outcome_rows(quality.outcomes)))
    known = []
    for name in names:
        today = days.rows(PERSONALIZATION_DAILY, name)
        row: Row = next((row for row in everybody(today) if row["surface"] == ALL), {})
        share = number(row, "known_user_share")
        surfaces = [row for row in everybody(today) if row["surface"] != ALL]
        few = sum((number(row, "overlap_users") or 0) < MIN_USERS for row in surfaces)
        known.append(
            [
                clean(name),
                percent(None if share is None else 1 - share),
                percent(number(row, "entropy_brand_known_share")),
                percent(number(row, "entropy_category_known_share")),
                f"{few} of {len(surfaces)}",
                count(number(row, "empty_decisions")),
            ]
        )
    header = [
        "namespace",
        "decisions without a user",
        "items with a known brand",
        "with a known category",
        f"surfaces with under {MIN_USERS} users to compare",
        "decisions that served nothing",
    ]
    if known:
        grids.append(Grid("What is known", header, known))
    return grids


def _outcome_rows(outcomes: OutcomeQuality) -> list[list[str]]:
    return [
        *(
            [f"outcomes read: {clean(kind)}", count(number_of)]
            for kind, number_of in outcomes.types.items()
        ),
        *(
            [f"outcomes not read: {clean(kind).replace('_', ' ')}", count(number_of)]
            for kind, number_of in sorted(outcomes.unreadable.items())
        ),
        ["outcomes of other decisions than the day's", count(outcomes.other_decisions)],
        ["outcomes of items that were not served", count(outcomes.unknown_items)],
        ["clicked items without an impression, in no rate", count(outcomes.unseen_clicks)],
        [
            "impressions of which nobody knows whether they were personalised",
            count(outcomes.uncompared_impressions),
        ],
        [
            "users of several variants, in no test of how users were split",
            count(outcomes.users_of_several_variants),
        ],
    ]


_RULES: Final = {
    "extras": "the trace (extras)",
    "history": "the days before",
    "bucket_key": "the bandit's bucket key",
    "unknown": "nothing: unknown",
}
