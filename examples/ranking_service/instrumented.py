"""The service, instrumented: what uvicorn or gunicorn is to serve.

``pipeline.configure`` and ``FlushAtShutdown`` are for a service that has no OpenTelemetry set-up,
and for servers that end without exit handlers. Instrumentation itself is the one line between them.
"""

from otel_personalization import PersonalizationInstrumentor, pipeline
from otel_personalization.asgi import FlushAtShutdown

pipeline.configure("ranking")
PersonalizationInstrumentor().instrument(
    target="examples.ranking_service.tracing:DecisionTracer.finalize"
)

from examples.ranking_service.app import create_app  # noqa: E402  # any order will do

app = FlushAtShutdown(create_app(outcome_counter=PersonalizationInstrumentor().hook))
