"""The lines: as the contract has them, whole, bounded; what is lost is counted."""

from __future__ import annotations

import copy
import gc
import json
import logging
import logging.config
import math
import os
import re
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as tracing
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider

from otel_personalization import PersonalizationHook, decision_log
from otel_personalization.conventions import (
    DECISION_COUNTERS,
    DECISION_LOG_FIELDS,
    DECISION_LOGGER,
    DROPPED_LOG_RECORDS,
    INTERNAL_ERRORS,
    MAX_LOG_LINE_BYTES,
    SOURCE_LOG_FIELDS,
)
from otel_personalization.trace import Decision, read_decision
from tests.conftest import cells_of, decisions_of, read_lines, run_program, wait_for
from tests.otlp_receiver import receiving

TRACE: dict[str, Any] = {
    "decision_id": "6fe36cc8-4324-4f02-8736-6654ec16dff0",
    "request_id": "req-1",
    "namespace": "Shop_EU",
    "surface": " HOME ",
    "ts": "2026-11-21T01:02:03.12+02:00",
    "k": 5,
    "user_hash": "ab" * 32,
    "bandit": {"experiment": "blend", "variant": "control"},
    "final_items": [
        {"item_id": "a", "reasons": ["cold_start"]},
        {"item_id": "b", "reasons": ["personalization"]},
    ],
    "extras": {
        "personalized_items": ["b", "never served"],
        "candidate_sources": {
            "popularity": {"count": 7, "duration_ms": 1.5},
            "collaborative": {"count": 0, "duration_ms": float("nan")},
            "merged": {"count": 7, "duration_ms": 2},
        },
        "experiment_variant": "bold",
    },
}


def hook_to(path: Path | str, **settings: Any) -> PersonalizationHook:
    return PersonalizationHook(meter_provider=NoOpMeterProvider(), log=path, **settings)


def lines_of(*traces: Any, path: Path, **settings: Any) -> list[dict[str, Any]]:
    """The lines of traces."""
    hook = hook_to(path, **settings)
    before = len(read_lines(path))
    for trace in traces:
        hook.record(trace)
    hook.flush()
    return read_lines(path)[before:]


def dropped(hook: PersonalizationHook) -> int:
    return hook.totals.snapshot()[(DROPPED_LOG_RECORDS,)][()][0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "decisions.ndjson"


# --- what a line says -------------------------------------------------------------------------


def test_a_line_is_as_the_contract_has_it(path):
    (line,) = lines_of(copy.deepcopy(TRACE), path=path)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "logger": "otel_personalization.decisions",
        "event": "personalization.decision",
        "schema_version": 1,
        "namespace": "shop_eu",
        "surface": "home",
        "decision_id": "6fe36cc8-4324-4f02-8736-6654ec16dff0",
        "request_id": "req-1",
        "decision_ts": "2026-11-20T23:02:03.120000Z",
        "k": 5,
        "served_items_count": 2,
        "personalized_items_count": 1,
        "reason_items_count": 2,
        "reason_requested_items_count": 2,
        "cold_start_items_count": 1,
        "candidate_sources": {"popularity": 7, "collaborative": 0},
        "experiment": "blend",
        "variant": "bold",
        "sample_rate": 1.0,
        "trace_id": None,
        "span_id": None,
    }


def test_every_line_has_the_fields_that_are_documented(path):
    decision, *sources = lines_of(
        copy.deepcopy(TRACE), {"final_items": []}, path=path, log_sources=True
    )[:4]
    assert set(decision) == {field.name for field in DECISION_LOG_FIELDS}
    for source in sources:
        assert set(source) == {field.name for field in SOURCE_LOG_FIELDS}


def test_the_user_is_in_a_line_only_where_asked_for(path):
    (line,) = lines_of(TRACE, path=path, log_user_hash=True)
    assert line["user_hash"] == "ab" * 32
    assert "user_hash" not in lines_of(TRACE, path=path)[0]


