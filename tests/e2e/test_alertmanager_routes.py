"""Who hears of which alert, and which alert mutes which, by amtool and a real Alertmanager."""

from __future__ import annotations

import pytest

from tests.e2e.alertmanager import (
    CONFIGURATION,
    Alertmanager,
    alerts,
    amtool,
    name_of,
)
from tests.e2e.receivers import RANKING, TICKETS, receiving_alerts
from tests.e2e.servers import wait_for

PAGE, CHAT, TICKET, SWITCH = "pagerduty", "ranking", "tickets", "dead-mans-switch"
RECEIVERS = {
    "PersonalizationDrop": PAGE,
    "PersonalizationDropLowTraffic": TICKET,
    "PersonalizationBelowBaseline": CHAT,
    "ReasonCoverageLow": CHAT,
    "RequestedReasonCoverageLow": CHAT,
    "ReasonCoverageBelowTarget": TICKET,
    "CatalogOverlapSpike": CHAT,
    "CollaborativeSourceEmpty": PAGE,
    "ColdStartExposureOutOfBand": TICKET,
    "DailyJobLate": TICKET,
    "DailyJobFailed": TICKET,
    "TelemetryAbsent": TICKET,
    "TelemetryAbsentAll": PAGE,
    "ViewDisagrees": TICKET,
    "LogsDisagree": TICKET,
    "MalformedTraces": TICKET,
    "DroppedLogRecords": TICKET,
    "LabelsFolded": TICKET,
    "InternalErrors": TICKET,
    "Watchdog": SWITCH,
}
CHANNELS = {
    PAGE: "recsys-rotation",
    CHAT: "ranking",
    TICKET: "recsys-tickets",
    SWITCH: "dead-mans-switch",
}

# --- by which alert, on the same surface or in the same namespace -> which are muted ------------
RATIOS = {name for name, labels in alerts().items() if labels["signal"] == "ratio"}
MUTES = {
    "TelemetryAbsentAll": RATIOS | {"CollaborativeSourceEmpty", "TelemetryAbsent"},
    "TelemetryAbsent": RATIOS,
    "PersonalizationDrop": {"PersonalizationDropLowTraffic", "PersonalizationBelowBaseline"},
    "ReasonCoverageLow": {"ReasonCoverageBelowTarget"},
}
NO_SURFACE = {
    "CollaborativeSourceEmpty",
    "DailyJobLate",
    "DailyJobFailed",
    "TelemetryAbsentAll",
    "LogsDisagree",
    "MalformedTraces",
    "DroppedLogRecords",
    "LabelsFolded",
    "InternalErrors",
    "Watchdog",
}


def placed(alert: str, namespace: str = "shop_eu", surface: str = "home") -> dict[str, str]:
    """An alert with the labels that it fires with, as far as they matter."""
    labels = dict(alerts()[alert])
    if alert not in NO_SURFACE:
        labels |= {"recsys_namespace": namespace, "surface": surface}
    elif alert == "CollaborativeSourceEmpty":
        labels |= {"recsys_namespace": namespace, "source": "collaborative"}
    return labels


@pytest.fixture
def receivers():
    with receiving_alerts() as received:
        yield received


@pytest.fixture
def alertmanager(tmp_path, receivers):
    with Alertmanager(tmp_path / "alertmanager", receivers) as server:
        yield server


def test_the_configuration_is_accepted():
    assert "SUCCESS" in amtool("check-config", CONFIGURATION)


def test_there_is_a_receiver_for_each_alert_of_the_rules():
    assert set(RECEIVERS) == set(alerts())


@pytest.mark.parametrize(("alert", "receiver"), RECEIVERS.items())
def test_an_alert_goes_to_its_receiver(alert, receiver):
    labels = [f"{name}={value}" for name, value in placed(alert).items()]
    found = amtool("config", "routes", "test", "--config.file", CONFIGURATION, *labels)
    assert found.split() == [receiver]
    assert alerts()[alert]["channel"] == CHANNELS[receiver]


def test_an_alert_that_no_rule_of_ours_has_is_seen():
    found = amtool("config", "routes", "test", "--config.file", CONFIGURATION, "alertname=Else")
    assert found.split() == [TICKET]


