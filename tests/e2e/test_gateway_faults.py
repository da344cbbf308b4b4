"""What is lost when the gateway is killed, or what is behind it refuses; and where that shows."""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.e2e import otlp
from tests.e2e.fleet import Member, add_up, total
from tests.e2e.live_path import EXPORT_SECONDS, VIEW_SECONDS, live_path
from tests.e2e.servers import wait_for
from tests.e2e.views import in_windows, windows

HOME = ("shop_eu", "home")
QUEUE_BYTES = 100_000
SEND_SECONDS = 1.0
"""To send an export, on a machine that is busy with other things."""


def told(collector, metric: str) -> float:
    """What the Collector tells of itself, added up."""
    found = re.findall(rf"^{metric}(?:_total)?(?:{{.*}})? (\S+)$", collector.told(), re.MULTILINE)
    return sum(map(float, found))


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
@pytest.mark.parametrize("exporter", ["otlp_http/prometheus", "prometheus_remote_write"])
def test_what_a_backend_refuses_for_a_while_is_sent_again(exporter, status, tmp_path):
    """Nothing is lost, neither of counters nor of views, of a service that ended meanwhile."""
    with live_path(tmp_path, gated=True, RECSYS_EXPORTERS=f"[{exporter}]") as path:
        path.gate.status = status
        path.fleet.start(Member(seconds=2)).wait()
        wait_for(lambda: path.gate.refused > 2, "requests to be refused")
        path.gate.status = None
        path.check_exact()


@pytest.mark.parametrize("status", [429, 503])
def test_a_backend_that_refuses_fills_the_queue_and_not_the_memory(status, tmp_path, measure):
    """What does not fit is refused at the door: services send their totals again. Windows of views
    are lost, which the Collector tells."""
    with live_path(tmp_path, gated=True, RECSYS_QUEUE_BYTES=str(QUEUE_BYTES)) as path:
        members = [path.fleet.start(Member(rate=100, seed=seed)) for seed in range(3)]
        wait_for(lambda: in_views(path) > 0, "a window")
        path.gate.status = status
        closed = time.time()
        refused = "otelcol_receiver_refused_metric_points"
        wait_for(lambda: told(path.collector, refused) > 0, "the queue to be full")
        full = path.collector.memory_mib()
        before = told(path.collector, refused)
        wait_for(lambda: told(path.collector, refused) > before + 3000, "3000 points to be refused")
        assert told(path.collector, "otelcol_exporter_queue_capacity") == QUEUE_BYTES
        assert 0.8 < told(path.collector, "otelcol_exporter_queue_size") / QUEUE_BYTES <= 1
        growth = path.collector.memory_mib() / full
        assert growth < 1.3
        wait_for(lambda: lost_view_points(path.collector) > 0, "a window to be lost")
        path.gate.status = None
        wait_for(
            lambda: told(path.collector, "otelcol_exporter_queue_size") < QUEUE_BYTES / 4,
            "the queue to be worked off",
        )
        opened = time.time()
        for member in members:
            member.stop()
        truth = path.fleet.truth()
        path.raw_is(truth)
        at_most = served(
            path.fleet.decisions(),
            closed - VIEW_SECONDS - EXPORT_SECONDS - SEND_SECONDS,
            opened + VIEW_SECONDS,
        )
        wait_for(lambda: in_views(path) >= total(truth) - at_most, "all windows but those")
        lost = total(truth) - in_views(path)
        assert 0 < lost <= at_most
        measure(
            f"fed {total(truth)}; counters {total(truth)}, lost 0; views {in_views(path)}, lost "
            f"{lost}, at most {at_most}; memory {growth:.2f} of what it was"
        )


def lost_view_points(collector) -> float:
    """Points that did not fit, less those that services were told to send again."""
    failed = told(collector, "otelcol_exporter_enqueue_failed_metric_points")
    return failed - told(collector, "otelcol_receiver_refused_metric_points")


def test_prometheus_takes_points_that_waited_for_most_of_a_day(tmp_path):
    """What is older than its window is refused for good."""
    process = {"service.name": "ranking", "service.instance.id": "a process"}
    with live_path(tmp_path) as path:
        now = time.time()
        for hours, status in ((0, 200), (23, 200), (25, 400)):
            at = now - 3600 * hours
            request = otlp.totals({"served_items": 1}, HOME, start=at, at=at, resource=process)
            answer = otlp.send(f"{path.prometheus.url}/api/v1/otlp", request)
            assert answer == status
