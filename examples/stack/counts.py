"""What users, raw counters in Prometheus, the Collector's views and log lines say of the same.

Users know what they were served. Each process of the service has raw counters, which add up. A view
is a share of the items of a window: share times items, over all windows, adds up as well. Of log
lines only the number is in Prometheus: one a decision.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from examples.ranking_service.traffic import Pair, Tally
from examples.stack.servers import Prometheus
from otel_personalization import conventions

Counts = dict[Pair, Counter[str]]
"""Numbers of items, by namespace and surface."""

SERVED: Final = "served_items"
RATES: Final = {
    part.field: rate.prometheus_name
    for rate, (part, whole) in conventions.RATES.items()
    if whole.field == SERVED
}
"""The views that are shares of the items served, by what they are the share of."""
WINDOW_ITEMS: Final = conventions.WINDOW_SERVED_ITEMS.prometheus_name
COUNTERS: Final = {
    counter.field: counter.prometheus_name
    for counter in conventions.DECISION_COUNTERS
    if counter.field in (SERVED, *RATES)
}
LINES: Final = conventions.LOG_DECISIONS.prometheus_name
LABELS: Final = ("recsys_namespace", "surface")
JOB: Final = 'job="ranking"'
"""Others may send to the same Collector, such as `otel-personalization doctor`."""
EVER: Final = "[15d]"
"""As long as Prometheus keeps samples; its data is of one run."""


@dataclass(frozen=True)
class Said:
    """What all who count say at one time."""

    users: Counts
    """What users were served."""
    counters: Counts
    """The raw counters, added up over all processes that there were."""
    views: Counts
    """The windows, added up."""
    answers: int
    """How often users were answered."""
    lines: int
    """How many log lines of decisions there are."""

    def pairs(self) -> set[Pair]:
        """All namespaces and surfaces that anybody knows of."""
        return self.users.keys() | self.counters.keys() | self.views.keys()

    def is_exact(self) -> bool:
        """Whether all say the same, item for item."""
        nothing: Counter[str] = Counter()
        return self.answers == self.lines and all(
            self.users.get(pair, nothing)
            == self.counters.get(pair, nothing)
            == self.views.get(pair, nothing)
            for pair in self.pairs()
        )


def count(tally: Tally, prometheus: Prometheus) -> Said:
    """Ask all of them.

    Args:
        tally: what users were served.
        prometheus: has the rest.
    """
    return Said(
        users={pair: Counter({name: n[name] for name in COUNTERS}) for pair, n in tally.items()},
        counters=_of_counters(prometheus),
        views=_of_views(prometheus),
        answers=sum(n["decisions"] for n in tally.values()),
        lines=round(prometheus.value(f"sum(max_over_time({LINES}{{{JOB}}}{EVER}))") or 0),
    )


def share(counts: Counter[str], name: str) -> float:
    """Of the items served, the share that one of the others counts; 0 if nothing was served."""
    return counts[name] / counts[SERVED] if counts[SERVED] else 0.0


def _of_counters(prometheus: Prometheus) -> Counts:
    found: Counts = {}
    for name, counter in COUNTERS.items():
        totals = prometheus.by(
            f"sum by ({', '.join(LABELS)}) (max_over_time({counter}{{{JOB}}}{EVER}))", *LABELS
        )
        for (namespace, surface), total in totals.items():
            found.setdefault((namespace, surface), Counter())[name] = round(total)
    return found


def _of_views(prometheus: Prometheus) -> Counts:
    samples: dict[str, dict[Pair, list[float]]] = {}
    names = "|".join((WINDOW_ITEMS, *RATES.values()))
    # In one query: what a window consists of has arrived together.
    for series in prometheus.query(f'{{__name__=~"{names}",{JOB}}}{EVER}'):
        name, namespace, surface = (series["metric"][label] for label in ("__name__", *LABELS))
        values = [float(value) for _, value in series["values"]]
        samples.setdefault(name, {})[namespace, surface] = values
    found: Counts = {}
    for pair, windows in samples.get(WINDOW_ITEMS, {}).items():
        # In a window without items there is no share.
        items = [value for value in windows if value]
        counts = found.setdefault(pair, Counter({SERVED: round(sum(items))}))
        for name, rate in RATES.items():
            rates = samples.get(rate, {}).get(pair, [])
            counts[name] = round(sum(map(float.__mul__, rates, items)))
    return found
