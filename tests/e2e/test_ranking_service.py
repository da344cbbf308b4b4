"""The ranking service, run by the commands of its README: it counts what users were served."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest

from examples.demo.service import REPOSITORY, running
from examples.ranking_service.settings import Fault
from examples.ranking_service.traffic import Crowd
from otel_personalization.conventions import DECISION_COUNTERS, OUTCOME_COUNTERS
from otel_personalization.replay import replay
from tests.conftest import read_lines
from tests.otlp_receiver import receiving

README = (REPOSITORY / "examples" / "ranking_service" / "README.md").read_text()
RUN_IT = README[README.index("## Run it") : README.index("## Ask it")]
SINGLE, PREFORK, ZERO_CODE = re.findall(r"```sh\n(.*?)\n```", RUN_IT)
BARE = re.sub(r"\S+$", "--factory examples.ranking_service.app:create_app", ZERO_CODE)
NEVER = "3600000"
"""An export interval that no test waits for: what arrives was flushed."""
VISITS = 60


def command(line):
    """A line of the README, so that a signal reaches what it starts and not a shell."""
    return ("sh", "-c", f"exec env {line}")


@pytest.fixture
def path_of_python(monkeypatch):
    """Commands are those of the environment that the tests run in."""
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )


def by_surface(received, counter):
    """What arrived of a counter, by namespace and surface."""
    counts = received.totals().get(counter.name, {})
    return Counter(
        {
            (dict(labels)["recsys.namespace"], dict(labels)["surface"]): count
            for labels, count in counts.items()
        }
    )


def stamps_of(fields):
    """The two counts, in a trace's extras and in a log line."""
    return fields["personalized_items_count"], fields["reason_items_count"]


@pytest.mark.usefixtures("path_of_python")
@pytest.mark.parametrize(
    ("line", "ending", "counters"),
    [
        pytest.param(SINGLE, SIGTERM, DECISION_COUNTERS + OUTCOME_COUNTERS, id="single process"),
        pytest.param(PREFORK, SIGTERM, DECISION_COUNTERS + OUTCOME_COUNTERS, id="prefork"),
        pytest.param(ZERO_CODE, SIGTERM, DECISION_COUNTERS, id="zero code"),
        pytest.param(BARE, SIGINT, DECISION_COUNTERS, id="no line of ours, ended by Ctrl-C"),
    ],
)
def test_counters_traces_and_lines_equal_what_users_were_served(line, ending, counters, tmp_path):
    """To the last request before the signal that ends the service."""
    faults = {
        ("shop", "cart"): Fault.PERSONALIZATION_OFF,
        ("shop", "product"): Fault.COLD_START_FLOOD,
    }
    with receiving() as received:
        with running(
            tmp_path,
            received.endpoint,
            command(line),
            ending,
            OTEL_METRIC_EXPORT_INTERVAL=NEVER,
            UVICORN_PORT="0",
        ) as url:
            crowd = Crowd(url, 7, faults=faults, on_answer=lambda: None)
            crowd.visit(range(VISITS))
        served = crowd.tally
        for counter in counters:
            users = Counter({pair: counts[counter.field] for pair, counts in served.items()})
            assert by_surface(received, counter) == users, counter.name
        assert received.problems() == []
        assert received.total("otel_personalization.internal_errors") == 0

    snapshots = sorted((tmp_path / "traces").iterdir())
    report = replay(snapshots)
    assert report.problems == []
    for name, count in report.totals.items():
        assert count == sum(counts[name] for counts in served.values()), name
    stored = [trace for snapshot in snapshots for trace in read_lines(snapshot)]
    logged = read_lines(tmp_path / "decisions.log")
    assert sorted((line["decision_id"], *stamps_of(line)) for line in logged) == sorted(
        (trace["decision_id"], *stamps_of(trace["extras"])) for trace in stored
    )
    outcomes = (tmp_path / "outcomes.ndjson").read_text().splitlines()
    assert len(outcomes) == sum(
        counts["impressions"] + counts["clicks"] for counts in served.values()
    )
    assert served["shop", "cart"]["personalized_items"] == 0
    assert served["shop", "home"]["personalized_items"] > 0