class Nosy:
    """A trace that says of its user whatever it is asked for."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return PERSONAL


PERSONAL = "ada@example.com"
AS_THEY_ARE = ("namespace", "surface", "decision_id", "request_id")
"""Texts that a line holds as the trace has them, beside the experiment and names of sources."""


def personal_everywhere() -> dict[str, Any]:
    """A trace with a mail address wherever one fits but in those texts, keys included."""
    item = {
        "item_id": PERSONAL,
        "reasons": [PERSONAL, "cold_start"],
        "title": PERSONAL,
        PERSONAL: PERSONAL,
    }
    timing = {"count": 1, "duration_ms": PERSONAL, "query": PERSONAL, PERSONAL: 1}
    parts = ("constraints", "effective_config", "candidates_pre", "mmr_info", "caps", PERSONAL)
    return {
        **{key: {PERSONAL: [PERSONAL, {PERSONAL: PERSONAL}]} for key in parts},
        "user_hash": PERSONAL,
        "org_id": PERSONAL,
        "ts": PERSONAL,
        "k": PERSONAL,
        "namespace": "shop",
        "final_items": [item, Nosy()],
        "bandit": {"experiment": "blend", "bucket_key": PERSONAL, PERSONAL: PERSONAL},
        "extras": {
            PERSONAL: PERSONAL,
            "anchors": [PERSONAL],
            "personalized_items": [PERSONAL],
            "include_reasons": PERSONAL,
            "cohort": PERSONAL,
            "device": PERSONAL,
            "candidate_sources": {"popularity": timing},
        },
    }


def test_a_line_has_the_documented_fields_and_nothing_else_of_a_trace(path, caplog):
    odd = {"final_items": [PERSONAL]}
    nosy = Nosy()
    nosy.__dict__.update(dict.fromkeys(AS_THEY_ARE), final_items=[], bandit=None, extras=None)
    hook = hook_to(path, log_sources=True)
    for trace in (personal_everywhere(), nosy, odd, PERSONAL, [PERSONAL]):
        hook.record(trace)
    hook.flush()
    lines = read_lines(path)
    assert [line["event"] for line in lines] == [
        "personalization.decision",
        "candidate_source_metrics",
        "personalization.decision",
    ]
    documented = {field.name for field in (*DECISION_LOG_FIELDS, *SOURCE_LOG_FIELDS)}
    assert set().union(*lines) == documented
    assert lines[0]["served_items_count"] == 2
    assert PERSONAL not in path.read_text()
    assert caplog.messages
    assert PERSONAL not in caplog.text
    assert PERSONAL not in repr(hook.totals.snapshot())


def test_each_source_and_stage_has_a_line_where_asked_for(path):
    _, *lines = lines_of(copy.deepcopy(TRACE), path=path, log_sources=True)
    assert [(line["source"], line["count"], line["duration_ms"]) for line in lines] == [
        ("popularity", 7, 1.5),
        ("collaborative", 0, None),
        ("merged", 7, 2.0),
    ]
    for line in lines:
        assert line["event"] == "candidate_source_metrics"
        assert (line["namespace"], line["surface"], line["k"]) == ("shop_eu", "home", 5)
        assert line["decision_id"] == TRACE["decision_id"]


def test_a_line_names_the_active_span(path):
    hook = hook_to(path)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("rank") as span:
        hook.record(dict(TRACE))
    hook.flush()
    context = span.get_span_context()
    (line,) = read_lines(path)
    assert line["trace_id"] == f"{context.trace_id:032x}"
    assert line["span_id"] == f"{context.span_id:016x}"


@pytest.mark.parametrize(
    ("extras", "bandit", "expected"),
    [
        ({"bandit_experiment": "x"}, {"experiment": "y"}, ("x", None)),
        ({"bandit_experiment": None}, {"experiment": "y"}, ("y", None)),
        (
            {"experiment_variant": "a", "bandit_variant": "b"},
            {"variant": "c"},
            (None, "a"),
        ),
        ({"bandit_variant": "b"}, {"variant": "c"}, (None, "b")),
        ({"bandit_variant": ["b"]}, {"variant": "c"}, (None, "c")),
        ([], "odd", (None, None)),
    ],
)
def test_experiment_and_variant_are_the_first_that_is_there(extras, bandit, expected, path):
    (line,) = lines_of({"extras": extras, "bandit": bandit}, path=path)
    assert (line["experiment"], line["variant"]) == expected


def test_a_trace_may_be_an_object(path):
    class Trace:
        decision_id = UUID(int=7)
        request_id = 12
        k = True
        ts = object()
        final_items = ()
        bandit = type("Bandit", (), {"experiment": "x"})()

        @property
        def user_hash(self):
            raise KeyError

    (line,) = lines_of(Trace(), path=path, log_user_hash=True)
    assert line["decision_id"] == "00000000-0000-0000-0000-000000000007"
    assert (line["request_id"], line["experiment"]) == ("12", "x")
    assert [line[name] for name in ("k", "decision_ts", "user_hash")] == [None, None, None]


def test_a_line_is_of_the_trace_as_it_was_when_it_was_counted(path):
    hook = hook_to(path)
    trace = copy.deepcopy(TRACE)
    hook.record(trace)
    trace["decision_id"] = "another"
    trace["final_items"].clear()
    trace["extras"]["candidate_sources"]["popularity"]["count"] = 100
    trace["extras"]["candidate_sources"].clear()
    hook.flush()
    (line,) = read_lines(path)
    assert line["decision_id"] == TRACE["decision_id"]
    assert line["candidate_sources"] == {"popularity": 7, "collaborative": 0}


def test_what_is_stamped_before_the_call_is_logged_when_it_has_succeeded(path):
    hook = hook_to(path)

    @hook.finalizer(trace="argument:decision", when="before")
    def store(decision, fail=False):
        if fail:
            raise KeyError
        decision.clear()

    with pytest.raises(KeyError):
        store(copy.deepcopy(TRACE), fail=True)
    store(copy.deepcopy(TRACE))
    hook.flush()
    assert [line["served_items_count"] for line in read_lines(path)] == [2]


def test_the_sums_over_the_lines_are_the_counters(path, traces):
    hook = hook_to(path)

    @hook.finalizer()
    def finalize(trace):
        return trace

    for trace in traces:
        finalize(copy.deepcopy(trace))
        hook.record([trace])  # malformed: no line
    hook.finish()
    assert dropped(hook) == 0
    sums = cells_of(
        (
            {
                "namespace": line["namespace"],
                "surface": line["surface"],
                "decisions": 1,
                "empty_decisions": int(not line["served_items_count"]),
                "served_items_squared": line["served_items_count"] ** 2,
            }
            | {
                counter.field: line[f"{counter.field}_count"]
                for counter in DECISION_COUNTERS
                if f"{counter.field}_count" in line
            }
            for line in read_lines(path)
        ),
        "namespace",
        "surface",
    )
    assert sums == decisions_of(hook.totals.snapshot())


# --- every line is one line, JSON, and bounded ------------------------------------------------

odd_text = st.text(
    st.characters(categories=("Cc", "Cs", "Zl", "Zp", "L", "N", "P", "S")), max_size=40
).flatmap(lambda text: st.sampled_from([1, 1, 7, 3000]).map(lambda times: text * times))
odd = (
    odd_text
    | st.none()
    | st.booleans()
    | st.floats()
    | st.sampled_from([2**70, -1, 10**5000, [], {}, UUID(int=1), object()])
)
odd_sources = st.dictionaries(
    odd_text, st.fixed_dictionaries({"count": odd | st.integers(), "duration_ms": odd}), max_size=50
)


@given(
    trace=st.fixed_dictionaries(
        {
            "extras": st.fixed_dictionaries(
                {"candidate_sources": odd_sources, "bandit_experiment": odd, "bandit_variant": odd}
            )
        },
        optional=dict.fromkeys(
            (
                *("decision_id", "request_id", "ts", "k", "namespace", "surface"),
                *("user_hash", "bandit"),
            ),
            odd,
        ),
    )
)
def test_a_line_is_one_line_of_strict_json_under_16_kib(trace, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "odd.ndjson"
    path.unlink(missing_ok=True)
    hook = hook_to(path, log_sources=True, log_user_hash=True)
    hook.record(trace)
    hook.flush()
    assert hook.totals.snapshot()[(INTERNAL_ERRORS,)][("log",)] == (0,)
    assert dropped(hook) == 0
    text = path.read_bytes()
    lines = text.decode("ascii").splitlines()
    assert len(lines) == text.count(b"\n") >= 1
    for line in lines:
        assert len(line) < MAX_LOG_LINE_BYTES
        parsed = json.loads(line, parse_constant=pytest.fail)
        assert json.dumps(parsed, ensure_ascii=False).encode()  # no lone surrogate


def test_a_value_that_is_cut_says_so(path):
    trace = {
        "decision_id": "i" * 1000,
        "request_id": "r" * 256,
        "surface": "ß" * 300,
        "extras": {"candidate_sources": {f"source_{n}": {"count": 1} for n in range(50)}},
    }
    (line,) = lines_of(trace, path=path)
    assert line["cut"] == ["candidate_sources", "decision_id", "surface"]
    assert line["decision_id"] == "i" * 255 + "…"
    assert line["request_id"] == "r" * 256
    assert len(line["candidate_sources"]) == 32


def test_a_source_whose_name_is_cut_says_so(path):
    (line,) = lines_of({"extras": {"candidate_sources": {"s" * 257: {"count": 1}}}}, path=path)
    assert line["candidate_sources"] == {"s" * 255 + "…": 1}
    assert line["cut"] == ["candidate_sources"]


def test_what_utf_8_cannot_carry_is_replaced(path):
    (line,) = lines_of({"decision_id": "a\ud800b", "request_id": "\ud83d\ude00"}, path=path)
    assert (line["decision_id"], line["request_id"]) == ("a\ufffdb", "\N{GRINNING FACE}")


def test_a_line_that_would_be_too_long_is_cut_more(path):
    face = "\N{GRINNING FACE}"
    trace = {
        **dict.fromkeys(("decision_id", "request_id", "surface", "namespace"), face * 256),
        "extras": {"candidate_sources": {f"{n}{face * 100}": {"count": n} for n in range(32)}},
    }
    (line,) = lines_of(trace, path=path)
    assert len(path.read_bytes()) < MAX_LOG_LINE_BYTES
    assert line["cut"] == ["candidate_sources", "decision_id", "namespace", "request_id", "surface"]
    assert line["decision_id"] == face * 31 + "…"
    assert len(line["candidate_sources"]) == 16


def test_what_waits_to_be_written_is_bounded(path):
    """However large the trace: of these 50 MB, the texts of a few KB are kept."""
    huge = "x" * 1_000_000
    trace = {
        **dict.fromkeys(("decision_id", "request_id", "surface", "namespace", "ts", "k"), huge),
        "extras": {"candidate_sources": {f"{huge[n:]}": {"count": 1} for n in range(50)}},
    }
    hook = hook_to(path, log_sources=True, log_user_hash=True)
    assert hook._log is not None
    decision = read_decision(trace)
    assert isinstance(decision, Decision)
    assert len(repr(hook._log.entry(decision, trace))) < 25_000


# --- sampling ---------------------------------------------------------------------------------


def test_a_sample_is_of_whole_decisions_and_agrees_within_binomial_error(path):
    rate, decisions, items = 0.25, 4000, 3
    hook = hook_to(path, log_sample=rate, log_sources=True)
    sources = {"popularity": {"count": 1}, "merged": {"count": 1}}
    for n in range(decisions):
        trace = {"decision_id": f"decision-{n}", "final_items": [{"item_id": "a"}] * items}
        hook.record({**trace, "extras": {"candidate_sources": sources}})
        if n % 500 == 499:
            hook.flush()
    lines = read_lines(path)
    logged = [line for line in lines if line["event"] == "personalization.decision"]
    assert len(lines) == 3 * len(logged)
    assert {line["sample_rate"] for line in lines} == {rate}
    error = math.sqrt(decisions * rate * (1 - rate))
    assert abs(len(logged) - decisions * rate) < 5 * error
    served = sum(line["served_items_count"] for line in logged) / rate
    assert abs(served - decisions * items) < 5 * error * items / rate
    assert dropped(hook) == 0  # what is not sampled is not lost


def test_a_retry_is_sampled_as_the_first_try_was(tmp_path):
    traces = [{"decision_id": f"{n}"} for n in range(200)]
    found = [
        [line["decision_id"] for line in lines_of(*traces, path=tmp_path / name, log_sample=0.5)]
        for name in ("first.ndjson", "second.ndjson")
    ]
    assert found[0] == found[1]
    assert 50 < len(found[0]) < 150
    # And in another process, whose hash() is another.
    done = run_program("logs", "sampled", str(tmp_path / "third.ndjson"), PYTHONHASHSEED="7")
    assert done["ids"] == found[0]


def test_decisions_without_an_id_are_sampled_by_chance(path):
    assert 50 < len(lines_of(*[{"final_items": []}] * 400, path=path, log_sample=0.5)) < 350


# --- the host's own logging -------------------------------------------------------------------


class Listening(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def root_handler():
    handler = Listening()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def test_lines_stay_off_the_hosts_loggers(path, root_handler):
    assert len(lines_of(TRACE, path=path)) == 1
    assert root_handler.records == []


def test_lines_reach_the_hosts_handlers_where_asked_for(path, root_handler):
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    try:
        hook = hook_to("none", log_propagate=True)
        hook.record(dict(TRACE))
        hook.flush()
    finally:
        for logger in logging.Logger.manager.loggerDict.values():
            if isinstance(logger, logging.Logger):
                logger.disabled = False
    assert hook._log is not None
    assert hook._log._writer._in_hand == 0
    (record,) = root_handler.records
    assert (record.name, record.levelno) == (DECISION_LOGGER, logging.INFO)
    assert isinstance(record.msg, dict)
    assert record.msg["served_items_count"] == 2
    made = datetime.fromisoformat(record.msg["timestamp"].replace("Z", "+00:00"))
    assert record.created == pytest.approx(made.timestamp(), abs=1e-5)


@pytest.mark.parametrize(("log", "lost"), [("", 0), ("none", 3)])
@pytest.mark.parametrize("error", [KeyError("host"), SystemExit(1)])
def test_a_handler_that_raises_hurts_no_line_that_goes_elsewhere(
    error, log, lost, path, root_handler
):
    def fail(record):
        if isinstance(record.msg, dict):
            raise error

    root_handler.emit = fail
    hook = hook_to(log or path, log_propagate=True)
    for _ in range(3):
        hook.record(dict(TRACE))
    hook.flush()
    assert hook._log is not None
    assert hook._log._writer._in_hand == 0
    assert len(read_lines(path)) == 3 - lost
    assert dropped(hook) == lost
    assert hook.totals.snapshot()[(INTERNAL_ERRORS,)][("log",)] == (3,)


def test_what_the_host_adds_to_its_records_is_not_in_a_line(path):
    """As instrumentations of logging do, with values that are none of JSON's."""
    original = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = original(*args, **kwargs)
        record.surface, record.score, record.otelTraceID = "host", float("nan"), "0"
        return record

    logging.setLogRecordFactory(factory)
    try:
        (line,) = lines_of(copy.deepcopy(TRACE), path=path)
    finally:
        logging.setLogRecordFactory(original)
    assert set(line) == {field.name for field in DECISION_LOG_FIELDS}
    assert line["surface"] == "home"


