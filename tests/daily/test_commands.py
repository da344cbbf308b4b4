"""`otel-personalization snapshot` and `daily`, as they are called."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import duckdb
import pytest
from typer.testing import CliRunner, Result

from otel_personalization import ndjson
from otel_personalization.cli import app
from otel_personalization.daily import commands, night, snapshot
from otel_personalization.daily import manifest as manifests
from otel_personalization.daily.manifest import read_manifest
from otel_personalization.daily.postgres_lines import PostgresLines
from otel_personalization.daily.tables import TABLES
from tests.conftest import DATA, run_into_a_full_disk
from tests.daily import oracle
from tests.daily.comparison import differences_of_rows
from tests.daily.snapshots import days_of
from tests.daily.test_job import lines_of
from tests.daily.test_report import Page
from tests.loopback import serving

SAMPLE = DATA / "traces.ndjson.gz"
DAY = date(2026, 11, 23)
DAYS = [date(2026, 11, n) for n in range(19, 24)]
ORG = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the default warehouse goes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    """The command as it was called; it ends with an exit code, never with a traceback."""
    result = CliRunner().invoke(app, list(map(str, arguments)), input=stdin)
    assert isinstance(result.exception, (SystemExit, type(None))), result.exception
    return result


def daily(*arguments: object, exit_code: int = 0, stdin: bytes | None = None) -> Result:
    result = run("daily", *arguments, stdin=stdin)
    assert result.exit_code == exit_code, result.output
    return result


def rows_of(table: str, warehouse: Path = Path("personalization.duckdb")) -> list[dict[str, Any]]:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return connection.table(table).to_arrow_table().to_pylist()


def trace(**fields: Any) -> str:
    return json.dumps(
        {
            "decision_id": "d",
            "org_id": ORG,
            "namespace": "shop",
            "surface": "home",
            "ts": f"{DAY}T10:00:00Z",
            "user_hash": "u",
            "final_items": [{"item_id": "a"}],
            **fields,
        }
    )


def file_of(*lines: str, name: str = "traces.ndjson") -> Path:
    path = Path(name)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


# --- what comes out ---------------------------------------------------------------------------


def test_one_command_on_a_file_fills_the_tables_of_the_default_warehouse():
    daily("--day", DAY, "--traces", SAMPLE, "--log", "none")
    for table, expected in oracle.day_tables(lines_of(SAMPLE), DAY, org=ORG).items():
        assert differences_of_rows(table, rows_of(table), expected) == []


def test_snapshots_give_the_same_rows_as_the_file_that_they_were_made_of():
    result = run("snapshot", "--from", SAMPLE, "--to", "snapshots")
    assert result.exit_code == 0, result.output
    assert days_of(Path("snapshots")) == DAYS
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == list(map(str, DAYS))
    daily("--day", DAY, "--traces", SAMPLE, "--warehouse", "file.duckdb", "--log", "none")
    daily("--day", DAY, "--traces", "snapshots", "--warehouse", "dir.duckdb", "--log", "none")
    for table in oracle.day_tables([], DAY):
        assert rows_of(table, Path("file.duckdb")) == rows_of(table, Path("dir.duckdb"))


def test_a_surface_called_all_is_one_row_with_one_called_all_():
    names = ("all", "all_", "home")
    daily(
        "--day",
        DAY,
        "--log",
        "none",
        "--traces",
        file_of(*(trace(surface=name, decision_id=name) for name in names)),
    )
    rows = rows_of("analytics.personalization_daily")
    assert {row["surface"]: row["decisions"] for row in rows} == {"all": 3, "all_": 2, "home": 1}


@pytest.mark.parametrize(
    "name", ["org_id=o2", "surface=zz", "day=2020-01-01/x", "ordinal=1", "a[1]", "a*", "it's"]
)
def test_a_folder_may_have_any_name_and_gives_the_same_rows(name, folder):
    """No part of a path is taken for a column, nor for a pattern of names."""
    for place in ("a1", "ab", name):  # the patterns are those of the others
        run("snapshot", "--from", SAMPLE, "--to", place)
    daily("--day", DAY, "--traces", "a1", "--warehouse", "a1.duckdb")
    daily("--day", DAY, "--traces", folder / name)
    for table in TABLES:
        rows = rows_of(table.qualified_name)
        assert rows
        assert rows == rows_of(table.qualified_name, Path("a1.duckdb"))


@pytest.mark.parametrize("name", ["s3:", "file:", "http:"])
def test_a_folder_that_is_called_as_a_scheme_is_a_folder(name):
    result = run("snapshot", "--from", SAMPLE, "--to", name)
    assert result.exit_code == 0, result.output
    assert days_of(Path(name)) == DAYS
    daily("--day", DAY, "--traces", name, "--log", "none")
    assert rows_of("analytics.personalization_daily")


@pytest.mark.parametrize("name", ["org_id=o2", "surface=zz", "item_id=zz"])
def test_temporary_files_may_be_in_a_folder_of_any_name(name, folder, monkeypatch):
    (folder / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / name))
    outcome = {"decision_id": "d", "item_id": "a", "type": "impression"}
    outcomes = file_of(json.dumps(outcome), name="outcomes.ndjson")
    daily("--day", DAY, "--traces", file_of(trace()), "--outcomes", outcomes)
    rows = rows_of("experiments.blend_weights_daily")
    assert {(row["surface"], row["impressions"]) for row in rows} == {("home", 1), ("all", 1)}


def test_stages_are_those_that_the_service_is_set_to(monkeypatch):
    """Else the tables would have sources that the counters do not."""
    counts = {"popularity": {"count": 2}, "merged": {"count": 3}, "reranked": {"count": 1}}
    traces = file_of(trace(extras={"candidate_sources": counts}))
    monkeypatch.setenv("OTEL_PERSONALIZATION_STAGES", "merged,reranked")
    assert run("snapshot", "--from", traces, "--to", "snapshots").exit_code == 0
    for of in (traces, "snapshots"):
        daily("--day", DAY, "--traces", of, "--log", "none", "--warehouse", f"{of}.duckdb")
        rows = rows_of("analytics.personalization_sources_daily", Path(f"{of}.duckdb"))
        assert {row["source"] for row in rows} == {"popularity"}


def test_a_snapshot_of_one_day_leaves_the_others_out():
    result = run("snapshot", "--from", SAMPLE, "--to", "snapshots", "--day", DAY)
    assert result.exit_code == 0, result.output
    assert days_of(Path("snapshots")) == [DAY]
    assert read_manifest(Path("snapshots"), DAY).problems["other_days"] > 0


def test_a_back_fill_computes_each_day_and_a_second_one_changes_nothing():
    order = ("--from-day", DAYS[0], "--to-day", DAYS[-1], "--traces", SAMPLE, "--log", "none")
    daily(*order)
    first = rows_of("analytics.personalization_daily")
    assert {row["day"] for row in first} == set(DAYS)
    daily(*order)
    assert rows_of("analytics.personalization_daily") == first


def test_log_lines_go_to_standard_output_or_to_the_end_of_a_file():
    result = daily("--day", DAY, "--traces", SAMPLE)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["event"] for line in lines} == {"personalization.daily"}
    assert {line["day"] for line in lines} == {str(DAY)}
    for _ in range(2):
        daily("--day", DAY, "--traces", SAMPLE, "--log", "lines.ndjson")
    assert len(Path("lines.ndjson").read_text().splitlines()) == 2 * len(lines)


def test_outcomes_give_click_through_rates_and_those_that_cannot_be_read_are_told():
    kinds = ["impression", "click"]
    lines = [
        json.dumps({"decision_id": f"{n}", "item_id": "a", "type": kind})
        for n in range(40)
        for kind in kinds[: 1 + n % 2]
    ]
    traces = file_of(*(trace(decision_id=f"{n}", user_hash=f"{n}") for n in range(40)))
    outcomes = file_of(*lines, "{", name="outcomes.ndjson")
    order = ("--day", DAY, "--traces", traces, "--outcomes", outcomes, "--log", "none")
    result = daily(*order, "--report", "report.html", exit_code=3)
    assert f"{outcomes}:{len(lines) + 1}" in result.stderr
    whole = rows_of("experiments.blend_weights_daily")[0]
    assert (whole["impressions"], whole["clicks"], whole["ctr"]) == (40, 20, 0.5)
    page = Path("report.html").read_text("utf-8")
    assert "outcomes read: click" in page
    assert "outcomes not read: no json" in page


def test_that_no_outcome_is_of_a_decision_of_the_day_is_told():
    """Such as ids in upper case: all of them are read, and each figure is of none."""

    def outcomes_of(*ids):
        lines = [json.dumps({"decision_id": i, "item_id": "a", "type": "impression"}) for i in ids]
        return file_of(*lines, name="outcomes.ndjson")

    order = ("--day", DAY, "--traces", file_of(trace()), "--log", "none", "--report", "report.html")
    result = daily(*order, "--outcomes", outcomes_of("D", "e"))
    assert f"{DAY}: none of 2 outcomes is of a decision of that day" in result.stderr
    assert "No outcomes were given" not in Path("report.html").read_text("utf-8")
    result = daily(*order, "--outcomes", outcomes_of("D", "d"))
    assert "none of" not in result.stderr
    daily(*order)
    assert "No outcomes were given" in Path("report.html").read_text("utf-8")


def test_the_report_is_a_whole_page_on_the_last_day():
    order = ("--from-day", DAYS[3], "--to-day", DAY, "--traces", SAMPLE, "--log", "none")
    result = daily(*order, "--report", "report.html")
    page = Path("report.html").read_text("utf-8")
    assert page.rstrip().endswith("</html>")
    assert str(DAY) in page
    assert "report.html" in result.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_report_goes_to_standard_output_if_that_is_asked_for(encoding, folder):
    order = ("--day", DAY, "--traces", file_of(trace(surface="größe")), "--log", "lines.ndjson")
    done = subprocess.run(
        [sys.executable, "-m", "otel_personalization", "daily", *map(str, order), "--report", "-"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        check=True,
    )
    page = done.stdout.decode("utf-8")
    assert page.startswith("<!")
    assert page.rstrip().endswith("</html>")
    assert "größe" in page
    assert not (folder / "-").exists()


def test_the_overlap_of_the_day_before_is_in_the_lines_where_that_day_is_in_the_warehouse():
    lines = [
        trace(decision_id=f"{day} {user}", ts=f"{day}T10:00:00Z", user_hash=str(user))
        for day in DAYS[-2:]
        for user in range(30)
    ]
    file = file_of(*lines)
    result = daily("--from-day", DAYS[-2], "--to-day", DAY, "--traces", file)
    before, after = (json.loads(line) for line in result.stdout.splitlines())
    assert before["catalog_overlap_pct_previous_day"] is None
    assert after["catalog_overlap_pct_previous_day"] == before["catalog_overlap_pct"] == 100.0
    result = daily("--day", DAY, "--traces", file, "--k", "20")
    assert json.loads(result.stdout)["catalog_overlap_pct_previous_day"] is None


# --- what is said of what could not be counted ------------------------------------------------


def test_lines_that_are_not_counted_are_told_by_file_and_line_and_the_exit_code_says_so():
    file = file_of(trace(), "{", trace(final_items=3), trace(ts="yesterday"))
    result = daily("--day", DAY, "--traces", file, "--log", "none", exit_code=3)
    for place in (f"{file}:2", f"{file}:3", f"{file}:4"):
        assert place in result.stderr
    assert "Not counted: 1 items not a list, 1 no JSON, 1 undated." in result.stderr
    assert rows_of("analytics.personalization_daily")[0]["decisions"] == 1


def test_names_of_any_length_cost_no_day_of_any_warehouse_and_an_organisation_is_told():
    long = "n" * 5_000
    file = file_of(
        trace(surface=long, extras={"cohort": long, "device": long, "bandit_experiment": long}),
        trace(decision_id="e", org_id="o" * 400),
    )
    for warehouse in ("personalization.duckdb", "tables/"):
        order = ("--day", DAY, "--traces", file, "--log", "none", "--warehouse", warehouse)
        result = daily(*order, exit_code=3)
        assert f"{file}:2: org_id of more than 64 characters" in result.stderr
    (whole, *rows) = rows_of("experiments.blend_weights_daily")
    assert whole["decisions"] == 1
    names = ("namespace", "surface", "cohort", "device", "experiment")
    assert ("other",) * 5 in {tuple(row[name] for name in names) for row in rows}


def test_snapshots_of_lines_that_were_not_counted_say_so_each_night():
    file = file_of(trace(), trace(final_items=3))
    assert run("snapshot", "--from", file, "--to", "snapshots").exit_code == 3
    daily("--day", DAY, "--traces", "snapshots", "--log", "none", exit_code=3)


@pytest.mark.parametrize("traces", ["file", "snapshots"])
def test_a_missing_day_is_said_and_not_written_as_zeros(traces):
    file = file_of(trace())
    run("snapshot", "--from", file, "--to", "snapshots")
    result = daily(
        *("--from-day", DAYS[3], "--to-day", DAY, "--log", "none"),
        *("--traces", file if traces == "file" else "snapshots"),
        exit_code=2,
    )
    assert f"there is no {'decision on' if traces == 'file' else 'snapshot of'} {DAYS[3]}" in (
        result.stderr
    )
    assert {row["day"] for row in rows_of("analytics.personalization_daily")} == {DAY}


@pytest.mark.parametrize(
    ("traces", "nothing"),
    [("snapshots", "no snapshot of"), (None, "no decision in the input on")],
)
def test_days_of_the_window_that_are_missing_are_told_and_change_no_exit_code(traces, nothing):
    """Also of a service that is new: that it has no days before is no fault."""
    file = file_of(*(trace(ts=f"{day}T10:00:00Z", decision_id=str(day)) for day in DAYS[::2]))
    run("snapshot", "--from", file, "--to", "snapshots")
    order = ("--traces", traces or file, "--log", "none")
    result = daily("--day", DAY, *order, "--window-days", 5, "--report", "report.html")
    said = f"{DAY}: lists are of 3 of 5 days: there is {nothing} {DAYS[1]}, {DAYS[3]}"
    assert said in result.stderr.splitlines()
    page = Path("report.html").read_text("utf-8")
    assert "lists of the last 5 days, 2 of them without a snapshot" in page
    result = daily("--day", DAY, *order, "--window-days", 300)
    (said,) = (line for line in result.stderr.splitlines() if "lists are of 3 of 300 days" in line)
    assert (said.count("2026-"), said[-5:]) == (6, ", ...")
    assert "lists are of" not in daily("--day", DAY, *order).stderr


def test_a_file_of_more_days_than_can_be_written_gives_the_day_that_is_named(monkeypatch):
    """And its history: of a file only the days that are needed are written."""
    monkeypatch.setattr(snapshot, "MAX_DAYS", 3)
    days = [DAY - timedelta(days=n) for n in range(6)]
    file = file_of(*(trace(ts=f"{day}T10:00:00Z", decision_id=str(day)) for day in days))
    daily("--day", DAY, "--traces", file, "--log", "none", "--history-days", 2)
    (row, *_) = rows_of("analytics.personalization_daily")
    assert (row["day"], row["decisions"]) == (DAY, 1)
    assert {row["cohort"] for row in rows_of("analytics.personalization_daily")} == {
        *("all", "returning")
    }
    result = daily("--day", DAY, "--traces", file, "--log", "none", exit_code=1)
    assert "more than 3 days; name the days that are wanted, fewer at a time" in result.stderr


def test_an_input_without_a_trace_is_said():
    result = daily("--day", DAY, "--traces", file_of("", "3"), "--log", "none", exit_code=2)
    assert f"there is no decision on {DAY} in the input" in result.stderr


def test_where_there_is_nothing_to_keep_no_warehouse_is_made():
    daily("--day", DAYS[0], "--traces", file_of(trace()), "--log", "none", exit_code=2)
    assert not list(Path().glob("*.duckdb"))
    daily("--day", DAY, "--traces", file_of(trace()), "--log", "none")
    assert list(Path().glob("*.duckdb"))


def test_a_snapshot_that_is_replaced_while_it_is_read_gives_the_new_day(monkeypatch):
    run("snapshot", "--from", file_of(trace()), "--to", "snapshots")
    new = file_of(trace(), trace(decision_id="e"))
    replaced = []

    def check_and_replace(manifest: Any) -> None:
        manifests.check(manifest)
        if not replaced:
            replaced.append(run("snapshot", "--from", new, "--to", "snapshots"))

    monkeypatch.setattr(night, "check", check_and_replace)
    result = daily("--day", DAY, "--traces", "snapshots", "--log", "none")
    assert f"a snapshot was replaced meanwhile: {DAY} is computed once more" in result.stderr
    (row, *_) = rows_of("analytics.personalization_daily")
    assert row["decisions"] == 2


def test_a_day_that_is_taken_away_while_it_is_read_ends_the_run(monkeypatch):
    run("snapshot", "--from", file_of(trace()), "--to", "snapshots")
    monkeypatch.setattr(night, "check", lambda manifest: shutil.rmtree(manifest.partition))
    result = daily("--day", DAY, "--traces", "snapshots", "--log", "none", exit_code=1)
    assert f"the decisions of {ORG} on {DAY} were taken out of the snapshots" in result.stderr
    assert rows_of("analytics.personalization_daily") == []


def test_a_folder_of_a_day_that_cannot_be_read_is_no_missing_day():
    """Or every user of that day would be a new one, without a word."""
    run("snapshot", "--from", file_of(trace()), "--to", "snapshots")
    Path(f"snapshots/day={DAYS[3]}").symlink_to(f"day={DAYS[3]}")
    result = daily("--day", DAY, "--traces", "snapshots", "--log", "none", exit_code=1)
    assert f"snapshots/day={DAYS[3]}/_manifest.json: Too many levels" in result.stderr


def test_several_organisations_need_one_to_be_named():
    file = file_of(trace(), trace(org_id="other", decision_id="e"))
    result = daily("--day", DAY, "--traces", file, "--log", "none", exit_code=2)
    assert "2 organisations" in result.stderr
    assert f"--org {ORG}" in result.stderr
    daily("--day", DAY, "--traces", file, "--log", "none", "--org", "other")
    assert {row["org_id"] for row in rows_of("analytics.personalization_daily")} == {"other"}
    result = daily("--day", DAY, "--traces", file, "--log", "none", "--org", "third", exit_code=2)
    assert f"there are those of {ORG}, other" in result.stderr


def test_what_is_done_and_what_was_not_counted_is_told_whatever_fails_after_it():
    """Nobody listens on port 9."""
    gateway = "http://127.0.0.1:9"
    file = file_of(trace(), "{")
    order = ("--day", DAY, "--traces", file, "--log", "none", "--report", "report.html")
    result = daily(*order, "--pushgateway", gateway, exit_code=1)
    assert f"{file}:2" in result.stderr
    assert "Not counted: 1 no JSON." in result.stderr
    assert f"{DAY}: 1 decisions; analytics.personalization_daily" in result.stderr
    assert "report: report.html" in result.stderr
    assert result.stderr.count("cannot be reached") == 1
    result = daily("--day", DAYS[0], *order[2:], "--pushgateway", gateway, exit_code=2)
    assert f"there is no decision on {DAYS[0]}" in result.stderr
    assert result.stderr.count("cannot be reached") == 1


@pytest.mark.parametrize("option", ["--report", "--log"])
def test_a_full_disk_is_said_of_the_file_that_was_asked_for(option):
    order = ("--day", DAY, "--traces", file_of(trace()), "--log", "none")
    result = daily(*order, option, "/dev/full", exit_code=1)
    assert "/dev/full: No space left on device; make room there" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("snapshot", "--to", "snapshots", "--from"),
        ("daily", "--traces"),
        ("daily", "--log", "none", "--report", "-", "--traces"),
    ],
)
def test_a_full_disk_under_standard_output_is_said(command):
    done = run_into_a_full_disk(*command, file_of(trace()), "--day", DAY)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "otel-personalization: standard output: No space left on device; make room there, or name "
        "another place, and run it again"
    )


@pytest.mark.parametrize("room", [10, 600])
def test_a_full_disk_leaves_whole_lines_in_the_log_and_the_next_run_adds_to_them(room, monkeypatch):
    """Of the size that a file may have there is no room left, as of a disk."""
    traces = file_of(*(trace(surface=f"s{n}", decision_id=str(n)) for n in range(3)))
    order = ("--day", DAY, "--traces", traces, "--log", "lines.ndjson")
    daily(*order)
    file = Path("lines.ndjson")
    whole = file.read_text("ascii")
    write, limits = night._log, resource.getrlimit(resource.RLIMIT_FSIZE)

    def log(*of: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + room, limits[1]))
        try:
            write(*of)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(night, "_log", log)
        result = daily(*order, exit_code=1)
    assert "otel-personalization: lines.ndjson: File too large; make room there" in result.stderr
    left = file.read_text("ascii")
    assert left.startswith(whole)
    assert left.endswith("}\n")
    daily(*order)
    surfaces = [json.loads(line)["surface"] for line in file.read_text("ascii").splitlines()]
    assert surfaces[-3:] == surfaces[:3] == ["s0", "s1", "s2"]


@pytest.mark.parametrize("option", ["--report", "--log"])
def test_of_a_folder_that_is_missing_the_file_is_named_that_was_asked_for(option):
    order = ("--day", DAY, "--traces", file_of(trace()), "--log", "none")
    result = daily(*order, option, "pages/night.html", exit_code=1)
    assert "otel-personalization: pages/night.html: No such file or directory; make the " in (
        result.stderr
    )
    assert "the folder pages, and run it again" in result.stderr


def with_files_of(most_bytes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command where no file may be larger: there is no room left, as on a disk that is full."""
    program = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most_bytes}, {most_bytes}));"
        "from otel_personalization.__main__ import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_full_disk_under_snapshots_is_said_of_their_folder():
    done = with_files_of(0, "snapshot", "--from", SAMPLE, "--to", "snapshots")
    assert done.returncode == 1
    assert "otel-personalization: snapshots: File too large; make room there" in done.stderr


