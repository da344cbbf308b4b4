"""Who is recommended to: returning users with a history, and new ones without."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from examples.ranking_service.catalogue import CATEGORIES, Catalogue

RETURNING_USERS: Final = 300
"""Of a namespace."""
HISTORY_LENGTHS: Final = range(6, 25)
LOYALTY: Final = 0.75
"""Share of what users look at that is of their favourite categories."""

History = tuple[str, ...]
"""Ids of the items that a user has looked at, the latest last."""


class Users:
    """The users of a namespace and what they have looked at.

    Args:
        catalogue: what they could look at.
        namespace: its namespace.
        seed: the same seed draws the same histories.
    """

    def __init__(self, catalogue: Catalogue, namespace: str, seed: int) -> None:
        draw = Random(f"users/{namespace}/{seed}")
        self._histories = {
            user_id: _history(catalogue, namespace, draw) for user_id in returning_users(namespace)
        }

    def history(self, user_id: str) -> History:
        """What a user has looked at: nothing, if the user is new."""
        return self._histories.get(user_id, ())

    def histories(self) -> Iterator[History]:
        """Those of all returning users."""
        return iter(self._histories.values())


def returning_users(namespace: str) -> list[str]:
    """The ids of those who have a history. Any other id is a new user's."""
    return [f"{namespace}-user-{number:03}" for number in range(RETURNING_USERS)]


def _history(catalogue: Catalogue, namespace: str, draw: Random) -> History:
    favourites = draw.sample(CATEGORIES[namespace], 2)
    seen = [item for item in catalogue if not item.is_fresh]
    liked = [item for item in seen if item.category in favourites]
    looked_at = (
        # Squared, so that the first of a list are more popular than the last.
        pool[int(len(pool) * draw.random() ** 2)].item_id
        for _ in range(draw.choice(HISTORY_LENGTHS))
        for pool in [liked if draw.random() < LOYALTY else seen]
    )
    return tuple(dict.fromkeys(looked_at))