# --- what is lost is counted ------------------------------------------------------------------


class Stalled:
    """A pipe that nobody reads, until somebody does."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        """Nobody will read it."""
        os.close(self._reading)

    def lines_until(self, decision_id: str) -> list[Any]:
        """Reads lines up to that of a decision."""
        os.set_blocking(self._reading, True)
        lines: list[Any] = []
        with os.fdopen(os.dup(self._reading), "rb") as stream:
            while not lines or lines[-1]["decision_id"] != decision_id:
                lines.append(json.loads(stream.readline()))
        return lines

    def lines(self, count: int) -> list[Any]:
        """Reads so many lines."""
        os.set_blocking(self._reading, True)
        with os.fdopen(self._reading, "rb") as stream:
            lines = [json.loads(stream.readline()) for _ in range(count)]
            os.set_blocking(stream.fileno(), False)
            self.is_at_its_end = not stream.read()
        return lines


def test_a_full_queue_drops_counts_and_warns_once(path, caplog, monkeypatch):
    monkeypatch.setattr(decision_log, "MAX_QUEUED_LOG_RECORDS", 100)
    pipe = Stalled(path)
    hook = hook_to(path)
    decisions = 2000  # a pipe takes 64 KiB, the writer holds a hundred, the queue another
    for _ in range(decisions):
        hook.record(dict(TRACE))
    lost = dropped(hook)
    assert 0 < lost < decisions
    assert hook._log is not None
    assert hook._log._writer.queue.qsize() <= 100
    lines = pipe.lines(decisions - lost)  # they are all there
    assert len(lines) == decisions - lost
    hook.flush()
    assert dropped(hook) == lost
    wait_for(lambda: "Log lines are dropped" in caplog.text)
    assert caplog.text.count("Log lines are dropped") == 1


def test_a_full_queue_counts_the_lines_of_sources_too(path, monkeypatch):
    monkeypatch.setattr(decision_log, "MAX_QUEUED_LOG_RECORDS", 0)
    hook = hook_to(path, log_sources=True)
    hook.record(copy.deepcopy(TRACE))
    assert dropped(hook) == 4


def test_a_warning_that_nobody_takes_holds_up_no_request(path, monkeypatch):
    """stdout and stderr of a container often stall together."""
    monkeypatch.undo()
    monkeypatch.setattr(decision_log, "MAX_QUEUED_LOG_RECORDS", 0)
    taken, released = threading.Event(), threading.Event()

    class Stalling(logging.Handler):
        def emit(self, record):
            taken.set()
            released.wait(60)

    handler = Stalling()
    logger = logging.getLogger("otel_personalization.decision_log")
    logger.addHandler(handler)
    try:
        hook = hook_to(path)
        hook.record(dict(TRACE))  # returns
        assert taken.wait(60)
        assert dropped(hook) == 1
    finally:
        released.set()
        logger.removeHandler(handler)


def test_what_is_not_written_by_the_end_is_counted(path):
    pipe = Stalled(path)
    hook = hook_to(path)
    decisions = 1000
    for _ in range(decisions):
        hook.record(dict(TRACE))
    assert hook._log is not None
    assert not hook._log.finish(0.3)
    lost = dropped(hook)
    assert 0 < lost < decisions
    assert len(pipe.lines(decisions - lost)) == decisions - lost


def test_a_second_end_neither_counts_again_nor_waits_again(path):
    """A server's shutdown may be followed by exit handlers."""
    pipe = Stalled(path)
    hook = hook_to(path)
    for _ in range(1000):
        hook.record(dict(TRACE))
    assert not hook.finish(0.3)
    lost = dropped(hook)
    hook.record(dict(TRACE))
    began = time.monotonic()
    assert hook._log is not None
    assert not hook._log.finish(20)
    assert time.monotonic() - began < 10
    assert dropped(hook) == lost + 1
    pipe.lines(1000 - lost)
    hook.flush(20)  # the reader has gone: what the writer held is lost now, and was counted before
    assert dropped(hook) == lost + 1


