"""How often the 95 % intervals of the nightly job hold the truth: ``interval_coverage.md``.

Run as ``python -m benchmarks.interval_coverage``. Users are drawn from populations whose overlap
and entropy are known, or measured from many more; each has tastes of their own, and lists of
different length. What is promised is 93 to 97 %. Seeds are fixed.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from otel_personalization.daily.entropy import entropy_of
from otel_personalization.daily.overlap import overlap_of

RESULTS = Path(__file__).parent / "interval_coverage.md"
FINDINGS = """\
## Where it does not hold

- Overlap of 30 users of whom one in twenty gets the fallback: one or two of those are among the 30,
  or none, which then says nothing of them. If users have even less in common otherwise, so that the
  fallback is most of what they share, it is worse: no interval from 30 users can know it.
- Entropy is held too often, by intervals that are wider than they have to be, in five cells: up to
  97.8 % of 2,000 brands of skew 1.5 with tastes of 10, where all that the bias may be is as much as
  the standard error; 98.2 and 97.3 % of 200 brands and 1,500 items.
- Not in the table: of 2,000 items of 2,000 brands of skew 1.5, tastes of 100, 19 % are called
  reliable, and 91 % of those hold the truth: samples whose coverage is just 0.95 are those that by
  chance saw few rare brands.
- Not in the table: users with 60 items each, two thirds of which are drawn from the user's own
  before. Of 500 such users, 2,000 brands of skew 0.5 had 86 % of 200 repetitions, which lay too
  low; in seven other such populations it was 93 to 98 %, and with 4 items each 93 to 97.
- Not in the table: 20,000 brands of skew 1.5 and 30,000 items: 98 and 99 %, too wide.
"""
"""Of the run that is on record; to be looked at again where figures change."""
PROMISED = (0.93, 0.97)

CATALOG = 2000
TOPICS = 10
K = 10
OVERLAP_RUNS = {30: 4000, 100: 3000, 1000: 2000, 5000: 600}
"""Users -> repetitions."""
TRUTH_USERS, TRUTH_RUNS = 5000, 40

ITEMS_OF_USER = 15
GROUPS = 256
ENTROPY_RUNS = {
    300: 150,
    1_000: 1500,
    1_500: 1500,
    3_000: 1500,
    10_000: 1500,
    30_000: 1000,
    100_000: 600,
}
"""Items -> repetitions."""
MIN_RELIABLE_RUNS = 50
"""Under as many reliable ones, their coverage says nothing."""


@dataclass(frozen=True)
class Shop:
    """A population of users with lists.

    A user likes one topic, whose items are twenty times as likely; popularity is 1 / rank^skew.
    Four lists in five have K picks, the others fewer; picks that repeat one make them shorter.
    """

    name: str
    skew: float
    fallback: float = 0.0
    """Share of users that get the same list, whatever they like."""

    def lists(self, users: int, random: np.random.Generator) -> pa.ListArray:
        """Draw users, and a list of each."""
        popularity = np.arange(1, CATALOG + 1) ** -self.skew
        likes = random.integers(0, TOPICS, users)
        draws = random.random((users, K))
        items = np.empty((users, K), np.int64)
        for topic in range(TOPICS):
            liked = np.where(np.arange(CATALOG) % TOPICS == topic, 20, 1)
            shares = np.cumsum(popularity * liked)
            of_topic = likes == topic
            items[of_topic] = np.searchsorted(shares, draws[of_topic] * shares[-1], side="right")
        items[random.random(users) < self.fallback] = np.arange(K)
        lengths = np.where(random.random(users) < 0.8, K, random.integers(1, K + 1, users))
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, items[np.arange(K) < lengths[:, None]])


SHOPS = (
    Shop("hardly anything in common", 0.3),
    Shop("a long tail", 1.0),
    Shop("a few favourites", 1.5),
    Shop("a long tail; one in twenty gets the fallback", 1.0, 0.05),
    Shop("a long tail; one in five gets the fallback", 1.0, 0.2),
    Shop("a long tail; half get the fallback", 1.0, 0.5),
)


@dataclass(frozen=True)
class Brands:
    """A population of users that are served items of brands.

    Brands have shares 1 / rank^skew. A user's own shares come from a Dirichlet distribution around
    these, so that their mean is what the population has, drawn from as Polya's urn: the item of
    place j repeats one of the user's j before with probability j / (concentration + j).
    """

    brands: int
    skew: float
    concentration: float
    """The smaller, the fewer brands a user likes."""

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Of each brand, in the population."""
        weights = np.arange(1, self.brands + 1) ** -self.skew
        return np.asarray(weights / weights.sum())

    @property
    def entropy(self) -> float:
        """Of the population, in nats."""
        return -math.fsum(self.shares * np.log(self.shares))

    def served(
        self, items: int, random: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Draw users: of each item, the group of its user, and the brand."""
        users = items // ITEMS_OF_USER
        ends = np.cumsum(self.shares)
        brand = np.searchsorted(
            ends, random.random((users, ITEMS_OF_USER)) * ends[-1], side="right"
        )
        everyone = np.arange(users)
        for place in range(1, ITEMS_OF_USER):
            repeats = random.random(users) < place / (self.concentration + place)
            earlier = brand[everyone, random.integers(0, place, users)]
            brand[:, place] = np.where(repeats, earlier, brand[:, place])
        groups = random.integers(0, GROUPS, users)
        return np.repeat(groups, ITEMS_OF_USER), brand.ravel()


POPULATIONS = tuple(
    Brands(brands, skew, concentration)
    for brands in (20, 200, 2000)
    for skew in (0.5, 1.0, 1.5, 2.0)
    for concentration in (10.0, 100.0)
)


def overlap_coverage(shop: Shop) -> tuple[float, list[float]]:
    """The mean overlap of a population, and for each number of users the coverage."""
    random = np.random.default_rng(1)

    def overlap(users: int) -> Any:
        return overlap_of(shop.lists(users, random), K)

    truth = float(np.mean([overlap(TRUTH_USERS).mean for _ in range(TRUTH_RUNS)]))
    coverages = []
    for users, runs in OVERLAP_RUNS.items():
        progress(f"overlap: {shop.name}, {users} users")
        found = [overlap(users) for _ in range(runs)]
        coverages.append(sum(one.lower <= truth <= one.upper for one in found) / runs)
    return truth, coverages


def entropy_coverage(population: Brands) -> list[list[bool]]:
    """For each number of items, of each run that was called reliable, whether it held the truth."""
    random = np.random.default_rng(2)
    coverages = []
    for items, runs in ENTROPY_RUNS.items():
        progress(f"entropy: {population}, {items} items")
        held = []
        for _ in range(runs):
            groups, brand = population.served(items, random)
            found = entropy_of(groups, brand, np.ones(len(brand), np.int64))
            if found is not None and found.lower is not None and found.upper is not None:
                held.append(found.lower <= population.entropy <= found.upper)
        coverages.append(held)
    return coverages


def progress(what: str) -> None:
    """Say what runs, on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what}")


