"""Instruments of the host's on a provider of ours: all kinds, in whichever process."""

from __future__ import annotations

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_personalization.meters import PerProcess, PerProcessMeter
from tests.conftest import run_program
from tests.otlp_receiver import receiving


def test_host_instruments_made_before_a_fork_are_each_process_s_own():
    with receiving() as received:
        # Often enough that a child that exported its parent's series would do so here.
        run_program("host_instruments", received.endpoint, OTEL_METRIC_EXPORT_INTERVAL="50")
        for series, points in received.series.items():
            values = [point.value for point in points]
            assert values == sorted(values), series
        found = {
            (series.name, dict(series.resource)["service.instance.id"]): points[-1].value
            for series, points in received.series.items()
        }
    by_name: dict[str, list[int]] = {}
    for (name, _), value in found.items():
        by_name.setdefault(name, []).append(value)
    assert sorted(by_name["host.requests"]) == [1, 2, 101]
    assert sorted(by_name["host.served"]) == [1, 2, 100]
    assert len({instance for _, instance in found}) == 3


@pytest.fixture
def values():
    """What is in a reader, by name."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    kept: list[PerProcess] = []
    meter = PerProcessMeter("host", lambda: provider.get_meter("host"), kept.append)

    def read():
        (resource,) = reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        return {
            metric.name: getattr(point, "value", None) or point.sum
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    return meter, kept, read


def test_every_kind_of_instrument_records(values):
    meter, kept, read = values
    meter.create_counter("counter", "1", "how many").add(2, {"a": "b"})
    meter.create_up_down_counter("up_down", unit="1").add(-3)
    meter.create_histogram("histogram", explicit_bucket_boundaries_advisory=[1.0]).record(4)
    meter.create_gauge("gauge").set(5)
    for number, kind in enumerate(("counter", "up_down_counter", "gauge")):
        create = getattr(meter, f"create_observable_{kind}")
        create(f"observable_{kind}", [lambda _, n=number: [Observation(6 + n)]])
    assert read() == {
        "counter": 2,
        "up_down": -3,
        "histogram": 4,
        "gauge": 5,
        "observable_counter": 6,
        "observable_up_down_counter": 7,
        "observable_gauge": 8,
    }
    assert len(kept) == 3
