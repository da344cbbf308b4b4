"""What the rules promise, as cases for promtool: for each alert when it fires, and when not.

Most put in what is recorded, right at the edge, and ask when the alert fires. A few begin with raw
counters, and show that what is recorded of them is right.
"""

from __future__ import annotations

from typing import Any

from monitoring.prometheus.recording import (
    ACTIVE_HOURS,
    COLD_START,
    DECLARED,
    EFFECTIVE,
    JUDGED_BY,
    LOG_ERROR,
    LOG_RATIO,
    PERSONALIZED,
    REASONS,
    REQUESTED_REASONS,
    VIEW_DIFFERENCE,
)
from otel_personalization.conventions import DOCTOR_NAMESPACE
from tests.e2e.promtool import Case, firing, flat, stale, surface, total, value

HOME, PDP, CART, SEARCH = map(surface, ("home", "pdp", "cart", "search"))
DAY = 24 * 60
SOURCE = '{recsys_namespace="%s",source="collaborative"}'
JOB = '{job="ranking"}'
ACME, OTHER = '{org_id="acme"}', '{org_id="other"}'
OF_RATIOS = (
    "PersonalizationDrop",
    "PersonalizationBelowBaseline",
    "ReasonCoverageLow",
    "RequestedReasonCoverageLow",
    "ColdStartExposureOutOfBand",
)
"""But for those that hold for hours, or have windows of days."""


def judged_at_the_edge(
    alert: str,
    ratio: str,
    below: float,
    at: float,
    *,
    hold: int,
    keep: int = 0,
) -> Case:
    """Below the threshold on two surfaces at once, on it on another; for as long as must be, and
    back on one of them."""
    ends = hold + 10
    questions = [
        firing(alert, hold - 1),
        firing(alert, hold, HOME, CART),
        firing(alert, ends + keep, HOME, CART),
        firing(alert, ends + keep + 1, CART),
    ]
    return Case(
        f"{alert}: {below} fires after {hold} minutes, {at} does not, and ends {keep} minutes late",
        {
            ratio + HOME: [*flat(below, ends), *flat(1, keep + 10)],
            ratio + CART: flat(below, ends + keep + 10),
            ratio + PDP: flat(at, ends + keep + 10),
        },
        questions,
    )


def ladder(alert: str, ratio: str, windows: list[str], least: float) -> Case:
    """The shortest window that holds enough decides, and a series says which."""
    surfaces = {
        # surface: effective decisions by window, ratios by window
        "shortest": ([least] * len(windows), [0.1] + [0.9] * (len(windows) - 1)),
        "healthy": ([least] * len(windows), [0.9] + [0.1] * (len(windows) - 1)),
        "longest": (
            [least - 0.1] * (len(windows) - 1) + [least],
            [0.9] * (len(windows) - 1) + [0.1],
        ),
        "small": ([least - 0.1] * len(windows), [0.1] * len(windows)),
        # Each window between the shortest and the longest.
        **{
            f"by {window}": (
                [least - 0.1] * number + [least] * (len(windows) - number),
                [0.9] * number + [0.1] + [0.9] * (len(windows) - number - 1),
            )
            for number, window in enumerate(windows[1:-1], 1)
        },
    }
    series: dict[str, Any] = {}
    for name, (decisions, ratios) in surfaces.items():
        for window, n, share in zip(windows, decisions, ratios, strict=True):
            series[f"{EFFECTIVE}{window}{surface(name)}"] = flat(n)
            series[f"{ratio}:ratio{window}{surface(name)}"] = flat(share)
        series[f"surface:recsys_served_items:increase{windows[-1]}{surface(name)}"] = flat(1)
    lengths = {
        "30m": 1800,
        "2h": 7200,
        "12h": 43200,
        "1d": 86400,
        "3d": 259200,
        "7d": 604800,
    }

    def by(name: str, window: str) -> tuple[str, float]:
        labels = surface(name).replace("{", f'{{check="{alert}",')
        return labels, lengths.get(window, 0)

    chosen = dict(
        [
            by("shortest", windows[0]),
            by("healthy", windows[0]),
            by("longest", windows[-1]),
            by("small", "none"),
            *(by(f"by {window}", window) for window in windows[1:-1]),
        ]
    )
    return Case(
        f"{alert}: the shortest window that holds {least:g} effective decisions decides",
        series,
        [
            firing(
                alert,
                50,
                *map(surface, ("shortest", "longest", *(f"by {w}" for w in windows[1:-1]))),
            ),
            value(f'surface:{JUDGED_BY}{{check="{alert}"}}', 50, chosen),
        ],
    )


