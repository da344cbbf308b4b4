"""A decision tracer in small, as a ranking service has one. It knows nothing of OpenTelemetry."""

from __future__ import annotations

from typing import Any


class DecisionTracer:
    """Finalises decisions."""

    def finalize(self, decision: dict[str, Any]) -> dict[str, Any]:
        """The trace of a decision, as the service would store it now."""
        return {**decision, "extras": dict(decision["extras"])}
