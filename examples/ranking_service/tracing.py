"""The decision trace: what was decided, and why. This module knows nothing of OpenTelemetry.

`DecisionTracer.finalize` is what otel-personalization wraps. It returns the finished trace, so that
whoever stores what it returned stores the stamped one.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any, Final
from uuid import uuid4

from examples.ranking_service.recommender import Decision
from examples.ranking_service.rerank import Pick

ORG_ID: Final = "00000000-0000-0000-0000-000000000001"
MODEL_VERSION: Final = "blend_v1"
NO_ANCHORS: Final = ["(no_recent_activity)"]


class DecisionTracer:
    """Finalises decisions into traces."""

    def finalize(self, decision: Decision) -> dict[str, Any]:
        """The trace of a decision, as it is stored."""
        request = decision.request
        surface = request.surface.strip()
        trace: dict[str, Any] = {
            "decision_id": str(uuid4()),
            "org_id": ORG_ID,
            "namespace": request.namespace,
            "ts": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
            "surface": surface,
            "request_id": request.request_id,
            "user_hash": sha256(f"{request.namespace}/{request.user_id}".encode()).hexdigest(),
            "k": decision.k,
            "constraints": request.constraints.model_dump() if request.constraints else None,
            "effective_config": asdict(decision.config),
            "bandit": _bandit(decision, surface),
            "mmr_info": [_mmr(index, picked) for index, picked in enumerate(decision.picks)],
            "caps": {
                picked.candidate.item.item_id: _caps(picked, decision) for picked in decision.picks
            },
        }
        trace = {key: value for key, value in trace.items() if value}  # what is empty is left out
        # ... but these, which are null.
        trace["candidates_pre"] = [
            {"item_id": candidate.item.item_id, "score": candidate.score}
            for candidate in decision.candidates
        ] or None
        trace["final_items"] = [_served(picked, decision) for picked in decision.picks] or None
        trace["extras"] = _extras(decision)
        return trace


def _served(picked: Pick, decision: Decision) -> dict[str, Any]:
    item_id = picked.candidate.item.item_id
    served: dict[str, Any] = {"item_id": item_id, "score": picked.candidate.score}
    if decision.request.include_reasons:
        served["reasons"] = decision.reasons[item_id]
    return served


def _bandit(decision: Decision, surface: str) -> dict[str, Any] | None:
    arm = decision.assignment
    if arm is None:
        return None
    bucket = f"ctx:device={decision.request.device}|surface={surface}"
    return {
        "chosen_policy_id": arm.policy_id,
        "algorithm": "fixed_split",
        "bucket_key": bucket,
        "explore": False,
        "explain": {"bucket": bucket, "surface": surface},
        "experiment": arm.experiment,
        "variant": arm.variant,
    }


def _mmr(index: int, picked: Pick) -> dict[str, Any]:
    figures = {
        "max_sim": picked.max_sim,
        "relevance": picked.relevance,
        "penalty": picked.penalty,
        "brand_cap_hit": picked.brand_count > 0,
        "category_cap_hit": picked.category_count > 0,
    }
    told = {name: figure for name, figure in figures.items() if figure}
    return {"pick_index": index, "item_id": picked.candidate.item.item_id, **told}


def _caps(picked: Pick, decision: Decision) -> dict[str, Any]:
    item, config = picked.candidate.item, decision.config
    return {
        "brand": _cap(item.brand, config.brand_cap, picked.brand_count),
        "category": _cap(item.category, config.category_cap, picked.category_count),
    }


def _cap(value: str | None, limit: int, count: int) -> dict[str, Any]:
    if value is None:
        return {"applied": False}
    return {"applied": True, "limit": limit, "count": count, "value": value}


def _extras(decision: Decision) -> dict[str, Any]:
    request, arm = decision.request, decision.assignment
    extras: dict[str, Any] = {
        "include_reasons": request.include_reasons,
        "explain_level": "tags",
        "model_version": MODEL_VERSION,
        "duration_ms": round(decision.milliseconds),
        "anchors": list(decision.anchors) or NO_ANCHORS,
        "candidate_sources": decision.timings,
        "request_context_keys": ["device", "surface"],
        "device": request.device,
        "cohort": "returning" if decision.anchors else "new",
    }
    if decision.boosted:
        extras["personalized_items"] = decision.boosted
    if decision.picks:
        extras |= {"mmr_applied": True, "caps_applied": True}
    if arm is not None:
        extras |= {
            "bandit_experiment": arm.experiment,
            "bandit_variant": arm.variant,
            "experiment_variant": arm.variant,
        }
    return extras
