"""The five panels that the dashboard was asked for, in their order.

Some have a second one beside them, for what one picture cannot show.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard

from analytics.dashboards import sql
from analytics.dashboards.panels import (
    BAD,
    CLEAR,
    COUNT,
    DATE,
    FAIR,
    GOOD,
    HALF,
    PLAIN,
    SHARE,
    Maker,
    columns_have,
    drawn,
    greyed,
    has,
    only_this_surface,
    over_time,
    steps,
)
from analytics.dashboards.promql import Queries, legend
from analytics.dashboards.sql import SqlQuery
from monitoring.prometheus.promql import OF_SURFACE
from monitoring.prometheus.values import Values, percent
from otel_personalization import conventions as names

BASELINE: Final = "baseline"
HEAT: Final = "continuous-YlRd"
TOO_FEW: Final = f"under {names.MIN_OVERLAP_USERS} users"
NOT_RELIABLE: Final = "not reliable"


def panels(values: Values) -> Iterable[Builder[dashboard.Panel]]:
    """All of them."""
    make, queries = Maker(values), Queries(values)
    yield _share(make, queries)
    yield _drop(make, queries, values)
    yield _coverage(make, queries, values)
    yield _requested_coverage(make, queries, values)
    yield _overlap(make, values)
    yield _entropy(make)
    yield _entropy_grounds(make)
    yield _click_through(make, queries)
    yield _variants(make)


# --- 1. personalised share by surface -----------------------------------------------------------


def _share(make: Maker, queries: Queries) -> Builder[dashboard.Panel]:
    stacked = build_common.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
    return (
        make.lines(
            "Personalised share by surface",
            "Of all items that were served, the share that was personalised, split by where they "
            "were served. The top of the stack is the share of all surfaces together; the dashed "
            "line is the baseline. A part gets thinner when its surface personalises less, and "
            "also when it serves less: the panel beside tells which. A gap: nothing was served. "
            "Red marks: alerts.",
            runbook="PersonalizationDrop",
            unit=SHARE,
        )
        .with_target(over_time(queries.contributions(), "{{part}}"))
        .with_target(over_time(queries.baseline_of_all(), BASELINE, "B"))
        .stacking(stacked)
        .fill_opacity(40)
        .min(0)
        .axis_soft_max(1)
        .override_by_name(
            BASELINE,
            has(
                custom__stacking={"mode": "none"},
                custom__fillOpacity=0,
                custom__lineStyle={"fill": "dash", "dash": [8, 6]},
                color={"mode": "fixed", "fixedColor": "text"},
            ),
        )
    )


def _drop(make: Maker, queries: Queries, values: Values) -> Builder[dashboard.Panel]:
    baseline = values["baseline"]
    limit, normal = -baseline["max_drop"], baseline["share"]
    return (
        make.lines(
            "Share against its baseline",
            "By surface, how far the personalised share is from its baseline, relative to it: "
            f"{percent(limit)} is a share of {percent(normal * (1 + limit))} where "
            f"{percent(normal)} is normal. If it stays below the line for days, "
            "PersonalizationBelowBaseline fires. One step of a quiet surface says little; alerts "
            "wait until enough decisions are in. A gap: the surface served nothing.",
            runbook="PersonalizationBelowBaseline",
            unit=SHARE,
        )
        .with_target(over_time(queries.drop(), legend(*OF_SURFACE)))
        .thresholds(steps((None, BAD), (limit, CLEAR)))
        .thresholds_style(drawn(common.GraphThresholdsStyleMode.DASHED_AND_AREA))
        .axis_soft_min(-0.2)
        .axis_soft_max(0.1)
        .data_links([only_this_surface()])
    )


# --- 2. reason coverage -------------------------------------------------------------------------


def _coverage(make: Maker, queries: Queries, values: Values) -> Builder[dashboard.Panel]:
    coverage = values["reason_coverage"]
    low, target = coverage["threshold"], coverage["target"]
    return (
        make.lines(
            "Reason coverage",
            "By surface, the share of served items that have a reason. Green is the target, "
            f"{percent(target)} and more; below {percent(low)} for {coverage['for']} "
            "ReasonCoverageLow fires. It also falls when callers stop asking for reasons: look "
            "beside whether those who ask get them. A gap: the surface served nothing.",
            runbook="ReasonCoverageLow",
            unit=SHARE,
        )
        .with_target(over_time(queries.view(names.REASON_COVERAGE_RATE), legend(*OF_SURFACE)))
        .thresholds(steps((None, BAD), (low, FAIR), (target, GOOD)))
        .thresholds_style(drawn(common.GraphThresholdsStyleMode.AREA))
        .min(0)
        .max(1)
        .data_links([only_this_surface()])
    )


def _requested_coverage(make: Maker, queries: Queries, values: Values) -> Builder[dashboard.Panel]:
    low = values["reason_coverage"]["requested_threshold"]
    expr = queries.share(names.REASON_ITEMS, names.REASON_REQUESTED_ITEMS)
    return (
        make.lines(
            "Reason coverage of those who asked",
            "By surface, of the items served to callers who asked for reasons, the share that has "
            f"one, straight from the counters. It is near 1 on every day; below {percent(low)} the "
            "explanations, or what counts them, are broken. A gap: nobody asked.",
            runbook="RequestedReasonCoverageLow",
            unit=SHARE,
            no_value="nobody asked",
        )
        .with_target(over_time(expr, legend(*OF_SURFACE)))
        .thresholds(steps((None, BAD), (low, GOOD)))
        .thresholds_style(drawn(common.GraphThresholdsStyleMode.AREA))
        .min(0)
        .max(1)
        .data_links([only_this_surface()])
    )


# --- 3. overlap of users' lists -----------------------------------------------------------------


def _overlap(make: Maker, values: Values) -> Builder[dashboard.Panel]:
    limit = values["overlap"]["max_pct"] / 100
    panel = make.table(
        "Top-K overlap by cohort and device",
        "Jaccard overlap of two users' lists of the newest night: 0, nothing in common; 1, the "
        "same items. The mean with its 95 % interval, then percentiles over pairs of users: p90 of "
        "0.5 means that for one pair in ten half of what either list holds is in both: of two "
        "lists of ten, two thirds. Darker is more alike; new users are more alike than returning "
        f"ones on any day. Grey: {TOO_FEW}, which tell nothing. CatalogOverlapSpike fires when the "
        f"mean is over {limit:g} ({percent(limit)}), two days in a row.",
        runbook="CatalogOverlapSpike",
        no_value=TOO_FEW,
    ).with_target(SqlQuery(sql.overlap()))
    panel.mappings([greyed(TOO_FEW)])
    panel.override_by_name("day", has(unit=DATE))
    panel.override_by_name("users", has(unit=COUNT))
    heat = [name.removeprefix("jaccard_") for name in sql.JACCARD]
    columns_have(
        panel,
        heat,
        custom__cellOptions={"type": "color-background", "mode": "basic"},
        color={"mode": HEAT},
        min=0,
        max=2 * limit,
    )
    return panel


# --- 4. entropy ---------------------------------------------------------------------------------


def _entropy(make: Maker) -> Builder[dashboard.Panel]:
    return (
        make.bars(
            "Entropy of brands and categories",
            "By surface, of the newest night: how evenly what was served spreads over brands and "
            "categories, in nats, corrected for what was not seen. 0: a single one; ln 20 = 3.0: "
            "like 20 equally served ones. Compare surfaces and days, not brands with categories. "
            "No bar: too little was seen for a reliable figure. No alert is about it; the runbook "
            "says where to look when everybody is shown the same.",
            runbook="CatalogOverlapSpike",
            unit=PLAIN,
            x="surface",
            no_value=NOT_RELIABLE,
        )
        .with_target(SqlQuery(sql.entropy_bars()))
        .decimals(2)
        .min(0)
        .axis_label("nats")
    )


def _entropy_grounds(make: Maker) -> Builder[dashboard.Panel]:
    panel = make.table(
        "What the entropies rest on",
        "The interval of each entropy; the effective number, exp(entropy), as many equally served "
        "brands or categories; the share of served items of which the brand or category is known, "
        "and of what could be served the share that was seen. An entropy of a known share of 45 % "
        "speaks for those 45 % alone. Grey: not reliable.",
        runbook="CatalogOverlapSpike",
        width=HALF,
        no_value=NOT_RELIABLE,
    ).with_target(SqlQuery(sql.entropy_grounds()))
    panel.mappings([greyed(NOT_RELIABLE)])
    panel.override_by_name("day", has(unit=DATE))
    panel.override_by_name("served items", has(unit=COUNT))
    columns_have(panel, ("entropy", "lower", "upper"), unit=PLAIN, decimals=2)
    panel.override_by_name("effective number", has(unit=PLAIN, decimals=1))
    return panel


# --- 5. share against click-through -------------------------------------------------------------


def _click_through(make: Maker, queries: Queries) -> Builder[dashboard.Panel]:
    return (
        make.lines(
            "Personalised share against CTR",
            "By surface, the personalised share on the left axis and, dashed, the click-through "
            "rate on the right one. See whether one moves when the other does. It is "
            f"{sql.NOT_PROOF}: hours, campaigns and who comes move both. The variable "
            "CTR defines what a click is.",
            runbook="PersonalizationBelowBaseline",
            unit=SHARE,
            width=2 * HALF,
            no_value="no impressions are reported",
        )
        .with_target(over_time(queries.recorded_share(), f"share {legend(*OF_SURFACE)}"))
        .with_target(over_time(queries.click_through(), f"CTR {legend(*OF_SURFACE)}", "B"))
        .axis_label("personalised share")
        .min(0)
        .override_by_query(
            "B",
            has(
                custom__axisPlacement="right",
                custom__axisLabel="CTR",
                custom__lineStyle={"fill": "dash", "dash": [8, 6]},
            ),
        )
        .data_links([only_this_surface()])
    )


def _variants(make: Maker) -> Builder[dashboard.Panel]:
    panel = make.table(
        "CTR by variant",
        "Of the newest night, where outcomes were given: click-through of each arm with its 95 % "
        "interval, clustered by user, and that of personalised items and others at the same "
        f"places. The last column says what it shows. {sql.NOT_PROOF.capitalize()}, wherever "
        "nobody drew lots over who sees what, as between personalised items and others. Surface "
        "all: all surfaces together.",
        runbook="PersonalizationBelowBaseline",
        no_value="-",
    ).with_target(SqlQuery(sql.variants_table()))
    panel.decimals(1)
    panel.override_by_name("day", has(unit=DATE))
    columns_have(panel, ("users", "impressions", "clicks"), unit=COUNT, decimals=0)
    panel.override_by_name("reading", has(custom__minWidth=320))
    return panel
