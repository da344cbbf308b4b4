"""The interval of a mean overlap: how far it would be with other users of the same kind.

A mean over pairs is a U-statistic: pairs share users, so that its interval is one of users::

    lower, upper = interval_of(mean, sums, squares, overlaps)

Two things make Student's t too narrow where few users differ from the others (those that get a
fallback, say), and each has its remedy here. A mean near 0 is skewed: the interval is symmetric on
the scale of log odds. And mean and error depend on each other: a sample with few such users has a
low mean and a small error, so that its interval ends too low; what is skewed is made symmetric
before limits are taken. A sample with none of such users cannot tell that there are any.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit, logit, stdtrit

from otel_personalization.daily.arrays import Numbers
from otel_personalization.daily.tables import CONFIDENCE

SKEWNESS_USERS: Final = 200
"""Users whose pairs tell how skewed a mean is: of more, the first, which are users like any. That
skewness falls with the root of the number of users, and all pairs would grow with its square."""
_NO_ERROR: Final = 1e-12
"""Of the mean: what is less is left by rounding."""


def interval_of(
    mean: float, sums: Numbers, squares: float, overlaps: sparse.csr_matrix
) -> tuple[float, float]:
    """A 95 % interval of a mean overlap, 0 to 1, which holds the mean.

    With the mean m, its standard error s and T = (logit(m) - logit(true mean)) m (1 - m) / s, the
    expansion of Edgeworth says that T + a T^2 + b is normal but for terms of 1 / users, with

    - h_u = S_u / (n - 1) - m, how far user u differs, and v^2 their mean square,
    - c = mean of h^3 / v^3, d = mean over ordered pairs of h_u h_v (J_uv - m - h_u - h_v) / v^3,
    - b = (c + 3 d) / (6 n^1/2) and a = (2 c + 3 d) / (6 n^1/2) - s (1 - 2 m) / (2 m (1 - m)), whose
      last term is what the scale of log odds adds.

    T + a T^2 + a^2 T^3 / 3 + b is as good, and grows everywhere, so that it can be turned round.
    Its limits are those of Student's t. Where users hardly differ and all error is that of pairs,
    v^2 is n s^2 / 4 instead, which is more; so b is under 0.9, and m within the limits.

    Source: Helmers, On the Edgeworth expansion and the bootstrap approximation for a Studentized
    U-statistic, Annals of Statistics 19 (1991); Hall, On the removal of skewness by transformation,
    Journal of the Royal Statistical Society B 54 (1992).

    Args:
        mean: of all pairs; 0 and 1 have no error that could be seen, and get no width.
        sums: S_u of each of four users or more, the sum of the overlaps with all others.
        squares: sum of (J - m)^2 over unordered pairs.
        overlaps: J of the first `SKEWNESS_USERS` users, each with each, and 1 with themselves.
    """
    error = standard_error(sums, squares)
    if error <= _NO_ERROR * mean or not 0 < mean < 1:
        return mean, mean
    skewness = _Skewness.of(mean, error, sums, overlaps)
    limit = float(stdtrit(len(sums) - 1, (1 + CONFIDENCE) / 2))
    scale = error / (mean * (1 - mean))
    lower, upper = (logit(mean) - scale * skewness.turned_round(t) for t in (limit, -limit))
    return float(expit(lower)), float(expit(upper))


class _Skewness(NamedTuple):
    """Of T: see `interval_of`."""

    a: float
    b: float

    @classmethod
    def of(cls, mean: float, error: float, sums: Numbers, overlaps: sparse.csr_matrix) -> _Skewness:
        """How skewed T is."""
        n = len(sums)
        differs = sums / (n - 1) - mean
        squares = differs * differs  # to raise to the third power takes fifty times as long
        variance = max(float(squares.mean()), n * error**2 / 4)
        c = float((squares * differs).mean()) / variance**1.5
        # Over pairs of different users, without looking at each of them.
        users = overlaps.shape[0]
        some, of_some = differs[:users], squares[:users]
        first, second, third = (float(part.sum()) for part in (some, of_some, some * of_some))
        products = float(some @ (overlaps @ some)) - second
        products -= mean * (first**2 - second) + 2 * (first * second - third)
        d = products / (users * (users - 1)) / variance**1.5
        of_scale = error * (1 - 2 * mean) / (2 * mean * (1 - mean))
        root = 6 * math.sqrt(n)
        return cls((2 * c + 3 * d) / root - of_scale, (c + 3 * d) / root)

    def turned_round(self, normal: float) -> float:
        """The T of which T + a T^2 + a^2 T^3 / 3 + b is some number."""
        # ((1 + 3 a x)^1/3 - 1) / a, as it can be computed where a is 0 or nearly so.
        x = normal - self.b
        root = float(np.cbrt(1 + 3 * self.a * x))
        return 3 * x / (root * root + root + 1)


def standard_error(sums: Numbers, squares: float) -> float:
    """Of the mean over pairs, for users drawn at random: a jackknife over users without its bias.

    With S_u the sum of the overlaps of user u and the n - 1 others, T = sum S_u / 2, the mean
    without u is (T - S_u) / C(n - 1, 2), and the jackknife's variance (n - 1) / n x the sum of its
    squared deviations becomes 4 A / (n (n - 1) (n - 2)^2) with A = sum (S_u - mean S)^2. It is too
    large on average (Efron and Stein), up to twice where few pairs share anything at all. A counts
    each pair's own square B = sum (J - mean J)^2 twice, and that is what the excess comes from:
    4 (A - B) / (n (n - 1) (n - 2) (n - 3)) is the mean's square less the mean of J x J' over pairs
    of pairs that have no user in common, so its expectation is the variance. It may come out too
    small by chance, even negative; and the variance is at least that of as many pairs that share no
    users, B / C(n, 2)^2 (Hoeffding: no term of it is negative).

    Source: Hoeffding, A class of statistics with asymptotically normal distribution, Annals of
    Mathematical Statistics 19 (1948); Arvesen, Jackknifing U-statistics, the same 40 (1969); Efron
    and Stein, The jackknife estimate of variance, Annals of Statistics 9 (1981).

    Args:
        sums: S_u of each of four users or more.
        squares: B.
    """
    n = len(sums)
    excess = float(np.square(sums - sums.mean()).sum()) - squares
    of_users = 4 * excess / (n * (n - 1) * (n - 2) * (n - 3))
    of_pairs = squares / math.comb(n, 2) ** 2
    return math.sqrt(max(of_users, of_pairs))