def counters(name: str, minutes: int, decisions: float, items: float, **shares: float) -> dict:
    """The counters of a process that decides steadily: decisions a minute, items of each."""
    grown = {
        "recsys_decisions_total": decisions,
        "recsys_served_items_total": decisions * items,
        "recsys_served_items_squared_total": decisions * items**2,
        **{f"recsys_{part}_total": decisions * items * share for part, share in shares.items()},
    }
    labels = surface(name).replace("{", '{instance="a",job="ranking",')
    return {metric + labels: total((growth, minutes)) for metric, growth in grown.items()}


PERSONALIZATION = [
    judged_at_the_edge(
        "PersonalizationDrop", f"{PERSONALIZED}:ratio_judged", 0.549, 0.55, hold=5, keep=15
    ),
    judged_at_the_edge(
        "PersonalizationDropLowTraffic",
        f"{PERSONALIZED}:ratio_judged_low_traffic",
        0.549,
        0.55,
        hold=5,
    ),
    judged_at_the_edge(
        "PersonalizationBelowBaseline",
        f"{PERSONALIZED}:ratio_judged_baseline",
        0.569,
        0.57,
        hold=5,
    ),
    ladder("PersonalizationDrop", PERSONALIZED, ["30m", "2h", "12h"], 1000),
    ladder("PersonalizationDropLowTraffic", PERSONALIZED, ["3d", "7d"], 1000),
    ladder("PersonalizationBelowBaseline", PERSONALIZED, ["1d", "7d"], 4000),
    Case(
        "a surface that the page can judge is none of the ticket's",
        {
            f"{PERSONALIZED}:ratio_judged{HOME}": flat(0.9),
            f"{PERSONALIZED}:ratio3d{HOME}": flat(0.1),
            f"{EFFECTIVE}3d{HOME}": flat(1000),
            f"surface:recsys_served_items:increase7d{HOME}": flat(1000),
        },
        [
            firing("PersonalizationDropLowTraffic", 50),
            value(f'surface:{JUDGED_BY}{{check="PersonalizationDropLowTraffic"}}', 50, {}),
        ],
    ),
    Case(
        "a drop from 0.6 to 0.4 of a busy surface is told in a quarter of an hour",
        {
            f"recsys_{part}_total{HOME}": total((before, 60), (after, 60))
            for part, before, after in (
                ("served_items", 1000, 1000),
                ("served_items_squared", 10_000, 10_000),
                ("personalized_items", 600, 400),
            )
        },
        [firing("PersonalizationDrop", 70), firing("PersonalizationDrop", 76, HOME)],
    ),
    Case(
        "decisions of 1,000 items among small ones count as the few that they are",
        # 100 decisions of 5 items and one of 1,000 a minute: (1500 n)^2 / (1002500 n) = 2.2 n. As
        # many items at the same shares, 10 a decision, are enough for all.
        {
            f"recsys_{part}_total{where}": total((growth, 140))
            for where, squared in ((HOME, 1_002_500), (PDP, 15_000))
            for part, growth in (
                ("served_items", 1500),
                ("served_items_squared", squared),
                ("personalized_items", 300),
                ("reason_items", 300),
                ("reason_requested_items", 1000),
                ("cold_start_impressions", 1000),
            )
        },
        [
            value(f"round({EFFECTIVE}1h, 1)", 130, {HOME: 135, PDP: 9000}),
            *(firing(alert, 130, PDP) for alert in OF_RATIOS),
            value(
                f'surface:{JUDGED_BY}{{check="PersonalizationDrop"}}',
                130,
                {
                    where.replace("{", '{check="PersonalizationDrop",'): seconds
                    for where, seconds in ((HOME, 0), (PDP, 1800))
                },
            ),
        ],
    ),
    Case(
        "an absent numerator is 0, and an idle surface has no share",
        {
            f"recsys_served_items_total{HOME}": total((1000, 60)),
            f"recsys_served_items_squared_total{HOME}": total((10_000, 60)),
            f"recsys_served_items_total{PDP}": flat(1000),
            f"recsys_served_items_squared_total{PDP}": flat(10_000),
            f"recsys_personalized_items_total{PDP}": flat(600),
            f"recsys_served_items_total{surface('home', DOCTOR_NAMESPACE)}": total((1000, 60)),
        },
        [
            value(f"{PERSONALIZED}:ratio30m", 50, {HOME: 0}),
            value(f"{PERSONALIZED}:ratio_judged", 50, {HOME: 0}),
            firing("PersonalizationDrop", 50, HOME),
        ],
    ),
    Case(
        "long windows are added up to what was counted",
        counters("home", 13 * 60, 1, 10, personalized_items=0.6, cold_start_impressions=0.1),
        [
            value("round(surface:recsys_served_items:increase12h, 50)", 780, {HOME: 7200}),
            value(f"round({EFFECTIVE}12h, 5)", 780, {HOME: 720}),
            value(f"{PERSONALIZED}:ratio12h", 780, {HOME: 0.6}),
            value(f"{COLD_START}:ratio6h", 780, {HOME: 0.1}),
        ],
    ),
]

