"""The rules, as promtool checks and runs them: ours, and the system's, Debian's being of 2.42."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from monitoring.prometheus.build import build
from monitoring.prometheus.recording import EFFECTIVE, PERSONALIZED, VIEW_DIFFERENCE
from monitoring.prometheus.values import load
from tests.e2e.promtool import PROMTOOLS, Case, failures, firing, flat, surface
from tests.e2e.record_cases import RECORD_CASES
from tests.e2e.rule_cases import CASES, OWN_CASES, OWN_VALUES
from tests.e2e.service_cases import SERVICE_CASES

VALUES = load()
RULES = build(VALUES)
RUNBOOK = VALUES["links"]["runbook"].replace("{alert}", "{}")
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
    labels = {"recsys_namespace": "shop eu", "surface": 'the "home"'}
    series = r'{recsys_namespace="shop eu",surface="the \"home\""}'
    texts = {
        "summary": 'Personalised share of shop eu/the "home" is 50%',
        "description": 'Of the items that shop eu/the "home" served in the last 2h 0m 0s, 50% were '
        "personalised. The threshold is 55%.",
        "since": "1970-01-01 00:10:00 +0000 UTC",
        "dashboard_url": "https://grafana.example.com/d/personalization"
        "?var-namespace=shop+eu&var-surface=the+%22home%22",
        "runbook_url": RUNBOOK.format("PersonalizationDrop"),
    }
    page = {"severity": "page", "channel": "recsys-rotation", "signal": "ratio"}
    put_in = {
        PERSONALIZED + ":ratio_judged" + series: "0.9x9 0.5x20",
        EFFECTIVE + "2h" + series: "1000x30",
    }
    expected = {"exp_labels": labels | page, "exp_annotations": texts}
    check_texts("PersonalizationDrop", "20m", put_in, [expected], tmp_path, promtool=promtool)


def test_a_ticket_about_the_nightly_job_says_of_which_organisation_since_when(promtool, tmp_path):
    """One whose last run was three hours ago, and a run for none in particular, of an hour ago."""
    ticket = {"severity": "ticket", "channel": "recsys-tickets", "signal": "daily"}
    run, name = {"job": "run"}, 'the "first"'
    of_run = r'{job="run",org_id="the \"first\""}'
    put_in = {
        f"personalization_daily_last_run_success{of_run}": "0x6000",
        f"personalization_daily_last_run_timestamp_seconds{of_run}": f"{4 * 86400 - 3 * 3600}x6000",
        r'personalization_daily_date_seconds{org_id="the \"first\""}': "86400x6000",
        'personalization_daily_last_run_success{job="run"}': "0x6000",
        'personalization_daily_last_run_timestamp_seconds{job="run"}': f"{4 * 86400 - 3600}x6000",
        'personalization_daily_date_seconds{org_id="second"}': "172800x6000",
    }
    links = {
        "dashboard_url": "https://grafana.example.com/d/personalization",
        "since": "1970-01-01 00:00:00 +0000 UTC",
    }

    def failed(labels, of, ago, day):
        texts = {
            "summary": f"The last run of the nightly job failed{of}",
            "description": f"The last run{of} failed {ago} ago. Gauges, and as a rule tables, "
            f"still show {day}.",
            "runbook_url": RUNBOOK.format("DailyJobFailed"),
        }
        return {"exp_labels": labels | ticket, "exp_annotations": links | texts}

    of_first, of_none = run | {"org_id": name}, run
    expected = [
        failed(of_first, f" for organisation {name}", "3h 0m 0s", "1970-01-02"),
        failed(of_none, "", "1h 0m 0s", "1970-01-03"),
    ]
    check_texts("DailyJobFailed", "4d", put_in, expected, tmp_path, promtool=promtool)
    late = {
        "summary": f"The nightly job has not delivered yesterday of organisation {name}",
        "description": f"The newest day of data of organisation {name} began 3d 0h 0m 0s ago. "
        "Yesterday was due at 6:00 UTC.",
        "since": "1970-01-04 06:00:00 +0000 UTC",
        "runbook_url": RUNBOOK.format("DailyJobLate"),
    }
    expected = [{"exp_labels": ticket | {"org_id": name}, "exp_annotations": links | late}]
    check_texts("DailyJobLate", "4d", put_in, expected, tmp_path, promtool=promtool)


def test_a_message_about_overlap_says_of_which_organisation_since_when(promtool, tmp_path):
    """Of two that have a surface of that name; the other has been too much alike for longer."""
    labels = {"recsys_namespace": "shop", "surface": "home"}
    chat = {"severity": "chat", "channel": "ranking", "signal": "daily"}

    def series(name):
        return surface("home").replace("}", f",org_id={json.dumps(name)}}}")

    def told(name, overlap, since):
        of = f"shop/home of organisation {name}"
        texts = {
            "summary": f"Lists of different users of {of} are too much alike, two days in a row",
            "description": f"On the last day of data the lists of two users of {of} had a Jaccard "
            f"overlap of {overlap} % on average, and of more than 35 % on the day before, too: of "
            "the items that either list held, so many were in both.",
            "since": f"1970-01-01 00:{since}:00 +0000 UTC",
            "dashboard_url": "https://grafana.example.com/d/personalization"
            "?var-namespace=shop&var-surface=home",
            "runbook_url": RUNBOOK.format("CatalogOverlapSpike"),
        }
        return {"exp_labels": labels | chat | {"org_id": name}, "exp_annotations": texts}

    first, second = 'the "first"', "second"
    put_in = {
        f"catalog_overlap_pct{series(first)}": "20x9 40.25x60",
        f"catalog_overlap_pct_previous_day{series(first)}": "36x70",
        f"catalog_overlap_pct{series(second)}": "50x70",
        f"catalog_overlap_pct_previous_day{series(second)}": "36x70",
    }
    expected = [told(first, "40.2", "10"), told(second, "50.0", "00")]
    check_texts("CatalogOverlapSpike", "40m", put_in, expected, tmp_path, promtool=promtool)


def test_a_view_that_is_off_is_so_by_points(promtool, tmp_path):
    labels = {"recsys_namespace": "shop", "surface": "home", "view": "reason_coverage_rate"}
    ticket = {"severity": "ticket", "channel": "recsys-tickets", "signal": "pipeline"}
    selector = ",".join(f'{label}="{value}"' for label, value in labels.items())
    texts = {
        "summary": "reason_coverage_rate of shop/home is not what the counters say",
        "description": "reason_coverage_rate is 3 percentage points away from the counters on "
        "shop/home, over 1h. Alerts go by the counters, dashboards show the view.",
        "since": "1970-01-01 00:00:00 +0000 UTC",
        "dashboard_url": "https://grafana.example.com/d/personalization"
        "?var-namespace=shop&var-surface=home",
        "runbook_url": RUNBOOK.format("ViewDisagrees"),
    }
    expected = {"exp_labels": labels | ticket, "exp_annotations": texts}
    put_in = {f"{VIEW_DIFFERENCE}1h{{{selector}}}": "0.03x60"}
    check_texts("ViewDisagrees", "40m", put_in, [expected], tmp_path, promtool=promtool)


def check_texts(alert, at, put_in, expected, folder, *, promtool) -> None:
    """At that time the alert fires with these labels and texts, and with no others."""
    for name, text in RULES.items():
        (folder / name).write_text(text)
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in put_in.items()],
        "alert_rule_test": [{"alertname": alert, "eval_time": at, "exp_alerts": expected}],
    }
    groups = ["personalization", "personalization.days", "personalization.alerts"]
    file = folder / "test.yaml"
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
