"""The nightly job in Spark: the rows of DuckDB and of the oracle, in each kind of session."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyspark
import pytest
from pyspark.sql import SparkSession

from otel_personalization.daily import spark
from otel_personalization.daily.engines import DuckDB
from otel_personalization.daily.job import Run, compute
from otel_personalization.daily.outcomes import read_outcomes
from otel_personalization.daily.spark import Spark
from otel_personalization.daily.tables import TABLES, DayTables, Table
from tests.conftest import recording
from tests.daily import hostile, oracle
from tests.daily.comparison import _is_same, differences, snapshots
from tests.daily.test_job import SAMPLE, WINDOWS, lines_of
from tests.daily.test_outcomes import made_up, written
from tests.e2e.servers import HANG_SECONDS, wait_for

OUTAGE = date(2026, 11, 21)
SCRIPTS = Path(pyspark.__file__).parent / "bin"
CLUSTERS = ("local-cluster[2,1,1024]", "standalone")


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    """A host's session, of another time zone and not as strict as the statements need."""
    made = spark._new_session()
    made.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    made.conf.set("spark.sql.ansi.enabled", "false")
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _the_oracle_has_no_outcomes(monkeypatch):
    monkeypatch.setattr(oracle, "EXCLUDED", oracle.EXCLUDED + oracle.OUTCOMES)


def compare(lines: list[str], folder: Path, runs: Sequence[Run]) -> list[DayTables]:
    """Compare runs in Spark, with outcomes, with the oracle and with DuckDB."""
    manifests = snapshots(lines, folder)
    outcomes = read_outcomes(
        [written(made_up(lines, Random(1)), folder / "outcomes.ndjson")], folder / "outcomes"
    )
    made = []
    for run in runs:
        needed = {day: manifest for day, manifest in manifests.items() if day in run.needed_days}
        of_engines = []
        for engine in (Spark, DuckDB):
            with engine(list(needed.values()), run.org_id) as opened:
                of_engines.append(compute(opened, run, needed, outcomes=outcomes))
        tables, of_duckdb = of_engines
        expected = oracle.day_tables(
            lines, run.day, k=run.k, window_days=run.window_days, org=run.org_id
        )
        assert differences(tables, expected) == []
        # With intervals and outcomes, of which the oracle has none.
        assert tables.quality == of_duckdb.quality
        for name, rows in tables.rows.items():
            assert rows.schema == of_duckdb.rows[name].schema
            assert_same(rows.to_pylist(), of_duckdb.rows[name].to_pylist())
        made.append(tables)
    return made