def test_a_line_that_is_just_being_gathered_is_counted_if_it_is_given_up(path, monkeypatch):
    monkeypatch.setattr(decision_log, "_GATHER_SECONDS", 1.0)
    hook = hook_to(path)
    hook.record(dict(TRACE))
    assert hook._log is not None
    writer = hook._log._writer
    wait_for(lambda: writer._in_hand == 1)  # in the first moments of that second
    assert not hook._log.finish(0.0)
    assert dropped(hook) == 1
    hook.flush(20)
    assert read_lines(path) == []


def test_what_comes_after_lines_were_given_up_is_written(path):
    pipe = Stalled(path)
    hook = hook_to(path)
    for n in range(300):
        hook.record({**TRACE, "decision_id": f"{n}"})
    assert hook._log is not None
    assert not hook._log.finish(0.3)
    lost = dropped(hook)
    for n in range(300, 305):
        hook.record({**TRACE, "decision_id": f"{n}"})
    lines = pipe.lines_until("304")
    writer = hook._log._writer
    wait_for(lambda: writer._in_hand == 0)
    hook.record({**TRACE, "decision_id": "305"})
    assert hook._log.finish(20)  # it is waited for again
    assert dropped(hook) == lost
    assert hook._log._writer._in_hand == 0
    assert [line["decision_id"] for line in lines[-5:]] == [f"{n}" for n in range(300, 305)]
    assert 305 <= len(lines) + lost <= 305 + 10  # a write was under way when they were given up


