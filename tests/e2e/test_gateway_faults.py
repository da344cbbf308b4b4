"""What is lost when the gateway is killed, or what is behind it refuses; and where that shows."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.fleet import Member, add_up, total
from tests.e2e.live_path import EXPORT_SECONDS, VIEW_SECONDS, live_path
from tests.e2e.servers import wait_for
from tests.e2e.views import in_windows, windows

HOME = ("shop_eu", "home")
QUEUE_SIZE = 20
SEND_SECONDS = 1.0
"""To send an export, on a machine that is busy with other things."""


def told(collector, metric: str) -> float:
    """What the Collector tells of itself, added up."""
    text = httpx.get(collector.telemetry, trust_env=False).text
    found = re.findall(rf"^{metric}(?:_total)?(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


def resident_kib(collector) -> int:
    status = Path(f"/proc/{collector.process.pid}/status").read_text()
    (kib,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kib)


def served(decisions, first: float, last: float) -> int:
    return total(add_up(d for d in decisions if first < d.at <= last))


def in_views(path) -> int:
    return total(in_windows(windows(path.prometheus)))


def test_a_killed_gateway_loses_a_window_of_the_views_and_nothing_of_the_counters(
    tmp_path, measure
):
    with live_path(tmp_path) as path:
        members = [path.fleet.start(Member(rate=100, seed=seed)) for seed in range(3)]
        wait_for(lambda: in_views(path) > 3000, "the first windows")
        killed = time.time()
        path.collector.stop(signal.SIGKILL)
        path.collector.start()
        back = time.time()
        before = in_views(path)
        wait_for(lambda: in_views(path) > before + 3000, "windows of the new gateway")
        for member in members:
            member.stop()
        truth = path.fleet.truth()
        path.raw_is(truth)

        decisions = path.fleet.decisions()
        at_most = served(
            decisions,
            killed - VIEW_SECONDS - EXPORT_SECONDS - SEND_SECONDS,
            back + EXPORT_SECONDS + SEND_SECONDS,
        )
        wait_for(lambda: in_views(path) >= total(truth) - at_most, "all windows but those")
        lost = total(truth) - in_views(path)
        assert 0 < lost <= at_most
        measure(
            f"fed {total(truth)}; counters {total(truth)}, lost 0; views {in_views(path)}, lost "
            f"{lost}, at most {at_most}: gone for {back - killed:.1f} s, windows of "
            f"{VIEW_SECONDS:g} s, exports each {EXPORT_SECONDS:g} s"
        )


@pytest.mark.parametrize("status", [429, 503])
def test_a_backend_that_refuses_fills_the_queue_and_not_the_memory(status, tmp_path, measure):
    """What does not fit is refused at the door: services send their totals again."""
    with live_path(tmp_path, gated=True, RECSYS_QUEUE_SIZE=str(QUEUE_SIZE)) as path:
        members = [path.fleet.start(Member(rate=100, seed=seed)) for seed in range(3)]
        wait_for(lambda: in_views(path) > 0, "a window")
        path.gate.status = status
        wait_for(
            lambda: told(path.collector, "otelcol_exporter_queue_size") == QUEUE_SIZE,
            "the queue to be full",
        )
        failed = told(path.collector, "otelcol_exporter_enqueue_failed_metric_points")
        full = resident_kib(path.collector)
        wait_for(
            lambda: (
                told(path.collector, "otelcol_exporter_enqueue_failed_metric_points")
                > failed + 3000
            ),
            "3000 points to be refused",
        )
        assert told(path.collector, "otelcol_exporter_queue_size") == QUEUE_SIZE
        assert told(path.collector, "otelcol_exporter_queue_capacity") == QUEUE_SIZE
        assert told(path.collector, "otelcol_receiver_refused_metric_points") > 0
        growth = resident_kib(path.collector) / full
        assert growth < 1.3
        path.gate.status = None
        wait_for(lambda: told(path.collector, "otelcol_exporter_queue_size") == 0, "an empty queue")
        for member in members:
            member.stop()
        truth = path.fleet.truth()
        path.raw_is(truth)
        lost = total(truth) - in_views(path)
        measure(
            f"fed {total(truth)}; counters {total(truth)}, lost 0; views lost {lost}, those of the "
            f"windows that ended while the queue was full; memory {growth:.2f} of what it was"
        )
