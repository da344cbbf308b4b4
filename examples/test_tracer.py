"""A service's own test: is its tracer instrumented, and right?

Run it with ``python -m pytest examples/test_tracer.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.ranking_service.messages import RecommendationRequest
from examples.ranking_service.recommender import Recommender
from examples.ranking_service.settings import Fault
from examples.ranking_service.tracing import DecisionTracer
from otel_personalization import PersonalizationInstrumentor
from otel_personalization.testing import counting

REQUEST = RecommendationRequest(
    namespace="shop", surface="home", user_id="shop-user-007", k=5, include_reasons=True
)


@pytest.fixture(autouse=True)
def _instrumented() -> Iterator[None]:
    """As the service is in production."""
    instrumentor = PersonalizationInstrumentor()
    instrumentor.instrument(target="examples.ranking_service.tracing:DecisionTracer.finalize")
    yield
    instrumentor.uninstrument()


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    """The service's recommender of one namespace."""
    return Recommender("shop", seed=1)


def test_decisions_are_counted(recommender: Recommender) -> None:
    """A returning user is served items that are for them, each with a reason."""
    with counting() as counted:
        DecisionTracer().finalize(recommender.recommend(REQUEST, frozenset()))
    assert (counted.decisions, counted.served_items, counted.reason_items) == (1, 5, 5)
    assert counted.personalized_items > 0
    assert counted.sources["shop", "home", "collaborative"]["empty_decisions"] == 0


def test_a_failing_profile_boost_shows(recommender: Recommender) -> None:
    """It is what the counters are for."""
    with counting() as counted:
        failing = frozenset({Fault.PERSONALIZATION_OFF})
        DecisionTracer().finalize(recommender.recommend(REQUEST, failing))
    assert (counted.served_items, counted.personalized_items) == (5, 0)