def test_a_log_that_is_gone_and_was_given_up_ends_its_thread(path):
    pipe = Stalled(path)
    threads = set(threading.enumerate())
    hook = hook_to(path)
    (thread,) = set(threading.enumerate()) - threads
    for _ in range(300):
        hook.record(dict(TRACE))
    assert hook._log is not None
    writer = hook._log._writer
    del hook
    gc.collect()
    assert not writer.finish(0.3)
    pipe.close()
    wait_for(lambda: not thread.is_alive())


def test_whatever_happens_there_is_a_writer(path, monkeypatch):
    hook = hook_to(path)
    assert hook._log is not None
    with monkeypatch.context() as broken:
        broken.setattr(hook._log._output, "write", lambda _: 1 / 0)
        hook.record(dict(TRACE))
        wait_for(lambda: dropped(hook) == 1)
    hook.record(dict(TRACE))
    hook.flush()
    assert len(read_lines(path)) == dropped(hook) == 1


def test_a_loss_at_the_very_end_is_said(path):
    """Also where no counters are flushed, which would give the warning time."""
    pipe = Stalled(path)
    assert "Log lines were lost" in run_program("logs", "exit", str(path))["stderr"]
    pipe.close()


def test_to_give_up_releases_whoever_waits(path):
    pipe = Stalled(path)
    hook = hook_to(path)
    for _ in range(300):
        hook.record(dict(TRACE))
    assert hook._log is not None
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(hook._log.flush(60)))  # type: ignore[union-attr]
    waiting.start()
    wait_for(lambda: hook._log._writer.queue.qsize() > 1)
    hook._log.finish(0.1)
    waiting.join()
    assert answers == [True]
    assert pipe.lines(1)


