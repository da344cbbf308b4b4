"""A whole night: PostgreSQL -> snapshot -> daily -> warehouse, Pushgateway, report, log lines."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from otel_personalization.daily.tables import TABLES
from tests.conftest import DATA, RECORDING, read_ndjson
from tests.daily import oracle
from tests.daily.comparison import differences_of_rows
from tests.daily.test_job import lines_of
from tests.e2e.conftest import Measure
from tests.e2e.postgres import Database, postgres
from tests.e2e.pushgateway import Pushgateway
from tests.e2e.servers import wait_for

RECORDED = RECORDING / "decision_traces.ndjson.gz"
TRACES = RECORDED if RECORDED.exists() else DATA / "traces.ndjson.gz"
"""The whole recording where it is there, else the sample of it."""
DAYS = [date(2026, 11, n) for n in range(19, 24)]
ORG = "00000000-0000-0000-0000-000000000001"
KILLS = 10


@pytest.fixture(scope="module")
def server() -> Iterator[Database]:
    with postgres() as database:
        database.store(read_ndjson(TRACES))
        database.run("CREATE INDEX ON rec_decisions (namespace, ts)")
        yield database


@pytest.fixture
def warehouse(server: Database) -> Iterator[str]:
    server.run("CREATE DATABASE warehouse")
    yield server.url("warehouse")
    server.run("DROP DATABASE warehouse WITH (FORCE)")


@pytest.fixture(scope="module")
def snapshots(server: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    run("snapshot", "--from", server.url(), "--to", folder, *of_days())
    return folder


def of_days() -> tuple[object, ...]:
    return "--from-day", DAYS[0], "--to-day", DAYS[-1]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "otel_personalization", *map(str, arguments)]


def run(*arguments: object, exit_code: int = 0) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout


def rows_of(warehouse: str) -> dict[str, list[dict[str, Any]]]:
    with psycopg.connect(warehouse, row_factory=dict_row) as connection:
        return {
            table.qualified_name: connection.execute(  # type: ignore[call-overload]
                f"SELECT * FROM {table.qualified_name} ORDER BY "
                + ", ".join(
                    f'{column.name} COLLATE "C"' if column.kind == "text" else column.name
                    for column in table.key
                )
            ).fetchall()
            for table in TABLES
        }


def test_recorded_days_reach_every_table_gauge_line_and_the_report(
    snapshots, warehouse, tmp_path, measure: Measure
):
    report, log = tmp_path / "report.html", tmp_path / "lines.ndjson"
    with Pushgateway(tmp_path) as gateway:
        began = time.monotonic()
        order = ("--traces", snapshots, "--warehouse", warehouse, "--pushgateway", gateway.url)
        run("daily", *of_days(), *order, "--report", report, "--log", log)
        measure(f"five days of {TRACES.name}: {time.monotonic() - began:.1f} s")
        series = gateway.series()
    rows = rows_of(warehouse)
    lines = lines_of(TRACES)
    for day in DAYS:
        for name, expected in oracle.day_tables(lines, day, org=ORG).items():
            of_day = [row for row in rows[name] if row["day"] == day]
            assert differences_of_rows(name, of_day, expected) == []

    midnight = datetime(DAYS[-1].year, DAYS[-1].month, DAYS[-1].day, tzinfo=timezone.utc)
    of_org = (("job", "personalization_daily"), ("org_id", ORG))
    assert series["personalization_daily_date_seconds", of_org] == midnight.timestamp()
    (success,) = (value for (name, _), value in series.items() if name.endswith("last_run_success"))
    assert success == 1
    pushed = {
        (dict(labels)["recsys_namespace"], dict(labels)["surface"]): value
        for (name, labels), value in series.items()
        if name == "catalog_overlap_pct"
    }
    judged = {
        (row["namespace"], row["surface"]): 100 * row["jaccard_mean"]
        for row in rows["analytics.personalization_daily"]
        if row["day"] == DAYS[-1]
        and row["cohort"] == row["device"] == "all" != row["surface"]
        and row["overlap_users"] >= 30
    }
    assert pushed == pytest.approx(judged)
    assert pushed or TRACES != RECORDED

    told = [json.loads(line) for line in log.read_text("ascii").splitlines()]
    assert {line["day"] for line in told} == {str(day) for day in DAYS}
    assert "</html>" in report.read_text("utf-8")


def test_killed_at_ten_random_moments_and_run_again_it_ends_with_the_same_tables(
    server, snapshots, warehouse, tmp_path, measure: Measure
):
    order = ("daily", *of_days(), "--traces", snapshots, "--warehouse", warehouse, "--log", "none")
    began = time.monotonic()
    run(*order)
    whole = time.monotonic() - began
    expected = rows_of(warehouse)
    server.run("DROP DATABASE warehouse WITH (FORCE)")
    server.run("CREATE DATABASE warehouse")
    choice = random.Random(11)
    ended = 0
    for _ in range(KILLS):
        with subprocess.Popen(
            command(*order), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                process.wait(choice.uniform(0, whole))
                ended += 1
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not others(warehouse), "the server to notice")
        days = {
            name: {row["day"] for row in rows} for name, rows in stored_so_far(warehouse).items()
        }
        assert len(set(map(frozenset, days.values()))) <= 1, "a day is in some tables only"
    measure(f"{KILLS - ended} of {KILLS} runs of {whole:.1f} s killed")
    assert ended < KILLS
    run(*order)
    assert rows_of(warehouse) == expected


def others(warehouse: str) -> bool:
    with psycopg.connect(warehouse, autocommit=True) as own:
        query = (
            "SELECT 1 FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return bool(own.execute(query).fetchall())


def stored_so_far(warehouse: str) -> dict[str, list[dict[str, Any]]]:
    try:
        return rows_of(warehouse)
    except psycopg.errors.UndefinedTable:
        return {}


def test_a_failed_run_says_so_and_leaves_the_figures_of_the_last_good_one(
    snapshots, warehouse, tmp_path
):
    with Pushgateway(tmp_path) as gateway:
        order = ("--traces", snapshots, "--warehouse", warehouse, "--pushgateway", gateway.url)
        run("daily", "--day", DAYS[3], *order, "--log", "none")
        good = {key: value for key, value in gateway.series().items() if "last_run" not in key[0]}
        run("daily", "--day", "2026-11-25", *order, "--log", "none", exit_code=2)
        after = gateway.series()
        assert {key: value for key, value in after.items() if "last_run" not in key[0]} == good
        (failed,) = (value for (name, _), value in after.items() if name.endswith("run_success"))
        assert failed == 0
        run("daily", "--day", DAYS[0], *order, "--log", "none")
        assert {key: value for key, value in gateway.series().items() if key in good} == good


@pytest.mark.parametrize("wrong", [("--warehouse", ""), ("--traces", "-", "--traces", ".")])
def test_a_wrong_command_is_a_failed_run(wrong, snapshots, tmp_path):
    with Pushgateway(tmp_path) as gateway:
        traces = () if "--traces" in wrong else ("--traces", snapshots)
        order = ("--day", DAYS[3], *traces, "--pushgateway", gateway.url)
        run("daily", *order, *wrong, exit_code=2)
        (success,) = (
            value for (name, _), value in gateway.series().items() if name.endswith("run_success")
        )
        assert success == 0
