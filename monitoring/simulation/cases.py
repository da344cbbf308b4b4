"""What the alerts do in a year: false ones while all is well, and how soon they find a drop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from monitoring.simulation.ladder import (
    LITERAL,
    LONGEST_WINDOW,
    Alert,
    Evaluations,
    judged,
)
from monitoring.simulation.traffic import (
    MINUTES_A_DAY,
    Clustering,
    Integers,
    Recorded,
    Traffic,
    rates,
    simulated,
    thinned,
)

HEALTHY: Final = 0.60
DROPS: Final = (0.54, 0.50)
DROP_EVERY_HOURS: Final = 29
"""So that drops come at all hours of the day."""
FEW: Final = 3
"""Of drops that are followed for days, every third."""
DROPS_AT_ONCE: Final = 50
LEAD_DAYS: Final = LONGEST_WINDOW // MINUTES_A_DAY


@dataclass(frozen=True)
class Case:
    """A surface's traffic.

    Args:
        surface: whose decisions are resampled.
        hourly: decisions an hour, on average.
        rhythm: see `rates`.
        clustering: how decisions agree in what they lose.
    """

    surface: str
    hourly: int
    rhythm: float
    clustering: Clustering


@dataclass
class Found:
    """Drops of the share, and which were found."""

    drops: int = 0
    in_window: int = 0
    """Found within the window that judged when they came."""
    in_time: int = 0
    """Found within that window, or a day if it is shorter."""
    literal: int = 0
    """The same, by the alert that a reader would write at first."""
    delays: list[int] = field(default_factory=list)
    """Minutes, of those that were found in time."""

    def add(self, other: Found) -> None:
        """Put others to these."""
        self.drops += other.drops
        self.in_window += other.in_window
        self.in_time += other.in_time
        self.literal += other.literal
        self.delays += other.delays


@dataclass
class Outcome:
    """What was seen of a case.

    Args:
        years: how long it was looked at.
        fired: how often each alert fired while the share was as it should be.
        found: by how far the share dropped, and by the window, in minutes, that judged when it did.
        not_judged: drops that came while no window held enough decisions.
    """

    years: float = 0.0
    fired: Counter[str] = field(default_factory=Counter)
    found: dict[tuple[float, int], Found] = field(default_factory=dict)
    not_judged: int = 0

    def add(self, other: Outcome) -> None:
        """Put another one to it."""
        self.years += other.years
        self.fired.update(other.fired)
        self.not_judged += other.not_judged
        for key, found in other.found.items():
            self.found.setdefault(key, Found()).add(found)


def outcome(
    recorded: Recorded, case: Case, alerts: Mapping[str, Alert], *, days: int, seed: int
) -> Outcome:
    """Simulate a case.

    Args:
        recorded: the decisions of its surface.
        case: what it is.
        alerts: those of `ladder.alerts`.
        days: how long the alerts are looked at.
        seed: the same one gives the same outcome.
    """
    random = np.random.default_rng(
        [
            seed,
            case.hourly,
            int(100 * case.rhythm),
            *f"{case.surface} {case.clustering.name}".encode(),
        ]
    )
    pool = thinned(recorded, (HEALTHY, *DROPS), case.clustering, random)
    by_minute = rates(case.hourly, days=LEAD_DAYS + days, rhythm=case.rhythm)
    traffic = simulated(pool, by_minute, random)
    healthy = Evaluations.of(traffic, 0)
    seen = Outcome(
        days / 365, Counter({name: len(alert.fires(healthy)) for name, alert in alerts.items()})
    )
    page, ticket = alerts["PersonalizationDrop"], alerts["PersonalizationDropLowTraffic"]
    windows = [*page.windows, *ticket.windows]
    _, judged_by = judged(healthy, windows, page.least)
    # Evaluation 0 is the first minute after the lead.
    drops = np.arange(LONGEST_WINDOW + 1, traffic.minutes - max(windows), DROP_EVERY_HOURS * 60)
    judged_by = judged_by[drops - LONGEST_WINDOW - 1]
    seen.not_judged = int((judged_by == 0).sum())
    for window in windows:
        judged_here = drops[judged_by == window]
        if window > MINUTES_A_DAY:
            judged_here = judged_here[::FEW]
        for first in range(0, len(judged_here), DROPS_AT_ONCE):
            part = judged_here[first : first + DROPS_AT_ONCE]
            for share, level in enumerate(DROPS, 1):
                found = _found(traffic, part, window, share, alerts)
                seen.found.setdefault((level, window), Found()).add(found)
    return seen


def _found(
    traffic: Traffic, drops: Integers, window: int, share: int, alerts: Mapping[str, Alert]
) -> Found:
    minutes = max(window, MINUTES_A_DAY)
    after = Evaluations.after_drops(traffic, drops, minutes, 0, share)
    # Evaluation 0 is a minute after the drop.
    delays = 1 + np.minimum(
        alerts["PersonalizationDrop"].first(after),
        alerts["PersonalizationDropLowTraffic"].first(after),
    )
    in_time = delays <= minutes
    return Found(
        len(drops),
        int((delays <= window).sum()),
        int(in_time.sum()),
        int((alerts[LITERAL].first(after) < minutes).sum()),
        delays[in_time].tolist(),
    )
