"""`make stack`, run as a person runs it: what it shows is so, and it leaves nothing running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from examples.demo.service import REPOSITORY
from examples.ranking_service.traffic import NAMESPACE_WEIGHTS, SURFACES
from examples.stack.counts import COUNTERS, RATES
from otel_personalization.replay import replay
from tests.e2e.servers import wait_for
from tests.e2e.test_dashboard import OF_SURFACES
from tests.e2e.views import in_windows, windows
from tests.grafana import Picked, queries, query

READY = "Ready"
READY_SECONDS = 100.0
"""Past the time that the stack itself waits for its counts to arrive."""
STACKED = query("Personalised share by surface")
PAIRS = {(namespace, surface) for namespace in NAMESPACE_WEIGHTS for surface in SURFACES}


class Stack:
    """A running stack, in a session of its own, as in a terminal of its own."""

    def __init__(self, folder, cwd=REPOSITORY):
        self._out = folder / "shown"
        self._errors = folder / "errors"
        with self._out.open("wb") as out, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "examples.stack", f"--output={folder / 'runs'}"],
                cwd=cwd,
                # What its user exports elsewhere is not for this one.
                env=os.environ | {"OTEL_SDK_DISABLED": "true"},
                stdout=out,
                stderr=errors,
                start_new_session=True,
            )
        self.folder = folder / "runs"

    @property
    def shown(self):
        return self._out.read_text()

    @property
    def errors(self):
        return self._errors.read_text()

    def until(self, shown):
        def is_there():
            assert self.process.poll() is None, self.shown + self.errors
            return shown in self.shown

        wait_for(is_there, f"{shown!r}", READY_SECONDS)

    def ended(self):
        """Its exit code, once it has ended."""
        wait_for(lambda: self.process.poll() is not None, "the stack to end", READY_SECONDS)
        return self.process.returncode

    def url(self, name):
        return re.search(rf"^{name} +(http\S+)", self.shown, re.MULTILINE).group(1)

    def tables(self):
        """Each comparison: when, and by namespace and surface the row's cells."""
        heads = re.split(r"─+ Counted until (\S+): .*\n", self.shown)
        return [
            (
                datetime.fromisoformat(at),
                {
                    (namespace, surface): re.split(r"  +", cells.strip())
                    for namespace, surface, cells in re.findall(
                        r"^ (\w+) / (\w+) +(\d.*)$", table.split("Decisions:")[0], re.MULTILINE
                    )
                },
            )
            for at, table in zip(heads[1::2], heads[2::2], strict=True)
        ]


