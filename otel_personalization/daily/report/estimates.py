"""What a figure of a day may really be, and whether it changed since another day.

An estimate is a value with its 95 % interval; null stays None, and is never taken to be 0::

    >>> today, before = share(540, 1000, effective=200), share(700, 1000, effective=200)
    >>> change(today, before).is_clear
    True
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Row = Mapping[str, Any]
"""A row of a table of the warehouse, by name of column."""

Z_95: Final = 1.959963984540054
"""97.5th percentile of the normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    lower: float
    upper: float

    @property
    def is_clear(self) -> bool:
        """Of a difference: whether its interval leaves 0 out."""
        return self.lower > 0 or self.upper < 0


def number(row: Row | None, name: str) -> float | None:
    """A column of a row as a finite float; None without a row, a value, or a finite one."""
    value = None if row is None else row.get(name)
    if value is None or not math.isfinite(value):
        return None
    return float(value)


def share(items: float | None, of: float | None, effective: float | None) -> Estimate | None:
    """A share of served items, by the Wilson score interval (Wilson, 1927, JASA 22:209-212).

    Items of a decision are personalised together or not at all, or nearly so; so the sample is the
    effective number of decisions, (sum n)^2 / sum n^2 (Kish, 1965, Survey Sampling), and not that
    of items. It is never taken to be more than the items.

    Args:
        items: those that count.
        of: all of them.
        effective: effective decisions that they were served by.

    Returns:
        The share, 0 to 1; None where nothing was served.
    """
    if items is None or not of or of < 0 or not effective or effective <= 0:
        return None
    p = min(max(items / of, 0.0), 1.0)
    n = max(min(effective, of), 1.0)  # of whole items it is never less
    middle = (p + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n))
    return Estimate(p, min(max(middle - half, 0.0), p), max(min(middle + half, 1.0), p))


def requested_share(row: Row) -> Estimate | None:
    """The requested reason coverage of a row.

    How many effective decisions asked for reasons is not stored: it is taken to be as large a part
    of all effective decisions as their items are of all served items, which is exact where
    decisions that asked serve as many items, in mean and spread, as the others.
    """
    asked, served = number(row, "reason_requested_items"), number(row, "served_items")
    effective = number(row, "effective_decisions")
    if not asked or not served or effective is None:
        return None
    return share(number(row, "reason_items"), asked, effective * asked / served)


def interval(row: Row | None, name: str) -> Estimate | None:
    """A column with the ``_lower`` and ``_upper`` beside it; None where any of them is null."""
    value = number(row, name)
    lower, upper = number(row, f"{name}_lower"), number(row, f"{name}_upper")
    if value is None or lower is None or upper is None:
        return None
    return Estimate(value, lower, upper)


def change(now: Estimate, before: Estimate) -> Estimate:
    """The difference ``now - before`` of two estimates, from their intervals alone.

    The square-and-add method (MOVER; Zou and Donner, 2008, Statistics in Medicine 27:1693-1702):
    with estimates a in (la, ua) and b in (lb, ub), the difference d = a - b lies between
    d - sqrt((a - la)^2 + (ub - b)^2) and d + sqrt((ua - a)^2 + (b - lb)^2). Of two shares with
    Wilson intervals it is method 10 of Newcombe (1998, Statistics in Medicine 17:873-890), which
    holds near 0 and 1, too. The days are taken to be independent; the same users come back, so
    the interval is wider than need be, if anything.
    """
    difference = now.value - before.value
    below = math.hypot(now.value - now.lower, before.upper - before.value)
    above = math.hypot(now.upper - now.value, before.value - before.lower)
    return Estimate(difference, difference - below, difference + above)
