"""The rules are those that values.yaml asks for, of metrics that there are."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest
import yaml

from monitoring.prometheus.build import RULES, build
from monitoring.prometheus.values import VALUES, ValuesError, check, load, seconds
from otel_personalization import conventions
from otel_personalization.conventions import (
    COUNTERS,
    DAILY_DATE,
    DAILY_GAUGES,
    DAILY_LAST_RUN_TIMESTAMP,
    DAILY_ORG,
    LOG_DECISIONS,
    VIEWS,
)

METRICS = {metric.prometheus_name for metric in (*COUNTERS, LOG_DECISIONS, *VIEWS, *DAILY_GAUGES)}
BUILT = build(load())
ALL_RULES = [
    rule
    for text in BUILT.values()
    for group in yaml.safe_load(text)["groups"]
    for rule in group["rules"]
]
RECORDS = [rule for rule in ALL_RULES if "record" in rule]
ALERTS = [rule for rule in ALL_RULES if "alert" in rule]
OWN = {
    "surfaces": {
        "shop_eu/home": {
            "declared": True,
            "personalization_threshold": 0.501,
            "baseline": 0.581,
            "reason_coverage_threshold": 0.401,
            "cold_start_band": [0.021, 0.201],
        }
    }
}
# Words of PromQL that look like names.
WORDS = {
    *(
        "and",
        "or",
        "unless",
        "by",
        "on",
        "group_left",
        "offset",
        "Inf",
        "sum",
        "max",
        "min",
        "group",
    ),
    *("increase", "sum_over_time", "count_over_time", "last_over_time", "abs", "sqrt", "absent"),
    *("time", "vector"),
}
LABELS = {"recsys_namespace", "surface", "source", "sample_rate", "reason", "kind", "job", "org_id"}


def name(rule):
    return rule.get("record") or rule["alert"]


def names_in(expr):
    """The metrics of an expression: what is no text, duration, label or word of PromQL."""
    expr = re.sub(r'"(?:\\.|[^"\\])*"|\[[^\]]*\]|offset \w+', "", expr)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", expr)) - WORDS - LABELS


def by_name(values):
    """The rules of some values: name and labels -> rule."""
    found = {}
    for text in build(values).values():
        for group in yaml.safe_load(text)["groups"]:
            for rule in group["rules"]:
                found[(name(rule), *sorted(rule.get("labels", {}).items()))] = rule
    return found


OWN_RULES = by_name(load() | OWN)
RECORDED = {rule["record"] for rule in (*RECORDS, *OWN_RULES.values()) if "record" in rule}


def test_the_committed_rules_are_those_of_the_values():
    """If not: `make rules`."""
    assert {path.name for path in RULES.iterdir()} == set(BUILT)
    for file, text in BUILT.items():
        assert (RULES / file).read_text() == text, file


@pytest.mark.parametrize("rule", ALL_RULES, ids=name)
def test_every_metric_is_one_of_the_contract_or_recorded(rule):
    assert names_in(rule["expr"]) <= METRICS | RECORDED


def test_every_record_is_used_or_says_who_is_judged():
    used = {found for rule in ALL_RULES for found in names_in(rule["expr"])}
    for rule in RECORDS:
        assert rule["record"] in used or rule["record"].endswith("recsys_judged:window_seconds")


def test_records_are_named_level_metric_operation():
    for rule in RECORDS:
        assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z_]+(\d+[mhd])?", rule["record"]), rule["record"]


def test_the_level_of_a_record_is_what_it_is_summed_by():
    levels = {
        "surface": "recsys_namespace, surface",
        "namespace_source": "recsys_namespace, source",
        "sample_rate": "sample_rate",
        "job": "job",
        "job_reason": "job, reason",
        "job_kind": "job, kind",
    }
    summed = 0
    for rule in RECORDS:
        for by in re.findall(r"sum by \(([^)]*)\)", rule["expr"]):
            assert by == levels[rule["record"].partition(":")[0]], rule["record"]
            summed += 1
    assert summed > 30


def test_nothing_is_used_that_prometheus_2_42_does_not_have():
    """Or only behind a feature flag. promtool of 2.42 checks it, too, where it is installed."""
    for rule in ALL_RULES:
        assert not re.search(r"\b(anchored|smoothed|limitk|info|ts_of_\w+)\b", rule["expr"])
        assert set(rule) <= {
            *("record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations")
        }


def test_decisions_of_doctor_are_left_out_wherever_there_are_namespaces():
    with_namespace = {
        metric.prometheus_name
        for metric in (*COUNTERS, *VIEWS, *DAILY_GAUGES)
        if conventions.NAMESPACE in metric.attributes
    }
    left_out = f'recsys_namespace!="{conventions.DOCTOR_NAMESPACE}"'
    seen = set()
    for rule in ALL_RULES:
        for metric, selector in re.findall(r"([a-z_:]+)(?:\{([^}]*)\})?", rule["expr"]):
            if metric in with_namespace:
                assert left_out in selector, rule
                seen.add(metric)
    assert len(seen) > 10


def test_figures_of_the_nightly_job_are_put_together_within_an_organisation_only():
    of_night = "|".join(gauge.prometheus_name for gauge in DAILY_GAUGES)
    seen = 0
    for rule in ALL_RULES:
        for before in re.findall(rf"(.*?)\b(?:{of_night})\b", rule["expr"]):
            assert re.search(rf"\w+ by \([^)]*\b{DAILY_ORG}\b[^)]*\) \($", before), rule
            seen += 1
    assert seen >= 4


def test_every_alert_of_the_contract_is_there():
    assert {rule["alert"]: rule["labels"]["severity"] for rule in ALERTS} == {
        "PersonalizationDrop": "page",
        "PersonalizationDropLowTraffic": "ticket",
        "PersonalizationBelowBaseline": "chat",
        "ReasonCoverageLow": "chat",
        "RequestedReasonCoverageLow": "chat",
        "ReasonCoverageBelowTarget": "ticket",
        "ColdStartExposureOutOfBand": "ticket",
        "CollaborativeSourceEmpty": "page",
        "CatalogOverlapSpike": "chat",
        "DailyJobLate": "ticket",
        "DailyJobFailed": "ticket",
        "TelemetryAbsent": "ticket",
        "TelemetryAbsentAll": "page",
        "ViewDisagrees": "ticket",
        "LogsDisagree": "ticket",
        "MalformedTraces": "ticket",
        "DroppedLogRecords": "ticket",
        "LabelsFolded": "ticket",
        "InternalErrors": "ticket",
        "Watchdog": "none",
    }


@pytest.mark.parametrize("rule", ALERTS, ids=name)
def test_an_alert_says_where_it_goes_and_what_is_wrong(rule):
    assert set(rule["labels"]) == {"severity", "channel", "signal"}
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "since", "dashboard_url", "runbook_url"}
    assert PurePosixPath(urlsplit(said["runbook_url"]).path).stem == rule["alert"]
    assert f'ALERTS_FOR_STATE{{alertname="{rule["alert"]}"' in said["since"]
    assert "<" not in "".join(said.values())


@pytest.mark.parametrize("rule", ALERTS, ids=name)
def test_an_alert_of_a_surface_names_it_and_its_value(rule):
    said = rule["annotations"]
    if not rule["expr"].startswith("surface:") and "recsys_namespace, surface" not in rule["expr"]:
        return
    assert "{{ $labels.recsys_namespace }}/{{ $labels.surface }}" in said["summary"]
    assert "var-surface={{ $labels.surface | urlquery }}" in said["dashboard_url"]
    if rule["labels"]["signal"] != "absent":
        assert "$value" in said["description"]


LOOKED_UP = r'`(?:[^`]*[( ])?([\w:]+)\{(?!\{)(?:check="(\w+)")?'
NOT_RECORDED = {
    "ALERTS_FOR_STATE",
    DAILY_DATE.prometheus_name,
    DAILY_LAST_RUN_TIMESTAMP.prometheus_name,
}


def test_every_series_that_a_text_looks_up_is_there():
    recorded = {rule["record"] for rule in RECORDS}
    looked_up = 0
    for rule in ALERTS:
        for text in rule["annotations"].values():
            for series, check_of in re.findall(LOOKED_UP, text):
                assert series in recorded | NOT_RECORDED
                if check_of:
                    checks = {record.get("labels", {}).get("check") for record in RECORDS}
                    assert check_of in checks
                looked_up += 1
    assert looked_up > 20


# --- values -----------------------------------------------------------------------------------


def leaves(values, path=()):
    for key, below in values.items():
        if isinstance(below, dict) and below:
            yield from leaves(below, (*path, key))
        else:
            yield (*path, key), below


def another(path, old):
    """A value of the same kind."""
    if path in OTHERS:
        return OTHERS[path]
    if isinstance(old, list):
        return [0.001, 0.3] if isinstance(old[0], float) else old[:-1]
    if isinstance(old, str) and re.fullmatch(r"\d+[smhdw]", old):
        return f"{seconds(old) * 2}s"
    if isinstance(old, str):
        return f"another-{old}-{{alert}}"
    return old + 1


# Doubling these would be refused, or would change nothing.
OTHERS = {
    ("evaluation", "interval"): "30s",
    ("evaluation", "longest_raw_window"): "15m",
}
FIXED = {("doctor_namespace",), ("collaborative", "mode")}


@pytest.mark.parametrize("path", [(key,) for key in load()] + [path for path, _ in leaves(load())])
def test_a_value_or_section_that_is_missing_is_named(path):
    values = copy.deepcopy(load())
    below = values
    for key in path[:-1]:
        below = below[key]
    del below[path[-1]]
    with pytest.raises(ValuesError, match=re.escape(f"{'.'.join(path)} is missing")):
        build(values)


def test_a_section_that_is_none_is_named():
    with pytest.raises(ValuesError, match=r"baseline is .*, and no section"):
        build(load() | {"baseline": 0.6})


@pytest.mark.parametrize(
    "path", [path for path, _ in leaves(load()) if path not in FIXED], ids=".".join
)
def test_every_value_is_used(path):
    values = copy.deepcopy(load())
    below = values
    for key in path[:-1]:
        below = below[key]
    if path == ("surfaces",):
        below["surfaces"] = OWN["surfaces"]
    elif path == ("collaborative", "namespaces"):
        below["namespaces"] = {"media": "never"}
    else:
        below[path[-1]] = another(path, below[path[-1]])
    assert build(values) != BUILT


def test_a_text_names_a_limit_with_all_of_its_digits():
    """Rounded, the message would name a limit that is not the rule's."""
    values = load()
    values["baseline"]["max_drop"] = 0.075
    values["reason_coverage"] |= {"requested_threshold": 0.955, "target": 0.825}
    values["library"]["max_share"] = 0.0005
    said = build(values)["personalization.alerts.yaml"]
    for limit in (
        "more than 7.5% less",
        "The threshold is 95.5%",
        "The target is 82.5%",
        "more than 0.05% of",
    ):
        assert limit in " ".join(said.split())


