"""Instrumenting a service: targets found and refused, wrapping taken back, hosts left unhurt."""

from __future__ import annotations

import gc
import importlib
import logging
import re
import subprocess
import sys
import weakref
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import wrapt
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_personalization import PersonalizationInstrumentor, SettingsError, TargetError
from otel_personalization.conventions import DECISION_COUNTERS, INTERNAL_ERRORS
from otel_personalization.metrics import instruments_of
from otel_personalization.testing import Counted, counting, points_of
from tests import tracers
from tests.tracers import Derived, Tracer, trace

TARGET = "tests.tracers:Tracer.finalize"
SILENT = NoOpMeterProvider()


@pytest.fixture
def instrument():
    """Instruments until the test ends."""
    instrumentor = PersonalizationInstrumentor()

    def instrument(target: Any = TARGET, **kwargs: Any) -> PersonalizationInstrumentor:
        kwargs.setdefault("meter_provider", SILENT)
        instrumentor.instrument(target=target, **kwargs)
        return instrumentor

    yield instrument
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules that are importable until the test ends, and not imported yet."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def finalize_source(surface: str) -> str:
    return f"def finalize():\n    return {{'surface': {surface!r}}}\n"


# --- targets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("tests.tracers:finalize", lambda: tracers.finalize(2)),
        ("tests.tracers:Tracer.finalize", lambda: Tracer().finalize()),
        ("tests.tracers:Tracer.of_class", lambda: Tracer().of_class()),
        ("tests.tracers:Tracer.static", lambda: Tracer().static()),
        ("tests.tracers:Tracer.Inner.finalize", lambda: Tracer.Inner().finalize()),
        ("tests.tracers:Derived.finalize", lambda: Derived().finalize()),
        ("tests.tracers:finalize_object", lambda: tracers.finalize_object(*())),
    ],
)
def test_one_line_instruments_a_finaliser(instrument, target, call):
    instrument(target)
    with counting() as counted:
        result = call()
    assert counted.decisions == 1
    assert "personalized_items_count" in result["extras"]


def test_an_inherited_finaliser_is_wrapped_for_the_named_class_alone(instrument):
    instrument("tests.tracers:Derived.finalize")
    with counting() as counted:
        Tracer().finalize()
        Derived().finalize()
    assert counted.decisions == 1


@pytest.mark.parametrize(
    "target", [["tests.tracers:finalize", TARGET], f"tests.tracers:finalize,{TARGET}"]
)
def test_several_targets_are_wrapped(instrument, target):
    instrument(target)
    with counting() as counted:
        tracers.finalize()
        Tracer().finalize()
    assert counted.decisions == 2


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (
            "tests.tracers:Tracer.finalise",
            "Tracer has no 'finalise'; it has Inner, anything, final",
        ),
        ("tests.tracers:tracer", "tests.tracers has no 'tracer'; it has "),
        ("tests.tracers:Tracer.latest", "cannot be wrapped: it is a property; name the method"),
        ("tests.tracers:Tracer.stream", "it is a generator"),
        ("tests.tracers:Tracer.number", "it is a int, which cannot be called"),
        ("tests.tracers:Tracer", "it is the class Tracer; name a method of it"),
        (
            "tests.tracers:finalize_object.call",
            "is no class but an instance of Finalize; name that",
        ),
        ("tests.tracers:finalize_object.a.b", "an instance of Finalize has no 'a'; it has nothing"),
        ("builtins:dict.get", "cannot be wrapped: cannot set 'get' attribute of immutable type"),
        ("__main__:Tracer.finalize", "A program that is run is not importable: move"),
    ],
)
def test_a_target_that_is_not_there_raises_and_names_what_is(instrument, target, says):
    with pytest.raises(TargetError, match=re.escape(says)):
        instrument(target)
    assert not PersonalizationInstrumentor().is_instrumented_by_opentelemetry


