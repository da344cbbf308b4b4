"""A year of traffic of a surface, made of recorded decisions.

A decision is resampled whole: it keeps how many items it served, so that the few of hundreds of
items stay what they are. Decisions lose personalised items until the share of all is what it is to
be. Which of them are lost decides how far they agree, and is told by a `Clustering`::

    recorded = read_recording(Path("traces.ndjson.gz"))["home"]
    pool = thinned(recorded, [0.60, 0.50], WHOLE_DECISIONS, random)
    traffic = simulated(pool, rates(600, days=365, rhythm=0.9), random)
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from otel_personalization.trace import Decision, instant_of, read_decision, read_identity

Integers = npt.NDArray[np.int64]

MINUTES_A_DAY: Final = 1440
BUSIEST_HOUR: Final = 20
POOL_SIZE: Final = 2**16
"""Decisions of a pool: so many that a recorded one is there with and without what it loses in about
the right numbers, and so few that it stays in the cache."""
DECISIONS_AT_ONCE: Final = 300_000
"""More would leave the cache."""


@dataclass(frozen=True)
class Recorded:
    """The recorded decisions of a surface, in the order of time."""

    served: Integers
    personalized: Integers

    @property
    def share(self) -> float:
        """Of the served items, those personalised; 0 where none was served."""
        return float(self.personalized.sum() / max(1, self.served.sum()))


@dataclass(frozen=True)
class Clustering:
    """How far decisions agree in what they lose.

    Args:
        name: in tables.
        what: for readers.
        run: decisions that come within one minute, as they were recorded one after the other.
        by_items: each item is lost on its own; else all of a decision's are, or none.
        shared: all decisions of a run share what befalls them.
    """

    name: str
    what: str
    run: int = 1
    by_items: bool = False
    shared: bool = False


ITEMS: Final = Clustering(
    "items",
    "decisions are independent, and each personalised item is lost on its own: the least clustered",
    by_items=True,
)
WHOLE_DECISIONS: Final = Clustering(
    "decisions",
    "decisions are independent, and a decision loses all of its personalised items or none: the "
    "most clustered that independent decisions can be",
)
BURSTS: Final = Clustering(
    "bursts",
    "the same, and decisions come in bursts: ten that were recorded one after the other, within "
    "one minute",
    run=10,
)
SHARED_BURSTS: Final = Clustering(
    "shared bursts",
    "the same, and all ten of a burst lose theirs together",
    run=10,
    shared=True,
)
CLUSTERINGS: Final = (ITEMS, WHOLE_DECISIONS, BURSTS, SHARED_BURSTS)


@dataclass(frozen=True)
class Pool:
    """Decisions to draw from, of which some have lost personalised items."""

    served: npt.NDArray[np.int32]
    squared: npt.NDArray[np.int32]
    personalized: Sequence[npt.NDArray[np.int32]]
    """One for each share. Whoever has lost items at one share has lost them at each lower one."""
    run: int


@dataclass(frozen=True)
class Traffic:
    """What a surface served up to a minute: running sums, the first of which are 0."""

    served: Integers
    squared: Integers
    personalized: Sequence[Integers]
    """One for each share of the pool."""

    @property
    def minutes(self) -> int:
        """How long it is."""
        return len(self.served) - 1


def read_recording(path: Path) -> dict[str, Recorded]:
    """The recorded decisions, by surface, of all namespaces, and by namespace/surface.

    Args:
        path: decision traces, NDJSON, gzipped.

    Raises:
        ValueError: a trace is malformed, or has no time.
    """
    decisions: dict[str, list[tuple[Any, int, int]]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            trace = json.loads(line)
            decision, instant = read_decision(trace), instant_of(read_identity(trace).timestamp)
            if not isinstance(decision, Decision) or instant is None:
                raise ValueError(f"{path}:{number}: no decision trace with a time")
            for name in (decision.surface, f"{decision.namespace}/{decision.surface}"):
                decisions.setdefault(name, []).append(
                    (instant, decision.served_items, decision.personalized_items)
                )
    return {
        name: Recorded(*np.array([counts for _, *counts in sorted(rows)], np.int64).T)
        for name, rows in sorted(decisions.items())
    }


def thinned(
    recorded: Recorded, shares: Sequence[float], clustering: Clustering, random: np.random.Generator
) -> Pool:
    """Decisions whose personalised items are a given share of the served ones.

    Args:
        recorded: the decisions.
        shares: falling.
        clustering: which items are lost.
        random: where chance comes from.

    Raises:
        ValueError: the recorded share is lower, and items can only be lost.
    """
    if shares[0] > recorded.share:
        raise ValueError(
            f"the recorded share is {recorded.share:.3f}: there is no {shares[0]} in it"
        )
    # The recorded order again and again: a run of it is a run as it was recorded.
    copies = np.arange(POOL_SIZE) % len(recorded.served)
    served, left = recorded.served[copies], recorded.personalized[copies]
    personalized = []
    if clustering.by_items:
        for share in shares:
            left = random.binomial(left, share * served.sum() / left.sum())
            personalized.append(left.astype(np.int32))
    else:
        fates = random.random(-(-POOL_SIZE // clustering.run) if clustering.shared else POOL_SIZE)
        if clustering.shared:
            fates = np.repeat(fates, clustering.run)[:POOL_SIZE]
        order = np.argsort(fates, kind="stable")
        kept_so_far = np.cumsum(left[order])
        for share in shares:
            lost = order[np.searchsorted(kept_so_far, share * served.sum()) :]
            left = left.copy()
            left[lost] = 0
            personalized.append(left.astype(np.int32))
    return Pool(served.astype(np.int32), (served**2).astype(np.int32), personalized, clustering.run)


def rates(hourly: float, *, days: int, rhythm: float = 0.0) -> npt.NDArray[np.float64]:
    """Decisions a minute, by minute.

    Args:
        hourly: decisions an hour, on average.
        days: how long.
        rhythm: 0.9: at the busiest hour 1.9 times the average, at the quietest 0.1 times.
    """
    phase = (np.arange(days * MINUTES_A_DAY) / 60 - BUSIEST_HOUR) / 24 * 2 * np.pi
    return hourly / 60 * (1 + rhythm * np.cos(phase))


def simulated(
    pool: Pool, by_minute: npt.NDArray[np.float64], random: np.random.Generator
) -> Traffic:
    """Draw decisions.

    Args:
        pool: where from.
        by_minute: how many a minute, on average; how many there are is up to chance (Poisson).
        random: where it comes from.
    """
    columns = (pool.served, pool.squared, *pool.personalized)
    sums = np.zeros((len(columns), len(by_minute) + 1), np.int64)
    counts = pool.run * random.poisson(by_minute / pool.run)
    step = max(1, int(DECISIONS_AT_ONCE / by_minute.max()))
    for start in range(0, len(counts), step):
        part = counts[start : start + step]
        busy = np.flatnonzero(part)
        if not len(busy):
            continue
        drawn = _drawn(part.sum(), pool.run, random)
        firsts = np.cumsum(part[busy]) - part[busy]
        for column, of_minute in zip(columns, sums, strict=True):
            of_minute[1 + start + busy] = np.add.reduceat(column[drawn], firsts, dtype=np.int64)
    served, squared, *personalized = np.cumsum(sums, axis=1)
    return Traffic(served, squared, personalized)


def _drawn(count: int, run: int, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Positions in a pool: of runs that begin where those of `thinned` do."""
    starts = random.integers(0, POOL_SIZE // run, count // run, np.uint32).astype(np.intp) * run
    return starts if run == 1 else (starts[:, None] + np.arange(run)).ravel()
