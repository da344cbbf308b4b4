"""Checks a set-up: what a service would find if it started here and now.

Each finding says what is so, and what to do where it should be otherwise.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import platform
import socket
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.metrics import NoOpMeterProvider, get_meter_provider

from otel_personalization.conventions import DOCTOR_NAMESPACE, DROPPED_LOG_RECORDS
from otel_personalization.hook import PersonalizationHook
from otel_personalization.instrumentor import (
    PersonalizationInstrumentor,
    TargetError,
    patch_target,
)
from otel_personalization.metrics import ExactProvider, is_of_an_sdk
from otel_personalization.remarks import Remark, cause_among, listening
from otel_personalization.settings import (
    AFTER,
    ENDPOINT_VARIABLES,
    HOOK_SETTINGS,
    NONE,
    STDERR,
    STDOUT,
    Settings,
    SettingsError,
    resolve,
    silenced_by,
)
from otel_personalization.urls import without_credentials
from otel_personalization.version import __version__
from otel_personalization.wrapping import FinalizerWrapper

_CONNECT_SECONDS: Final = 2.0
_SEND_SECONDS: Final = 10.0


class Level(str, Enum):
    """How much a finding matters."""

    FINE = "fine"
    NOTE = "note"
    """Worth knowing; the set-up may be right all the same."""
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    remedy: str = ""
    """What to do; empty where nothing is."""


def examine(
    settings_given: Mapping[str, Any], *, send: bool = False, collector: str | None = None
) -> Iterator[Finding]:
    """Look at everything, in the order in which a service needs it.

    Args:
        settings_given: keywords of `settings.resolve`; the rest is taken from the environment.
        send: whether to send one decision, of a namespace that no rule or panel shows.
        collector: base URL of the OTLP endpoint, in place of the process's own.
    """
    yield from _versions()
    try:
        settings = resolve(**settings_given)
    except SettingsError as error:
        yield Finding(Level.PROBLEM, f"settings: {error}", "set it to one of these")
        return
    yield from _settings(settings)
    yield from _targets(settings)
    yield from _provider()
    yield from _endpoint(collector)
    yield from _log(settings)
    if send:
        yield from _send(settings_given, collector)


# --- versions and settings --------------------------------------------------------------------


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> Iterator[Finding]:
    packages = ("opentelemetry-api", "opentelemetry-instrumentation", "wrapt", "python-json-logger")
    listed = ", ".join(f"{package} {_version_of(package)}" for package in packages)
    yield Finding(
        Level.FINE,
        f"otel-personalization {__version__} on Python {platform.python_version()}; {listed}",
    )
    sdk, api = _version_of("opentelemetry-sdk"), _version_of("opentelemetry-api")
    install = 'pip install "otel-personalization[otlp]"'
    if sdk is None:
        yield Finding(
            Level.PROBLEM, "no OpenTelemetry SDK is installed: counters go nowhere", install
        )
        return
    if sdk != api:
        yield Finding(
            Level.PROBLEM,
            f"opentelemetry-sdk is {sdk} and opentelemetry-api is {api}: they belong together",
            f"pip install opentelemetry-sdk=={api}",
        )
    exporters = [
        f"{package} {found}"
        for package in (
            "opentelemetry-exporter-otlp-proto-http",
            "opentelemetry-exporter-otlp-proto-grpc",
        )
        if (found := _version_of(package))
    ]
    if exporters:
        yield Finding(Level.FINE, f"opentelemetry-sdk {sdk}, {', '.join(exporters)}")
    else:
        yield Finding(Level.PROBLEM, "no OTLP exporter is installed", install)
    if _version_of("opentelemetry-distro") is None:
        yield Finding(
            Level.NOTE,
            "opentelemetry-distro is not installed: opentelemetry-instrument would set up no SDK",
            f"{install}, or call pipeline.configure() in the service",
        )


def _settings(settings: Settings) -> Iterator[Finding]:
    defaults = resolve(environment={})
    changed = {
        name: value for name, value in vars(settings).items() if value != getattr(defaults, name)
    }
    listed = ", ".join(f"{name}={_shown(value)}" for name, value in changed.items())
    yield Finding(Level.FINE, f"settings: {listed or 'all as by default'}")


def _shown(value: object) -> str:
    if isinstance(value, (tuple, frozenset)):
        parts = ("/".join(part) if isinstance(part, tuple) else str(part) for part in value)
        return ",".join(sorted(parts))
    return str(value)


# --- targets ----------------------------------------------------------------------------------


def _targets(settings: Settings) -> Iterator[Finding]:
    if not settings.target:
        yield Finding(
            Level.NOTE,
            "no target is named",
            "--target module:Class.method, or OTEL_PERSONALIZATION_TARGET; a service that calls a "
            "hook itself needs none",
        )
    for target in settings.target:
        module_name, _, path = target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            yield Finding(
                Level.PROBLEM,
                f"target {target}: {module_name} cannot be imported: {error!r}",
                f"run this where the service runs; {Path.cwd()} and PYTHONPATH were searched",
            )
            continue
        hook = PersonalizationHook(
            meter_provider=NoOpMeterProvider(), log=NONE, log_propagate=False
        )
        try:
            patch_target(module, target, settings, hook).undo()
        except TargetError as error:
            yield Finding(
                Level.PROBLEM, f"target: {error}", "name another, or say where its trace is"
            )
            continue
        yield Finding(Level.FINE, f"target {target}: it is there and can be wrapped")
        wrappers = list(_wrappers(module, path))
        if wrappers:
            yield Finding(
                Level.FINE, f"target {target}: wrapped, from the outside, by {', '.join(wrappers)}"
            )


def _wrappers(module: Any, path: str) -> Iterator[str]:
    """Who has wrapped a function, the outermost first."""
    *containers, name = path.split(".")
    owner = functools.reduce(getattr, containers, module)
    function = inspect.getattr_static(owner, name)
    if isinstance(function, (staticmethod, classmethod)):
        function = function.__func__
    while hasattr(function, "__wrapped__"):
        if isinstance(function, FinalizerWrapper):
            yield "otel-personalization"
        elif isinstance(function, FunctionType):
            yield str(function.__globals__.get("__name__"))
        else:
            wrapper = getattr(function, "_self_wrapper", type(function))
            yield str(getattr(wrapper, "__module__", type(function).__module__))
        function = function.__wrapped__


# --- where counters and lines go --------------------------------------------------------------


def _provider() -> Iterator[Finding]:
    if silenced := silenced_by():
        yield Finding(
            Level.NOTE,
            f"no counter leaves this process: {silenced}",
            "unset it, unless it is meant",
        )
    provider = get_meter_provider()
    if PersonalizationInstrumentor().is_instrumented_by_opentelemetry:
        # Whether a target is wrapped, each of them has told.
        yield Finding(Level.FINE, "instrumentation is set up in this process")
    if not is_of_an_sdk(provider):
        yield Finding(
            Level.NOTE,
            "no MeterProvider is set up in this process",
            "the service has to do it: otel_personalization.pipeline.configure(), a set-up of its "
            "own, or opentelemetry-instrument (to check that: opentelemetry-instrument "
            "otel-personalization doctor)",
        )
        return
    kind = f"{type(provider).__module__}.{type(provider).__qualname__}"
    if isinstance(provider, ExactProvider):
        yield Finding(Level.FINE, f"MeterProvider: {kind}; safe to be made before a fork")
    else:
        yield Finding(
            Level.NOTE,
            f"MeterProvider: {kind}; exact over forks, unless one hits an export",
            "with preloading servers make it in each worker (gunicorn: post_fork), or use "
            "otel_personalization.pipeline.configure",
        )


def _endpoint_of(collector: str | None) -> tuple[str, str, str]:
    """Where points go, what says so, and what makes them go elsewhere."""
    variable = next((name for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)
    grpc = "grpc" in (
        os.environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or ""
    )
    default = "http://localhost:4317" if grpc else "http://localhost:4318"
    if collector:
        return collector, "--collector", "name another"
    provider: Any = get_meter_provider()
    given: str | None = getattr(provider, "endpoint", None)
    if given:
        return given, "endpoint=", "name another"
    url = os.environ[variable] if variable else default
    return url, variable or "by default", "set OTEL_EXPORTER_OTLP_ENDPOINT"


def _endpoint(collector: str | None) -> Iterator[Finding]:
    url, by, remedy = _endpoint_of(collector)
    said = f"OTLP endpoint {without_credentials(url, url)} ({by})"
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        with socket.create_connection(address, _CONNECT_SECONDS):
            yield Finding(Level.FINE, f"{said}: it can be reached")
    except (OSError, ValueError) as error:
        yield Finding(
            Level.PROBLEM,
            f"{said}: it cannot be reached: {error}",
            f"start a Collector there, or {remedy}",
        )


def _log(settings: Settings) -> Iterator[Finding]:
    if settings.log in (STDOUT, STDERR, NONE):
        yield Finding(Level.FINE, f"log lines: {settings.log}")
        return
    path = Path(settings.log)
    try:
        is_folder = path.is_dir()
        is_writable = os.access(path if path.exists() else path.parent, os.W_OK)
    except ValueError:  # no name that a file can have
        is_folder, is_writable = False, False
    if is_writable and not is_folder:
        yield Finding(Level.FINE, f"log lines: {path}, which can be written")
    elif is_folder:
        yield Finding(
            Level.PROBLEM,
            f"log lines: {path} is a folder",
            "name a file in it, such as decisions.log",
        )
    else:
        yield Finding(
            Level.PROBLEM,
            f"log lines: {path} cannot be written",
            f"create {path.parent}, and let this user write there",
        )


# --- sending a decision -----------------------------------------------------------------------


def _send(settings_given: Mapping[str, Any], collector: str | None) -> Iterator[Finding]:
    of_hook = {name: value for name, value in settings_given.items() if name in HOOK_SETTINGS}
    decision = {
        "decision_id": f"doctor-{os.getpid()}",
        "namespace": DOCTOR_NAMESPACE,
        "surface": "doctor",
        "final_items": [{"item_id": "1", "personalized": True}],
    }
    # Not sampled: a line is to be there.
    hook = yield from send_decisions([decision], of_hook | {"log_sample": 1.0}, collector)
    if hook is None:
        return
    lost = hook.totals.snapshot()[(DROPPED_LOG_RECORDS,)][()][0]
    log = resolve(**of_hook, when=AFTER).log
    if lost:
        yield Finding(Level.PROBLEM, f"its log line could not be written to {log}", "see above")
    elif log != NONE:
        yield Finding(Level.FINE, f"its log line was written to {log}")


def send_decisions(
    decisions: Iterable[dict[str, Any]],
    of_hook: Mapping[str, Any],
    collector: str | None,
    instance: str | None = None,
) -> Generator[Finding, None, PersonalizationHook | None]:
    """Send decisions, and say whether they were taken.

    Args:
        decisions: finalised traces.
        of_hook: keywords of the hook.
        collector: base URL of the OTLP endpoint; else the process's own.
        instance: how ``service.instance.id`` of a provider of their own begins; None leaves them to
            the process's provider, if it says whether an export was taken.

    Returns:
        The hook that counted them; None where none could.
    """
    try:
        from otel_personalization import pipeline  # noqa: PLC0415  # needs the SDK
    except ImportError:
        return None  # said already
    provider: Any = get_meter_provider()
    own = None
    sent = 0
    remarks: list[Remark] = []
    with listening() as said:
        try:
            is_pipeline = isinstance(provider, pipeline.Pipeline)
            if collector or instance or not is_pipeline:
                provider = own = pipeline.configure(
                    "otel-personalization-doctor",
                    endpoint=collector or (provider.endpoint if is_pipeline else None),
                    resource_attributes={"service.instance.id": instance} if instance else None,
                    set_global=False,
                )
            hook = PersonalizationHook(meter_provider=provider, **of_hook)
            for decision in decisions:
                hook.record(decision)
                sent += 1
            before = len(said)
            is_taken = hook.flush(_SEND_SECONDS)
            remarks = said.copy()  # not those of the shutdown
        except ImportError as error:
            what, _, remedy = str(error).partition(": ")
            yield Finding(Level.PROBLEM, f"no decision could be sent: {what}", remedy)
            return None
        except ValueError as error:  # of which SettingsError is one
            yield Finding(
                Level.PROBLEM, f"no decision could be sent: {error}", "correct that setting"
            )
            return None
        finally:
            if own is not None:
                own.shutdown()
    url, *_ = _endpoint_of(collector)
    exported = remarks[before:]
    cause = cause_among(exported)
    of_export = [cause, *(one for one in exported if one.is_exporters)]
    for text in dict.fromkeys(one.text for one in remarks if one not in of_export):
        yield Finding(
            Level.NOTE,
            f"OpenTelemetry says: {without_credentials(text, url)}",
            "look at the OTEL_ variables of this process",
        )
    what, was = ("a decision", "was") if sent == 1 else (f"{sent} decisions", "were")
    if silenced := silenced_by():
        yield Finding(Level.PROBLEM, f"no decision was sent: {silenced}", "unset it")
    elif is_taken:
        yield Finding(Level.FINE, f"{what} of namespace {DOCTOR_NAMESPACE} {was} sent and accepted")
    else:
        reason = f": {without_credentials(cause.text, url)}" if cause else ""
        yield Finding(
            Level.PROBLEM,
            f"{what} {was} sent and not accepted{reason}",
            "look at the endpoint, its protocol (OTEL_EXPORTER_OTLP_PROTOCOL; port 4317 is that of "
            "grpc), headers and its log",
        )
    return hook
