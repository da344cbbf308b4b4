"""Where candidates come from: each source scores items for a user, 0 to 1."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from math import sqrt
from typing import Final

from examples.ranking_service.catalogue import Catalogue
from examples.ranking_service.users import History

FANOUT: Final = 60
"""Candidates of a source at most."""
ANCHORS: Final = 10
"""Items of a history, the latest, from which a source starts."""
NEIGHBOURS: Final = 15
"""Items that a source remembers as close to another one."""
VISIT: Final = 3
"""Items that follow one another so closely are looked at in one visit."""

Scores = dict[str, float]
"""By item id."""
Source = Callable[[History], Scores]


def popularity(histories: Iterable[History]) -> Source:
    """What most users look at, whoever asks."""
    views = Counter(item_id for history in histories for item_id in history)
    popular = _strongest(views, FANOUT)
    return lambda _history: popular


def co_visitation(histories: Iterable[History]) -> Source:
    """What is looked at in one visit with the items of the history."""
    visits: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for history in histories:
        for position, one in enumerate(history):
            for other in history[position + 1 : position + VISIT]:
                visits[one][other] += 1
                visits[other][one] += 1
    return _near_the_history(visits)


def collaborative(histories: Iterable[History]) -> Source:
    """What users with the same items in their history look at: the cosine of the items' users."""
    together: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for history in histories:
        for one in history:
            together[one].update(history)
    return _near_the_history(
        {
            one: {
                other: users / sqrt(others[one] * together[other][other])
                for other, users in others.items()
                if other != one
            }
            for one, others in together.items()
        }
    )


def content(catalogue: Catalogue) -> Source:
    """What is tagged like the items of the history."""
    return _near_the_history(
        {
            one.item_id: {
                other.item_id: catalogue.similarity(one.item_id, other.item_id)
                for other in catalogue
                if other is not one and not other.is_fresh
            }
            for one in catalogue
        }
    )


def cold_start(catalogue: Catalogue) -> Source:
    """Fresh items: those that are tagged like the history first."""
    fresh = [item.item_id for item in catalogue if item.is_fresh]

    def of(history: History) -> Scores:
        anchors = history[-ANCHORS:]
        return {
            item_id: max((catalogue.similarity(item_id, anchor) for anchor in anchors), default=0.5)
            for item_id in fresh
        }

    return of


def _near_the_history(closeness: Mapping[str, Mapping[str, float]]) -> Source:
    neighbours = {one: _strongest(others, NEIGHBOURS) for one, others in closeness.items()}

    def of(history: History) -> Scores:
        found: Counter[str] = Counter()
        for anchor in history[-ANCHORS:]:
            found.update(neighbours.get(anchor, {}))
        return _strongest(found, FANOUT)

    return of


def _strongest(scores: Mapping[str, float], limit: int) -> Scores:
    """The highest scores, as shares of the highest one; equal ones by item id."""
    strongest = sorted(scores.items(), key=lambda score: (-score[1], score[0]))[:limit]
    return {item_id: score / strongest[0][1] for item_id, score in strongest}
