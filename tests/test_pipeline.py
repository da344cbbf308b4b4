"""Exact through the real OTLP exporters: set-up in one call, hosts' own providers, forks, exits."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import uuid
from contextlib import ExitStack
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_exporter
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_exporter
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from otel_personalization import PersonalizationHook, pipeline
from otel_personalization.conventions import INTERNAL_ERRORS
from tests.conftest import read_lines, run_program, wait_for
from tests.otlp_receiver import Received, receiving

PROTOCOLS = ("http/protobuf", "grpc")


def check(received: Received, serves: int, threads: int, decisions: int) -> None:
    """Every cell equals what `serves` runs of programs/service.py finalised, item for item."""
    calls = 2 * threads * serves
    expected: dict[str, dict[str, int]] = {}
    for n in range(decisions):
        cell = expected.setdefault(("home", "cart", "pdp")[n % 3], {})
        for name, count in {
            "recsys.decisions": 1,
            "recsys.empty_decisions": int(n % 3 == 0),
            "recsys.served_items": n % 3,
            "recsys.served_items_squared": (n % 3) ** 2,
            "recsys.personalized_items": int(n % 3 > 0),
            "recsys.reason_items": 0,
            "recsys.reason_requested_items": n % 3,
            "recsys.cold_start_impressions": 0,
            "recsys.candidates": n % 2,
            "recsys.candidate_source.decisions": 1,
            "recsys.candidate_source.empty_decisions": int(n % 2 == 0),
        }.items():
            cell[name] = cell.get(name, 0) + count * calls
    totals = received.totals()
    found = {
        surface: {
            name: {dict(labels)["surface"]: count for labels, count in totals[name].items()}[
                surface
            ]
            for name in cell
        }
        for surface, cell in expected.items()
    }
    assert found == expected
    assert received.problems() == []
    assert received.total("otel_personalization.internal_errors") == 0
    assert received.total("otel_personalization.malformed_traces") == 0


@pytest.mark.parametrize("end", ["exit", "shutdown"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pipeline_is_exact(protocol, end):
    with receiving(protocol) as received:
        run_program("service", "pipeline", received.endpoint, protocol, "4", "500", "0", end)
        check(received, serves=1, threads=4, decisions=500)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pipeline_is_exact_while_it_exports_all_the_time(protocol):
    """8 threads with 50,000 decisions each, as many in asyncio tasks, exports all the while."""
    with receiving(protocol) as received:
        arguments = ("pipeline", received.endpoint, protocol, "8", "50000", "0", "exit")
        run_program("service", *arguments, timeout=300, OTEL_METRIC_EXPORT_INTERVAL="20")
        check(received, serves=1, threads=8, decisions=50_000)
        assert received.exports > 3  # as often as eight busy threads let it


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pipeline_is_exact_over_forks_and_children_that_fork_again(protocol):
    """Parent, 2 children, 4 grandchildren; who forks counts before and after."""
    with receiving(protocol) as received:
        run_program("service", "pipeline", received.endpoint, protocol, "3", "200", "2", "exit")
        check(received, serves=1 + 1 + 2 * (1 + 1) + 4, threads=3, decisions=200)
        resources = {series.resource for series in received.series}
        assert len(resources) == 1 + 2 + 4, "each process is a series of its own"


@pytest.mark.parametrize("setup", ["host", "host-late", "host-delta"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("end", ["exit", "shutdown"])
def test_a_hosts_own_provider_is_exact(setup, protocol, end):
    """At exit through a handler of ours; before a shutdown of its own through `hook.flush`."""
    with receiving(protocol) as received:
        run_program("service", setup, received.endpoint, protocol, "4", "200", "0", end)
        check(received, serves=1, threads=4, decisions=200)


@pytest.mark.parametrize("setup", ["host", "host-delta"])
def test_a_hosts_provider_made_before_the_fork_is_exact(setup):
    """Its readers, of deltas too, are inherited: no negative point, and nothing told twice."""
    with receiving() as received:
        run_program("service", setup, received.endpoint, "http/protobuf", "3", "200", "2", "exit")
        check(received, serves=1 + 1 + 2 * (1 + 1) + 4, threads=3, decisions=200)


@pytest.mark.skipif(
    (3, 12, 0) <= sys.version_info < (3, 12, 2),
    reason="these start no thread once the interpreter ends; the docs say what is lost",
)
def test_children_that_end_before_their_exporter_is_made_lose_nothing():
    with receiving() as received:
        run_program("brief_children", received.endpoint)
        assert received.total("recsys.decisions") == 5
        assert received.problems() == []


@pytest.mark.parametrize("kind", ["process", "pool"])
def test_workers_of_multiprocessing_lose_nothing(kind):
    with receiving() as received:
        run_program("workers", received.endpoint, kind)
        assert received.total("recsys.decisions") == 1 + 30
        assert received.problems() == []


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_that_set_themselves_up_lose_nothing(method, tmp_path):
    path = tmp_path / "decisions.ndjson"
    with receiving() as received:
        run_program("own_workers", received.endpoint, str(path), method)
        assert received.total("recsys.decisions") == 40
        assert received.problems() == []
    assert len(read_lines(path)) == 40


def test_a_stalled_log_leaves_a_flush_time_for_the_counters(tmp_path):
    os.mkfifo(tmp_path / "pipe.ndjson")
    reading = os.open(tmp_path / "pipe.ndjson", os.O_RDONLY | os.O_NONBLOCK)
    with receiving() as received:
        provider = configured(received)
        hook = PersonalizationHook(meter_provider=provider, log=tmp_path / "pipe.ndjson")
        for _ in range(1000):
            hook.record(dict(TRACE))
        assert hook.flush(3) is False  # the lines
        assert received.total("recsys.decisions") == 1000
        assert hook.totals.snapshot()[(INTERNAL_ERRORS,)][("flush",)] == (0,)
        os.close(reading)
        provider.shutdown()


def test_a_series_that_began_while_the_backend_was_away_begins_at_0_when_it_is_back():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    provider = pipeline.configure(
        endpoint=f"http://127.0.0.1:{port}", export_timeout=0.2, set_global=False
    )
    hook = PersonalizationHook(meter_provider=provider)
    hook.record(dict(TRACE))
    assert hook.flush(2) is False  # neither the leading 0 nor the total arrived
    with receiving(port=port) as received:
        hook.record(dict(TRACE))
        assert hook.flush(5) is True
        assert received.totals()["recsys.decisions"] == {HOME: 2}
        assert received.problems() == []
    # And no other time: what has arrived does not fall after a further outage.
    assert hook.flush(2) is False
    with receiving(port=port) as received:
        provider.collect_and_export(5000)
        assert received.totals()["recsys.decisions"] == {HOME: 2}
        provider.shutdown()


def test_nothing_is_exported_or_warned_of_after_a_shutdown(caplog):
    with receiving() as received:
        provider = configured(received)
        hook = PersonalizationHook(meter_provider=provider)
        hook.record(dict(TRACE))
        provider.shutdown()
        exports = received.exports
        provider.collect_and_export(1000)  # as what was to follow up does
        assert received.exports == exports
    assert caplog.text == ""


@pytest.mark.parametrize("has_arrived", [True, False])
def test_a_flush_after_a_shutdown_tells_whether_all_arrived(has_arrived):
    with ExitStack() as stack:
        provider = configured(stack.enter_context(receiving()))
        hook = PersonalizationHook(meter_provider=provider)
        hook.record(dict(TRACE))
        if not has_arrived:
            stack.close()
        provider.shutdown()
        assert hook.flush() is has_arrived
        hook.record(dict(TRACE))
        assert not hook.flush()


def test_a_child_of_a_process_that_has_shut_down_does_not_say_that_anything_arrived():
    with receiving() as received:
        provider = configured(received)
        hook = PersonalizationHook(meter_provider=provider)
        hook.record(dict(TRACE))
        provider.shutdown()
        child = os.fork()
        if not child:
            hook.record(dict(TRACE))
            os._exit(hook.flush())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_counted_while_a_shutdown_flushes_is_not_said_to_have_arrived(monkeypatch):
    with receiving() as received:
        provider = configured(received)
        hook = PersonalizationHook(meter_provider=provider)
        flush = provider.force_flush

        def overtaken(timeout_millis: float) -> bool:
            is_flushed = flush(timeout_millis)
            hook.record({**TRACE, "surface": "late"})
            return is_flushed

        monkeypatch.setattr(provider, "force_flush", overtaken)
        provider.shutdown()
        assert not hook.flush()


@pytest.mark.parametrize("has_arrived", [True, False])
def test_a_flush_after_the_exit_handler_tells_whether_all_arrived(has_arrived):
    with ExitStack() as stack:
        provider = configured(stack.enter_context(receiving()))
        hook = PersonalizationHook(meter_provider=provider)
        hook.record(dict(TRACE))
        if not has_arrived:
            stack.close()
        provider._at_exit()
        assert hook.flush() is has_arrived
        hook.record(dict(TRACE))
        assert not hook.flush()


def test_a_reader_that_a_child_inherits_does_not_ask_what_the_host_observes():
    with receiving() as received:
        assert run_program("observed_in_child", received.endpoint)["asked"] == 0


@pytest.mark.parametrize("what", ["finish", "nothing"])
def test_an_exit_does_not_wait_again_nor_for_nothing(what):
    """An ASGI server's shutdown has waited before, and so have the workers of a master: all of it
    must fit in 5 s."""
    assert seconds_to_exit(what) < 1.5


@pytest.mark.parametrize("what", ["counted", "host"])
def test_an_exit_waits_for_a_backend_that_may_answer(what):
    assert 1.5 < seconds_to_exit(what) < 4.5


def seconds_to_exit(what: str) -> float:
    with receiving() as received:
        received.delay = threading.Event()  # nothing is answered
        done = run_program("ends_in_vain", received.endpoint, what)
        received.delay.set()
    return done["seconds"]


# --- forks at the worst moment ----------------------------------------------------------------


def test_a_fork_while_the_pipeline_collects_is_exact():
    with receiving() as received:
        run_program("fork_while_busy", "pipeline", received.endpoint, "collect")
        assert received.total("recsys.decisions") == 1 + 3 + 3
        assert received.problems() == []


def test_a_fork_while_the_pipeline_exports_is_exact_in_the_child():
    """The child has an exporter of its own; the backend answers again when both have counted."""
    with receiving() as received:
        received.delay = threading.Event()
        threading.Timer(1.0, received.delay.set).start()
        run_program("fork_while_busy", "pipeline", received.endpoint, "export")
        assert received.total("recsys.decisions") == 1 + 3 + 3
        assert received.problems() == []


@pytest.mark.parametrize("busy_with", ["collect", "export"])
def test_a_fork_while_a_hosts_provider_is_busy_hangs_nobody(busy_with):
    """The child has inherited a locked lock. It may lose its counts, but not in silence."""
    with receiving() as received:
        received.delay = threading.Event()
        threading.Timer(1.0, received.delay.set).start()
        printed = run_program("fork_while_busy", "host", received.endpoint, busy_with)
        assert printed["child"] == 0
        decisions = received.total("recsys.decisions")
        assert decisions in (4, 7)
        if decisions == 4:
            assert "could not be flushed" in printed["stderr"] or (
                "has inherited a lock" in printed["stderr"]
            )
        assert received.problems() == []


# --- configure --------------------------------------------------------------------------------

TRACE = {"namespace": "shop", "surface": "home", "final_items": [{}]}
HOME = frozenset({("recsys.namespace", "shop"), ("surface", "home")})


def configured(received: Received, **kwargs: Any) -> pipeline.Pipeline:
    return pipeline.configure(
        "ranking",
        endpoint=received.endpoint,
        export_interval=3600,  # nobody waits for it: what arrives was flushed
        set_global=False,
        **kwargs,
    )


def test_declared_series_arrive_with_0_soon_after_start():
    """Long before the first export interval is over, so that no growth hides behind their 0."""
    with receiving() as received:
        provider = configured(received)
        PersonalizationHook(meter_provider=provider, surfaces=["shop/home"])
        wait_for(lambda: received.totals().get("recsys.decisions") == {HOME: 0})
        provider.shutdown()


def test_a_collection_that_reported_leading_zeros_is_followed_up():
    with receiving() as received:
        provider = configured(received)
        hook = PersonalizationHook(meter_provider=provider)
        wait_for(lambda: received.exports > 0)
        hook.record(dict(TRACE))
        provider.collect_and_export(5000)
        wait_for(lambda: received.totals().get("recsys.decisions") == {HOME: 1})
        assert received.problems() == []
        provider.shutdown()


def test_collections_are_exported_in_the_order_in_which_they_were_made(monkeypatch):
    """A flush does not overtake the clock: a total after a larger one would be counted twice."""
    overtaken = threading.Event()
    receive = PeriodicExportingMetricReader._receive_metrics
    received_first = threading.Event()

    def slow_at_first(reader, data, *args, **kwargs):
        if not received_first.is_set():
            received_first.set()
            overtaken.wait(1)  # whoever can overtake does
            receive(reader, data, *args, **kwargs)
        else:
            receive(reader, data, *args, **kwargs)
            overtaken.set()

    monkeypatch.setattr(PeriodicExportingMetricReader, "_receive_metrics", slow_at_first)
    with receiving() as received:
        provider = configured(received)
        hook = PersonalizationHook(meter_provider=provider)
        hook.record(dict(TRACE))
        first = threading.Thread(target=provider.collect_and_export, args=(5000,))
        first.start()
        received_first.wait()
        provider.collect_and_export(5000)
        first.join()
        provider.shutdown()
        assert received.problems() == []
        assert received.total("recsys.decisions") == 1


def test_force_flush_and_shutdown_export_everything():
    with receiving() as received:
        provider = configured(received)
        hook = PersonalizationHook(meter_provider=provider)
        hook.record(dict(TRACE))
        assert provider.force_flush() is True
        assert received.totals()["recsys.decisions"] == {HOME: 1}
        hook.record(dict(TRACE))
        hook.record({**TRACE, "surface": "cart"})
        provider.shutdown()
        provider.shutdown()
        assert received.total("recsys.decisions") == 3
        assert received.problems() == []


def test_a_flush_that_the_backend_does_not_take_is_false_counted_and_warned_of(caplog):
    with receiving() as received:
        provider = configured(received, export_timeout=0.2)
        hook = PersonalizationHook(meter_provider=provider)
        received.delay = threading.Event()
        hook.record(dict(TRACE))
        assert hook.flush(0.5) is False
        assert "could not be flushed" in caplog.text
        received.delay.set()
        assert hook.flush() is True
        kind = frozenset({("kind", "flush")})
        assert received.totals()["otel_personalization.internal_errors"][kind] == 1
        assert received.totals()["recsys.decisions"] == {HOME: 1}
        provider.shutdown()


def test_an_exporter_of_none_exports_nothing(monkeypatch):
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    with receiving() as received:
        provider = configured(received)
        hook = PersonalizationHook(meter_provider=provider)
        hook.record(dict(TRACE))
        assert hook.flush() is True
        provider.shutdown()
        assert received.exports == 0


def test_another_exporter_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    with pytest.raises(ValueError, match="it can be 'otlp' or 'none'"):
        pipeline.configure("ranking", set_global=False)


def resource_of(received: Received) -> dict[str, str]:
    (resource,) = {series.resource for series in received.series}
    return dict(resource)


def test_the_resource_names_the_service_and_the_process(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with receiving() as received:
        provider = configured(received, resource_attributes={"service.version": "7"})
        PersonalizationHook(meter_provider=provider)
        provider.shutdown()
        resource = resource_of(received)
    assert resource["service.name"] == "ranking"
    assert resource["service.version"] == "7"
    assert resource["deployment.environment.name"] == "test"
    assert uuid.UUID(resource["service.instance.id"])


def test_an_instance_id_of_the_operators_is_kept_and_made_unique(monkeypatch):
    """A variable of a container is the same in all of its workers."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7")
    ids = set()
    for _ in range(2):
        with receiving() as received:
            provider = configured(received)
            PersonalizationHook(meter_provider=provider)
            provider.shutdown()
            ids.add(resource_of(received)["service.instance.id"])
    assert len(ids) == 2
    assert all(instance.startswith("pod-7-") for instance in ids)


