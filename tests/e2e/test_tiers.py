"""Agents before the gateway, and more than one gateway."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest
import yaml

from examples.stack.servers import MONITORING, Collector
from tests.e2e import otlp
from tests.e2e.fleet import Member, add_up, fleet, total
from tests.e2e.live_path import EXPORT_SECONDS, VIEW_SECONDS, live_path
from tests.e2e.servers import wait_for
from tests.e2e.views import in_windows, raw, windows

AGENT = MONITORING / "collector" / "agent.yaml"
ROUTING = MONITORING / "collector" / "agent-routing.yaml"
HOME = ("shop_eu", "home")


@pytest.fixture
def tiers(tmp_path):
    """A live path, an agent before it, and a fleet behind the agent."""
    folder = tmp_path / "agent"
    folder.mkdir()
    with live_path(tmp_path) as path:
        agent = Collector(
            folder,
            configurations=[AGENT],
            feature_gates=(),
            RECSYS_GATEWAY_ENDPOINT=f"127.0.0.1:{path.collector.ports.grpc}",
            RECSYS_GATEWAY_INSECURE="true",
        )
        with agent, fleet(agent.endpoint, tmp_path / "behind", EXPORT_SECONDS) as behind:
            yield path, agent, behind


def test_an_agent_keeps_what_services_sent_while_there_is_no_gateway(tiers):
    """That of services that have ended meanwhile, too."""
    path, _, behind = tiers
    behind.start(Member(seconds=3)).wait()
    path.raw_is(behind.truth())
    path.collector.stop()
    behind.start(Member(seconds=3, share=0.1)).wait()
    path.collector.start()
    path.raw_is(behind.truth())
    path.views_are(behind.truth())


def test_an_agent_that_is_killed_while_there_is_no_gateway_makes_nothing_count_twice(
    tiers, measure
):
    """Services that live catch up in the counters; those that ended meanwhile do not."""
    path, agent, behind = tiers
    living = behind.start(Member(rate=50))
    wait_for(lambda: total(in_windows(windows(path.prometheus))) > 0, "the first window")
    path.collector.stop()
    ended = behind.start(Member(seconds=3, share=0.1, seed=2))
    ended.wait()
    agent.stop(signal.SIGKILL)
    agent.start()
    path.collector.start()
    told_again = total(add_up(living.decisions()))
    wait_for(lambda: total(raw(path.prometheus)) >= told_again, "the service that lives to be back")
    living.stop()
    path.raw_is(add_up(living.decisions()))
    fed = total(behind.truth())
    alive = total(add_up(living.decisions()))
    in_views = total(in_windows(windows(path.prometheus)))
    assert in_views <= alive
    measure(
        f"fed {fed}; counters {alive}, lost the {fed - alive} of the service that ended meanwhile; "
        f"views {in_views}"
    )


def test_a_service_that_moves_to_another_gateway_is_not_counted_twice(tmp_path):
    """Views lose what it served between its last export there and its first here."""
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    with (
        live_path(tmp_path) as path,
        Collector(
            other_folder,
            path.prometheus.url,
            RECSYS_VIEW_INTERVAL=f"{VIEW_SECONDS}s",
            RECSYS_GATEWAY_NAME="gateway-1",
        ) as other,
    ):
        began = time.time()
        for seconds, served, gateway in (
            (0, 0, path.collector),
            (1, 100, path.collector),
            (2, 130, other),
            (3, 150, other),
        ):
            counts = {
                "served_items": served,
                "personalized_items": served // 2,
            }
            request = otlp.totals(
                counts,
                HOME,
                start=began,
                at=began + seconds,
                resource={"service.name": "ranking", "service.instance.id": "a process"},
            )
            assert otlp.send(gateway.endpoint, request) == 200
        path.raw_is({HOME: Counter(served_items=150, personalized_items=75)})
        path.views_are({HOME: Counter(served_items=120, personalized_items=60)})
        by_gateway = {window.labels["instance"] for window in windows(path.prometheus)}
        assert by_gateway == {"gateway-0", "gateway-1"}
        wait_for(lambda: total(in_windows(windows(path.prometheus))) == 120, "no further item")


def test_routing_sends_all_of_a_service_to_one_gateway_and_keeps_what_waits_before_the_choice():
    """Its exporter cannot be had here: form and names are what can be checked."""
    agent, routing = (yaml.safe_load(path.read_text()) for path in (AGENT, ROUTING))
    (name,) = routing["exporters"]
    assert routing["service"]["pipelines"]["metrics"]["exporters"] == [name]
    exporter = routing["exporters"][name]
    assert exporter["routing_key"] == "service"
    assert list(exporter["resolver"]) == ["dns"]
    to_gateway = agent["exporters"]["otlp_grpc/gateway"]
    to_gateways = exporter["protocol"]["otlp"]
    for settings in ("timeout", "retry_on_failure", "sending_queue"):
        assert exporter[settings] == to_gateway[settings]
    assert to_gateways["tls"] == to_gateway["tls"]
    assert to_gateways["sending_queue"] == to_gateways["retry_on_failure"] == {"enabled": False}
