"""A real Alertmanager with the configuration of ``monitoring/alertmanager``, in a hurry."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import yaml

from examples.stack.servers import MONITORING, TOOLS, Server, free_port
from tests.e2e.receivers import PAGERDUTY, RANKING, ROUTING_KEY, SWITCH, TICKETS, Receivers

CONFIGURATION = MONITORING / "alertmanager" / "alertmanager.yml"
RULES = MONITORING / "prometheus" / "rules" / "personalization.alerts.yaml"
SECRETS = "/etc/alertmanager/secrets/recsys/"
WAIT_SECONDS = 1
INTERVAL_SECONDS = 1
"""Of a group, in place of half a minute and five."""

Labels = dict[str, str]


def program() -> str:
    """Alertmanager's, which cannot be built as the other tools are, for its pages.

    Raises:
        FileNotFoundError: there is none.
    """
    for name in ("prometheus-alertmanager", "alertmanager"):
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(
        "these tests need Alertmanager 0.25 or later on the PATH, as prometheus-alertmanager or "
        "alertmanager: apt-get install prometheus-alertmanager"
    )


def amtool(*arguments: object) -> str:
    """What amtool says.

    Raises:
        RuntimeError: it found something wrong.
    """
    done = subprocess.run(
        [TOOLS / "amtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"amtool {' '.join(map(str, arguments))}:\n{done.stdout}{done.stderr}")
    return done.stdout


def alerts() -> dict[str, Labels]:
    """The labels by which each alert of the rules is routed, those of its series left out."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: {"alertname": rule["alert"]} | rule["labels"] for rule in group["rules"]}


class Alertmanager(Server):
    """As deployed, but for times, the URL of PagerDuty, and the secrets: those of the receivers.

    Args:
        folder: for its configuration, its secrets, its data and its log.
        receivers: whom it notifies.
    """

    def __init__(self, folder: Path, receivers: Receivers) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        secrets = {
            "pagerduty-routing-key": ROUTING_KEY,
            "slack-ranking-url": receivers.url + RANKING,
            "slack-tickets-url": receivers.url + TICKETS,
            "dead-mans-switch-url": receivers.url + SWITCH,
        }
        for name, secret in secrets.items():
            (folder / name).write_text(secret)
        configuration = yaml.safe_load(CONFIGURATION.read_text().replace(SECRETS, f"{folder}/"))
        configuration["global"] = {"pagerduty_url": receivers.url + PAGERDUTY}
        configuration["templates"] = [str(CONFIGURATION.parent / "templates" / "*.tmpl")]
        _hurry(configuration["route"])
        self.program = program()
        if self.version() < (0, 26):
            (switch,) = _find(configuration["receivers"], "dead-mans-switch")["webhook_configs"]
            switch["url"] = Path(switch.pop("url_file")).read_text()
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(configuration))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [
                self.program,
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            f"{self.url}/-/ready",
            folder / "alertmanager.log",
        )

    def version(self) -> tuple[int, int]:
        """Of the program, major and minor."""
        said = subprocess.run(
            [self.program, "--version"], capture_output=True, text=True, check=True
        )
        found = re.search(r"version (\d+)\.(\d+)", said.stdout + said.stderr)
        assert found, said
        return int(found[1]), int(found[2])

    def send(self, *alerts: Labels, annotations: Labels | None = None) -> None:
        """Send alerts that fire, as Prometheus does.

        Args:
            *alerts: their labels.
            annotations: else links, and their names as summaries.
        """
        now = datetime.now(timezone.utc)
        links = {
            "runbook_url": "https://docs.example.com/runbooks/x.md",
            "dashboard_url": "https://grafana.example.com/d/x",
        }
        httpx.post(
            f"{self.url}/api/v2/alerts",
            json=[
                {
                    "labels": labels,
                    "annotations": links | {"summary": labels["alertname"]}
                    if annotations is None
                    else annotations,
                    "startsAt": now.isoformat(),
                    "endsAt": (now + timedelta(minutes=5)).isoformat(),
                }
                for labels in alerts
            ],
            trust_env=False,
        ).raise_for_status()

    def muted(self) -> dict[str, set[str]]:
        """Alert with its surface -> the alerts that mute it; of each that is there."""
        found = httpx.get(f"{self.url}/api/v2/alerts", trust_env=False).raise_for_status().json()
        names = {alert["fingerprint"]: name_of(alert["labels"]) for alert in found}
        return {
            name_of(alert["labels"]): {names[one] for one in alert["status"]["inhibitedBy"]}
            for alert in found
        }

    def failed(self, integration: str) -> float:
        """Messages that it could not deliver, as it counts them."""
        metrics = httpx.get(f"{self.url}/metrics", trust_env=False).raise_for_status().text
        counter = rf'alertmanager_notifications_failed_total{{[^}}]*integration="{integration}"'
        return sum(float(value) for value in re.findall(rf"^{counter}.*\}} (\S+)$", metrics, re.M))


def name_of(labels: Labels) -> str:
    """For example ``PersonalizationDrop shop_eu/home``."""
    place = "/".join(labels[key] for key in ("recsys_namespace", "surface") if key in labels)
    return f"{labels['alertname']} {place}".strip()


def _hurry(route: dict[str, Any]) -> None:
    if "group_wait" in route or "group_interval" in route:
        route["group_wait"] = f"{WAIT_SECONDS}s"
        route["group_interval"] = f"{INTERVAL_SECONDS}s"
    if route.get("receiver") == "dead-mans-switch":
        route["repeat_interval"] = "500ms"
    for below in route.get("routes", ()):
        _hurry(below)


def _find(receivers: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [receiver for receiver in receivers if receiver["name"] == name]
    return found
