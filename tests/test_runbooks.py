"""Whoever is woken by an alert finds its runbook, and what the runbook names exists.

That the queries run is seen in tests/e2e/test_runbooks.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_personalization import conventions
from otel_personalization.conventions import (
    DECISION_LOG_FIELDS,
    ENVIRONMENT_PREFIX,
    SOURCE_LOG_FIELDS,
)
from otel_personalization.settings import resolve
from tests.runbooks import FOLDER, INDEX, RUNBOOKS, Query, blocks, queries, section

MONITORING = Path(__file__).parents[1] / "monitoring"
PACKAGE = Path(__file__).parents[1] / "otel_personalization"
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
LOKI_LABELS = {"service_name", "deployment_environment", "namespace"}
TABLES = {
    "rec_decisions",
    "analytics.personalization_daily",
    "analytics.personalization_sources_daily",
    "experiments.blend_weights_daily",
}
OF_THE_SERVERS = {
    # Prometheus' own
    "ALERTS",
    "up",
    # of Collectors
    "otelcol_exporter_enqueue_failed_metric_points",
    "otelcol_exporter_queue_size",
    "otelcol_exporter_send_failed_log_records",
    "otelcol_exporter_send_failed_metric_points",
    "otelcol_receiver_accepted_metric_points",
}

of_each_runbook = pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)


def of_each(language: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("query", queries(language), ids=lambda query: query.name)


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for file in sorted((MONITORING / "prometheus" / "rules").glob("*.yaml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
CONTRACT = {
    metric.prometheus_name
    for metric in vars(conventions).values()
    if hasattr(metric, "prometheus_name") and not isinstance(metric, type)
}


def metrics(promql: str) -> set[str]:
    """The metrics that a query names: what is left of its words when all else is taken away.

    >>> sorted(metrics('sum by (job) (increase(a_total{x="b"}[1h])) / (c:d:e offset 1w > 0)'))
    ['a_total', 'c:d:e']
    """
    text = re.sub(r'"[^"]*"', "", promql)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\boffset\s+\w+", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    words = re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()", text)
    return set(words) - {"and", "or", "unless", "bool"}


# --- alerts and pages -------------------------------------------------------------------------


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    assert {page.stem for page in RUNBOOKS} == set(ALERTS)
    assert len(ALERTS) >= 20


@pytest.mark.parametrize("alert", ALERTS)
def test_the_link_of_an_alert_leads_to_its_runbook(alert):
    link = ALERTS[alert]["annotations"]["runbook_url"]
    assert re.fullmatch(rf"https://\S+/runbooks/{alert}(\.md|\.html)?", link)


def test_the_index_names_every_runbook():
    assert set(re.findall(r"\]\((\w+)\.md\)", INDEX.read_text())) == {
        page.stem for page in RUNBOOKS
    }


@of_each_runbook
def test_a_runbook_has_its_sections(page):
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    for title in SECTIONS:
        assert section(page, title).strip(), title


@of_each_runbook
def test_a_runbook_says_first_what_to_do_first(page):
    _, _, first = page.read_text().partition("\n\n")
    assert first.startswith(("**First: ", "**It is to fire always."))


@of_each_runbook
def test_a_diagnosis_has_queries_and_each_is_explained(page):
    """A block is followed by what its answers mean, or by another block that is read with it."""
    diagnosis = section(page, "Diagnosis")
    assert blocks(page, "promql") or blocks(page, "sql")
    assert not diagnosis.rstrip().endswith("```"), "the last query is left unexplained"


# --- the team's playbook ----------------------------------------------------------------------


def mitigation(alert: str) -> str:
    return section(INDEX.with_name(f"{alert}.md"), "Mitigation")


@pytest.mark.parametrize(
    "alert",
    ["PersonalizationDrop", "PersonalizationDropLowTraffic", "PersonalizationBelowBaseline"],
)
def test_a_drop_with_a_steady_ctr_leads_to_the_blend_overrides(alert):
    text = mitigation(alert)
    assert "CTR" in text
    assert "inspect the blend overrides" in text
    assert "`BLEND_WEIGHTS_OVERRIDES`" in text


def test_an_overlap_with_a_falling_ctr_leads_to_the_diversity_knobs():
    text = mitigation("CatalogOverlapSpike")
    for knob in ("CTR", "MMR lambda", "brand cap", "category cap", "weight of popularity"):
        assert knob in text


@pytest.mark.parametrize(
    "alert", ["ReasonCoverageLow", "RequestedReasonCoverageLow", "ReasonCoverageBelowTarget"]
)
def test_coverage_leads_to_the_ingestion_of_the_shop_and_to_its_contracts(alert):
    text = mitigation(alert)
    assert "telemetry ingestion" in text
    assert "`make codegen`" in text


# --- what is named exists ---------------------------------------------------------------------


@of_each("promql")
def test_every_metric_exists(query: Query):
    found = metrics(query.text)
    assert found
    assert found <= CONTRACT | RECORDED | OF_THE_SERVERS


def test_no_metric_of_the_servers_is_listed_in_vain():
    named = set().union(*(metrics(query.text) for query in queries("promql")))
    assert named >= OF_THE_SERVERS


@of_each("promql")
def test_every_alert_that_is_asked_for_exists(query: Query):
    assert set(re.findall(r'alertname="(\w+)"', query.text)) <= set(ALERTS)


@of_each("logql")
def test_lines_are_selected_by_the_labels_that_loki_has(query: Query):
    for selector in re.findall(r"\{([^}]*)\}", query.text):
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= LOKI_LABELS


@of_each("logql")
def test_every_field_that_is_read_of_a_line_exists(query: Query):
    of_lines = {field.name for field in (*DECISION_LOG_FIELDS, *SOURCE_LOG_FIELDS)}
    for stage in re.findall(r"\| json ([^|]*)", query.text):
        assert set(re.findall(r'\w+="(\w+)"', stage)) <= of_lines


@pytest.mark.parametrize("alert", ["InternalErrors", "MalformedTraces"])
def test_messages_that_are_looked_for_are_those_of_the_library(alert):
    """Lines of decisions, each of which has the library's name, are left out."""
    (query,) = blocks(INDEX.with_name(f"{alert}.md"), "logql")
    assert 'event!="personalization.decision"' in query
    (searched,) = re.findall(r'\|[=~] "([^"]+)"', query)
    said = "".join(path.read_text() for path in PACKAGE.glob("*.py"))
    for text in searched.split("|"):
        assert text in said


