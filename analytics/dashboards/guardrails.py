"""The row of guardrails: what goes wrong before shares show it."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard

from analytics.dashboards import sql
from analytics.dashboards.panels import (
    ALL_RUNBOOKS,
    BAD,
    CLEAR,
    COUNT,
    DATE,
    HALF,
    SHARE,
    Maker,
    columns_have,
    drawn,
    has,
    only_this_surface,
    over_time,
    steps,
)
from analytics.dashboards.promql import Queries, legend
from analytics.dashboards.sql import SqlQuery
from monitoring.prometheus.promql import NAMESPACE, OF_SURFACE
from monitoring.prometheus.values import Values
from otel_personalization import conventions as names


def panels(values: Values) -> Iterable[Builder[dashboard.Panel]]:
    """All of them."""
    make, queries = Maker(values), Queries(values)
    yield _collaborative(make, queries)
    yield _streaks(make)
    yield _cold_start(make, queries, values)
    yield _empty(make, queries)


def _collaborative(make: Maker, queries: Queries) -> Builder[dashboard.Panel]:
    collaborative = f'{names.SOURCE}="{names.COLLABORATIVE_SOURCE}"'
    expr = queries.share(
        names.SOURCE_EMPTY_DECISIONS, names.SOURCE_DECISIONS, (NAMESPACE,), collaborative
    )
    return (
        make.lines(
            "Collaborative source without a candidate",
            "By namespace, of the decisions in which the collaborative source took part, the share "
            "in which it found nothing new. A third is common on a healthy day; 1 for long is an "
            "outage of it, which served counts do not show. Some namespaces never have a "
            "candidate: the alert knows them.",
            runbook="CollaborativeSourceEmpty",
            unit=SHARE,
            no_value="the source took no part",
        )
        .with_target(over_time(expr, legend(NAMESPACE)))
        .thresholds(steps((None, CLEAR), (1, BAD)))
        .thresholds_style(drawn(common.GraphThresholdsStyleMode.LINE))
        .min(0)
        .max(1)
    )


def _streaks(make: Maker) -> Builder[dashboard.Panel]:
    panel = make.table(
        "Longest runs without a candidate",
        "Of the newest night, by source: in how many decisions it took part, in how many of them "
        "it found nothing, and the longest run of those, in the order of time. Decisions without "
        "the source are skipped. A run as long as the column before it: the source was empty at a "
        "stretch; many short runs: it often finds nothing new.",
        runbook="CollaborativeSourceEmpty",
        width=HALF,
        height=9,
        no_value="-",
    ).with_target(SqlQuery(sql.streaks()))
    panel.override_by_name("day", has(unit=DATE))
    columns_have(panel, ("decisions", "empty", "longest run"), unit=COUNT, decimals=0)
    return panel


def _cold_start(make: Maker, queries: Queries, values: Values) -> Builder[dashboard.Panel]:
    _, ceiling = values["cold_start"]["band"]
    shop = "the shop's own count, all of it"
    return (
        make.lines(
            "Cold-start items",
            "By surface, the share of served items that are cold-start ones. Above the line for "
            "hours, new items crowd out the others. Dashed, on the right axis: how many the shop "
            "counted itself, cold_start_impression. That is another thing, with other labels, and "
            "the two need not agree; see whether they move together.",
            runbook="ColdStartExposureOutOfBand",
            unit=SHARE,
        )
        .with_target(
            over_time(
                queries.share(names.COLD_START_ITEMS, names.SERVED_ITEMS), legend(*OF_SURFACE)
            )
        )
        .with_target(over_time(queries.shop_cold_start(), shop, "B"))
        .thresholds(steps((None, CLEAR), (ceiling, BAD)))
        .thresholds_style(drawn(common.GraphThresholdsStyleMode.DASHED))
        .min(0)
        .override_by_name(
            shop,
            has(
                unit=COUNT,
                custom__axisPlacement="right",
                custom__axisLabel="impressions in a step",
                custom__lineStyle={"fill": "dash", "dash": [8, 6]},
            ),
        )
        .data_links([only_this_surface()])
    )


def _empty(make: Maker, queries: Queries) -> Builder[dashboard.Panel]:
    return (
        make.lines(
            "Decisions that served nothing",
            "By surface, the share of decisions without a single item. Such a decision is in no "
            "other share, so that these can be fine while users look at empty shelves. A step up "
            "comes of a filter, a rule or a catalogue that leaves nothing.",
            runbook=ALL_RUNBOOKS,
            unit=SHARE,
            no_value="no decisions",
        )
        .with_target(
            over_time(queries.share(names.EMPTY_DECISIONS, names.DECISIONS), legend(*OF_SURFACE))
        )
        .min(0)
        .axis_soft_max(0.1)
        .data_links([only_this_surface()])
    )
