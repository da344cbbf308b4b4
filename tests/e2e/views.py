"""What Prometheus holds of the counters and of the Collector's views, and how it is compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import nan
from typing import Any

from examples.stack.servers import Prometheus
from otel_personalization import conventions
from tests.e2e.fleet import ITEM_COUNTS, Cells, Export, Pair

RATES = {
    rate.prometheus_name: (part.field, whole.field)
    for rate, (part, whole) in conventions.RATES.items()
}
WINDOW_ITEMS = conventions.WINDOW_SERVED_ITEMS.prometheus_name
COUNTERS = {
    counter.field: counter.prometheus_name
    for counter in conventions.DECISION_COUNTERS
    if counter.field in ("decisions", *ITEM_COUNTS)
}
SHARED_RATES = {rate for rate, (_, whole) in RATES.items() if whole == "served_items"}
SHARED_COUNTS = ("served_items", *(RATES[rate][0] for rate in sorted(SHARED_RATES)))
"""The counts that windows tell: served items, and shares of them."""
(REQUESTED_RATE,) = RATES.keys() - SHARED_RATES
REQUESTED = ITEM_COUNTS.index(RATES[REQUESTED_RATE][1])
Counts = tuple[int, ...]
"""By ITEM_COUNTS."""
NOTHING: Counts = (0,) * len(ITEM_COUNTS)
ROUNDING = 1e-6
CLOSING_SECONDS = 0.02
"""The gateway closes a window, and then looks at its clock."""
PRECISION_SECONDS = 0.001
"""Of times in Prometheus."""
LABELS = ("recsys_namespace", "surface")
OVER = "[2h]"
"""Longer than any test."""


def raw(prometheus: Prometheus, selector: str = "") -> Cells:
    """The raw counters, added up over all processes that ever were."""
    return counted_by(prometheus, f"max_over_time(%s{{{selector}}}{OVER})")


def counted_by(prometheus: Prometheus, way: str, at: float | None = None) -> Cells:
    """What a way to count in PromQL, in which %s is the name of the counter, finds."""
    cells: Cells = {}
    for name, of_prometheus in COUNTERS.items():
        promql = f"sum by ({', '.join(LABELS)}) ({way % of_prometheus})"
        for (namespace, surface), value in prometheus.by(promql, *LABELS, at=at).items():
            if value:
                cells.setdefault((namespace, surface), Counter())[name] = round(value, 6)
    return cells


def without_zeros(cells: Cells) -> Cells:
    return {
        pair: Counter({name: n for name, n in counts.items() if n})
        for pair, counts in cells.items()
    }


def _pair(labels: dict[str, str]) -> Pair:
    return labels["recsys_namespace"], labels["surface"]


@dataclass
class Window:
    """A point of the views."""

    at: float
    """When it ended, in s."""
    pair: Pair
    labels: dict[str, str]
    items: float
    rates: dict[str, float] = field(default_factory=dict)

    def count(self, name: str) -> float:
        """The served items, or those that a rate over them stands for."""
        if name == "served_items":
            return self.items
        (rate,) = (rate for rate, of in RATES.items() if of == (name, "served_items"))
        return self.rates.get(rate, 0.0) * self.items


def windows(prometheus: Prometheus) -> list[Window]:
    """All points of the views, in the order of their times."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    # In one query, so that a window is there as a whole.
    for series in prometheus.query(f'{{__name__=~"{"|".join((WINDOW_ITEMS, *RATES))}"}}{OVER}'):
        by_name.setdefault(series["metric"].pop("__name__"), []).append(series)
    found = {
        str(series["metric"]): [
            Window(at, _pair(series["metric"]), series["metric"], float(value))
            for at, value in series["values"]
        ]
        for series in by_name.get(WINDOW_ITEMS, [])
    }
    for rate in RATES:
        for series in by_name.get(rate, []):
            for at, value in series["values"]:
                # The points of one window are some microseconds apart.
                window = min(found[str(series["metric"])], key=lambda w: abs(w.at - at))
                assert abs(window.at - at) < 0.05
                window.rates[rate] = float(value)
    return sorted(
        (window for of_series in found.values() for window in of_series),
        key=lambda window: (window.at, window.pair),
    )


