"""The routes of Alertmanager, as far as they can be checked without it; tests/e2e has the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from examples.stack.servers import MONITORING

FOLDER = MONITORING / "alertmanager"
TEXT = (FOLDER / "alertmanager.yml").read_text()
CONFIGURATION = yaml.safe_load(TEXT)
TEMPLATES = "".join(path.read_text() for path in sorted((FOLDER / "templates").glob("*.tmpl")))
PAGE = (MONITORING.parent / "docs" / "guide" / "alerts.md").read_text()
(GROUP,) = yaml.safe_load(
    (MONITORING / "prometheus" / "rules" / "personalization.alerts.yaml").read_text()
)["groups"]
ALERTS = {rule["alert"]: rule for rule in GROUP["rules"]}
SECRETS = {Path(path).name for path in re.findall(r"_file: (\S+)", TEXT)}


def test_there_is_no_secret_in_it_but_files_of_secrets():
    for receiver in CONFIGURATION["receivers"]:
        for kind, configured in receiver.items():
            if kind == "name":
                continue
            for one in configured:
                assert any(key.endswith("_file") for key in one), receiver["name"]
                assert not {"routing_key", "service_key", "api_url", "url"} & set(one)
    assert len(SECRETS) == len(CONFIGURATION["receivers"])


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_every_secret_is_explained(secret):
    assert re.search(rf"#   {secret} ", TEXT)
    assert f"| `{secret}` |" in PAGE


def test_secrets_that_are_put_there_are_kept_out_of_the_repository():
    assert (FOLDER / "secrets" / ".gitignore").read_text().split("\n")[-3:-1] == [
        "*",
        "!.gitignore",
    ]


def test_inhibitions_name_alerts_and_signals_that_there_are():
    signals = {rule["labels"]["signal"] for rule in ALERTS.values()}
    for rule in CONFIGURATION["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, values = re.fullmatch(r'(\w+)=~?"([\w|]+)"', matcher).groups()
            known = {"alertname": set(ALERTS), "signal": signals}[label]
            assert set(values.split("|")) <= known, matcher


def test_every_severity_of_the_rules_has_a_route():
    routed = re.findall(r'severity="(\w+)"', TEXT)
    severities = {rule["labels"]["severity"] for rule in ALERTS.values()} - {"none"}
    assert set(routed) == severities


def test_every_template_is_defined_and_used():
    defined = re.findall(r'define "([\w.]+)"', TEMPLATES)
    assert len(set(defined)) == len(defined)
    assert set(re.findall(r'template "([\w.]+)"', TEXT + TEMPLATES)) == set(defined)


def test_messages_use_annotations_that_every_alert_has():
    used = set(re.findall(r"\.Annotations\.(\w+)", TEXT + TEMPLATES))
    for name, rule in ALERTS.items():
        assert used <= set(rule["annotations"]), name


def test_the_page_says_where_each_alert_goes():
    """By name, those that are not "all others"."""
    named = PAGE[PAGE.index("| alerts |") : PAGE.index("A message says")]
    for name, rule in ALERTS.items():
        others = rule["labels"]["severity"] == "ticket"
        assert (name not in re.findall(r"\w+", named)) == others, name
        if others:
            assert f"| all others | tickets, `#{rule['labels']['channel']}` |" in named
        else:
            (row,) = [row for row in named.splitlines() if re.search(rf"\b{name}\b", row)]
            if name != "Watchdog":
                assert f"`#{rule['labels']['channel']}`" in row
