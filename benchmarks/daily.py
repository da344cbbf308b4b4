"""Measures what the nightly job costs, on generated days: ``make bench-daily``.

A unit is what it takes to read the same file at all: DuckDB reads every value of every column, all
of them typed, and keeps one of each. Both run as processes of their own, one after the other,
several times in turns; what counts is the clock and CPU time, user and system: on a shared machine
the clock tells what others do as well.

``--quick`` measures the smallest days alone and writes nothing down; ``--profile`` only says of one
day where the time goes. ``--days`` names a folder where generated days are kept for the next time:
to make the largest takes longer than all the rest.
"""

from __future__ import annotations

import argparse
import compileall
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import otel_personalization
from benchmarks.__main__ import machine
from benchmarks.daily_traces import DAY, ORGANISATION

RESULTS = Path(__file__).parent / "daily.md"
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A generated day.

    Args:
        kind: ``parquet``, a snapshot; ``history``, the same with 28 such days before it; or
            ``ndjson``, the service's lines.
        decisions: how many, of the day.
        limit: of the ratios of clock and CPU time, where there is one.
    """

    kind: str
    decisions: int
    limit: float | None = None


STARTUP = (Case("parquet", 100), Case("ndjson", 100))
QUICK = Case("parquet", 100_000)
HISTORY = Case("history", 100_000)
CASES = (
    QUICK,
    HISTORY,
    Case("parquet", 1_000_000, 6),
    Case("parquet", 10_000_000, 5),
    Case("ndjson", 1_000_000, 2),
)
ROUNDS = 3
"""Of each case; job and scan in turns."""
PEAK_LIMIT = 2048
"""MiB, of the job."""
PROFILED = (Case("parquet", 1_000_000), Case("ndjson", 1_000_000))


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, user and system, of all threads."""
    peak: float
    """Resident memory, in MiB."""


def cost_of(*command: str) -> Cost:
    """Run a process until its end.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed: {said.read().decode()[-2000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / MIB)


@contextmanager
def generated(case: Case, kept: Path | None) -> Iterator[Path]:
    """A day's folder of snapshots, or its file.

    Args:
        case: which day.
        kept: folder of days that were generated before; None to remove it when it is done.
    """
    with tempfile.TemporaryDirectory(prefix="bench-daily-") as temporary:
        place = (kept or Path(temporary)) / f"{case.kind}-{case.decisions}"
        if not place.exists():
            draft = place.with_name(f"{place.name}.draft")
            # A process of its own: the memory of this one counts as that of those it starts.
            cost_of(
                *(sys.executable, "-m", "benchmarks.daily_traces"),
                *(case.kind, str(case.decisions), str(draft)),
            )
            draft.rename(place)
        yield place


def job_of(place: Path) -> Cost:
    """What the nightly job takes, into a new warehouse."""
    with tempfile.TemporaryDirectory(prefix="bench-daily-") as folder:
        return cost_of(
            str(Path(sys.executable).parent / "otel-personalization"),
            *("daily", "--day", str(DAY), "--traces", str(place), "--log", "none"),
            *("--warehouse", str(Path(folder) / "warehouse.duckdb")),
        )


def scan_of(place: Path) -> Cost:
    """What it takes to read every value of a day, typed as the job reads it."""
    if place.is_dir():
        source = f"read_parquet('{place}/day={DAY}/*.parquet', hive_partitioning = true)"
    else:
        from otel_personalization.daily.decisions import SHAPE

        shape = ", ".join(f"{name}: '{_type(of)}'" for name, of in SHAPE.items())
        source = f"read_ndjson('{place}', columns = {{{shape}}}, maximum_object_size = {64 << 20})"
    return cost_of(sys.executable, "-c", _SCAN, source)


_SCAN = """\
import sys
import duckdb
with duckdb.connect(config={"preserve_insertion_order": False}) as connection:
    connection.execute("SET enable_progress_bar = false")
    rows = connection.sql(f"SELECT * FROM {sys.argv[1]}")
    # Not to count them: of a column that has no null, a count reads nothing.
    one_of_each = ", ".join(f'any_value("{column}")' for column in rows.columns)
    print(rows.aggregate(one_of_each).fetchall())
"""
"""A program of its own, that imports nothing else."""


def _type(shape: Any) -> str:
    """A shape of ``json_transform`` as a type."""
    if isinstance(shape, dict):
        return f"STRUCT({', '.join(f'{name} {_type(of)}' for name, of in shape.items())})"
    if isinstance(shape, list):
        return f"{_type(shape[0])}[]"
    return str(shape)


def measured(case: Case, kept: Path | None) -> list[tuple[Cost, Cost]]:
    """The job and the bare scan, of each round."""
    with generated(case, kept) as place:
        scan_of(place)  # the file is in memory from now on, if it fits
        print(f"measuring {case.decisions:,} of {case.kind}", file=sys.stderr, flush=True)
        return [(job_of(place), scan_of(place)) for _ in range(ROUNDS)]


HEAD = """\
| decisions | of | job, s | scan, s | ratio | job, CPU s | scan, CPU s | ratio | limit | met | job, CPU s of a million | peak of the job, MiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""  # noqa: E501  # a line of a table