REASON_COVERAGE = [
    judged_at_the_edge("ReasonCoverageLow", f"{REASONS}:ratio_judged", 0.599, 0.6, hold=60),
    judged_at_the_edge(
        "RequestedReasonCoverageLow", f"{REQUESTED_REASONS}:ratio_judged", 0.949, 0.95, hold=60
    ),
    judged_at_the_edge(
        "ReasonCoverageBelowTarget", f"{REASONS}:ratio_judged", 0.799, 0.8, hold=360
    ),
    Case(
        "coverage: an hour with 1,000 effective decisions is judged, and one with fewer is not",
        {
            f"{ratio}:ratio1h{where}": flat(0.1, 70)
            for ratio in (REASONS, REQUESTED_REASONS)
            for where in (HOME, PDP)
        }
        | {
            f"{EFFECTIVE}1h{HOME}": flat(1000, 70),
            f"{EFFECTIVE}1h{PDP}": flat(999.9, 70),
            f"surface:recsys_served_items:increase1h{HOME}": flat(1, 70),
            f"surface:recsys_served_items:increase1h{PDP}": flat(1, 70),
        },
        [
            firing("ReasonCoverageLow", 65, HOME),
            firing("RequestedReasonCoverageLow", 65, HOME),
            *(
                value(
                    f'surface:{JUDGED_BY}{{check="{alert}"}}',
                    65,
                    {
                        where.replace("{", f'{{check="{alert}",'): seconds
                        for where, seconds in ((HOME, 3600), (PDP, 0))
                    },
                )
                for alert in ("ReasonCoverageLow", "RequestedReasonCoverageLow")
            ),
        ],
    ),
    Case(
        "of those who ask all get reasons, though few ask",
        counters("home", 200, 100, 10, reason_items=0.5, reason_requested_items=0.5),
        [
            firing("ReasonCoverageLow", 190, HOME),
            firing("RequestedReasonCoverageLow", 190),
            value(f"{REQUESTED_REASONS}:ratio_judged", 190, {HOME: 1}),
        ],
    ),
]

COLD_STARTS = [
    Case(
        "ColdStartExposureOutOfBand: 0.201 fires after 5 minutes, 0.2 and 0 do not",
        {
            f"{COLD_START}:ratio_judged{HOME}": [*flat(0.201, 15), *flat(0.1, 10)],
            f"{COLD_START}:ratio_judged{PDP}": flat(0.2),
            f"{COLD_START}:ratio_judged{CART}": flat(0),
            f"{COLD_START}:ratio_judged{SEARCH}": flat(1),
        },
        [
            firing("ColdStartExposureOutOfBand", 4),
            firing("ColdStartExposureOutOfBand", 5, HOME, SEARCH),
            firing("ColdStartExposureOutOfBand", 16, SEARCH),
        ],
    ),
    Case(
        "ColdStartExposureOutOfBand: six hours with 1,000 effective decisions are judged",
        {
            f"{COLD_START}:ratio6h{HOME}": flat(0.5),
            f"{COLD_START}:ratio6h{PDP}": flat(0.5),
            f"{EFFECTIVE}6h{HOME}": flat(1000),
            f"{EFFECTIVE}6h{PDP}": flat(999.9),
            f"surface:recsys_served_items:increase6h{HOME}": flat(1),
            f"surface:recsys_served_items:increase6h{PDP}": flat(1),
        },
        [
            firing("ColdStartExposureOutOfBand", 50, HOME),
            value(
                f'surface:{JUDGED_BY}{{check="ColdStartExposureOutOfBand"}}',
                50,
                {
                    where.replace("{", '{check="ColdStartExposureOutOfBand",'): seconds
                    for where, seconds in ((HOME, 21600), (PDP, 0))
                },
            ),
        ],
    ),
]


def _found(namespace: str, window: str) -> str:
    return f"namespace_source:recsys_candidates:increase{window}{SOURCE % namespace}"


def _decided(namespace: str, window: str) -> str:
    return (
        f"namespace_source:recsys_candidate_source_decisions:increase{window}{SOURCE % namespace}"
    )


