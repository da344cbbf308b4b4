"""What traces and arguments of an attacker can do: be counted under their own name, or be refused.

Here commands and hook are attacked as a whole. Each reader and writer has hostile input in tests of
its own as well: of names that are pushed, of names in the report, of bytes that are no trace.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import chain, product
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from otel_personalization import PersonalizationHook
from otel_personalization.cli import app
from tests.conftest import read_lines

DAY = "2026-11-21"
SECRET = "hidden-word"
NAMES = [
    'shop\n{"event": "personalization.decision", "namespace": "forged"}',
    "shop\r\n\x1b[2J\x1b]0;title\x07",
    "\u2028\u2029\x85\x0b\x0c\x00",
    'a"} 1\nforged_total{surface="',
    "'; DROP TABLE analytics.personalization_daily; --",
    '"; DROP SCHEMA analytics CASCADE; --',
    "../../../escaped",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "$(touch escaped)`touch escaped`",
    "=HYPERLINK(1)",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where one may write, and where nothing but what was asked for may appear."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def trace(name: str, **fields: Any) -> dict[str, Any]:
    """With the same name wherever a producer chooses one."""
    return {
        "decision_id": f"d {name}",
        "org_id": "org",
        "namespace": name,
        "surface": name,
        "ts": f"{DAY}T10:00:00Z",
        "user_hash": name,
        "final_items": [{"item_id": name, "reasons": [name]}],
        "caps": [{"brand": name, "category": name}],
        "extras": {
            "cohort": name,
            "device": name,
            "bandit_experiment": name,
            "experiment_variant": name,
            "candidate_sources": {name: {"count": 1}},
        },
        **fields,
    }


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def file_of(*traces: dict[str, Any], name: str = "traces.ndjson") -> Path:
    path = Path(name)
    path.write_text("".join(json.dumps(one) + "\n" for one in traces))
    return path


def escaped(folder: Path) -> set[str]:
    """What is where nobody asked for it."""
    return {path.name for path in folder.parent.iterdir()} - {folder.name} | {
        path.name for path in folder.rglob("escaped")
    }


# --- names in traces --------------------------------------------------------------------------


def test_a_name_is_one_field_of_one_log_line(folder):
    log = folder / "decisions.ndjson"
    hook = PersonalizationHook(log=log, log_sources=True)
    for name in NAMES:
        hook.record(trace(name))
    hook.finish()
    text = log.read_bytes()
    assert not re.search(rb"[^\x20-\x7e\n]", text)
    lines = read_lines(log)
    decisions = [line for line in lines if line["event"] == "personalization.decision"]
    assert len(decisions) == len(NAMES)
    assert [line["decision_id"] for line in decisions] == [f"d {name}" for name in NAMES]
    assert "forged" not in {line["namespace"] for line in lines}


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_no_name_controls_the_terminal(options):
    result = run("replay", *options, file_of(*map(trace, NAMES)))
    assert result.exit_code == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", result.output)


class Elements(HTMLParser):
    """The elements of a page, and the attributes that run something or fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found += [tag, *(name for name, _ in attrs if name.startswith("on"))]


def test_names_are_values_in_tables_and_text_in_the_report(folder):
    files = ("--warehouse", "w.duckdb", "--report", "report.html", "--log", "daily.ndjson")
    result = run("daily", "--day", DAY, "--traces", file_of(*map(trace, NAMES)), *files)
    assert result.exit_code == 0, result.output
    with duckdb.connect("w.duckdb", read_only=True) as warehouse:
        rows = warehouse.execute(
            "SELECT DISTINCT surface FROM analytics.personalization_daily WHERE surface <> 'all'"
        ).fetchall()
    assert len(rows) == len(NAMES)
    assert "'; drop table analytics.personalization_daily; --" in {surface for (surface,) in rows}
    assert len(read_lines(folder / "daily.ndjson")) == len(NAMES)
    page = (folder / "report.html").read_text()
    harmless = [trace(f"name {number}") for number, _ in enumerate(NAMES)]
    plain = run("daily", "--day", DAY, "--traces", file_of(*harmless), *files)
    assert plain.exit_code == 0, plain.output
    elements = Elements((folder / "report.html").read_text()).found
    assert set(Elements(page).found) <= set(elements)
    assert "49" not in re.findall(r">\s*(\d+)\s*<", page)
    assert escaped(folder) == set()


# --- names that become paths ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../../escaped", "/escaped", "$(touch escaped)`touch escaped`"]
)
def test_an_organisation_is_no_path(folder, name):
    file = file_of(trace("a", org_id=name))
    result = run("daily", "--day", DAY, "--traces", file, "--warehouse", "tables/", "--log", "none")
    assert result.exit_code == 0, result.output
    assert escaped(folder) == set()
    (stored,) = (folder / "tables" / "analytics" / "personalization_daily").rglob("*.parquet")
    # Of this file alone: of the folders that lead to it columns can be made, too.
    table = pyarrow.parquet.ParquetFile(stored).read()
    assert set(table["org_id"].to_pylist()) == {name.strip()}


@pytest.mark.parametrize("command", ["snapshot", "daily"])
@pytest.mark.parametrize("day", ["../../escaped", "2026-11-21/../../../escaped", "/tmp", "*", ""])
def test_a_day_is_no_path(folder, command, day):
    places = ("--from", "t.ndjson", "--to", "s") if command == "snapshot" else ("--traces", "s")
    file_of(trace("a"), name="t.ndjson")
    result = run(command, "--day", day, *places)
    assert result.exit_code == 2
    assert "does not match the format" in " ".join(result.output.replace("│", " ").split())
    assert escaped(folder) == set()


