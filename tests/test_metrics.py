"""Observable counters over the totals: the contract, exact series, one set for each provider."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import pytest
from opentelemetry.metrics import MeterProvider as ApiMeterProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import Counter, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from otel_personalization import PersonalizationHook, forks
from otel_personalization.conventions import COUNTERS
from otel_personalization.testing import counting, points_of
from tests.conftest import run_program

CONTRACT = {
    "recsys.decisions": ("{decision}", "recsys_decisions_total"),
    "recsys.empty_decisions": ("{decision}", "recsys_empty_decisions_total"),
    "recsys.served_items": ("{item}", "recsys_served_items_total"),
    "recsys.served_items_squared": ("{item}", "recsys_served_items_squared_total"),
    "recsys.personalized_items": ("{item}", "recsys_personalized_items_total"),
    "recsys.reason_items": ("{item}", "recsys_reason_items_total"),
    "recsys.reason_requested_items": ("{item}", "recsys_reason_requested_items_total"),
    "recsys.cold_start_impressions": ("{item}", "recsys_cold_start_impressions_total"),
    "recsys.candidates": ("{candidate}", "recsys_candidates_total"),
    "recsys.candidate_source.decisions": (
        "{decision}",
        "recsys_candidate_source_decisions_total",
    ),
    "recsys.candidate_source.empty_decisions": (
        "{decision}",
        "recsys_candidate_source_empty_decisions_total",
    ),
    "recsys.impressions": ("{item}", "recsys_impressions_total"),
    "recsys.clicks": ("{item}", "recsys_clicks_total"),
    "otel_personalization.malformed_traces": (
        "{trace}",
        "otel_personalization_malformed_traces_total",
    ),
    "otel_personalization.internal_errors": (
        "{error}",
        "otel_personalization_internal_errors_total",
    ),
    "otel_personalization.dropped_log_records": (
        "{record}",
        "otel_personalization_dropped_log_records_total",
    ),
    "otel_personalization.folded_decisions": (
        "{decision}",
        "otel_personalization_folded_decisions_total",
    ),
}
"""What dashboards and alerts out there rely on: name, unit, Prometheus name."""

TRACE = {
    "namespace": "shop",
    "surface": "home",
    "final_items": [{"item_id": "a", "reasons": ["cold_start"]}, {"item_id": "b"}],
    "extras": {"personalized_items": ["a"], "candidate_sources": {"content": {"count": 0}}},
}
HOME = ("shop", "home")


def in_memory(**kwargs: Any) -> tuple[InMemoryMetricReader, MeterProvider]:
    reader = InMemoryMetricReader(**kwargs)
    return reader, MeterProvider([reader], shutdown_on_exit=False)


def collected(reader: Any) -> dict[str, Any]:
    """One collection: metric by name."""
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for of_resource in data.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
    }


def values(reader: Any, name: str) -> dict[tuple[str, ...], int]:
    metric = collected(reader).get(name)
    points = metric.data.data_points if metric else ()
    return {tuple(point.attributes.values()): point.value for point in points}


def test_the_contract_is_what_it_was():
    """Names and units are promises to dashboards and alerts elsewhere."""
    assert {c.name: (c.unit, c.prometheus_name) for c in COUNTERS} == CONTRACT


def test_every_counter_is_exported_with_its_unit_description_and_attributes():
    reader, provider = in_memory()
    hook = PersonalizationHook(meter_provider=provider)
    hook.record(dict(TRACE))
    hook.record_impressions(3, namespace="shop", surface="home")
    hook.record_clicks(1, namespace="shop", surface="home")
    metrics = collected(reader)
    assert set(metrics) == set(CONTRACT)
    for counter in COUNTERS:
        metric = metrics[counter.name]
        assert (metric.unit, metric.description) == (counter.unit, counter.description)
        assert metric.data.is_monotonic
        for point in metric.data.data_points:
            assert tuple(point.attributes) == counter.attributes


def test_values_of_one_decision():
    reader, provider = in_memory()
    PersonalizationHook(meter_provider=provider).record(dict(TRACE))
    points = points_of(reader)
    assert {name: found[HOME] for name, found in points.items() if HOME in found} == {
        "recsys.decisions": 1,
        "recsys.empty_decisions": 0,
        "recsys.served_items": 2,
        "recsys.served_items_squared": 4,
        "recsys.personalized_items": 1,
        "recsys.reason_items": 1,
        "recsys.reason_requested_items": 2,
        "recsys.cold_start_impressions": 1,
    }
    content = (*HOME, "content")
    assert points["recsys.candidates"] == {content: 0}
    assert points["recsys.candidate_source.decisions"] == {content: 1}
    assert points["recsys.candidate_source.empty_decisions"] == {content: 1}
    assert "recsys.impressions" not in points


# --- exact series -----------------------------------------------------------------------------


def test_a_new_series_reports_0_and_then_its_total():
    reader, provider = in_memory()
    hook = PersonalizationHook(meter_provider=provider)
    hook.record(dict(TRACE))
    assert values(reader, "recsys.decisions") == {HOME: 0}
    assert values(reader, "recsys.decisions") == {HOME: 1}
    hook.record({**TRACE, "surface": "cart"})
    assert values(reader, "recsys.decisions") == {HOME: 1, ("shop", "cart"): 0}
    assert values(reader, "recsys.decisions") == {HOME: 1, ("shop", "cart"): 1}


def test_a_declared_series_reports_its_0_before_the_first_decision():
    """So its first growth is never behind a leading zero."""
    reader, provider = in_memory()
    hook = PersonalizationHook(meter_provider=provider, surfaces=["shop/home"])
    assert values(reader, "recsys.decisions") == {HOME: 0}
    hook.record(dict(TRACE))
    assert values(reader, "recsys.decisions") == {HOME: 1}


def test_all_counters_of_one_collection_are_of_one_moment():
    """A decision that comes between two callbacks is in none or in all of them."""
    reader, provider = in_memory()
    hook = PersonalizationHook(meter_provider=provider, surfaces=["shop/home"])
    stop = threading.Event()

    def record() -> None:
        while not stop.is_set():
            hook.record({"namespace": "shop", "surface": "home", "final_items": [{}, {}]})

    thread = threading.Thread(target=record)
    thread.start()
    try:
        for _ in range(200):
            metrics = collected(reader)
            decisions, served, squared = (
                metrics[f"recsys.{name}"].data.data_points[0].value
                for name in ("decisions", "served_items", "served_items_squared")
            )
            assert squared <= 2 * served <= 4 * decisions
            assert decisions - served // 2 <= 1  # the one that was being added
    finally:
        stop.set()
        thread.join()


def test_with_several_readers_the_last_point_of_each_is_exact():
    readers = [InMemoryMetricReader() for _ in range(3)]
    hook = PersonalizationHook(meter_provider=MeterProvider(readers, shutdown_on_exit=False))
    for n in range(1, 6):
        hook.record(dict(TRACE))
        collected(readers[n % 3])
    for reader in readers:
        assert points_of(reader)["recsys.decisions"] == {HOME: 5}


def test_a_reader_of_deltas_gets_each_increment_once():
    delta = dict.fromkeys((Counter, ObservableCounter), AggregationTemporality.DELTA)
    reader, provider = in_memory(preferred_temporality=delta)
    hook = PersonalizationHook(meter_provider=provider)
    seen = []
    for n in range(6):
        for _ in range(n):
            hook.record(dict(TRACE))
        seen += values(reader, "recsys.decisions").values()
    seen += points_of(reader)["recsys.decisions"].values()
    assert min(seen) >= 0
    assert sum(seen) == 15


# --- providers --------------------------------------------------------------------------------


def test_a_provider_of_another_kind_is_not_taken_for_the_global_one():
    """One that delegates to an SDK's, and has no `force_flush` of its own."""
    reader, sdk = in_memory()

    class Delegating(ApiMeterProvider):
        def get_meter(self, *args: Any, **kwargs: Any) -> Any:
            return sdk.get_meter(*args, **kwargs)

    provider = Delegating()
    hook = PersonalizationHook(meter_provider=provider)
    hook.record(dict(TRACE))
    assert hook.totals is not PersonalizationHook().totals
    assert hook.totals is PersonalizationHook(meter_provider=provider).totals
    assert points_of(reader)["recsys.decisions"] == {HOME: 1}


