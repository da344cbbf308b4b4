"""What happens to services, from raw counters: restarts, deploys, idle nights, surfaces that end.

In each case a healthy surface stays silent, or one that is not fires, in spite of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitoring.prometheus.build import build
from monitoring.prometheus.recording import ACTIVE_HOURS, EFFECTIVE, JUDGED_BY, PERSONALIZED
from monitoring.prometheus.values import load
from tests.e2e.promtool import (
    Case,
    Question,
    firing,
    flat,
    groups_of,
    stale,
    surface,
    total,
    value,
)

HOME, PDP, CART = map(surface, ("home", "pdp", "cart"))
ALERTS = [
    rule["alert"]
    for group in groups_of(build(load()))
    for rule in group["rules"]
    if "alert" in rule and rule["alert"] != "Watchdog"
]
Series = dict[str, str | Sequence[float]]


def nothing(minute: float, *but: str) -> Question:
    """No alert fires, but these, for whatever."""
    expr = f'count by (alertname) (ALERTS{{alertname=~"{"|".join(ALERTS)}",alertstate="firing"}})'
    return Question(expr, minute, {f'{{alertname="{alert}"}}': 1 for alert in but})


def process(
    labels: str,
    instance: str,
    lives: Sequence[tuple[int, int]],
    share: float,
    decisions: int = 40,
    *,
    idle: int = 0,
    reasons: float = 0.9,
    cold_start: float = 0.1,
    candidates: int = 20,
) -> Series:
    """A process that decides each minute, 10 items each. Callers ask for reasons of 90 % of them.

    Args:
        labels: of the surface.
        instance: tells it from others; a process that is started again may have the same.
        lives: from which minute to which it lives; its counters begin anew with each.
        share: of personalised items.
        decisions: a minute.
        idle: for so many minutes it goes on, but decides nothing more.
        reasons: share of items with a reason.
        cold_start: share of cold-start items.
        candidates: of the collaborative source, for each decision.
    """
    items = decisions * 10
    grown = {
        "recsys_decisions_total": decisions,
        "recsys_served_items_total": items,
        "recsys_served_items_squared_total": items * 10,
        "recsys_personalized_items_total": items * share,
        "recsys_reason_requested_items_total": items * 0.9,
        "recsys_reason_items_total": items * reasons,
        "recsys_cold_start_impressions_total": items * cold_start,
        'recsys_candidate_source_decisions_total{source="collaborative"}': decisions,
        'recsys_candidates_total{source="collaborative"}': decisions * candidates,
    }
    own = labels.strip("{}") + f',instance="{instance}",job="ranking"'
    return {
        (f"{name[:-1]},{own}}}" if "{" in name else f"{name}{{{own}}}"): _living(
            growth, lives, idle
        )
        for name, growth in grown.items()
    }


def _living(growth: float, lives: Sequence[tuple[int, int]], idle: int) -> str:
    parts, at = [], 0
    for start, end in lives:
        if start > at:
            parts.append("stale" if at else "_")
            parts += [f"_x{start - at - 1}"] if start > at + 1 else []
        parts.append(f"{growth:g}+{growth:g}x{end - start - 1}")
        at = end
    if idle:
        parts.append(f"{growth * (end - start):g}x{idle - 1}")
    return " ".join([*parts, "stale"])


def faults(instance: str, lives: Sequence[tuple[int, int]]) -> Series:
    """A fault of each kind each minute."""
    own = f'instance="{instance}",job="ranking"'
    return {
        f"otel_personalization_{name}_total{{{own}{more}}}": _living(1, lives, 0)
        for name, more in (
            ("malformed_traces", ',reason="unreadable"'),
            ("dropped_log_records", ""),
            ("folded_decisions", ""),
            ("internal_errors", ',kind="log"'),
        )
    }


def views(labels: str, minutes: int, share: float) -> Series:
    """What the Collector derives of a surface."""
    return {
        f"personalized_impression_rate{labels}": flat(share, minutes),
        f"reason_coverage_rate{labels}": flat(0.9, minutes),
        f"recsys_window_served_items{labels}": flat(400, minutes),
    }


def together(*series: Mapping[str, str | Sequence[float]]) -> Series:
    """All of them; two under one name would be a mistake."""
    names = [name for part in series for name in part]
    assert len(names) == len(set(names))
    return {name: values for part in series for name, values in part.items()}


def judged(check: str, minute: float, **windows: float) -> Question:
    """The window by which each surface is judged, in seconds."""
    return value(
        f'surface:{JUDGED_BY}{{check="{check}"}}',
        minute,
        {
            surface(name).replace("{", f'{{check="{check}",'): seconds
            for name, seconds in windows.items()
        },
    )


RESTARTS = [(start, start + 15) for start in range(0, 150, 15)]
AMISS = {"reasons": 0.5, "cold_start": 0.3}
LARGE = total((350, 20), (1350, 1), (350, 19))
LARGE_SQUARED = total((3500, 20), (1_003_500, 1), (3500, 19))

SERVICE_CASES = [
    Case(
        "counters that begin anew each quarter of an hour are no drop, and hide none",
        together(
            process(HOME, "a", RESTARTS[:8], 0.6),
            process(PDP, "a", RESTARTS[:8], 0.54),
            *(views(labels, 120, share) for labels, share in ((HOME, 0.6), (PDP, 0.54))),
        ),
        [
            value(f"round({PERSONALIZED}:ratio30m, 0.001)", 100, {HOME: 0.6, PDP: 0.54}),
            # 40 a minute; a life of 15 minutes loses its first.
            value(f"{EFFECTIVE}30m > 1000 < 1300 > bool 0", 100, {HOME: 1, PDP: 1}),
            firing("PersonalizationDrop", 100, PDP),
            nothing(100, "PersonalizationDrop"),
        ],
    ),
    Case(
        "processes that come and go are no drop, and hide none",
        together(
            *(
                process(labels, f"{start}", [(start, start + 10)], share)
                for start in range(0, 120, 5)
                for labels, share in ((HOME, 0.6), (PDP, 0.54))
            ),
            *(views(labels, 120, share) for labels, share in ((HOME, 0.6), (PDP, 0.54))),
        ),
        [
            value(f"round({PERSONALIZED}:ratio30m, 0.001)", 100, {HOME: 0.6, PDP: 0.54}),
            firing("PersonalizationDrop", 100, PDP),
            # 4,000 effective decisions are enough for that one, too.
            nothing(100, "PersonalizationDrop", "PersonalizationBelowBaseline"),
        ],
    ),
    Case(
        "restarts, and processes that come and go, hide no fault, and make none elsewhere",
        together(
            process(HOME, "a", RESTARTS, 0.5, 60, **AMISS),
            *(
                process(PDP, f"{start}", [(start, start + 10)], 0.5, **AMISS)
                for start in range(0, 150, 5)
            ),
            process(CART, "a", RESTARTS, 0.6),
            # Another namespace, whose source found something once.
            process(surface("home", "media"), "a", RESTARTS, 0.6, candidates=0),
            {
                f'namespace_source:recsys_candidates:increase7d{{recsys_namespace="{namespace}",'
                'source="collaborative"}': flat(1, 150)
                for namespace in ("shop", "media")
            },
            faults("a", RESTARTS),
        ),
        [
            *(
                firing(alert, 140, HOME, PDP)
                for alert in (
                    "PersonalizationDrop",
                    "PersonalizationBelowBaseline",
                    "ReasonCoverageLow",
                    "RequestedReasonCoverageLow",
                    "ColdStartExposureOutOfBand",
                )
            ),
            firing(
                "CollaborativeSourceEmpty",
                140,
                '{recsys_namespace="media",source="collaborative"}',
            ),
            firing("MalformedTraces", 140, '{job="ranking",reason="unreadable"}'),
            firing("DroppedLogRecords", 140, '{job="ranking"}'),
            firing("LabelsFolded", 140, '{job="ranking"}'),
            firing("InternalErrors", 140, '{job="ranking",kind="log"}'),
        ],
    ),
    *(
        Case(
            f"a Collector that restarts each hour and counts {lines} lines of 40 decisions",
            together(
                process(HOME, "a", [(0, 480)], 0.6),
                {
                    'recsys_log_decisions_total{sample_rate="1"}': _living(
                        lines, [(start, start + 60) for start in range(0, 480, 60)], 0
                    )
                },
            ),
            [firing("LogsDisagree", 470, *fires)],
        )
        for lines, fires in ((40, []), (30, ["{}"]), (50, ["{}"]))
    ),
    Case(
        "a deploy, all processes new within 10 minutes, is no event",
        together(
            *(process(HOME, f"old {n}", [(0, 120 + n)], 0.6, 20) for n in range(3)),
            *(process(HOME, f"new {n}", [(132 + n, 240)], 0.6, 20) for n in range(3)),
            views(HOME, 240, 0.6),
            {f"{ACTIVE_HOURS}{HOME}": flat(24, 240)},
        ),
        [
            *(nothing(minute) for minute in (110, 125, 131, 133, 140, 160, 200)),
            value(f"round({PERSONALIZED}:ratio30m, 0.001)", 140, {HOME: 0.6}),
        ],
    ),
    Case(
        "a surface that ends is missed, and nothing else is said of it",
        together(
            process(HOME, "a", [(0, 90)], 0.6),
            process(PDP, "a", [(0, 200)], 0.6),
            views(PDP, 200, 0.6),
            {name: stale(series) for name, series in views(HOME, 89, 0.6).items()},
            {
                f"{ACTIVE_HOURS}{HOME}": stale(flat(24, 89)),
                f"{ACTIVE_HOURS}{PDP}": flat(24, 200),
            },
        ),
        [
            nothing(99),
            firing("TelemetryAbsent", 100, HOME),
            *(nothing(minute, "TelemetryAbsent") for minute in (100, 120, 150, 190)),
        ],
    ),
    Case(
        "traffic that ends with the day raises nothing",
        together(
            process(HOME, "a", [(0, 60)], 0.6, idle=140),
            # The gateway says nothing of idle windows.
            views(HOME, 60, 0.6),
        ),
        [nothing(minute) for minute in (30, 60, 70, 90, 130, 160, 195)],
    ),
    Case(
        "an idle night pages nobody, and a series says that the surface is too small",
        process(HOME, "a", [(0, 60)], 0.6, idle=800),
        [
            judged("PersonalizationDrop", 55, home=1800),
            judged("PersonalizationDrop", 100, home=7200),
            judged("PersonalizationDrop", 400, home=43200),
            judged("PersonalizationDrop", 800, home=0),
            judged("ReasonCoverageLow", 55, home=3600),
            judged("ReasonCoverageLow", 400, home=0),
            judged("RequestedReasonCoverageLow", 400, home=0),
            *(
                firing(alert, minute)
                for alert in (
                    "PersonalizationDrop",
                    "PersonalizationDropLowTraffic",
                    "PersonalizationBelowBaseline",
                    "ReasonCoverageLow",
                    "ReasonCoverageBelowTarget",
                    "RequestedReasonCoverageLow",
                    "ColdStartExposureOutOfBand",
                    "CollaborativeSourceEmpty",
                )
                for minute in (200, 300, 390, 410, 430, 500, 600, 750, 780, 850)
            ),
        ],
    ),
    Case(
        "surfaces that drop at one time fire each, and those of other namespaces do not",
        together(
            process(HOME, "a", [(0, 60)], 0.5),
            process(PDP, "a", [(0, 60)], 0.54),
            process(surface("home", "media"), "a", [(0, 60)], 0.56),
        ),
        [
            # 1,000 effective decisions of 40 a minute, and 5 minutes.
            firing("PersonalizationDrop", 27),
            firing("PersonalizationDrop", 31, HOME, PDP),
            firing("PersonalizationDrop", 55, HOME, PDP),
        ],
    ),
    Case(
        "one decision of 1,000 items among small ones pages nobody",
        # Of 350 items a minute 60 % are personalised, of the 1,000 none: a share of 0.55.
        {
            f"recsys_served_items_total{HOME}": LARGE,
            f"recsys_served_items_squared_total{HOME}": LARGE_SQUARED,
            f"recsys_personalized_items_total{HOME}": total((210, 40)),
            f"recsys_served_items_total{PDP}": total((350, 40)),
            f"recsys_served_items_squared_total{PDP}": total((3500, 40)),
            f"recsys_personalized_items_total{PDP}": total((190, 40)),
        },
        [
            value(f"round({PERSONALIZED}:ratio30m, 0.01)", 38, {HOME: 0.55, PDP: 0.54}),
            value(f"{PERSONALIZED}:ratio30m < bool 0.55", 38, {HOME: 1, PDP: 1}),
            firing("PersonalizationDrop", 38, PDP),
            judged("PersonalizationDrop", 38, home=0, pdp=1800),
        ],
    ),
]
