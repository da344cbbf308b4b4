"""Orders and runs of numbers, where numpy's plainer ways take several times as long."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


def stable_order(codes: npt.NDArray[Any]) -> Integers:
    """The ascending order of numbers; those that are the same stay as they are."""
    if codes.min(initial=0) >= 0 and codes.max(initial=0) <= np.iinfo(np.uint16).max:
        codes = codes.astype(np.uint16)  # of 16 bits it is a radix sort: a fifth of the time
    order: Integers = np.argsort(codes, kind="stable")
    return order


def groups(codes: npt.NDArray[Any]) -> list[Integers]:
    """The places of each number that is there, ascending; of the numbers, too."""
    order = stable_order(codes)
    return np.split(order, firsts(codes[order])[1:]) if len(order) else []


def added_up(keys: Integers, counts: Integers) -> tuple[Integers, Integers]:
    """Keys, each once and ascending, and the sum of the counts of each."""
    order = np.argsort(keys)
    keys, counts = keys[order], counts[order]
    starts = firsts(keys)
    return keys[starts], np.add.reduceat(counts, starts) if len(keys) else counts


def firsts(ordered: npt.NDArray[Any]) -> Integers:
    """Where another value begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