def assert_same(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for row, want in zip(rows, expected, strict=True):
        assert {name: row[name] for name in want if not _is_same(row[name], want[name])} == {}


def test_the_recorded_sample_gives_the_rows_of_duckdb_and_of_the_oracle(session, tmp_path):
    days = (date(2026, 11, 19), date(2026, 11, 23))
    runs = [Run(day, hostile.ORG, *of) for day, of in zip(days, WINDOWS, strict=True)]
    compare(lines_of(SAMPLE), tmp_path, runs)


def test_a_day_of_the_full_recording_gives_the_rows_of_duckdb_and_of_the_oracle(session, tmp_path):
    lines = lines_of(recording("decision_traces.ndjson.gz"))
    (tables,) = compare(lines, tmp_path, [Run(OUTAGE, hostile.ORG)])
    rows = tables.rows["experiments.blend_weights_daily"].to_pylist()
    assert any(row["jaccard_mean_lower"] is not None for row in rows)
    assert any(row["ctr_lower"] is not None for row in rows)


def test_hostile_traces_give_the_rows_of_duckdb_and_of_the_oracle(session, tmp_path):
    days = (hostile.CORPUS_DAYS[0], hostile.CORPUS_DAYS[-1])
    runs = [Run(day, hostile.ORG, *of) for day, of in zip(days, WINDOWS, strict=True)]
    made = compare(hostile.corpus(1), tmp_path, [*runs, Run(days[-1], hostile.OTHER_ORG)])
    assert all(tables.rows[TABLES[0].qualified_name].num_rows > 0 for tables in made)


def test_a_hosts_session_is_left_as_it_was(session, tmp_path):
    with opened(tmp_path) as engine:
        engine.make("seen_users", history_start=OUTAGE, history_end=OUTAGE)
        assert session.sparkContext._jsc.getPersistentRDDs().size() == 1
    assert session.sparkContext._jsc.getPersistentRDDs().size() == 0
    assert session.catalog.listTables() == []
    assert session.conf.get("spark.sql.session.timeZone") == "Asia/Tokyo"
    assert session.conf.get("spark.sql.ansi.enabled") == "false"
    assert session.range(3).count() == 3


def test_what_is_sorted_is_streamed_in_its_order_a_part_at_a_time(session, tmp_path, monkeypatch):
    text = "SELECT ts, ordinal FROM stored ORDER BY ts DESC, ordinal"
    monkeypatch.setattr(spark, "statement", lambda name, words: text)
    with opened(tmp_path) as engine:
        engine._session.conf.set("spark.sql.adaptive.enabled", "false")  # it would join small parts
        batches = list(engine.stream("any"))
    assert len(batches) > 2
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len(rows) == len(lines_of(SAMPLE))
    assert rows == sorted(rows, key=lambda row: (-row["ts"].timestamp(), row["ordinal"]))


@pytest.mark.parametrize(
    "name", ["{a,b}", "[x]*?", "a b%20c", "a\\b", "day=2026-11-20", "org_id=x", "ü#:,"]
)
def test_a_folder_may_have_any_name(session, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    with opened(folder) as engine:
        assert engine._session.table("stored").count() == len(lines_of(SAMPLE))


@contextmanager
def opened(folder: Path) -> Iterator[Spark]:
    """An engine with the snapshots of the sample."""
    manifests = snapshots(lines_of(SAMPLE), folder)
    (org_id,) = manifests[min(manifests)].organisations
    with Spark(list(manifests.values()), org_id) as engine:
        yield engine


# --- processes of their own -------------------------------------------------------------------


def test_the_command_computes_a_day_in_a_local_session_and_leaves_nothing_else(tmp_path):
    folder, day = stored(tmp_path)
    command = [sys.executable, "-m", "otel_personalization"]
    done = daily(command, folder, day, tmp_path / "place", "--engine", "spark")
    of_duckdb = daily(command, folder, day, tmp_path / "other")
    # Java itself tells of the module by which Spark computes vectors.
    told = [line for line in done.stderr.splitlines() if "incubator" not in line]
    assert told == of_duckdb.stderr.splitlines()
    assert done.stdout == of_duckdb.stdout
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["rows.duckdb"]
    assert_same_files(tmp_path / "place", tmp_path / "other")


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_submitted_to_a_cluster_the_command_computes_a_day(tmp_path, cluster):
    """Of two workers, each a process with an executor, in another time zone."""
    folder, day = stored(tmp_path)
    script = tmp_path / "job.py"
    script.write_text("from otel_personalization.__main__ import main\n\nmain()\n")
    with standalone(tmp_path) if cluster == "standalone" else nullcontext(cluster) as master:
        submit = [
            *(str(SCRIPTS / "spark-submit"), "--master", master),
            *("--conf", "spark.ui.enabled=false", "--conf", "spark.sql.shuffle.partitions=4"),
            *("--conf", "spark.driver.bindAddress=127.0.0.1"),
            *("--conf", "spark.driver.host=127.0.0.1"),
            str(script),
        ]
        daily(submit, folder, day, tmp_path / "place", "--engine", "spark")
    daily([sys.executable, "-m", "otel_personalization"], folder, day, tmp_path / "other")
    assert_same_files(tmp_path / "place", tmp_path / "other")


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """The address of a master with two workers, which run as on machines of their own."""
    # Its second server, by which programs can be submitted, has a fixed port.
    closed = {"SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false"}
    ports = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
    with ExitStack() as stack:
        log = stack.enter_context(running(folder / "master.log", "master.Master", *ports, **closed))
        address = said(log, r"Starting Spark master at (\S+)")
        for number in (1, 2):
            work = folder / f"worker-{number}"
            options = (*ports, "--cores", "1", "--memory", "1g", "--work-dir", str(work), address)
            file = folder / f"worker-{number}.log"
            log = stack.enter_context(running(file, "worker.Worker", *options))
            said(log, r"(Successfully registered) with master")
        yield address


@contextmanager
def running(log: Path, name: str, *arguments: str, **environment: str) -> Iterator[Path]:
    """A server of Spark's, and the file of what it says. At the end it is stopped."""
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [str(SCRIPTS / "spark-class"), f"org.apache.spark.deploy.{name}", *arguments],
            env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        yield log
    finally:
        server.terminate()
        server.wait(HANG_SECONDS)


def said(log: Path, pattern: str) -> str:
    """The group of a pattern in what a server says, which is waited for."""
    wait_for(lambda: re.search(pattern, log.read_text()), f"{pattern} in {log.name}")
    match = re.search(pattern, log.read_text())
    assert match is not None
    return match[1]


def test_without_java_the_error_says_what_to_install(tmp_path):
    done = entered(JAVA_HOME=str(tmp_path))
    assert done.stdout.startswith("Spark did not start, which needs Java 17 or later; install it")


def test_without_pyspark_the_error_says_what_to_install(tmp_path):
    (tmp_path / "pyspark.py").write_text("raise ImportError('as if it were not there')")
    done = entered(PYTHONPATH=str(tmp_path))
    assert 'pip install "otel-personalization[spark]"' in done.stdout


def entered(**environment: str) -> subprocess.CompletedProcess[str]:
    """A process that enters an engine, and prints why it cannot."""
    script = (
        "from otel_personalization.daily.engines import EngineError\n"
        "from otel_personalization.daily.spark import Spark\n"
        "try:\n"
        "    Spark([], 'x').__enter__()\n"
        "except EngineError as error:\n"
        "    print(error)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )


def stored(folder: Path) -> tuple[Path, date]:
    """Snapshots of the sample, and their last day."""
    manifests = snapshots(lines_of(SAMPLE), folder)
    return folder / "snapshots", max(manifests)


def daily(
    command: Sequence[str], folder: Path, day: date, place: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """The command's run, in a folder of its own."""
    place.mkdir()
    done = subprocess.run(
        [
            *(*command, "daily", "--day", str(day), "--traces", str(folder)),
            *("--warehouse", "rows.duckdb", "--log", "none", *options),
        ],
        cwd=place,
        env=os.environ | {"TZ": "Asia/Tokyo", "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def assert_same_files(one: Path, other: Path) -> None:
    """Both warehouses hold the same rows."""
    for table in TABLES:
        expected = rows_of(other / "rows.duckdb", table)
        assert expected
        assert_same(rows_of(one / "rows.duckdb", table), expected)


def rows_of(file: Path, table: Table) -> list[dict[str, Any]]:
    keys = ", ".join(column.name for column in table.key)
    with duckdb.connect(str(file), read_only=True) as connection:
        rows = connection.sql(f"FROM {table.qualified_name} ORDER BY {keys}")
        found: list[dict[str, Any]] = rows.to_arrow_table().to_pylist()
        return found