def test_a_full_disk_loses_lines_and_counts_them(caplog):
    hook = hook_to("/dev/full")
    for _ in range(500):
        hook.record(dict(TRACE))
    hook.flush()
    assert dropped(hook) == 500
    assert caplog.text.count("No space left on device") == 1


def test_the_lines_of_sources_are_counted_when_they_are_lost():
    hook = hook_to("/dev/full", log_sources=True)
    hook.record(copy.deepcopy(TRACE))
    hook.flush()
    assert dropped(hook) == 4


def test_a_span_that_is_none_loses_its_lines_and_no_others(path, caplog):
    hook = hook_to(path, log_sources=True)
    odd_span = tracing.NonRecordingSpan(("no", "span context"))  # type: ignore[arg-type]
    with tracing.use_span(odd_span):
        hook.record(copy.deepcopy(TRACE))
    hook.record(copy.deepcopy(TRACE))
    hook.flush()
    assert len(read_lines(path)) == dropped(hook) == 4
    assert hook.totals.snapshot()[(INTERNAL_ERRORS,)][("log",)] == (1,)


def test_an_error_of_ours_is_counted_and_hurts_nobody(path, monkeypatch):
    hook = hook_to(path)
    monkeypatch.setattr(decision_log, "read_identity", lambda _: 1 / 0)
    hook.record(dict(TRACE))
    assert hook.totals.snapshot()[(INTERNAL_ERRORS,)][("log",)] == (1,)
    assert dropped(hook) == 1
    assert decisions_of(hook.totals.snapshot())["shop_eu", "home"]["decisions"] == 1


