"""Jaccard overlap of users' lists: are recommendations becoming the same for everybody?

Every pair of users counts, and the interval is that of users, not of pairs, which share them::

    >>> lists = pa.array([["a", "b"], ["b", "c"], ["d"]])
    >>> overlap = overlap_of(lists, k=2)
    >>> overlap.mean, overlap.pairs
    (0.1111111111111111, 3)

What pairs share is counted in `shared_items`, 12.5 million pairs in two hundredths of a second. An
overlap takes few values, which are counted and never sorted.

The rows of a surface have most users in common: all of them, and those of one device, say. So what
differs by few lists from what was compared before is compared by those alone (`Overlaps`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from otel_personalization.conventions import MIN_OVERLAP_USERS
from otel_personalization.daily.arrays import Integers, Numbers, groups
from otel_personalization.daily.overlap_interval import SKEWNESS_USERS, interval_of
from otel_personalization.daily.shared_items import tiles
from otel_personalization.daily.tables import PERCENTILES

_FEW: Final = 1 / 5
"""Share of lists that may come and go until to compare all of them anew takes no longer."""


@dataclass(frozen=True)
class Overlap:
    """How much the lists of users are the same."""

    users: int
    pairs: int
    """Unordered ones, of different users."""
    mean: float | None
    """Mean of |A and B| / |A or B| over pairs, 0 to 1; None with fewer than two users."""
    lower: float | None
    """95 % interval of the mean; None under `MIN_OVERLAP_USERS` users."""
    upper: float | None
    percentiles: dict[int, float] | None
    """Of overlap over pairs, by `PERCENTILES`; None under `MIN_OVERLAP_USERS` users."""
    identical_share: float | None
    """Share of pairs whose lists hold the same items; None with fewer than two users."""
    short_share: float
    """Share of lists with fewer than k items."""


def overlap_of(lists: pa.ListArray | pa.ChunkedArray, k: int) -> Overlap | None:
    """The overlap of lists over all pairs, exactly; time grows with the square of their number.

    Args:
        lists: one list for each user, of 1 to k items of any type that Arrow can tell apart; an
            item that is repeated within a list counts once, and order says nothing.
        k: how many items a list has at most.

    Returns:
        None without any list.

    Raises:
        ValueError: if a list is null, empty or longer than k, or an item is null.
    """
    return Overlaps(lists, k).of(np.arange(len(lists)))


class Overlaps:
    """The overlap of several choices of the same lists.

    Args:
        lists: see `overlap_of`; a choice has one of each user.
        k: how many items a list has at most.

    Raises:
        ValueError: see `overlap_of`.
    """

    def __init__(self, lists: pa.ListArray | pa.ChunkedArray, k: int) -> None:
        self._k = k
        self._lists = _matrix_of(lists, k)
        self._items, self._sizes = _padded(self._lists)
        self._number_of_items = self._lists.shape[1]
        self._compared: list[_Compared] = []
        """Those of which all pairs were compared, and none was taken from another."""

    def of(self, chosen: Integers) -> Overlap | None:
        """The overlap of some of the lists over all pairs, exactly.

        Args:
            chosen: which; of many, the interval looks at the first more closely, which have to be
                lists like any.

        Returns:
            None where there is none.
        """
        users = len(chosen)
        if not users:
            return None
        sizes = self._sizes[chosen]
        short_share = float(np.mean(sizes < self._k))
        pairs = users * (users - 1) // 2
        if not pairs:
            return Overlap(users, 0, None, None, None, None, None, short_share)
        compared = self._pairs_of(chosen)
        sums = compared.sums[chosen] - 1.0  # of a list and itself
        values, counts = _tallied(compared.tally, sizes)
        mean = math.fsum(values * counts) / pairs
        identical_share = float(counts[values == 1.0].sum() / pairs)
        if users < MIN_OVERLAP_USERS:
            return Overlap(users, pairs, mean, None, None, None, identical_share, short_share)
        squares = math.fsum(counts * np.square(values - mean))
        some = self._each_with_each(chosen[:SKEWNESS_USERS])
        lower, upper = interval_of(mean, sums, squares, some)
        return Overlap(
            users,
            pairs,
            mean,
            lower,
            upper,
            _percentiles(values, counts, PERCENTILES),
            identical_share,
            short_share,
        )

    def _pairs_of(self, chosen: Integers) -> _Compared:
        """Compare all pairs, or those alone that another choice had not."""
        is_chosen = np.zeros(len(self._sizes), bool)
        is_chosen[chosen] = True
        few = _FEW * len(chosen)
        for before in self._compared:
            if np.count_nonzero(is_chosen ^ before.is_in) <= few:
                return self._changed(before, chosen, is_chosen)
        sums = np.zeros(len(self._sizes))
        sums[chosen], tally = self._between(chosen, chosen)
        compared = _Compared(chosen, is_chosen, sums, tally)
        self._compared.append(compared)
        return compared

    def _changed(
        self, before: _Compared, chosen: Integers, is_chosen: npt.NDArray[np.bool_]
    ) -> _Compared:
        """What was compared before, less what is gone, and with what is new."""
        kept, new = chosen[before.is_in[chosen]], chosen[~before.is_in[chosen]]
        gone = before.chosen[~is_chosen[before.chosen]]
        sums = before.sums.copy()
        lost, tally_lost = self._between(kept, gone)
        gained, tally_gained = self._between(kept, new)
        sums[kept] += gained - lost
        sums[new], tally_new = self._between(new, chosen)
        tally = before.tally - 2 * tally_lost - self._between(gone, gone)[1]
        return _Compared(chosen, is_chosen, sums, tally + tally_gained + tally_new)

    def _between(self, rows: Integers, columns: Integers) -> tuple[Numbers, Integers]:
        """Compare each of some lists with each of others, or with themselves.

        Returns:
            Of each row, the sum of its overlaps with the columns; and how many pairs there are, by
            the items of both lists together and by those that they share.
        """
        of_size = groups(self._sizes[rows])
        overlaps = _overlaps(self._k)
        sums = np.zeros(len(rows))
        tally = np.zeros(overlaps.shape, np.int64)
        for tile in tiles(self._items[columns], self._sizes[columns], self._number_of_items):
            for places in of_size:
                size = int(self._sizes[rows[places[0]]])
                for start in range(0, len(places), tile.at_once):
                    some = places[start : start + tile.at_once]
                    shared = tile.shared(self._items[rows[some], :size])
                    both = size + tile.sizes
                    sums[some] += np.einsum("bs,bsl", overlaps[both, : size + 1], shared)
                    tally[both, : size + 1] += shared.sum(axis=2)
        return sums, tally

    def _each_with_each(self, chosen: Integers) -> sparse.csr_matrix:
        """The overlap of each of some lists with each."""
        lists, sizes = self._lists[chosen], self._sizes[chosen]
        found = lists @ lists.T
        both = np.repeat(sizes, np.diff(found.indptr)) + sizes[found.indices]
        found.data = _overlaps(self._k)[both, found.data.astype(np.int64)]
        return found


@cache
def _overlaps(k: int) -> Numbers:
    """The overlap of two lists, by the items of both together and by those that they share."""
    both, shared = np.ogrid[: 2 * k + 1, : k + 1]
    # Two lists never share more than half of their items together.
    return np.where(2 * shared <= both, shared / np.maximum(both - shared, 1), 0.0)


@dataclass(frozen=True)
class _Compared:
    """All pairs of a choice of lists."""

    chosen: Integers
    is_in: npt.NDArray[np.bool_]
    """Whether a list was chosen, of all that there are."""
    sums: Numbers
    """Of each list, the sum of its overlaps with those that were chosen, itself included."""
    tally: Integers
    """How many ordered pairs there are, those of a list with itself included: by the items of both
    lists together and by those that they share. Of none that they share it says nothing."""


def _percentiles(values: Numbers, counts: Integers, wanted: Sequence[int]) -> dict[int, float]:
    """Percentiles of values that occur several times, as SQL's ``percentile_cont``.

    Args:
        values: distinct and ascending.
        counts: how often each occurs; one at least.
        wanted: 0 to 100.
    """
    ends = np.cumsum(counts)
    found = {}
    for percent in wanted:
        whole, rest = divmod(percent * (int(ends[-1]) - 1), 100)
        below, above = values[np.searchsorted(ends, [whole, whole + bool(rest)], side="right")]
        found[percent] = float(below + (above - below) * (rest / 100))
    return found


def _matrix_of(lists: pa.ListArray | pa.ChunkedArray, k: int) -> sparse.csr_matrix:
    """Lists x items, 1 where a list has an item."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    items = lists.flatten()
    if lists.null_count or items.null_count:
        raise ValueError("a list or an item is null")
    encoded = items.dictionary_encode()
    lengths = pc.list_value_length(lists).to_numpy()
    matrix = sparse.csr_matrix(
        (
            np.ones(len(items)),
            encoded.indices.to_numpy(),
            np.concatenate(([0], np.cumsum(lengths))),
        ),
        shape=(len(lists), max(1, len(encoded.dictionary))),
        copy=True,
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    sizes = np.diff(matrix.indptr)
    if len(sizes) and (sizes.min() < 1 or sizes.max() > k):
        raise ValueError(f"a list has {sizes.min()} items, or {sizes.max()}; not 1 to {k}")
    return matrix


def _padded(lists: sparse.csr_matrix) -> tuple[Integers, Integers]:
    """The items of lists, lists by places, with 0 after the last; and how many each list has."""
    sizes = np.diff(lists.indptr).astype(np.int64)
    places = np.arange(sizes.max(initial=0))
    found = np.zeros((len(sizes), len(places)), np.int64)
    found[places < sizes[:, None]] = lists.indices
    return found, sizes


def _tallied(tally: Integers, sizes: Integers) -> tuple[Numbers, Integers]:
    """What overlaps there are, distinct and ascending, and how many unordered pairs have each.

    Args:
        tally: of `_Compared`.
        sizes: items of each list.
    """
    users = len(sizes)
    values, counts = [0.0], [users * (users - 1)]
    alone = np.bincount(2 * sizes)
    both_of, shared_of = np.nonzero(tally[:, 1:])
    for both, shared in zip(both_of.tolist(), (shared_of + 1).tolist(), strict=True):
        count = int(tally[both, shared])
        if both == 2 * shared:
            count -= int(alone[both])
        values.append(shared / (both - shared))
        counts.append(count)
        counts[0] -= count
    distinct, place = np.unique(values, return_inverse=True)
    pairs = np.zeros(len(distinct), np.int64)
    np.add.at(pairs, place, np.array(counts) // 2)
    return distinct[pairs > 0], pairs[pairs > 0]