def test_a_second_hook_on_a_provider_shares_its_counters():
    reader, provider = in_memory()
    for _ in range(3):
        PersonalizationHook(meter_provider=provider).record(dict(TRACE))
    assert points_of(reader)["recsys.decisions"] == {HOME: 3}


def test_each_provider_has_counts_of_its_own():
    (first, first_provider), (second, second_provider) = in_memory(), in_memory()
    PersonalizationHook(meter_provider=first_provider).record(dict(TRACE))
    hook = PersonalizationHook(meter_provider=second_provider)
    hook.record(dict(TRACE))
    hook.record(dict(TRACE))
    PersonalizationHook(meter_provider=first_provider).record(dict(TRACE))
    assert points_of(first)["recsys.decisions"] == {HOME: 2}
    assert points_of(second)["recsys.decisions"] == {HOME: 2}


def test_a_provider_that_is_set_later_gets_what_was_counted_before():
    """`instrument()` may come before the service's OpenTelemetry set-up."""
    assert run_program("provider_set_later")["decisions"] == [["shop", "home", 3]]


def test_without_an_sdk_nothing_is_exported_and_nothing_fails():
    hook = PersonalizationHook(meter_provider=NoOpMeterProvider())
    with counting(hook) as counted:
        hook.record(dict(TRACE))
    assert hook.flush() is False
    assert (counted.decisions, counted.internal_errors) == (1, 0)


