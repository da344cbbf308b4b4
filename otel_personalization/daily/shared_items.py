"""How many items each of some lists shares with each of others.

Of each item there is a bit for each list that has it, 64 to a word. What a list shares with 64
others is the sum of the bits of its items, and is added as a processor adds, digit by digit in
binary, but all 64 sums at once: one word holds the ones of them, another the twos, and so on. How
many of the 64 share one item, or two, is how many bits are set then::

    for tile in tiles(items, sizes, number_of_items):
        tile.shared(items[:1])  # the first list with those of the tile
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np
import numpy.typing as npt

from otel_personalization.daily.arrays import Integers, firsts, stable_order

_Bits = npt.NDArray[np.uint64]

_WORD: Final = 64
"""Bits."""
_TILE_BYTES: Final = 1 << 25
"""At most, of a tile of more than one word."""
_BLOCK_WORDS: Final = 1 << 16
"""Words that are added at once, about: a few times as many stay in the processor's cache. What is
counted of them takes 8 bytes for each number of shared items, with the longest lists 128 MiB."""


def tiles(items: Integers, sizes: Integers, number_of_items: int) -> Iterator[Tile]:
    """Lists as bits, few enough at a time.

    Args:
        items: lists x places: the items of a list, each once, and then anything.
        sizes: how many items each list has; one at least.
        number_of_items: what all items are less than, also those of other lists.
    """
    order = stable_order(sizes)
    items, sizes = items[order], sizes[order]
    starts = firsts(sizes)
    counts = np.diff(starts, append=len(sizes))
    words = -(-counts // _WORD)
    place = np.arange(len(sizes)) - np.repeat(starts, counts)
    word = np.repeat(np.cumsum(words) - words, counts) + place // _WORD
    bit = np.uint64(1) << (place % _WORD).astype(np.uint64)
    size_of_word = np.repeat(sizes[starts], words)
    at_once = max(1, _TILE_BYTES // (number_of_items * _WORD // 8))
    for first in range(0, len(size_of_word), at_once):
        of_words = size_of_word[first : first + at_once]
        some = slice(*np.searchsorted(word, [first, first + len(of_words)]))
        there = items[some][np.arange(items.shape[1]) < sizes[some, None]]
        bits = np.zeros((number_of_items, len(of_words)), np.uint64)
        np.add.at(  # no bit comes twice, and to add takes a quarter of the time of or
            bits.ravel(),
            there * len(of_words) + np.repeat(word[some] - first, sizes[some]),
            np.repeat(bit[some], sizes[some]),
        )
        first_words = firsts(of_words)
        yield Tile(bits, of_words[first_words], first_words)


@dataclass(frozen=True)
class Tile:
    """Some lists, as bits; a word has lists of as many items only."""

    bits: _Bits
    """Items x words."""
    sizes: Integers
    """Numbers of items that lists have, ascending."""
    firsts: Integers
    """Of each of those, the first word."""

    @property
    def at_once(self) -> int:
        """How many lists are best compared with it at a time."""
        words: int = self.bits.shape[1]
        return max(1, _BLOCK_WORDS // words)

    def shared(self, items: Integers) -> Integers:
        """With how many lists of the tile others share how many items.

        Args:
            items: others x their items, all of them as many.

        Returns:
            `sizes` x number of shared items x others. Of those that share none it says 0: nobody
            asks, and words have unused bits.
        """
        size = items.shape[1]
        digits = _added(self.bits.take(column, axis=0) for column in items.T)
        counts = np.zeros((1 << len(digits), len(items), len(self.sizes)), np.int64)
        ones, *others = digits
        counts[1] = self._counted(ones)
        if others:
            twos, *others = others
            counts[3] = self._counted(ones & twos)
            counts[2] = self._counted(twos) - counts[3]
            counts[1] -= counts[3]
        if others:
            # As a rule few share more.
            of_more = reduce(np.bitwise_or, others)
            more = np.flatnonzero(of_more != 0)  # of booleans it takes a third of the time
            row, word = np.divmod(more, ones.shape[1])
            place = row * len(self.sizes) + np.searchsorted(self.firsts, word, side="right") - 1
            apart = _apart([digit.ravel()[more] for digit in digits], of_more.ravel()[more])
            for number, bits in apart:
                found = np.bincount(place, np.bitwise_count(bits), counts[number].size)
                counts[number] = found.reshape(counts[number].shape)
                counts[number & 3] -= counts[number]  # by its ones and twos it was there
            counts[0] = 0
        return np.moveaxis(counts[: size + 1], -1, 0)

    def _counted(self, bits: _Bits) -> Integers:
        """How many bits are set: others x `sizes`."""
        counts: Integers = np.add.reduceat(
            np.bitwise_count(bits), self.firsts, axis=1, dtype=np.int64
        )
        return counts


def _added(bits: Iterable[_Bits]) -> list[_Bits]:
    """The sums of bits as binary numbers: the ones of all of them, the twos, and so on.

    Args:
        bits: each is overwritten.
    """
    digits: list[list[_Bits]] = []
    for carried in bits:
        for digit in digits:
            digit.append(carried)
            if len(digit) < 3:  # what a full adder adds
                break
            carried = _carried(digit)
        else:
            digits.append([carried])
    for power, digit in enumerate(digits):
        if len(digit) > 1:
            carried = _carried(digit)
            if power + 1 < len(digits):
                digits[power + 1].append(carried)
            else:
                digits.append([carried])
    return [digit for (digit,) in digits]


def _carried(digit: list[_Bits]) -> _Bits:
    """Add two or three bits: the sum stays, and what is carried to the next digit is returned."""
    carried, second, *third = digit
    total = carried ^ second
    carried &= second
    for bit in third:
        carried |= total & bit
        total ^= bit
    digit[:] = [total]
    return carried


def _apart(digits: Sequence[_Bits], bits: _Bits, number: int = 0) -> Iterator[tuple[int, _Bits]]:
    """Tell bits apart by the numbers whose digits are given; each number that is there, once.

    Args:
        digits: see `_added`.
        bits: that are told apart.
        number: of their higher digits.
    """
    if not bits.any():
        return
    if not digits:
        yield number, bits
        return
    *lower, highest = digits
    yield from _apart(lower, bits & highest, 2 * number + 1)
    yield from _apart(lower, bits & ~highest, 2 * number)
