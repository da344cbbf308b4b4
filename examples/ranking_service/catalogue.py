"""What there is to recommend: items with brands, categories and tags, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Final

ITEMS: Final = 240
FRESH_EVERY: Final = 12
"""One item of so many is fresh: nobody has seen it yet."""
UNBRANDED_EVERY: Final = 9
BRANDS_OF_CATEGORY: Final = 4
STYLES: Final = ("bold", "classic", "compact", "eco", "gift", "premium", "sale", "simple")
CATEGORIES: Final = {
    "shop": ("beauty", "books", "fashion", "fitness", "garden", "gourmet", "kitchen", "outdoors"),
    "media": ("comedy", "crime", "drama", "history", "music", "nature", "science", "sports"),
}
"""By namespace. Each namespace is a catalogue, with users of its own."""


@dataclass(frozen=True)
class Item:
    """Something that can be recommended."""

    item_id: str
    category: str
    brand: str | None
    tags: frozenset[str]
    is_fresh: bool


class Catalogue:
    """The items of a namespace.

    Args:
        namespace: one of `CATEGORIES`.
        seed: the same seed draws the same items.
    """

    def __init__(self, namespace: str, seed: int) -> None:
        draw = Random(f"catalogue/{namespace}/{seed}")
        self._items = {
            item.item_id: item
            for item in (_item(namespace, number, draw) for number in range(ITEMS))
        }

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def __getitem__(self, item_id: str) -> Item:
        return self._items[item_id]

    def similarity(self, one: str, other: str) -> float:
        """How alike two items are: the Jaccard index of their tags, 0 to 1."""
        return self._similarities[one][other]

    @cached_property
    def _similarities(self) -> dict[str, dict[str, float]]:
        return {
            one.item_id: {other.item_id: _jaccard(one.tags, other.tags) for other in self}
            for one in self
        }


def _item(namespace: str, number: int, draw: Random) -> Item:
    category = draw.choice(CATEGORIES[namespace])
    has_brand = number % UNBRANDED_EVERY != 0
    brand = f"{category}-brand-{draw.randrange(BRANDS_OF_CATEGORY)}" if has_brand else None
    tags = {f"category:{category}", *draw.sample(STYLES, 2)}
    if brand is not None:
        tags.add(f"brand:{brand}")
    return Item(
        item_id=f"{namespace}-{number:04}",
        category=category,
        brand=brand,
        tags=frozenset(tags),
        is_fresh=number % FRESH_EVERY == 0,
    )


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
