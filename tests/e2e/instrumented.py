"""The host, instrumented in the two lines of the README, and wrapped in the third."""

import os
import time

HOUR_NS = 3_600_000_000_000

# The SDK binds the clock when it is imported: E2E_AGE=hour makes all that is made here an hour old.
_clock = time.time_ns
_age_ns = HOUR_NS if os.environ.get("E2E_AGE") == "hour" else 0
time.time_ns = lambda: _clock() - _age_ns

from opentelemetry import metrics  # noqa: E402
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: E402
    OTLPMetricExporter,
)
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: E402

from otel_personalization import PersonalizationInstrumentor, pipeline  # noqa: E402
from otel_personalization.asgi import FlushAtShutdown  # noqa: E402
from tests.e2e import host  # noqa: E402

if os.environ.get("E2E_PROVIDER") == "own":
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
else:
    pipeline.configure("ranking")
instrumentor = PersonalizationInstrumentor()
instrumentor.instrument(target="tests.e2e.host:finalize")
if _age_ns:  # it has collected and exported for an hour
    instrumentor.hook.flush()
    _age_ns = 0

wsgi = host.wsgi
bare_asgi = host.asgi
asgi = FlushAtShutdown(host.asgi)
