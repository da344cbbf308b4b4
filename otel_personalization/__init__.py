"""OpenTelemetry instrumentation for recommender systems.

Name the function that finalises your decision traces::

    from otel_personalization import PersonalizationInstrumentor

    PersonalizationInstrumentor().instrument(target="ranking.tracing:DecisionTracer.finalize")

From then on each trace that it returns carries ``extras.personalized_items_count`` and
``extras.reason_items_count``, and OpenTelemetry counters say, by namespace and surface, how many
items were served, personalised and explained. What the trace looks like never hurts the service.

Without code: ``OTEL_PERSONALIZATION_TARGET=ranking.tracing:DecisionTracer.finalize
opentelemetry-instrument python app.py``. Without patching: `PersonalizationHook`. Without
OpenTelemetry set up: `otel_personalization.pipeline.configure`. For your tests:
`otel_personalization.testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from otel_personalization.version import __version__

if TYPE_CHECKING:
    from otel_personalization.hook import PersonalizationHook
    from otel_personalization.instrumentor import PersonalizationInstrumentor, TargetError
    from otel_personalization.settings import SettingsError
    from otel_personalization.wrapping import NotWrappableError

__all__ = [
    "NotWrappableError",
    "PersonalizationHook",
    "PersonalizationInstrumentor",
    "SettingsError",
    "TargetError",
    "__version__",
]

_HOMES: Final = {
    "NotWrappableError": "wrapping",
    "PersonalizationHook": "hook",
    "PersonalizationInstrumentor": "instrumentor",
    "SettingsError": "settings",
    "TargetError": "instrumentor",
}


if not TYPE_CHECKING:  # of a module with it, type checkers believe every name

    def __getattr__(name: str) -> Any:
        # Imported when it is asked for: most commands need no OpenTelemetry, a tenth of a second.
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
