"""From decisions to the page, and back.

The library, Prometheus with the rules and Alertmanager with the routes are real; PagerDuty, Slack
and a dead man's switch are on loopback. Windows are of seconds.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from examples.stack.servers import Prometheus
from monitoring.prometheus.build import build, load
from otel_personalization.hook import PersonalizationHook
from tests.e2e.alertmanager import Alertmanager
from tests.e2e.receivers import (
    RANKING,
    ROUTING_KEY,
    TICKETS,
    Receivers,
    faults_of_event,
    faults_of_message,
    receiving_alerts,
)
from tests.e2e.servers import wait_for

HOME, SEARCH, MEDIA = "shop_eu/home", "shop_eu/search", "media/home"
ITEMS = 50
DECISION_SECONDS = 0.05
EXPORT_SECONDS = 0.5
STALE_SECONDS = 3
"""After which a series is gone for Prometheus if nobody sends it; five minutes by default."""
SILENT_SECONDS = 4.0
NORMAL, DROPPED = 0.66, 0.30

SOONER: Mapping[str, Mapping[str, Any]] = {
    "evaluation": {"interval": "1s", "slow_interval": "1s", "base_window": "5s"},
    "personalization": {
        "windows": ["4s", "8s", "16s"],
        "low_traffic_windows": ["1h", "2h"],
        "min_effective_decisions": 40,
        "for": "2s",
        "keep_firing_for": "3s",
    },
    # Longer, so that the page comes first, and that something is left of the drop after it.
    "baseline": {"windows": ["20s", "30s"], "min_effective_decisions": 200, "for": "5s"},
    "reason_coverage": {
        "window": "20s",
        "min_effective_decisions": 40,
        "for": "2s",
        "target_for": "2s",
    },
    "telemetry": {"for": "2s"},
    "surfaces": {surface: {"declared": True} for surface in (HOME, SEARCH, MEDIA)},
}
"""Values that are not those of values.yaml."""


# --- services ---------------------------------------------------------------------------------


@dataclass
class Quality:
    """What a surface serves from now on."""

    personalized: float = NORMAL
    asked: float = 1.0
    """Share of decisions whose caller asked for reasons; those have one for each item."""


class Service:
    """A ranking service that decides on and on, and exports what the library counts.

    Args:
        name: of the service.
        endpoint: for OTLP metrics.
        surfaces: as ``namespace/surface``.
    """

    def __init__(self, name: str, endpoint: str, *surfaces: str) -> None:
        self.surfaces = {surface: Quality() for surface in surfaces}
        self._name = name
        self._endpoint = endpoint
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """As a new process."""
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End; it exports what is left."""
        self._stopped.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(self._endpoint), EXPORT_SECONDS * 1000
        )
        provider = MeterProvider([reader], Resource({"service.name": self._name}))
        hook = PersonalizationHook(meter_provider=provider, log="none")
        number = 0
        while not self._stopped.wait(DECISION_SECONDS):
            for surface, quality in self.surfaces.items():
                hook.record(_trace(surface, quality, number))
            number += 1
        provider.shutdown()


def _trace(surface: str, quality: Quality, number: int) -> dict[str, Any]:
    namespace, _, name = surface.partition("/")
    ids = [f"item-{n}" for n in range(ITEMS)]
    return {
        "namespace": namespace,
        "surface": name,
        "final_items": [{"item_id": one, "reasons": ["popular"]} for one in ids],
        "extras": {
            "personalized_items": ids[: round(ITEMS * quality.personalized)],
            # Evenly, however few are looked at.
            "include_reasons": number * quality.asked % 1 < quality.asked,
        },
    }


# --- all of it --------------------------------------------------------------------------------


@dataclass
class Alerting:
    prometheus: Prometheus
    alertmanager: Alertmanager
    receivers: Receivers
    shop: Service
    media: Service

    def firing(self) -> set[tuple[str, ...]]:
        """Alert, namespace and surface, as Prometheus has it."""
        found = self.prometheus.by(
            'ALERTS{alertstate="firing"}', "alertname", "recsys_namespace", "surface"
        )
        return set(found)

    def muted_by(self, alert: str) -> set[str]:
        """The alerts that mute one; none, if it is not there."""
        return self.alertmanager.muted().get(alert, set())


@contextmanager
def hurried_prometheus(folder: Path, alertmanager: str) -> Iterator[Prometheus]:
    values = deepcopy(load())
    for section, sooner in SOONER.items():
        values[section] |= sooner
    rules = folder / "rules"
    rules.mkdir()
    for name, text in build(values).items():
        (rules / name).write_text(text)
    server = Prometheus(folder / "prometheus", rules=rules, alertmanager=alertmanager)
    server.command += [
        f"--query.lookback-delta={STALE_SECONDS}s",
        # Alerts are told anew so often, and expire after four times as much; a minute by default.
        "--rules.alert.resend-delay=1s",
    ]
    with server:
        yield server


