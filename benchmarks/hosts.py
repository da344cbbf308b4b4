"""Tracers that are timed: bare, hooked, and counted by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from otel_personalization import PersonalizationHook
from otel_personalization.conventions import DEFAULT_STAGES


class Tracer:
    """Returns the trace that it is given, so that only what surrounds the call costs anything."""

    def finalize(self, trace: Any) -> Any:
        """The trace."""
        return trace


def hooked(hook: PersonalizationHook) -> Tracer:
    """A tracer of a class whose finaliser is wrapped."""

    class Hooked(Tracer):
        finalize = hook.finalizer()(Tracer.__dict__["finalize"])

    return Hooked()


def naive(provider: MeterProvider) -> Tracer:
    """What one writes first: read the trace, and add each number to a counter of its own."""
    meter = provider.get_meter("naive")
    names = ("decisions", "empty", "served", "personalized", "reasons", "requested", "cold")
    counters = [meter.create_counter(name) for name in names]
    candidates, empty = meter.create_counter("candidates"), meter.create_counter("source_empty")
    taken_part = meter.create_counter("source_decisions")

    class Naive(Tracer):
        def finalize(self, trace: Any) -> Any:
            extras = trace["extras"]
            items = trace["final_items"] or []
            boosted = set(extras.get("personalized_items", ()))
            asked = extras.get("include_reasons") is not False
            personalized = sum(item["item_id"] in boosted for item in items)
            reasons = sum(bool(item.get("reasons")) for item in items) if asked else 0
            cold = sum("cold_start" in item.get("reasons", ()) for item in items)
            extras["personalized_items_count"] = personalized
            extras["reason_items_count"] = reasons
            labels = {
                "recsys.namespace": trace["namespace"],
                "surface": trace.get("surface") or "default",
            }
            served = len(items)
            numbers = (1, not served, served, personalized, reasons, served * asked, cold)
            for counter, number in zip(counters, numbers, strict=True):
                counter.add(number, labels)
            for source, entry in extras.get("candidate_sources", {}).items():
                if source not in DEFAULT_STAGES:
                    of_source = {**labels, "source": source}
                    taken_part.add(1, of_source)
                    candidates.add(entry["count"], of_source)
                    empty.add(entry["count"] == 0, of_source)
            return trace

    return Naive()


def warm_trace(*, plain: bool) -> dict[str, Any]:
    """20 items; as the median recorded trace of that size has it unless `plain`: four reasons an
    item, four sources and three stages. Either way 57 boosted candidates, ten of them served.
    """
    reasons = ["recent_popularity", "co_visitation", "collaborative", "personalization"]
    sources = dict.fromkeys(("popularity", "content", "session"), 120) | {"collaborative": 0}
    stages = dict.fromkeys(("merged", "post_constraints", "post_exclusion"), 180)
    trace = {
        "decision_id": "6fe36cc8-4324-4f02-8736-6654ec16dff0",
        "namespace": "shop_eu",
        "surface": "home",
        "final_items": [
            {"item_id": f"shop_eu-{n:04}", "score": 0.5} | ({} if plain else {"reasons": reasons})
            for n in range(20)
        ],
        "extras": {
            "include_reasons": not plain,
            "personalized_items": [f"shop_eu-{n:04}" for n in range(0, 114, 2)],
            "candidate_sources": {}
            if plain
            else {
                name: {"count": count, "duration_ms": 1.25}
                for name, count in (sources | stages).items()
            },
        },
    }
    parsed: dict[str, Any] = json.loads(json.dumps(trace))  # strings as JSON gives them
    return parsed


@contextmanager
def sampled_span() -> Iterator[None]:
    """The active span of a request that is traced."""
    with TracerProvider(shutdown_on_exit=False).get_tracer("bench").start_as_current_span("rank"):
        yield
