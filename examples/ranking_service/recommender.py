"""Decides what a user is served: sources, blend, profile boost, caps and diversity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from examples.ranking_service import sources
from examples.ranking_service.catalogue import Catalogue, Item
from examples.ranking_service.experiment import DEFAULT, Assignment, Config, assign
from examples.ranking_service.messages import RecommendationRequest
from examples.ranking_service.rerank import Candidate, Pick, pick
from examples.ranking_service.settings import Fault
from examples.ranking_service.sources import Scores
from examples.ranking_service.users import History, Users

MAX_K: Final = 100
POPULARITY: Final = "popularity"
CO_VISITATION: Final = "co_visitation"
COLLABORATIVE: Final = "collaborative"
CONTENT: Final = "content"
COLD_START: Final = "cold_start"

COLD_START_WEIGHT: Final = 0.15
FLOODED_COLD_START_WEIGHT: Final = 3.0
PROFILE_SHARE: Final = 0.15
"""An item is in a profile if its category and brand have this share of the history."""

REASONS: Final = {
    POPULARITY: "recent_popularity",
    CO_VISITATION: "co_visitation",
    COLLABORATIVE: "collaborative",
    CONTENT: "content_similarity",
    COLD_START: "cold_start",
}
"""What a candidate that a source found is served for."""


@dataclass
class Timings:
    """How many candidates each source and each stage left, and in which time."""

    entries: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def of(self, name: str) -> Iterator[Scores]:
        """Time a source or a stage; what it puts in the mapping is counted."""
        found: Scores = {}
        began = perf_counter()
        yield found
        milliseconds = (perf_counter() - began) * 1000
        self.entries[name] = {"count": len(found), "duration_ms": round(milliseconds, 6)}


@dataclass(frozen=True)
class Decision:
    """What was decided for a request, with all that its trace tells."""

    request: RecommendationRequest
    k: int
    config: Config
    assignment: Assignment | None
    anchors: History
    timings: dict[str, dict[str, float]]
    candidates: list[Candidate]
    picks: list[Pick]
    boosted: list[str]
    """Ids of the candidates that the profile lifted, served or not."""
    reasons: dict[str, list[str]]
    """By item id, of the picks."""
    milliseconds: float


class Recommender:
    """Recommends the items of a namespace.

    Args:
        namespace: one of `catalogue.CATEGORIES`.
        seed: the same seed and request give the same items, in any process.
    """

    def __init__(self, namespace: str, seed: int) -> None:
        self._catalogue = Catalogue(namespace, seed)
        self._users = Users(self._catalogue, namespace, seed)
        histories = list(self._users.histories())
        self._sources = {
            POPULARITY: sources.popularity(histories),
            CO_VISITATION: sources.co_visitation(histories),
            COLLABORATIVE: sources.collaborative(histories),
            CONTENT: sources.content(self._catalogue),
            COLD_START: sources.cold_start(self._catalogue),
        }

    def recommend(self, request: RecommendationRequest, faults: frozenset[Fault]) -> Decision:
        """Decide what to serve.

        Args:
            request: whose ``namespace`` is this one.
            faults: what goes wrong meanwhile.
        """
        began = perf_counter()
        assignment = assign(request.user_id)
        config = assignment.config if assignment else DEFAULT
        history = self._users.history(request.user_id)
        timings = Timings()

        found = self._retrieve(history, faults, timings)
        with timings.of("merged") as scores:
            scores.update(_blend(found, config, faults))
        with timings.of("post_exclusion") as left:
            left.update({key: score for key, score in scores.items() if key not in history})
        with timings.of("post_constraints") as wanted:
            wanted.update({key: score for key, score in left.items() if self._fits(key, request)})

        boosted = self._boost(wanted, history, config, faults)
        candidates = [
            Candidate(self._catalogue[item_id], score)
            for item_id, score in sorted(wanted.items(), key=lambda entry: (-entry[1], entry[0]))
        ]
        k = min(request.k, MAX_K)
        picks = pick(candidates, k, config, self._catalogue.similarity)
        return Decision(
            request=request,
            k=k,
            config=config,
            assignment=assignment,
            anchors=history[-sources.ANCHORS :],
            timings=timings.entries,
            candidates=candidates,
            picks=picks,
            boosted=boosted,
            reasons={
                picked.candidate.item.item_id: _reasons(picked, found, boosted) for picked in picks
            },
            milliseconds=(perf_counter() - began) * 1000,
        )

    def _retrieve(
        self, history: History, faults: frozenset[Fault], timings: Timings
    ) -> dict[str, Scores]:
        found = {}
        for name, source in self._sources.items():
            with timings.of(name) as found[name]:
                if name != COLLABORATIVE or Fault.COLLABORATIVE_EMPTY not in faults:
                    found[name].update(source(history))
        return found

    def _fits(self, item_id: str, request: RecommendationRequest) -> bool:
        wanted = request.constraints.include_tags_any if request.constraints else ()
        return not wanted or not self._catalogue[item_id].tags.isdisjoint(wanted)

    def _boost(
        self, scores: Scores, history: History, config: Config, faults: frozenset[Fault]
    ) -> list[str]:
        """Lift the candidates that fit the user's profile. Returns their ids."""
        if not history or Fault.PERSONALIZATION_OFF in faults:
            return []
        looked_at = [self._catalogue[item_id] for item_id in history]
        categories = Counter(item.category for item in looked_at)
        brands = Counter(item.brand for item in looked_at)

        def share(item: Item) -> float:
            of_brand = brands[item.brand] if item.brand is not None else 0
            return (categories[item.category] + of_brand) / (2 * len(history))

        shares = {item_id: share(self._catalogue[item_id]) for item_id in scores}
        boosted = [item_id for item_id in scores if shares[item_id] >= PROFILE_SHARE]
        for item_id in boosted:
            scores[item_id] *= 1 + config.profile_boost * shares[item_id]
        return boosted


def _blend(found: dict[str, Scores], config: Config, faults: frozenset[Fault]) -> Scores:
    flooded = Fault.COLD_START_FLOOD in faults
    cold_start_weight = FLOODED_COLD_START_WEIGHT if flooded else COLD_START_WEIGHT
    popular, visited, alike, tagged, fresh = (
        found[name] for name in (POPULARITY, CO_VISITATION, COLLABORATIVE, CONTENT, COLD_START)
    )
    return {
        item_id: config.alpha * popular.get(item_id, 0)
        + config.beta * visited.get(item_id, 0)
        + config.gamma * max(alike.get(item_id, 0), tagged.get(item_id, 0))
        + cold_start_weight * fresh.get(item_id, 0)
        for scores in found.values()
        for item_id in scores
    }


def _reasons(picked: Pick, found: dict[str, Scores], boosted: list[str]) -> list[str]:
    item_id = picked.candidate.item.item_id
    reasons = [reason for name, reason in REASONS.items() if item_id in found[name]]
    if picked.for_diversity:
        reasons.append("diversity")
    if item_id in boosted:
        reasons.append("personalization")
    return reasons
