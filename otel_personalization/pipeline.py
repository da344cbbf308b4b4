"""OpenTelemetry metrics, set up in one call, for hosts that have none.

::

    from otel_personalization import PersonalizationInstrumentor, pipeline

    pipeline.configure(service_name="ranking")
    PersonalizationInstrumentor().instrument(target="ranking.tracing:DecisionTracer.finalize")

The standard ``OTEL_*`` variables of the resource, the OTLP exporter and the export interval are
honoured, and so is ``OTEL_METRICS_EXPORTER`` if it is ``otlp`` or ``none``. Needs
``pip install "otel-personalization[otlp]"``; this is the only module that imports the SDK.

A forked worker gets a provider and an exporter of its own, with locks, connections and a
``service.instance.id`` that no other process has. Instruments that were made before the fork, your
own, too, are there those of the worker, and start from nothing.
"""

from __future__ import annotations

import atexit
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.metrics import Meter, MeterProvider, get_meter_provider, set_meter_provider

from otel_personalization.conventions import SCOPE_NAME
from otel_personalization.forks import call_in_children
from otel_personalization.meters import PerProcess, PerProcessMeter
from otel_personalization.metrics import (
    export_last,
    instruments_of,
    is_of_an_sdk,
    is_worth_a_wait,
    note_export,
)
from otel_personalization.settings import ENDPOINT_VARIABLES, NONE
from otel_personalization.urls import is_http

_INSTALL: Final = 'pip install "otel-personalization[otlp]"'

