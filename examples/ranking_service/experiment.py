"""The configuration of a decision, and the experiment that varies its blend weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final


@dataclass(frozen=True)
class Config:
    """What a decision is made with; the trace's ``effective_config``."""

    alpha: float = 0.25
    """Weight of popularity."""
    beta: float = 0.45
    """Weight of co-visitation."""
    gamma: float = 0.3
    """Weight of similarity: collaborative, or of content."""
    profile_boost: float = 0.5
    profile_window_days: int = 30
    profile_top_n: int = 64
    mmr_lambda: float = 0.7
    brand_cap: int = 2
    category_cap: int = 5
    half_life_days: int = 5
    co_vis_window_days: int = 21
    purchased_window_days: int = 30
    rule_exclude_events: bool = True
    popularity_fanout: int = 60


@dataclass(frozen=True)
class Assignment:
    """A user's arm of the experiment."""

    experiment: str
    variant: str
    policy_id: str
    config: Config


DEFAULT: Final = Config()
ARMS: Final = (
    Assignment("blend_weights", "control", "p_baseline", DEFAULT),
    Assignment(
        "blend_weights", "treatment", "p_collaborative", replace(DEFAULT, beta=0.25, gamma=0.5)
    ),
)


def assign(user_id: str) -> Assignment | None:
    """The arm of a user, always the same one; None for the half that takes no part."""
    place = sha256(f"{ARMS[0].experiment}/{user_id}".encode()).digest()[0] % (2 * len(ARMS))
    return ARMS[place] if place < len(ARMS) else None
