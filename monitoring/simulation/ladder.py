"""When the alerts on the personalised share fire, computed for a year at once.

The same as the rules of Prometheus say, minute by minute: of windows of growing length the shortest
that holds enough effective decisions is judged, and an alert fires once its condition has held for
long enough. Numbers come from ``values.yaml``, from which the rules are made::

    drop = alerts(load())["PersonalizationDrop"]
    drop.fires(Evaluations.of(traffic, share=0))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.prometheus.values import Values, seconds
from monitoring.simulation.traffic import MINUTES_A_DAY, Integers, Traffic

Booleans = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

LITERAL: Final = "literal"
LONGEST_WINDOW: Final = 7 * MINUTES_A_DAY


@dataclass(frozen=True)
class Evaluations:
    """Minutes, along the last axis, at which windows end that are looked at.

    Args:
        served: running sums, the first of which is of what was before.
        squared: the same of their squares.
        personalized: the same.
        lead: minutes at the beginning that only windows reach back to. The longest has to fit.
    """

    served: Integers
    squared: Integers
    personalized: Integers
    lead: int

    @classmethod
    def of(cls, traffic: Traffic, share: int, lead: int = LONGEST_WINDOW) -> Evaluations:
        """Those of all the traffic, at one of its shares."""
        return cls(traffic.served, traffic.squared, traffic.personalized[share], lead)

    @classmethod
    def after_drops(
        cls, traffic: Traffic, drops: Integers, minutes: int, before: int, after: int
    ) -> Evaluations:
        """A row of so many minutes for each drop from one share of the traffic to another one."""
        lead = LONGEST_WINDOW
        around = (drops - lead)[:, None] + np.arange(lead + minutes + 1)
        healthy, dropped = traffic.personalized[before], traffic.personalized[after]
        personalized = healthy[around]
        personalized[:, lead:] += (dropped - healthy)[around[:, lead:]]
        personalized[:, lead:] -= (dropped - healthy)[drops][:, None]
        return cls(traffic.served[around], traffic.squared[around], personalized, lead)

    def window(self, minutes: int) -> tuple[Integers, Integers, Integers]:
        """Served items, their squares and personalised items of each window of a length."""
        first, end = self.lead + 1, self.served.shape[-1]
        served, squared, personalized = (
            sums[..., first:] - sums[..., first - minutes : end - minutes]
            for sums in (self.served, self.squared, self.personalized)
        )
        return served, squared, personalized


@dataclass(frozen=True)
class Alert:
    """An alert on the personalised share of a surface.

    Args:
        threshold: below it the share is too low.
        windows: in minutes, growing.
        least: effective decisions that a window has to hold.
        hold: minutes for which the condition holds before it fires.
        keep: minutes for which it goes on firing afterwards.
        unless: windows of another alert, which judges where it can.
    """

    threshold: float
    windows: Sequence[int]
    least: float
    hold: int
    keep: int = 0
    unless: Sequence[int] = ()

    def condition(self, at: Evaluations) -> Booleans:
        """Whether the share is too low, at each evaluation."""
        share, _ = judged(at, self.windows, self.least)
        low: Booleans = share < self.threshold
        if self.unless:
            _, window = judged(at, self.unless, self.least)
            low &= window == 0
        return low

    def fires(self, at: Evaluations) -> list[int]:
        """The evaluations at which it begins to fire."""
        return beginnings(self.condition(at), self.hold, self.keep)

    def first(self, at: Evaluations) -> Integers:
        """By row, the first evaluation at which it fires; past the last one where it does not."""
        low = self.condition(at)
        evaluations = np.arange(low.shape[-1])
        last_well = np.maximum.accumulate(np.where(low, -1, evaluations), axis=-1)
        held = evaluations - last_well > self.hold
        return np.where(held.any(axis=-1), held.argmax(axis=-1), len(evaluations))


def alerts(values: Values) -> dict[str, Alert]:
    """The alerts, with the numbers of ``values.yaml``; and what a reader would write at first."""
    section, baseline = values["personalization"], values["baseline"]
    fast = [seconds(window) // 60 for window in section["windows"]]
    slow = [seconds(window) // 60 for window in section["low_traffic_windows"]]
    hold, keep = (seconds(section[key]) // 60 for key in ("for", "keep_firing_for"))
    threshold, least = section["threshold"], section["min_effective_decisions"]
    return {
        "PersonalizationDrop": Alert(threshold, fast, least, hold, keep),
        "PersonalizationDropLowTraffic": Alert(threshold, slow, least, hold, unless=fast),
        "PersonalizationBelowBaseline": Alert(
            (1 - baseline["max_drop"]) * baseline["share"],
            [seconds(window) // 60 for window in baseline["windows"]],
            baseline["min_effective_decisions"],
            seconds(baseline["for"]) // 60,
        ),
        LITERAL: Alert(threshold, [5], 0, 30, keep),
    }


def judged(at: Evaluations, windows: Sequence[int], least: float) -> tuple[Floats, Integers]:
    """The share over the shortest window that holds enough, and that window.

    Returns:
        NaN and 0 where none does.
    """
    share = window = None
    for minutes in windows:
        served, squared, personalized = at.window(minutes)
        if share is None or window is None:
            share, window = np.full(served.shape, np.nan), np.zeros(served.shape, np.int64)
        enough = (window == 0) & (squared > 0) & (served.astype(float) ** 2 >= least * squared)
        np.divide(personalized, served, out=share, where=enough)
        window[enough] = minutes
    assert share is not None
    assert window is not None
    return share, window


def beginnings(condition: Booleans, hold: int, keep: int) -> list[int]:
    """When an alert begins to fire.

    Args:
        condition: whether it holds, at each evaluation.
        hold: it fires when it held so many evaluations ago, and ever since.
        keep: it still fires so many evaluations after the first at which it does not hold.
    """
    edges = np.flatnonzero(np.diff(condition.astype(np.int8), prepend=0, append=0))
    began: list[int] = []
    fired_until = None
    for first, after in edges.reshape(-1, 2).tolist():
        if fired_until is None or first > fired_until:
            if after - 1 - first < hold:
                continue
            began.append(first + hold)
        fired_until = after + keep
    return began