@pytest.mark.parametrize("option", ["--traces", "--outcomes"])
def test_a_full_disk_under_temporary_files_is_said_of_their_folder(option):
    outcomes = file_of(
        *(
            json.dumps({"decision_id": str(uuid4()), "item_id": "a", "type": "click"})
            for _ in range(2_000)
        ),
        name="outcomes.ndjson",
    )
    run("snapshot", "--from", file_of(trace()), "--to", "snapshots")
    inputs = {"--traces": "snapshots"} | {option: SAMPLE if option == "--traces" else outcomes}
    done = with_files_of(4_096, "daily", "--day", DAY, *chain(*inputs.items()))
    assert done.returncode == 1
    said = f"folder of temporary files {tempfile.gettempdir()} (TMPDIR): File too large; make room"
    assert said in done.stderr


@pytest.mark.parametrize("most_bytes", [10_000, 16_000, 24_000])
def test_a_full_disk_under_the_tables_of_a_run_is_said_of_temporary_files(most_bytes):
    """Of the tables themselves, and as something is committed."""
    run("snapshot", "--from", SAMPLE, "--to", "snapshots")
    order = ("--day", DAY, "--traces", "snapshots", "--warehouse", "warehouse/")
    done = with_files_of(most_bytes, "daily", *order)
    (line,) = done.stderr.splitlines()
    assert line.startswith("otel-personalization: DuckDB could not go on: ")
    assert "File too large; give the folder of temporary files" in line
    assert done.returncode == 1