EMPTY = "CollaborativeSourceEmpty"
SOURCES = [
    Case(
        "CollaborativeSourceEmpty: none for 5 minutes where there was one in 7 days; ends 15 late",
        {
            _found("shop", "_judged"): [*flat(0, 20), *flat(1, 30)],
            _found("shop", "7d"): flat(0.1),
            _found("media", "_judged"): flat(0),
            _found("media", "7d"): flat(0),
            _found("some", "_judged"): flat(0.2),
            _found("some", "7d"): flat(1),
        },
        [
            firing(EMPTY, 4),
            firing(EMPTY, 5, SOURCE % "shop"),
            firing(EMPTY, 35, SOURCE % "shop"),
            firing(EMPTY, 36),
        ],
    ),
    Case(
        "CollaborativeSourceEmpty: the shortest window that holds 50 decisions decides",
        {
            _found(namespace, window): flat(candidates)
            for namespace, found in (
                ("shortest", (0, 1, 1)),
                ("healthy", (1, 0, 0)),
                ("middle", (1, 0, 1)),
                ("longest", (1, 1, 0)),
                ("small", (0, 0, 0)),
            )
            for window, candidates in zip(("10m", "1h", "6h"), found, strict=True)
        }
        | {
            _decided(namespace, window): flat(decisions)
            for namespace, number in (
                ("shortest", (50, 50, 50)),
                ("healthy", (50, 50, 50)),
                ("middle", (49.9, 50, 50)),
                ("longest", (49.9, 49.9, 50)),
                ("small", (49.9, 49.9, 49.9)),
            )
            for window, decisions in zip(("10m", "1h", "6h"), number, strict=True)
        }
        | {
            _found(namespace, "7d"): flat(1)
            for namespace in ("shortest", "healthy", "middle", "longest", "small")
        }
        # An hour without any process, which had some before.
        | {_decided("gone", "6h"): flat(1)},
        [
            firing(EMPTY, 50, *(SOURCE % which for which in ("shortest", "middle", "longest"))),
            value(
                f"namespace_source:{JUDGED_BY}",
                50,
                {
                    (SOURCE % namespace).replace("{", f'{{check="{EMPTY}",'): seconds
                    for namespace, seconds in (
                        ("shortest", 600),
                        ("healthy", 600),
                        ("middle", 3600),
                        ("longest", 21600),
                        ("small", 0),
                        ("gone", 0),
                    )
                },
            ),
        ],
    ),
    Case(
        "an outage of the source: by namespace, from raw counters, other sources aside",
        {
            f'recsys_{what}_total{{recsys_namespace="shop",surface="{where}",source="{source}"}}': (
                total((growth, 60), (later, 60))
            )
            for where in ("home", "pdp")
            for what, source, growth, later in (
                ("candidate_source_decisions", "collaborative", 4, 4),
                ("candidates", "collaborative", 2, 0),
                ("candidate_source_decisions", "popularity", 4, 4),
                ("candidates", "popularity", 40, 40),
            )
        },
        [firing(EMPTY, 72), firing(EMPTY, 77, SOURCE % "shop")],
    ),
]

DUE = 54 * 60
"""At 6:00 of the second day after a day began that is the newest, it is late."""


def _pushed(where: str, by: str) -> str:
    return where.replace("}", f',job="{by}"}}')


def _of(org: str, where: str) -> str:
    return where.replace("}", f',org_id="{org}"}}')