def in_windows(found: Iterable[Window]) -> Cells:
    """What the windows add up to: of the counts, those that are shares of the served items."""
    cells: Cells = {}
    for window in found:
        cell = cells.setdefault(window.pair, Counter())
        for name in SHARED_COUNTS:
            items = window.count(name)
            assert abs(items - round(items)) < ROUNDING, f"{name} of {window} is no count"
            cell[name] += round(items)
    return without_zeros(cells)


def of_views(truth: Cells) -> Cells:
    """Of a truth, what windows can be compared with."""
    return without_zeros(
        {
            pair: Counter({name: counts[name] for name in SHARED_COUNTS})
            for pair, counts in truth.items()
        }
    )


def check_each_window(found: list[Window], processes: list[list[Export]]) -> int:
    """At each window's end the windows add up to what the gateway had been told by then.

    That is how far the totals had grown in the last export of each process. Of an export that was
    in flight when the window ended nobody knows whether it came in time: it did as a whole or not
    at all, and both are tried.

    Args:
        found: all windows of some pairs.
        processes: all exports of all processes that served these pairs.

    Returns:
        The number of windows at whose end no export was in flight.

    Raises:
        AssertionError: a window holds something else.
    """
    exact = 0
    for pair in {window.pair for window in found}:
        sums = dict.fromkeys(SHARED_COUNTS, 0.0)
        told_before = {NOTHING}
        for window in (window for window in found if window.pair == pair):
            assert SHARED_RATES - window.rates.keys() == (
                set() if window.items else SHARED_RATES
            ), f"{window} has a rate of no items, or none of some"
            for name in sums:
                sums[name] += window.count(name)
            may_be_told = _sums(_told(exports, pair, window.at) for exports in processes)
            told = {
                counts
                for counts in may_be_told
                if all(
                    abs(counts[ITEM_COUNTS.index(name)] - n) < ROUNDING for name, n in sums.items()
                )
            }
            assert told, (
                f"up to {window} the windows add up to {sums}, and the gateway was told "
                f"{' or '.join(map(str, sorted(may_be_told)))} of {', '.join(ITEM_COUNTS)}"
            )
            requested = {now[REQUESTED] - then[REQUESTED] for now in told for then in told_before}
            assert any(
                abs(window.rates.get(REQUESTED_RATE, nan) * items - window.count("reason_items"))
                < ROUNDING
                if items
                else REQUESTED_RATE not in window.rates
                for items in requested
            ), f"{window} is of {requested} items with a reason requested"
            exact += len(may_be_told) == 1
            told_before = told
    return exact


def growths(exports: list[Export], pair: Pair) -> list[Counts]:
    """How far a process's counts of a pair had grown after none of its exports, after one, ...

    From its first total on, which is 0 for a gateway that has been there from its start.
    """
    found = [NOTHING]
    first: Counts | None = None
    for export in exports:
        if totals := export.totals.get(pair):
            counts = tuple(totals[name] for name in ITEM_COUNTS)
            first = first or counts
            found.append(tuple(now - then for now, then in zip(counts, first, strict=True)))
        else:
            found.append(found[-1])
    return found


def _told(exports: list[Export], pair: Pair, at: float) -> set[Counts]:
    """What a process had told the gateway of a pair by the end of a window, or may have told."""
    answered = sum(export.answered < at - CLOSING_SECONDS for export in exports)
    begun = sum(export.began < at + PRECISION_SECONDS for export in exports)
    return set(growths(exports, pair)[answered : begun + 1])


def _sums(of_processes: Iterable[set[Counts]]) -> set[Counts]:
    """All that the counts of some processes can add up to, if each can be one of some."""
    found = {NOTHING}
    for each in of_processes:
        found = {
            tuple(a + b for a, b in zip(one, other, strict=True)) for one in found for other in each
        }
    return found