def test_a_folder_in_which_nothing_can_be_made_is_named_as_it_was_given(monkeypatch):
    def refuse(prefix: str, dir: Path) -> str:  # noqa: A002  # as it is called
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{dir}/{prefix}x")

    monkeypatch.setattr(snapshot, "mkdtemp", refuse)
    result = run("snapshot", "--from", SAMPLE, "--to", "snapshots")
    assert result.exit_code == 1
    assert "otel-personalization: snapshots: Permission denied; see that it may be written" in (
        result.stderr
    )


@pytest.mark.parametrize(
    "order",
    [
        ("snapshot", "--from", ".", "--to", "snapshots"),
        ("daily", "--day", DAY, "--traces", SAMPLE, "--outcomes", "."),
    ],
)
def test_a_folder_where_files_are_wanted_is_a_wrong_command(order):
    result = run(*order)
    assert result.exit_code == 2
    assert ". is a folder: give files" in result.stderr


def test_the_rest_of_a_damaged_file_is_no_line_that_is_no_json():
    whole = gzip.compress("".join(f"{trace(decision_id=str(n))}\n" for n in range(9)).encode())
    Path("cut.gz").write_bytes(whole[:-1])
    run("snapshot", "--from", "cut.gz", "--to", "snapshots")
    for traces in ("cut.gz", "snapshots"):
        order = ("--day", DAY, "--traces", traces, "--log", "none", "--report", "report.html")
        daily(*order, exit_code=3)
        page = Page(Path("report.html").read_text("utf-8"))
        assert page.row("lines that are no JSON, skipped", "0")
        assert page.row("rests of damaged files, of an unknown number of lines", "1")