DAILY = [
    Case(
        "CatalogOverlapSpike: above 35 % on two days of data, for 15 minutes; ends an hour late",
        {
            f"catalog_overlap_pct{HOME}": [*flat(35.1, 20), *flat(35, 100)],
            f"catalog_overlap_pct_previous_day{HOME}": flat(35.1, 120),
            # Of two jobs that push, the greater.
            f"catalog_overlap_pct{_pushed(SEARCH, 'a')}": flat(60, 120),
            f"catalog_overlap_pct{_pushed(SEARCH, 'b')}": flat(0, 120),
            f"catalog_overlap_pct_previous_day{_pushed(SEARCH, 'a')}": flat(0, 120),
            f"catalog_overlap_pct_previous_day{_pushed(SEARCH, 'b')}": flat(60, 120),
            f"catalog_overlap_pct{PDP}": flat(60, 120),
            f"catalog_overlap_pct_previous_day{PDP}": flat(35, 120),
            f"catalog_overlap_pct{CART}": flat(60, 120),
            f"catalog_overlap_pct{surface('home', 'media')}": flat(35, 120),
            f"catalog_overlap_pct_previous_day{surface('home', 'media')}": flat(60, 120),
        },
        [
            firing("CatalogOverlapSpike", 14),
            firing("CatalogOverlapSpike", 15, HOME, SEARCH),
            firing("CatalogOverlapSpike", 80, HOME, SEARCH),
            firing("CatalogOverlapSpike", 81, SEARCH),
        ],
    ),
    Case(
        "CatalogOverlapSpike: by organisation, not one today and another yesterday",
        {
            f"catalog_overlap_pct{series}": flat(value)
            for where, acme, other in (
                # (today, the day before)
                (HOME, (40, 20), (20, 40)),
                (CART, (40, 40), (20, 20)),
                (PDP, (40, 40), (50, 50)),
            )
            for org, days in (("acme", acme), ("other", other))
            for gauge, value in zip(("", "_previous_day"), days, strict=True)
            for series in (f"{gauge}{_of(org, where)}",)
        },
        [
            firing("CatalogOverlapSpike", 14),
            *(
                firing(
                    "CatalogOverlapSpike",
                    minute,
                    _of("acme", CART),
                    _of("acme", PDP),
                    _of("other", PDP),
                )
                for minute in (15, 60)
            ),
        ],
    ),
    Case(
        "CatalogOverlapSpike: a Pushgateway that is away for ten minutes does not end it",
        {
            f"catalog_overlap_pct{HOME}": "40x30 stale _x9 40x60",
            f"catalog_overlap_pct_previous_day{HOME}": "40x30 stale _x9 40x60",
        },
        [firing("CatalogOverlapSpike", minute, HOME) for minute in (20, 31, 40, 41, 50, 60, 90)],
    ),
    Case(
        "DailyJobLate: a Pushgateway may be away for less than a quarter of an hour",
        {"personalization_daily_date_seconds": f"86400x{DUE + 10} stale _x14 86400x50 stale"},
        [
            firing("DailyJobLate", DUE + 25),
            firing("DailyJobLate", DUE + 40),
            firing("DailyJobLate", DUE + 77 + 14),
            firing("DailyJobLate", DUE + 77 + 15, "{}"),
        ],
    ),
    Case(
        "DailyJobLate: yesterday is due at 6:00, and a quarter of an hour is given",
        {
            # 1 January is there, and from 7:10 of the 3rd on 2 January; of two jobs the newer day.
            "personalization_daily_date_seconds": [*flat(0, DUE + 69), *flat(86400, DAY)],
            'personalization_daily_date_seconds{job="another"}': flat(-86400, DUE + DAY + 70),
        },
        [
            firing("DailyJobLate", DUE - 1),
            firing("DailyJobLate", DUE),
            firing("DailyJobLate", DUE + 14),
            firing("DailyJobLate", DUE + 15, "{}"),
            firing("DailyJobLate", DUE + 69, "{}"),
            firing("DailyJobLate", DUE + 70),
            firing("DailyJobLate", DUE + DAY + 14),
            firing("DailyJobLate", DUE + DAY + 15, "{}"),
        ],
    ),
    Case(
        "DailyJobLate: a day that comes at 6:00, or within a quarter of an hour, is in time",
        {"personalization_daily_date_seconds": [*flat(0, DUE + 14), *flat(86400, DAY)]},
        [firing("DailyJobLate", DUE + after) for after in (0, 14, 15, 16, 30, 60)],
    ),
    Case(
        "DailyJobLate: of two organisations the one whose newest day is ten days old",
        {
            f"personalization_daily_date_seconds{ACME}": flat(10 * 86400, 10),
            f"personalization_daily_date_seconds{OTHER}": flat(0, 10),
        },
        [
            firing("DailyJobLate", 10 * DAY, OTHER),
        ],
        every=2 * DAY,
    ),
    Case(
        "DailyJobLate: no day at all is late",
        {"up": flat(1, 700)},
        [firing("DailyJobLate", 54 * 60 + 15, "{}")],
        every=5,
    ),
    Case(
        "DailyJobFailed: for a quarter of an hour, until a run succeeds",
        {
            f"personalization_daily_last_run_success{JOB}": [1, *flat(0, 30), *flat(1, 30)],
            'personalization_daily_last_run_success{job="fine"}': flat(1),
            # Of two instances the one that failed.
            'personalization_daily_last_run_success{job="two",instance="a"}': flat(1),
            'personalization_daily_last_run_success{job="two",instance="b"}': flat(0),
        },
        [
            firing("DailyJobFailed", 14),
            firing("DailyJobFailed", 15, '{job="two"}'),
            firing("DailyJobFailed", 16, JOB, '{job="two"}'),
            firing("DailyJobFailed", 31, JOB, '{job="two"}'),
            firing("DailyJobFailed", 32, '{job="two"}'),
        ],
    ),
    Case(
        "DailyJobFailed: by organisation, whatever the runs of others did since",
        {
            f"personalization_daily_last_run_success{_pushed(ACME, 'run')}": flat(1, 40),
            f"personalization_daily_last_run_success{_pushed(OTHER, 'run')}": flat(0, 40),
        },
        [
            firing("DailyJobFailed", 14),
            firing("DailyJobFailed", 15, _pushed(OTHER, "run")),
            firing("DailyJobFailed", 40, _pushed(OTHER, "run")),
        ],
    ),
]

