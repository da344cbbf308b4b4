"""Traces that are objects, and not what the finaliser returns: a callable says where they are.

Run it with ``python -m examples.custom_trace``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from otel_personalization import PersonalizationInstrumentor


@dataclass
class Served:
    """An item, with a flag of its own in place of a list of the boosted ones."""

    item_id: str
    personalized: bool


@dataclass
class Trace:
    """A decision."""

    namespace: str
    surface: str
    final_items: list[Served]
    extras: dict[str, Any] = field(default_factory=dict)


class Tracer:
    """Finalises decisions into an answer and a trace."""

    def finalize(self, items: list[Served]) -> tuple[list[str], Trace]:
        """The item ids to answer with, and the trace to store."""
        return [item.item_id for item in items], Trace("shop", "home", items)


def main() -> None:
    """Finalise a decision, instrumented."""
    PersonalizationInstrumentor().instrument(
        target=f"{__name__}:Tracer.finalize",
        trace=lambda _instance, _args, _kwargs, result: result[1],
    )
    _, trace = Tracer().finalize([Served("a", personalized=True), Served("b", personalized=False)])
    print(trace)


if __name__ == "__main__":
    main()
