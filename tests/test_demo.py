"""The demo shows what it says, and leaves nothing running however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from examples.ranking_service.tracing import ORG_ID
from otel_personalization.conventions import DECISION_COUNTERS, OUTCOME_COUNTERS
from otel_personalization.daily.tables import PERSONALIZATION_DAILY
from otel_personalization.daily.warehouse import open_warehouse
from otel_personalization.replay import replay

REPOSITORY = Path(__file__).parents[1]


def demo(requests, output):
    """The demo in a session of its own, so that what it leaves behind can be found."""
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo", f"--requests={requests}", f"--output={output}"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def is_running(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def stored(output):
    return sorted(output.glob("*/traces/*.ndjson"))


def test_the_demo_shows_shares_counters_and_a_stamped_trace(tmp_path):
    process = demo(300, tmp_path)
    shown, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert not is_running(process.pid)

    (snapshot,) = stored(tmp_path)
    totals = replay([snapshot]).totals
    assert totals["decisions"] == 300
    for counter in DECISION_COUNTERS + OUTCOME_COUNTERS:
        row = re.search(rf"{counter.prometheus_name}((?: +[\d,]+)+) +equal", shown)
        assert row is not None, counter.prometheus_name
        if counter.field in totals:
            assert row.group(1).split() == [f"{totals[counter.field]:,}"] * 3

    changes = {
        row[0]: [float(share) for share in row[1:]]
        for row in re.findall(r"(\w+ / \w+)" + r" +([\d.]+)%" * 6, shown)
    }
    assert len(changes) == 6
    for place, (*personalized, empty, empty_since, cold, cold_since) in changes.items():
        assert personalized[0] > 10, place
        assert (personalized[1] == 0) == (place == "shop / cart")
        assert empty < 100
        assert (empty_since == 100) == place.startswith("media")
        assert cold < 20
        assert (cold_since > 50) == (place == "shop / product")

    trace = json.loads(re.search(r"^\{$.*?^\}$", shown, re.DOTALL | re.MULTILINE).group())
    assert trace["extras"]["personalized_items_count"] > 0
    assert str(snapshot) in shown
    line = json.loads(
        re.search(r"^\{.*personalization\.decision.*\}$", shown, re.MULTILINE).group()
    )
    assert line["decision_id"] in snapshot.read_text()

    assert_the_nightly_job_ran(shown, snapshot)


def assert_the_nightly_job_ran(shown, snapshot):
    """Over the traces of the demo: its figures are those of the counters, its report is there."""
    folder = snapshot.parents[1]
    report = folder / "report.html"
    assert re.search(rf"^The nightly report: +{re.escape(str(report))}$", shown, re.MULTILINE)
    assert "</html>" in report.read_text()
    day = date.fromisoformat(snapshot.stem)
    with open_warehouse(str(folder / "personalization.duckdb")) as warehouse:
        rows = warehouse.read(PERSONALIZATION_DAILY, ORG_ID, day, day).to_pylist()
    by_surface = {
        (row["namespace"], row["surface"], row["cohort"], row["device"]): row for row in rows
    }
    assert {"new", "returning"} < {row["cohort"] for row in rows}
    assert {"web", "ios", "android"} < {row["device"] for row in rows}
    for counts in replay([snapshot]).cells:
        place = (counts["namespace"], counts["surface"])
        row = by_surface[(*place, "all", "all")]
        for name in ("decisions", "served_items", "personalized_items", "reason_items"):
            assert row[name] == counts[name]
        assert " / ".join(place) in shown[shown.index("The nightly job, over") :]


@pytest.mark.parametrize(
    ("number", "send"),
    [
        pytest.param(signal.SIGINT, os.killpg, id="Ctrl-C on a terminal"),
        pytest.param(signal.SIGINT, os.kill, id="SIGINT to the demo alone"),
        pytest.param(signal.SIGTERM, os.kill, id="SIGTERM to the demo alone"),
    ],
)
def test_a_demo_that_is_interrupted_leaves_nothing_running(number, send, tmp_path):
    process = demo(1_000_000, tmp_path)
    try:
        while not stored(tmp_path):  # until the service is at work
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        send(process.pid, number)
        shown, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (130, "")
        assert "Stopped" in shown
        assert not is_running(process.pid)
    finally:
        if is_running(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