def shown(coverage: float) -> str:
    """A coverage, bold where it is not what is promised."""
    text = f"{100 * coverage:.1f}"
    return text if PROMISED[0] <= coverage <= PROMISED[1] else f"**{text}**"


def standard_error(runs: int) -> str:
    """Of a coverage of 95 % that many runs tell, in per cent."""
    return f"{100 * math.sqrt(0.95 * 0.05 / runs):.1f}"


def row(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Simulate, write down."""
    text = f"""\
# How often intervals hold the truth

Of 95 % intervals, in per cent of repetitions; what is promised is 93 to 97, and what is not so is
bold. Simulated by `python -m benchmarks.interval_coverage` on {time.strftime("%Y-%m-%d")}; its
docstrings say how. It takes a quarter of an hour of one CPU.

## Overlap

Lists of up to {K} items out of {CATALOG:,}. Repetitions:
{", ".join(f"{runs:,} of {users:,} users" for users, runs in OVERLAP_RUNS.items())}; so a figure is
right to about {", ".join(map(standard_error, OVERLAP_RUNS.values()))} (its standard error).

"""
    text += row(["population", "mean overlap", *(f"{users:,} users" for users in OVERLAP_RUNS)])
    text += row(["---"] * (2 + len(OVERLAP_RUNS)))
    for shop in SHOPS:
        truth, coverages = overlap_coverage(shop)
        text += row([shop.name, f"{truth:.4f}", *map(shown, coverages)])
    text += f"""
## Entropy

Items come from users with {ITEMS_OF_USER} each, in up to {GROUPS} groups; so 300 items are of 20
users, and never called reliable. Taste is the concentration of a user's shares of brands around
those of all: with 10, over a third of items are drawn from the user's own items before, with 100,
one in sixteen. In brackets, the per cent of repetitions that were called reliable, where not all
were; a dash where fewer than {MIN_RELIABLE_RUNS} repetitions were. Repetitions:
{", ".join(f"{runs:,} of {items:,} items" for items, runs in ENTROPY_RUNS.items())}; so a figure is
right to about {", ".join(map(standard_error, ENTROPY_RUNS.values()))}.

"""
    text += row(["brands", "skew", "taste", "entropy", *(f"{n:,} items" for n in ENTROPY_RUNS)])
    text += row(["---"] * (4 + len(ENTROPY_RUNS)))
    all_held: list[bool] = []
    for population in POPULATIONS:
        cells = []
        for held, runs in zip(entropy_coverage(population), ENTROPY_RUNS.values(), strict=True):
            all_held += held
            cell = shown(float(np.mean(held))) if len(held) >= MIN_RELIABLE_RUNS else "-"
            reliable = len(held) / runs
            cells.append(cell if reliable in {0, 1} else f"{cell} ({100 * reliable:.0f})")
        text += row(
            [
                f"{population.brands:,}",
                f"{population.skew:g}",
                f"{population.concentration:g}",
                f"{population.entropy:.2f}",
                *cells,
            ]
        )
    progress("")
    text += f"""
Of all {len(all_held):,} repetitions that were called reliable: {shown(float(np.mean(all_held)))}.

{FINDINGS}"""
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
