"""The part of the report on experiments, and on share against click-through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from otel_personalization.daily.report import plots
from otel_personalization.daily.report.changes import SHARE
from otel_personalization.daily.report.days import everybody, surfaces_of
from otel_personalization.daily.report.estimates import Row, interval, number
from otel_personalization.daily.report.layout import Grid, Part
from otel_personalization.daily.report.words import (
    NO_DATA,
    TOO_FEW,
    clean,
    count,
    decimal,
    fine,
    named,
    percent,
    place,
    points,
    range_of,
)
from otel_personalization.daily.tables import ALL, NONE, SPLIT_P_VALUE, WEIGHTS


def experiments(blends: Sequence[Row], key: str, *, with_outcomes: bool) -> Part:
    """Overlap and weights by variant; where impressions are on record, share against CTR.

    Args:
        blends: the rows of the day.
        key: tells the plots of a page apart.
        with_outcomes: whether outcomes were given, of these decisions or others.
    """
    part = Part("Experiments, and share against CTR", "")
    together = everybody(blends)
    surfaces = [row for row in together if row["experiment"] == ALL and row["variant"] == ALL]
    arms = [row for row in together if ALL not in (row["experiment"], row["variant"])]
    of_all = sorted(
        (row for row in arms if row["surface"] == ALL),
        key=lambda row: (row["experiment"] == NONE, row["experiment"], row["variant"]),
    )
    names = {row["experiment"] for row in of_all} - {NONE}
    if not names:
        part.notes.append("No decision of the day names an experiment.")
    has_ctr = any(number(row, "ctr") is not None for row in together)
    if has_ctr:
        part.how_to_read = (
            "Bars are the personalised share, read on the lower axis; dots are click-through, read "
            "on the upper one, with its 95 % interval, clustered by user. The two axes have "
            "nothing in common: look whether long bars go with dots far to the right."
        )
        part.notes.append(
            "Between surfaces, and between personalised and other items, it is correlation, not "
            "proof: nobody drew lots over who sees what."
        )
        part.notes += _splits(together, sorted(names))
        by_surface = {row["surface"]: row for row in surfaces}
        order = [
            (place(name), by_surface[name]) for name in surfaces_of(surfaces) if name in by_surface
        ]
        part.draw("By surface", plots.share_and_ctr(order, key=f"{key}-ctr-surface"))
        if names:
            plot = plots.share_and_ctr(
                [(_arm(row), row) for row in of_all],
                key=f"{key}-ctr-variant",
                title="Personalised share and CTR by variant",
            )
            part.draw("By variant", plot)
        part.grids.append(_outcomes_grid("By surface", [([name], row) for name, row in order]))
    else:
        why = (
            "No outcome is an impression of what was served here (data quality says what became "
            "of them)"
            if with_outcomes
            else "No outcomes were given"
        )
        part.how_to_read = (
            f"{why}, so there is no CTR. Overlap is compared on each surface, as above."
        )
    if names:
        by_variant = [([named(row["experiment"]), named(row["variant"])], row) for row in of_all]
        if has_ctr:
            part.grids.append(_outcomes_grid("By variant", by_variant))
        part.grids.append(_weights_grid(by_variant))
        part.grids.append(_arms_overlap_grid(arms))
    return part


def _arm(row: Row) -> str:
    if row["experiment"] == NONE:
        return "no experiment"
    return f"{clean(row['variant'])} ({clean(row['experiment'])})"


def _splits(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    """Of each experiment, what may be said of a difference between its arms."""
    notes = []
    for name in names:
        whole: Row = next(
            (
                row
                for row in rows
                if (row["experiment"], row["variant"], row["surface"]) == (name, ALL, ALL)
            ),
            {},
        )
        p = number(whole, "sample_ratio_p_value")
        if p is None:
            said = "correlation, not proof: it is not known how users were split."
        elif p < SPLIT_P_VALUE:
            said = (
                f"correlation, not proof: the variants do not have the users that they should "
                f"(p = {p:.1g}), so find out why before comparing them."
            )
        else:
            said = (
                f"the variants have as many users as an even split gives them (p = {p:.2g}). They "
                "compare, if users were split at random, each to one: only then may a difference "
                "in CTR, where intervals stand apart, be put down to the variant. No figure here "
                "can show that the split was random."
            )
        notes.append(f"Experiment {clean(name)}: {_of_several(whole)}{said}")
    return notes


def _of_several(whole: Row) -> str:
    """That variants share users, which comes before whatever is said of them; else nothing."""
    several, users = number(whole, "users_of_several_variants"), number(whole, "users")
    if not several:
        return ""
    share = percent(several / users) if users else NO_DATA
    return (
        f"no comparison of separate users. {count(several)} of {count(users)} users ({share}) were "
        "served several variants; what they saw and clicked is in the CTR of each, and the test of "
        "the split leaves them out. Of the others: "
    )


def _outcomes_grid(what: str, rows: Sequence[tuple[list[str], Row]]) -> Grid:
    names = ["experiment", "variant"] if what == "By variant" else ["surface"]
    header = [
        *names,
        "share",
        "CTR",
        "95 % interval",
        "impressions",
        "clicks",
        "CTR, personalised",
        "CTR, others",
        "difference",
        "users",
    ]
    return Grid(
        f"Share and CTR, {what.lower()}",
        header,
        [
            [
                *name,
                percent(number(row, "personalized_impression_rate")),
                fine(number(row, "ctr")),
                range_of(interval(row, "ctr"), fine, NO_DATA),
                count(number(row, "impressions")),
                count(number(row, "clicks")),
                fine(number(row, "personalized_ctr")),
                fine(number(row, "other_ctr")),
                points(interval(row, "ctr_difference")),
                count(number(row, "users")),
            ]
            for name, row in rows
        ],
        names=len(names),
    )


def _weights_grid(rows: Sequence[tuple[list[str], Row]]) -> Grid:
    header = [
        "experiment",
        "variant",
        "share",
        "95 % interval",
        "coverage",
        *(weight.replace("_", " ") for weight in WEIGHTS),
        "settings on record",
        "decisions",
        "users",
    ]
    return Grid(
        "Blend weights on record, most frequent",
        header,
        [
            [
                *name,
                percent(number(row, "personalized_impression_rate")),
                range_of(SHARE.estimate(row), percent, NO_DATA),
                percent(number(row, "reason_coverage_rate")),
                *(decimal(number(row, weight)) for weight in WEIGHTS),
                count(number(row, "weight_settings")),
                count(number(row, "decisions")),
                count(number(row, "users")),
            ]
            for name, row in rows
        ],
        names=2,
    )


def _arms_overlap_grid(arms: Sequence[Row]) -> Grid:
    rows = sorted(
        (row for row in arms if row["surface"] != ALL and row["experiment"] != NONE),
        key=lambda row: (row["experiment"], row["surface"], row["variant"]),
    )
    header = ["experiment", "variant", "surface", "overlap", "95 % interval", "users compared"]
    return Grid(
        "Overlap by variant",
        header,
        [
            [
                named(row["experiment"]),
                named(row["variant"]),
                clean(row["surface"]),
                decimal(mean, 3) if (mean := number(row, "jaccard_mean")) is not None else TOO_FEW,
                range_of(interval(row, "jaccard_mean"), lambda value: decimal(value, 3), TOO_FEW),
                count(number(row, "overlap_users")),
            ]
            for row in rows
        ],
        names=3,
    )
