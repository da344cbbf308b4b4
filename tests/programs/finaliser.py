"""The function that members of a fleet have wrapped."""

from typing import Any

ITEMS = [{"item_id": f"item-{n}"} for n in range(200)]
EXPLAINED = [{"item_id": f"item-{n}", "reasons": ["popular"]} for n in range(200)]
IDS = [f"item-{n}" for n in range(200)]


def finalize(
    namespace: str, surface: str, *, served: int, personalized: int, asks: bool, explained: int
) -> dict[str, Any]:
    """The first ones are personalised, and the first ones explained."""
    return {
        "decision_id": "of no interest",
        "namespace": namespace,
        "surface": surface,
        "final_items": EXPLAINED[:explained] + ITEMS[explained:served],
        "extras": {"personalized_items": IDS[:personalized], "include_reasons": asks},
    }