@pytest.fixture
def alerting(tmp_path: Path) -> Iterator[Alerting]:
    with (
        receiving_alerts() as receivers,
        Alertmanager(tmp_path / "alertmanager", receivers) as alertmanager,
        hurried_prometheus(tmp_path, alertmanager.url.removeprefix("http://")) as prometheus,
    ):
        endpoint = f"{prometheus.url}/api/v1/otlp/v1/metrics"
        shop = Service("shop", endpoint, HOME, SEARCH)
        media = Service("media", endpoint, MEDIA)
        try:
            shop.start()
            media.start()
            yield Alerting(prometheus, alertmanager, receivers, shop, media)
        finally:
            shop.stop()
            media.stop()


def test_a_drop_pages_and_resolves_and_what_it_explains_stays_silent(alerting, measure):
    """One story, since each part of it takes seconds: what is said, and that nothing else is."""
    receivers, prometheus = alerting.receivers, alerting.prometheus
    began = time.monotonic()
    told: list[str] = []

    def tell(what: str) -> None:
        told.append(f"{what} at {time.monotonic() - began:.0f} s")

    # --- all is well
    judged = 'surface:recsys_judged:window_seconds{check="PersonalizationBelowBaseline"} > 0'
    wait_for(lambda: len(prometheus.query(judged)) == 3, "three surfaces to be judged")
    wait_for(lambda: len(receivers.beats) >= 3, "three calls of the dead man's switch")
    assert alerting.firing() == {("Watchdog", "", "")}
    tell("judged")

    # --- one surface drops, and callers of another no longer ask for reasons
    alerting.shop.surfaces[HOME].personalized = DROPPED
    alerting.media.surfaces[MEDIA].asked = 0.62
    coverage = (
        'surface:recsys_reasons_per_served:ratio20s{recsys_namespace="media",surface="home"} < 0.92'
    )
    wait_for(lambda: prometheus.query(coverage), "coverage to fall")
    # Nothing is wrong enough yet. It will be, once the good part has left the window; but then
    # nobody sends counters any more.
    alerting.media.stop()

    wait_for(lambda: receivers.events, "the page")
    tell("paged")
    (page,) = receivers.events
    assert page["routing_key"] == ROUTING_KEY
    assert page["payload"]["summary"].startswith(
        "#recsys-rotation: Personalised share of shop_eu/home is "
    )
    assert (page["payload"]["severity"], page["payload"]["source"]) == ("critical", HOME)
    assert page["links"][0]["href"].endswith("/PersonalizationDrop.html")
    assert page["client_url"].endswith("?var-namespace=shop_eu&var-surface=home")
    firing = page["payload"]["custom_details"]["firing"]
    assert re.search(
        r"^Of the items that shop_eu/home served in the last 4s, \d\d.*% were personalised\. The "
        r"threshold is 55%\.\nSince \d{4}-\d\d-\d\d \d\d:\d\d UTC\n",
        firing,
    ), firing

    wait_for(
        lambda: (
            alerting.muted_by(f"PersonalizationBelowBaseline {HOME}")
            == {f"PersonalizationDrop {HOME}"}
        ),
        "the baseline to be missed, and muted",
    )
    tell("baseline muted")
    assert receivers.messages[RANKING] == []

    # --- it recovers
    alerting.shop.surfaces[HOME].personalized = NORMAL
    wait_for(lambda: len(receivers.events) == 2, "the page to be resolved")
    tell("resolved")
    resolved = receivers.events[1]
    assert resolved["event_action"] == "resolve"
    assert resolved["dedup_key"] == page["dedup_key"]
    wait_for(lambda: receivers.messages[RANKING], "what the page had muted")
    (message,) = receivers.messages[RANKING]
    assert message["channel"] == "#ranking"
    (attachment,) = message["attachments"]
    assert re.fullmatch(
        r"Personalised share of shop_eu/home is .*%, well below its baseline", attachment["title"]
    )
    assert re.search(
        r"more than 5% less than the baseline, 60%\.\nSince .* UTC · <https.*\|Runbook> · "
        r"<https.*\|Dashboard> · PersonalizationBelowBaseline$",
        attachment["text"].strip(),
    ), attachment["text"]

    # --- meanwhile, where nobody sends counters
    wait_for(
        lambda: (
            alerting.muted_by(f"ReasonCoverageBelowTarget {MEDIA}") == {f"TelemetryAbsent {MEDIA}"}
        ),
        "coverage to miss its target, and to be muted",
    )
    tell("coverage muted")
    target = ("ReasonCoverageBelowTarget", *MEDIA.split("/"))
    assert target in alerting.firing()
    wait_for(lambda: target not in alerting.firing(), "coverage to be out of sight")
    assert receivers.titles(TICKETS) == [f"No telemetry of {MEDIA}"]
    assert receivers.messages[TICKETS][0]["channel"] == "#recsys-tickets"
    alerting.media.surfaces[MEDIA].asked = 1.0
    alerting.media.start()
    wait_for(lambda: len(receivers.titles(TICKETS)) == 2, "the ticket to be resolved")
    wait_for(lambda: len(receivers.titles(RANKING)) == 2, "the baseline to be reached again")
    tell("all well again")

    # --- all is dark
    alerting.shop.stop()
    alerting.media.stop()
    wait_for(lambda: len(receivers.events) == 3, "the incident")
    tell("all dark")
    absent = {f"TelemetryAbsent {surface}" for surface in (HOME, SEARCH, MEDIA)}
    wait_for(
        lambda: {name for name, by in alerting.alertmanager.muted().items() if by} >= absent,
        "what it explains to be muted",
    )
    alerting.shop.start()
    alerting.media.start()
    wait_for(lambda: len(receivers.events) == 4, "the incident to be resolved")

    # --- Prometheus is gone
    beats = len(receivers.beats)
    wait_for(lambda: len(receivers.beats) > beats, "the dead man's switch to be called")
    # Before, or their last exports wait for it.
    alerting.shop.stop()
    alerting.media.stop()
    prometheus.stop()
    wait_for(
        lambda: time.monotonic() - receivers.beats[-1] > SILENT_SECONDS,
        "the dead man's switch to be called no more",
    )
    tell("silent without Prometheus")

    # --- that was all
    assert receivers.refused == []
    titles = [(action, re.sub(r"\d.*%", "…", summary)) for action, summary in receivers.incidents()]
    assert titles == [
        ("trigger", f"#recsys-rotation: Personalised share of {HOME} is …"),
        ("resolve", f"#recsys-rotation: Personalised share of {HOME} is …"),
        ("trigger", "#recsys-rotation: No telemetry of any surface"),
        ("resolve", "#recsys-rotation: No telemetry of any surface"),
    ]
    assert receivers.events[2]["dedup_key"] == receivers.events[3]["dedup_key"]
    baseline = f"Personalised share of {HOME} is …, well below its baseline"
    assert [re.sub(r"\d.*%", "…", title) for title in receivers.titles(RANKING)] == [
        baseline,
        f"Resolved: {baseline}",
    ]
    assert receivers.titles(TICKETS) == [
        f"No telemetry of {MEDIA}",
        f"Resolved: No telemetry of {MEDIA}",
    ]
    measure(f"{'; '.join(told)}; {len(receivers.beats)} calls of the dead man's switch")


