"""The part of the report on the data: what was counted, what not, and what is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from otel_personalization.conventions import MIN_OVERLAP_USERS
from otel_personalization.daily.report.days import Days, everybody
from otel_personalization.daily.report.estimates import Row, number
from otel_personalization.daily.report.layout import Grid
from otel_personalization.daily.report.words import clean, count, percent
from otel_personalization.daily.tables import ALL, PERSONALIZATION_DAILY, OutcomeQuality, Quality

_RULES: Final = {
    "extras": "the trace (extras)",
    "history": "the days before",
    "bucket_key": "the bandit's bucket key",
    "unknown": "nothing: unknown",
}


def quality_grids(quality: Quality, days: Days, names: Sequence[str]) -> list[Grid]:
    """What became of the day's traces, and of what part users, brands and categories are known."""
    rows = [
        ["decisions that were counted", count(quality.decisions)],
        ["further deliveries of a decision, not counted", count(quality.repeated)],
        ["lines that are no JSON, skipped", count(quality.skipped_lines)],
        ["rests of damaged files, of an unknown number of lines", count(quality.damaged_rests)],
        ["traces without a readable time, of no day", count(quality.undated)],
        ["malformed traces", count(sum(quality.malformed.values()))],
        *(
            [f"malformed: {clean(reason).replace('_', ' ')}", count(number_of)]
            for reason, number_of in sorted(quality.malformed.items())
        ),
        *(
            [f"cohort from {_RULES.get(rule, clean(rule))}", count(number_of)]
            for rule, number_of in sorted(quality.cohort_rules.items())
        ),
        *(
            [f"device from {_RULES.get(rule, clean(rule))}", count(number_of)]
            for rule, number_of in sorted(quality.device_rules.items())
        ),
        ["days before by which users are new or returning", count(quality.history_days)],
        ["days of the window without a snapshot", count(len(quality.missing_window_days))],
        ["days before in this report", count(len(days.on_record))],
    ]
    grids = [Grid("Traces of the day", ["what", "number"], rows)]
    if quality.outcomes is not None:
        grids.append(Grid("Outcomes", ["what", "number"], _outcome_rows(quality.outcomes)))
    known = []
    for name in names:
        today = days.rows(PERSONALIZATION_DAILY, name)
        row: Row = next((row for row in everybody(today) if row["surface"] == ALL), {})
        share = number(row, "known_user_share")
        surfaces = [row for row in everybody(today) if row["surface"] != ALL]
        few = sum((number(row, "overlap_users") or 0) < MIN_OVERLAP_USERS for row in surfaces)
        known.append(
            [
                clean(name),
                percent(None if share is None else 1 - share),
                percent(number(row, "entropy_brand_known_share")),
                percent(number(row, "entropy_category_known_share")),
                f"{few} of {len(surfaces)}",
                count(number(row, "empty_decisions")),
            ]
        )
    header = [
        "namespace",
        "decisions without a user",
        "items with a known brand",
        "with a known category",
        f"surfaces with under {MIN_OVERLAP_USERS} users to compare",
        "decisions that served nothing",
    ]
    if known:
        grids.append(Grid("What is known", header, known))
    return grids


def _outcome_rows(outcomes: OutcomeQuality) -> list[list[str]]:
    return [
        *(
            [f"outcomes read: {clean(kind)}", count(number_of)]
            for kind, number_of in outcomes.types.items()
        ),
        *(
            [f"outcomes not read: {clean(kind).replace('_', ' ')}", count(number_of)]
            for kind, number_of in sorted(outcomes.unreadable.items())
        ),
        ["outcomes of other decisions than the day's", count(outcomes.other_decisions)],
        ["outcomes of items that were not served", count(outcomes.unknown_items)],
        ["clicked items without an impression, in no rate", count(outcomes.unseen_clicks)],
        [
            "impressions of which nobody knows whether they were personalised",
            count(outcomes.uncompared_impressions),
        ],
        [
            "users of several variants, in no test of how users were split",
            count(outcomes.users_of_several_variants),
        ],
    ]
