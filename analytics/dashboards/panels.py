"""What panels have in common: how to read them, their runbook, a data source that is picked.

A room of the dashboard makes its panels by a `Maker`::

    make.lines("Reason coverage", "How to read it.", runbook="ReasonCoverageLow", unit=SHARE)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

from grafana_foundation_sdk.builders import (
    barchart,
    logs,
    loki,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from analytics.dashboards.promql import MIN_STEP
from analytics.dashboards.variables import LOKI, POSTGRES, PROMETHEUS
from monitoring.prometheus.promql import NAMESPACE
from monitoring.prometheus.values import Values
from otel_personalization.conventions import SURFACE

COLUMNS: Final = 24
HALF: Final = COLUMNS // 2

SHARE: Final = "percentunit"
COUNT: Final = "short"
SECONDS: Final = "s"
PLAIN: Final = "none"
DATE: Final = "time:YYYY-MM-DD"

GREY: Final = "#8e8e8e"
CLEAR: Final = "transparent"
GOOD: Final = "green"
FAIR: Final = "yellow"
BAD: Final = "red"
ALL_RUNBOOKS: Final = "index"
"""The page about all of them, of panels that no alert is about."""

_KEPT: Final = ("prometheus", "loki", "postgres", "environment", "baseline", "ctr", "traces")
ONLY_THIS_SURFACE: Final = "&".join(
    (
        "/d/${__dashboard.uid}?${__url_time_range}",
        *(f"${{{variable}:queryparam}}" for variable in _KEPT),
        f"var-namespace=${{__field.labels.{NAMESPACE}:percentencode}}",
        f"var-surface=${{__field.labels.{SURFACE}:percentencode}}",
    )
)
"""Of a line of a surface: this dashboard, with that surface alone."""


class _Panel(Protocol):
    """What builders of panels of every type have."""

    def title(self, title: str) -> Any: ...
    def description(self, description: str) -> Any: ...
    def links(self, links: list[Any]) -> Any: ...
    def datasource(self, datasource: common.DataSourceRef) -> Any: ...
    def unit(self, unit: str) -> Any: ...
    def span(self, w: int) -> Any: ...
    def height(self, h: int) -> Any: ...
    def no_value(self, no_value: str) -> Any: ...


P = TypeVar("P", bound=_Panel)


class Maker:
    """Makes panels of each type, with what all have.

    Args:
        values: those of values.yaml; they say where the runbooks are.
    """

    def __init__(self, values: Values) -> None:
        self._runbook: str = values["links"]["runbook"]

    def lines(
        self,
        title: str,
        how_to_read: str,
        *,
        runbook: str,
        unit: str,
        width: int = HALF,
        no_value: str = "nothing was served",
    ) -> timeseries.Panel:
        """Lines over time, with gaps where there is no value."""
        legend = (
            build_common.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.RIGHT)
            .show_legend(show_legend=True)
            .calcs(["min", "lastNotNull"])
        )
        tooltip = (
            build_common.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.ASCENDING)
        )
        panel = (
            timeseries.Panel()
            .legend(legend)
            .tooltip(tooltip)
            .interval(MIN_STEP)
            .line_width(1)
            .fill_opacity(0)
            .show_points(common.VisibilityMode.NEVER)
            # A gap is what shows that nothing was served.
            .span_nulls(span_nulls=False)
        )
        return self._whole(
            panel,
            title,
            how_to_read,
            runbook=runbook,
            source=PROMETHEUS,
            unit=unit,
            width=width,
            height=9,
            no_value=no_value,
        )

    def table(
        self,
        title: str,
        how_to_read: str,
        *,
        runbook: str,
        source: common.DataSourceRef = POSTGRES,
        unit: str = SHARE,
        width: int = COLUMNS,
        height: int = 10,
        no_value: str = "",
    ) -> table.Panel:
        """A table of rows; the unit is that of its numbers, but for columns that have their own."""
        panel = table.Panel().filterable(filterable=True).cell_height(common.TableCellHeight.SM)
        return self._whole(
            panel,
            title,
            how_to_read,
            runbook=runbook,
            source=source,
            unit=unit,
            width=width,
            height=height,
            no_value=no_value,
        )

    def bars(
        self, title: str, how_to_read: str, *, runbook: str, unit: str, x: str, no_value: str
    ) -> barchart.Panel:
        """Bars by what a column holds."""
        legend = (
            build_common.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        panel = (
            barchart.Panel()
            .x_field(x)
            .legend(legend)
            .x_tick_label_rotation(-45)
            .x_tick_label_spacing(100)
            .fill_opacity(80)
        )
        return self._whole(
            panel,
            title,
            how_to_read,
            runbook=runbook,
            source=POSTGRES,
            unit=unit,
            width=HALF,
            height=10,
            no_value=no_value,
        )

    def numbers(self, title: str, how_to_read: str, *, runbook: str, unit: str) -> stat.Panel:
        """A few numbers, as they are now."""
        last = build_common.ReduceDataOptions().calcs(["lastNotNull"])
        return self._whole(
            stat.Panel().reduce_options(last).graph_mode(common.BigValueGraphMode.NONE),
            title,
            how_to_read,
            runbook=runbook,
            source=PROMETHEUS,
            unit=unit,
            width=HALF,
            height=9,
            no_value="never",
        )

    def log_lines(self, title: str, how_to_read: str, *, runbook: str) -> logs.Panel:
        """Lines as they were written."""
        panel = (
            logs.Panel()
            .show_time(show_time=True)
            .enable_log_details(enable_log_details=True)
            .sort_order(common.LogsSortOrder.DESCENDING)
        )
        return self._whole(
            panel,
            title,
            how_to_read,
            runbook=runbook,
            source=LOKI,
            unit=PLAIN,
            width=COLUMNS,
            height=10,
            no_value="no lines",
        )

    def _whole(
        self,
        panel: P,
        title: str,
        how_to_read: str,
        *,
        runbook: str,
        source: common.DataSourceRef,
        unit: str,
        width: int,
        height: int,
        no_value: str,
    ) -> P:
        url = self._runbook.format(alert=runbook)
        name = "all runbooks" if runbook == ALL_RUNBOOKS else runbook
        panel.title(title)
        panel.description(how_to_read)
        panel.links([link(f"Runbook: {name}", url)])
        panel.datasource(source)
        panel.unit(unit)
        panel.span(width)
        panel.height(height)
        panel.no_value(no_value)
        return panel


# --- queries ----------------------------------------------------------------------------------


def over_time(expr: str, legend: str, ref_id: str = "A") -> prometheus.Dataquery:
    """PromQL, for each step of the time range."""
    return _promql(expr, legend, ref_id).range()


def now(expr: str, legend: str, ref_id: str = "A") -> prometheus.Dataquery:
    """PromQL, at the end of the time range, for a number."""
    return _promql(expr, legend, ref_id).instant()


def _promql(expr: str, legend: str, ref_id: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().datasource(PROMETHEUS).expr(expr)
    return query.legend_format(legend).ref_id(ref_id)


def rows_now(expr: str) -> prometheus.Dataquery:
    """PromQL, at the end of the time range, for a table with a row for each series."""
    return now(expr, "").format(PromQueryFormat.TABLE)


def lines_of(expr: str, most: int) -> loki.Dataquery:
    """LogQL that gives lines, the newest first."""
    return (
        loki.Dataquery()
        .datasource(LOKI)
        .expr(expr)
        .max_lines(most)
        .ref_id("A")
        .range(range_val=True)
    )


# --- how it looks -----------------------------------------------------------------------------


def link(title: str, url: str) -> build.DashboardLink:
    """A link that opens a page of its own."""
    return (
        build.DashboardLink(title)
        .type(dashboard.DashboardLinkType.LINK)
        .url(url)
        .target_blank(target_blank=True)
    )


def only_this_surface() -> build.DashboardLink:
    """What a click on a line of a surface offers."""
    return build.DashboardLink("Only this surface").url(ONLY_THIS_SURFACE)


def steps(*bounds: tuple[float | None, str]) -> build.ThresholdsConfig:
    """Colours from a value on; the first is from minus infinity on, None."""
    found = [dashboard.Threshold(value=value, color=color) for value, color in bounds]
    return build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(found)


def drawn(mode: common.GraphThresholdsStyleMode) -> build_common.GraphThresholdsStyleConfig:
    """How thresholds are drawn behind lines."""
    return build_common.GraphThresholdsStyleConfig().mode(mode)


def has(**properties: object) -> list[dashboard.DynamicConfigValue]:
    """Properties of an override; ``custom__axisPlacement`` is ``custom.axisPlacement``."""
    return [
        dashboard.DynamicConfigValue(id_val=name.replace("__", "."), value=value)
        for name, value in properties.items()
    ]


def greyed(text: str) -> dashboard.SpecialValueMap:
    """What stands, in grey, where there is no value."""
    shown = dashboard.ValueMappingResult(text=text, color=GREY, index=0)
    return dashboard.SpecialValueMap(
        options=dashboard.DashboardSpecialValueMapOptions(
            match=dashboard.SpecialValueMatch.NULL_AND_NAN, result=shown
        )
    )


def columns_have(panel: table.Panel, columns: Sequence[str], **properties: object) -> None:
    """The same properties for several columns of a table."""
    for column in columns:
        panel.override_by_name(column, has(**properties))