def descendants(process):
    """All processes that a process has started, directly or not."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def is_running(process):
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def check_gone(processes):
    left = [process for process in processes if is_running(process)]
    assert not left, [Path(f"/proc/{process}/cmdline").read_bytes() for process in left]


@contextmanager
def stack(folder):
    running = Stack(folder)
    try:
        yield running
    finally:
        for process in (running.process.pid, *descendants(running.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        running.process.wait()


class Asked:
    """The Prometheus of a stack, as it was at a time."""

    def __init__(self, url, at):
        self._url = url
        self._at = at.timestamp()

    def query(self, promql):
        return asked(f"{self._url}/api/v1/query", query=promql, time=str(self._at))


def asked(url, **parameters):
    answer = httpx.get(url, params=parameters or None, trust_env=False)
    assert answer.is_success, answer.text
    return answer.json()["data"]["result"]


def by_pair(result):
    return {
        (one["metric"]["recsys_namespace"], one["metric"]["surface"]): float(one["value"][1])
        for one in result
    }


def three(text):
    """A cell of the table: what users, counters and views say."""
    return [part.strip() for part in text.split(" / ")]


def test_what_it_shows_is_what_prometheus_has_and_what_users_were_served(tmp_path):
    with stack(tmp_path) as running:
        running.until(READY)
        ((at, rows),) = running.tables()
        prometheus = Asked(running.url("Prometheus"), at)

        served = by_pair(
            prometheus.query(f"sum by (recsys_namespace, surface) ({COUNTERS['served_items']})")
        )
        assert set(rows) == set(served) == PAIRS
        views = in_windows(windows(prometheus))
        for pair, (items, personalized, with_a_reason, verdict) in rows.items():
            assert verdict == "equal"
            assert three(items) == [f"{served[pair]:,.0f}"] * 3
            for cell, name in (
                (personalized, "personalized_items"),
                (with_a_reason, "reason_items"),
            ):
                rate = views[pair][name] / views[pair]["served_items"]
                assert three(cell) == [f"{rate:.1%}"] * 3
                assert 0 < rate < 1
        assert re.search(r"Decisions: (\d+) answers, \1 log lines: equal", running.shown)

        # Whatever it offers to ask has an answer, of all namespaces and surfaces.
        offered = re.findall(r"^http\S+/api/v1/query\?query=\S+$", running.shown, re.MULTILINE)
        names = {parse_qs(urlsplit(url).query)["query"][0] for url in offered}
        assert names > set(RATES.values())
        for url in offered:
            assert set(by_pair(asked(url))) == PAIRS, url

        # Users go on browsing.
        wait_for(
            lambda: sum(by_pair(asked(offered[-2])).values()) > sum(served.values()),
            "more items to be served",
        )

        # The dashboard shows them: what needs no rules all surfaces, and the rest is no error.
        def shown(one):
            text = Picked(end=time.time()).expanded(one.text, "promql")
            return asked(f"{running.url('Prometheus')}/api/v1/query", query=text)

        for one in queries("promql"):
            shown(one)
            if one.name in OF_SURFACES:
                wait_for(lambda one=one: by_pair(shown(one)).keys() == PAIRS, one.name)
                # increase() extrapolates two counters by a hair's breadth differently.
                assert all(-1 <= value < 1.001 for value in by_pair(shown(one)).values())
        parts = {part["metric"]["part"]: float(part["value"][1]) for part in shown(STACKED)}
        assert parts.keys() == {"home", "PDP", "cart"}
        assert 0 < sum(parts.values()) < 1


@pytest.mark.parametrize(
    ("number", "times"),
    [
        # A terminal sends it to the whole group, and who started it may pass it on.
        pytest.param(signal.SIGINT, 2, id="Ctrl-C, twice at once"),
        pytest.param(signal.SIGTERM, 1, id="SIGTERM"),
    ],
)
def test_told_to_end_it_counts_everything_and_leaves_nothing_running(number, times, tmp_path):
    with stack(tmp_path) as running:
        running.until(READY)
        started = descendants(running.process.pid)
        assert len(started) >= 6, "Prometheus, two Collectors, gunicorn and its workers"
        for _ in range(times):
            os.killpg(running.process.pid, number)
        assert running.ended() == 0, running.shown + running.errors
        assert running.errors == ""
        check_gone(started)

        (_, first), (_, last) = running.tables()
        assert set(last) == set(first) == PAIRS
        assert {row[-1] for row in last.values()} == {"equal"}
        # Independently of all who are compared: the traces that the service stored.
        (run,) = running.folder.iterdir()
        stored = {
            (cell["namespace"], cell["surface"]): f"{cell['served_items']:,}"
            for cell in replay(sorted((run / "traces").iterdir())).cells
        }
        assert {pair: three(row[0])[0] for pair, row in last.items()} == stored
        assert str(run) in running.shown


def test_a_second_ctrl_c_does_not_wait_for_the_last_view(tmp_path):
    with stack(tmp_path) as running:
        running.until(READY)
        started = descendants(running.process.pid)
        running.process.send_signal(signal.SIGINT)
        running.until("Ctrl-C does not wait")
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 130
        assert running.errors == ""
        check_gone(started)


def test_told_to_end_while_it_starts_it_leaves_nothing_running(tmp_path):
    with stack(tmp_path) as running:
        wait_for(lambda: len(descendants(running.process.pid)) >= 2, "the first servers")
        started = descendants(running.process.pid)
        running.process.send_signal(signal.SIGHUP)
        assert running.ended() == 130
        assert running.errors == ""
        check_gone(started)


def test_a_server_that_ends_by_itself_is_named_and_ends_the_others(tmp_path):
    with stack(tmp_path) as running:
        running.until(READY)
        started = descendants(running.process.pid)
        (collector, *_) = [
            process
            for process in started
            if b"gateway.yaml" in Path(f"/proc/{process}/cmdline").read_bytes()
        ]
        os.kill(collector, signal.SIGKILL)
        assert running.ended() == 1
        assert re.search(
            r"^otelcol-recsys has ended; \S+/collector\.log says why$", running.errors, re.M
        )
        check_gone(started)


def test_without_the_tools_it_says_how_to_get_them(tmp_path):
    """In a checkout in which nobody has built them."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("examples", "monitoring", "otel_personalization"):
        (checkout / name).symlink_to(REPOSITORY / name)
    running = Stack(tmp_path, cwd=checkout)
    assert running.ended() == 1
    assert "run `make tools` first" in running.errors
    assert "Traceback" not in running.errors
