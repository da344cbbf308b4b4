"""The dashboard, as far as it can be checked without a server: form, names, links.

What its queries give is seen in tests/e2e/test_dashboard.py. Grafana itself is not run anywhere.
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.stack.servers import MONITORING
from monitoring.prometheus.values import load
from otel_personalization.daily.tables import TABLES
from tests.grafana import (
    ALL,
    DASHBOARD,
    FILE,
    LANGUAGES,
    PANELS,
    VARIABLES,
    Picked,
    annotation,
    queries,
    query,
)
from tests.runbooks import FOLDER
from tests.test_runbooks import CONTRACT, OF_THE_SERVERS, RECORDED, metrics

SHOPS_OWN = "cold_start_impression(_total)?"
"""Of the shop, which nothing here makes."""
ENVIRONMENT = "deployment_environment_name"

of_each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def has_the_sdk():
    return pytest.importorskip(
        "grafana_foundation_sdk", reason="needs Python 3.11, as the SDK does"
    )


def strings(value):
    """Every text in it, keys included."""
    if isinstance(value, dict):
        for key, of_key in value.items():
            yield key
            yield from strings(of_key)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


# --- the file ---------------------------------------------------------------------------------


def test_the_file_is_what_make_dashboard_writes():
    has_the_sdk()
    from analytics.dashboards.build import JSON, written

    assert JSON == FILE
    assert FILE.read_text("utf-8") == written(load()), "run `make dashboard`"


def test_the_types_of_the_sdk_read_it_and_lose_nothing():
    has_the_sdk()
    from grafana_foundation_sdk.cog import plugins, runtime
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    from analytics.dashboards.sql import SqlQuery

    plugins.register_default_plugins()
    runtime.register_dataquery_variant(
        runtime.DataqueryConfig("grafana-postgresql-datasource", SqlQuery.from_json)
    )
    read = Dashboard.from_json(DASHBOARD)
    targets = [target for panel in read.panels for target in getattr(panel, "targets", None) or ()]
    assert len(targets) == sum(len(panel["targets"]) for panel in PANELS)
    assert not any(isinstance(target, runtime.UnknownDataquery) for target in targets)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == DASHBOARD


# --- panels -----------------------------------------------------------------------------------


def test_the_panels_that_were_asked_for_come_first_and_in_their_order():
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    asked = [
        "Personalised share by surface",
        "Reason coverage",
        "Top-K overlap by cohort and device",
        "Entropy of brands and categories",
        "Personalised share against CTR",
        "Guardrails",
        "The telemetry itself",
        "Single decisions",
    ]
    assert [title for title in titles if title in asked] == asked
    assert titles[0] == asked[0]


def test_panels_do_not_overlap_and_stay_within_the_width():
    def cells(panel):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        return {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }

    taken = {panel["title"]: cells(panel) for panel in DASHBOARD["panels"]}
    assert len(taken) == len(DASHBOARD["panels"])
    for one, other in combinations(taken, 2):
        assert not taken[one] & taken[other], (one, other)


def test_each_panel_has_a_number_of_its_own():
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


@of_each_panel
def test_a_panel_says_how_to_read_it_in_which_unit_and_when_it_is_empty(panel):
    assert len(panel["description"]) > 80
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["noValue"]


@of_each_panel
def test_a_panel_of_lines_or_bars_has_a_legend_and_each_of_its_lines_a_name(panel):
    if panel["type"] in ("timeseries", "barchart"):
        assert panel["options"]["legend"]["showLegend"] is True
    if panel["type"] == "timeseries":
        for target in panel["targets"]:
            assert target["legendFormat"]


@of_each_panel
def test_what_is_said_of_a_line_is_said_of_one_that_is_there(panel):
    if panel["type"] != "timeseries":
        return
    there = {
        "byName": {target["legendFormat"] for target in panel["targets"]},
        "byFrameRefID": {target["refId"] for target in panel["targets"]},
    }
    for override in panel["fieldConfig"]["overrides"]:
        assert override["matcher"]["options"] in there[override["matcher"]["id"]]


@of_each_panel
def test_a_panel_links_to_a_runbook_that_is_there(panel):
    url = load()["links"]["runbook"]
    (link,) = panel["links"]
    before, after = url.split("{alert}")
    name = link["url"].removeprefix(before).removesuffix(after)
    assert url.format(alert=name) == link["url"]
    assert (FOLDER / f"{name}.md").is_file()


def alerts() -> list[dict[str, Any]]:
    """The alerting rules, as Prometheus has them."""
    return [
        rule
        for file in (MONITORING / "prometheus" / "rules").glob("*.yaml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]


def test_the_alerts_link_to_this_dashboard_and_set_variables_that_it_has():
    links = {rule["annotations"]["dashboard_url"] for rule in alerts()}
    assert links
    for link in links:
        address, _, variables = link.partition("?")
        assert address.endswith(f"/d/{DASHBOARD['uid']}")
        assert set(re.findall(r"var-(\w+)=", variables)) <= set(VARIABLES)


@pytest.mark.parametrize(
    "title",
    ["Personalised share by surface", "Reason coverage", "Decisions that served nothing"],
)
def test_where_nothing_was_served_a_line_has_a_gap(title):
    (panel,) = (panel for panel in PANELS if panel["title"] == title)
    assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False


def test_too_few_users_are_greyed():
    (panel,) = (panel for panel in PANELS if panel["title"].startswith("Top-K overlap"))
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    assert mapping["options"]["match"] == "null+nan"
    assert mapping["options"]["result"] == {
        "text": "under 30 users",
        "color": "#8e8e8e",
        "index": 0,
    }
    colored = {
        override["matcher"]["options"]
        for override in panel["fieldConfig"]["overrides"]
        for of_column in override["properties"]
        if of_column["id"] == "custom.cellOptions"
    }
    assert colored == {"mean", "p50", "p75", "p90", "p95", "p99"}


def test_the_target_of_coverage_is_that_of_the_rules():
    (panel,) = (panel for panel in PANELS if panel["title"] == "Reason coverage")
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    coverage = load()["reason_coverage"]
    found = {step["color"]: step.get("value") for step in steps}
    assert found == {"red": None, "yellow": coverage["threshold"], "green": coverage["target"]}
    assert coverage["target"] == 0.8


def test_descriptions_name_the_limits_of_the_rules():
    has_the_sdk()
    from analytics.dashboards import requested

    values = load()
    values["baseline"] |= {"share": 0.7, "max_drop": 0.1}
    values["reason_coverage"] |= {"requested_threshold": 0.955, "target": 0.825, "for": "2h"}
    values["overlap"]["max_pct"] = 37.5
    said = {
        panel.title: panel.description
        for panel in (make.build() for make in requested.panels(values))
    }
    assert "-10% is a share of 63% where 70% is normal" in said["Share against its baseline"]
    assert "Green is the target, 82.5% and more; below 60% for 2h" in said["Reason coverage"]
    assert "below 95.5%" in said["Reason coverage of those who asked"]
    assert "over 0.375 (37.5%)" in said["Top-K overlap by cohort and device"]


def test_click_through_has_an_axis_of_its_own_and_is_not_called_a_proof():
    (panel,) = (panel for panel in PANELS if panel["title"] == "Personalised share against CTR")
    (override,) = panel["fieldConfig"]["overrides"]
    assert override["matcher"]["options"] == "B"
    assert {"id": "custom.axisPlacement", "value": "right"} in override["properties"]
    assert "correlation, not proof" in panel["description"]
    assert "correlation, not proof" in query("CTR by variant").text


# --- variables and data sources ---------------------------------------------------------------


def test_the_variables_are_those_that_were_asked_for():
    assert list(VARIABLES) == [
        "prometheus",
        "loki",
        "postgres",
        "environment",
        "namespace",
        "surface",
        "baseline",
        "ctr",
        "traces",
    ]
    for name, variable in VARIABLES.items():
        assert variable["description"], name
        if variable["multi"]:
            assert (variable["current"]["value"], variable["allValue"]) == (ALL, ".*")


def test_no_data_source_is_fixed():
    sources = [
        source
        for place in (*DASHBOARD["panels"], *DASHBOARD["annotations"]["list"], *VARIABLES.values())
        for source in (
            place.get("datasource"),
            *(t["datasource"] for t in place.get("targets", ())),
        )
        if source
    ]
    picked = {
        f"${{{name}}}": variable["query"]
        for name, variable in VARIABLES.items()
        if variable["type"] == "datasource"
    }
    assert {(source["uid"], source["type"]) for source in sources} == set(picked.items())
    assert set(picked.values()) == set(LANGUAGES)
    assert not [text for text in strings(DASHBOARD) if re.search(r"recsys-(prom|loki|post)", text)]


def test_whatever_a_query_or_a_link_names_by_a_dollar_is_a_variable_or_grafanas():
    for text in strings(DASHBOARD):
        for found in re.finditer(r"\$\{?(\w+)", text):
            assert found[1] in VARIABLES or found[1].startswith("__") or found[1] == "re", text


# --- queries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("one", queries("promql"), ids=lambda one: one.name)
def test_metrics_are_those_of_the_contract_of_rules_or_of_the_servers(one):
    text = Picked().expanded(one.text, "promql")
    found = metrics(text)
    if "__name__" in text:
        assert f'__name__=~"{SHOPS_OWN}"' in text
    else:
        assert found, text
    assert found <= CONTRACT | RECORDED | OF_THE_SERVERS


def test_annotations_are_of_the_alerts():
    for name in ("Alerts", "Alerts of the telemetry"):
        assert metrics(Picked().expanded(annotation(name), "promql")) == {"ALERTS"}


def test_every_signal_of_an_alert_is_in_one_annotation_but_for_the_watchdog():
    signals = {rule["labels"]["signal"] for rule in alerts()}
    shown = [
        signal
        for name in ("Alerts", "Alerts of the telemetry")
        for signal in re.search(r'signal=~"([^"]*)"', annotation(name))[1].split("|")
    ]
    assert sorted(shown) == sorted(signals - {"watchdog"})


@pytest.mark.parametrize("one", queries("promql"), ids=lambda one: one.name)
def test_what_was_picked_holds_for_every_series_that_has_such_labels(one):
    """Each selector of a metric of surfaces; what rules record has no environment."""
    for name, selector in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", one.text):
        if ":" in name:
            assert '=~"$namespace"' in selector
        elif name in CONTRACT:
            for variable in ("namespace", "surface", "environment"):
                assert f'=~"${variable}"' in selector, (name, variable)
            assert "otel_personalization_doctor" in selector


@pytest.mark.parametrize("one", queries("sql"), ids=lambda one: one.name)
def test_sql_reads_tables_of_the_nightly_job_of_what_was_picked(one):
    tables = set(re.findall(r"(?:FROM|JOIN) (\S+)", one.text))
    assert tables
    assert tables <= {table.qualified_name for table in TABLES}
    assert "${namespace:regex}" in one.text
    assert "${surface:regex}" in one.text


def test_log_lines_are_looked_for_by_labels_that_loki_has():
    config = yaml.safe_load((MONITORING / "loki" / "loki.yaml").read_text())
    (rule,) = config["limits_config"]["otlp_config"]["resource_attributes"]["attributes_config"]
    labels = {attribute.replace(".", "_") for attribute in rule["attributes"]}
    for one in queries("logql"):
        selector, _, rest = one.text.partition("}")
        assert set(re.findall(r"(\w+)(?:=~|!=|=)", selector)) == labels
        assert set(re.findall(r"\| (\w+)=", rest)) == {"event", "surface"}


def test_a_trace_id_leads_to_its_trace():
    (panel,) = (panel for panel in PANELS if panel["title"] == "Decisions")
    (override,) = panel["fieldConfig"]["overrides"]
    assert override["matcher"] == {"id": "byName", "options": "trace_id"}
    ((link,),) = (one["value"] for one in override["properties"] if one["id"] == "links")
    assert link["url"] == "${traces:raw}${__value.raw}"


# --- the stand-in for Grafana -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ('{x=~"$surface"}', "promql", r'{x=~"(a\\.b|c)"}'),
        ('{x=~"${surface}"}', "promql", r'{x=~"(a\\.b|c)"}'),
        ('{x=~"$namespace"}', "promql", '{x=~".*"}'),
        ("x ~ '${surface:regex}'", "sql", r"x ~ '(a\.b|c)'"),
        ("x ~ '${namespace:regex}'", "sql", "x ~ '.*'"),
        ("x > $baseline", "promql", "x > 0.55"),
        ("${ctr:raw}", "promql", r'a{b=~"\\d"}'),
        ("x[$__rate_interval]", "promql", "x[75s]"),
        ("x < $__timeTo()::date", "sql", "x < '2026-11-21T10:00:00Z'::date"),
        ('label_replace(x, "y", "$1", "z", ".*$")', "promql", None),
    ],
)
def test_the_stand_in_for_grafana_puts_in_what_grafana_does(text, language, expected):
    values = {"surface": ["a.b", "c"], "baseline": "0.55", "ctr": r'a{b=~"\\d"}'}
    picked = Picked(values, end=1795255200)
    assert picked.expanded(text, language) == (expected or text)


def test_a_format_that_is_not_written_down_is_refused():
    for text in ("${surface:sqlstring}", "${surface:csv}", "$surface"):
        with pytest.raises(AssertionError, match="surface"):
            Picked({"surface": "a"}).expanded(text, "sql")


def test_sql_takes_no_quote_for_the_end_of_a_text():
    """A value ends no text, whatever stands in it."""
    hostile = ["x' OR 1=1 --", "$re$", "$$re$", "\\"]
    text = Picked({"surface": hostile}).expanded("x ~ $re$^(?:${surface:regex})$$re$", "sql")
    assert text.endswith("$$re$")
    assert "$re$" not in text[len("x ~ $re$") : -len("$re$")]


def test_the_file_is_where_the_request_wants_it():
    assert FILE.relative_to(Path(__file__).parents[1]) == Path(
        "analytics/dashboards/personalization.json"
    )
