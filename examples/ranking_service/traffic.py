"""Simulated users, who browse the service over HTTP and count what they are served.

They know nothing of traces and counters: what they count can be compared with those.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from random import Random
from typing import Any, Final

import httpx

from examples.ranking_service.catalogue import CATEGORIES
from examples.ranking_service.settings import Fault
from examples.ranking_service.users import returning_users

SURFACES: Final = ("home", "product", "cart")
"""The pages of a visit."""
DEVICES: Final = ("web", "ios", "android")
NAMESPACE_WEIGHTS: Final = {"shop": 3, "media": 1}
RETURNING: Final = 0.8
"""Share of the visits that are of returning users."""
ASKING_FOR_REASONS: Final = 0.7
SIMULTANEOUS_VISITS: Final = 8
NOTHING: Final = "sold-out"
"""A category without items: who asks for it is served nothing."""

Pair = tuple[str, str]
"""Namespace and surface."""
Tally = defaultdict[Pair, Counter[str]]
"""What was served, by the names of the counts."""
Faults = Mapping[Pair, Fault]


class Crowd:
    """Simulated users of a service.

    Args:
        url: of the service.
        seed: of what they do; the same for the same visits.
        faults: what they ask to go wrong, by namespace and surface.
        on_answer: is called after each answer.
    """

    def __init__(
        self, url: str, seed: int, *, faults: Faults | None = None, on_answer: Callable[[], object]
    ) -> None:
        self._url = url
        self._seed = seed
        self._faults = faults or {}
        self._on_answer = on_answer
        self.tally: Tally = defaultdict(Counter)

    def visit(self, numbers: Iterable[int]) -> None:
        """Make visits of one page of each surface, some of them at the same time.

        Raises:
            KeyboardInterrupt: it was interrupted; no visit goes on.
        """
        try:
            asyncio.run(self._visit_all(iter(numbers)))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    async def _visit_all(self, numbers: Iterable[int]) -> None:
        # Where Python raised KeyboardInterrupt in the midst of a visit, its task would complain.
        this_task: Any = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, this_task.cancel)

        async def visitor(client: httpx.AsyncClient) -> None:
            for number in numbers:  # of all visitors together: each takes the next one
                await self._visit(client, number)

        # A proxy of the environment is not for a service on this machine.
        async with httpx.AsyncClient(base_url=self._url, trust_env=False, timeout=30) as client:
            await asyncio.gather(*(visitor(client) for _ in range(SIMULTANEOUS_VISITS)))

    async def _visit(self, client: httpx.AsyncClient, number: int) -> None:
        draw = Random(f"visit/{self._seed}/{number}")
        (namespace,) = draw.choices(tuple(NAMESPACE_WEIGHTS), tuple(NAMESPACE_WEIGHTS.values()))
        is_returning = draw.random() < RETURNING
        user_id = draw.choice(returning_users(namespace)) if is_returning else f"new-{number}"
        device = draw.choice(DEVICES)
        outcomes = []
        for surface in SURFACES:
            request: dict[str, Any] = {
                "namespace": namespace,
                "surface": surface,
                "user_id": user_id,
                "k": draw.choice((4, 8, 12)),
                "include_reasons": draw.random() < ASKING_FOR_REASONS,
                "device": device,
                "request_id": f"visit-{number}-{surface}",
            }
            if (namespace, surface) in self._faults:
                request["faults"] = [self._faults[namespace, surface]]
            if draw.random() < 0.1:
                wanted = draw.choice((*CATEGORIES[namespace], NOTHING))
                request["constraints"] = {"include_tags_any": [f"category:{wanted}"]}
            answer = await _post(client, "/v1/recommendations", request)
            counts = self.tally[namespace, surface]
            _count(counts, request, answer["items"])
            self._on_answer()
            if answer["items"]:
                outcome = {
                    "namespace": namespace,
                    "surface": surface,
                    "decision_id": answer["trace_id"],
                    "ts": datetime.now(timezone.utc).isoformat(),
                    **_look_at(answer["items"], draw),
                }
                counts["impressions"] += len(outcome["impressions"])
                counts["clicks"] += len(outcome["clicks"])
                outcomes.append(outcome)
        await _post(client, "/v1/events", {"outcomes": outcomes})


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    answer.raise_for_status()
    parsed: dict[str, Any] = answer.json()
    return parsed


def _count(counts: Counter[str], request: dict[str, Any], items: list[dict[str, Any]]) -> None:
    asked = request["include_reasons"]
    reasons = [item.get("reasons") or [] for item in items]
    counts["decisions"] += 1
    counts["empty_decisions"] += not items
    counts["served_items"] += len(items)
    counts["served_items_squared"] += len(items) ** 2
    counts["personalized_items"] += sum(item["personalized"] for item in items)
    counts["reason_requested_items"] += len(items) if asked else 0
    counts["reason_items"] += sum(bool(of_item) for of_item in reasons)
    counts["cold_start_items"] += sum("cold_start" in of_item for of_item in reasons)


def _look_at(items: list[dict[str, Any]], draw: Random) -> dict[str, list[str]]:
    """Users look at the first items, and rather click on high ranks and on what is for them."""
    seen = items[: draw.randint(1, len(items))]
    clicked = [
        item["item_id"]
        for rank, item in enumerate(seen)
        if draw.random() < (0.3 if item["personalized"] else 0.15) * 0.85**rank
    ]
    return {"impressions": [item["item_id"] for item in seen], "clicks": clicked}