def test_the_standard_variables_are_honoured(monkeypatch):
    with receiving("grpc") as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
        provider = pipeline.configure(set_global=False)
        PersonalizationHook(meter_provider=provider)
        wait_for(lambda: received.exports > 3)
        provider.shutdown()
        assert resource_of(received)["service.name"] == "from-the-environment"


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_variable_is_as_good_as_none(value, monkeypatch):
    for name in ("METRIC_EXPORT_INTERVAL", "EXPORTER_OTLP_TIMEOUT", "EXPORTER_OTLP_PROTOCOL"):
        monkeypatch.setenv(f"OTEL_{name}", value)
    with receiving() as received:
        provider = pipeline.configure(endpoint=received.endpoint, set_global=False)
        assert provider._export_interval == pipeline.DEFAULT_EXPORT_INTERVAL_SECONDS
        assert provider._export_timeout == pipeline.DEFAULT_EXPORT_TIMEOUT_SECONDS
        provider.shutdown()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"protocol": "http/json"}, "'http/json'; it can be http/protobuf or grpc"),
        ({"export_interval": 0}, "export_interval is 0; it takes a number of seconds above 0"),
        ({"export_timeout": -1}, "export_timeout is -1"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(wrong, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        pipeline.configure("ranking", set_global=False, **wrong)


@pytest.mark.parametrize(
    "wrong", ["localhost:4318", "me:secret@host:4318", "http://", "http://:4318", "http://a b", ""]
)
def test_an_endpoint_that_is_no_url_is_refused_and_not_repeated(wrong):
    with pytest.raises(ValueError, match=r"^endpoint is no URL of HTTP") as refused:
        pipeline.configure("ranking", set_global=False, endpoint=wrong)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("protocol", "exporters", "address"),
    [
        ("grpc", grpc_exporter, "localhost:4317"),
        ("http/protobuf", http_exporter, "http://localhost:4318/v1/metrics"),
    ],
)
@pytest.mark.parametrize("variable", ["METRICS_ENDPOINT", "ENDPOINT"])
def test_an_empty_endpoint_is_as_good_as_none(variable, protocol, exporters, address, monkeypatch):
    made = []

    class Watched(exporters.OTLPMetricExporter):  # type: ignore[misc, name-defined]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self._endpoint)

    monkeypatch.setattr(exporters, "OTLPMetricExporter", Watched)
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{variable}", "")
    pipeline.configure("ranking", protocol=protocol, set_global=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:9")
    pipeline.configure("ranking", protocol=protocol, set_global=False)
    assert made == [address, address.replace("4317", "9").replace("4318", "9")]


def test_an_exporter_that_is_not_installed_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc", None)
    with pytest.raises(ImportError, match=r"^no exporter for grpc is installed: pip install"):
        pipeline.configure("ranking", protocol="grpc", set_global=False)


@pytest.mark.parametrize("name", ["METRICS_PROTOCOL", "PROTOCOL"])
def test_a_wrong_protocol_is_refused_by_the_name_of_its_variable(name, monkeypatch):
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "http/json")
    with pytest.raises(ValueError, match=f"^OTEL_EXPORTER_OTLP_{name} is 'http/json'; it can be"):
        pipeline.configure("ranking", set_global=False)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "foo",
            '"foo" for compression envvar OTEL_EXPORTER_OTLP',
        ),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "abc", "'abc'"),
        (
            "OTEL_METRIC_EXPORT_INTERVAL",
            "0",
            "interval value 0.0 is invalid and needs to be larger",
        ),
    ],
)
def test_variables_that_give_no_exporter_are_refused_as_other_wrong_values_are(
    monkeypatch, variable, value, says
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=r"^the OTEL_ variables give no exporter: ") as refused:
        pipeline.configure("ranking", protocol="grpc", set_global=False)
    assert says in str(refused.value)


def test_a_second_global_provider_is_refused_with_the_remedy():
    assert "set_global=False" in run_program("configure_twice")["refused"]
