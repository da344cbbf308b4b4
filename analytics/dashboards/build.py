"""Makes the dashboard: ``make dashboard`` writes ``personalization.json`` beside this file.

| module | is |
| --- | --- |
| `variables.py` | what a reader picks: data sources, namespace, surface, baseline |
| `promql.py`, `sql.py` | the queries of the panels |
| `panels.py` | what panels have in common |
| `requested.py`, `guardrails.py`, `telemetry.py`, `decisions.py` | the panels, room by room |
| `build.py` | puts them together |

A module imports only from those above it. Names of metrics come from the telemetry contract,
records, limits and addresses from ``monitoring/prometheus``, columns from the nightly job's tables.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from analytics.dashboards import decisions, guardrails, requested, telemetry
from analytics.dashboards.panels import link, over_time
from analytics.dashboards.promql import Queries
from analytics.dashboards.variables import PROMETHEUS, variables
from monitoring.prometheus.promql import NAMESPACE
from monitoring.prometheus.values import Values, load
from otel_personalization.conventions import DAILY_ORG, SURFACE

JSON: Final = Path(__file__).with_name("personalization.json")


def personalization(values: Values) -> dashboard.Dashboard:
    """The dashboard.

    Args:
        values: those of values.yaml, which the rules are made of, too.
    """
    links = values["links"]
    made = (
        build.Dashboard("Personalisation")
        # Alerts link to it.
        .uid(links["dashboard"].rpartition("/")[2])
        .description(
            "Does personalisation still reach users, and do they still see different things? "
            "Panels say in their description how to read them, and link to a runbook."
        )
        .tags(["recsys", "personalization"])
        .timezone("utc")
        .time("now-24h", "now")
        .refresh("1m")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(link("Runbooks", links["runbook"].format(alert="index")))
    )
    for variable in variables(values):
        made.with_variable(variable)
    for annotation in _annotations(values):
        made.annotation(annotation)
    for panel in requested.panels(values):
        made.with_panel(panel)
    for title, room in (
        ("Guardrails", guardrails),
        ("The telemetry itself", telemetry),
        ("Single decisions", decisions),
    ):
        made.with_row(build.Row(title))
        for panel in room.panels(values):
            made.with_panel(panel)
    whole = made.build()
    _number(whole)
    return whole


def _annotations(values: Values) -> list[build.AnnotationQuery]:
    queries = Queries(values)
    of_users = queries.alerts("ratio", "source", "daily")
    of_telemetry = queries.alerts("absent", "pipeline")
    return [
        _annotation("Alerts", of_users, "red").enable(enable=True),
        _annotation("Alerts of the telemetry", of_telemetry, "orange").enable(enable=False),
    ]


def _annotation(name: str, expr: str, color: str) -> build.AnnotationQuery:
    return (
        build.AnnotationQuery()
        .name(name)
        .datasource(PROMETHEUS)
        .icon_color(color)
        .expr(expr)
        .target(over_time(expr, ""))
        .step("60s")
        .title_format("{{alertname}}")
        .text_format(f"{{{{{NAMESPACE}}}}}/{{{{{SURFACE}}}}}")
        .tag_keys(f"severity,{DAILY_ORG}")
    )


def _number(whole: dashboard.Dashboard) -> None:
    """Give each panel its number: links to a single panel name it."""
    for number, panel in enumerate(whole.panels or (), 1):
        panel.id_val = number


def written(values: Values) -> str:
    """The dashboard as Grafana reads it."""
    text = json.dumps(personalization(values), cls=JSONEncoder, indent=2, ensure_ascii=False)
    return f"{text}\n"


def main() -> None:
    """Write the file."""
    JSON.write_text(written(load()))


if __name__ == "__main__":
    main()