@pytest.mark.parametrize("instant", ["../../escaped", "2026-11-21/../../../x", "9999-99-99T00:00Z"])
def test_the_time_of_a_trace_is_no_path(folder, instant):
    file = file_of(trace("a"), trace("b", ts=instant))
    result = run("snapshot", "--from", file, "--to", "snapshots")
    assert result.exit_code == 3
    assert [path.name for path in (folder / "snapshots").glob("day*")] == [f"day={DAY}"]
    assert escaped(folder) == set()


# --- arguments that become SQL ----------------------------------------------------------------


def test_paths_are_paths_whatever_is_in_them(folder):
    odd = """it's; DROP TABLE x "quo" st*r [a] {b} $day %s"""
    traces = file_of(trace("a"), name=f"{odd}.ndjson")
    outcome = {"ts": f"{DAY}T10:00:01Z", "decision_id": "d a", "item_id": "a", "type": "click"}
    outcomes = file_of(outcome, name=f"{odd} outcomes.ndjson")
    (folder / odd).mkdir()
    made = run("snapshot", "--from", traces, "--to", f"{odd}/snapshots")
    assert made.exit_code == 0, made.output
    computed = run(
        *("daily", "--day", DAY, "--traces", f"{odd}/snapshots", "--outcomes", outcomes),
        *(
            "--warehouse",
            f"{odd}/w.duckdb",
            "--report",
            f"{odd}/r.html",
            "--log",
            f"{odd}/l.ndjson",
        ),
    )
    assert computed.exit_code == 0, computed.output
    assert {path.name for path in (folder / odd).iterdir()} == {
        *("snapshots", "w.duckdb", "r.html", "l.ndjson")
    }


@pytest.mark.parametrize("name", [name for name in NAMES if "DROP" in name])
def test_an_organisation_is_a_value(name):
    file = file_of(trace("a", org_id=name), trace("b", org_id="other"))
    result = run("daily", "--day", DAY, "--traces", file, "--org", name.strip(), "--log", "none")
    assert result.exit_code == 0, result.output
    with duckdb.connect("personalization.duckdb", read_only=True) as warehouse:
        (found,) = warehouse.execute(
            "SELECT DISTINCT org_id FROM analytics.personalization_daily"
        ).fetchall()
    assert found == (name.strip(),)


# --- credentials ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://bob:{SECRET}@127.0.0.1:1/db",
        f"PostgreSQL://bob:{SECRET}@127.0.0.1:1/db",
        f"postgresql://127.0.0.1:1/db?user=bob&password={SECRET}",
        f"postgresql://bob:{SECRET}@[::1/db",
        f"http://bob:{SECRET}@127.0.0.1:1",
        f"http://bob:{SECRET}@127.0.0.1:port",
    ],
)
def test_no_command_shows_a_password(url, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # nobody will answer
    traces = file_of(trace("a"))
    day = ("daily", "--day", DAY, "--traces", traces)
    commands = (
        [("snapshot", "--from", url, "--day", DAY, "--to", "s"), (*day, "--warehouse", url)]
        if url.lower().startswith("postgresql")
        else [
            ("replay", "--otlp", url, traces),
            (*day, "--pushgateway", url),
            ("doctor", "--collector", url, "--prometheus", url),
        ]
    )
    for command in commands:
        result = run(*command)
        assert result.exit_code not in (0, 3), (command, result.output)
        assert SECRET not in result.output, command
        assert "Traceback" not in result.output, command


POSTGRESQL = [
    f"postgresql://bob:{SECRET}@127.0.0.1:1/db",
    f"POSTGRES://bob:{SECRET}@127.0.0.1:1/db",
]
NO_PATHS = [
    f"postgresql+psycopg://bob:{SECRET}@127.0.0.1:1/db",
    f"jdbc:postgresql://127.0.0.1:1/db?user=bob&password={SECRET}",
    f" 'postgres:/bob:{SECRET}@127.0.0.1:1/db'",
    f"host=127.0.0.1 port=1 user=bob PASSWORD = {SECRET}",
    f"http://bob:{SECRET}@127.0.0.1:1/report.html",
    f"s3://bob:{SECRET}@bucket/day",
]


@pytest.mark.parametrize(
    ("option", "place"),
    [
        *(("--from", place) for place in NO_PATHS),
        *product(("--to", "--traces", "--outcomes", "--report", "--log"), [*POSTGRESQL, *NO_PATHS]),
    ],
)
def test_what_is_no_path_is_a_wrong_command_that_shows_no_password(option, place, folder):
    traces = file_of(trace("a"))
    options = (
        {"--from": traces, "--to": "snapshots"}
        if option in ("--from", "--to")
        else {"--traces": traces}
    )
    command = "snapshot" if "--to" in options else "daily"
    result = run(command, "--day", DAY, *chain(*(options | {option: place}).items()))
    assert result.exit_code == 2, result.output
    assert SECRET not in result.output
    assert f"Invalid value for {option}: it takes" in " ".join(result.output.split())
    assert [path.name for path in folder.iterdir()] == [traces.name]


def test_a_path_may_have_a_colon_and_an_at_sign():
    traces = file_of(trace("a"))
    for name in ("10:30.ndjson", "bob:word@host", "a/s3:/b.ndjson"):
        place = Path(name).absolute()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(traces.read_bytes())
        assert run("snapshot", "--day", DAY, "--to", "s", "--from", place).exit_code == 0
