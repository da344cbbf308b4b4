"""For a service's own tests: is its tracer instrumented, and right?

::

    from otel_personalization.testing import counting


    def test_the_tracer_is_instrumented():
        with counting() as counted:
            DecisionTracer().finalize(decision)
        assert (counted.decisions, counted.personalized_items) == (1, 12)

No SDK and no exporter is needed. Where a test has an in-memory reader anyway, `points_of` tells
what it would export, without the leading zeros.
"""

from __future__ import annotations

from collections import Counter as Sum
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from otel_personalization.conventions import (
    COUNTERS,
    DECISION_COUNTERS,
    INTERNAL_ERRORS,
    MALFORMED_TRACES,
    SOURCE_COUNTERS,
    Counter,
)
from otel_personalization.hook import PersonalizationHook
from otel_personalization.instrumentor import PersonalizationInstrumentor
from otel_personalization.totals import LabelSet, Snapshot

Counts = dict[str, int]


@dataclass
class Counted:
    """What was counted within `counting`: in all, and by namespace and surface."""

    decisions: int = 0
    empty_decisions: int = 0
    served_items: int = 0
    served_items_squared: int = 0
    reason_requested_items: int = 0
    personalized_items: int = 0
    reason_items: int = 0
    cold_start_items: int = 0
    malformed_traces: int = 0
    internal_errors: int = 0
    cells: dict[LabelSet, Counts] = field(default_factory=dict)
    """By (namespace, surface): the counts above, decisions to cold_start_items."""
    sources: dict[LabelSet, Counts] = field(default_factory=dict)
    """By (namespace, surface, source): decisions, empty_decisions, candidates."""


@contextmanager
def counting(hook: PersonalizationHook | None = None) -> Iterator[Counted]:
    """Tell what is counted within the ``with``. The numbers are there when it ends.

    Args:
        hook: whose counts; the instrumented one, if None.

    Raises:
        RuntimeError: there is no hook: nothing is instrumented.
    """
    totals = (hook or PersonalizationInstrumentor().hook).totals
    before = totals.snapshot()
    counted = Counted()
    yield counted
    after = totals.snapshot()
    counted.cells = _growth(before, after, DECISION_COUNTERS)
    counted.sources = _growth(before, after, SOURCE_COUNTERS)
    for group in (DECISION_COUNTERS, (MALFORMED_TRACES,), (INTERNAL_ERRORS,)):
        for counts in _growth(before, after, group).values():
            for name, count in counts.items():
                setattr(counted, name, getattr(counted, name) + count)


def _growth(
    before: Snapshot, after: Snapshot, group: tuple[Counter, ...]
) -> dict[LabelSet, Counts]:
    nothing = (0,) * len(group)
    return {
        labels: {
            counter.field: new - old
            for counter, new, old in zip(
                group, values, before[group].get(labels, nothing), strict=True
            )
        }
        for labels, values in after[group].items()
        if values != before[group].get(labels, nothing)
    }


def points_of(reader: Any) -> dict[str, dict[LabelSet, int]]:
    """What a reader of the OpenTelemetry SDK has to export of the package's counters.

    A new series reports 0 first and its total from the next collection on; this collects twice.

    Args:
        reader: an ``InMemoryMetricReader``.

    Returns:
        By OpenTelemetry name, by label values in the order of the contract: the value. For a reader
        of deltas, the growth since its last collection.
    """
    names = {counter.name: counter for counter in COUNTERS}
    found: dict[str, dict[LabelSet, int]] = {}
    for _ in range(2):
        collected: dict[str, Sum[LabelSet]] = {}
        data = reader.get_metrics_data()
        for metric in _metrics(data) if data is not None else ():
            if (counter := names.get(metric.name)) is None:
                continue
            is_delta = metric.data.aggregation_temporality.name == "DELTA"
            so_far = found.get(metric.name, {}) if is_delta else {}
            points = collected.setdefault(metric.name, Sum(so_far))
            for point in metric.data.data_points:
                points[tuple(str(point.attributes[key]) for key in counter.attributes)] += (
                    point.value
                )
        found |= {name: dict(points) for name, points in collected.items()}
    return found


def _metrics(data: Any) -> Iterator[Any]:
    for resource_metrics in data.resource_metrics:
        for scope_metrics in resource_metrics.scope_metrics:
            yield from scope_metrics.metrics
