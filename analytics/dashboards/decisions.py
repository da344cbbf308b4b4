"""The row of single decisions: the log lines of what was picked, each with its trace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard

from analytics.dashboards.panels import (
    ALL_RUNBOOKS,
    COLUMNS,
    PLAIN,
    Maker,
    has,
    lines_of,
)
from analytics.dashboards.variables import LOKI
from monitoring.prometheus.values import Values
from otel_personalization.conventions import DECISION_EVENT

MOST_LINES: Final = 200
TRACE: Final = "trace_id"
FROM_THE_LINE: Final = (
    "served_items_count",
    "personalized_items_count",
    "reason_items_count",
    "k",
    "experiment",
    "variant",
)
"""Fields that are read from it."""


def panels(values: Values) -> Iterable[Builder[dashboard.Panel]]:
    """All of them."""
    make = Maker(values)
    yield _table(make, values)
    yield _lines(make, values)


def selected(values: Values) -> str:
    """LogQL of the lines of decisions of what was picked.

    Names in lines are never folded: those that counters call `other` stand there as they are.
    """
    streams = ",".join(
        (
            # Loki wants one that does not match nothing.
            'service_name=~".+"',
            f'namespace!="{values["doctor_namespace"]}"',
            'namespace=~"$namespace"',
            'deployment_environment=~"$environment"',
        )
    )
    return f'{{{streams}}} | event="{DECISION_EVENT}" | surface=~"$surface"'


def _table(make: Maker, values: Values) -> Builder[dashboard.Panel]:
    fields = ", ".join(f'{field}="{field}"' for field in FROM_THE_LINE)
    order = ("Time", "namespace", "surface", "decision_id", *FROM_THE_LINE, TRACE)
    return (
        make.table(
            "Decisions",
            f"The newest {MOST_LINES} decisions of the namespaces, surfaces and time picked, with "
            "their counts. Click a trace id to see what the service did meanwhile. Lines may be "
            "samples; shares come from counters, and not from here.",
            runbook=ALL_RUNBOOKS,
            source=LOKI,
            unit=PLAIN,
            width=COLUMNS,
            no_value="-",
        )
        .with_target(lines_of(f"{selected(values)} | json {fields}", MOST_LINES))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="extractFields", options={"source": "labels", "replace": False}
            )
        )
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="filterFieldsByName", options={"include": {"names": list(order)}}
            )
        )
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={"indexByName": {name: place for place, name in enumerate(order)}},
            )
        )
        .override_by_name(
            TRACE,
            has(
                links=[
                    {
                        "title": "Trace",
                        "url": "${traces:raw}${__value.raw}",
                        "targetBlank": True,
                    }
                ]
            ),
        )
    )


def _lines(make: Maker, values: Values) -> Builder[dashboard.Panel]:
    return make.log_lines(
        "Log lines",
        "The same decisions as their lines were written. Open one for all its fields; the trace id "
        "among them has a link, if the data source of Loki has one, as the one that comes with "
        "this dashboard does.",
        runbook="LogsDisagree",
    ).with_target(lines_of(selected(values), MOST_LINES))
