"""The alerts. What they compare is recorded; here stand the comparison, and what a person is told.

Texts have places in angle brackets: ``<surface>`` becomes what Prometheus fills in when it fires.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from monitoring.prometheus import recording as records
from monitoring.prometheus.promql import (
    NAMESPACE,
    OF_SOURCE,
    OF_SURFACE,
    Group,
    Rule,
    Windows,
    any_of,
    decided,
    either,
    grouped,
    grown,
    metric,
    quoted,
)
from monitoring.prometheus.values import SECONDS, Values, percent
from otel_personalization import conventions as names
from otel_personalization.conventions import Gauge, InternalErrorKind

PLACES: Final = {
    "surface": f"{{{{ $labels.{NAMESPACE} }}}}/{{{{ $labels.{names.SURFACE} }}}}",
    "namespace": f"{{{{ $labels.{NAMESPACE} }}}}",
    "share": "{{ $value | humanizePercentage }}",
    "count": "{{ $value | humanize }}",
    **{
        label: f"{{{{ $labels.{label} }}}}"
        for label in (names.SOURCE, names.REASON, names.KIND, "job", "view")
    },
}
"""Place in a text -> template."""
POINTS: Final = 'humanizePercentage | reReplaceAll "%" " percentage points"'
"""Shows a difference of two shares."""
OF_ORGANISATION: Final = (*OF_SURFACE, names.DAILY_ORG)
"""A surface as the nightly job knows it: each organisation has a run, and figures, of its own."""


def lookup(
    series: str,
    labels: Sequence[str],
    show: str,
    *,
    otherwise: str = "?",
    within: str = "%s",
) -> str:
    """A template of the value of a series with the labels of the alert.

    Args:
        series: a name, or a selector without its closing brace.
        labels: those that the series shares with the alert.
        show: the template function by which it is shown.
        otherwise: what is shown if there is no such series.
        within: PromQL that is asked of it, ``%s`` being the series.
    """
    matchers = ",".join(f"{label}=%q" for label in labels)
    selector = within % f"{series}{',' if '{' in series else '{'}{matchers}}}"
    filled = "".join(f" $labels.{label}" for label in labels)
    return (
        f"{{{{ with printf `{selector}`{filled} | query }}}}{{{{ . | first | value | {show} }}}}"
        f"{{{{ else }}}}{otherwise}{{{{ end }}}}"
    )


def _window_of(alert: str, labels: Sequence[str] = OF_SURFACE) -> str:
    """The window by which an alert judges."""
    level = "surface" if labels == OF_SURFACE else "namespace_source"
    series = f'{level}:{records.JUDGED_BY}{{check="{alert}"'
    return lookup(series, labels, "humanizeDuration")


def _organisation(word: str) -> str:
    """Names the organisation of an alert, after a word such as "of", where the alert has one."""
    return f"{{{{ with $labels.{names.DAILY_ORG} }}}} {word} organisation {{{{ . }}}}{{{{ end }}}}"


def _limit(record: str) -> str:
    return lookup(record, OF_SURFACE, "humanizePercentage")


def _day(series: str, labels: Sequence[str]) -> str:
    """The date of the newest of a series of timestamps."""
    show = 'humanizeTimestamp | reReplaceAll " .*" ""'
    return lookup(series, labels, show, otherwise="no day", within="max(%s)")


class _Maker:
    """Makes alerts with the labels and annotations that all have."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def __call__(
        self,
        name: str,
        expr: str,
        *,
        to: str,
        signal: str,
        summary: str,
        description: str,
        why: str = "",
        places: Mapping[str, str] | None = None,
        labels: Sequence[str] = OF_SURFACE,
        hold: str = "",
        keep: str = "",
    ) -> Rule:
        """An alert.

        Args:
            name: its name.
            expr: PromQL.
            to: its receiver.
            signal: what it is about: ``ratio``, ``source``, ``absent``, ``daily``, ``pipeline`` or
                ``watchdog``. Alertmanager mutes by it.
            summary: one line.
            description: the value, and what it is compared with.
            why: a comment above it.
            places: further places of the texts.
            labels: that its series have.
            hold: how long its condition holds before it fires.
            keep: how long it goes on firing afterwards.
        """
        links = self._values["links"]
        # Not $activeAt, which templates have not: Prometheus keeps it as a series.
        since = lookup(
            f'ALERTS_FOR_STATE{{alertname="{name}"', labels, "humanizeTimestamp", otherwise="now"
        )
        known = PLACES | dict(places or {})

        def filled(text: str) -> str:
            return re.sub(r"<(\w+)>", lambda place: known[place[1]], text)

        variables = "&".join(
            f"var-{variable}={{{{ $labels.{label} | urlquery }}}}"
            for variable, label in (("namespace", NAMESPACE), ("surface", names.SURFACE))
            if label in labels
        )
        return Rule(
            name,
            expr,
            why,
            self._values["receivers"][to] | {"signal": signal},
            hold,
            keep,
            {
                "summary": filled(summary),
                "description": filled(description),
                "since": since,
                "dashboard_url": links["dashboard"] + (f"?{variables}" if variables else ""),
                "runbook_url": links["runbook"].format(alert=name),
            },
        )


