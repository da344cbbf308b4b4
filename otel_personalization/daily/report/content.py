"""What the report says of a namespace, part by part."""

from __future__ import annotations

from otel_personalization.daily.report.changes import changes, headline
from otel_personalization.daily.report.days import Days
from otel_personalization.daily.report.experiments import experiments
from otel_personalization.daily.report.layout import Namespace
from otel_personalization.daily.report.parts import coverage, entropy, overlap, share, sources
from otel_personalization.daily.report.words import clean
from otel_personalization.daily.tables import (
    BLEND_WEIGHTS_DAILY,
    PERSONALIZATION_DAILY,
    SOURCES_DAILY,
)


def namespace_report(days: Days, name: str, key: str) -> Namespace:
    """The report of a namespace.

    Args:
        days: the day and those before.
        name: the namespace.
        key: tells it from others in the page.
    """
    today = days.rows(PERSONALIZATION_DAILY, name)
    before = days.rows(PERSONALIZATION_DAILY, name, before=True)
    blends = days.rows(BLEND_WEIGHTS_DAILY, name)
    parts = [
        changes(today, before, days.day),
        share(today, before, key),
        coverage(today, before, key),
        overlap(today, key, missing_days=len(days.quality.missing_window_days)),
        entropy(today, key),
        experiments(blends, key, with_outcomes=days.quality.outcomes is not None),
        sources(days.rows(SOURCES_DAILY, name), days.rows(SOURCES_DAILY, name, before=True)),
    ]
    return Namespace(clean(name), headline(name, today, before, days.day), parts)
