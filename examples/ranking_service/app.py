"""The service over HTTP. It knows nothing of OpenTelemetry: `instrumented` adds the one line."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse

from examples.ranking_service.catalogue import CATEGORIES
from examples.ranking_service.messages import Outcomes, RecommendationRequest
from examples.ranking_service.recommender import Recommender
from examples.ranking_service.settings import Settings
from examples.ranking_service.storage import Storage
from examples.ranking_service.tracing import MODEL_VERSION, DecisionTracer


class OutcomeCounter(Protocol):
    """Is told of what users saw and clicked; a ``PersonalizationHook`` is one."""

    def record_impressions(self, count: int, *, namespace: str, surface: str) -> None:
        """Count items that were seen."""

    def record_clicks(self, count: int, *, namespace: str, surface: str) -> None:
        """Count items that were clicked."""


def create_app(
    settings: Settings | None = None, outcome_counter: OutcomeCounter | None = None
) -> FastAPI:
    """The application.

    Args:
        settings: those of the environment, if None.
        outcome_counter: is told of impressions and clicks, if given.
    """
    settings = settings or Settings.from_environment()
    recommenders = {namespace: Recommender(namespace, settings.seed) for namespace in CATEGORIES}
    storage = Storage(settings.data_dir)
    tracer = DecisionTracer()
    app = FastAPI(title="ranking service")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/recommendations")
    def recommend(request: RecommendationRequest) -> JSONResponse:
        if request.namespace not in recommenders:
            raise HTTPException(404, f"there is no namespace {request.namespace!r}")
        faults = request.faults | settings.faults_of(request.namespace, request.surface.strip())
        decision = recommenders[request.namespace].recommend(request, faults)
        trace = tracer.finalize(decision)
        storage.store_trace(trace)  # as finalize returned it: stamped
        boosted = set(decision.boosted)
        return JSONResponse(
            {
                "model_version": MODEL_VERSION,
                "trace_id": trace["decision_id"],
                "items": [
                    {**item, "personalized": item["item_id"] in boosted}
                    for item in trace["final_items"] or ()
                ],
            }
        )

    @app.post("/v1/events", status_code=202)
    def take_outcomes(body: Outcomes) -> dict[str, int]:
        storage.store_outcomes(body.outcomes)
        impressions: Counter[tuple[str, str]] = Counter()
        clicks: Counter[tuple[str, str]] = Counter()
        for outcome in body.outcomes:
            pair = (outcome.namespace, outcome.surface)
            impressions[pair] += len(outcome.impressions)
            clicks[pair] += len(outcome.clicks)
        if outcome_counter is not None:
            for namespace, surface in impressions:
                pair = (namespace, surface)
                outcome_counter.record_impressions(
                    impressions[pair], namespace=namespace, surface=surface
                )
                outcome_counter.record_clicks(clicks[pair], namespace=namespace, surface=surface)
        return {"impressions": impressions.total(), "clicks": clicks.total()}

    return app