@pytest.mark.parametrize(
    ("record", "value"),
    [
        ("surface:recsys_personalized_per_served:threshold_override", 0.501),
        ("surface:recsys_personalized_per_served:baseline_override", 0.581),
        ("surface:recsys_reasons_per_served:threshold_override", 0.401),
        ("surface:recsys_cold_start_per_served:floor_override", 0.021),
        ("surface:recsys_cold_start_per_served:ceiling_override", 0.201),
        ("surface:recsys_surface:declared", 1),
    ],
)
def test_a_surface_has_its_own_values(record, value):
    labels = (("recsys_namespace", "shop_eu"), ("surface", "home"))
    assert OWN_RULES[(record, *labels)]["expr"] == f"vector({value})"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"doctor_namespace": "doctor"}, "otel_personalization_doctor"),
        ({"surfaces": {"Shop/Home": {}}}, "is counted as 'shop/home'"),
        ({"surfaces": {"home": {}}}, "'home' is no 'namespace/surface'"),
        ({"surfaces": {"shop/home": {"treshold": 1}}}, "has treshold; it can have declared, "),
        ({"collaborative": {"mode": "sometimes"}}, "'sometimes' is none of auto, always, never"),
        ({"personalization": {"windows": ["2h", "30m"]}}, "personalization.windows must grow"),
        ({"baseline": {"windows": ["a while"]}}, "'a while' is no duration such as 30m"),
        ({"evaluation": {"interval": "2m"}}, "must be a multiple of evaluation.interval"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused(change, said):
    values = load()
    for key, section in change.items():
        values[key] = values[key] | section if isinstance(section, dict) else section
    with pytest.raises(ValuesError, match=re.escape(said)):
        check(values)


JUDGED = "namespace_source:recsys_candidates:increase_judged"
EVER = "namespace_source:recsys_candidates:increase7d > 0"


@pytest.mark.parametrize(
    ("mode", "namespaces", "expr"),
    [
        ("always", {}, f"{JUDGED} == 0"),
        (
            "always",
            {"a.b": "never", 'say "x"': "never"},
            JUDGED + r'{recsys_namespace!~"a\\.b|say\\ \"x\""} == 0',
        ),
        (
            "never",
            {"shop": "auto"},
            JUDGED + '{recsys_namespace=~"shop"} == 0\nand\n' + EVER,
        ),
        ("never", {}, None),
    ],
)
def test_the_collaborative_source_is_judged_as_its_mode_says(mode, namespaces, expr):
    values = load()
    values["collaborative"] |= {"mode": mode, "namespaces": namespaces}
    found = [rule for key, rule in by_name(values).items() if key[0] == "CollaborativeSourceEmpty"]
    assert [rule["expr"] for rule in found] == ([expr] if expr else [])


def test_every_value_says_why():
    """A comment stands right above it."""
    lines = VALUES.read_text().splitlines()
    values = 0
    for above, line in pairwise(lines):
        if re.match(r"( +|surfaces|doctor_namespace)[\w-]*: *\S", line):
            assert above.strip().startswith("#"), line
            values += 1
    assert values > 50