def test_where_one_target_is_wrong_none_is_wrapped(instrument):
    original = vars(Tracer)["finalize"]
    with pytest.raises(TargetError):
        instrument([TARGET, "tests.tracers:Tracer.finalise"])
    assert vars(Tracer)["finalize"] is original
    instrument(TARGET)


def test_wrong_settings_and_unknown_keywords_raise(instrument):
    with pytest.raises(SettingsError, match="when is 'later'"):
        instrument(when="later")
    instrument(tracer_provider=None, logger_provider=None).uninstrument()  # as all are given them
    with pytest.raises(
        TypeError, match="no keyword 'targets'; further ones are surfaces, max_label_sets"
    ):
        instrument(targets=TARGET)
    with pytest.raises(TargetError, match="no parameter 'trace'"):
        instrument(trace="argument:trace")
    with pytest.raises(TargetError, match="a function has no 'self'"):
        instrument("tests.tracers:finalize", trace="self")


def test_trace_and_when_are_handed_on(instrument):
    instrument("tests.tracers:Tracer.store", trace="argument:decision", when="before")
    tracer = Tracer()
    tracer.store(trace())
    assert tracer.stored["extras"]["personalized_items_count"] == 1


def test_settings_of_the_hook_are_handed_on(instrument):
    instrument(surfaces=["shop/cart"], max_label_sets=1, meter_provider=NoOpMeterProvider())
    with counting() as counted:
        Tracer("home").finalize()
    assert set(counted.cells) == {("other", "other")}


def test_settings_may_be_iterators(instrument):
    pairs = (f"shop/{surface}" for surface in ("home", "cart"))
    hook = instrument(surfaces=pairs, meter_provider=NoOpMeterProvider()).hook
    assert set(hook.totals.snapshot()[DECISION_COUNTERS]) == {("shop", "home"), ("shop", "cart")}


# --- modules that are imported later ----------------------------------------------------------


def test_a_module_that_is_imported_later_is_instrumented_then(instrument, package):
    package(late_tracing=finalize_source("late"))
    instrument("late_tracing:finalize")
    assert "late_tracing" not in sys.modules
    late_tracing: Any = importlib.import_module("late_tracing")
    with counting() as counted:
        late_tracing.finalize()
    assert counted.decisions == 1


def test_a_target_that_is_still_being_imported_is_told_as_such(package):
    package(
        late_tracing="from otel_personalization import PersonalizationInstrumentor\n"
        "PersonalizationInstrumentor().instrument(target='late_tracing:finalize')\n"
        + finalize_source("late")
    )
    with pytest.raises(TargetError, match="It is still being imported: call instrument"):
        importlib.import_module("late_tracing")


def test_a_late_target_that_is_not_there_is_one_error_line_and_does_not_stop_the_import(
    instrument, package, caplog
):
    package(late_tracing=finalize_source("late"))
    instrument("late_tracing:finalise")
    with counting() as counted:
        assert importlib.import_module("late_tracing")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "late_tracing has no 'finalise'; it has finalize" in caplog.text
    assert counted.internal_errors == 1


def test_of_a_late_target_that_is_not_there_it_is_not_said_that_it_is_still_being_imported(
    instrument, package, caplog
):
    package(late_tracing=finalize_source("late"))
    instrument("late_tracing:finalise")
    importlib.import_module("late_tracing")
    assert "it has finalize." in caplog.text
    assert "still being imported" not in caplog.text


def test_a_module_that_is_imported_after_uninstrument_is_left_alone(instrument, package):
    package(late_tracing=finalize_source("late"))
    instrument("late_tracing:finalize").uninstrument()
    late_tracing: Any = importlib.import_module("late_tracing")
    assert type(late_tracing.finalize) is FunctionType


def test_a_module_that_cannot_be_found_is_warned_of(instrument, caplog):
    instrument("no_such_module:finalize")
    assert "there is no module 'no_such_module' to be found" in caplog.text


