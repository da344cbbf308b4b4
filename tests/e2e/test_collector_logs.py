"""From log files through the real Collector: to a receiver in Loki's place, which decodes the real
protobuf, and to the real Prometheus."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
from opentelemetry import trace as tracing
from opentelemetry.metrics import NoOpMeterProvider

from examples.stack.servers import MONITORING, REPOSITORY, Collector, Prometheus, free_port
from otel_personalization import PersonalizationHook
from otel_personalization.conventions import (
    DECISION_EVENT,
    DECISION_LOG_FIELDS,
    DEFAULT_SURFACE,
    DOCTOR_NAMESPACE,
    FOLDED,
    MAX_LABEL_LENGTH,
    SOURCE_EVENT,
    UNKNOWN_NAMESPACE,
)
from otel_personalization.testing import counting
from tests.conftest import DATA
from tests.e2e.servers import wait_for
from tests.otlp_receiver import receiving

LOGS = MONITORING / "collector" / "logs.yaml"
GUIDE = REPOSITORY / "docs" / "guide" / "collector-logs.md"
GATES = ("stanza.synchronousLogEmitter",)
RESOURCE = {"service.name": "ranking", "deployment.environment": "production"}
METADATA = ("event", "surface", "source", "decision_id", "request_id", "sample_rate")
LOG_COUNTER = "recsys.log.decisions"
MAX_LINE_BYTES = 250 * 1024
BATCH = 100
"""Lines that file_log hands over at once."""
SPAN = tracing.SpanContext(
    0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False, tracing.TraceFlags(1)
)


def log_collector(folder, *, loki="", metrics="", gates=GATES, overrides=(), **variables):
    """A Collector that reads what is in ``folder/in``."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    return Collector(
        folder,
        configurations=(LOGS, *overrides),
        feature_gates=gates,
        RECSYS_LOG_FILES=f"[{folder}/in/*.ndjson*]",
        RECSYS_LOKI_ENDPOINT=f"{loki}/otlp",
        RECSYS_PROMETHEUS_OTLP_ENDPOINT=f"{metrics or loki}/v1/metrics",
        RECSYS_COUNT_INTERVAL="500ms",
        **variables,
    )


@contextmanager
def reading(folder, **variables):
    """A Collector that runs, and what takes its lines and counts."""
    with (
        receiving() as received,
        log_collector(folder, loki=received.endpoint, **variables) as collector,
    ):
        yield received, collector


def hook_to(path, **settings):
    return PersonalizationHook(meter_provider=NoOpMeterProvider(), log=path, **settings)


def decide(hook, decision_id, *, namespace="shop_eu", surface="home", served=3, personalized=1):
    ids = [f"item-{n}" for n in range(served)]
    extras = {"personalized_items": ids[:personalized], "include_reasons": True}
    extras["candidate_sources"] = {"popularity": {"count": served, "duration_ms": 0.5}}
    hook.record(
        {
            "decision_id": decision_id,
            "namespace": namespace,
            "surface": surface,
            "final_items": [{"item_id": item, "reasons": ["popular"]} for item in ids],
            "extras": extras,
        }
    )


class Writing:
    """A service that goes on writing lines until it is stopped."""

    def __init__(self, *hooks):
        self._hooks = hooks
        self._stopped = threading.Event()
        self.decisions = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stopped.is_set():
            for _ in range(20):
                hook = self._hooks[self.decisions % len(self._hooks)]
                decide(hook, f"d-{self.decisions}", namespace=f"shop-{self.decisions % 3}")
                self.decisions += 1
            self._stopped.wait(0.02)

    def more(self, decisions=200):
        """Wait for so many more."""
        until = self.decisions + decisions
        wait_for(lambda: self.decisions >= until, f"{decisions} more decisions")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        self._thread.join()
        for hook in self._hooks:
            hook.flush()


def lines_in(folder):
    return [
        line.decode(errors="replace")
        for path in sorted((folder / "in").iterdir())
        for line in path.read_bytes().split(b"\n")
        if line
    ]


def arrived(*receivers):
    return Counter(record.body for received in receivers for record in received.records)


def wait_until_all_arrived(lines, *receivers):
    wait_for(
        lambda: set(lines) <= arrived(*receivers).keys(),
        f"{len(lines)} lines to arrive",
    )