try:
    from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
    from opentelemetry.sdk.metrics.export import (
        MetricExporter,
        MetricExportResult,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.resources import Resource
except ImportError as error:
    raise ImportError(
        "otel_personalization.pipeline needs the OpenTelemetry SDK and its OTLP exporter: "
        f"{_INSTALL}"
    ) from error

DEFAULT_EXPORT_INTERVAL_SECONDS: Final = 10.0
DEFAULT_EXPORT_TIMEOUT_SECONDS: Final = 2.0
"""Shorter than OpenTelemetry's 10 s: a backend that does not answer must not delay an exit."""
FOLLOW_UP_SECONDS: Final = 1.0
DEFAULT_ENDPOINTS: Final = {
    "http/protobuf": "http://localhost:4318",
    "grpc": "http://localhost:4317",
}
PROTOCOLS: Final = tuple(DEFAULT_ENDPOINTS)
_PROTOCOL_VARIABLES: Final = (
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
)
OTLP: Final = "otlp"
_SHUTDOWN_MILLIS: Final = 2000.0
_BRIEF_SHUTDOWN_MILLIS: Final = 300.0
"""Where nothing was counted, as in a server's master, which ends after its workers have waited; or
where the process has waited for the backend already, as an ASGI server's does at SIGINT."""


def configure(
    service_name: str | None = None,
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    resource_attributes: Mapping[str, str] | None = None,
    export_interval: float | None = None,
    export_timeout: float | None = None,
    set_global: bool = True,
) -> Pipeline:
    """Make a MeterProvider that exports over OTLP, and make it the global one.

    Args:
        service_name: ``service.name``; else ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES``.
        endpoint: base URL of the Collector, such as ``http://localhost:4318``; else
            ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        protocol: ``http/protobuf`` or ``grpc``; else ``OTEL_EXPORTER_OTLP_METRICS_PROTOCOL`` or
            ``OTEL_EXPORTER_OTLP_PROTOCOL``, else ``http/protobuf``.
        resource_attributes: further attributes of the resource.
        export_interval: seconds between exports; else ``OTEL_METRIC_EXPORT_INTERVAL`` (which is
            in ms), else 10.
        export_timeout: seconds an export may take; else ``OTEL_EXPORTER_OTLP_METRICS_TIMEOUT`` or
            ``OTEL_EXPORTER_OTLP_TIMEOUT``, else 2.
        set_global: whether to make it OpenTelemetry's global MeterProvider. If not, pass it on as
            ``meter_provider=``.

    Returns:
        The provider. It flushes and shuts itself down when Python exits.

    Raises:
        RuntimeError: a global MeterProvider has been set already.
        ValueError: the endpoint is no URL, the protocol is unknown, a time is not positive,
            ``OTEL_METRICS_EXPORTER`` names another exporter than OTLP's, or OpenTelemetry cannot
            make that of its variables.
        ImportError: the exporter for that protocol is not installed.
    """
    if set_global and is_of_an_sdk(get_meter_provider()):
        raise RuntimeError(
            "a global MeterProvider is set already. Either drop this call: the instrumentor uses "
            "the provider that is there; or call configure(..., set_global=False) and pass what it "
            "returns to instrument(meter_provider=...)."
        )
    # An empty variable is as good as none.
    environment = {name: value.strip() for name, value in os.environ.items() if value.strip()}
    said_by = "protocol"
    if not protocol:
        said_by = next((name for name in _PROTOCOL_VARIABLES if name in environment), said_by)
        protocol = environment.get(said_by, PROTOCOLS[0])
    if protocol not in PROTOCOLS:
        raise ValueError(f"{said_by} is {protocol!r}; it can be {' or '.join(PROTOCOLS)}")
    exporter = environment.get("OTEL_METRICS_EXPORTER", OTLP)
    if exporter not in (OTLP, NONE):
        raise ValueError(
            f"OTEL_METRICS_EXPORTER is {exporter!r}; it can be {OTLP!r} or {NONE!r}. For other "
            "exporters set a MeterProvider up yourself, or run under opentelemetry-instrument."
        )
    if endpoint is not None and not is_http(endpoint):
        raise ValueError(
            "endpoint is no URL of HTTP (it is not shown, for it may hold a password); it takes "
            "one such as 'http://localhost:4318', also for gRPC"
        )
    for name, seconds in (("export_interval", export_interval), ("export_timeout", export_timeout)):
        if seconds is not None and not seconds > 0:
            raise ValueError(f"{name} is {seconds!r}; it takes a number of seconds above 0")
    if export_interval is None and "OTEL_METRIC_EXPORT_INTERVAL" not in environment:
        export_interval = DEFAULT_EXPORT_INTERVAL_SECONDS
    if export_timeout is None and not (
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT" in environment
        or "OTEL_EXPORTER_OTLP_TIMEOUT" in environment
    ):
        export_timeout = DEFAULT_EXPORT_TIMEOUT_SECONDS
    attributes = dict(resource_attributes or {})
    if service_name is not None:
        attributes["service.name"] = service_name

    pipeline = Pipeline(
        attributes,
        endpoint,
        None if exporter == NONE else protocol,
        export_interval,
        export_timeout,
    )
    if set_global:
        set_meter_provider(pipeline)
    return pipeline


class Pipeline(MeterProvider):
    """A MeterProvider with one OTLP exporter, made anew in each forked process. See `configure`."""

    follow_up_seconds: float = FOLLOW_UP_SECONDS

    def __init__(
        self,
        resource_attributes: Mapping[str, str],
        endpoint: str | None,
        protocol: str | None,
        export_interval: float | None,
        export_timeout: float | None,
    ) -> None:
        # Once: to find a resource takes threads, which a child that is about to end cannot have.
        self._resource = Resource.create(dict(resource_attributes))
        self._given_instance_id = (
            resource_attributes.get("service.instance.id") or _instance_id_in_environment()
        )
        self._endpoint = endpoint
        self._protocol = protocol
        self._export_interval = export_interval
        self._export_timeout = export_timeout
        self._lock = threading.Lock()
        self._export_failed = False
        self._provider: SdkMeterProvider | None = None
        self._shut_down = False
        self._observed: list[PerProcess[Any]] = []
        """Observable instruments of the host's, which each process has to make."""
        self._has_other_meters = False
        call_in_children(self._after_fork_in_child)
        self._sdk_provider()
        atexit.register(self._at_exit)

    @property
    def endpoint(self) -> str | None:
        """The URL that it was given; None where the environment says it."""
        return self._endpoint

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> Meter:
        """A meter whose instruments are those of the process that uses them."""

        def make() -> Meter:
            return self._sdk_provider().get_meter(name, version, schema_url, attributes)

        if name == SCOPE_NAME:  # ours know of forks
            return make()
        self._has_other_meters = True
        return PerProcessMeter(name, make, self._observed.append)

    def collect_and_export(self, timeout_millis: float) -> None:
        """Collect once, and export that.

        Raises:
            ConnectionError: the backend did not take it.
        """
        if self._shut_down:
            return
        provider = self._sdk_provider()
        self._export_failed = False
        provider.force_flush(timeout_millis)
        if self._export_failed:
            raise ConnectionError("the OTLP endpoint did not take the export")

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Have everything exported that was counted until now. True if it was done in time."""
        return instruments_of(self).flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 5_000) -> None:
        """Export everything, and end. What is counted later is not exported any more."""
        if not self._shut_down:
            export_last(self, lambda: self.force_flush(timeout_millis / 2))
            self._shut_down = True
            self._sdk_provider().shutdown(timeout_millis / 2)

    def _sdk_provider(self) -> SdkMeterProvider:
        with self._lock:
            if self._provider is not None:
                return self._provider
            provider = self._provider = SdkMeterProvider(
                () if self._protocol is None else (self._reader(),),
                self._resource_of_process(),
                shutdown_on_exit=False,
            )
        for instrument in list(self._observed):
            instrument()
        return provider

    def _reader(self) -> PeriodicExportingMetricReader:
        interval = self._export_interval
        try:
            exporter = self._exporter()
            exporter.export = self._watched(exporter.export)  # type: ignore[method-assign]
            return _ReaderInOrder(exporter, None if interval is None else interval * 1000)
        except ImportError as error:
            raise ImportError(
                f"no exporter for {self._protocol} is installed: {_INSTALL}"
            ) from error
        except Exception as error:  # gRPC's are of kinds of its own, and others name no variable
            said = " ".join(str(error).split())
            raise ValueError(f"the OTEL_ variables give no exporter: {said}") from error

    def _exporter(self) -> MetricExporter:
        url = self._endpoint
        of_metrics, of_all = (os.environ.get(name, "").strip() for name in ENDPOINT_VARIABLES)
        if not (url or of_metrics):  # OpenTelemetry would take an empty variable for an address
            url = of_all or DEFAULT_ENDPOINTS[self._protocol or PROTOCOLS[0]]
        if self._protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc

            # Seconds may be a fraction in both, whatever the annotation says.
            timeout: Any = self._export_timeout
            return grpc.OTLPMetricExporter(endpoint=url, timeout=timeout)
        from opentelemetry.exporter.otlp.proto.http import metric_exporter as http

        url = url and url.rstrip("/")
        if url and not url.endswith("/v1/metrics"):
            url += "/v1/metrics"
        return http.OTLPMetricExporter(endpoint=url, timeout=self._export_timeout)

    def _watched(self, export: Callable[..., MetricExportResult]) -> Callable[..., Any]:
        """The SDK's flush tells nobody that an export failed; this does."""

        def watched(*args: Any, **kwargs: Any) -> MetricExportResult:
            self._export_failed = True  # also where it raises
            try:
                result = export(*args, **kwargs)
                self._export_failed = result is not MetricExportResult.SUCCESS
            finally:
                note_export(self, has_arrived=not self._export_failed)
            return result

        return watched

    def _resource_of_process(self) -> Resource:
        # Two processes with one id would be two writers of one series. Workers that share the
        # operator's id, in a variable of their container, are told apart by what follows it.
        given, own = self._given_instance_id, str(uuid.uuid4())
        attributes: dict[str, str | int] = {
            "service.instance.id": f"{given}-{own[:8]}" if given else own
        }
        if "process.pid" in self._resource.attributes:
            attributes["process.pid"] = os.getpid()
        return self._resource.merge(Resource(attributes))

    def _at_exit(self) -> None:
        # The instruments' own exit handler has seen to what the last collection would hide.
        if not self._shut_down:
            self._shut_down = True
            waits = self._has_other_meters or is_worth_a_wait(self)
            millis = _SHUTDOWN_MILLIS if waits else _BRIEF_SHUTDOWN_MILLIS

            def export() -> bool:
                self._export_failed = False
                self._sdk_provider().shutdown(millis)
                return not self._export_failed

            export_last(self, export)

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._provider = None


class _ReaderInOrder(PeriodicExportingMetricReader):
    """Exports what it collected in the order in which it was collected, in the process it is of.

    The SDK's reader may be overtaken between the two, where a flush meets the clock. A total that
    arrives after a larger one looks like a process that began anew: a Collector that turns totals
    into growth would count the difference twice.

    A child inherits it, and the SDK starts its thread there again; but what it would collect is the
    parent's, and what the host observes would be asked for twice.
    """

    def __init__(self, exporter: MetricExporter, export_interval_millis: float | None) -> None:
        self._one_at_a_time = threading.Lock()
        self._process = os.getpid()
        super().__init__(exporter, export_interval_millis)

    # Final to the SDK, which holds its own lock over the export alone.
    def collect(self, timeout_millis: float = 10_000) -> None:  # type: ignore[misc]
        if os.getpid() == self._process:
            with self._one_at_a_time:
                super().collect(timeout_millis)


def _instance_id_in_environment() -> str | None:
    for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.instance.id":
            return value.strip() or None
    return None