def test_every_message_of_an_internal_error_is_looked_for():
    (query,) = blocks(INDEX.with_name("InternalErrors.md"), "logql")
    (searched,) = re.findall(r'\|~ "([^"]+)"', query)
    said = {text for path in PACKAGE.glob("*.py") for text in _messages(path)}
    assert len(said) > 7
    for message in said:
        assert any(text in message for text in searched.split("|")), message


def _messages(path: Path) -> Iterator[str]:
    """What functions log that count an internal error."""
    counts, logs = {"add_internal_error", "_note_fault"}, {"warn", "error", "exception"}
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            calls = {
                call: call.func.attr
                for call in ast.walk(function)
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
            }
            if counts & set(calls.values()):
                for call, name in calls.items():
                    if name in counts | logs:
                        texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
                        yield from (text for text in texts if " " in text)


@of_each("sql")
def test_every_table_is_one_of_the_contract(query: Query):
    tables = set(re.findall(r"\b(?:FROM|JOIN) ([a-z_.]+)", query.text))
    assert tables & TABLES
    assert tables <= TABLES | set(re.findall(r"(\w+) AS \(", query.text))


@of_each_runbook
def test_every_variable_exists(page):
    text = page.read_text()
    settings = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in vars(resolve(environment={}))}
    assert set(re.findall(rf"{ENVIRONMENT_PREFIX}[A-Z_]+", text)) <= settings
    configured = "".join(file.read_text() for file in MONITORING.glob("collector/*.yaml"))
    for name in re.findall(r"\bRECSYS_[A-Z_]+", text):
        assert f"env:{name}" in configured, name


@of_each_runbook
def test_what_is_to_be_changed_in_the_values_is_there(page):
    values = (MONITORING / "prometheus" / "values.yaml").read_text()
    for line in section(page, "Mitigation").splitlines():
        if "`values.yaml`" in line:
            for key in re.findall(r"`([a-z_]+)[:`]", line):
                assert re.search(rf"\b{key}:", values), key


def test_the_runbook_of_low_traffic_says_what_to_put_in_place_of_each_short_window():
    """It sends to steps whose windows hold enough decisions on a busy surface only."""
    _, _, steps = section(FOLDER / "PersonalizationDrop.md", "Diagnosis").partition("\n3. ")
    short = {*re.findall(r"\[\d+[mh]\]", steps), *re.findall(r"(?<=')\d+ hours(?=')", steps)}
    assert short
    page = (FOLDER / "PersonalizationDropLowTraffic.md").read_text()
    assert {window for window in short if f"`{window}`" not in page} == set()
