"""Entropy of what was served, in nats: corrected for what was not seen, and with its interval.

Plug-in entropy is too low, the more so the fewer items were served, so that it says nothing when
cells or days of different size are compared. The corrected one can be compared. Items of a user
come together and are alike; so the interval rests on users, in groups, and not on items::

    >>> entropy = entropy_of(group=[0, 1, 1, 2], value=[7, 7, 8, 8], count=[2, 1, 1, 2])
    >>> round(entropy.observed, 4), round(entropy.corrected, 4)
    (0.6931, 0.7833)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, stdtr, stdtrit, xlogy

from otel_personalization.daily.arrays import Integers, Numbers, added_up, firsts
from otel_personalization.daily.tables import CONFIDENCE

MAX_RARE_SHARE: Final = 0.03
"""An entropy is not reliable if two shares of items both exceed this: of items whose value was
served to exactly one group of users, and of items whose value was served to exactly two.

Both are large where many values are missing, and a limit on one alone would not do. What is missing
is estimated from values of one group: so where rare values are many, a sample with few of them has
a low estimate, and a limit on the first share would pass just those samples whose estimate is too
low. The second share hardly depends on the estimate; but where values are equally likely it stays
large long after all of them were seen. There it is the first that does not depend on it."""
MAX_LONE_SHARE: Final = 0.1
"""Share of items, of values that one group of users alone was served, above which an entropy is
not called reliable whatever two groups were served."""
MIN_SAMPLE_COVERAGE: Final = 0.95
"""Sample coverage under which an entropy is not called reliable."""
MIN_GROUPS: Final = 30
"""Groups of users under which an entropy is not called reliable."""

_SLOWEST: Final = 1 / 3
"""Rate at which what is missing falls, at the slowest: that of values with shares of 1 / rank^1.5.
Of flatter ones hardly any sample is reliable as long as many are missing."""
_CELLS_OF_ENTRY: Final = 32
"""Cells of a table for each entry, up to which to add them up in place is quicker than to sort."""

_STEP: Final = 0.1
_STEPS: Final = np.arange(-4.3, 4.15, _STEP)
_NODES: Final = np.exp(_STEPS - np.exp(-_STEPS))
_WEIGHTS: Final = _STEP * _NODES * (1 + np.exp(-_STEPS)) * np.exp(-_NODES)
"""Of the integral of f(x) exp(-x) over positive x: the trapezoid rule after x = exp(s - exp(-s)),
which is exact to rounding although f may rise steeply towards 0. Source: Takahasi and Mori, Double
exponential formulas for numerical integration, Publ. RIMS 9 (1974)."""


@dataclass(frozen=True)
class Entropy:
    """How varied the values of served items are."""

    corrected: float
    """Estimate for all that could be served, in nats (Chao, Wang and Jost)."""
    observed: float
    """Of just what was served (plug-in), in nats."""
    lower: float | None
    """95 % interval of the corrected one; None where it is not reliable."""
    upper: float | None
    effective_number: float
    """exp(corrected): as many equally served values."""
    sample_coverage: float
    """Estimated share of what could be served whose value was seen: 1 - f1 / n, with f1 of n items
    the only one of their value. Source: Good, The population frequencies of species, Biometrika 40
    (1953)."""
    reliable: bool
    """Whether there are `MIN_GROUPS` groups of users, the sample coverage is at least
    `MIN_SAMPLE_COVERAGE`, and of items at most `MAX_LONE_SHARE` are of values that one group alone
    was served, and at most `MAX_RARE_SHARE` either of those, or of values that just two groups
    were served."""


def entropy_of(group: npt.ArrayLike, value: npt.ArrayLike, count: npt.ArrayLike) -> Entropy | None:
    """The entropy of the values of served items.

    Args:
        group: of each entry, the group of users, 0 or more: few, each with users at random.
        value: of each entry, the value, 0 or more.
        count: of each entry, how many items were served; entries of one group and value add up.

    Returns:
        None where nothing was served.

    Raises:
        ValueError: if the arrays are not of one length, or hold something negative.
    """
    groups, values, counts = (np.asarray(part, np.int64) for part in (group, value, count))
    if not groups.shape == values.shape == counts.shape or groups.ndim != 1:
        raise ValueError("group, value and count are not of one length")
    served = counts != 0
    groups, values, counts = groups[served], values[served], counts[served]
    if not len(counts):
        return None
    if min(groups.min(), values.min(), counts.min()) < 0:
        raise ValueError("a group, value or count is negative")
    table = _Table.of(groups, values, counts)
    totals = np.bincount(table.values, table.counts).astype(np.int64)
    seen = totals[totals > 0]
    n = int(seen.sum())
    once, twice = int((seen == 1).sum()), int((seen == 2).sum())
    observed = math.log(n) - float(xlogy(seen, seen).sum()) / n
    corrected = max(0.0, float(_estimate(n, once, twice, _weighted_digamma(seen).sum())))
    sample_coverage = 1 - once / n
    owners = np.bincount(table.values)
    lone_share, paired_share = (float(totals[owners == groups].sum()) / n for groups in (1, 2))
    reliable = (
        len(table.starts) >= MIN_GROUPS
        and sample_coverage >= MIN_SAMPLE_COVERAGE
        and lone_share <= MAX_LONE_SHARE
        and min(lone_share, paired_share) <= MAX_RARE_SHARE
    )
    lower, upper = _interval(table, totals, owners, corrected) if reliable else (None, None)
    return Entropy(
        corrected,
        max(0.0, observed),
        lower,
        upper,
        math.exp(corrected),
        sample_coverage,
        reliable,
    )


class _Table(NamedTuple):
    """How often each group was served each value; what it was not is left out."""

    values: Integers
    """Ascending within each group; groups follow one another."""
    counts: Integers
    starts: Integers
    """Of each group, its first entry."""

    @classmethod
    def of(cls, groups: Integers, values: Integers, counts: Integers) -> _Table:
        """Put entries of one group and value together, in an order that no rounding depends on."""
        width = int(values.max()) + 1
        keys = groups * width + values
        cells = (int(groups.max()) + 1) * width
        if cells <= _CELLS_OF_ENTRY * len(keys):
            whole = np.bincount(keys, counts, cells)
            found = np.flatnonzero(whole)
            counts = whole[found].astype(np.int64)
        else:
            found, counts = added_up(keys, counts)
        groups, values = np.divmod(found, width)
        return cls(values, counts, firsts(groups))


def _estimate(
    n: npt.ArrayLike, once: npt.ArrayLike, twice: npt.ArrayLike, weighted: npt.ArrayLike
) -> Numbers:
    """Entropy, estimated from samples, in nats.

    With X_i of n items of value i, the estimate is the sum of X_i / n (psi(n) - psi(X_i)), where
    the difference of digammas is 1 / X_i + ... + 1 / (n - 1), plus what `_unseen` says.

    Source: Chao, Wang and Jost, Entropy and the species accumulation curve: a novel entropy
    estimator via discovery rates of new species, Methods in Ecology and Evolution 4 (2013), eq. 7.

    Args:
        n: items of each sample; 1 or more.
        once: values that occur once.
        twice: values that occur twice.
        weighted: sum of X psi(X) over values.
    """
    n = np.asarray(n, np.float64)
    return np.asarray(digamma(n) - np.asarray(weighted) / n + _unseen(n, once, twice))


def _unseen(n: Numbers, once: npt.ArrayLike, twice: npt.ArrayLike) -> Numbers:
    """What values add to the entropy that were not seen (the same source), in nats.

    It is f1 / n (1 - A)^(1 - n) (-log A - sum of (1 - A)^r / r for r < n), the difference of
    nearly equal numbers, times a huge one. But -log A is that sum without an end; so the product
    is q / n + q^2 / (n + 1) + ... with q = 1 - A: the integral of q t^(n - 1) / (1 - q t) over t
    from 0 to 1, and, with t = exp(-x / n), of q / (n (1 - q exp(-x / n))) exp(-x) over positive x.
    """
    once, twice = np.asarray(once, np.float64), np.asarray(twice, np.float64)
    ones = np.maximum(once, 1)
    rate = np.where(
        twice > 0,
        2 * twice / ((n - 1) * ones + 2 * np.maximum(twice, 1)),
        2 / ((n - 1) * (ones - 1) + 2),
    )
    n, rate = n[..., None], rate[..., None]
    decay = -_NODES / n
    integrand = (1 - rate) / (n * (rate * np.exp(decay) - np.expm1(decay)))
    return np.asarray(once / n[..., 0] * (integrand @ _WEIGHTS))


def _weighted_digamma(counts: Integers) -> Numbers:
    """The product of each count x and psi(x); 0 for 0."""
    most = int(counts.max())
    if most < counts.size:
        few = np.arange(1, most + 1)
        return np.concatenate(([0.0], few * digamma(few)))[counts]
    some = np.maximum(counts, 1)
    return np.where(counts > 0, counts * digamma(some), 0.0)


def _interval(
    table: _Table, totals: Integers, owners: Integers, estimate: float
) -> tuple[float, float]:
    """A 95 % interval of the estimate, from leaving out one group of users at a time.

    With k groups, H_g the estimate without group g and M the mean of those, the squared standard
    error is (k - 1) / k x sum (H_g - M)^2. Users have tastes; so a sample of few users misses more
    than one of as many items of other users, and the estimate, for which items are drawn one by
    one, is too low. The jackknife says by how much, J = (k - 1) (H - M), if that falls as 1 / k.

    What rare values add falls more slowly, as what is missing does: the share of it is that of
    values of one group, and it falls as k^-r with r = 2 Q2 / Q1, where Q1 values are of one group
    and Q2 of two. If all of the bias fell so, it would be J / r. So the interval is centred half
    way between the two, and the square of half their difference joins that of the standard error,
    as does that of how exact J / r is: Q1 and Q2 are counts of what is rare, so that its relative
    variance is 1 / Q1 + 1 / Q2, but it is no more inexact than that difference. In all of this, Q1
    is one more, and Q2 half of one: where they are small they say little. Where r is not under 1,
    all of the bias falls as 1 / k; and r is never taken to be under `_SLOWEST`.

    The mean of skewed values hangs together with its error, for which the centre moves by
    (2 t^2 + 1) / 6 x the skewness of the mean x the error, with Student's t. The interval is
    stretched down to the estimate where that is outside. Then more than 97.5 % are above its lower
    end, and fewer than 97.5 % have to be under its upper one.

    Source: Quenouille, Notes on bias in estimation, Biometrika 43 (1956); Tukey, Bias and
    confidence in not quite large samples, Annals of Mathematical Statistics 29 (1958); Good and
    Toulmin, The number of new species, and the increase in population coverage, when a sample is
    increased, Biometrika 43 (1956), for r; Johnson, Modified t tests and confidence intervals for
    asymmetrical populations, Journal of the American Statistical Association 73 (1978).

    Args:
        table: of all groups.
        totals: items of each value.
        owners: groups of each value.
        estimate: H.
    """
    estimates = _without_each(table, totals)
    k = len(estimates)
    mean = float(estimates.mean())
    differs = mean - estimates
    squares = float(np.square(differs).sum())
    if not squares:
        return estimate, estimate
    too_low = (k - 1) * (estimate - mean)
    lone, paired = int((owners == 1).sum()) + 1, int((owners == 2).sum()) + 0.5
    rate = min(1.0, max(_SLOWEST, 2 * paired / lone))
    # Of what is missing an estimate is too low, never too high.
    fast = max(0.0, too_low)
    slow = fast / rate
    between = slow - fast
    inexact = min(slow * math.sqrt(1 / lone + 1 / paired), between)
    jackknife_error = math.sqrt((k - 1) / k * squares)
    error = math.hypot(jackknife_error, between / 2, inexact)
    limit = float(stdtrit(k - 1, (1 + CONFIDENCE) / 2))
    skewness = float((differs**3).sum()) / squares**1.5
    center = estimate + too_low + between / 2 + (2 * limit**2 + 1) / 6 * skewness * jackknife_error
    lower = min(center - limit * error, estimate)
    above = CONFIDENCE + float(stdtr(k - 1, (lower - center) / error))
    upper = center + float(stdtrit(k - 1, above)) * error
    return max(0.0, lower), max(upper, estimate)


def _without_each(table: _Table, totals: Integers) -> Numbers:
    """The estimates from all groups of users but one, leaving out each in turn."""
    before = totals[table.values]
    after = before - table.counts
    whole = _weighted_digamma(totals)
    seen = totals[totals > 0]

    def without(change: npt.NDArray[np.generic], whole: float) -> Numbers:
        """The sum over values, of each sample without a group."""
        return whole + np.add.reduceat(change, table.starts)

    return _estimate(
        without(-table.counts, float(seen.sum())),
        without((after == 1).astype(np.int64) - (before == 1), float((seen == 1).sum())),
        without((after == 2).astype(np.int64) - (before == 2), float((seen == 2).sum())),
        without(_weighted_digamma(after) - whole[table.values], float(whole.sum())),
    )
