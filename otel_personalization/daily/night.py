"""A run of the nightly job: days of snapshots, into the warehouse, the Pushgateway and a report."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from io import StringIO
from pathlib import Path

from otel_personalization.console import whole_file, writing
from otel_personalization.daily.engines import DuckDB, Engine, EngineError
from otel_personalization.daily.figures import PublishError, previous_overlap, write_lines
from otel_personalization.daily.job import Run, Tell, compute
from otel_personalization.daily.lines import FileLines, Problems, SourceError
from otel_personalization.daily.manifest import (
    Manifest,
    MissingDayError,
    SnapshotError,
    check,
    read_manifest,
)
from otel_personalization.daily.outcomes import Outcomes, OutcomesError, read_outcomes
from otel_personalization.daily.snapshot import EmptyDayError, write
from otel_personalization.daily.tables import (
    PERSONALIZATION_DAILY,
    SOURCES_DAILY,
    DayTables,
)
from otel_personalization.daily.warehouse import Warehouse, WarehouseError, open_warehouse
from otel_personalization.ndjson import STDIN
from otel_personalization.outputs import output_for


class NightError(Exception):
    """A run ended: what was wrong, where, and what to do."""


class OrganisationError(NightError):
    """There are several organisations, and the order names none."""


@dataclass(frozen=True)
class Order:
    """What a run is to do."""

    days: Sequence[date]
    """In order."""
    warehouse: str
    spark: bool
    pushgateway: str | None
    report: Path | None
    """``-`` is standard output; None for no page."""
    outcomes: Sequence[Path]
    """Files of what became of served items; none where it is not known."""
    log: Path | None
    """``-`` is standard output; None for no log lines."""
    k: int
    window_days: int
    history_days: int
    org: str | None

    def run_of(self, day: date, org_id: str) -> Run:
        """What is computed of a day."""
        return Run(day, org_id, self.k, self.window_days, self.history_days)

    @property
    def needed_days(self) -> set[date]:
        """The days of which any run reads the snapshot."""
        return {of_day for day in self.days for of_day in self.run_of(day, "").needed_days}


@dataclass
class Stored:
    """A folder of snapshots, and what was not counted of the files that it was made from."""

    folder: Path
    problems: Problems | None = None


@dataclass(frozen=True)
class Telling:
    """Who is told of a run, of each thing at once: what comes after it may fail."""

    doing: Tell
    """What is being done."""
    note: Callable[[str], None]
    """What whoever runs it should know, such as what is done."""
    uncounted: Callable[[Problems], None]
    """What was not counted of files that were read: traces, if they were no snapshots, and
    outcomes."""
    missing: Callable[[str], None]
    """A day that cannot be computed, and why."""


@dataclass
class Result:
    """What became of a run."""

    is_partial: bool = False
    """Whether lines were not counted, of files or of snapshots."""
    is_missing: bool = False
    """Whether a day could not be computed."""


@contextmanager
def stored(
    traces: Sequence[Path],
    days: Collection[date],
    progress: Callable[[Path, int], None] | None,
    stages: Collection[str],
) -> Iterator[Stored]:
    """The snapshots of traces: a folder of them as it is, or one made of files for the time being.

    Args:
        traces: the folder, or the files.
        days: those that are written of files; what could not be counted of others is not told.
        progress: see `ndjson.Progress`.
        stages: keys of ``extras.candidate_sources`` that are no sources; of files.

    Raises:
        NightError: a file cannot be read.
    """
    if len(traces) == 1 and traces[0].is_dir():
        yield Stored(traces[0])
        return
    lines = FileLines(traces, progress)
    with tempfile.TemporaryDirectory(prefix="personalization-") as folder:
        try:
            with writing(_temporary()):
                write(lines, Path(folder), days, stages=stages)
        except EmptyDayError:
            pass  # it is told of the days that are asked for
        except (SnapshotError, SourceError) as error:
            raise NightError(str(error)) from None
        yield Stored(Path(folder), lines.problems)


def run(order: Order, stored: Stored, telling: Telling) -> Result:
    """Compute the days of an order, each into the warehouse as soon as it is there.

    Args:
        order: what is to be done.
        stored: the snapshots.
        telling: who is told.

    Raises:
        OrganisationError: the order has to name one; nothing was computed.
        NightError: something could not be read or written, or a server did not answer. Days
            before it are in the warehouse.
        OSError: a file could not be read or written.
    """
    result = Result()
    tell = telling.doing
    if stored.problems is not None:
        result.is_partial |= bool(stored.problems.counts)
        telling.uncounted(stored.problems)
    with tempfile.TemporaryDirectory(prefix="personalization-") as scratch, _told():
        outcomes = None
        if order.outcomes:
            tell("outcomes")
            with writing(_temporary()):
                outcomes = read_outcomes(order.outcomes, Path(scratch) / "outcomes.parquet")
            result.is_partial |= bool(outcomes.problems.counts)
            telling.uncounted(outcomes.problems)
            if not outcomes.count:
                telling.note("no outcome could be read: there is no click-through rate")
        manifests = _manifests(stored.folder, order.needed_days)
        org_id = _organisation(order, manifests)
        # Before the warehouse is opened, which would make one even where there is nothing to keep.
        there = []
        for day in order.days:
            if day in manifests and org_id in manifests[day].organisations:
                there.append(day)
            else:
                result.is_missing = True
                telling.missing(_missing(day, order, stored, manifests))
        if not there:
            return result
        with open_warehouse(order.warehouse) as warehouse:
            for day in there:
                last = _computed(order, order.run_of(day, org_id), stored, outcomes, telling)
                tell(f"{day} into the warehouse")
                warehouse.replace(last)
                telling.note(_summary(last))
                if last.quality.missing_window_days:
                    telling.note(_missing_of_window(last, order, stored))
                if outcomes is not None and _is_unmatched(outcomes, last):
                    telling.note(
                        f"{day}: none of {outcomes.count:,} outcomes is of a decision of that day; "
                        "a decision_id compares as text"
                    )
                result.is_partial |= _is_partial(last)
                _log(order, warehouse, last)
            _publish(order, warehouse, last, telling)
    return result


def _temporary() -> str:
    return f"the folder of temporary files {tempfile.gettempdir()} (TMPDIR)"


@contextmanager
def _told() -> Iterator[None]:
    """What rooms raise becomes the end of a run."""
    try:
        yield
    except (SnapshotError, WarehouseError, PublishError, OutcomesError, EngineError) as error:
        raise NightError(str(error)) from None


def _manifests(folder: Path, days: Collection[date]) -> dict[date, Manifest]:
    """Of the days that are there."""
    found = {}
    for day in sorted(days):
        with suppress(MissingDayError):  # and nothing else, such as a folder that cannot be read
            found[day] = read_manifest(folder, day)
    return found


def _computed(
    order: Order, run: Run, stored: Stored, outcomes: Outcomes | None, telling: Telling
) -> DayTables:
    """The rows of a day; of the snapshots as they are when the last of them has been read."""
    manifests = _manifests(stored.folder, run.needed_days)
    while True:
        if run.day not in manifests or run.org_id not in manifests[run.day].organisations:
            what = f"the decisions of {run.org_id} on {run.day} were taken out of the snapshots"
            raise SnapshotError(what, "run it again, for the days that are there")
        try:
            for manifest in manifests.values():
                check(manifest)
            with _engine(order, list(manifests.values()), run.org_id) as engine:
                return compute(engine, run, manifests, telling.doing, outcomes=outcomes)
        except (SnapshotError, EngineError, OSError):
            # A snapshot that is replaced is removed, under the eyes of whoever reads it.
            now = _manifests(stored.folder, run.needed_days)
            if now == manifests:
                raise
            manifests = now
            telling.note(f"a snapshot was replaced meanwhile: {run.day} is computed once more")


def _organisation(order: Order, manifests: dict[date, Manifest]) -> str:
    """The organisation whose decisions are computed."""
    if order.org is not None:
        return order.org
    found = sorted(
        {
            org_id
            for day in order.days
            if day in manifests
            for org_id in manifests[day].organisations
        }
    )
    if len(found) > 1:
        raise OrganisationError(
            f"there are decisions of {len(found)} organisations ({_first_of(found)}); say which "
            f"one: --org {found[0]}"
        )
    return found[0] if found else ""


def _missing(day: date, order: Order, stored: Stored, manifests: dict[date, Manifest]) -> str:
    of_org = f" of organisation {order.org}" if order.org is not None else ""
    if day in manifests:
        there = ", ".join(sorted(manifests[day].organisations))
        return f"there is no decision{of_org} on {day}; there are those of {there}"
    if stored.problems is not None:
        return f"there is no decision on {day} in the input"
    return (
        f"there is no snapshot of {day} in {stored.folder}; make it with: "
        f"otel-personalization snapshot --day {day} --to {stored.folder} --from ..."
    )


def _missing_of_window(tables: DayTables, order: Order, stored: Stored) -> str:
    missing = tables.quality.missing_window_days
    nothing = "no snapshot of" if stored.problems is None else "no decision in the input on"
    return (
        f"{tables.day}: lists are of {order.window_days - len(missing)} of {order.window_days} "
        f"days: there is {nothing} {_first_of(missing)}"
    )


def _first_of(these: Sequence[object]) -> str:
    """The first five, and whether there are more."""
    return f"{', '.join(map(str, these[:5]))}{', ...' if len(these) > 5 else ''}"


def _is_unmatched(outcomes: Outcomes, tables: DayTables) -> bool:
    """Whether there are outcomes, all of other decisions: of other days, or with other ids."""
    of_day = tables.quality.outcomes
    return of_day is not None and 0 < outcomes.count == of_day.other_decisions


def _engine(order: Order, manifests: list[Manifest], org_id: str) -> AbstractContextManager[Engine]:
    if not order.spark:
        return DuckDB(manifests, org_id)
    from otel_personalization.daily.spark import Spark  # noqa: PLC0415  # few have it

    return Spark(manifests, org_id)


def _previous_overlap(warehouse: Warehouse, tables: DayTables) -> dict[tuple[str, str], float]:
    before = tables.day - timedelta(days=1)
    return previous_overlap(
        tables, warehouse.read(PERSONALIZATION_DAILY, tables.org_id, before, before)
    )


def _log(order: Order, warehouse: Warehouse, tables: DayTables) -> None:
    if order.log is None:
        return
    previous = _previous_overlap(warehouse, tables)
    if order.log == STDIN:
        with writing("standard output"):
            write_lines(tables, sys.stdout, previous)
            sys.stdout.flush()
    else:
        lines = StringIO()
        write_lines(tables, lines, previous)
        file = order.log.absolute()  # never the name of a stream, such as stdout
        with writing(order.log, file):
            output = output_for(str(file))
            assert output is not None
            with closing(output):
                # Whole lines: the next run would write on after half a one.
                done = output.write(lines.getvalue().encode("ascii").splitlines(keepends=True))
            if done.error is not None:
                raise done.error


def _publish(order: Order, warehouse: Warehouse, tables: DayTables, telling: Telling) -> None:
    """Push the last day, and report on it."""
    if order.report is not None:
        telling.doing("report")
        # Slow to import.
        from otel_personalization.daily.report import HISTORY_DAYS, render  # noqa: PLC0415

        first = tables.day - timedelta(days=HISTORY_DAYS)
        before = tables.day - timedelta(days=1)
        history = {
            table.qualified_name: warehouse.read(table, tables.org_id, first, before)
            for table in (PERSONALIZATION_DAILY, SOURCES_DAILY)
        }
        page = render(tables, history, made_at=datetime.now(timezone.utc))
        if order.report == STDIN:
            with writing("standard output"):
                sys.stdout.buffer.write(page.encode())  # whatever the terminal's encoding is
                sys.stdout.flush()
        else:
            with whole_file(order.report) as stream:
                assert stream is not None
                stream.write(page)
        telling.note(f"report: {order.report}")
    if order.pushgateway is not None:
        from otel_personalization.daily.publish import push  # noqa: PLC0415  # HTTP

        telling.doing("Pushgateway")
        pushed = push(order.pushgateway, tables, _previous_overlap(warehouse, tables))
        if pushed.newer_day is not None:
            telling.note(
                f"not pushed: the Pushgateway has {pushed.newer_day}, which is later than "
                f"{tables.day}"
            )
        elif pushed.left_out:
            places = ", ".join("/".join(place) for place in pushed.left_out[:5])
            telling.note(
                f"{len(pushed.left_out)} surfaces have no series in the Pushgateway, which are too "
                f"many ({places})"
            )


def _summary(tables: DayTables) -> str:
    quality = tables.quality
    rows = ", ".join(f"{name} {rows.num_rows:,} rows" for name, rows in tables.rows.items())
    return f"{tables.day}: {quality.decisions:,} decisions; {rows}"


def _is_partial(tables: DayTables) -> bool:
    quality = tables.quality
    lost = quality.malformed, quality.skipped_lines, quality.damaged_rests, quality.undated
    return any(lost)