@pytest.mark.parametrize(("source", "targets"), MUTES.items())
def test_an_alert_mutes_what_it_has_to_and_nothing_else(alertmanager, source, targets):
    """All alerts on one surface, but for what would mute more than this one does."""
    firing = [placed(name) for name in alerts() if name in {source, *targets} or name not in MUTES]
    alertmanager.send(*firing)
    wait_for(lambda: len(alertmanager.muted()) == len(firing), "all alerts to be there")
    muted = {name.split()[0] for name, by in alertmanager.muted().items() if by}
    assert muted == targets


def test_what_mutes_on_one_surface_mutes_on_no_other(alertmanager):
    sources = [placed(name) for name in MUTES if name != "TelemetryAbsentAll"]
    elsewhere = [
        placed(alert, *place)
        for alert in sorted(RATIOS)
        for place in (("shop_eu", "search"), ("media", "home"))
        if alert not in MUTES
    ]
    alertmanager.send(*sources, *elsewhere)
    names = {name_of(labels) for labels in elsewhere}
    wait_for(lambda: names <= alertmanager.muted().keys(), "all alerts to be there")
    assert {name: by for name, by in alertmanager.muted().items() if name in names} == {
        name: set() for name in names
    }


def test_alerts_of_one_surface_are_one_message_and_of_two_are_two(alertmanager, receivers):
    alertmanager.send(
        placed("ReasonCoverageLow"),
        placed("RequestedReasonCoverageLow"),
        placed("ReasonCoverageLow", "media"),
    )
    wait_for(lambda: len(receivers.messages[RANKING]) >= 2, "two messages")
    assert sorted(receivers.titles(RANKING)) == [
        "ReasonCoverageLow",
        "ReasonCoverageLow, and 1 more",
    ]


def test_surfaces_that_are_gone_at_once_are_one_message(alertmanager, receivers):
    surfaces = ("home", "search", "cart")
    alertmanager.send(*(placed("TelemetryAbsent", surface=surface) for surface in surfaces))
    wait_for(lambda: receivers.messages[TICKETS], "a message")
    assert receivers.titles(TICKETS) == ["TelemetryAbsent, and 2 more"]


def test_all_surfaces_gone_are_one_incident_and_no_ticket(alertmanager, receivers):
    surfaces = ("home", "search", "cart")
    alertmanager.send(
        *(placed("TelemetryAbsent", surface=surface) for surface in surfaces),
        *(placed("PersonalizationDrop", surface=surface) for surface in surfaces),
        placed("TelemetryAbsentAll"),
        placed("DailyJobFailed"),
    )
    # It comes last: its group has waited as long as the others.
    wait_for(lambda: receivers.events and receivers.messages[TICKETS], "incident and ticket")
    assert receivers.incidents() == [("trigger", "#recsys-rotation: TelemetryAbsentAll")]
    assert receivers.titles(TICKETS) == ["DailyJobFailed"]


def test_a_surface_cannot_give_slack_instructions(alertmanager, receivers):
    labels = placed("ReasonCoverageLow", surface="<!channel> & co")
    alertmanager.send(labels | {"alertname": "<!channel> & co"})
    wait_for(lambda: receivers.messages[RANKING] or receivers.refused, "a message")
    assert receivers.refused == []
    assert receivers.titles(RANKING) == ["&lt;!channel&gt; &amp; co"]


@pytest.mark.parametrize("severity", ["page", "chat", "none of ours"])
def test_an_alert_without_texts_and_links_is_taken(alertmanager, receivers, severity):
    alertmanager.send({"alertname": "Else", "severity": severity}, annotations={})
    taken = (receivers.events, *receivers.messages.values())
    wait_for(lambda: any(taken) or receivers.refused, "a message")
    assert receivers.refused == []


def test_an_incident_with_a_long_text_is_taken(alertmanager, receivers):
    alertmanager.send(placed("PersonalizationDrop") | {"alertname": "x" * 3000})
    wait_for(lambda: receivers.events or receivers.refused, "an incident")
    assert receivers.refused == []
    assert len(receivers.events) == 1


def test_without_secrets_it_starts_and_says_what_it_could_not_deliver(tmp_path, receivers):
    server = Alertmanager(tmp_path / "alertmanager", receivers)
    secrets = {path: path.read_text() for path in server.log.parent.glob("slack-*-url")}
    for path in secrets:
        path.unlink()
    with server:
        server.send(placed("DailyJobFailed"))
        wait_for(lambda: server.failed("slack"), "a message that could not be delivered")
        for path, secret in secrets.items():
            path.write_text(secret)
        wait_for(lambda: receivers.messages[TICKETS], "it to be delivered, without a restart")