def test_a_submodule_that_cannot_be_found_is_warned_of_when_its_package_is_imported(
    instrument, package, caplog, tmp_path
):
    (tmp_path / "late").mkdir()
    package(**{"late/__init__": "", "late/tracing": finalize_source("late")})
    instrument(["late.tracin:finalize", "late.tracing:finalize"])
    assert caplog.text == ""
    late_tracing: Any = importlib.import_module("late.tracing")
    assert "there is no module 'late.tracin' to be found in late" in caplog.text
    assert len(caplog.records) == 1
    with counting() as counted:
        late_tracing.finalize()
    assert counted.decisions == 1


def test_a_copy_that_was_imported_by_name_before_is_warned_of(instrument, package, caplog):
    """It goes on calling the original, whatever we put in its place."""
    package(
        late_tracing=finalize_source("late"),
        late_app="from late_tracing import finalize\n",
    )
    importlib.import_module("late_app")
    instrument("late_tracing:finalize")
    assert "late_app had imported late_tracing:finalize before it was instrumented" in caplog.text
    assert "name late_app:finalize as a target, too" in caplog.text


# --- uninstrument, and others who wrap --------------------------------------------------------


@pytest.mark.parametrize("name", ["finalize", "of_class", "static", "finalize_async"])
def test_uninstrument_restores_the_very_original(instrument, name):
    original = vars(Tracer)[name]
    instrument(f"tests.tracers:Tracer.{name}").uninstrument()
    assert vars(Tracer)[name] is original


def test_uninstrument_removes_what_a_class_had_inherited(instrument):
    instrument("tests.tracers:Derived.finalize").uninstrument()
    assert "finalize" not in vars(Derived)
    assert Derived.finalize is Tracer.finalize


