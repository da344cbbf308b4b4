"""A day of an organisation: from snapshots to the rows of its tables.

::

    with DuckDB(manifests, org_id) as engine:
        tables = compute(engine, Run(date(2026, 11, 21), org_id))
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, Final

import pyarrow as pa

from otel_personalization.daily.decisions import UNDATED
from otel_personalization.daily.engines import Engine, EngineError
from otel_personalization.daily.lines import DAMAGED, NO_JSON, OTHER_DAYS
from otel_personalization.daily.manifest import Manifest
from otel_personalization.daily.measures import MOST_USERS, Exposure, Lists, Settings, Totals
from otel_personalization.daily.outcomes import (
    Arms,
    Clicks,
    Outcomes,
    quality_of,
    sample_ratio_p_value,
)
from otel_personalization.daily.rollup import Cells, Row, UserSets, rolled_up, users_of
from otel_personalization.daily.served import USER_GROUPS
from otel_personalization.daily.sources import count_sources
from otel_personalization.daily.tables import (
    ALL,
    BLEND_WEIGHTS_DAILY,
    NONE,
    PERSONALIZATION_DAILY,
    SOURCES_DAILY,
    DayTables,
    OutcomeQuality,
    Quality,
    Table,
    arrow_schema,
)

DEFAULT_K: Final = 10
DEFAULT_WINDOW_DAYS: Final = 1
DEFAULT_HISTORY_DAYS: Final = 28

Tell = Callable[[str], None]
"""Is told what is being done."""


@dataclass(frozen=True)
class Run:
    """What is computed.

    Args:
        day: UTC date.
        org_id: organisation.
        k: how many distinct items of a list are compared at most.
        window_days: days from which the last list of a user is taken, the day itself included.
        history_days: days before the day in which a returning user was seen.
    """

    day: date
    org_id: str
    k: int = DEFAULT_K
    window_days: int = DEFAULT_WINDOW_DAYS
    history_days: int = DEFAULT_HISTORY_DAYS

    @property
    def window_start(self) -> date:
        """First day of the window."""
        return self.day - timedelta(days=self.window_days - 1)

    @property
    def history_start(self) -> date:
        """First day of history; the last is the one before the day."""
        return self.day - timedelta(days=self.history_days)

    @property
    def needed_days(self) -> list[date]:
        """The days of which snapshots are read, in order; the last is the day itself."""
        first = min(self.window_start, self.history_start)
        return [first + timedelta(days=n) for n in range((self.day - first).days + 1)]

    def history_of(self, manifests: Iterable[Manifest]) -> list[date]:
        """The days of history on which the organisation had decisions."""
        return [
            manifest.day
            for manifest in manifests
            if self.history_start <= manifest.day < self.day
            and self.org_id in manifest.organisations
        ]

    def missing_of(self, days: Container[date]) -> tuple[date, ...]:
        """The days of the window that are not among these."""
        window = (day for day in self.needed_days if day >= self.window_start)
        return tuple(day for day in window if day not in days)


_TABLES: Final = ("cell_sums", "cell_totals", "cell_users", "compared_users", "last_decisions")
"""Made in this order, of the placed decisions and of each other."""


def compute(
    engine: Engine,
    run: Run,
    manifests: Mapping[date, Manifest],
    tell: Tell = lambda _: None,
    *,
    outcomes: Outcomes | None = None,
) -> DayTables:
    """The rows of the tables of a day.

    Args:
        engine: with the snapshots of every day that the run needs.
        run: what is computed.
        manifests: of those snapshots.
        tell: is told what is being done.
        outcomes: what became of served items, on this day or another.

    Raises:
        EngineError: the engine counted other decisions than the snapshot of the day has.
    """
    history = run.history_of(manifests.values())
    parameters: dict[str, object] = {
        "day": run.day,
        "window_start": run.window_start,
        "history_start": run.history_start,
        "history_end": run.day - timedelta(days=1),
        "has_history": "TRUE" if history else "FALSE",
        "most_users": MOST_USERS,
    }
    tell(f"{run.day}: users of the days before")
    engine.make("seen_users", **parameters)
    tell(f"{run.day}: repeated deliveries")
    engine.make("repeated", **parameters)
    engine.define("counted", **parameters)
    tell(f"{run.day}: cells")
    engine.make("cells")
    tell(f"{run.day}: cells of decisions")
    engine.make("placed", user_groups=USER_GROUPS)
    engine.define("window_decisions")
    for name in _TABLES:
        tell(f"{run.day}: {name}")
        engine.make(name, **parameters)
    quality = _quality(engine, run, manifests[run.day], len(history))
    counted = quality.decisions + quality.repeated
    stored = manifests[run.day].organisations.get(run.org_id, 0)
    if counted != stored:
        raise EngineError(
            f"of {run.day} {counted:,} decisions were counted, and its manifest has {stored:,}; "
            "make the snapshot again"
        )
    if outcomes is not None:
        tell(f"{run.day}: outcomes")
        engine.add("outcomes", outcomes.data)
        for name in ("outcome_pairs", "outcome_totals", "outcome_items"):
            engine.make(name, **parameters)

    def read(name: str) -> pa.Table:
        tell(f"{run.day}: {name}")
        return engine.query(name, **parameters)

    rows = _Rows(engine, run, outcomes, read, tell)
    return DayTables(
        run.day,
        run.org_id,
        {
            PERSONALIZATION_DAILY.qualified_name: rows.personalization(),
            SOURCES_DAILY.qualified_name: _table(
                SOURCES_DAILY,
                run,
                (
                    {
                        **place._asdict(),
                        "candidates": counts.candidates,
                        "decisions": counts.decisions,
                        "empty_decisions": counts.empty_decisions,
                        "longest_empty_streak": counts.longest_empty_streak,
                    }
                    for place, counts in sorted(rows.sources.items())
                ),
            ),
            BLEND_WEIGHTS_DAILY.qualified_name: rows.blend_weights(),
        },
        replace(
            quality,
            missing_window_days=run.missing_of(manifests),
            outcomes=rows.outcome_quality,
        ),
    )


@dataclass
class _Memo:
    """What was computed of cells, by those cells."""

    compute: Callable[[Cells], dict[str, Any]]
    known: dict[Cells, dict[str, Any]] = field(default_factory=dict)

    def fill(self, wanted: Iterable[Cells]) -> None:
        """Compute it of cells."""
        missing = sorted(set(wanted) - self.known.keys())
        self.known.update(zip(missing, map(self.compute, missing), strict=True))


class _Rows:
    """Makes the rows of a run from what the statements counted."""

    def __init__(
        self,
        engine: Engine,
        run: Run,
        outcomes: Outcomes | None,
        read: Callable[[str], pa.Table],
        tell: Tell,
    ) -> None:
        self._run = run
        totals = Totals(engine.fetch("cell_totals"))
        self._rows = {
            row: cells
            for row, cells in sorted(rolled_up(engine.fetch("cells")).items())
            if not totals.cells.isdisjoint(cells)
        }
        distinct = sorted(set(self._rows.values()))
        sets = UserSets.of(read("user_sets"))
        self._users = dict(zip(distinct, users_of(sets.there, distinct), strict=True))
        eligible = dict(zip(distinct, users_of(sets.listed, distinct), strict=True))
        settings = Settings(read("cell_settings"))
        tell(f"{run.day}: what was served")
        served = engine.served(run.day)
        exposure = Exposure(served.items, served.values)
        lists = Lists(served.lists, run.k, run.window_days)
        del served
        self._totals = _Memo(totals.of)
        self._totals.fill(distinct)
        # To compare lists takes one thread about as long as the rest takes others; several threads
        # that compare would wait for each other, since numpy is called for little at a time.
        with ThreadPoolExecutor(1) as beside:
            overlap = beside.submit(self._compare_lists, lists, eligible)
            tell(f"{run.day}: sources")
            self.sources = count_sources(engine.source_events(run.day), engine.fetch("cells"))
            tell(f"{run.day}: exposure, entropy and overlap")
            self._exposure = _Memo(
                lambda cells: exposure.of(cells, self._totals.known[cells]["served_items"])
            )
            self._exposure.fill(cells for row, cells in self._rows.items() if row.experiment == ALL)
            self._settings = _Memo(settings.of)
            self._settings.fill(distinct)
            self._overlap = overlap.result()
        self._outcomes: _Memo | None = None
        self._splits: dict[Row, dict[str, Any]] = {}
        self.outcome_quality: OutcomeQuality | None = None
        if outcomes is not None:
            items = engine.fetch("outcome_items")
            self._outcomes = _Memo(Clicks(items).of)
            self._outcomes.fill(distinct)
            several = self._compare_arms(Arms(sets.there, engine.fetch("cells")))
            (of_day,) = engine.fetch("outcome_totals")["outcomes"].to_pylist()
            self.outcome_quality = quality_of(outcomes, of_day, items, several)

    def _compare_lists(
        self, lists: Lists, eligible: Mapping[Cells, int]
    ) -> dict[Cells, dict[str, Any]]:
        """Compare lists a surface at a time: its rows have most of them in common."""
        surfaces: defaultdict[tuple[str, str], set[Cells]] = defaultdict(set)
        for row, cells in self._rows.items():
            if row.surface != ALL:
                surfaces[row.namespace, row.surface].add(cells)
        found: dict[Cells, dict[str, Any]] = {}
        for sets in surfaces.values():
            found |= lists.of(sets, eligible)
        return found

    def _compare_arms(self, arms: Arms) -> int:
        """Test how users were split in each experiment; how many were in several variants."""
        found = 0
        for row, cells in self._rows.items():
            if row.experiment not in (ALL, NONE) and row.variant == ALL:
                users, several = arms.of(cells)
                self._splits[row] = {
                    "sample_ratio_p_value": sample_ratio_p_value(users),
                    "users_of_several_variants": several,
                }
                if row.surface == row.cohort == row.device == ALL:
                    found += several
        return found

    def personalization(self) -> pa.Table:
        """Those that are not told apart by experiment."""
        return _table(
            PERSONALIZATION_DAILY,
            self._run,
            (
                {**self._common(row, cells), **self._exposure.known[cells]}
                for row, cells in self._rows.items()
                if row.experiment == ALL
            ),
        )

    def blend_weights(self) -> pa.Table:
        """All of them."""
        return _table(
            BLEND_WEIGHTS_DAILY,
            self._run,
            (
                {
                    **self._common(row, cells),
                    **self._settings.known[cells],
                    **(self._outcomes.known[cells] if self._outcomes is not None else {}),
                    **self._splits.get(row, {}),
                }
                for row, cells in self._rows.items()
            ),
        )

    def _common(self, row: Row, cells: Cells) -> dict[str, Any]:
        overlap = self._overlap[cells] if row.surface != ALL else {}
        return {
            **row._asdict(),
            **self._totals.known[cells],
            "users": self._users[cells],
            **overlap,
        }


def _table(table: Table, run: Run, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table; what a row does not have is null, and what the table has not is left out."""
    whole = {"day": run.day, "org_id": run.org_id}
    return pa.Table.from_pylist([whole | dict(row) for row in rows], arrow_schema(table))


def _quality(
    engine: Engine,
    run: Run,
    manifest: Manifest,
    history_days: int,
) -> Quality:
    """How well the decisions of the day were told apart; of its window and outcomes, nothing."""
    totals = engine.fetch("cell_totals").to_pylist()
    rules: dict[str, dict[str, int]] = {"cohort_rule": {}, "device_rule": {}}
    for row in totals:
        for name, counts in rules.items():
            counts[row[name]] = counts.get(row[name], 0) + row["decisions"]
    problems = dict(manifest.problems)
    problems.pop(OTHER_DAYS, None)
    skipped, damaged, undated = (problems.pop(kind, 0) for kind in (NO_JSON, DAMAGED, UNDATED))
    return Quality(
        decisions=sum(row["decisions"] for row in totals),
        malformed=problems,
        skipped_lines=skipped,
        damaged_rests=damaged,
        undated=undated,
        repeated=engine.fetch("repeated")["day"].to_pylist().count(run.day),
        cohort_rules=rules["cohort_rule"],
        device_rules=rules["device_rule"],
        history_days=history_days,
        outcomes=None,
    )