def alerts(values: Values) -> list[Group]:
    """The group of alerts."""
    alert = _Maker(values)
    return [
        Group(
            "personalization.alerts",
            values["evaluation"]["interval"],
            [
                *_personalization(values, alert),
                *_reasons(values, alert),
                *_cold_start(values, alert),
                *_source(values, alert),
                *_daily(values, alert),
                *_presence(values, alert),
                *_pipeline(values, alert),
                *_faults(values, alert),
                alert(
                    "Watchdog",
                    "vector(1)",
                    why="Whoever expects it notices when Prometheus or Alertmanager is gone.",
                    to="watchdog",
                    signal="watchdog",
                    summary="Alerts are evaluated and sent",
                    description="This alert always fires. Something is wrong if it stops.",
                    labels=(),
                ),
            ],
        )
    ]


def _personalization(values: Values, alert: _Maker) -> Iterable[Rule]:
    section, baseline = values["personalization"], values["baseline"]
    for name, operation, to, keep, why in (
        ("PersonalizationDrop", "ratio_judged", "page", section["keep_firing_for"], ""),
        (
            "PersonalizationDropLowTraffic",
            "ratio_judged_low_traffic",
            "ticket",
            "",
            "The same, where only days hold enough decisions.",
        ),
    ):
        yield alert(
            name,
            f"{records.PERSONALIZED}:{operation} < {records.PERSONALIZED}:threshold",
            why=why,
            to=to,
            signal="ratio",
            summary="Personalised share of <surface> is <share>",
            description="Of the items that <surface> served in the last <window>, <share> were "
            "personalised. The threshold is <threshold>.",
            places={
                "window": _window_of(name),
                "threshold": _limit(f"{records.PERSONALIZED}:threshold"),
            },
            hold=section["for"],
            keep=keep,
        )
    name, drop = "PersonalizationBelowBaseline", baseline["max_drop"]
    yield alert(
        name,
        f"{records.PERSONALIZED}:ratio_judged_baseline < "
        f"{round(1 - drop, 6)} * {records.PERSONALIZED}:baseline",
        to="ranking",
        signal="ratio",
        summary="Personalised share of <surface> is <share>, well below its baseline",
        description="Of the items that <surface> served in the last <window>, <share> were "
        f"personalised: more than {percent(drop)} less than the baseline, <baseline>.",
        places={
            "window": _window_of(name),
            "baseline": _limit(f"{records.PERSONALIZED}:baseline"),
        },
        hold=baseline["for"],
    )