ABSENT = "TelemetryAbsent"
TELEMETRY = [
    Case(
        "TelemetryAbsent: a regular surface without series for 10 minutes; for a day",
        {
            f"{ACTIVE_HOURS}{HOME}": stale(flat(20, 30)),
            f"recsys_decisions_total{HOME}": stale(flat(7, 30)),
            f"{ACTIVE_HOURS}{SEARCH}": stale(flat(24, 30)),
            f"recsys_decisions_total{SEARCH}": stale(flat(7, 30)),
            f"{ACTIVE_HOURS}{PDP}": stale(flat(19, 30)),
            f"recsys_decisions_total{PDP}": stale(flat(7, 30)),
            f"{ACTIVE_HOURS}{CART}": flat(24, 2 * DAY),
            f"recsys_decisions_total{CART}": flat(7, 2 * DAY),
        },
        [
            firing(ABSENT, 40),
            firing(ABSENT, 41, HOME, SEARCH),
            firing(ABSENT, DAY + 29, HOME, SEARCH),
            firing(ABSENT, DAY + 31),
            firing("TelemetryAbsentAll", 2 * DAY),
        ],
    ),
    Case(
        "20 of the last 24 hours: by the clock, from raw counters",
        {
            f"recsys_decisions_total{HOME}": total((0, 120), (1, 20 * 60), (0, 120)),
            f"recsys_decisions_total{PDP}": total((0, 180), (1, 19 * 60), (0, 120)),
        },
        [value(ACTIVE_HOURS, DAY - 30, {HOME: 20, PDP: 19})],
    ),
    Case(
        "an hour with a little within 55 minutes of its end is one; none of a surface that is gone",
        {
            # At 7 minutes past each hour; at 4, which is before.
            f"surface:recsys_decisions:increase5m{HOME}": [
                0.5 if n % 60 == 7 else 0 for n in range(301)
            ],
            f"surface:recsys_decisions:increase5m{PDP}": [
                0.5 if n % 60 == 4 else 0 for n in range(301)
            ],
            f"surface:recsys_decisions:increase5m{CART}": stale(flat(5, 240)),
        },
        [value(ACTIVE_HOURS, 300, {HOME: 5}), value(ACTIVE_HOURS, 240, {HOME: 4, CART: 5})],
    ),
    Case(
        "no more than the last 24 hours are counted",
        {f"recsys_decisions_total{HOME}": total((1, DAY + 150))},
        [value(ACTIVE_HOURS, DAY + 150, {HOME: 24})],
    ),
    Case(
        "TelemetryAbsentAll: nothing for 10 minutes; doctor is nothing",
        {
            f"recsys_decisions_total{HOME}": stale(flat(7, 30)),
            f"recsys_decisions_total{surface('home', DOCTOR_NAMESPACE)}": flat(7),
        },
        [firing("TelemetryAbsentAll", 40), firing("TelemetryAbsentAll", 41, "{}")],
    ),
    Case(
        "Watchdog always fires",
        {"up": flat(1)},
        [firing("Watchdog", 0, "{}"), firing("Watchdog", 60, "{}")],
    ),
]


def _view(where: str, view: str = "personalized_impression_rate") -> str:
    return where.replace("}", f',view="{view}"}}')


