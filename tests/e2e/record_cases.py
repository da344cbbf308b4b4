"""What is recorded, by value: each window to its edges, each sum by its labels.

Cheap cases: those of alerts put in what is recorded, and these show that it is so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

from monitoring.prometheus.recording import (
    COLD_START,
    EFFECTIVE,
    LOG_ERROR,
    LOG_ESTIMATE,
    LOG_RATIO,
    LOG_VARIANCE,
    PERSONALIZED,
    REASONS,
    REQUESTED_REASONS,
    UNWRAPPED,
    VIEW_DIFFERENCE,
)
from otel_personalization.conventions import DOCTOR_NAMESPACE
from tests.e2e.promtool import Case, flat, stale, surface, total, value

HOME, PDP = surface("home"), surface("pdp")
ITEMS = ("served_items", "served_items_squared")
RAW = {
    # window: minutes, parts
    "5m": (5, ["personalized_items", "cold_start_impressions"]),
    "30m": (30, ["personalized_items"]),
    "1h": (60, ["personalized_items", "reason_items", "reason_requested_items"]),
    "2h": (120, ["personalized_items"]),
}
LONG = {
    # window: minutes, minutes between samples, parts, ratios
    "6h": (360, 10, ["cold_start_impressions"]),
    "12h": (720, 20, ["personalized_items"]),
    "1d": (1440, 60, ["personalized_items"]),
    "3d": (4320, 120, ["personalized_items"]),
    "7d": (10080, 240, ["personalized_items"]),
}
RATIOS = {
    "30m": [PERSONALIZED],
    "1h": [PERSONALIZED, REASONS, REQUESTED_REASONS],
    "2h": [PERSONALIZED],
    "6h": [COLD_START],
    "12h": [PERSONALIZED],
    "1d": [PERSONALIZED],
    "3d": [PERSONALIZED],
    "7d": [PERSONALIZED],
}
SOURCES = ("candidate_source_decisions", "candidates")


def _process(labels: str, instance: str) -> str:
    return labels.replace("{", f'{{instance="{instance}",job="ranking",')


def _raw(
    counted: tuple[str, str], others: Iterable[str], by: tuple[str, str], window: str, minutes: int
) -> Case:
    """Counters that grow by 1 a minute for each process; the whole of one that has no parts."""
    level, whole = counted
    now = 2 * minutes + 10
    grows = total((1, now))
    one, two, doctor = by[0], by[1], by[0].replace('"shop"', f'"{DOCTOR_NAMESPACE}"')
    no_parts, before, within = (
        one.replace("shop", name) for name in ("no parts", "before", "within")
    )
    series: dict[str, str | list[float]] = {}
    for name in (whole, *others):
        for labels, instance in ((one, "a"), (one, "b"), (two, "a"), (doctor, "a")):
            series[f"recsys_{name}_total{_process(labels, instance)}"] = grows
    series[f"recsys_{whole}_total{_process(no_parts, 'a')}"] = grows
    if level == "namespace_source":
        for name in (whole, *others):
            other = one.replace("collaborative", "popularity")
            series[f"recsys_{name}_total{_process(other, 'a')}"] = grows
    # Gone a minute before the window begins, and well within it.
    for labels, ago in ((before, minutes + 1), (within, minutes * 0.6)):
        series[f"recsys_{whole}_total{_process(labels, 'a')}"] = stale(total((1, round(now - ago))))
    there = f"{level}:recsys_{whole}:increase{window}"
    questions = [
        value(f"round({there}, 0.01) unless on (recsys_namespace) {_named('within')}", now, {
            one: 2 * minutes, two: minutes, no_parts: minutes
        }),
        value(f"sgn({there})", now, dict.fromkeys((one, two, no_parts, within), 1)),
        *(
            value(f"round({level}:recsys_{name}:increase{window}, 0.01)", now, {
                one: 2 * minutes, two: minutes, no_parts: 0, within: 0
            })
            for name in others
        ),
    ]  # fmt: skip
    return Case(f"{level}s, {window}: what {whole} grew by", series, questions)


def _named(namespace: str) -> str:
    return f'label_replace(vector(1), "recsys_namespace", "{namespace}", "", "")'


def _long(level: str, names: Iterable[str], by: tuple[str, str], window: str, step: int) -> Case:
    """Nothing but a sample just within the window, one just before it, and one now."""
    minutes = int(window[:-1]) * {"h": 60, "d": 1440}[window[-1]]
    steps = minutes // step
    samples = [500.0, 0, 5, *[0.0] * (steps - 2), 10]
    series = {
        f"{level}:recsys_{name}:increase5m{labels}": [times * sample for sample in samples]
        for name in names
        for times, labels in enumerate(by, 1)
    }
    return Case(
        f"{level}s, {window}: added up, no more and no less",
        series,
        [
            value(f"{level}:recsys_{name}:increase{window}", minutes + step, {by[0]: 3, by[1]: 6})
            for name in names
        ],
        every=step,
    )


def _divided(window: str, ratios: list[str]) -> Case:
    """A surface with some items, one with less than one, and one with none."""
    labels = [surface(name) for name in ("some", "few", "idle")]
    whole = {"some": 100.0, "few": 0.5, "idle": 0.0}
    numbers = {
        "served_items": 1,
        "served_items_squared": 1,
        "personalized_items": 0.6,
        "reason_items": 0.4,
        "reason_requested_items": 0.5,
        "cold_start_impressions": 0.1,
    }
    some, few, _ = labels
    shares = {PERSONALIZED: 0.6, REASONS: 0.4, REQUESTED_REASONS: 0.8, COLD_START: 0.1}
    return Case(
        f"{window}: shares and effective decisions, and none of an idle surface",
        {
            f"surface:recsys_{name}:increase{window}{surface(where)}": flat(number * by, 4)
            for name, by in numbers.items()
            for where, number in whole.items()
        },
        [
            value(f"{EFFECTIVE}{window}", 4, {some: 100, few: 0.5}),
            *(
                value(f"{ratio}:ratio{window}", 4, dict.fromkeys((some, few), shares[ratio]))
                for ratio in ratios
            ),
        ],
    )


def _of_rates(rates: Iterable[str]) -> Case:
    """Two processes for each rate; each writes a line a minute."""
    return Case(
        "a line stands for those that its sample left out, and is as uncertain; of known rates",
        {
            f'recsys_log_decisions_total{{instance="{instance}",sample_rate="{rate}"}}': total(
                (1, 12)
            )
            for rate in (*rates, "0.3")
            for instance in "ab"
        },
        [
            value(
                f"{record}5m",
                11,
                {
                    f'{{sample_rate="{rate}"}}': round(10 / float(rate) ** power, 6)
                    for rate in rates
                },
            )
            for record, power in ((LOG_ESTIMATE, 1), (LOG_VARIANCE, 2))
        ],
    )


def _of_services() -> Case:
    """Each has two processes; another job has one."""
    labels = {
        "malformed_traces": ',reason="%s"',
        "dropped_log_records": "",
        "folded_decisions": "",
        "internal_errors": ',kind="%s"',
    }
    series = {}
    questions = [
        value(
            "round(job:recsys_decisions:increase1h, 0.01)",
            80,
            {'{job="ranking"}': 120, '{job="search"}': 60},
        )
    ]
    for namespace, instance, job in (
        ("shop", "a", "ranking"),
        ("media", "a", "ranking"),
        ("shop", "c", "search"),
        (DOCTOR_NAMESPACE, "a", "ranking"),
    ):
        series[
            f'recsys_decisions_total{{recsys_namespace="{namespace}",instance="{instance}",'
            f'job="{job}"}}'
        ] = total((1, 80))
    for name, more in labels.items():
        kinds = ("one", "two", "patch") if more else ("",)
        answer = {}
        for kind in kinds:
            its = more % kind if more else ""
            for instance, job in (("a", "ranking"), ("b", "ranking"), ("c", "search")):
                series[
                    f'otel_personalization_{name}_total{{instance="{instance}",job="{job}"{its}}}'
                ] = total((1, 80))
                answer[f'{{job="{job}"{its}}}'] = 60 * (2 if job == "ranking" else 1)
        level = "job" + (more.partition("=")[0].replace(",", "_"))
        record = f"{level}:otel_personalization_{name}:increase1h"
        questions.append(value(f"round({record}, 0.01)", 80, answer))
    # All that there were of those that live, not those of an hour.
    questions.append(
        value(
            UNWRAPPED, 80, {'{job="ranking",kind="patch"}': 160, '{job="search",kind="patch"}': 80}
        )
    )
    return Case("faults, by service and kind", series, questions)


def _view(view: str, ratio: str) -> list[Case]:
    """What gateways derive of a surface, and how far it is from the counters."""
    weighted, items = f"surface:{view}:weighted1h", "recsys_window_served_items"
    doctor, media, late = (
        surface("home", DOCTOR_NAMESPACE),
        surface("home", "media"),
        surface("late"),
    )
    far, few, without = surface("far"), surface("few"), surface("without")

    def of_view(labels: str) -> str:
        return labels.replace("}", f',view="{view}"}}')

    return [
        Case(
            f"{view}: weighted by the items of its windows, over an hour",
            {
                # 0 of 600 items for 12 minutes, then 0.5 of 900 and 0.9 of 300 in turn; of another
                # gateway 0.2 of 600; before the hour much else.
                f"{view}{_process(HOME, 'a')}": [*flat(1, 49), *flat(0, 11), *[0.5, 0.9] * 24],
                f"{items}{_process(HOME, 'a')}": [
                    *flat(1e6, 48), 0, *flat(600, 11), *[900, 300] * 24,
                ],
                f"{view}{_process(HOME, 'b')}": flat(0.2, 109),
                f"{items}{_process(HOME, 'b')}": [*flat(1e6, 48), 0, *flat(600, 59)],
                f"{view}{media}": flat(0.3, 109),
                f"{items}{media}": flat(600, 109),
                f"{view}{doctor}": flat(0.7, 109),
                f"{items}{doctor}": flat(600, 109),
                # No rate for 20 minutes: as many items as later count for nothing.
                f"{view}{late}": "_x90 1x9 0x9",
                f"{items}{late}": "_x70 100x39",
            },
            [value(weighted, 109, {HOME: 0.34, media: 0.3, late: 0.5})],
        ),
        Case(
            f"{view}: how far it is from the counters, where there are enough decisions",
            {
                **{f"{weighted}{where}": flat(0.5) for where in (far, few)},
                **{f"{ratio}:ratio1h{where}": flat(0.6) for where in (far, few, without)},
                **{f"{EFFECTIVE}1h{where}": flat(1000) for where in (far, without)},
                f"{EFFECTIVE}1h{few}": flat(999.9),
            },
            [
                value(
                    f'{VIEW_DIFFERENCE}1h{{view="{view}"}}',
                    50,
                    {of_view(far): 0.1, of_view(without): float("inf")},
                )
            ],
        ),
    ]  # fmt: skip


def _lines(
    what: str,
    lines: Mapping[int, float],
    decisions: Mapping[int, float],
    ratio: float | None,
    error: float | None,
) -> Case:
    """Lines of two rates, and decisions of two surfaces; a sample each half an hour.

    Args:
        what: it shows.
        lines: minutes before now -> what is recorded of each rate; at other times there is nothing.
        decisions: the same of each surface; at other times there are none.
        ratio: of lines to decisions.
        error: of the ratio.
    """
    now = 31 * 60
    series: dict[str, str | list[float]] = {}
    for record, rate in product((LOG_ESTIMATE, LOG_VARIANCE), ("1", "0.5")):
        series[f'{record}5m{{sample_rate="{rate}"}}'] = " ".join(
            f"{lines.get(now - at, '_')}" for at in range(0, now + 1, 30)
        )
    for where in (HOME, PDP):
        series[f"surface:recsys_decisions:increase5m{where}"] = [
            decisions.get(now - at, 0) for at in range(0, now + 1, 30)
        ]
    return Case(
        f"lines per decision in six hours: {what}",
        series,
        [
            value(f"{record}6h", now, {} if number is None else {"{}": number})
            for record, number in ((LOG_RATIO, ratio), (LOG_ERROR, error))
        ],
        every=30,
    )


# Just before the window, just within it, and now: 10 of each surface.
BEFORE = {390: 900.0}
TWENTY = BEFORE | {330: 40, 0: 10}
ERROR = round(10**0.5 / 20, 6)
LINES = [
    _lines("half of them", BEFORE | {330: 20, 0: 5}, TWENTY, 0.5, ERROR),
    _lines("there were some before, if only just", {420: 1, 0: 25}, TWENTY, 0.5, ERROR),
    _lines("there were none before", {300: 20, 0: 5}, TWENTY, None, ERROR),
    _lines("none, but within a day before", {360 + 1410: 5}, TWENTY, 0, None),
    _lines("none, nor within a day before", {360 + 1470: 5}, TWENTY, None, None),
    _lines("no decisions", BEFORE | {330: 20, 0: 5}, BEFORE, None, None),
    _lines("half a decision", BEFORE | {0: 0.1}, BEFORE | {0: 1.25}, 0.08, 0.4),
]


def _source(namespace: str) -> str:
    return f'{{recsys_namespace="{namespace}",source="collaborative"}}'


RECORD_CASES = [
    *(_raw(("surface", "served_items"), parts, (HOME, PDP), w, m) for w, (m, parts) in RAW.items()),
    *(
        _raw(("surface", name), [], (HOME, PDP), window, minutes)
        for window, (minutes, _) in RAW.items()
        for name in (["decisions"] if window == "5m" else []) + ["served_items_squared"]
    ),
    *(
        _raw(
            ("namespace_source", SOURCES[0]),
            SOURCES[1:],
            (_source("shop"), _source("media")),
            window,
            minutes,
        )
        for window, minutes in (("5m", 5), ("10m", 10), ("1h", 60))
    ),
    *(
        _long("surface", [*ITEMS, *parts], (HOME, PDP), window, step)
        for window, (_, step, parts) in LONG.items()
    ),
    _long("namespace_source", SOURCES, (_source("shop"), _source("media")), "6h", 10),
    _long("namespace_source", SOURCES[1:], (_source("shop"), _source("media")), "7d", 240),
    *(_divided(window, ratios) for window, ratios in RATIOS.items()),
    _of_rates(["1", "0.5", "0.25", "0.2", "0.1", "0.05", "0.02", "0.01", "0.001"]),
    _of_services(),
    *_view("personalized_impression_rate", PERSONALIZED),
    *_view("reason_coverage_rate", REASONS),
    *LINES,
]
