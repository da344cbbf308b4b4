"""The rules, as promtool checks and runs them: ours, and the system's, Debian's being of 2.42."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from monitoring.prometheus.build import build
from monitoring.prometheus.recording import EFFECTIVE, PERSONALIZED
from monitoring.prometheus.values import load
from tests.e2e.promtool import PROMTOOLS, Case, failures, firing, flat, surface
from tests.e2e.record_cases import RECORD_CASES
from tests.e2e.rule_cases import CASES, OWN_CASES, OWN_VALUES
from tests.e2e.service_cases import SERVICE_CASES

VALUES = load()
RULES = build(VALUES)
OWN_RULES = build(VALUES | {key: VALUES[key] | own for key, own in OWN_VALUES.items()})
ALERTS = [
    rule["alert"]
    for text in RULES.values()
    for group in yaml.safe_load(text)["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


@pytest.fixture(params=PROMTOOLS, ids=str)
def promtool(request) -> Path:
    return request.param


def test_promtool_finds_no_fault(promtool, tmp_path):
    for name, text in OWN_RULES.items():
        (tmp_path / name).write_text(text)
        done = subprocess.run(
            [promtool, "check", "rules", "--lint=all", "--lint-fatal", tmp_path / name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_do_what_the_cases_say(promtool, tmp_path):
    assert failures(CASES, RULES, tmp_path, promtool) == ""


def test_what_is_recorded_is_what_was_counted(promtool, tmp_path):
    assert failures(RECORD_CASES, RULES, tmp_path, promtool) == ""


def test_restarts_deploys_and_idle_nights_raise_nothing(promtool, tmp_path):
    assert failures(SERVICE_CASES, RULES, tmp_path, promtool) == ""


def test_a_surface_is_judged_by_its_own_values(promtool, tmp_path):
    assert failures(OWN_CASES, OWN_RULES, tmp_path, promtool) == ""


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_seen_firing_and_silent(alert):
    answers = [
        question.answer
        for case in CASES
        for question in case.questions
        if f'alertname="{alert}"' in question.expr
    ]
    assert any(answers)
    assert not all(answers) or alert == "Watchdog"


def test_a_page_says_what_is_wrong_since_when_and_where_to_look(promtool, tmp_path):
    """With names that have to be quoted."""
    for name, text in RULES.items():
        (tmp_path / name).write_text(text)
    labels = {"recsys_namespace": "shop eu", "surface": 'the "home"'}
    series = r'{recsys_namespace="shop eu",surface="the \"home\""}'
    texts = {
        "summary": 'Personalised share of shop eu/the "home" is 50%',
        "description": 'Of the items that shop eu/the "home" served in the last 2h 0m 0s, 50% were '
        "personalised. The threshold is 55%.",
        "since": "1970-01-01 00:10:00 +0000 UTC",
        "dashboard_url": "https://grafana.example.com/d/personalization"
        "?var-namespace=shop+eu&var-surface=the+%22home%22",
        "runbook_url": "https://docs.example.com/otel-personalization/runbooks/PersonalizationDrop.md",
    }
    page = {"severity": "page", "channel": "recsys-rotation", "signal": "ratio"}
    test = {
        "interval": "1m",
        "input_series": [
            {"series": PERSONALIZED + ":ratio_judged" + series, "values": "0.9x9 0.5x20"},
            {"series": EFFECTIVE + "2h" + series, "values": "1000x30"},
        ],
        "alert_rule_test": [
            {
                "alertname": "PersonalizationDrop",
                "eval_time": "20m",
                "exp_alerts": [{"exp_labels": labels | page, "exp_annotations": texts}],
            }
        ],
    }
    groups = ["personalization", "personalization.days", "personalization.alerts"]
    file = tmp_path / "test.yaml"
    content = {
        "rule_files": list(RULES),
        "evaluation_interval": "1m",
        "group_eval_order": groups,
        "tests": [test],
    }
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_case_that_is_not_so_fails(tmp_path):
    """Else nothing above would mean anything."""
    case = Case("wrong", {"up": flat(1)}, [firing("Watchdog", 5, surface("home"))])
    assert "wrong" in failures([case], RULES, tmp_path)