def by_rate(lines):
    """How many lines of decisions there are of each sample rate."""
    decoded = map(json.loads, lines)
    return Counter(str(line["sample_rate"]) for line in decoded if line["event"] == DECISION_EVENT)


def counted(*receivers):
    """Lines counted by sample rate; each start of the Collector is a series."""
    found = Counter()
    for received in receivers:
        with received.lock:
            for series, points in received.series.items():
                assert series.name == LOG_COUNTER
                last = {point.start: point.value for point in points}
                found[dict(series.attributes)["sample_rate"]] += sum(last.values())
    return found


def wait_until_counted(lines, *receivers):
    wanted = by_rate(lines)
    wait_for(lambda: counted(*receivers) >= wanted, f"{dict(wanted)} lines to be counted")


def nanoseconds(text):
    delta = datetime.fromisoformat(text.replace("Z", "+00:00")) - datetime(
        1970, 1, 1, tzinfo=timezone.utc
    )
    return (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000


# --- what goes where --------------------------------------------------------------------------


def test_every_field_of_a_line_arrives_where_it_is_promised(tmp_path):
    with reading(tmp_path) as (received, _):
        hook = hook_to(tmp_path / "in" / "a.ndjson", log_sources=True)
        with tracing.use_span(tracing.NonRecordingSpan(SPAN)):
            decide(hook, "traced", namespace=" Shop_EU")
        decide(hook, "été \N{SNOWMAN}", surface="CART")
        decide(hook, None, namespace=None, surface=None)
        decide(hook, "long", namespace="x" * (MAX_LABEL_LENGTH + 1))
        hook.flush()
        lines = lines_in(tmp_path)
        wait_until_all_arrived(lines, received)
        assert arrived(received) == Counter(lines), "a body is the line, byte for byte"
    assert {json.loads(line)["event"] for line in lines} == {DECISION_EVENT, SOURCE_EVENT}
    for record in received.records:
        line = json.loads(record.body)
        namespace = line["namespace"] if len(line["namespace"]) <= MAX_LABEL_LENGTH else FOLDED
        assert record.resource == RESOURCE | {"namespace": namespace}
        wanted = {name: str(line[name]) for name in METADATA if line.get(name) is not None}
        assert record.attributes == wanted | {"log.file.name": "a.ndjson"}
        assert record.time == nanoseconds(line["timestamp"])
        assert record.observed >= record.time
        assert (record.severity, record.severity_number) == ("INFO", 9)
        assert (record.trace_id, record.span_id) == (line["trace_id"] or "", line["span_id"] or "")
    assert {record.trace_id for record in received.records} == {f"{SPAN.trace_id:032x}", ""}
    namespaces = {record.resource["namespace"] for record in received.records}
    assert namespaces == {"shop_eu", UNKNOWN_NAMESPACE, FOLDED}
    assert {name for name in METADATA if name != "source"} <= {f.name for f in DECISION_LOG_FIELDS}


def test_the_services_own_lines_take_the_same_way(tmp_path):
    """Those of its production logger, and those of its debug logger."""
    lines = (DATA / "service_log_lines.txt").read_text().splitlines()
    with reading(tmp_path) as (received, _):
        shutil.copy(DATA / "service_log_lines.txt", tmp_path / "in" / "service.ndjson")
        wait_until_all_arrived(lines, received)
        assert arrived(received) == Counter(lines)
    own = "candidate_source_metrics"
    at = 1795474277  # the minute of the debug logger's lines
    expected = [
        (1795473968754554000, "INFO", "default", own, "home", "popularity"),
        (1795473850308447000, "INFO", "media", own, DEFAULT_SURFACE, "collaborative"),
        (1795473836557411000, "INFO", "shop_eu", own, "home", "prefetched"),
        (1795473976936133000, "WARN", "shop_eu", "policy_rule_zero_effect", "cart", None),
        (1795474014197176000, "INFO", UNKNOWN_NAMESPACE, "http request", None, None),
        (at * 10**9 + 76_000_000, "INFO", "shop_us", own, "cart", "merged"),
        (at * 10**9 + 82_000_000, "DEBUG", "shop_us", "queueing decision trace", None, None),
        (1795474229670000000, "DEBUG", UNKNOWN_NAMESPACE, "tracing disabled", None, None),
    ]
    found = {record.body: record for record in received.records}
    for line, (time_ns, severity, namespace, event, surface, source) in zip(
        lines, expected, strict=True
    ):
        record = found[line]
        assert (record.time, record.severity) == (time_ns, severity)
        assert record.resource == RESOURCE | {"namespace": namespace}
        assert record.attributes["event"] == event
        assert record.attributes.get("surface") == surface
        assert record.attributes.get("source") == source
        assert record.attributes.keys() <= {*METADATA, "log.file.name"}
    assert received.series == {}, "none is the line of a decision"


# --- lines that are none ----------------------------------------------------------------------


def test_lines_that_are_no_good_cost_no_other_line(tmp_path):
    """They arrive, too: as they are, or as much of them as can be carried."""
    path = tmp_path / "in" / "a.ndjson"
    odd = [
        b'{"event": "personalization.decision", "sample_rate": 1',
        b"[1, 2]",
        b"null",
        b"  indented, and blank at the end  ",
        b'{"event": {"a": 1}, "namespace": 5, "surface": null, "level": 7.5, "ts": "soon"}',
        b'{"timestamp": "yesterday", "level": "loud", "trace_id": "xyz", "span_id": "1"}',
        b'{"namespace": null, "trace_id": 1, "span_id": []}',
        b"\xff\xfe no UTF-8",
        b'{"pad": "' + b"x" * (2 * MAX_LINE_BYTES) + b'"}',
        b"\t\x00\x1b[31m",
    ]
    with reading(tmp_path) as (received, _):
        hook = hook_to(path)
        for number, line in enumerate(odd):
            decide(hook, f"before-{number}")
            hook.flush()
            with path.open("ab") as file:
                file.write(line + b"\n\n")
        decide(hook, "last")
        hook.flush()
        good = [line for line in lines_in(tmp_path) if f'"{DECISION_EVENT}", "schema' in line]
        assert len(good) == len(odd) + 1
        wait_until_all_arrived(good, received)
        wait_until_counted(good, received)
        wanted = good + [line.decode(errors="replace")[:MAX_LINE_BYTES] for line in odd]
        assert arrived(received) == Counter(wanted)
        assert counted(received) == by_rate(good)
    for record in received.records:
        assert record.resource.keys() == {*RESOURCE, "namespace"}
        if record.body not in good:
            assert record.resource["namespace"] == UNKNOWN_NAMESPACE
            assert record.time == 0, "the time at which it was read stands in"
            assert time.time() - 600 < record.observed / 1e9 <= time.time()


def test_a_line_that_is_written_in_two_goes_arrives_whole(tmp_path):
    path = tmp_path / "in" / "a.ndjson"
    with reading(tmp_path) as (received, _):
        with path.open("ab", buffering=0) as file:
            file.write(b'{"event": "first"}\n{"event": ')
            wait_for(lambda: received.records, "the first line")
            # Read again and again meanwhile, for longer than file_log waits by default.
            decided = hook_to(tmp_path / "in" / "b.ndjson")
            for number in range(2):
                decide(decided, f"d-{number}")
                decided.flush()
                wait_for(
                    lambda: len(received.records) > 1 + number,  # noqa: B023
                    "the lines of another file",
                )
            file.write(b'"second"}\n')
        wait_until_all_arrived(['{"event": "second"}'], received)
    assert not [record.body for record in received.records if "event" not in record.attributes]


# --- counts -----------------------------------------------------------------------------------


def test_lines_of_decisions_are_counted_by_sample_rate(tmp_path):
    """Those of several processes at once, of old and of new ones: their times do not rise. What the
    arrived lines add up to is what the hook counted."""
    with reading(tmp_path) as (received, _):
        every = hook_to(tmp_path / "in" / "every.ndjson", log_sources=True)
        tenth = hook_to(tmp_path / "in" / "tenth.ndjson", log_sample=0.1)
        doctor = hook_to(tmp_path / "in" / "doctor.ndjson")
        late = tmp_path / "late.ndjson"
        yesterday = hook_to(late)
        for number in range(50):
            decide(yesterday, f"late-{number}")
        yesterday.flush()
        with counting(every) as by_hook:
            for number in range(600):
                decide(every, f"every-{number}", served=number % 7, personalized=number % 3)
                decide(tenth, f"tenth-{number}", namespace=f"shop-{number % 4}")
                if number % 200 == 0:
                    decide(doctor, f"doctor-{number}", namespace=DOCTOR_NAMESPACE)
                    every.flush()
                    before = len(received.records)
                    wait_for(lambda: len(received.records) > before, "lines to arrive")  # noqa: B023
            late.rename(tmp_path / "in" / "late.ndjson")
        for hook in (every, tenth, doctor):
            hook.flush()
        lines = lines_in(tmp_path)
        of_doctor = [line for line in lines if DOCTOR_NAMESPACE in line]
        others = [line for line in lines if line not in of_doctor]
        wait_until_all_arrived(lines, received)
        wait_until_counted(others, received)
        assert arrived(received) == Counter(lines)
        assert counted(received) == by_rate(others)
        assert len(of_doctor) == 3
        assert by_rate(others)["1.0"] == 650
        assert 30 < by_rate(others)["0.1"] < 100
    of_every = [
        json.loads(record.body)
        for record in received.records
        if record.attributes["log.file.name"] == "every.ndjson"
        and record.attributes["event"] == DECISION_EVENT
    ]
    for name in ("served_items", "personalized_items", "reason_items", "reason_requested_items"):
        assert sum(line[f"{name}_count"] for line in of_every) == getattr(by_hook, name)
    assert len({series.resource for series in received.series}) == 1
    for series, points in received.series.items():
        resource = dict(series.resource)
        machine, _, start = resource.pop("service.instance.id").rpartition("/")
        assert (machine, str(uuid.UUID(start))) == (socket.gethostname(), start)
        assert resource == {"service.name": "ranking", "deployment.environment.name": "production"}
        assert [name for name, _ in series.attributes] == ["sample_rate"]
        values = [point.value for point in points]
        assert values == sorted(values)
        assert not any(point.is_delta for point in points)
        (start,) = {point.start for point in points}
        assert start < points[0].time
        assert [point.time for point in points] == sorted(point.time for point in points)


# --- the Collector ends -----------------------------------------------------------------------


def test_a_restart_loses_no_line_and_repeats_none_while_lines_are_written(tmp_path):
    with receiving() as received:
        collector = log_collector(tmp_path, loki=received.endpoint)
        hooks = (
            hook_to(tmp_path / "in" / "all.ndjson"),
            hook_to(tmp_path / "in" / "half.ndjson", log_sample=0.5),
        )
        with Writing(*hooks) as writing:
            for _ in range(3):
                collector.start()
                writing.more()
                collector.stop()
        lines = lines_in(tmp_path)
        with collector:
            wait_until_all_arrived(lines, received)
            wait_until_counted(lines, received)
        assert arrived(received) == Counter(lines)
        assert counted(received) == by_rate(lines)
        assert len({series.resource for series in received.series}) > 1


@pytest.mark.parametrize("gates", [GATES, ()], ids=["with the gate", "without"])
def test_a_killed_collector_loses_no_line_if_it_has_the_feature_gate(gates, tmp_path, measure):
    """It repeats some: what it read since it last noted down how far it was. Of its counts those
    since the last export are lost. Without the gate it depends on when it is killed."""
    kills = 6
    with receiving() as received:
        collector = log_collector(tmp_path, loki=received.endpoint, gates=gates)
        with Writing(hook_to(tmp_path / "in" / "a.ndjson")) as writing:
            for _ in range(kills):
                collector.start()
                before = len(received.records)
                wait_for(lambda: len(received.records) > before, "lines to arrive")  # noqa: B023
                writing.more()
                collector.stop(signal.SIGKILL)
        lines = lines_in(tmp_path)
        hook = hook_to(tmp_path / "in" / "last.ndjson")
        decide(hook, "last")
        hook.flush()
        with collector:
            wait_until_all_arrived(lines if gates else lines_in(tmp_path)[-1:], received)
        found = arrived(received)
        lost = set(lines) - found.keys()
        assert not (gates and lost)
        assert max(found.values()) <= 1 + kills
        repeated = found.total() - len(found)
        uncounted = by_rate(lines)["1.0"] + 1 - counted(received)["1.0"]
        measure(
            f"{len(lines)} lines, {kills} kills: {repeated} repeated, {len(lost)} lost; "
            f"{uncounted} not counted"
        )


# --- files that are rotated -------------------------------------------------------------------


def test_renaming_loses_no_line_whether_the_collector_runs_or_not(tmp_path):
    path = tmp_path / "in" / "a.ndjson"
    with receiving() as received:
        collector = log_collector(tmp_path, loki=received.endpoint)
        with Writing(hook_to(path)) as writing:
            with collector:
                for number in range(1, 4):
                    writing.more()
                    path.rename(f"{path}.{number}")
                writing.more()
            for number in range(4, 6):
                writing.more()
                path.rename(f"{path}.{number}")
            writing.more()
        lines = lines_in(tmp_path)
        oldest = Path(f"{path}.1")
        Path(f"{oldest}.gz").write_bytes(gzip.compress(oldest.read_bytes()))
        oldest.unlink()
        with collector:
            wait_until_all_arrived(lines, received)
            wait_until_counted(lines, received)
        assert arrived(received) == Counter(lines)
        assert counted(received) == by_rate(lines)


def test_copying_and_truncating_loses_no_line_that_is_in_the_files(tmp_path):
    """What is written between the copying and the truncating is in none, unless it was read."""
    path = tmp_path / "in" / "a.ndjson"

    def rotate(number):
        shutil.copy(path, f"{path}.{number}")
        os.truncate(path, 0)

    with receiving() as received:
        collector = log_collector(tmp_path, loki=received.endpoint)
        with Writing(hook_to(path)) as writing:
            with collector:
                for number in range(1, 4):
                    writing.more()
                    rotate(number)
                writing.more()
            rotate(4)  # while it does not run
            writing.more()
        lines = lines_in(tmp_path)
        with collector:
            wait_until_all_arrived(lines, received)
        found = arrived(received)
        assert not {body: n for body, n in found.items() if n > 1}
        between = found.keys() - set(lines)
        decisions = {json.loads(line)["decision_id"] for line in found}
        assert all(json.loads(line)["event"] == DECISION_EVENT for line in between)
        assert len(decisions) == found.total() <= writing.decisions


def test_a_file_that_somebody_shortened_is_read_on(tmp_path):
    """From its beginning: what is left of it comes twice."""
    path = tmp_path / "in" / "a.ndjson"
    with reading(tmp_path) as (received, _):
        hook = hook_to(path)
        for number in range(20):
            decide(hook, f"d-{number}")
        hook.flush()
        lines = lines_in(tmp_path)
        wait_until_all_arrived(lines, received)
        os.truncate(path, len("\n".join(lines[:5])) + 1)
        decide(hook, "after")
        hook.flush()
        after = lines_in(tmp_path)
        assert len(after) == 6
        wait_until_all_arrived(after, received)


# --- what is too much -------------------------------------------------------------------------


def test_out_of_memory_it_reads_no_further_and_drops_nothing(tmp_path):
    with receiving() as received:
        short = log_collector(
            tmp_path,
            loki=received.endpoint,
            RECSYS_MEMORY_LIMIT_MIB="2",
            RECSYS_MEMORY_SPIKE_MIB="1",
        )
        hook = hook_to(tmp_path / "in" / "a.ndjson")
        short.start()
        try:
            wait_for(lambda: b"above hard limit" in short.log.read_bytes(), "memory to be short")
            for number in range(50):
                decide(hook, f"d-{number}")
            hook.flush()
            wait_for(
                lambda: "memory_limiter_refused_log_records" in short.told(),
                "lines to be refused",
            )
        finally:
            # Told to end, it would give up the lines that it has in hand.
            short.stop(signal.SIGKILL)
        assert received.records == []
        lines = lines_in(tmp_path)
        with log_collector(tmp_path, loki=received.endpoint):
            wait_until_all_arrived(lines, received)
        assert arrived(received) == Counter(lines)


# --- backends are away ------------------------------------------------------------------------


def test_an_outage_of_loki_and_prometheus_loses_nothing_though_the_collector_is_restarted(tmp_path):
    port = free_port()
    collector = log_collector(tmp_path, loki=f"http://127.0.0.1:{port}")
    hook = hook_to(tmp_path / "in" / "a.ndjson")
    for run in range(2):
        for number in range(300):
            decide(hook, f"{run}-{number}")
        hook.flush()
        with collector:
            wait_for(
                lambda: read_by(collector) == {"file_log": 300, "file_log/count": 300},
                "the lines to be read",
            )
    lines = lines_in(tmp_path)
    with receiving(port=port) as received:
        with collector:
            wait_until_all_arrived(lines, received)
            wait_until_counted(lines, received)
        assert arrived(received) == Counter(lines)
        assert counted(received) == by_rate(lines)


def read_by(collector):
    """Lines, by receiver, since it was started."""
    found = re.findall(
        r'^otelcol_receiver_accepted_log_records\{.*receiver="(.*?)".*\} (\d+)$',
        collector.told(),
        re.MULTILINE,
    )
    return {receiver: int(lines) for receiver, lines in found}


def queued_by(collector):
    """Lines that wait for Loki."""
    found = re.search(
        r'^otelcol_exporter_queue_size\{.*exporter="otlp_http/loki".*\} (\d+)$',
        collector.told(),
        re.MULTILINE,
    )
    return int(found[1]) if found else 0


def test_a_full_queue_stops_the_reading_and_loses_and_miscounts_nothing(tmp_path):
    port, room = free_port(), 300
    with receiving() as metrics:
        hook = hook_to(tmp_path / "a.ndjson")
        for number in range(900):
            decide(hook, f"d-{number}", namespace=f"shop-{number % 3}")
        hook.flush()
        collector = log_collector(
            tmp_path,
            loki=f"http://127.0.0.1:{port}",
            metrics=metrics.endpoint,
            RECSYS_QUEUE_LINES=str(room),
        )
        (tmp_path / "a.ndjson").rename(tmp_path / "in" / "a.ndjson")
        with collector:
            wait_for(lambda: queued_by(collector) > room - BATCH, "the queue to be full")
            with receiving(port=port) as received:
                lines = lines_in(tmp_path)
                wait_until_all_arrived(lines, received)
                collector.stop()
                assert arrived(received) == Counter(lines)
        assert counted(metrics) == by_rate(lines)


def test_lines_are_counted_once_though_the_queue_refuses_them_again_and_again(tmp_path):
    """As it does on a full disk."""
    room = (
        "yaml:extensions::file_storage/queue::max_size: 600_000",  # some 300 lines
        "yaml:extensions::file_storage/queue::compaction::on_rebound: false",
    )
    away = f"http://127.0.0.1:{free_port()}"
    with receiving() as metrics:
        collector = log_collector(tmp_path, loki=away, metrics=metrics.endpoint, overrides=room)
        with collector:
            with Writing(hook_to(tmp_path / "in" / "a.ndjson")):
                wait_for(
                    lambda: collector.log.read_bytes().count(b"out of available space") >= 3,
                    "lines to be refused three times",
                )
            lines = lines_in(tmp_path)
            wait_until_counted(lines, metrics)
        assert counted(metrics) == by_rate(lines)


# --- what it costs ----------------------------------------------------------------------------


def test_lines_that_waited_are_read_whole_and_counted(tmp_path, measure):
    hook = hook_to(tmp_path / "a.ndjson")
    for number in range(20_000):
        decide(hook, f"d-{number}")
        if number % 1000 == 0:
            hook.flush()  # more would not fit into its queue
    hook.flush()
    with reading(tmp_path) as (received, collector):
        before, began = collector.cpu_seconds(), time.monotonic()
        (tmp_path / "a.ndjson").rename(tmp_path / "in" / "a.ndjson")
        lines = lines_in(tmp_path)
        wait_until_all_arrived(lines, received)
        wait_until_counted(lines, received)
        seconds, cpu = time.monotonic() - began, collector.cpu_seconds() - before
        assert len(lines) == 20_000
        assert arrived(received) == Counter(lines)
        assert counted(received) == by_rate(lines)
        measure(
            f"{len(lines)} lines in {seconds:.1f} s, {cpu / len(lines) * 1e6:.0f} us of CPU each, "
            f"{collector.memory_mib('VmHWM'):.0f} MiB at most"
        )


# --- Prometheus -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["straight", "through the gateway"])
def test_prometheus_has_as_many_lines_as_there_are_after_a_restart_too(way, tmp_path):
    (tmp_path / "gateway").mkdir()
    with receiving() as received, Prometheus(tmp_path / "prometheus") as prometheus:
        gateway = Collector(tmp_path / "gateway", prometheus.url)
        endpoint = f"{prometheus.url}/api/v1/otlp"
        if way == "through the gateway":
            gateway.start()
            endpoint = gateway.endpoint
        try:
            collector = log_collector(tmp_path, loki=received.endpoint, metrics=endpoint)
            hooks = [
                hook_to(tmp_path / "in" / "all.ndjson"),
                hook_to(tmp_path / "in" / "tenth.ndjson", log_sample=0.1),
            ]
            for run in range(3):
                # The second rate comes into use later.
                for hook in hooks[: run + 1]:
                    # More than in the run before: the count does not fall, and is a new one.
                    for number in range(200 * (run + 1)):
                        decide(hook, f"{run}-{number}", namespace=f"shop-{number % 3}")
                    hook.flush()
                with collector:
                    wait_until_all_arrived(lines_in(tmp_path), received)
            wanted = by_rate(lines_in(tmp_path))
            wait_for(
                lambda: in_prometheus(prometheus) == wanted,
                f"Prometheus to have {dict(wanted)} lines",
                20,
            )
            series = prometheus.query('recsys_log_decisions_total{sample_rate="1"}')
            labels = [one["metric"] for one in series]
            assert {of_one["job"] for of_one in labels} == {"ranking"}
            instances = {of_one["instance"] for of_one in labels}
            assert len(instances) == 3, "a start is a series of its own"
            assert {name.partition("/")[0] for name in instances} == {socket.gethostname()}
            assert not {"namespace", "surface", "log_file_name"} & set().union(*labels)
        finally:
            gateway.stop()


def in_prometheus(prometheus):
    """Lines by sample rate; as Prometheus has it, 1.0 is 1."""
    increase = "sum by (sample_rate) (increase(recsys_log_decisions_total[1h] anchored))"
    return Counter(
        {
            str(float(rate)): int(value)
            for (rate,), value in prometheus.by(increase, "sample_rate").items()
        }
    )


def test_two_collectors_as_they_are_count_for_themselves(tmp_path):
    """On machines, or on one: no setting keeps their series apart."""
    with receiving() as received, Prometheus(tmp_path / "prometheus") as prometheus:
        both = [
            log_collector(
                tmp_path / name, loki=received.endpoint, metrics=f"{prometheus.url}/api/v1/otlp"
            )
            for name in ("one", "two")
        ]
        hooks = [hook_to(tmp_path / name / "in" / "a.ndjson") for name in ("one", "two")]
        with both[0], both[1]:
            lines = []
            for run in range(4):
                for number, hook in enumerate(hooks):
                    # Totals that differ: of one series they would fall at each turn.
                    for decision in range(20 + 100 * number):
                        decide(hook, f"{run}-{number}-{decision}")
                    hook.flush()
                lines = [*lines_in(tmp_path / "one"), *lines_in(tmp_path / "two")]
                wait_until_all_arrived(lines, received)
                wait_for(
                    lambda: latest(prometheus) == len(lines),  # noqa: B023
                    "Prometheus to have the lines of both",
                    20,
                )
        assert len(lines) == 560
        assert in_prometheus(prometheus) == by_rate(lines)


def latest(prometheus):
    return prometheus.value("sum(recsys_log_decisions_total)")


def test_the_guides_query_counts_what_lines_stand_for_whatever_rates_a_service_uses(tmp_path):
    """Of one service all lines, of one a tenth, of one both."""
    (query,) = re.findall(r"```promql\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    rates = {"every": (1.0,), "tenth": (0.1,), "both": (1.0, 0.1)}
    wanted = {}
    with receiving() as received, Prometheus(tmp_path / "prometheus") as prometheus:
        for service, of_service in rates.items():
            folder = tmp_path / service
            with log_collector(
                folder,
                loki=received.endpoint,
                metrics=f"{prometheus.url}/api/v1/otlp",
                RECSYS_SERVICE_NAME=service,
            ):
                for rate in of_service:
                    hook = hook_to(folder / "in" / f"{rate}.ndjson", log_sample=rate)
                    for number in range(300):
                        decide(hook, f"{service}-{number}")
                    hook.flush()
                lines = lines_in(folder)
                wait_until_all_arrived(lines, received)
            counts = by_rate(lines)
            wanted[service,] = counts["1.0"] + 10 * counts["0.1"]
            assert len(counts) == len(of_service)
        wait_for(lambda: prometheus.by(query, "job") == wanted, f"the query to give {wanted}", 20)