def row(case: Case, rounds: Sequence[tuple[Cost, Cost]]) -> str:
    """A line of the table."""
    wall, bare_wall, wall_ratio = _medians([(job.wall, bare.wall) for job, bare in rounds])
    cpu, bare_cpu, cpu_ratio = _medians([(job.cpu, bare.cpu) for job, bare in rounds])
    peak = max(job.peak for job, _ in rounds)
    met = ""
    if case.limit is not None:
        met = "yes" if max(wall_ratio, cpu_ratio) <= case.limit and peak <= PEAK_LIMIT else "no"
    return (
        f"| {case.decisions:,} | {case.kind} | {wall:.1f} | {bare_wall:.1f} | {wall_ratio:.1f} "
        f"| {cpu:.1f} | {bare_cpu:.1f} | {cpu_ratio:.1f} | {case.limit or ''} | {met} "
        f"| {cpu / case.decisions * 1e6:.0f} | {peak:.0f} |"
    )


def _medians(rounds: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Of the job, of the scan, and of their ratios: a machine's speed changes between rounds."""
    jobs, scans = zip(*rounds, strict=True)
    ratios = [job / scan for job, scan in rounds]
    return statistics.median(jobs), statistics.median(scans), statistics.median(ratios)


# --- where the time goes ----------------------------------------------------------------------


class Clock:
    """CPU seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(
        self, function: Callable[..., Any], name: str, clock: Callable[[], float]
    ) -> Callable[..., Any]:
        """A function, whose time is added up.

        Args:
            function: what is timed.
            name: of the step.
            clock: of the process for what runs alone, of the thread for what runs beside others.
        """

        def run(*args: Any, **kwargs: Any) -> Any:
            began = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + clock() - began

        return run


class AtOnce(Executor):
    """Runs what it is given before it goes on."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have it done when this returns."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def profile_of_snapshot(place: Path) -> None:
    """Compute a snapshot's day in this process, and say what took how long."""
    began = time.process_time()
    from otel_personalization.daily import engines, job, manifest, measures, warehouse

    clock = Clock()
    clock.seconds["import"] = time.process_time() - began

    class Timed(engines.DuckDB):
        """Times each statement by its name, and what is counted without one."""

        def make(self, name: str, **parameters: object) -> None:
            clock.timed(super().make, f"{name}.sql", time.process_time)(name, **parameters)

        def query(self, name: str, **parameters: object) -> Any:
            return clock.timed(super().query, f"{name}.sql", time.process_time)(name, **parameters)

        def served(self, day: date) -> Any:
            return clock.timed(super().served, "served.py", time.process_time)(day)

    def time_of(owner: Any, name: str, step: str, by: Callable[[], float]) -> None:
        setattr(owner, name, clock.timed(getattr(owner, name), step, by))

    # What runs beside a step could not be told from it.
    job.ThreadPoolExecutor = lambda _: AtOnce()  # type: ignore[assignment, misc]
    time_of(job, "count_sources", "source_events.py, and streaks", time.process_time)
    time_of(job, "rolled_up", "roll-up", time.process_time)
    time_of(job, "users_of", "users of rows", time.process_time)
    time_of(job, "_table", "tables of rows", time.process_time)
    for part in (measures.Totals, measures.Lists, measures.Exposure, measures.Settings):
        step = f"measures.{part.__name__}"
        time_of(part, "__init__", f"{step}, once", time.thread_time)
        time_of(part, "of", f"{step}, by row", time.thread_time)
    time_of(manifest, "check", "checksum", time.process_time)
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="bench-daily-") as folder:
        day = manifest.read_manifest(place, DAY)
        manifest.check(day)
        with Timed([day], ORGANISATION) as engine:
            tables = job.compute(engine, job.Run(DAY, ORGANISATION), {DAY: day})
        store = time.process_time()
        with warehouse.open_warehouse(str(Path(folder) / "warehouse.duckdb")) as opened:
            opened.replace(tables)
        clock.seconds["warehouse"] = time.process_time() - store
    total = time.process_time() - began + clock.seconds["import"]
    clock.seconds["all else"] = total - sum(clock.seconds.values())
    show(clock.seconds, total)


