"""`otel-personalization replay`: exact on recorded files, loud on what it could not count."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from otel_personalization.cli import app
from otel_personalization.conventions import STAMPED_PERSONALIZED, STAMPED_REASON
from otel_personalization.replay import COUNTS
from tests.conftest import DATA, cells_of, read_ndjson, recording, run_into_a_full_disk
from tests.otlp_receiver import receiving

SAMPLE = DATA / "traces.ndjson.gz"


def run(*arguments: object, stdin: bytes | None = None) -> Any:
    return CliRunner().invoke(app, ["replay", *map(str, arguments)], input=stdin)


def counted(*arguments: object, exit_code: int = 0, stdin: bytes | None = None) -> dict[str, Any]:
    result = run("--json", *arguments, stdin=stdin)
    assert result.exit_code == exit_code, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def file_of(path: Path, *traces: Any) -> Path:
    lines = (trace if isinstance(trace, bytes) else json.dumps(trace).encode() for trace in traces)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def trace(
    surface: str = "home", ts: str = "2026-11-23T10:00:00Z", **sources: int
) -> dict[str, Any]:
    candidates = {source: {"count": count} for source, count in sources.items()}
    return {
        "decision_id": "d",
        "namespace": "shop",
        "surface": surface,
        "ts": ts,
        "final_items": [{"item_id": "a", "reasons": ["new"]}],
        "extras": {"candidate_sources": candidates},
    }


# --- recorded files ---------------------------------------------------------------------------


def test_the_sample_is_exact(truth):
    report = counted(SAMPLE)
    expected = cells_of(truth["cells"], "namespace", "surface")
    expected = {cell: {name: row[name] for name in COUNTS} for cell, row in expected.items()}
    assert cells_of(report["cells"], "namespace", "surface") == expected
    totals: Counter[str] = Counter()
    for row in expected.values():
        totals.update(row)
    assert report["totals"] == {**totals, "malformed_traces": 0}
    assert report["malformed"] == {}
    assert report["skipped_lines"] == 0


def test_the_sources_of_the_sample_are_exact_by_surface_and_by_namespace(truth):
    report = counted(SAMPLE)
    for keys in (("namespace", "surface", "source"), ("namespace", "source")):
        rows = [row for row in report["sources"] if (row["surface"] is None) == (len(keys) == 2)]
        for row in rows:
            del row["longest_empty_streak"]
        assert cells_of(rows, *keys) == cells_of(truth["sources"], *keys)


def test_the_full_recording_is_exact():
    """And the recorded outage shows as a streak of its 253 decisions with the source."""
    truth = json.loads(recording("decision_traces.truth.json").read_text())["total"]
    report = counted(recording("decision_traces.ndjson.gz"))
    assert report["totals"] == {
        "decisions": truth["decisions"],
        "empty_decisions": truth["decisions_empty"],
        "served_items": truth["served_items"],
        "personalized_items": truth["personalized_served_items"],
        "reason_items": truth["items_with_reason_surfaced"],
        "reason_requested_items": truth["served_items_surfaced"],
        "cold_start_items": 0,
        "malformed_traces": 0,
    }
    (outage,) = (
        row
        for row in report["sources"]
        if (row["namespace"], row["surface"], row["source"]) == ("shop_eu", None, "collaborative")
    )
    assert outage["longest_empty_streak"] == 253
    assert (
        sum(
            row["empty_decisions"]
            for row in report["sources"]
            if row["surface"] is None and row["source"] == "collaborative"
        )
        == truth["collab_zero"]
    )


def test_responses_are_read_by_their_format(truth):
    path = DATA / "responses.ndjson.gz"
    report = counted("--format", "response", path)
    bodies = read_ndjson(path)
    served = sum(len(body["items"] or ()) for body in bodies)
    assert report["totals"]["decisions"] == len(bodies) == len(truth["responses"])
    assert report["totals"]["served_items"] == served > 0
    assert report["sources"] == []
    assert [(cell["namespace"], cell["surface"]) for cell in report["cells"]] == [
        ("unknown", "default")
    ]


def test_an_error_answer_is_no_empty_decision(tmp_path):
    """A body without items was no recommendation."""
    path = file_of(tmp_path / "bodies", {"items": None}, {"error": "bad request"})
    report = counted("--format", "response", path, exit_code=3)
    assert report["totals"]["decisions"] == report["totals"]["empty_decisions"] == 1
    assert report["malformed"] == {"not_a_trace": 1}


def test_rows_in_the_form_of_sql_count_as_the_traces_that_they_are(tmp_path, traces):
    """There, what is absent is null."""
    keys = (
        *(
            "decision_id",
            "org_id",
            "ts",
            "namespace",
        ),
        *(
            "surface",
            "request_id",
            "user_hash",
            "k",
        ),
        *(
            "constraints",
            "effective_config",
            "bandit",
            "candidates_pre",
        ),
        *(
            "final_items",
            "mmr_info",
            "caps",
            "extras",
        ),
    )
    rows = [{key: trace.get(key) for key in keys} for trace in traces]
    assert counted(file_of(tmp_path / "rows", *rows)) == counted(SAMPLE)


def test_gzip_is_told_by_its_content_and_several_files_are_one_input(tmp_path):
    plain = tmp_path / "plain.gz"
    plain.write_bytes(gzip.decompress(SAMPLE.read_bytes()))
    assert counted(plain) == counted(SAMPLE)
    twice = counted(plain, SAMPLE)["totals"]
    assert twice == {name: 2 * count for name, count in counted(SAMPLE)["totals"].items()}


@pytest.mark.parametrize("compressed", [True, False])
def test_standard_input_is_a_file(compressed):
    content = SAMPLE.read_bytes() if compressed else gzip.decompress(SAMPLE.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "otel_personalization", "replay", "--json", "-"],
        input=content,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == counted(SAMPLE)
    assert done.stderr == b""


# --- streaks ----------------------------------------------------------------------------------


def streaks(path: Path) -> dict[tuple[str | None, str], int]:
    return {
        (row["surface"], row["source"]): row["longest_empty_streak"]
        for row in counted(path)["sources"]
    }


def test_streaks_go_by_time_whatever_the_order_of_the_lines(tmp_path):
    """And whatever the offsets: the text of a timestamp sorts otherwise."""
    path = file_of(
        tmp_path / "traces",
        trace(ts="2026-11-23T10:03:00Z", content=0),
        trace(ts="2026-11-23T10:00:00Z", content=4),
        trace(ts="2026-11-23T10:01:00.5Z", content=0),
        trace(ts="2026-11-23T12:02:00+02:00", content=0),
        trace(ts="2026-11-23T10:04:00Z", content=1),
        trace(ts="2026-11-23T10:05:00Z", content=0),
    )
    assert streaks(path)[None, "content"] == 3


def test_a_streak_skips_decisions_without_the_source(tmp_path):
    path = file_of(
        tmp_path / "traces", trace(content=0), trace(), trace(popularity=3), trace(content=0)
    )
    assert streaks(path) == {
        (None, "content"): 2,
        (None, "popularity"): 0,
        ("home", "content"): 2,
        ("home", "popularity"): 0,
    }


def test_streaks_are_told_for_a_namespace_and_for_each_surface(tmp_path):
    path = file_of(
        tmp_path / "traces",
        trace("home", content=0),
        trace("cart", content=0),
        trace("home", content=0),
        trace("cart", content=1),
        trace("home", content=0),
    )
    assert streaks(path) == {(None, "content"): 3, ("cart", "content"): 1, ("home", "content"): 3}


def test_decisions_of_one_instant_stay_in_the_order_of_the_file(tmp_path):
    path = file_of(tmp_path / "traces", *(trace(content=n) for n in (0, 1, 0, 1, 0)))
    assert streaks(path)[None, "content"] == 1


def test_a_trace_without_a_timestamp_is_where_it_stands(tmp_path):
    no_ts = trace(content=0)
    del no_ts["ts"]
    path = file_of(tmp_path / "traces", trace(content=0), no_ts, trace(content=1))
    assert streaks(path)[None, "content"] == 2


# --- what is not counted ----------------------------------------------------------------------


def test_lines_that_are_no_json_and_malformed_traces_are_told_by_file_and_line(tmp_path):
    path = file_of(
        tmp_path / "traces",
        trace(),
        b'{"decision_id": ',
        b"",
        b"[]",
        b"\xff\xfe broken",
        {"final_items": 3},
        trace(),
    )
    result = run("--json", path)
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert report["totals"]["decisions"] == 2
    assert report["totals"]["malformed_traces"] == 2
    assert report["malformed"] == {"not_a_trace": 1, "items_not_a_list": 1}
    assert report["skipped_lines"] == 2
    told = result.stderr.splitlines()
    assert [line.split(": ")[0] for line in told[:-1]] == [f"{path}:{n}" for n in (2, 4, 5, 6)]
    assert "malformed: not_a_trace" in told[1]
    assert told[-1] == "Not counted: 2 lines that are no JSON, 2 malformed traces."


def test_a_malformed_trace_is_told_as_a_line_of_a_file_and_not_as_a_service_would(tmp_path):
    """In a process of its own: the hook warns from another thread, as a rule after the report."""
    path = file_of(tmp_path / "traces", trace(), {"final_items": 3})
    done = subprocess.run(
        [sys.executable, "-m", "otel_personalization", "replay", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"{path}:2: malformed: items_not_a_list",
        "Not counted: 0 lines that are no JSON, 1 malformed traces.",
    ]


def test_a_deeply_nested_line_is_skipped(tmp_path):
    path = file_of(tmp_path / "traces", trace(), b"[" * 100_000)
    assert counted(path, exit_code=3)["skipped_lines"] == 1


def test_many_problems_are_counted_and_the_first_are_told(tmp_path):
    result = run(file_of(tmp_path / "traces", trace(), *([b"x"] * 100)))
    assert "... and 80 more" in result.stderr
    assert "Not counted: 100 lines that are no JSON, 0 malformed traces." in result.stderr


def test_a_truncated_gzip_keeps_what_was_read(tmp_path):
    path = tmp_path / "cut.gz"
    path.write_bytes(SAMPLE.read_bytes()[: SAMPLE.stat().st_size // 2])
    result = run("--json", path)
    assert result.exit_code == 3
    assert 0 < json.loads(result.stdout)["totals"]["decisions"] < 195
    assert f"{path}:" in result.stderr
    assert "the gzip stream is damaged" in result.stderr
    assert "Not counted: 0" not in result.stderr


def test_of_a_truncated_gzip_every_whole_line_is_counted(tmp_path):
    content = SAMPLE.read_bytes()
    for end in range(len(content) // 4, len(content), len(content) // 7):
        path = tmp_path / "cut.gz"
        path.write_bytes(content[:end])
        readable = zlib.decompressobj(31).decompress(content[:end]).count(b"\n")
        result = run("--json", path)
        assert json.loads(result.stdout)["totals"]["decisions"] == readable
        assert f"{path}:{readable + 1}: " in result.stderr


def test_a_gzip_with_a_flipped_bit_is_damaged(tmp_path):
    content = bytearray(SAMPLE.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "flipped.gz"
    path.write_bytes(content)
    result = run("--json", path)
    assert result.exit_code == 3
    assert result.stderr


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"no JSON\n", b'{"name": "x"}\n', b"[1, 2]\n", b'{\n "items": []\n}\n'],
)
def test_what_holds_no_trace_at_all_is_no_input(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    result = run(path)
    assert result.exit_code == 2
    assert "There is no decision trace in the input" in result.stderr


def test_a_file_that_is_not_there_is_told(tmp_path):
    result = run(SAMPLE, tmp_path / "missing")
    assert result.exit_code == 1
    assert f"{tmp_path}/missing: No such file or directory" in result.stderr


# --- stamps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stamped.ndjson", "stamped.ndjson.gz"])
def test_stamped_traces_are_written_back_with_their_counts(tmp_path, traces, name):
    path = tmp_path / name
    report = counted("--stamp", path, SAMPLE)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as lines:
        stamped = [json.loads(line) for line in lines]
    stamps = [
        (row["extras"].pop(STAMPED_PERSONALIZED), row["extras"].pop(STAMPED_REASON))
        for row in stamped
    ]
    assert stamped == traces
    totals = report["totals"]
    assert [sum(column) for column in zip(*stamps, strict=True)] == [
        totals["personalized_items"],
        totals["reason_items"],
    ]
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_stamped_file_counts_the_same_when_its_lists_are_gone(tmp_path):
    """Evidence (4): the stamp of a producer that dropped the list."""
    path = tmp_path / "stamped"
    counted("--stamp", path, SAMPLE)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["extras"].pop("personalized_items", None)
        for item in row["final_items"] or ():
            item.pop("reasons", None)
    again = counted(file_of(path, *rows))["totals"]
    assert again["personalized_items"] == counted(SAMPLE)["totals"]["personalized_items"]


def test_malformed_traces_are_written_back_as_they_were(tmp_path):
    path = tmp_path / "stamped"
    counted("--stamp", path, file_of(tmp_path / "traces", trace(), {"final_items": 3}), exit_code=3)
    assert json.loads(path.read_text().splitlines()[1]) == {"final_items": 3}


def test_a_file_is_not_stamped_onto_itself(tmp_path):
    path = file_of(tmp_path / "traces", trace())
    before = path.read_bytes()
    assert run("--stamp", path, path).exit_code == 2
    assert run("--stamp", tmp_path / "x", "--format", "response", path).exit_code == 2
    assert path.read_bytes() == before


def test_a_dash_is_no_file_to_stamp_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--stamp", "-", SAMPLE)
    assert result.exit_code == 2
    assert "name a file" in result.stderr
    assert not any(tmp_path.iterdir())


def test_a_link_that_is_stamped_to_stays_a_link(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    counted("--stamp", link, SAMPLE)
    assert link.is_symlink()
    assert len((tmp_path / "target").read_text().splitlines()) == 195


def test_a_pipe_that_is_stamped_to_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with (tmp_path / "read").open("wb") as read:
        reader = subprocess.Popen(["cat", pipe], stdout=read)
        counted("--stamp", pipe, SAMPLE)
        assert reader.wait(60) == 0
    assert len((tmp_path / "read").read_text().splitlines()) == 195
    assert pipe.is_fifo()


def test_what_is_no_json_is_not_written_as_if_it_were(tmp_path):
    path = file_of(tmp_path / "traces", trace(), {**trace(), "score": float("nan")})
    result = run("--json", "--stamp", tmp_path / "stamped", path)
    assert result.exit_code == 3
    assert json.loads(result.stdout)["totals"]["decisions"] == 2
    assert result.stderr == (
        f"{path}:2: not written to the stamped file: NaN or Infinity is no JSON\n"
    )
    assert len((tmp_path / "stamped").read_text().splitlines()) == 1


def test_a_wrong_setting_is_told(monkeypatch):
    monkeypatch.setenv("OTEL_PERSONALIZATION_MAX_LABEL_SETS", "x")
    result = run(SAMPLE)
    assert result.exit_code == 2
    assert "OTEL_PERSONALIZATION_MAX_LABEL_SETS" in result.stderr


def test_a_terminal_that_cannot_show_a_label_gets_it_escaped(tmp_path):
    command = [sys.executable, "-m", "otel_personalization", "replay"]
    done = subprocess.run(
        [*command, str(file_of(tmp_path / "traces", trace("\u043c")))],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert b"\\u043c" in done.stdout


def test_a_stamped_file_that_could_not_be_finished_is_not_there(tmp_path):
    target = tmp_path / "stamped"
    assert run("--stamp", target, SAMPLE, tmp_path / "missing").exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_under_standard_output_is_said(options):
    done = run_into_a_full_disk("replay", *options, SAMPLE)
    assert done.returncode == 1
    assert done.stderr == (
        "otel-personalization: standard output: No space left on device; make room there, or name "
        "another place, and run it again\n"
    )


def test_a_reader_who_went_away_is_not_told_of_it():
    reading, writing = os.pipe()
    os.close(reading)
    for options in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "otel_personalization", "replay", *options, SAMPLE],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, b"")
    os.close(writing)


# --- OTLP, table, terminal --------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_counters_are_sent_on(monkeypatch, protocol):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with receiving(protocol) as received:
        report = counted("--otlp", received.endpoint, SAMPLE)
    totals = received.totals()
    for field, name in (
        ("decisions", "recsys.decisions"),
        ("served_items", "recsys.served_items"),
        ("personalized_items", "recsys.personalized_items"),
        ("reason_items", "recsys.reason_items"),
    ):
        assert {dict(labels)["surface"] for labels in totals[name]} == {
            cell["surface"] for cell in report["cells"]
        }
        assert sum(totals[name].values()) == report["totals"][field]
    assert received.problems() == []


def test_an_endpoint_that_does_not_answer_is_told_in_one_line_with_the_cause():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "otel_personalization",
            "replay",
            "--json",
            "--otlp",
            "http://me:secret@127.0.0.1:9",
            str(SAMPLE),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout) == counted(SAMPLE)
    (line,) = done.stderr.splitlines()
    told = "otel-personalization: the counters could not be sent to http://127.0.0.1:9: "
    assert line.startswith(told)
    assert len(line) > len(told)
    assert "secret" not in line


def test_what_was_said_before_the_counters_were_sent_is_not_told_as_the_cause(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "foo")
    result = run("--json", "--otlp", "http://127.0.0.1:9", SAMPLE)
    assert result.exit_code == 1
    assert "Connection refused" in result.stderr
    assert "foo" not in result.stderr


def test_what_an_export_that_was_cut_off_says_late_is_not_shown():
    program = (
        "import logging\n"
        "from otel_personalization.cli import app\n"
        f"app(['replay', '--json', {str(SAMPLE)!r}], standalone_mode=False)\n"
        "logging.getLogger('opentelemetry.exporter').warning('Shutdown in progress')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["totals"]["decisions"] == 195
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_METRICS_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "True")]
)
def test_counters_that_the_environment_keeps_back_are_not_taken_for_sent(
    monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    with receiving() as received:
        result = run("--json", "--otlp", received.endpoint, SAMPLE)
    assert received.exports == 0
    assert result.exit_code == 1
    assert result.stderr.endswith(f"{variable} is '{value.lower()}'; unset it, and run it again\n")


def test_an_endpoint_that_is_no_url_is_told():
    result = run("--otlp", "localhost:4318", SAMPLE)
    assert result.exit_code == 2
    assert "it takes a URL" in result.stderr
    assert "http://localhost:4318" in result.stderr


def test_the_table_is_what_a_person_can_read(tmp_path):
    path = file_of(
        tmp_path / "traces",
        {**trace(collaborative=0), "final_items": [{"personalized": True}, {"reasons": ["x"]}]},
        trace(collaborative=2),
        {"decision_id": "x", "surface": "\ud800\x1b[31m"},
    )
    result = run(path)
    rows = {cells[0]: cells[1:] for line in result.stdout.splitlines() if (cells := line.split())}
    figures = ["2", "3", "1", "33.3%", "2", "66.7%", "66.7%", "50.0%", "1"]
    assert rows["shop"] == rows["home"] == figures
    assert rows["unknown"] == ["1", "0", "0", *["no", "data", "0", "no", "data", "no", "data"]]
    assert "\\ud800\\x1b[31m" in rows
    assert rows["all"][:3] == ["3", "3", "1"]
    assert max(map(len, run(SAMPLE).stdout.splitlines())) <= 110


@pytest.mark.parametrize("term", [None, "xterm", "dumb"])
def test_no_figure_is_cut_off_however_wide_the_table(tmp_path, term):
    """Neither in a pipe nor on a terminal, which has 80 columns here."""
    items = [{"item_id": "a", "reasons": ["x"], "personalized": True}] * 20_000
    path = file_of(
        tmp_path / "traces", *[{**trace("s" * 64, collaborative=0), "final_items": items}] * 6
    )
    ours, terminal = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "otel_personalization", "replay", str(path)],
        stdout=subprocess.PIPE if term is None else terminal,
        env={**os.environ, "TERM": term or "", "COLUMNS": "80", "NO_COLOR": "1"},
    )
    out, _ = done.communicate(timeout=60)
    os.close(terminal)
    shown = (out or os.read(ours, 100_000)).decode()
    os.close(ours)
    assert done.returncode == 0
    figures = ["6", "120,000", "120,000", "100.0%", "120,000", *["100.0%"] * 3, "6"]
    assert ["s" * 64, *figures] in [
        re.sub(r"\x1b\[[\d;]*m", "", line).split() for line in shown.splitlines()
    ]


def test_progress_is_shown_on_a_terminal_only():
    shown, terminal = pty.openpty()
    command = [sys.executable, "-m", "otel_personalization", "replay", "--json", str(SAMPLE)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=True)
    os.close(terminal)
    assert "traces.ndjson.gz" in os.read(shown, 100_000).decode()
    os.close(shown)
    assert json.loads(done.stdout)
    piped = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert piped.stderr == b""


def test_the_command_has_a_version_and_help():
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == "0.1.0"
    for command in ("replay", "doctor", "snapshot", "daily"):
        shown = CliRunner().invoke(app, [command, "--help"]).stdout
        assert "Exit codes:" in map(str.strip, shown.splitlines())
        assert "\b" not in shown
        assert "\\b" not in shown
