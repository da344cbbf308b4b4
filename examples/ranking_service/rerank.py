"""Picks the served items: maximal marginal relevance, within the caps of brands and categories.

Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and
producing summaries" (SIGIR 1998).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from examples.ranking_service.catalogue import Item
from examples.ranking_service.experiment import Config


@dataclass(frozen=True)
class Candidate:
    """An item that could be served."""

    item: Item
    score: float


@dataclass(frozen=True)
class Pick:
    """An item that is served, and why in this place."""

    candidate: Candidate
    relevance: float
    """The score as a share of the best one's, weighed by lambda."""
    max_sim: float
    """Similarity with the most alike of the items before it."""
    penalty: float
    for_diversity: bool
    """Whether a candidate with a higher score was passed over."""
    brand_count: int
    """Picks of its brand so far, itself included; 0 without a brand."""
    category_count: int


def pick(
    candidates: Sequence[Candidate],
    k: int,
    config: Config,
    similarity: Callable[[str, str], float],
) -> list[Pick]:
    """The k items to serve, in their order; fewer where the caps leave no more.

    Args:
        candidates: the best score first.
        k: how many are asked for.
        config: ``mmr_lambda`` and the caps.
        similarity: of two items by their ids, 0 to 1.
    """
    if not candidates:
        return []
    picks: list[Pick] = []
    brands: Counter[str | None] = Counter()
    categories: Counter[str] = Counter()
    weight, best = config.mmr_lambda, candidates[0].score or 1.0
    relevance = {c.item.item_id: weight * c.score / best for c in candidates}
    max_sim = dict.fromkeys(relevance, 0.0)

    def marginal_relevance(candidate: Candidate) -> float:
        item_id = candidate.item.item_id
        return relevance[item_id] - (1 - weight) * max_sim[item_id]

    left = list(candidates)
    while left and len(picks) < k:
        chosen = max(left, key=marginal_relevance)  # of equal ones the first
        item = chosen.item
        brands[item.brand] += item.brand is not None
        categories[item.category] += 1
        picks.append(
            Pick(
                candidate=chosen,
                relevance=relevance[item.item_id],
                max_sim=max_sim[item.item_id],
                penalty=(1 - weight) * max_sim[item.item_id],
                for_diversity=chosen is not left[0],
                brand_count=brands[item.brand],
                category_count=categories[item.category],
            )
        )
        left = [
            other
            for other in left
            if other is not chosen
            and brands[other.item.brand] < config.brand_cap
            and categories[other.item.category] < config.category_cap
        ]
        for other in left:
            other_id = other.item.item_id
            max_sim[other_id] = max(max_sim[other_id], similarity(item.item_id, other_id))
    return picks
