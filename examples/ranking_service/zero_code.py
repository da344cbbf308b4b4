"""The service without a line of instrumentation: that is in the environment.

``FlushAtShutdown`` is for uvicorn, which at SIGTERM ends without exit handlers: what was counted
since the last export would be lost.
"""

from examples.ranking_service.app import create_app
from otel_personalization.asgi import FlushAtShutdown

app = FlushAtShutdown(create_app())
