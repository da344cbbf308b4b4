"""What one writes instead of installing this package: four counters, where a trace is made."""

from __future__ import annotations

from typing import Any

from opentelemetry.metrics import MeterProvider

from benchmarks.hosts import Tracer


def four_counters(provider: MeterProvider) -> Tracer:
    """A tracer that counts decisions and items, those personalised and those with a reason."""
    meter = provider.get_meter("hand_written")
    decisions = meter.create_counter("decisions")
    served = meter.create_counter("served_items")
    personalized = meter.create_counter("personalized_items")
    reasons = meter.create_counter("reason_items")

    class Counting(Tracer):
        def finalize(self, trace: Any) -> Any:
            items = trace["final_items"] or []
            extras = trace["extras"]
            boosted = set(extras.get("personalized_items", ()))
            labels = {
                "recsys.namespace": trace["namespace"],
                "surface": trace.get("surface") or "default",
            }
            decisions.add(1, labels)
            served.add(len(items), labels)
            personalized.add(sum(item["item_id"] in boosted for item in items), labels)
            if extras.get("include_reasons") is not False:
                reasons.add(sum(bool(item.get("reasons")) for item in items), labels)
            return trace

    return Counting()
