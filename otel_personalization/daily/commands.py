"""The commands ``snapshot`` and ``daily``; what they need is imported when they run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from otel_personalization.console import (
    FAILED,
    NO_TRACES,
    SOME_NOT_COUNTED,
    fail,
    printing,
    progress_of,
    show_problems,
    told,
    url_such_as,
    working,
    writing,
)
from otel_personalization.conventions import ENVIRONMENT_PREFIX
from otel_personalization.daily.signals import ended_by_signals, no_error_of_a_signal
from otel_personalization.ndjson import STDIN
from otel_personalization.settings import resolve
from otel_personalization.urls import is_postgresql, may_hold_password

if TYPE_CHECKING:
    from otel_personalization.daily.lines import Problems

FIRST_DAY: Final = date(1000, 1, 1)
LAST_DAY: Final = date(9998, 12, 31)
"""So that there are days of history before each, of four digits, and one after it."""


class EngineName(str, Enum):
    """Where statements run."""

    duckdb = "duckdb"
    spark = "spark"


_Day = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="UTC date, such as 2026-11-21."),
]
_FromDay = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="First of several days."),
]
_ToDay = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="Last of several days."),
]


@ended_by_signals()
def snapshot(
    *,
    source: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="FILE|URL",
            help="NDJSON, gzipped or not, - is standard input; may be given several times. Or the "
            "PostgreSQL that has rec_decisions, such as postgresql://USER@HOST/DATABASE.",
        ),
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder of snapshots.")],
    day: _Day = None,
    from_day: _FromDay = None,
    to_day: _ToDay = None,
    org: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this organisation, of PostgreSQL.")
    ] = None,
) -> None:
    """Store the decisions of days as Parquet, which is what the nightly job reads.

    A day that is there already is replaced as a whole. Without a day, files give every day that
    they hold.

    \b
    Exit codes:
      0  every line was counted
      1  something could not be read or written
      2  a day has no decision, or the command was wrong
      3  some lines were not counted; they are listed by file and line
    """  # noqa: D301  # the character, which keeps lines apart
    days = _days(day, from_day, to_day)
    is_database = any(map(is_postgresql, source))
    _check_paths(
        "--from",
        "files, or postgresql://USER@HOST/DATABASE",
        [place for place in source if not is_postgresql(place)],
    )
    _check_paths("--to", "a folder", [to])
    with _needed("daily"):
        from otel_personalization.daily.lines import FileLines, Lines, SourceError  # noqa: PLC0415
        from otel_personalization.daily.manifest import SnapshotError  # noqa: PLC0415
        from otel_personalization.daily.snapshot import EmptyDayError, write  # noqa: PLC0415

        if is_database:
            from otel_personalization.daily.postgres_lines import PostgresLines  # noqa: PLC0415
    if is_database and (len(source) > 1 or not days):
        raise typer.BadParameter("of PostgreSQL it takes one URL, and --day", param_hint="--from")
    if org is not None and not is_database:
        raise typer.BadParameter("it takes PostgreSQL; daily has --org, too", param_hint="--org")
    files = [] if is_database else [Path(place) for place in source]
    try:
        _check_no_folder("--from", files)
        _check_lines("--from", files)
    except OSError as error:
        fail(told(error))
    empty: list[str] = []
    is_partial = False
    with progress_of(files) as progress, working() as (tell, stop):
        inputs: list[tuple[Lines, list[date] | None]] = (
            [(PostgresLines(source[0], of_day, org), [of_day]) for of_day in days]
            if is_database
            else [(FileLines(files, progress), days or None)]
        )
        for lines, wanted in inputs:
            if is_database:
                tell(f"snapshot of {', '.join(map(str, wanted or ()))}")
            try:
                with writing(to), no_error_of_a_signal():
                    written = write(lines, to, wanted, stages=_stages())
            except EmptyDayError as error:
                empty.append(f"of organisation {org} {error}" if org is not None else str(error))
                written = dict(error.manifests)
            except (SnapshotError, SourceError) as error:
                stop()
                fail(str(error))
            except OSError as error:
                stop()
                fail(told(error))
            stop()
            for manifest in written.values():
                with printing():
                    typer.echo(f"{manifest.day}: {manifest.rows:,} decisions in {manifest.data}")
            is_partial = _tell_problems(lines.problems) or is_partial
    for what in empty:
        typer.echo(f"otel-personalization: {what}", err=True)
    raise typer.Exit(NO_TRACES if empty else SOME_NOT_COUNTED if is_partial else 0)


@ended_by_signals()
def daily(
    *,
    traces: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR|FILE",
            help="Folder of snapshots; or NDJSON, gzipped or not, - is standard input, which may "
            "be given several times.",
        ),
    ],
    day: _Day = None,
    from_day: _FromDay = None,
    to_day: _ToDay = None,
    engine: Annotated[EngineName, typer.Option(help="Where it is computed.")] = EngineName.duckdb,
    warehouse: Annotated[
        str,
        typer.Option(
            metavar="FILE|URL|DIR",
            help="Where the tables are: a file of DuckDB, a PostgreSQL such as "
            "postgresql://USER@HOST/DATABASE, or a folder for Parquet, written DIR/.",
        ),
    ] = "personalization.duckdb",
    pushgateway: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=url_such_as("http://localhost:9091"),
            help="Push the figures of the last day there.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page of HTML on the last day; - is standard output."
        ),
    ] = None,
    outcomes: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="What became of served items, of any days: NDJSON, gzipped or not, or Parquet; "
            "may be given several times.",
        ),
    ] = None,
    log: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Where log lines of the figures go: -, none or a file to add to."
        ),
    ] = "-",
    k: Annotated[int, typer.Option(min=1, max=200, help="Items of a list to compare.")] = 10,
    window_days: Annotated[
        int, typer.Option(min=1, max=366, help="Days from which users' last lists are taken.")
    ] = 1,
    history_days: Annotated[
        int, typer.Option(min=1, max=366, help="Days before, in which returning users were seen.")
    ] = 28,
    org: Annotated[
        str | None, typer.Option(metavar="ID", help="Organisation, where there are several.")
    ] = None,
) -> None:
    """Compute overlap, entropy and exposure of a day, and replace it in the warehouse.

    \b
    Exit codes:
      0  every line was counted
      1  something could not be read or written, or a server did not answer
      2  a day has no decision, or the command was wrong
      3  it is done, but some lines were not counted
    """  # noqa: D301  # the character, which keeps lines apart
    days = _days(day, from_day, to_day)
    if not days:
        raise typer.BadParameter("say which day, such as --day 2026-11-21", param_hint="--day")
    with _needed("daily"):
        from otel_personalization.daily import night  # noqa: PLC0415
        from otel_personalization.daily.figures import PublishError  # noqa: PLC0415
        from otel_personalization.daily.warehouse import (  # noqa: PLC0415
            WarehouseError,
            check_target,
        )

        if pushgateway is not None:
            from otel_personalization.daily.publish import push_run  # noqa: PLC0415  # HTTP
        if is_postgresql(warehouse):
            import psycopg  # noqa: F401, PLC0415  # not missed once files are read
        if report is not None:
            import otel_personalization.daily.report  # noqa: F401, PLC0415  # nor once a day is stored

    order = night.Order(
        days=days,
        warehouse=warehouse,
        spark=engine is EngineName.spark,
        pushgateway=pushgateway,
        report=report,
        outcomes=outcomes or (),
        log=None if log == "none" else Path(log),
        k=k,
        window_days=window_days,
        history_days=history_days,
        org=org,
    )
    succeeded = False
    failure = None
    try:  # what is wrong with a command is a failed run, too
        _check_paths(
            "--traces",
            "files, or a folder of snapshots, which snapshot makes of PostgreSQL",
            traces,
        )
        _check_paths("--outcomes", "files", outcomes or ())
        _check_paths("--report", "- or a file", [report or ""])
        _check_paths("--log", "-, none or a file", [log])
        _check_inputs(traces, outcomes or ())
        if order.report == order.log == STDIN:
            raise typer.BadParameter(
                "- is standard output, where log lines go: add --log none, or --log FILE",
                param_hint="--report",
            )
        if sys.stdout is None and STDIN in (order.log, order.report):
            raise typer.BadParameter(
                "standard output is closed: write to a file",
                param_hint="--log" if order.log == STDIN else "--report",
            )
        try:
            check_target(warehouse)
        except WarehouseError as error:
            raise typer.BadParameter(str(error), param_hint="--warehouse") from None
        with no_error_of_a_signal(), ExitStack() as stack:
            with progress_of([path for path in traces if not path.is_dir()]) as progress:
                stored = stack.enter_context(
                    night.stored(traces, order.needed_days, progress, _stages())
                )
            tell, stop = stack.enter_context(working())

            def note(what: str) -> None:
                stop()
                typer.echo(what, err=True)

            def uncounted(problems: Problems) -> None:
                stop()
                _tell_problems(problems)

            telling = night.Telling(
                tell, note, uncounted, lambda what: note(f"otel-personalization: {what}")
            )
            result = night.run(order, stored, telling)
        succeeded = not result.is_missing
    except night.NightError as error:
        failure = str(error)
        fail(failure, NO_TRACES if isinstance(error, night.OrganisationError) else FAILED)
    except OSError as error:
        fail(told(error))
    finally:
        if pushgateway is not None:
            try:
                push_run(pushgateway, success=succeeded, org_id=org)
            except PublishError as error:
                if str(error) != failure:  # which is told already
                    typer.echo(f"otel-personalization: {error}", err=True)
                if succeeded:
                    raise typer.Exit(FAILED) from None
    raise typer.Exit(
        NO_TRACES if result.is_missing else SOME_NOT_COUNTED if result.is_partial else 0
    )


def _days(day: datetime | None, from_day: datetime | None, to_day: datetime | None) -> list[date]:
    """The days that were asked for, in order; none where none was."""
    if day is not None and (from_day is not None or to_day is not None):
        raise typer.BadParameter("give a day, or the first and the last of several")
    if (from_day is None) != (to_day is None):
        raise typer.BadParameter("--from-day and --to-day come together")
    first, last = (day, day) if day is not None else (from_day, to_day)
    if first is None or last is None:
        return []
    if last < first:
        raise typer.BadParameter("the last day is before the first", param_hint="--to-day")
    if first.date() < FIRST_DAY or last.date() > LAST_DAY:
        raise typer.BadParameter(f"days are from {FIRST_DAY} to {LAST_DAY}")
    return [first.date() + timedelta(days=n) for n in range((last - first).days + 1)]


def _check_paths(option: str, takes: str, places: Iterable[Path | str]) -> None:
    """Whether they can be paths. What is none is not repeated: it may hold a password."""
    if any(may_hold_password(str(place)) for place in places):
        raise typer.BadParameter(
            f"it takes {takes}; this is none, and is not shown: it may hold a password",
            param_hint=option,
        )


def _check_lines(option: str, files: Iterable[Path]) -> None:
    """Whether they can be files of lines."""
    from otel_personalization.daily.files import is_parquet  # noqa: PLC0415  # not on Windows

    for file in files:
        if is_parquet(file):
            raise typer.BadParameter(
                f"{file} is Parquet, and no lines of JSON; snapshots are read by daily: give the "
                "folder of snapshots as its --traces",
                param_hint=option,
            )


def _check_no_folder(option: str, files: Iterable[Path]) -> None:
    for file in files:
        if file != STDIN and file.is_dir():
            raise typer.BadParameter(f"{file} is a folder: give files", param_hint=option)


def _check_inputs(traces: Sequence[Path], outcomes: Sequence[Path]) -> None:
    """Whether they can be read, and together."""
    from otel_personalization.daily.files import day_of  # noqa: PLC0415  # as above

    _check_lines("--traces", traces)
    _check_no_folder("--outcomes", outcomes)
    folders = [path for path in traces if path != STDIN and path.is_dir()]
    if folders and len(traces) > 1:
        raise typer.BadParameter(
            f"{folders[0]} is a folder: give one folder of snapshots, or files",
            param_hint="--traces",
        )
    for folder in folders:
        if day_of(folder) is not None and not any(folder.glob("day=*")):
            raise typer.BadParameter(
                f"{folder} is of one day: give the folder of snapshots, {folder.parent}",
                param_hint="--traces",
            )
    if [*traces, *outcomes].count(STDIN) > 1:
        raise typer.BadParameter(
            "- is standard input, which is read once: give a file for the other",
            param_hint="--outcomes" if STDIN in outcomes else "--traces",
        )


def _stages() -> frozenset[str]:
    """Those of the service's setting, so that counters and tables know the same sources."""
    name = f"{ENVIRONMENT_PREFIX}STAGES"
    return resolve(environment={name: os.environ.get(name, "")}).stages


def _tell_problems(problems: Problems) -> bool:
    """Tell what was not counted; whether there was any."""
    counts = problems.counts
    show_problems(problems.first, counts.total())
    if counts:
        typer.echo(f"Not counted: {problems.said}.", err=True)
    return bool(counts)


@contextmanager
def _needed(extra: str) -> Iterator[None]:
    """Import what an extra has, or say how to get it.

    Imported modules live as long as the process. So the garbage collector is off while they are
    imported, and leaves them out afterwards: to scan them takes a seventh of a small job's time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("otel_personalization"):
            raise
        command = sys.argv[1] if len(sys.argv) > 1 else "this"
        fail(
            f"{command} needs {error.name}, which is not installed: "
            f'pip install "otel-personalization[{extra}]"'
        )
    finally:
        gc.freeze()
        if collects:
            gc.enable()
