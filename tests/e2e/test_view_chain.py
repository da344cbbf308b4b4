"""The views need each processor of their chain: without any one of them they are wrong."""

from __future__ import annotations

import re
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from examples.stack.servers import GATEWAY, Collector
from tests.e2e import otlp
from tests.e2e.live_path import live_path
from tests.e2e.servers import wait_for
from tests.e2e.views import RATES, WINDOW_ITEMS

PIPELINES = yaml.safe_load(GATEWAY.read_text())["service"]["pipelines"]
CHAIN = PIPELINES["metrics/views"]["processors"]
HOME, CART = ("shop_eu", "home"), ("shop_eu", "cart")
VIEW_SECONDS = 1.0
ARRIVAL_SECONDS = 6.0
"""Six windows: what is not right by then will not be."""
FEATURE_GATE = "the feature gate"
OF_HOME, OF_CART = (
    rf"the views' windows of \('shop_eu', '{name}'\): " for name in ("home", "cart")
)
SAID = {
    "memory_limiter": r"waited \d+ s for a refusal",
    "filter/operands": r"the gateway writes .*'host_temperature'",
    # Of a window's totals the interval keeps one: that of one process, of four.
    "cumulative_to_delta": OF_HOME
    + r"Counter\({'served_items': (?!1000\b).*'served_items': 1000\b",
    "transform/service": r"personalized_items of Window\(.* is no count",
    "interval": r"windows that end at .* are too short",
    "metricsgeneration": OF_HOME + r"Counter\({'served_items': 1000}\)",
    "transform/gauge": OF_HOME + "None",
    "filter/view": OF_HOME
    + r"None(?s:.*)Exporting failed\. Dropping data\..* HTTP Status Code 500",
    # Divided by the idle home's 0: no rate, if no window ended while they were told.
    FEATURE_GATE: OF_CART + r"Counter\({'served_items': 240(?!, 'reason_items': 120\b)",
}
"""What the failure says without each of them, and the Collector: any other has another cause."""


def without(processor: str, folder: Path) -> list[Path]:
    """The gateway's configuration, but for a processor."""
    pipelines = {
        name: {"processors": [each for each in pipeline["processors"] if each != processor]}
        for name, pipeline in PIPELINES.items()
    }
    override = folder / "override.yaml"
    override.write_text(yaml.safe_dump({"service": {"pipelines": pipelines}}))
    return [GATEWAY, override]


def check_views(folder: Path, **collector) -> None:
    """Feed what a chain can get wrong, and compare with the truth.

    Two processes of two releases, two forked siblings that differ in their scope, a surface that
    idles, and a gauge of the host's.
    """
    began = time.time() - 600
    truth = {HOME: Counter(), CART: Counter()}
    with live_path(
        folder, view_seconds=VIEW_SECONDS, arrival_seconds=ARRIVAL_SECONDS, **collector
    ) as path:

        def tell(n: int, pair, served: int) -> None:
            for process, (instance, version, sibling, part) in enumerate(
                (
                    ("a", "1.0", None, 1),
                    ("b", "2.0", None, 2),
                    ("c", "1.0", "17", 3),
                    ("c", "1.0", "18", 4),
                )
            ):
                scope = {"otel_personalization.forked_process_id": sibling} if sibling else {}
                request = otlp.totals(
                    {
                        "served_items": 4 * served * part,
                        "personalized_items": served * part,
                        "reason_items": 2 * served * part,
                        "reason_requested_items": 3 * served * part,
                    },
                    pair,
                    start=began + process,
                    at=began + 10 * n,
                    resource={"service.name": "ranking", "service.instance.id": instance},
                    scope=scope,
                    version=version,
                )
                otlp.add_gauge(request, "host.temperature", 20 + n, at=began + 10 * n)
                assert otlp.send(path.collector.endpoint, request) == 200
            truth[pair] = Counter(
                served_items=40 * served,
                personalized_items=10 * served,
                reason_items=20 * served,
                reason_requested_items=30 * served,
            )

        for n, served in enumerate((0, 10, 25)):
            tell(n, HOME, served)
        tell(0, CART, 0)
        path.raw_is({HOME: truth[HOME]})  # else it is not the views that fail
        path.views_are({HOME: truth[HOME]})
        for n, served in enumerate((5, 6), start=3):
            tell(n, HOME, 25)
            tell(n, CART, served)
        found = path.views_are(truth)

        wanted = dict(zip(RATES, (1 / 4, 2 / 4, 2 / 3), strict=True))
        for window in found:
            assert window.rates == (pytest.approx(wanted) if window.items else {}), window
        ends = [window.at for window in found if window.pair == HOME]
        lengths = [after - before for before, after in pairwise(ends)]
        assert min(lengths) > VIEW_SECONDS / 2, f"windows that end at {ends} are too short"
        for view in (*RATES, WINDOW_ITEMS):
            series = path.prometheus.query(
                f"count by (recsys_namespace, surface) (last_over_time({view}[2h]))"
            )
            assert [one["value"][1] for one in series] == ["1", "1"], f"{view} is one series each"
        of_gateway = path.prometheus.query(
            'count by (__name__) (last_over_time({instance="gateway-0"}[2h]))'
        )
        names = {one["metric"]["__name__"] for one in of_gateway}
        assert names == {*RATES, WINDOW_ITEMS}, f"the gateway writes {sorted(names)}"


def check_flood_is_refused(folder: Path, **collector) -> None:
    """Less memory than the Collector itself takes: it must take nothing more."""
    with Collector(
        folder,
        "http://127.0.0.1:9",
        RECSYS_MEMORY_LIMIT_MIB="2",
        RECSYS_MEMORY_SPIKE_MIB="1",
        **collector,
    ) as gateway:
        request = otlp.totals({"served_items": 1}, HOME, start=1, at=2, resource={})
        wait_for(lambda: otlp.send(gateway.endpoint, request) == 503, "a refusal", ARRIVAL_SECONDS)


def check(folder: Path, **collector) -> None:
    check_views(folder, **collector)
    check_flood_is_refused(folder, **collector)


def test_the_chain_is_right(tmp_path):
    check(tmp_path)


def check_fails(missing: str, capsys: pytest.CaptureFixture[str], folder: Path, **collector) -> str:
    """Check, and return what the failure says: what it must say without this one."""
    with pytest.raises((AssertionError, pytest.fail.Exception)) as failure:
        check(folder, **collector)
    all_said = (
        f"{failure.value}\n{capsys.readouterr().out}\n{(folder / 'collector.log').read_text()}"
    )
    expected = re.search(SAID[missing], all_said)
    assert expected, f"without {missing} it failed, but not as it should:\n{all_said}"
    return expected[0].splitlines()[0]


@pytest.mark.parametrize("processor", CHAIN)
def test_without_a_processor_the_views_are_wrong(processor, tmp_path, capsys, measure):
    override = without(processor, tmp_path)
    measure(check_fails(processor, capsys, tmp_path, configurations=override))


def test_without_the_feature_gate_the_views_are_wrong(tmp_path, capsys, measure):
    measure(check_fails(FEATURE_GATE, capsys, tmp_path, feature_gates=()))
