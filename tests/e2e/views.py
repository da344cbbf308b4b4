"""What Prometheus holds of the counters and of the Collector's views, and how it is compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from examples.stack.servers import Prometheus
from otel_personalization import conventions
from tests.e2e.fleet import ITEM_COUNTS, Cells, Decision, Pair, add_up

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
        """Items that a rate over the served ones stands for."""
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
        for name in ("served_items", "personalized_items", "reason_items"):
            items = window.items if name == "served_items" else window.count(name)
            assert abs(items - round(items)) < 1e-6, f"{name} of {window} is no count"
            cell[name] += round(items)
    return without_zeros(cells)


def of_views(truth: Cells) -> Cells:
    """Of a truth, what windows can be compared with."""
    return without_zeros(
        {
            pair: Counter(
                {
                    name: counts[name]
                    for name in counts
                    if name in ("served_items", "personalized_items", "reason_items")
                }
            )
            for pair, counts in truth.items()
        }
    )


def check_each_window(
    found: list[Window], decisions: list[Decision], export_seconds: float
) -> float:
    """Each window's rates are those of its decisions, but for an export interval's items.

    A window holds what arrived since the one before. What a process served last is on its way for
    an export interval at most, at the beginning of a window and at its end.

    Returns:
        The largest difference of a rate from the truth of its window.
    """
    slack = export_seconds + 0.5  # to send it, on a machine that is busy
    worst = 0.0
    for pair in {window.pair for window in found}:
        of_pair = [decision for decision in decisions if decision.pair == pair]
        began = min(decision.at for decision in of_pair) - slack
        for window in (window for window in found if window.pair == pair):
            certain = _between(of_pair, began, window.at - slack)
            possible = _between(of_pair, began - slack, window.at)
            assert certain["served_items"] <= window.items <= possible["served_items"], (
                f"{window} holds other items than those of its time: "
                f"{certain['served_items']} to {possible['served_items']}"
            )
            truth = _between(of_pair, began, window.at)
            for rate, (part, whole) in RATES.items():
                if not truth[whole] or rate not in window.rates:
                    continue
                differs = abs(window.rates[rate] - truth[part] / truth[whole])
                on_their_way = possible[whole] - certain[whole]
                assert differs <= on_their_way / truth[whole], f"{rate} of {window}: {truth}"
                worst = max(worst, differs)
            began = window.at
    return worst


def _between(of_pair: list[Decision], first: float, last: float) -> Counter[str]:
    cells = add_up(decision for decision in of_pair if first < decision.at <= last)
    return next(iter(cells.values()), Counter())
