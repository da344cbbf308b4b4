"""Jaccard overlap of users' lists: are recommendations becoming the same for everybody?

Every pair of users counts, and the interval is that of users, not of pairs, which share them::

    >>> lists = pa.array([["a", "b"], ["b", "c"], ["d"]])
    >>> overlap = overlap_of(lists, k=2)
    >>> overlap.mean, overlap.pairs
    (0.1111111111111111, 3)

How 12.5 million pairs take a fraction of a tenth of a second: the intersections of all pairs are
the product of the matrix of users by items with its transpose. Its numbers are small, so four
users share one 16-bit number, four bits each, and one look-up in a table of all such numbers says
of four pairs how many share one item, two, and so on: small counters within one 64-bit number,
which add up. An overlap takes few values, which are counted and never sorted.

The rows of a surface have most users in common: all of them, and those of one device, say. So what
differs by few lists from what was compared before is compared by those alone (`Overlaps`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse
from scipy.special import expit, logit, stdtrit

from otel_personalization.conventions import MIN_OVERLAP_USERS
from otel_personalization.daily.tables import CONFIDENCE, PERCENTILES

_Integers = npt.NDArray[np.int64]
_Numbers = npt.NDArray[np.float64]

_NIBBLES: Final = 4
"""Four-bit numbers in a code of 16 bits."""
_WORTH_PACKING: Final = 1000
"""Users from which on the time that packing saves exceeds that of making its tables."""
_COUNTED: Final = 4
"""Counters in a 64-bit number, of as many numbers of shared items that follow one another."""
_COUNTER_BITS: Final = 13
_MORE: Final = 1 << (_COUNTED * _COUNTER_BITS)
"""What a code adds that has a user with whom more items are shared; its counter is the rest."""
_TILE_CODES: Final = 2047
"""At most, of the columns that are held at a time: with `_NIBBLES` users each, no counter runs
over."""
_TILE_BYTES: Final = 1 << 24
"""At most, of those: items x users, packed."""
_BLOCK_CODES: Final = 1 << 18
"""At most, of the codes that are looked up at a time: they stay in the processor's cache."""
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
        self._incidence = _incidence(lists, k)
        self._sizes = np.diff(self._incidence.indptr).astype(np.int64)
        self._is_packed = len(lists) >= _WORTH_PACKING and k < 1 << 4
        self._compared: list[_Compared] = []
        """Those of which all pairs were compared, and none was taken from another."""

    def of(self, chosen: _Integers) -> Overlap | None:
        """The overlap of some of the lists over all pairs, exactly.

        Args:
            chosen: which, in an order on which rounding may depend.

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
        lower, upper = _interval(mean, users, _standard_error(sums, squares))
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

    def _pairs_of(self, chosen: _Integers) -> _Compared:
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
        self, before: _Compared, chosen: _Integers, is_chosen: npt.NDArray[np.bool_]
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

    def _between(self, rows: _Integers, columns: _Integers) -> tuple[_Numbers, _Integers]:
        """Compare each of some lists with each of others, or with themselves.

        Returns:
            Of each row, the sum of its overlaps with the columns; and how many pairs there are, by
            the items of both lists together and by those that they share.
        """
        order = np.argsort(self._sizes[rows], kind="stable")
        columns = columns[np.argsort(self._sizes[columns], kind="stable")]
        packed = _Packed.of(self._sizes[columns], self._k, self._is_packed)
        incidence = self._incidence[rows[order]].astype(packed.dtype)
        sums = np.zeros(len(rows))
        tally = np.zeros((2 * self._k + 1, packed.radix), np.int64)
        for first, items in packed.tiles(self._incidence[columns]):
            ranges = list(packed.code_ranges(first, first + items.shape[1]))
            rows_at_once = max(1, _BLOCK_CODES // items.shape[1])
            for size, start, stop in _classes(self._sizes[rows[order]]):
                for row in range(start, stop, rows_at_once):
                    some = slice(row, min(row + rows_at_once, stop))
                    codes = (incidence[some] @ items).astype(np.intp)
                    for other, left, right in ranges:
                        both = size + other
                        shared = packed.shared(codes[:, left - first : right - first])
                        sums[order[some]] += shared @ _overlap_by_shared(both, packed.radix)
                        tally[both] += shared.sum(axis=0)
        return sums, tally


@cache
def _overlap_by_shared(both: int, radix: int) -> _Numbers:
    """The overlap of two lists of ``both`` items together that share 0, 1, and so on."""
    shared = np.arange(radix)
    # Two lists never share more than half of their items together.
    return np.where(2 * shared <= both, shared / np.maximum(both - shared, 1), 0.0)


@dataclass(frozen=True)
class _Compared:
    """All pairs of a choice of lists."""

    chosen: _Integers
    is_in: npt.NDArray[np.bool_]
    """Whether a list was chosen, of all that there are."""
    sums: _Numbers
    """Of each list, the sum of its overlaps with those that were chosen, itself included."""
    tally: _Integers
    """How many ordered pairs there are, those of a list with itself included: by the items of both
    lists together and by those that they share. Of none that they share it says nothing."""


def _interval(mean: float, users: int, error: float) -> tuple[float, float]:
    """A 95 % interval of a mean of 0 to 1.

    It is symmetric in log(mean / (1 - mean)), of which the standard error is error / (mean
    (1 - mean)), by Student's t: means of few users that hardly overlap are skewed.

    Args:
        mean: 0 and 1 have no error that could be seen, and get no width.
        users: how many.
        error: the standard error of the mean.
    """
    if not error or not 0 < mean < 1:
        return mean, mean
    margin = float(stdtrit(users - 1, (1 + CONFIDENCE) / 2)) * error / (mean * (1 - mean))
    return float(expit(logit(mean) - margin)), float(expit(logit(mean) + margin))


def _standard_error(sums: _Numbers, squares: float) -> float:
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


def _percentiles(values: _Numbers, counts: _Integers, wanted: Sequence[int]) -> dict[int, float]:
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


def _incidence(lists: pa.ListArray | pa.ChunkedArray, k: int) -> Any:
    """A sparse matrix of lists by items, ones."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    items = lists.flatten()
    if lists.null_count or items.null_count:
        raise ValueError("a list or an item is null")
    encoded = items.dictionary_encode()
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    matrix = sparse.csr_matrix(
        (
            np.ones(len(items), np.uint16),
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


def _tallied(tally: _Integers, sizes: _Integers) -> tuple[_Numbers, _Integers]:
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


def _classes(sizes: _Integers) -> list[tuple[int, int, int]]:
    """(items, first list, first list behind) of those with as many items.

    Args:
        sizes: items of each list, ascending.
    """
    found, firsts, counts = np.unique(sizes, return_index=True, return_counts=True)
    return [
        (int(size), int(first), int(first + count))
        for size, first, count in zip(found, firsts, counts, strict=True)
    ]


@dataclass(frozen=True)
class _Packed:
    """How users become columns of codes: one or several users share a code.

    Users of lists of as many items follow one another, and codes have users of one size only.
    """

    classes: list[tuple[int, int, int]]
    """See `_classes`."""
    starts: list[int]
    """Of each class, its first code; at last, the number of codes."""
    codes: _Integers
    """Of each user, the code."""
    units: npt.NDArray[Any]
    """Of each user, what one shared item adds to the code."""
    users_per_code: int
    radix: int
    """Numbers of shared items that a code can tell apart, of each user."""

    @property
    def dtype(self) -> Any:
        """Type of codes."""
        return self.units.dtype

    @classmethod
    def of(cls, sizes: _Integers, k: int, is_packed: bool) -> _Packed:
        """Pack users.

        Args:
            sizes: items of each user, ascending.
            k: items that a list has at most.
            is_packed: whether several users share a code, which takes k under 16.
        """
        dtype: Any
        if is_packed:
            per_code, dtype = _NIBBLES, np.uint16
        else:
            per_code, dtype = 1, np.uint8 if k < 1 << 8 else np.uint32
        classes = _classes(sizes)
        firsts, counts = (np.array([part[at] for part in classes], np.int64) for at in (1, 2))
        counts = counts - firsts
        codes_of_class = -(-counts // per_code)
        starts = np.concatenate(([0], np.cumsum(codes_of_class)))
        within = np.arange(len(sizes)) - np.repeat(firsts, counts)
        return cls(
            classes=classes,
            starts=starts.tolist(),
            codes=np.repeat(starts[:-1], counts) + within // per_code,
            units=(1 << (4 * (within % per_code))).astype(dtype),
            users_per_code=per_code,
            radix=16 if per_code > 1 else k + 1,
        )

    def tiles(self, incidence: Any) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Columns of the product, few enough at a time: the first code, and items by codes."""
        items = incidence.shape[1]
        width = max(1, min(_TILE_CODES, _TILE_BYTES // (items * self.dtype.itemsize)))
        of_user = np.diff(incidence.indptr)
        for first in range(0, self.starts[-1], width):
            behind = min(first + width, self.starts[-1])
            start, stop = np.searchsorted(self.codes, [first, behind])
            entries = slice(incidence.indptr[start], incidence.indptr[stop])
            repeats = of_user[start:stop]
            yield (
                first,
                sparse.coo_matrix(
                    (
                        np.repeat(self.units[start:stop], repeats),
                        (
                            incidence.indices[entries],
                            np.repeat(self.codes[start:stop] - first, repeats),
                        ),
                    ),
                    shape=(items, behind - first),
                ).toarray(),
            )

    def code_ranges(self, first: int, behind: int) -> Iterator[tuple[int, int, int]]:
        """The (items, first code, first code behind) of classes within a range of codes."""
        for (size, _, _), start, stop in zip(
            self.classes, self.starts[:-1], self.starts[1:], strict=True
        ):
            left, right = max(start, first), min(stop, behind)
            if left < right:
                yield size, left, right

    def shared(self, codes: npt.NDArray[np.intp]) -> _Integers:
        """How many users share 0, 1, and so on items with a list, of each row of codes.

        Of a code of several users 0 is not counted: nobody asks for it, and the last code may have
        fewer users.
        """
        rows, width = codes.shape
        if self.users_per_code == 1:
            row = np.arange(rows)[:, None] * self.radix
            counts = np.bincount((row + codes).ravel(), minlength=rows * self.radix)
            return counts.reshape(rows, self.radix)
        first, *others = _counters()
        found = first.take(codes)
        sums = [found.sum(axis=1)]
        # As a rule few share more, among them each list with itself.
        more = np.flatnonzero(found.ravel() >= _MORE)
        row, column = np.divmod(more, width)
        codes = codes[row, column]
        for table in others:
            sums.append(np.zeros(rows, np.int64))
            np.add.at(sums[-1], row, table.take(codes))
        shifts = np.arange(_COUNTED) * _COUNTER_BITS
        counts = (np.column_stack(sums)[:, :, None] >> shifts) & ((1 << _COUNTER_BITS) - 1)
        return np.insert(counts.reshape(rows, -1), 0, 0, axis=1)[:, : self.radix]


@cache
def _counters() -> list[_Integers]:
    """Tables of all 16-bit codes: how many of their users share how many items.

    The first has counters of those who share 1 to `_COUNTED` items, and so on; what is more is
    `_MORE`.
    """
    shared = np.arange(1 << 4)
    tables = []
    for start in range(1, 1 << 4, _COUNTED):
        place = shared - start
        is_counted = (place >= 0) & (place < _COUNTED)
        counter = np.where(is_counted, 1 << (_COUNTER_BITS * np.clip(place, 0, _COUNTED)), 0)
        is_more = place >= _COUNTED
        sums, any_more = counter, is_more
        for _ in range(_NIBBLES - 1):
            sums = np.add.outer(sums, counter).ravel()
            any_more = np.logical_or.outer(any_more, is_more).ravel()
        tables.append(sums + any_more * _MORE)
    return tables
