"""The variables of the dashboard: what a reader picks above the panels.

No query names a data source, a namespace or a surface; each names one of these::

    >>> PROMETHEUS.uid
    '${prometheus}'
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.common import DataSourceRef

from monitoring.prometheus.promql import NAMESPACE, OF_SURFACE, decided
from monitoring.prometheus.values import Values
from otel_personalization import conventions as names

PROMETHEUS: Final = DataSourceRef("prometheus", "${prometheus}")
LOKI: Final = DataSourceRef("loki", "${loki}")
POSTGRES: Final = DataSourceRef("grafana-postgresql-datasource", "${postgres}")

ENVIRONMENT: Final = "deployment_environment_name"
"""Label of counters and views; rules add up whatever environments a Prometheus holds."""
ANY: Final = ".*"
"""What stands in queries for All. Grafana puts it there as it is, whatever the format."""
OF_THE_RULES: Final = "0"
"""Value of the variable ``baseline`` that leaves it to the rules."""


def variables(values: Values) -> Iterable[Builder[dashboard.VariableModel]]:
    """The variables, in the order in which they stand above the panels."""
    yield _data_source("prometheus", "Prometheus", PROMETHEUS, "Counters, views, rules, gauges.")
    yield _data_source("loki", "Loki", LOKI, "The log lines of decisions.")
    yield _data_source("postgres", "PostgreSQL", POSTGRES, "The tables of the nightly job.")
    decisions = names.DECISIONS.prometheus_name
    environment = f'{ENVIRONMENT}=~"$environment"'
    yield _labels(
        "environment",
        f"label_values({decisions}{decided(values)}, {ENVIRONMENT})",
        "Of counters, views and log lines. Series of rules and nightly tables do not have it.",
    )
    yield _labels(
        "namespace",
        f"label_values({decisions}{decided(values, environment)}, {NAMESPACE})",
        "Namespaces that have decisions in Prometheus.",
    )
    selected = decided(values, environment, f'{NAMESPACE}=~"$namespace"')
    yield _labels(
        "surface",
        f"label_values({decisions}{selected}, {names.SURFACE})",
        "Surfaces of the namespaces.",
    )
    yield _baseline()
    yield _text(
        "ctr",
        "CTR",
        click_through(values),
        "PromQL of a click-through rate, 0 to 1, by recsys_namespace and surface. Write that of "
        "your own counters, if the service does not report impressions and clicks to the library.",
    )
    yield _text(
        "traces",
        "Traces",
        "http://localhost:16686/trace/",
        "What a trace id is put behind to see the trace; this is Jaeger's.",
    )


def click_through(values: Values) -> str:
    """PromQL of click-through by what hosts report, over the window of the share beside it."""
    window, by = values["personalization"]["windows"][0], ", ".join(OF_SURFACE)
    clicks, impressions = (
        f"sum by ({by}) (increase({counter.prometheus_name}[{window}]))"
        for counter in (names.CLICKS, names.IMPRESSIONS)
    )
    return f"{clicks} / ({impressions} > 0)"


def _data_source(
    name: str, label: str, source: DataSourceRef, what: str
) -> Builder[dashboard.VariableModel]:
    return build.DatasourceVariable(name).label(label).type(source.type_val or "").description(what)


def _labels(name: str, query: str, what: str) -> Builder[dashboard.VariableModel]:
    return (
        build.QueryVariable(name)
        .label(name.capitalize())
        .description(what)
        .datasource(PROMETHEUS)
        .query(query)
        .definition(query)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(ANY)
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )


def _baseline() -> Builder[dashboard.VariableModel]:
    label = "of the rules"
    shares = (f"{share / 100:.2f}" for share in range(50, 75, 5))
    return (
        build.CustomVariable("baseline")
        .label("Baseline")
        .description(
            "Share of served items that is normal, 0 to 1; any other can be typed in. Alerts go by "
            "that of the rules, values.yaml, whatever is picked here."
        )
        .values(", ".join((f"{label} : {OF_THE_RULES}", *shares)))
        .allow_custom_value(allow_custom_value=True)
        .current(dashboard.VariableOption(selected=True, text=label, value=OF_THE_RULES))
    )


def _text(name: str, label: str, default: str, what: str) -> Builder[dashboard.VariableModel]:
    return (
        build.TextBoxVariable(name)
        .label(label)
        .description(what)
        .default_value(default)
        .current(dashboard.VariableOption(selected=True, text=default, value=default))
    )