def _reasons(values: Values, alert: _Maker) -> Iterable[Rule]:
    section = values["reason_coverage"]
    served = f"Of the items that <surface> served in the last {section['window']}"
    yield alert(
        "ReasonCoverageLow",
        f"{records.REASONS}:ratio_judged < {records.REASONS}:threshold",
        why="Falls, too, where callers stop asking for reasons.",
        to="ranking",
        signal="ratio",
        summary="Reason coverage of <surface> is <share>",
        description=f"{served}, <share> have a reason. The threshold is <threshold>.",
        places={"threshold": _limit(f"{records.REASONS}:threshold")},
        hold=section["for"],
    )
    yield alert(
        "RequestedReasonCoverageLow",
        f"{records.REQUESTED_REASONS}:ratio_judged < {section['requested_threshold']}",
        why="Who asks for reasons gets them, unless the instrumentation is broken.",
        to="ranking",
        signal="ratio",
        summary="Reasons that callers of <surface> asked for are missing",
        description=f"{served} to callers who asked for reasons, <share> have one. The threshold "
        f"is {percent(section['requested_threshold'])}.",
        hold=section["for"],
    )
    yield alert(
        "ReasonCoverageBelowTarget",
        f"{records.REASONS}:ratio_judged < {section['target']}",
        to="ticket",
        signal="ratio",
        summary="Reason coverage of <surface> is <share>, below its target",
        description=f"{served}, <share> have a reason. The target is {percent(section['target'])}.",
        hold=section["target_for"],
    )


def _cold_start(values: Values, alert: _Maker) -> Iterable[Rule]:
    section, ratio = values["cold_start"], f"{records.COLD_START}:ratio_judged"
    yield alert(
        "ColdStartExposureOutOfBand",
        either(
            f"{ratio} < {records.COLD_START}:floor",
            f"{ratio} > {records.COLD_START}:ceiling",
        ),
        why="New items are hardly shown, or crowd out the others.",
        to="ticket",
        signal="ratio",
        summary="Cold-start exposure of <surface> is <share>, out of its band",
        description=f"Of the items that <surface> served in the last {section['window']}, <share> "
        "were cold-start items. The band is <floor> to <ceiling>.",
        places={edge: _limit(f"{records.COLD_START}:{edge}") for edge in ("floor", "ceiling")},
        hold=section["for"],
    )


def _source(values: Values, alert: _Maker) -> Iterable[Rule]:
    section = values["collaborative"]
    judged, ever = (grown(names.CANDIDATES, over) for over in ("_judged", section["memory"]))
    conditions = {"auto": f"{{}} == 0\nand\n{ever} > 0", "always": "{} == 0"}
    parts = [
        condition.format(judged + selector)
        for mode, condition in conditions.items()
        if (selector := _namespaces_of(mode, section)) is not None
    ]
    if not parts:
        return
    name = "CollaborativeSourceEmpty"
    yield alert(
        name,
        either(*parts),
        why="By namespace, since many a surface has too few decisions. Decisions in which the "
        "source took no part do not count.",
        to="page",
        signal="source",
        summary="The <source> source of <namespace> finds nothing",
        description="In the last <window> the <source> source took part in at least "
        f"{section['min_decisions']} decisions of <namespace>, and had <count> candidates.",
        places={"window": _window_of(name, OF_SOURCE)},
        labels=OF_SOURCE,
        hold=section["for"],
        keep=section["keep_firing_for"],
    )


def _namespaces_of(mode: str, section: Values) -> str | None:
    """A selector of the namespaces of a mode; None, if there can be none."""
    others = section["namespaces"]
    if mode == section["mode"]:
        exceptions = [name for name, other in others.items() if other != mode]
        return f"{{{NAMESPACE}!~{any_of(exceptions)}}}" if exceptions else ""
    named = [name for name, other in others.items() if other == mode]
    return f"{{{NAMESPACE}=~{any_of(named)}}}" if named else None