# --- processes --------------------------------------------------------------------------------


def test_a_child_waits_for_its_own_writer_as_it_ends(path):
    hook = PersonalizationHook(meter_provider=NoOpMeterProvider(), log=path)
    child = os.fork()
    if not child:
        writers = len(decision_log._writers)
        decision_log.finish_all()
        os._exit(writers)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    del hook


def test_a_fork_repeats_no_line_and_loses_none(path):
    """Parent and children, forked while lines wait, while others are written."""
    done = run_program("logs", "forks", str(path), timeout=120)
    ids = [line["decision_id"] for line in read_lines(path)]
    assert sorted(ids) == sorted(done["ids"])


@pytest.mark.parametrize("end", ["exit", "multiprocessing"])
def test_a_process_that_ends_writes_its_lines(path, end):
    done = run_program("logs", end, str(path))
    assert [line["decision_id"] for line in read_lines(path)] == done["ids"]


def test_what_a_stalled_reader_loses_at_exit_is_in_the_last_export(path):
    """And the exit does not wait for it."""
    pipe = Stalled(path)
    with receiving() as received:
        began = time.monotonic()
        done = run_program(
            "logs",
            "exit",
            str(path),
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_PERSONALIZATION_LOG_SOURCES="true",
        )
        assert time.monotonic() - began < 5  # what is promised, Python's start included
        lost = received.total("otel_personalization.dropped_log_records")
        assert received.total("recsys.decisions") == 300
    assert "Log lines were lost" in done["stderr"]
    lines = len(done["ids"]) * 3  # each has two sources
    assert 0 < lost < lines
    assert len(pipe.lines(lines - lost)) == lines - lost
    assert pipe.is_at_its_end


def test_a_line_that_a_full_disk_tore_is_lost_and_leaves_nothing(path):
    """Of three lines, a file that cannot grow further takes one and a part of the second."""
    assert run_program("logs", "torn", str(path))["dropped"] == 2
    assert [line["decision_id"] for line in read_lines(path)] == ["first"]


def test_a_hook_that_is_gone_leaves_no_thread_and_no_open_file(path):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    threads, files = set(threading.enumerate()), open_files()
    hook = hook_to(path)
    (thread,) = set(threading.enumerate()) - threads
    assert hook._log is not None
    writer = hook._log._writer
    hook.record(dict(TRACE))
    del hook
    gc.collect()
    wait_for(lambda: not thread.is_alive())
    assert writer not in decision_log._writers
    assert open_files() <= files
    assert len(read_lines(path)) == 1  # written before it ended
