"""The finalisation hook: stamps, counts, and never hurts the host."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from _thread import start_new_thread
from collections.abc import Iterable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Optional, TypedDict

import attrs
import pydantic
import pytest
from hypothesis import given, settings
from opentelemetry.metrics import NoOpMeterProvider

from otel_personalization import PersonalizationHook, SettingsError
from otel_personalization.conventions import OUTCOME_COUNTERS
from otel_personalization.testing import Counted, counting
from otel_personalization.totals import Totals
from otel_personalization.warner import INTERVAL_SECONDS
from tests.conftest import cells_of
from tests.test_trace import ANYTHING, TRACES, Bomb, Raises

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers

STAMP = {"personalized_items_count": 1, "reason_items_count": 2}


def make_hook(**kwargs: Any) -> PersonalizationHook:
    return PersonalizationHook(meter_provider=NoOpMeterProvider(), **kwargs)


@pytest.fixture
def hook():
    return make_hook()


def items() -> list[dict[str, Any]]:
    return [
        {"item_id": "a", "personalized": True, "reasons": ["new"]},
        {"item_id": "b", "reasons": ["new"]},
    ]


def test_the_recorded_sample_is_exact_through_the_hook(hook, traces, truth):
    """Counts, and the stamps on the traces, which are what they were without."""
    copies = [{**trace, "extras": dict(trace["extras"])} for trace in traces]
    with counting(hook) as counted:
        for trace in copies:
            hook.record(trace)
    expected = cells_of(truth["cells"], "namespace", "surface")
    assert counted.cells == expected
    for trace, stamped in zip(traces, copies, strict=True):
        stamp = {
            name: stamped["extras"].pop(name)
            for name in ("personalized_items_count", "reason_items_count")
        }
        assert stamped == trace
        assert all(type(count) is int for count in stamp.values())
    total = sum(cell["personalized_items"] for cell in expected.values())
    assert counted.personalized_items == total > 0


# --- stamps -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Extras:
    personalized_items_count: int = -1
    reason_items_count: int = -1


class PydanticTrace(pydantic.BaseModel):
    final_items: list[dict[str, Any]]
    extras: dict[str, Any] | None = None


@attrs.define
class AttrsTrace:
    final_items: Any
    extras: Any = None


@pytest.mark.parametrize("extras", [{}, None, {"include_reasons": True}])
@pytest.mark.parametrize("kind", [dict, SimpleNamespace, PydanticTrace, AttrsTrace])
def test_a_trace_is_stamped_whatever_it_is(hook, kind, extras):
    trace = kind(final_items=items(), extras=extras if extras is None else dict(extras))
    hook.record(trace)
    stamped = trace["extras"] if kind is dict else trace.extras
    assert stamped == (extras or {}) | STAMP


def test_a_trace_without_extras_gets_them(hook):
    trace: dict[str, Any] = {"final_items": items()}
    hook.record(trace)
    assert trace["extras"] == STAMP


def test_extras_that_are_an_object_are_stamped(hook):
    trace = {"final_items": items(), "extras": Extras()}
    hook.record(trace)
    assert trace["extras"] == Extras(1, 2)


class TypedExtras(pydantic.BaseModel):
    include_reasons: bool = True


class TypedTrace(pydantic.BaseModel):
    final_items: list[dict[str, Any]]
    extras: TypedExtras | None = None


@dataclasses.dataclass
class UnresolvedTrace:
    final_items: Any
    extras: OnlyForTypeCheckers | None = None


@pytest.mark.parametrize("kind", [TypedTrace, UnresolvedTrace])
def test_extras_that_are_absent_become_no_dict_where_the_class_does_not_say_that_they_may(
    hook, kind
):
    trace = kind(final_items=items())
    with counting(hook) as counted:
        hook.record(trace)
    assert trace.extras is None
    assert counted.personalized_items == 1


def test_what_a_class_says_of_its_extras_is_looked_up_once(hook, monkeypatch):
    asked = []

    def raises(kind: type, **_: Any) -> Any:
        asked.append(kind)
        raise NameError

    monkeypatch.setattr("otel_personalization.hook.get_type_hints", raises)
    kind = dataclasses.make_dataclass("Trace", ["final_items", ("extras", "Unknown", None)])
    hook.record(kind(items()))
    hook.record(kind(items()))
    assert len(asked) == 1


class ListedExtras(TypedDict, total=False):
    personalized_items_count: int
    reason_items_count: int


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        object,
        dict,
        Optional[dict[str, int]],  # noqa: UP045  # of another type than what is written with |
        Mapping[str, int],
        Iterable[str],
        ListedExtras | None,
        "dict[str, OnlyForTypeCheckers] | None",
    ],
)
def test_extras_that_are_absent_become_a_dict_where_the_class_says_that_they_may(hook, annotation):
    kind = dataclasses.make_dataclass("Trace", ["final_items", ("extras", annotation, None)])
    kind.__module__ = __name__
    trace = kind(items())
    hook.record(trace)
    assert trace.extras == STAMP


@dataclasses.dataclass(frozen=True)
class Frozen:
    final_items: Any
    extras: Any


@pytest.mark.parametrize(
    "trace",
    [
        MappingProxyType({"final_items": items()}),
        MappingProxyType({"final_items": items(), "extras": MappingProxyType({})}),
        Frozen(items(), None),
        Frozen(items(), MappingProxyType({})),
        {"final_items": items(), "extras": ["odd"]},
        {"final_items": items(), "extras": "odd"},
    ],
)
def test_a_frozen_trace_is_counted_and_left_alone(hook, trace):
    before = repr(trace)
    with counting(hook) as counted:
        hook.record(trace)
    assert (counted.decisions, counted.personalized_items, counted.internal_errors) == (1, 1, 0)
    assert repr(trace) == before


def test_a_response_is_counted_and_left_alone(hook):
    """Its readers do not know of a stamp."""
    response = {"items": items()}
    with counting(hook) as counted:
        hook.record(response)
    assert counted.personalized_items == 1
    assert response == {"items": items()}


def test_a_malformed_trace_is_left_alone(hook):
    malformed: dict[str, Any] = {"final_items": [None]}
    hook.record(malformed)
    assert malformed == {"final_items": [None]}


def test_a_trace_that_is_recorded_again_keeps_its_stamp(hook):
    trace = {"final_items": items()}
    hook.record(trace)
    hook.record(trace)
    assert trace["extras"] == STAMP


# --- the host is never hurt -------------------------------------------------------------------


@given(ANYTHING | TRACES)
@settings(max_examples=50)
def test_whatever_is_recorded_is_counted_once_or_malformed(trace):
    hook = make_hook()
    with counting(hook) as counted:
        hook.record(trace)
    assert counted.decisions + counted.malformed_traces == 1
    assert counted.internal_errors == 0


@pytest.mark.parametrize(
    "trace",
    [None, [], "x", Raises(), Bomb(RuntimeError)],
    ids=["None", "list", "text", "raises", "bomb"],
)
def test_a_malformed_trace_is_counted_and_warned_of_once_a_minute(hook, trace, caplog, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("otel_personalization.warner.monotonic", lambda: now[0])
    with counting(hook) as counted:
        for _ in range(100):
            hook.record(trace)
        assert len(caplog.records) == 1
        now[0] += INTERVAL_SECONDS
        hook.record(trace)
    assert len(caplog.records) == 2
    assert "could not be counted" in caplog.text
    assert counted.malformed_traces == 101
    assert counted.decisions == 0


@pytest.fixture
def hanging(hook, monkeypatch):
    """A hook whose first warning hangs in the host's logging. Gives the number of threads that
    say warnings, after another minute and another malformed trace."""
    now = [1000.0]
    monkeypatch.setattr("otel_personalization.warner.monotonic", lambda: now[0])
    started = []

    def starts(*args: Any) -> int:
        started.append(args)
        return start_new_thread(*args)

    monkeypatch.setattr("otel_personalization.warner.start_new_thread", starts)
    end = threading.Event()

    def hangs(_: logging.LogRecord) -> bool:
        return end.wait(60)

    def after_a_minute() -> int:
        now[0] += INTERVAL_SECONDS
        hook.record(None)
        return len(started)

    logger = logging.getLogger("otel_personalization.hook")
    logger.addFilter(hangs)
    assert after_a_minute() == 1
    yield after_a_minute
    end.set()
    for _, (*_, saying) in started:
        assert saying.acquire(timeout=60)  # said by now, and not while another test looks
    logger.removeFilter(hangs)


def test_a_handler_that_hangs_gets_one_thread_for_a_kind_of_warning(hanging):
    assert [hanging() for _ in range(5)] == [1] * 5


def test_a_child_warns_although_its_parent_s_handler_hangs(hanging):
    child = os.fork()
    if not child:
        os._exit(hanging())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def test_an_internal_error_is_counted_and_warned_of_but_not_raised(hook, monkeypatch, caplog):
    monkeypatch.setattr(Totals, "add", lambda *_: 1 / 0)
    with counting(hook) as counted:
        hook.record({"final_items": []})
        hook.record({"final_items": []})
    assert counted.internal_errors == 2
    assert len(caplog.records) == 1
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.setattr("otel_personalization.hook.read_decision", lambda *_: 1 / 0)
    with counting(hook) as counted:
        hook.record({"final_items": []})
    assert counted.internal_errors == 1


def test_an_internal_error_is_raised_under_debug(monkeypatch):
    monkeypatch.setattr(Totals, "add", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_hook(debug=True).record({"final_items": []})


def test_a_logging_filter_of_the_hosts_that_raises_hurts_nobody(hook):
    def raises(_: logging.LogRecord) -> bool:
        raise RuntimeError

    logger = logging.getLogger("otel_personalization.hook")
    logger.addFilter(raises)
    try:
        with counting(hook) as counted:
            hook.record(None)
    finally:
        logger.removeFilter(raises)
    assert counted.malformed_traces == 1


# --- the rest of the hook ---------------------------------------------------------------------


def test_outcomes_are_counted_under_the_labels_of_the_traces(hook):
    hook.record_impressions(20, namespace=" Shop ", surface="HOME")
    hook.record_clicks(2, namespace="shop", surface="home")
    hook.record_clicks(1, namespace="", surface=None)
    assert hook.totals.snapshot()[OUTCOME_COUNTERS] == {
        ("shop", "home"): (20, 2),
        ("unknown", "default"): (0, 1),
    }


@pytest.mark.parametrize("count", [-1, 1.5, "1", None, True, float("nan"), 10**9 + 1])
def test_an_outcome_that_is_no_count_is_an_internal_error(hook, count, caplog):
    with counting(hook) as counted:
        hook.record_impressions(count, namespace="shop", surface="home")
        hook.record_clicks(count, namespace="shop", surface="home")
    assert counted.internal_errors == 2
    assert "Impressions or clicks were not counted" in caplog.text
    assert "0 to 1,000,000,000" in caplog.text
    assert hook.totals.snapshot()[OUTCOME_COUNTERS] == {}


def test_a_name_of_an_outcome_that_raises_when_it_is_looked_at_is_an_internal_error(hook):
    class Proxy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("outside of a request")

    with counting(hook) as counted:
        hook.record_impressions(1, namespace=Proxy(), surface="home")
        hook.record_clicks(1, namespace="shop", surface=Proxy())
    assert counted.internal_errors == 2
    assert hook.totals.snapshot()[OUTCOME_COUNTERS] == {}


def test_the_decorator_counts_and_takes_the_same_settings(hook):
    @hook.finalizer(trace="argument:decision", when="before")
    def store(decision: Any) -> str:
        return repr(decision["extras"])

    with counting(hook) as counted:
        assert store({"final_items": items()}) == repr(STAMP)
    assert counted.decisions == 1
    with pytest.raises(SettingsError, match="when is 'sometimes'"):
        hook.finalizer(when="sometimes")


def test_stages_of_the_settings_are_no_sources():
    hook = make_hook(stages=["rerank"])
    with counting(hook) as counted:
        sources = {"rerank": {"count": 1}, "merged": {"count": 2}}
        hook.record({"extras": {"candidate_sources": sources}})
    assert [source for _, _, source in counted.sources] == ["merged"]


def test_what_was_counted_within_is_told_in_all_and_by_cell(hook):
    hook.record({"surface": "cart"})
    with counting(hook) as counted:
        hook.record({"surface": "cart", "final_items": items()})
        hook.record({"surface": "home"})
        hook.record(None)
    assert counted == Counted(
        decisions=2,
        empty_decisions=1,
        served_items=2,
        served_items_squared=4,
        reason_requested_items=2,
        personalized_items=1,
        reason_items=2,
        malformed_traces=1,
        cells={
            ("unknown", "cart"): {
                "decisions": 1,
                "empty_decisions": 0,
                "served_items": 2,
                "served_items_squared": 4,
                "reason_requested_items": 2,
                "personalized_items": 1,
                "reason_items": 2,
                "cold_start_items": 0,
            },
            ("unknown", "home"): {
                "decisions": 1,
                "empty_decisions": 1,
                "served_items": 0,
                "served_items_squared": 0,
                "reason_requested_items": 0,
                "personalized_items": 0,
                "reason_items": 0,
                "cold_start_items": 0,
            },
        },
    )