def log_of(calls: list[str]) -> Any:
    """Another library's wrapper."""

    def wrapper(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
        calls.append("theirs")
        return wrapped(*args, **kwargs)

    return wrapper


def test_what_another_library_wrapped_before_us_is_counted_and_restored(instrument, monkeypatch):
    calls: list[str] = []
    theirs = wrapt.FunctionWrapper(vars(Tracer)["finalize"], log_of(calls))
    monkeypatch.setattr(Tracer, "finalize", theirs)
    instrumentor = instrument()
    with counting() as counted:
        Tracer().finalize()
    assert (counted.decisions, calls) == (1, ["theirs"])
    instrumentor.uninstrument()
    assert vars(Tracer)["finalize"] is theirs


def test_what_another_library_wrapped_after_us_stays_and_ours_becomes_a_pass_through(
    instrument, monkeypatch
):
    calls: list[str] = []
    original = vars(Tracer)["finalize"]
    instrumentor = instrument()
    theirs = wrapt.FunctionWrapper(vars(Tracer)["finalize"], log_of(calls))
    monkeypatch.setattr(Tracer, "finalize", theirs)
    with counting() as counted:
        Tracer().finalize()
    assert counted.decisions == 1
    hook = instrumentor.hook
    instrumentor.uninstrument()
    assert vars(Tracer)["finalize"] is theirs
    with counting(hook) as counted:
        Tracer().finalize()
    assert counted == Counted()
    assert calls == ["theirs", "theirs"]
    monkeypatch.setattr(Tracer, "finalize", original)


def test_instrument_cycles_neither_double_nor_lower_a_total(instrument):
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    totals = []
    for _ in range(4):
        instrumentor = instrument(meter_provider=provider)
        Tracer().finalize()
        totals.append(points_of(reader)["recsys.decisions"]["shop", "home"])
        instrumentor.uninstrument()
        Tracer().finalize()
    assert totals == [1, 2, 3, 4]


def test_a_second_instrument_is_a_warning_and_no_second_count(instrument, caplog):
    instrument()
    instrument()
    assert "already instrumented" in caplog.text
    with counting() as counted:
        Tracer().finalize()
    assert counted.decisions == 1


def test_after_a_change_of_provider_each_has_what_was_counted_while_it_was_there(instrument):
    readers = [InMemoryMetricReader() for _ in range(2)]
    providers = [MeterProvider([reader], shutdown_on_exit=False) for reader in readers]
    for times in (1, 2, 3, 4):
        instrumentor = instrument(meter_provider=providers[times % 2])
        for _ in range(times):
            Tracer().finalize()
        instrumentor.uninstrument()
    found = [points_of(reader)["recsys.decisions"]["shop", "home"] for reader in readers]
    assert found == [2 + 4, 1 + 3]


def test_the_hook_is_there_while_instrumented(instrument):
    with pytest.raises(RuntimeError, match="nothing is instrumented"):
        PersonalizationInstrumentor().hook  # noqa: B018  # a property that raises
    instrument().hook.record_clicks(1, namespace="shop", surface="home")


# --- zero code --------------------------------------------------------------------------------


@pytest.fixture
def zero_code(monkeypatch):
    """`instrument()` as opentelemetry-instrument calls it, until the test ends."""
    instrumentor = PersonalizationInstrumentor()

    def zero_code(**variables: str) -> PersonalizationInstrumentor:
        for name, value in variables.items():
            monkeypatch.setenv(f"OTEL_PERSONALIZATION_{name}", value)
        instrumentor.instrument(skip_dep_check=True)
        return instrumentor

    yield zero_code
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def test_the_environment_instruments(zero_code):
    zero_code(TARGET=TARGET)
    with counting() as counted:
        Tracer().finalize()
    assert counted.decisions == 1


def test_without_a_target_there_is_one_info_line_and_code_may_still_instrument(
    zero_code, instrument, caplog
):
    caplog.set_level(logging.INFO)
    zero_code()
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "OTEL_PERSONALIZATION_TARGET=module:Class.method" in caplog.text
    instrument()
    with counting() as counted:
        Tracer().finalize()
    assert counted.decisions == 1


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TARGET": "tests.tracers:Tracer.finalise"}, "Tracer has no 'finalise'"),
        ({"TARGET": "tests.tracers"}, "OTEL_PERSONALIZATION_TARGET is 'tests.tracers'"),
        ({"TARGET": TARGET, "WHEN": "later"}, "OTEL_PERSONALIZATION_WHEN is 'later'"),
        ({"TARGET": TARGET, "MAX_LABEL_SETS": "x"}, "OTEL_PERSONALIZATION_MAX_LABEL_SETS is 'x'"),
    ],
)
def test_what_is_wrong_in_the_environment_is_one_error_line_and_raises_nothing(
    zero_code, caplog, variables, says
):
    """An exception would stop every instrumentor that comes after."""
    before = patch_errors()
    original = vars(Tracer)["finalize"]
    instrumentor = zero_code(**variables)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert says in caplog.text
    assert patch_errors() == before + 1
    assert vars(Tracer)["finalize"] is original
    assert not instrumentor.is_instrumented_by_opentelemetry


def patch_errors() -> int:
    """As counted for the global provider."""
    return instruments_of().totals.snapshot()[INTERNAL_ERRORS,]["patch",][0]


def test_opentelemetry_instrument_instruments_an_application_that_knows_nothing_of_us(tmp_path):
    """The very command, on an application whose tracer is imported late."""
    (tmp_path / "ranking.py").write_text(finalize_source("home"))
    (tmp_path / "app.py").write_text("import ranking\nprint(ranking.finalize())\n")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "opentelemetry-instrument"), sys.executable, "app.py"],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(tmp_path),
            "OTEL_PERSONALIZATION_TARGET": "ranking:finalize",
            "OTEL_METRICS_EXPORTER": "console",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "'personalized_items_count': 0" in done.stdout
    assert "recsys.decisions" in done.stdout


def test_what_waited_for_a_module_is_gone_when_uninstrumented():
    """Hook, writer and log file: wrapt keeps what waits for a module for ever."""
    instrumentor = PersonalizationInstrumentor()
    instrumentor.instrument(target="never.imported:finalize", meter_provider=NoOpMeterProvider())
    hook = weakref.ref(instrumentor.hook)
    instrumentor.uninstrument()
    gc.collect()
    assert hook() is None
