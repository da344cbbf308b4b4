"""The rules, as promtool checks and runs them: ours, and the system's, Debian's being of 2.42."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from monitoring.prometheus.build import build
from monitoring.prometheus.values import load
from tests.e2e.promtool import PROMTOOLS, Case, failures, firing, flat, surface
from tests.e2e.rule_cases import CASES, OWN_CASES, OWN_VALUES

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


def test_a_case_that_is_not_so_fails(tmp_path):
    """Else nothing above would mean anything."""
    case = Case("wrong", {"up": flat(1)}, [firing("Watchdog", 5, surface("home"))])
    assert "wrong" in failures([case], RULES, tmp_path)