# --- the receivers themselves -----------------------------------------------------------------

EVENT = {
    "routing_key": ROUTING_KEY,
    "event_action": "trigger",
    "dedup_key": "a",
    "payload": {"summary": "s", "source": "shop_eu/home", "severity": "critical"},
    "links": [{"href": "https://docs.example.com", "text": "Runbook"}],
}
MESSAGE = {
    "channel": "#ranking",
    "attachments": [{"fallback": "a", "text": "<https://docs.example.com|a> &amp; b"}],
}


def with_payload(**changed: Any) -> dict[str, Any]:
    return EVENT | {"payload": EVENT["payload"] | changed}


@pytest.mark.parametrize(
    "event",
    [
        [],
        EVENT | {"routing_key": "short"},
        EVENT | {"routing_key": f"{ROUTING_KEY[:-1]}\n"},
        EVENT | {"event_action": "open"},
        EVENT | {"event_action": "resolve", "dedup_key": ""},
        EVENT | {"dedup_key": "k" * 256},
        EVENT | {"links": [{"text": "Runbook"}]},
        EVENT | {"client_url": "grafana"},
        EVENT | {"service_key": ROUTING_KEY},
        {key: value for key, value in EVENT.items() if key != "payload"},
        with_payload(summary=""),
        with_payload(summary="s" * 1025),
        with_payload(source=""),
        with_payload(severity="page"),
        with_payload(timestamp="yesterday"),
        with_payload(custom_details="text"),
        with_payload(surface="home"),
    ],
)
def test_pagerduty_refuses_what_is_not_documented(event):
    assert faults_of_event(EVENT) == []
    assert faults_of_event(event)


@pytest.mark.parametrize(
    "message",
    [
        [],
        {"channel": "#ranking"},
        MESSAGE | {"channel": "# ranking"},
        MESSAGE | {"title": "t"},
        MESSAGE | {"attachments": [{"title": "t"}]},
        MESSAGE | {"attachments": [{"fallback": "<!channel>"}]},
        MESSAGE | {"attachments": [{"text": "a & b"}]},
        MESSAGE | {"attachments": [{"text": "a", "color": "red"}]},
        MESSAGE | {"attachments": [{"text": "a", "title_link": "runbook"}]},
    ],
)
def test_slack_refuses_what_is_not_documented(message):
    assert faults_of_message(MESSAGE) == []
    assert faults_of_message(message)
