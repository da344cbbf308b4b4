"""The recording rules.

Raw counters of all processes become sums by namespace and surface over windows, and these become
ratios. One of them is judged: that over the shortest window which holds enough effective decisions.
Where there is none, a series says that the surface is too small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from monitoring.prometheus.promql import (
    OF_SURFACE,
    Group,
    Rule,
    Windows,
    decided,
    either,
    grouped,
    grown,
    metric,
    quoted,
)
from monitoring.prometheus.values import SECONDS, Values, pair_of, seconds
from otel_personalization import conventions as names
from otel_personalization.conventions import Counter, InternalErrorKind

PERSONALIZED: Final = "surface:recsys_personalized_per_served"
REASONS: Final = "surface:recsys_reasons_per_served"
REQUESTED_REASONS: Final = "surface:recsys_reasons_per_requested"
COLD_START: Final = "surface:recsys_cold_start_per_served"
EFFECTIVE: Final = "surface:recsys_effective_decisions:increase"
JUDGED_BY: Final = "recsys_judged:window_seconds"
DECLARED: Final = "surface:recsys_surface:declared"
ACTIVE_HOURS: Final = "surface:recsys_decisions:active_hours24h"
VIEW_DIFFERENCE: Final = "surface:recsys_view_minus_counters:difference"
LOG_ESTIMATE: Final = "sample_rate:recsys_log_decisions:estimate"
LOG_VARIANCE: Final = "sample_rate:recsys_log_decisions:variance"
LOG_RATIO: Final = "recsys:recsys_log_decisions_per_decision:ratio"
LOG_ERROR: Final = "recsys:recsys_log_decisions_per_decision:standard_error"
UNWRAPPED: Final = "job_kind:otel_personalization_internal_errors:sum_patch"

RATIOS: Final = {
    PERSONALIZED: (names.PERSONALIZED_ITEMS, names.SERVED_ITEMS),
    REASONS: (names.REASON_ITEMS, names.SERVED_ITEMS),
    REQUESTED_REASONS: (names.REASON_ITEMS, names.REASON_REQUESTED_ITEMS),
    COLD_START: (names.COLD_START_ITEMS, names.SERVED_ITEMS),
}
"""What is divided."""
FAULTS: Final = (
    names.MALFORMED_TRACES,
    names.DROPPED_LOG_RECORDS,
    names.FOLDED_DECISIONS,
    names.INTERNAL_ERRORS,
)


def recording(values: Values) -> list[Group]:
    """The groups of recording rules."""
    windows = Windows(values)
    needed = _needed(values)
    in_order = sorted(needed, key=seconds)
    days = [window for window in in_order if seconds(window) >= SECONDS["d"]]
    evaluation = values["evaluation"]
    return [
        Group(
            "personalization",
            evaluation["interval"],
            [
                *_bases(windows, needed),
                *_ratios(windows, needed, [w for w in in_order if w not in days]),
                *_judged(values),
                *_source(values, windows),
                *_compared_with(values),
                *_presence(values, windows),
                *_views(values),
                *_logs(values, windows),
                *_faults(values, windows),
            ],
        ),
        Group(
            "personalization.days",
            evaluation["slow_interval"],
            [
                *_ratios(windows, needed, days),
                *_judged_by_days(values),
                windows.rule(
                    names.CANDIDATES,
                    values["collaborative"]["memory"],
                    why="Whether the collaborative source had a candidate at all.",
                ),
            ],
        ),
    ]


def _needed(values: Values) -> dict[str, list[str]]:
    """Window -> the ratios over it that a rule needs."""
    personalization, views = values["personalization"], values["views"]["window"]
    coverage = values["reason_coverage"]["window"]
    wanted = [
        *((window, PERSONALIZED) for window in personalization["windows"]),
        *((window, PERSONALIZED) for window in personalization["low_traffic_windows"]),
        *((window, PERSONALIZED) for window in values["baseline"]["windows"]),
        (coverage, REASONS),
        (coverage, REQUESTED_REASONS),
        (values["cold_start"]["window"], COLD_START),
        (views, PERSONALIZED),
        (views, REASONS),
    ]
    needed: dict[str, list[str]] = {}
    for window, ratio in wanted:
        if ratio not in needed.setdefault(window, []):
            needed[window].append(ratio)
    return needed


def _parts(ratios: Iterable[str]) -> list[Counter]:
    """The counters of ratios, but for served items."""
    counters = {counter for ratio in ratios for counter in RATIOS[ratio]} - {names.SERVED_ITEMS}
    return [counter for counter in names.DECISION_COUNTERS if counter in counters]


def _bases(windows: Windows, needed: dict[str, list[str]]) -> Iterable[Rule]:
    base = windows.base
    yield windows.rule(
        names.DECISIONS,
        base,
        why="--- what long windows are added up from ---\n"
        "By namespace and surface. What tells processes (instance), releases (otel_scope_version) "
        "and services (job) apart is summed over: to its users a surface is one, whoever serves "
        "it. The namespace of doctor's test decisions is left out, here and everywhere.",
    )
    yield windows.rule(names.SERVED_ITEMS, base)
    yield windows.rule(names.SERVED_ITEMS_SQUARED, base)
    why = "A part that is not there is 0, wherever items were served."
    for part in _parts(r for window, rs in needed.items() if windows.is_long(window) for r in rs):
        yield windows.rule(part, base, within=names.SERVED_ITEMS, why=why)
        why = ""


def _ratios(windows: Windows, needed: dict[str, list[str]], of: Iterable[str]) -> Iterable[Rule]:
    for window in of:
        served, squared = (
            grown(counter, window) for counter in (names.SERVED_ITEMS, names.SERVED_ITEMS_SQUARED)
        )
        yield windows.rule(names.SERVED_ITEMS, window, why=f"--- {window} ---")
        yield windows.rule(names.SERVED_ITEMS_SQUARED, window)
        yield Rule(EFFECTIVE + window, f"{served} ^ 2\n/\n({squared} > 0)")
        for part in _parts(needed[window]):
            yield windows.rule(part, window, within=names.SERVED_ITEMS)
        for ratio in needed[window]:
            divided, by = (grown(counter, window) for counter in RATIOS[ratio])
            yield Rule(f"{ratio}:ratio{window}", f"{divided}\n/\n({by} > 0)")


# --- what is judged ---------------------------------------------------------------------------


def _enough(window: str, least: float) -> str:
    return f"{EFFECTIVE}{window} >= {least}"


def _shortest(ratio: str, windows: Iterable[str], least: float) -> str:
    """Of the shortest window that holds enough."""
    return either(*(f"{ratio}:ratio{window} and {_enough(window, least)}" for window in windows))


def _judged_by(
    check: str, windows: Sequence[str], least: float, *, unless: str = "", why: str = ""
) -> Rule:
    expr = either(
        *(f"0 * ({_enough(window, least)}) + {seconds(window)}" for window in windows),
        f"0 * {grown(names.SERVED_ITEMS, windows[-1])}",
    )
    if unless:
        expr = f"{grouped(expr)}\nunless {unless}"
    return Rule(f"surface:{JUDGED_BY}", expr, why, {"check": check})


def _judged(values: Values) -> Iterable[Rule]:
    personalization = values["personalization"]
    fast, least = personalization["windows"], personalization["min_effective_decisions"]
    coverage, cold_start = values["reason_coverage"], values["cold_start"]
    yield Rule(
        f"{PERSONALIZED}:ratio_judged",
        _shortest(PERSONALIZED, fast, least),
        "--- what is judged: the shortest window that holds enough effective decisions ---",
    )
    for ratio, section in (
        (REASONS, coverage),
        (REQUESTED_REASONS, coverage),
        (COLD_START, cold_start),
    ):
        least_here = section["min_effective_decisions"]
        yield Rule(f"{ratio}:ratio_judged", _shortest(ratio, [section["window"]], least_here))
    yield _judged_by(
        "PersonalizationDrop",
        fast,
        least,
        why="The window by which an alert judges a surface, in seconds. 0: it is too small.",
    )
    for alert, section in (
        ("ReasonCoverageLow", coverage),
        ("ColdStartExposureOutOfBand", cold_start),
    ):
        yield _judged_by(alert, [section["window"]], section["min_effective_decisions"])
    yield Rule(
        f"surface:{JUDGED_BY}",
        either(
            f"0 * {REQUESTED_REASONS}:ratio_judged + {seconds(coverage['window'])}",
            f"0 * {grown(names.SERVED_ITEMS, coverage['window'])}",
        ),
        labels={"check": "RequestedReasonCoverageLow"},
    )


def _judged_by_days(values: Values) -> Iterable[Rule]:
    personalization, baseline = values["personalization"], values["baseline"]
    slow, least = (
        personalization["low_traffic_windows"],
        personalization["min_effective_decisions"],
    )
    many = baseline["min_effective_decisions"]
    already = f"{PERSONALIZED}:ratio_judged"
    yield Rule(
        f"{PERSONALIZED}:ratio_judged_low_traffic",
        f"{grouped(_shortest(PERSONALIZED, slow, least))}\nunless {already}",
        "--- what is judged ---\nOf surfaces that no shorter window can judge.",
    )
    yield Rule(
        f"{PERSONALIZED}:ratio_judged_baseline",
        _shortest(PERSONALIZED, baseline["windows"], many),
    )
    yield _judged_by("PersonalizationDropLowTraffic", slow, least, unless=already)
    yield _judged_by("PersonalizationBelowBaseline", baseline["windows"], many)


def _compared_with(values: Values) -> Iterable[Rule]:
    """Recorded, so that a surface can have its own, and dashboards can show it."""
    judged = f"{PERSONALIZED}:ratio_judged"
    floor, ceiling = values["cold_start"]["band"]
    rules: tuple[tuple[str, Any, str, str], ...] = (
        (
            f"{PERSONALIZED}:threshold",
            values["personalization"]["threshold"],
            "personalization_threshold",
            f"({judged} or {judged}_low_traffic)",
        ),
        (f"{PERSONALIZED}:baseline", values["baseline"]["share"], "baseline", f"{judged}_baseline"),
        (
            f"{REASONS}:threshold",
            values["reason_coverage"]["threshold"],
            "reason_coverage_threshold",
            f"{REASONS}:ratio_judged",
        ),
        (f"{COLD_START}:floor", floor, "floor", f"{COLD_START}:ratio_judged"),
        (f"{COLD_START}:ceiling", ceiling, "ceiling", f"{COLD_START}:ratio_judged"),
    )
    own = dict(values["surfaces"])
    for surface, its in own.items():
        if band := its.get("cold_start_band"):
            own[surface] = dict(its) | dict(zip(("floor", "ceiling"), band, strict=True))
    why = "--- what it is compared with: a surface's own value, or that of all ---"
    for record, of_all, key, present in rules:
        for surface, its in own.items():
            if key in its:
                labels = dict(zip(OF_SURFACE, pair_of(surface), strict=True))
                yield Rule(f"{record}_override", f"vector({its[key]})", why, labels)
                why = ""
        yield Rule(record, either(f"{record}_override", f"0 * {present} + {of_all}"), why)
        why = ""


def _source(values: Values, windows: Windows) -> Iterable[Rule]:
    """Of the collaborative source, by namespace."""
    collaborative = values["collaborative"]
    tried, least = collaborative["windows"], collaborative["min_decisions"]
    decisions, candidates = names.SOURCE_DECISIONS, names.CANDIDATES
    yield windows.rule(decisions, windows.base, why="--- the collaborative source ---")
    yield windows.rule(candidates, windows.base, within=decisions)
    for window in tried:
        yield windows.rule(decisions, window)
        yield windows.rule(candidates, window, within=decisions)
    enough = {window: f"{grown(decisions, window)} >= {least}" for window in tried}
    yield Rule(
        grown(candidates, "_judged"),
        either(*(f"{grown(candidates, window)} and {enough[window]}" for window in tried)),
        "Candidates of the shortest window that holds enough decisions. None is exactly 0.",
    )
    yield Rule(
        f"namespace_source:{JUDGED_BY}",
        either(
            *(f"0 * ({enough[window]}) + {seconds(window)}" for window in tried),
            f"0 * {grown(decisions, tried[-1])}",
        ),
        labels={"check": "CollaborativeSourceEmpty"},
    )


# --- the telemetry itself ---------------------------------------------------------------------


def _presence(values: Values, windows: Windows) -> Iterable[Rule]:
    why = "--- is the telemetry there ---\n"
    for surface, its in values["surfaces"].items():
        if its.get("declared"):
            labels = dict(zip(OF_SURFACE, pair_of(surface), strict=True))
            yield Rule(DECLARED, "vector(1)", why.strip(), labels)
            why = ""
    decisions = grown(names.DECISIONS, windows.base)
    minutes = (SECONDS["h"] - seconds(windows.base)) // SECONDS["m"]
    yield Rule(
        ACTIVE_HOURS,
        f"count_over_time((sum_over_time({decisions}[{minutes}m]) > 0)[24h:1h])\nand {decisions}",
        f"{why}Clock hours of the last 24 that had a decision; the first record within {minutes} "
        "minutes reaches back to the full hour. Only while there are series: the last value tells "
        "how regular a surface was when it fell silent.",
    )


def _views(values: Values) -> Iterable[Rule]:
    window, least = values["views"]["window"], values["views"]["min_effective_decisions"]
    selector = decided(values)
    by = ", ".join(OF_SURFACE)
    items = names.WINDOW_SERVED_ITEMS.prometheus_name + selector
    why = "--- is it right: the Collector's views, weighted by the items of their windows ---"
    for view, ratio in (
        (names.PERSONALIZED_IMPRESSION_RATE, PERSONALIZED),
        (names.REASON_COVERAGE_RATE, REASONS),
    ):
        rate = view.prometheus_name + selector
        weighted = f"surface:{view.prometheus_name}:weighted{window}"
        yield Rule(
            weighted,
            f"sum by ({by}) (sum_over_time(({rate} * {items})[{window}:1m]))\n/\n"
            f"sum by ({by}) (sum_over_time(({items} and {rate})[{window}:1m]))",
            why,
        )
        why = ""
        from_counters = f"{ratio}:ratio{window}"
        difference = either(
            f"abs({weighted} - {from_counters})",
            f"{from_counters} + Inf",
        )
        yield Rule(
            f"{VIEW_DIFFERENCE}{window}",
            f"{grouped(difference)}\nand {_enough(window, least)}",
            "Inf: there is no view.",
            {"view": view.prometheus_name},
        )


def _logs(values: Values, windows: Windows) -> Iterable[Rule]:
    logs, base = values["logs"], windows.base
    window, counter = logs["window"], names.LOG_DECISIONS.prometheus_name

    def of_each_rate(divided_by: str) -> str:
        rates = (f"{rate:.15g}" for rate in logs["sample_rates"])
        return either(
            *(
                f"sum by ({names.SAMPLE_RATE}) "
                f'(increase({counter}{{{names.SAMPLE_RATE}="{rate}"}}[{base}]))'
                f" / {divided_by.format(rate)}"
                for rate in rates
            )
        )

    yield Rule(
        f"{LOG_ESTIMATE}{base}",
        of_each_rate("{}"),
        "--- is it right: decisions by their log lines ---\n"
        "A line of a sample stands for those that were left out.",
    )
    yield Rule(f"{LOG_VARIANCE}{base}", of_each_rate("{} ^ 2"), "Of the estimate; at most.")
    decisions = f"sum({windows.added_up(grown(names.DECISIONS, base), window)}) > 0"
    estimate = f"sum({windows.added_up(LOG_ESTIMATE + base, window)})"
    before = f"sum(last_over_time({LOG_ESTIMATE}{base}[{logs['memory']}] offset {window}))"
    yield Rule(
        f"{LOG_RATIO}{window}",
        f"{grouped(either(estimate, 'vector(0)'))}\n/\n({decisions})\nand {before}",
        "Where there were lines before the window began; else they were just switched on.",
    )
    yield Rule(
        f"{LOG_ERROR}{window}",
        f"sqrt(sum({windows.added_up(LOG_VARIANCE + base, window)}))\n/\n({decisions})",
    )


def _faults(values: Values, windows: Windows) -> Iterable[Rule]:
    window = values["library"]["window"]
    yield Rule(
        f"job:{metric(names.DECISIONS)}:increase{window}",
        windows.raw(names.DECISIONS, window, ["job"]),
        "--- faults that the library counts, by service (job) ---",
    )
    for counter in FAULTS:
        by = ("job", *counter.attributes)
        yield Rule(
            f"{fault(counter)}{window}",
            f"sum by ({', '.join(by)}) (increase({counter.prometheus_name}[{window}]))",
        )
    errors, patch = names.INTERNAL_ERRORS, quoted(InternalErrorKind.PATCH.value)
    yield Rule(
        UNWRAPPED,
        f"sum by (job, {names.KIND}) ({errors.prometheus_name}{{{names.KIND}={patch}}})",
        "Targets that could not be wrapped, for as long as their processes live.",
    )


def fault(counter: Counter) -> str:
    """The record of a counter of faults, but for its window."""
    return f"{'_'.join(('job', *counter.attributes))}:{metric(counter)}:increase"