ERRORS = "job_kind:otel_personalization_internal_errors"
PIPELINE = [
    Case(
        "ViewDisagrees: more than two points apart for half an hour",
        {
            f"{VIEW_DIFFERENCE}1h{_view(HOME)}": [*flat(0.0201, 40), *flat(0.02, 10)],
            f"{VIEW_DIFFERENCE}1h{_view(HOME, 'reason_coverage_rate')}": flat(float("inf")),
            f"{VIEW_DIFFERENCE}1h{_view(PDP)}": flat(0.02),
        },
        [
            firing("ViewDisagrees", 29),
            firing("ViewDisagrees", 30, _view(HOME), _view(HOME, "reason_coverage_rate")),
            firing("ViewDisagrees", 41, _view(HOME, "reason_coverage_rate")),
        ],
    ),
    Case(
        "a view is weighted by the items of its windows, and one that is missing is infinitely off",
        counters("home", 120, 100, 10, personalized_items=0.6, reason_items=0.5)
        | counters("pdp", 120, 1, 10, personalized_items=0.6)
        | {
            # 0.5 of 900 items and 0.9 of 300, in turn: 0.6.
            f"personalized_impression_rate{HOME}": [0.5, 0.9] * 60,
            f"recsys_window_served_items{HOME}": [900, 300] * 60,
        },
        [
            value(
                f"round({VIEW_DIFFERENCE}1h, 0.01)",
                110,
                {_view(HOME): 0, _view(HOME, "reason_coverage_rate"): float("inf")},
            )
        ],
    ),
    *(
        Case(
            f"LogsDisagree: {decisions} decisions in six hours, of two surfaces",
            # 360 records of what happened in five minutes each; 361 in Prometheus 2.
            {
                f"surface:recsys_decisions:increase5m{where}": flat(decisions / 2 / 72, 490)
                for where in (HOME, PDP)
            }
            | {f"{LOG_RATIO}6h": flat(0.79, 490)},
            [firing("LogsDisagree", 480, *fires)],
        )
        for decisions, fires in ((1001, ["{}"]), (996, []))
    ),
    Case(
        "LogsDisagree: beyond 0.8 to 1.2 for half an hour, but not if chance explains it",
        # 100 in each of 50 minutes, by 5: 1,000.
        {
            f"surface:recsys_decisions:increase5m{HOME}": flat(100, 600),
            f"{LOG_RATIO}6h": [
                *flat(0.799, 160),
                *flat(1.201, 140),
                *flat(1.2, 50),
                *flat(0.75, 100),
                *flat(0.8, 100),
            ],
            # 4 times 0.0503 is 0.2012, and 4 times 0.0625 a quarter.
            f"{LOG_ERROR}6h": [
                *flat(0.0, 200),
                *flat(0.0503, 40),
                *flat(0.0, 111),
                *flat(0.0625, 50),
                *flat(0.0624, 48),
                *flat(0.0, 100),
            ],
        },
        [
            firing("LogsDisagree", 78),
            firing("LogsDisagree", 79, "{}"),
            firing("LogsDisagree", 195, "{}"),
            firing("LogsDisagree", 202),
            firing("LogsDisagree", 271),
            firing("LogsDisagree", 272, "{}"),
            firing("LogsDisagree", 303),
            firing("LogsDisagree", 400),
            firing("LogsDisagree", 450, "{}"),
            firing("LogsDisagree", 460),
            firing("LogsDisagree", 500),
        ],
    ),
    Case(
        "lines of a sample stand for those that were left out",
        counters("home", 800, 10, 10)
        | {
            'recsys_log_decisions_total{sample_rate="1"}': total((5, 800)),
            'recsys_log_decisions_total{sample_rate="0.1"}': total((0.5, 800)),
        },
        [value(f"round({LOG_RATIO}6h, 0.001)", 790, {"{}": 1})],
    ),
    Case(
        "lines that were just switched on are not compared yet",
        counters("home", 800, 10, 10)
        | {'recsys_log_decisions_total{sample_rate="1"}': "_x500 0+10x300"},
        [value(f"{LOG_RATIO}6h", 790, {})],
    ),
    Case(
        "lines that are there no more are none",
        counters("home", 800, 10, 10) | {'recsys_log_decisions_total{sample_rate="1"}': "0+10x400"},
        [value(f"{LOG_RATIO}6h", 790, {"{}": 0})],
    ),
    *(
        Case(
            f"{alert}: more than 10 an hour, and more than a thousandth of the decisions",
            {
                f"{record}:increase1h{labels}": flat(10.1),
                f"job:recsys_decisions:increase1h{JOB}": [*flat(10_100, 9), *flat(10_099, 30)],
                f"{record}:increase1h{labels.replace('ranking', 'few')}": flat(10),
                f"{record}:increase1h{labels.replace('ranking', 'nothing_else')}": flat(10.1),
            },
            [
                firing(alert, 4),
                firing(alert, 5, labels.replace("ranking", "nothing_else")),
                firing(alert, 14, labels.replace("ranking", "nothing_else")),
                firing(alert, 15, labels, labels.replace("ranking", "nothing_else")),
            ],
        )
        for alert, record, labels in (
            (
                "MalformedTraces",
                "job_reason:otel_personalization_malformed_traces",
                '{job="ranking",reason="not_a_trace"}',
            ),
            ("DroppedLogRecords", "job:otel_personalization_dropped_log_records", JOB),
            ("LabelsFolded", "job:otel_personalization_folded_decisions", JOB),
        )
    ),
    Case(
        "InternalErrors: more than 5 an hour; one target that could not be wrapped, for ever",
        {
            **{
                f'{ERRORS}:increase1h{{job="{job}",kind="{kind}"}}': flat(count, DAY)
                for job, kind, count in (
                    ("ranking", "log", 5.1),
                    ("few", "log", 5),
                    # Of a process that is gone.
                    ("ranking", "patch", 9),
                )
            },
            **{
                f'{ERRORS.partition(":")[2]}_total{{job="{job}",kind="{kind}"}}': flat(count, DAY)
                for job, kind, count in (
                    ("other", "patch", 1),
                    ("fine", "patch", 0),
                    ("fine", "log", 1),
                )
            },
        },
        [
            firing("InternalErrors", 4),
            *(
                firing(
                    "InternalErrors", m, '{job="ranking",kind="log"}', '{job="other",kind="patch"}'
                )
                for m in (5, DAY)
            ),
        ],
    ),
    Case(
        "faults are counted by service, from raw counters",
        {
            "otel_personalization_malformed_traces_total"
            f'{{job="ranking",instance="{instance}",reason="unreadable"}}': total((1, 80))
            for instance in "ab"
        },
        [firing("MalformedTraces", 70, '{job="ranking",reason="unreadable"}')],
    ),
]

