"""Nothing is patched: the service calls the hook where its trace is finished.

Run it with ``python -m examples.manual_hook``.
"""

from __future__ import annotations

import json
from typing import Any

from otel_personalization import PersonalizationHook

hook = PersonalizationHook()


def finalize(items: list[str], boosted: list[str]) -> dict[str, Any]:
    """The trace of a decision, stamped and counted."""
    trace = {
        "namespace": "shop",
        "surface": "home",
        "final_items": [{"item_id": item_id} for item_id in items],
        "extras": {"personalized_items": boosted},
    }
    hook.record(trace)
    return trace


def main() -> None:
    """Finalise a decision; its user sees two of its three items, and clicks on one."""
    trace = finalize(["a", "b", "c"], boosted=["b", "c", "never served"])
    print(json.dumps(trace["extras"]))
    hook.record_impressions(2, namespace="shop", surface="home")
    hook.record_clicks(1, namespace="shop", surface="home")


if __name__ == "__main__":
    main()
