"""The recorded traces as counters of five days.

They were recorded in a burst of a minute a day. Each day's are spread over its 24 hours, in
proportion: what came halfway through the burst comes at noon. One process counts them all, and its
counters are scraped each minute.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from otel_personalization import conventions as names
from otel_personalization.trace import Decision, instant_of, read_decision, read_identity

DAY = 24 * 60


@dataclass
class RecordedDays:
    """Counters of the traces.

    Args:
        midnight: when the first day begins; minute 0.
        series: name and labels -> value at each minute. Each is there from the start, at 0.
    """

    midnight: datetime
    series: dict[str, list[int]]

    def of_pairs(self, labels: Collection[str]) -> dict[str, list[int]]:
        """The counters of decisions, of these surfaces."""
        inner = [label.strip("{}") for label in labels]
        return {
            name: values
            for name, values in self.series.items()
            if name.endswith(tuple(f"{label}}}" for label in inner))
        }

    def of_source(self, source: str) -> dict[str, list[int]]:
        """The counters of a candidate source, of all surfaces."""
        return {
            name: values for name, values in self.series.items() if f'source="{source}"' in name
        }


def recorded_days(path: Path) -> RecordedDays:
    """Read a recording."""
    days: dict[datetime, list[tuple[datetime, Decision]]] = {}
    with gzip.open(path) as lines:
        for trace in map(json.loads, lines):
            decision = read_decision(trace)
            instant = instant_of(read_identity(trace).timestamp)
            assert isinstance(decision, Decision)
            assert instant is not None
            midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
            days.setdefault(midnight, []).append((instant, decision))
    start = min(days)
    minutes = (max(days) - start) // timedelta(minutes=1) + DAY
    grown: dict[str, Counter[int]] = {}
    for midnight, decisions in days.items():
        first, last = (pick(instant for instant, _ in decisions) for pick in (min, max))
        for instant, decision in decisions:
            minute = (midnight - start) // timedelta(minutes=1)
            # Counted by the scrape that follows.
            minute += 1 + int((instant - first) / (last - first) * (DAY - 1))
            for series, growth in counters_of(decision).items():
                grown.setdefault(series, Counter())[minute] += growth
    series = {}
    for name, by_minute in grown.items():
        values = [0]
        for minute in range(1, minutes + 1):
            values.append(values[-1] + by_minute[minute])
        series[name] = values
    return RecordedDays(start, series)


def counters_of(decision: Decision) -> dict[str, int]:
    """What a decision adds to each series."""
    pair = f'recsys_namespace="{decision.namespace}",surface="{decision.surface}"'
    n = decision.served_items
    grown = {
        f'{counter.prometheus_name}{{instance="a",job="ranking",{pair}}}': growth
        for counter, growth in (
            (names.DECISIONS, 1),
            (names.EMPTY_DECISIONS, int(not n)),
            (names.SERVED_ITEMS, n),
            (names.SERVED_ITEMS_SQUARED, n**2),
            (names.PERSONALIZED_ITEMS, decision.personalized_items),
            (names.REASON_ITEMS, decision.reason_items),
            (names.REASON_REQUESTED_ITEMS, decision.reason_requested_items),
            (names.COLD_START_ITEMS, decision.cold_start_items),
        )
    }
    for source, candidates in decision.candidates.items():
        labels = f'{{instance="a",job="ranking",{pair},source="{source}"}}'
        grown[names.CANDIDATES.prometheus_name + labels] = candidates
        grown[names.SOURCE_DECISIONS.prometheus_name + labels] = 1
        grown[names.SOURCE_EMPTY_DECISIONS.prometheus_name + labels] = int(not candidates)
    return grown