# --- standard output --------------------------------------------------------------------------


OF_TWO_DAYS = ("daily", "--from-day", DAYS[3], "--to-day", DAY, "--traces", SAMPLE)
TO_STDOUT = [(), ("--log", "none", "--report", "-")]


@pytest.mark.parametrize("options", TO_STDOUT)
def test_a_reader_who_went_away_is_told_of_where_days_are_computed_for_it(options):
    """Else nobody would know that there are days that are not computed."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "otel_personalization", *map(str, (*OF_TWO_DAYS, *options))],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "otel-personalization: standard output: what read it has ended; write to a file, and run "
        "it again"
    )


@pytest.mark.parametrize("options", TO_STDOUT)
def test_where_standard_output_is_closed_that_is_a_wrong_command(options, folder):
    def closed(*options: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "otel_personalization", *map(str, OF_TWO_DAYS))
        return subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *command, *options],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    done = closed(*options)
    assert done.returncode == 2, done.stderr
    assert "standard output is closed: write to a file" in done.stderr
    assert list(folder.iterdir()) == []
    assert closed("--log", "none").returncode == 0


# --- what files are ---------------------------------------------------------------------------


def test_a_part_of_a_folder_of_snapshots_is_refused_and_the_folder_is_asked_for():
    run("snapshot", "--from", SAMPLE, "--to", "snapshots")
    data = read_manifest(Path("snapshots"), DAY).data
    for command in (
        ("snapshot", "--from", data, "--to", "others"),
        ("daily", "--day", DAY, "--traces", data),
        ("daily", "--day", DAY, "--traces", data.parent),
    ):
        result = run(*command)
        assert result.exit_code == 2, result.output
        assert "give the folder of snapshots" in " ".join(result.output.replace("│", " ").split())
        assert len(result.output.splitlines()) < 10
    assert not Path("others").exists()


def test_outcomes_may_come_through_a_pipe():
    """Which can be read but once: what looks into it first would take lines away."""
    reader, writer = os.pipe()
    outcome = {"decision_id": "d", "item_id": "a", "type": "impression"}
    with os.fdopen(writer, "w") as stream:
        stream.write(json.dumps(outcome) + "\n")
    daily("--day", DAY, "--traces", file_of(trace()), "--outcomes", f"/dev/fd/{reader}")
    os.close(reader)
    assert rows_of("experiments.blend_weights_daily")[0]["impressions"] == 1


def test_an_organisation_of_which_postgresql_has_nothing_is_named(monkeypatch):
    monkeypatch.setattr(PostgresLines, "batches", lambda _self: iter(()))
    source = ("snapshot", "--from", "postgresql://localhost/x", "--to", "snapshots", "--day", DAY)
    result = run(*source, "--org", "absent")
    assert result.exit_code == 2
    assert f"of organisation absent there is no decision of {DAY} in the input" in result.stderr


def test_days_that_are_done_are_told_before_one_that_fails():
    run("snapshot", "--from", SAMPLE, "--to", "snapshots")
    data = read_manifest(Path("snapshots"), DAY).data
    data.write_bytes(b"x")
    order = ("--from-day", DAYS[-2], "--to-day", DAY, "--traces", "snapshots", "--log", "none")
    result = daily(*order, exit_code=1)
    assert f"{DAYS[-2]}: " in result.stderr
    assert data.name in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--traces", ".", "--traces", SAMPLE], "one folder of snapshots"),
        (["--traces", SAMPLE, "--warehouse", ""], "that is no warehouse; give FILE.duckdb"),
        (["--traces", SAMPLE, "--warehouse", "mysql://u:secret@x"], "mysql:... is no warehouse"),
        (["--traces", SAMPLE, "--warehouse", "tables.csv"], "tables.csv is no warehouse"),
        (
            ["--traces", SAMPLE, "--warehouse", "analytics.duckdb"],
            "not be called as a schema in it",
        ),
        (["--traces", "-", "--outcomes", "-"], "standard input, which is read once"),
        (["--traces", "-", "--traces", "-"], "standard input, which is read once"),
        (["--traces", SAMPLE, "--report", "-"], "where log lines go: add --log none"),
    ],
)
def test_a_wrong_command_ends_with_2_before_anything_is_read(arguments, said, folder):
    result = daily("--day", DAY, *arguments, exit_code=2, stdin=b"")
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert "secret" not in result.output
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--traces", "gone.ndjson", "--day", DAY], "gone.ndjson"),
        (["--traces", SAMPLE], "--day"),
        (["--traces", SAMPLE, "--day", "2026-13-01"], "2026-13-01"),
        (["--traces", SAMPLE, "--day", DAY, "--to-day", DAY], "or the first and the last"),
        (["--traces", SAMPLE, "--from-day", DAY], "come together"),
        (["--traces", SAMPLE, "--from-day", DAY, "--to-day", DAYS[0]], "before the first"),
        (["--traces", SAMPLE, "--day", DAY, "--pushgateway", "x"], "http://localhost:9091"),
        (["--traces", SAMPLE, "--day", DAY, "--k", "0"], "--k"),
        (["--traces", SAMPLE, "--day", "0001-01-01"], "days are from 1000-01-01 to 9998-12-31"),
        (["--traces", SAMPLE, "--day", DAY, "--outcomes", "none.ndjson"], "none.ndjson"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(arguments, said):
    result = run("daily", *arguments)
    assert result.exit_code in (1, 2)
    assert said in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("history_days", "cohort"), [(2, "returning"), (1, "unknown")])
def test_of_a_file_history_begins_with_its_first_day(history_days, cohort):
    before = f"{DAY - timedelta(days=2)}T10:00:00Z"
    file = file_of(trace(ts=before, decision_id="before"), trace())
    daily("--day", DAY, "--traces", file, "--log", "none", "--history-days", history_days)
    assert {row["cohort"] for row in rows_of("analytics.personalization_daily")} == {"all", cohort}


def test_a_day_after_which_there_is_none_is_refused():
    result = run(
        "snapshot", "--from", "postgresql:///x", "--day", "9999-12-31", "--to", "snapshots"
    )
    assert result.exit_code == 2
    assert "days are from 1000-01-01 to 9998-12-31" in " ".join(result.output.split())


def test_a_snapshot_in_the_folder_of_another_day_is_refused_of_history_too():
    run("snapshot", "--from", SAMPLE, "--to", "snapshots")
    for day in DAYS[1:3]:
        Path(f"snapshots/day={day}").rename(f"snapshots/day={day - timedelta(days=10)}")
    for day in (DAY, DAYS[1] - timedelta(days=10)):
        result = daily("--day", day, "--traces", "snapshots", "--log", "none", exit_code=1)
        said = f"is of {DAYS[1]}, not of {DAYS[1] - timedelta(days=10)}; name its folder"
        assert said in " ".join(result.stderr.split())
    assert not Path("personalization.duckdb").exists()


def test_a_damaged_snapshot_is_refused():
    run("snapshot", "--from", SAMPLE, "--to", "snapshots")
    data = read_manifest(Path("snapshots"), DAY).data
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    result = daily("--day", DAY, "--traces", "snapshots", "--log", "none", exit_code=1)
    assert data.name in result.stderr
    assert not Path("personalization.duckdb").exists() or not rows_of(
        "analytics.personalization_daily"
    )


DAILY = ("daily", "--traces", SAMPLE)


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (("snapshot", "--to", "snapshots", "--from", SAMPLE), "duckdb"),
        (("snapshot", "--to", "snapshots", "--from", SAMPLE), "pyarrow"),
        (("snapshot", "--to", "snapshots", "--from", "postgresql://localhost/"), "psycopg"),
        (DAILY, "duckdb"),
        (DAILY, "pyarrow"),
        ((*DAILY, "--warehouse", "postgresql://localhost/"), "psycopg"),
        ((*DAILY, "--report", "report.html"), "matplotlib"),
        ((*DAILY, "--report", "report.html"), "jinja2"),
    ],
)
def test_without_its_packages_it_says_what_to_install_before_any_work(command, missing, folder):
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from otel_personalization.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, command), "--day", str(DAY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{command[0]} needs {missing}, which is not installed" in done.stderr
    assert 'pip install "otel-personalization[daily]"' in done.stderr
    assert list(folder.iterdir()) == []


def test_files_need_no_opentelemetry_and_no_client_of_a_database(folder):
    without = dict.fromkeys(("opentelemetry", "psycopg", "matplotlib", "jinja2", "pyspark"))
    program = (
        f"import sys; sys.modules.update({without})\n"
        "from otel_personalization.__main__ import main; main()"
    )
    day = ("--day", str(DAY))
    for command in (
        ("snapshot", *day, "--from", str(SAMPLE), "--to", "snapshots"),
        ("daily", *day, "--traces", "snapshots", "--log", "none"),
    ):
        subprocess.run([sys.executable, "-c", program, *command], check=True)


def on_terminal(command: list[str]) -> tuple[int, bytes]:
    """Exit code, and what is on the terminal."""
    own, other = pty.openpty()
    with subprocess.Popen(command, stdin=other, stdout=other, stderr=other) as process:
        os.close(other)
        seen = b""
        while True:
            try:
                part = os.read(own, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            seen += part
    os.close(own)
    return process.returncode, seen


def test_nothing_shows_progress_but_a_terminal(folder):
    command = [
        *(sys.executable, "-m", "otel_personalization", "daily", "--day", str(DAY)),
        *("--traces", str(SAMPLE), "--log", "none"),
    ]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "\x1b" not in piped.stderr + piped.stdout
    code, seen = on_terminal(command)
    assert code == 0, seen
    assert f"{DAY}: ".encode() in seen


def test_a_terminal_shows_of_a_pipe_how_much_was_read_and_of_a_missing_file_its_name(folder):
    """More than a block, after which progress is told."""
    op = [sys.executable, "-m", "otel_personalization"]
    os.mkfifo("pipe")
    text = trace(padding="x" * (ndjson.BLOCK_BYTES // 2)) + "\n"
    feeding = Thread(target=lambda: Path("pipe").write_text(3 * text), daemon=True)
    feeding.start()
    code, seen = on_terminal([*op, "daily", "--day", str(DAY), "--traces", "pipe"])
    assert code == 0, seen
    feeding.join()
    for command in (
        ["snapshot", "--from", "gone", "--to", "snapshots"],
        ["daily", "--day", str(DAY), "--traces", "gone"],
    ):
        code, seen = on_terminal([*op, *command])
        assert code == 1
        assert b"otel-personalization: gone: No such file or directory" in seen


# --- signals ----------------------------------------------------------------------------------


def ended(
    folder: Path, patch: str, *arguments: object
) -> tuple[subprocess.CompletedProcess[str], list[Path]]:
    """A process of a command in which something was replaced, and the temporary files it left.

    Args:
        folder: of its temporary files, which is made.
        patch: says what is replaced; ``stop`` of it sends a signal to the process.
        arguments: the command.
    """
    program = (
        "import os, signal\n"
        "from otel_personalization.daily import night, snapshot\n"
        "def stop(number): os.kill(os.getpid(), number)\n"
        f"{patch}\n"
        "from otel_personalization.__main__ import main; main()"
    )
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, list(folder.iterdir())


def test_a_job_that_sigterm_ends_leaves_no_traces_behind_and_pushes_that_it_failed(folder):
    """Its temporary files have hashes of users, and the gauge would still say that all is well."""
    pushed = []

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            path, body = self.path, self.rfile.read(int(self.headers["Content-Length"]))
            pushed.append((path, body.decode().splitlines()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    order = ("daily", "--day", DAY, "--traces", file_of(trace()), "--log", "none")
    with serving(Gateway) as url:
        # Twice, as `timeout` sends it: the second comes while the first is being obeyed.
        done, left = ended(
            folder / "temporary",
            "def compute(*_, **__):\n"
            "    try: stop(signal.SIGTERM)\n"
            "    finally: stop(signal.SIGTERM)\n"
            "night.compute = compute",
            *(*order, "--pushgateway", url),
        )
    assert (done.returncode, done.stderr, left) == (128 + signal.SIGTERM, "", [])
    ((path, lines),) = pushed
    assert path.endswith("/job/personalization_daily_run")
    assert "personalization_daily_last_run_success 0.0" in lines


# While a statement runs, and of what it reads; see `engines.DuckDB` for what becomes of that.
@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError('Query interrupted')",
        "duckdb.IOException('IO Error: interrupted system call')",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["snapshot", "daily"])
def test_what_duckdb_makes_of_a_signal_is_no_error(command, number, error, folder):
    file = file_of(trace())
    replaced = {"snapshot": "snapshot.checksum_of", "daily": "night.compute"}[command]
    done, left = ended(
        folder / "temporary",
        "import duckdb\n"
        "def interrupted(*_, **__):\n"
        f"    try: stop({number})\n"
        f"    except BaseException: raise {error} from None\n"
        f"{replaced} = interrupted",
        *{
            "snapshot": ("snapshot", "--from", file, "--to", "snapshots"),
            "daily": ("daily", "--day", DAY, "--traces", file, "--log", "none"),
        }[command],
    )
    assert (done.returncode, done.stderr, left) == (128 + number, "", [])


def test_a_snapshot_that_sigterm_ends_leaves_nothing_unfinished(folder):
    done, left = ended(
        folder / "temporary",
        "snapshot.checksum_of = lambda _: stop(signal.SIGTERM)",
        *("snapshot", "--from", file_of(trace()), "--to", "snapshots"),
    )
    assert (done.returncode, done.stderr, left) == (128 + signal.SIGTERM, "", [])
    assert [path.name for path in Path("snapshots").iterdir()] == [".lock"]


def test_a_command_gives_back_the_handler_that_it_found(monkeypatch):
    """Whoever calls it in a process of its own, as `spark-submit` does, may have one."""
    before = signal.getsignal(signal.SIGTERM)
    file = file_of(trace())
    assert run("snapshot", "--from", file, "--to", "snapshots").exit_code == 0
    assert signal.getsignal(signal.SIGTERM) is before
    seen = []

    def theirs(number: int, _frame: object) -> None:
        seen.append(number)

    def stages() -> frozenset[str]:
        signal.raise_signal(signal.SIGTERM)
        return frozenset()

    monkeypatch.setattr(commands, "_stages", stages)
    signal.signal(signal.SIGTERM, theirs)
    try:
        assert run("snapshot", "--from", file, "--to", "snapshots").exit_code == 0
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