def _daily(values: Values, alert: _Maker) -> Iterable[Rule]:
    overlap, job = values["overlap"], values["daily_job"]
    by, most = ", ".join(OF_ORGANISATION), overlap["max_pct"]

    def above(gauge: Gauge) -> str:
        return f"max by ({by}) ({gauge.prometheus_name}{decided(values)}) > {most}"

    yield alert(
        "CatalogOverlapSpike",
        f"{above(names.CATALOG_OVERLAP)}\nand\n{above(names.CATALOG_OVERLAP_PREVIOUS_DAY)}",
        why="Two consecutive days of data, not 48 hours of a gauge: the job pushes both, and where "
        "a run fails or is late they stay. Both of one organisation: of two with a surface of one "
        "name, one may be high today, and the other have been so yesterday.",
        to="ranking",
        signal="daily",
        summary="Lists of different users of <surface><organisation> are too much alike, two days "
        "in a row",
        description="On the last day of data the lists of two users of <surface><organisation> had "
        f"a Jaccard overlap of <overlap> % on average, and of more than {most} % on the day "
        "before, too: of the items that either list held, so many were in both.",
        places={
            "overlap": '{{ $value | printf "%.1f" }}',
            "organisation": _organisation("of"),
        },
        labels=OF_ORGANISATION,
        hold=job["for"],
        keep=overlap["keep_firing_for"],
    )
    yield from _nightly_job(job, alert)


def _nightly_job(job: Values, alert: _Maker) -> Iterable[Rule]:
    """By organisation, since each has a run of its own; all are empty where a run names none."""
    org, date = names.DAILY_ORG, names.DAILY_DATE.prometheus_name
    late = 2 * SECONDS["d"] + job["hour"] * SECONDS["h"]
    yield alert(
        "DailyJobLate",
        f"time() - (max by ({org}) ({date}) or on () vector(0)) >= {late}",
        why=f"Yesterday is due at {job['hour']}:00 UTC, which is two days and {job['hour']} hours "
        "after the day before yesterday began. No date at all is late, too.",
        to="ticket",
        signal="daily",
        summary="The nightly job has not delivered yesterday<organisation>",
        description="{{ if lt $value 1e9 }}The newest day of data<organisation> began <age> ago"
        "{{ else }}There is no day of data{{ end }}. Yesterday was due at "
        f"{job['hour']}:00 UTC.",
        places={
            "age": "{{ $value | humanizeDuration }}",
            "organisation": _organisation("of"),
        },
        labels=(org,),
        hold=job["for"],
    )
    success = names.DAILY_LAST_RUN_SUCCESS.prometheus_name
    yield alert(
        "DailyJobFailed",
        f"min by (job, {org}) ({success}) == 0",
        to="ticket",
        signal="daily",
        summary="The last run of the nightly job failed<organisation>",
        description="The last run<organisation> failed <ago> ago. Gauges, and as a rule "
        "tables, still show <day>.",
        places={
            "organisation": _organisation("for"),
            "ago": lookup(
                names.DAILY_LAST_RUN_TIMESTAMP.prometheus_name,
                ("job", org),
                "humanizeDuration",
                otherwise="some time",
                within="time() - max(%s)",
            ),
            # A run that names no organisation has none here, and its figures have one.
            "day": f"{{{{ if $labels.{org} }}}}{_day(date, (org,))}{{{{ else }}}}"
            f"{_day(date, ())}{{{{ end }}}}",
        },
        labels=("job", org),
        hold=job["for"],
    )


def _presence(values: Values, alert: _Maker) -> Iterable[Rule]:
    section = values["telemetry"]
    hours = section["regular_hours"]
    series = names.DECISIONS.prometheus_name + decided(values)
    expected = either(
        records.DECLARED,
        f"last_over_time({records.ACTIVE_HOURS}[{section['memory']}]) >= {hours}",
    )
    yield alert(
        "TelemetryAbsent",
        f"{grouped(expected)}\nunless\ngroup by ({', '.join(OF_SURFACE)}) ({series})",
        why="A surface that is idle has series; here no process sends any.",
        to="ticket",
        signal="absent",
        summary="No telemetry of <surface>",
        description="No process sends counters of <surface>, which is declared, or had decisions "
        f"in at least {hours} of its last 24 hours.",
        hold=section["for"],
    )
    yield alert(
        "TelemetryAbsentAll",
        f"absent({series})",
        to="page",
        signal="absent",
        summary="No telemetry of any surface",
        description="No process sends counters of decisions: nothing can be judged.",
        labels=(),
        hold=section["for"],
    )


