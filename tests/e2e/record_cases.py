"""What is recorded, by value: each window to its edges, each sum by its labels.

Cheap cases: those of alerts put in what is recorded, and these show that it is so.
"""

from __future__ import annotations

from collections.abc import Iterable

from monitoring.prometheus.recording import (
    COLD_START,
    EFFECTIVE,
    LOG_ESTIMATE,
    LOG_VARIANCE,
    PERSONALIZED,
    REASONS,
    REQUESTED_REASONS,
)
from otel_personalization.conventions import DOCTOR_NAMESPACE
from tests.e2e.promtool import Case, flat, stale, surface, total, value

HOME, PDP = surface("home"), surface("pdp")
ITEMS = ("served_items", "served_items_squared")
RATIO_PARTS = {
    PERSONALIZED: "personalized_items",
    REASONS: "reason_items",
    REQUESTED_REASONS: "reason_items",
    COLD_START: "cold_start_impressions",
}
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
        "served_items_squared": 20,
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
            value(f"{EFFECTIVE}{window}", 4, {some: 5, few: 0.025}),
            *(
                value(f"{ratio}:ratio{window}", 4, dict.fromkeys((some, few), shares[ratio]))
                for ratio in ratios
            ),
        ],
    )


def _of_rates(rates: Iterable[str]) -> Case:
    """Two processes for each rate; each writes a line a minute."""
    return Case(
        "a line stands for those that its sample left out, and is as uncertain",
        {
            f'recsys_log_decisions_total{{instance="{instance}",sample_rate="{rate}"}}': total(
                (1, 12)
            )
            for rate in rates
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
        kinds = ("one", "two") if more else ("",)
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
    return Case("faults, by service and kind", series, questions)


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
]
