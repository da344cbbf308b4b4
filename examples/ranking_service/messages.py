"""What clients send."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from examples.ranking_service.settings import Fault


class Constraints(BaseModel):
    """Which items are wanted at all."""

    include_tags_any: list[str] = Field(default_factory=list)


class RecommendationRequest(BaseModel):
    """The body of ``POST /v1/recommendations``."""

    namespace: str
    surface: str = ""
    user_id: str
    k: int = Field(default=10, ge=1)
    include_reasons: bool = False
    device: Literal["web", "ios", "android"] = "web"
    request_id: str | None = None
    constraints: Constraints | None = None
    faults: frozenset[Fault] = frozenset()
    """Faults of this one decision, on top of those of the configuration."""


class Outcome(BaseModel):
    """What a user did with the items of a decision."""

    namespace: str
    surface: str
    decision_id: str
    ts: datetime
    impressions: list[str]
    """Ids of the items that were seen."""
    clicks: list[str] = Field(default_factory=list)


class Outcomes(BaseModel):
    """The body of ``POST /v1/events``."""

    outcomes: list[Outcome]