CASES = [
    *PERSONALIZATION,
    *REASON_COVERAGE,
    *COLD_STARTS,
    *SOURCES,
    *DAILY,
    *TELEMETRY,
    *PIPELINE,
]


# --- with other values ------------------------------------------------------------------------

OWN_VALUES: dict[str, Any] = {
    "surfaces": {
        "shop/home": {
            "declared": True,
            "personalization_threshold": 0.4,
            "baseline": 0.5,
            "reason_coverage_threshold": 0.2,
            "cold_start_band": [0.1, 0.3],
        }
    },
    "collaborative": {"mode": "auto", "namespaces": {"media": "always", "launch": "never"}},
}


def _own(alert: str, ratio: str, home: float, other: float, hold: int) -> list[Case]:
    """Just beyond and just within a surface's own value; another surface has that of all."""
    step = 0.001
    return [
        Case(
            f"{alert}: a surface's own value",
            {f"{ratio}{HOME}": flat(home - step, 70), f"{ratio}{PDP}": flat(other, 70)},
            [firing(alert, hold - 1), firing(alert, hold, HOME)],
        ),
        Case(
            f"{alert}: within a surface's own value",
            {f"{ratio}{HOME}": flat(home, 70), f"{ratio}{PDP}": flat(other - step, 70)},
            [firing(alert, hold, PDP)],
        ),
    ]


OWN_CASES = [
    *_own("PersonalizationDrop", f"{PERSONALIZED}:ratio_judged", 0.4, 0.55, 5),
    *_own("PersonalizationBelowBaseline", f"{PERSONALIZED}:ratio_judged_baseline", 0.475, 0.57, 5),
    *_own("ReasonCoverageLow", f"{REASONS}:ratio_judged", 0.2, 0.6, 60),
    Case(
        "ColdStartExposureOutOfBand: a surface's own band",
        {
            f"{COLD_START}:ratio_judged{HOME}": [
                *flat(0.099, 9),
                *flat(0.1, 9),
                *flat(0.3, 9),
                *flat(0.301, 9),
            ],
            f"{COLD_START}:ratio_judged{PDP}": flat(0.2, 40),
        },
        [
            firing("ColdStartExposureOutOfBand", 9, HOME),
            firing("ColdStartExposureOutOfBand", 12),
            firing("ColdStartExposureOutOfBand", 19),
            firing("ColdStartExposureOutOfBand", 29),
            firing("ColdStartExposureOutOfBand", 36, HOME),
            value(f"{COLD_START}:floor", 36, {HOME: 0.1, PDP: 0}),
            value(f"{COLD_START}:ceiling", 36, {HOME: 0.3, PDP: 0.2}),
        ],
    ),
    Case(
        "TelemetryAbsent: a declared surface, for ever, though it never was there",
        {f"recsys_decisions_total{PDP}": flat(7, 3 * DAY // 5)},
        [
            firing(ABSENT, 5),
            firing(ABSENT, 10, HOME),
            firing(ABSENT, 3 * DAY, HOME),
            value(DECLARED, 10, {HOME: 1}),
        ],
        every=5,
    ),
    Case(
        "CollaborativeSourceEmpty: always, never, and the rest by what was",
        {
            _found(namespace, window): (
                flat(found) if window == "7d" else [*flat(0, 20), *flat(0.2, 40)]
            )
            for namespace, found in (("media", 0), ("launch", 1), ("shop", 1), ("cold", 0))
            for window in ("_judged", "7d")
        },
        [
            firing(EMPTY, 4),
            firing(EMPTY, 5, SOURCE % "media", SOURCE % "shop"),
            firing(EMPTY, 35, SOURCE % "media", SOURCE % "shop"),
            firing(EMPTY, 36),
        ],
    ),
]
