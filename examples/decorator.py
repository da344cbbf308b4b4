"""A decorated function: here one that stores the trace, and so is to be stamped before.

Run it with ``python -m examples.decorator``.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from otel_personalization import PersonalizationHook

hook = PersonalizationHook()


@hook.finalizer(trace="argument:trace", when="before")
async def store(trace: dict[str, Any]) -> None:
    """Store a trace. It is counted once this has succeeded."""
    await asyncio.sleep(0)
    print(json.dumps(trace))


def main() -> None:
    """Store a decision that personalised one of its two items, and explained both."""
    items = [
        {"item_id": "a", "reasons": ["personalization"]},
        {"item_id": "b", "reasons": ["recent_popularity"]},
    ]
    asyncio.run(store({"namespace": "shop", "surface": "cart", "final_items": items}))


if __name__ == "__main__":
    main()
