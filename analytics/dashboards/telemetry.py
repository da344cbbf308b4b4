"""The row about the telemetry itself: whether what the panels above show can be believed."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard

from analytics.dashboards.panels import (
    BAD,
    CLEAR,
    COUNT,
    GOOD,
    HALF,
    PLAIN,
    SECONDS,
    SHARE,
    Maker,
    drawn,
    has,
    now,
    only_this_surface,
    over_time,
    rows_now,
    steps,
)
from analytics.dashboards.promql import SELECTED, legend
from analytics.dashboards.variables import PROMETHEUS
from monitoring.prometheus import recording as records
from monitoring.prometheus.promql import NAMESPACE, OF_SURFACE, metric
from monitoring.prometheus.values import SECONDS as SECONDS_OF
from monitoring.prometheus.values import Values
from otel_personalization import conventions as names

AGE, LAST_RUN = "age of the newest day", "last run"


def panels(values: Values) -> Iterable[Builder[dashboard.Panel]]:
    """All of them."""
    make = Maker(values)
    yield _view(make, values)
    yield _log_lines(make, values)
    yield _faults(make, values)
    yield _malformed(make, values)
    yield _nightly(make, values)
    yield _too_small(make)


def _view(make: Maker, values: Values) -> Builder[dashboard.Panel]:
    views = values["views"]
    # Inf is what is recorded where there is no view; it cannot be drawn.
    expr = f"clamp_max({records.VIEW_DIFFERENCE}{views['window']}{SELECTED}, 1)"
    return (
        make.lines(
            "Views against raw counters",
            f"By view and surface, how far the Collector's view is from the counters, over "
            f"{views['window']}: 0.01 is one point of share. Above the line do not believe the "
            "panels of shares; alerts go by the counters and are right. 1: there is no view. Only "
            "surfaces with enough decisions are compared.",
            runbook="ViewDisagrees",
            unit=SHARE,
            no_value="nothing to compare yet",
        )
        .with_target(over_time(expr, f"{{{{view}}}} {legend(*OF_SURFACE)}"))
        .thresholds(steps((None, CLEAR), (views["max_difference"], BAD)))
        .thresholds_style(drawn(common.GraphThresholdsStyleMode.DASHED))
        .min(0)
        .axis_soft_max(0.05)
        .data_links([only_this_surface()])
    )


def _log_lines(make: Maker, values: Values) -> Builder[dashboard.Panel]:
    logs = values["logs"]
    window, off = logs["window"], logs["max_difference"]
    return (
        make.lines(
            "Log lines against counters",
            f"Decisions by log lines over decisions by counters, over {window}; sampled lines "
            "count for those that they stand for. 1 is right. Outside the dashed limits, log "
            "records are being lost or read twice, beyond what sampling explains. It is of all "
            "services together.",
            runbook="LogsDisagree",
            unit=SHARE,
            no_value="no log lines are counted",
        )
        .with_target(over_time(f"{records.LOG_RATIO}{window}", "lines / decisions"))
        .thresholds(steps((None, BAD), (1 - off, CLEAR), (1 + off, BAD)))
        .thresholds_style(drawn(common.GraphThresholdsStyleMode.DASHED))
        .min(0)
        .axis_soft_max(1.25)
    )


def _faults(make: Maker, values: Values) -> Builder[dashboard.Panel]:
    window = values["library"]["window"]
    panel = make.lines(
        "Dropped lines, folded decisions, internal errors",
        f"By service, over {window}: log lines lost to a full queue or a failed write, decisions "
        "counted as `other` because there were too many surfaces, and faults of the library. All "
        "are 0 on a good day. A line that is lost is no count that is lost.",
        runbook="DroppedLogRecords",
        unit=COUNT,
        no_value="no service is counted",
    )
    for ref_id, what, counter in (
        ("A", "dropped lines", names.DROPPED_LOG_RECORDS),
        ("B", "folded decisions", names.FOLDED_DECISIONS),
    ):
        panel.with_target(
            over_time(f"job:{metric(counter)}:increase{window}", f"{what} {legend('job')}", ref_id)
        )
    errors = f"job_kind:{metric(names.INTERNAL_ERRORS)}:increase{window}"
    panel.with_target(over_time(errors, f"errors {legend('job', names.KIND)}", "C"))
    return panel.min(0)


def _malformed(make: Maker, values: Values) -> Builder[dashboard.Panel]:
    window = values["library"]["window"]
    return (
        make.lines(
            "Malformed traces",
            f"By service and reason, over {window}: traces that could not be counted, and so are "
            "in no share. A few are odd traces; a step up is a release that changed the trace.",
            runbook="MalformedTraces",
            unit=COUNT,
            no_value="none",
        )
        .with_target(
            over_time(
                f"job_reason:{metric(names.MALFORMED_TRACES)}:increase{window}",
                legend("job", names.REASON),
            )
        )
        .min(0)
    )


def _nightly(make: Maker, values: Values) -> Builder[dashboard.Panel]:
    day = SECONDS_OF["d"]
    late = 2 * day + values["daily_job"]["hour"] * SECONDS_OF["h"]
    org = names.DAILY_ORG
    age = f"time() - max by ({org}) ({names.DAILY_DATE.prometheus_name})"
    last = f"min by ({org}) ({names.DAILY_LAST_RUN_SUCCESS.prometheus_name})"
    said = {
        "0": {"text": "failed", "color": BAD, "index": 0},
        "1": {"text": "succeeded", "color": GOOD, "index": 1},
    }
    return (
        make.numbers(
            "Nightly job",
            "By organisation, how long ago the newest day of data began: up to two days and "
            f"{values['daily_job']['hour']} hours are right, for yesterday's is made at night. And "
            "how the last run ended. Overlap, entropy and CTR by variant are as old as this.",
            runbook="DailyJobLate",
            unit=SECONDS,
        )
        .with_target(now(age, f"{AGE} {legend(org)}"))
        .with_target(now(last, f"{LAST_RUN} {legend(org)}", "B"))
        .thresholds(steps((None, GOOD), (late, BAD)))
        .override_by_query(
            "B",
            has(
                unit=PLAIN,
                thresholds={"mode": "absolute", "steps": [{"value": None, "color": CLEAR}]},
                mappings=[{"type": "value", "options": said}],
            ),
        )
    )


def _too_small(make: Maker) -> Builder[dashboard.Panel]:
    judged = f"surface:{records.JUDGED_BY}{SELECTED} == 0"
    panel = make.table(
        "Surfaces too small to judge",
        "Alerts that cannot judge a surface, since even the longest of their windows holds too few "
        "effective decisions. It may be broken and nobody is told: look at it above, over days. "
        "Empty: every surface can be judged.",
        runbook="PersonalizationDropLowTraffic",
        source=PROMETHEUS,
        unit=PLAIN,
        width=HALF,
        height=9,
        no_value="-",
    ).with_target(rows_now(judged))
    shown = {"check": 0, NAMESPACE: 1, names.SURFACE: 2}
    return panel.with_transformation(
        dashboard.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True, "Value": True, "__name__": True},
                "indexByName": shown,
                "renameByName": {"check": "alert", NAMESPACE: "namespace"},
            },
        )
    )