def test_a_provider_that_is_gone_takes_its_thread_along():
    def flushers() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "otel-personalization"]

    before = len(flushers())
    _, provider = in_memory()
    PersonalizationHook(meter_provider=provider).record(dict(TRACE))
    (own,) = flushers()[before:]
    provider.shutdown()
    del provider, _
    gc.collect()
    own.join(10)
    assert not own.is_alive()


def test_what_fails_in_a_child_keeps_nothing_else_from_being_called_there():
    class Called:
        def fails(self) -> None:
            raise RuntimeError("no thread")

        def ends(self) -> None:
            os._exit(3)

    called = Called()
    forks.call_in_children(called.fails)
    forks.call_in_children(called.ends)
    child = os.fork()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_recording_waits_for_no_collection():
    """A reader that is stuck in the middle of a collection, with the SDK's locks, stops nobody."""
    reader, provider = in_memory()
    stuck, free = threading.Event(), threading.Event()

    def wait(_: Any) -> Any:
        stuck.set()
        free.wait(30)
        return ()

    hook = PersonalizationHook(meter_provider=provider)
    provider.get_meter("host").create_observable_counter("slow", [wait])
    collecting = threading.Thread(target=reader.get_metrics_data)
    collecting.start()
    assert stuck.wait(30)

    def record() -> None:
        for surface in ("home", "cart"):
            hook.record({**TRACE, "surface": surface})

    recording = threading.Thread(target=record)
    recording.start()
    recording.join(30)
    finished_first = not recording.is_alive() and collecting.is_alive()
    free.set()
    collecting.join()
    recording.join()
    assert finished_first


def test_a_fault_in_a_collection_is_counted_and_the_next_one_is_whole(monkeypatch, caplog):
    reader, provider = in_memory()
    hook = PersonalizationHook(meter_provider=provider, surfaces=["shop/home"])
    hook.record(dict(TRACE))
    collected(reader)
    with monkeypatch.context() as broken:
        broken.setattr(hook.totals, "snapshot", lambda: 1 / 0)
        reader.get_metrics_data()
    assert "could not be collected" in caplog.text
    points = points_of(reader)
    assert points["recsys.decisions"] == {HOME: 1}
    assert points["otel_personalization.internal_errors"]["collect",] > 0


@pytest.mark.parametrize("timeout", [5.0])
def test_a_flush_hands_on_everything(timeout):
    reader, provider = in_memory()
    hook = PersonalizationHook(meter_provider=provider)
    hook.record(dict(TRACE))
    assert hook.flush(timeout) is True
    assert values(reader, "recsys.decisions") == {HOME: 1}
