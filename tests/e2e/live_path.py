"""The whole live path on loopback: a fleet, the gateway, and Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.stack.servers import Collector, Ports, Prometheus
from tests.e2e.backends import Gate, gate
from tests.e2e.fleet import Cells, Fleet, fleet, total
from tests.e2e.servers import wait_for
from tests.e2e.views import Window, in_windows, of_views, raw, windows, without_zeros

VIEW_SECONDS = 2.0
EXPORT_SECONDS = 0.5
ARRIVAL_SECONDS = 60.0
"""What was exported is in Prometheus after some ms, and in a view after its interval."""


@dataclass
class LivePath:
    prometheus: Prometheus
    collector: Collector
    fleet: Fleet
    arrival_seconds: float = ARRIVAL_SECONDS
    gate: Gate | None = None
    """Between the gateway and Prometheus, where there is one."""

    def raw_is(self, truth: Cells, selector: str = "") -> None:
        """Wait until the raw counters are the truth, item for item."""
        wanted = without_zeros(truth)
        self._becomes(lambda: raw(self.prometheus, selector), wanted, "the raw counters")

    def views_are(self, truth: Cells) -> list[Window]:
        """Wait until all windows of the views add up to the truth, item for item."""
        wanted = of_views(truth)
        self._becomes(lambda: in_windows(windows(self.prometheus)), wanted, "the views' windows")
        return windows(self.prometheus)

    def check_exact(self) -> list[Window]:
        """What the fleet served is in the raw counters and in the views, item for item."""
        truth = self.fleet.truth()
        assert total(truth) > 0
        self.raw_is(truth)
        return self.views_are(truth)

    def _becomes(self, found: Any, wanted: Cells, what: str) -> None:
        try:
            wait_for(lambda: found() == wanted, f"{what} to be the truth", self.arrival_seconds)
        finally:
            last = found()
            for pair in sorted(wanted.keys() | last.keys()):
                if wanted.get(pair) != last.get(pair):
                    print(f"{what} of {pair}: {last.get(pair)}, and in truth {wanted.get(pair)}")


@contextmanager
def live_path(
    folder: Path,
    *,
    view_seconds: float = VIEW_SECONDS,
    export_seconds: float = EXPORT_SECONDS,
    arrival_seconds: float = ARRIVAL_SECONDS,
    scrapes: bool = False,
    gated: bool = False,
    **collector: Any,
) -> Iterator[LivePath]:
    """The three, with nothing left running.

    Args:
        folder: for all that they write.
        view_seconds: length of a view's window.
        export_seconds: between two exports of a service.
        arrival_seconds: how long to wait until what was sent is there.
        scrapes: whether Prometheus scrapes the gateway.
        gated: whether there is a gate between gateway and Prometheus.
        collector: further arguments of the `Collector`.
    """
    ports = Ports()
    with (
        Prometheus(
            folder / "prometheus", ports if scrapes else None, scrape_interval="1s"
        ) as prometheus,
        gate(prometheus.url) if gated else nullcontext() as between,
        Collector(
            folder,
            between.endpoint if between else prometheus.url,
            ports=ports,
            RECSYS_VIEW_INTERVAL=f"{view_seconds}s",
            **collector,
        ) as gateway,
        fleet(gateway.endpoint, folder / "fleet", export_seconds) as services,
    ):
        yield LivePath(prometheus, gateway, services, arrival_seconds, between)