def _pipeline(values: Values, alert: _Maker) -> Iterable[Rule]:
    views, logs = values["views"], values["logs"]
    yield alert(
        "ViewDisagrees",
        f"{records.VIEW_DIFFERENCE}{views['window']} > {views['max_difference']}",
        to="ticket",
        signal="pipeline",
        summary="<view> of <surface> is not what the counters say",
        description='{{ if eq (printf "%v" $value) "+Inf" }}There is no <view>{{ else }}<view> is '
        "<points> away from the counters{{ end }} on <surface>, over "
        f"{views['window']}. Alerts go by the counters, dashboards show the view.",
        places={"points": f"{{{{ $value | {POINTS} }}}}"},
        labels=(*OF_SURFACE, "view"),
        hold=views["for"],
    )
    window, most = logs["window"], logs["max_difference"]
    ratio, error = records.LOG_RATIO + window, records.LOG_ERROR + window
    windows = Windows(values)
    decisions = windows.added_up(grown(names.DECISIONS, windows.base), window)
    apart = either(f"{ratio} < {round(1 - most, 6)}", f"{ratio} > {round(1 + most, 6)}")
    yield alert(
        "LogsDisagree",
        f"{grouped(apart)}\nand\nsum({decisions}) >= {logs['min_decisions']}\n"
        f"unless\nabs({ratio} - 1) <= {logs['max_standard_errors']} * {error}",
        why="Not where lines are samples, and chance explains it.",
        to="ticket",
        signal="pipeline",
        summary="Log lines and counters disagree on the number of decisions",
        description=f"The log lines of the last {window} stand for <share> of the decisions that "
        "were counted.",
        labels=(),
        hold=logs["for"],
    )


def _faults(values: Values, alert: _Maker) -> Iterable[Rule]:
    section = values["library"]
    window, share = section["window"], section["max_share"]
    decisions = f"job:{metric(names.DECISIONS)}:increase{window}"
    for name, counter, what in (
        ("MalformedTraces", names.MALFORMED_TRACES, "traces could not be counted (<reason>)"),
        ("DroppedLogRecords", names.DROPPED_LOG_RECORDS, "log lines were lost"),
        ("LabelsFolded", names.FOLDED_DECISIONS, f"decisions were counted under {names.FOLDED!r}"),
    ):
        faults = records.fault(counter) + window
        yield alert(
            name,
            f"{faults} > {section['max_count']}\n"
            f"unless\n{faults} <= on (job) group_left () {share} * {decisions}",
            to="ticket",
            signal="pipeline",
            summary=f"<job>: {what}",
            description=f"In the last {window} about <count> {what} in <job>: more than "
            f"{percent(share)} of its decisions.",
            labels=("job", *counter.attributes),
            hold=section["for"],
        )
    errors, patch = names.INTERNAL_ERRORS, quoted(InternalErrorKind.PATCH.value)
    yield alert(
        "InternalErrors",
        either(
            f"{records.fault(errors)}{window}{{{names.KIND}!={patch}}} > {section['max_errors']}",
            f"{records.UNWRAPPED} > 0",
        ),
        why="A process whose target could not be wrapped counts nothing for as long as it lives.",
        to="ticket",
        signal="pipeline",
        summary="<job>: faults of the instrumentation (<kind>)",
        description="The instrumentation of <job> counted about <count> faults (<kind>) that its "
        "host has not seen.",
        labels=("job", names.KIND),
        hold=section["for"],
    )