def profile_of_lines(place: Path) -> None:
    """Make a snapshot of lines in this process, a step further each time: what each adds."""
    from otel_personalization.conventions import DEFAULT_STAGES
    from otel_personalization.daily import decisions, snapshot
    from otel_personalization.daily.lines import FileLines

    whole = decisions.text_of("decisions")
    parsing, _, rest = whole.partition(",\n-- Most decisions are plain")
    assert rest, "decisions.sql has another beginning now"

    def read() -> None:
        for _ in FileLines([place]).batches():
            pass

    def run(statement: str) -> None:
        texts = {"decisions": statement}
        decisions.text_of = lambda name: texts.get(name) or text_of(name)
        for _ in decisions.decisions(FileLines([place]), DEFAULT_STAGES, Path(folder)):
            pass
        decisions.text_of = text_of

    text_of = decisions.text_of
    with tempfile.TemporaryDirectory(prefix="bench-daily-") as folder:
        steps: dict[str, Callable[[], object]] = {
            "lines, read": read,
            "lines, parsed": lambda: run(
                f"{parsing} SELECT ordinal FROM parsed WHERE trace IS NOT NULL"
            ),
            "all else of decisions.sql": lambda: run(whole),
            "Parquet, written": lambda: snapshot.write(FileLines([place]), Path(folder)),
        }
        seconds = {}
        before = 0.0
        for step, take in steps.items():
            began = time.process_time()
            take()
            took = time.process_time() - began
            seconds[step] = took - before
            before = took
    show(seconds, before)


def show(seconds: Mapping[str, float], total: float) -> None:
    """The table of CPU seconds by step."""
    print("| step | CPU s | share |\n| --- | --- | --- |")
    for step, took in sorted(seconds.items(), key=lambda item: -item[1]):
        if abs(took) >= 0.005:
            print(f"| {step} | {took:.2f} | {took / total:.0%} |")
    print(f"| together | {total:.2f} | |")


def profiled(case: Case, kept: Path | None) -> str:
    """Where the time of a day goes, found by a process of its own."""
    with generated(case, kept) as place:
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.daily", "--profile-of", str(place)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout


def results(kept: Path | None) -> Iterator[str]:
    """The page, in parts."""
    packages = ", ".join(f"{package} {version(package)}" for package in ("duckdb", "pyarrow"))
    yield f"""\
# What the nightly job costs

Measured by `make bench-daily` on {time.strftime("%Y-%m-%d")}: {machine()}, {packages}.

`otel-personalization daily --log none` into a new file of DuckDB, against what it takes to read the
same day at all: DuckDB reads every value of every column, all of them typed. Both are processes of
their own, start included; CPU is user and system of all threads. Figures are medians of
{ROUNDS} rounds, ratios those of the rounds' ratios, and the peak is the highest. A limit is met
where both ratios are at most that, and the peak at most {PEAK_LIMIT:,} MiB.

Days are generated as traces were recorded: 15 items, caps on half of them, four candidate sources,
six namespaces, 0.9 users a decision of a surface. Those of 100 decisions tell what start and the
rows themselves cost; `history` is a day with 28 such days before it, of which the job reads the
users. Lines of NDJSON have 6 KB, without candidates_pre.

{HEAD}"""
    for case in (*STARTUP, *CASES):
        yield row(case, measured(case, kept))
    yield """
## Where the time goes

CPU seconds by step (`python -m benchmarks.daily --profile`), one after the other, though the job
compares lists beside other steps. Statements are those of `otel_personalization/daily/sql`. Of
lines of NDJSON, a snapshot is made first, of which each step is what it adds to those before it: a
difference of two runs, and right to several seconds. The bare scan, too, is mostly parsing."""
    for case in PROFILED:
        yield f"""
{case.decisions:,} decisions in {case.kind}:

{profiled(case, kept)}"""


def main() -> None:
    """Measure, show, write down."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.daily")
    options.add_argument("--quick", action="store_true", help="the smallest day alone")
    options.add_argument("--profile", action="store_true", help="where the time goes")
    options.add_argument("--days", type=Path, help="folder where generated days are kept")
    options.add_argument("--profile-of", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    # As pip does it; a checkout may be such that each run would compile it anew.
    compileall.compile_dir(Path(otel_personalization.__file__).parent, quiet=1)
    if chosen.profile_of:
        of_folder = chosen.profile_of.is_dir()
        (profile_of_snapshot if of_folder else profile_of_lines)(chosen.profile_of)
    elif chosen.profile:
        for case in STARTUP if chosen.quick else PROFILED:
            print(profiled(case, chosen.days))
    elif chosen.quick:
        print(HEAD)
        for case in (STARTUP[0], QUICK, HISTORY):
            print(row(case, measured(case, chosen.days)), flush=True)
    else:
        out = []
        for part in results(chosen.days):
            out.append(part)
            print(part, flush=True)
        RESULTS.write_text("\n".join(out))


if __name__ == "__main__":
    main()
