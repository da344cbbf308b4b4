"""From the services through the real Collector into the real Prometheus, against the truth."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest

from examples.demo.service import running
from examples.ranking_service.traffic import Crowd
from otel_personalization import PersonalizationHook, pipeline
from otel_personalization.trace import instant_of
from tests.e2e import otlp
from tests.e2e.fleet import ITEM_COUNTS, PAIRS, Cells, Member, total
from tests.e2e.live_path import ARRIVAL_SECONDS, EXPORT_SECONDS, live_path
from tests.e2e.servers import gunicorn, serving, wait_for
from tests.e2e.views import (
    RATES,
    REQUESTED_RATE,
    check_each_window,
    counted_by,
    growths,
    of_views,
    raw,
    windows,
    without_zeros,
)

WSGI = "tests.e2e.instrumented:wsgi"
HOME, CART = ("shop_eu", "home"), ("shop_eu", "cart")
PREFORK = (sys.executable, "-m", "gunicorn", "-c", "examples/ranking_service/gunicorn.conf.py")
VISITS = 300
SEND_SECONDS = 0.2
"""To send an export."""
PROCESS = {"service.name": "ranking", "service.instance.id": "a process"}


# --- a fleet ----------------------------------------------------------------------------------


def test_every_item_of_a_fleet_is_in_counters_views_and_log_lines(tmp_path, measure):
    """Eight uneven processes, some of which are replaced, of two releases of the library; one is
    the ranking service under gunicorn, whose users count what they are served."""
    service = tmp_path / "service"
    service.mkdir()
    with live_path(tmp_path, view_seconds=3.0, export_seconds=2.0) as path:

        def uneven_processes():
            first = [
                path.fleet.start(
                    Member(
                        rate=20.0 + 25 * n,
                        share=0.15 + 0.1 * n,
                        seconds=5.0 + 2 * n,
                        seed=n,
                        version="0.0.9" if n % 2 else "",
                    )
                )
                for n in range(7)
            ]
            for n, member in enumerate(first[:4]):
                member.wait()
                path.fleet.start(Member(rate=150.0 - 30 * n, share=0.9, seconds=5.0, seed=10 + n))

        starting = threading.Thread(target=uneven_processes)
        with running(
            service, path.collector.endpoint, PREFORK, OTEL_METRIC_EXPORT_INTERVAL="1000"
        ) as url:
            starting.start()
            crowd = Crowd(url, 7, on_answer=lambda: None)
            crowd.visit(range(VISITS))
            starting.join()
            for member in path.fleet.members:
                member.wait()

        of_fleet = path.fleet.truth()
        truth = of_fleet | {
            pair: Counter({name: counts[name] for name in ("decisions", *ITEM_COUNTS)})
            for pair, counts in crowd.tally.items()
        }
        path.raw_is(truth)
        found = path.views_are(truth)

        lines = [line for member in path.fleet.members for line in member.logged()]
        lines += map(json.loads, (service / "decisions.log").read_bytes().splitlines())
        assert logged(lines) == without_zeros(truth)

        assert {label["otel_scope_version"] for label in labels(path.prometheus)} > {"0.0.9"}
        assert all(set(window.rates) <= set(RATES) for window in found)
        of_members = [window for window in found if window.pair in of_fleet]
        exports = [member.exports() for member in path.fleet.members]
        exact = check_each_window(of_members, exports)
        for wrong in (halved(of_members), swapped(of_members)):
            with pytest.raises(AssertionError, match="the gateway was told"):
                check_each_window(wrong, exports)
        with pytest.raises(AssertionError, match="items with a reason requested"):
            check_each_window(halved(of_members, [REQUESTED_RATE]), exports)
        for rate in RATES:
            shown = path.prometheus.by(rate, "recsys_namespace", "surface")
            assert shown == {w.pair: w.rates[rate] for w in found if rate in w.rates}
        measure(
            f"{total(truth)} items of {len(path.fleet.members)} processes and a gunicorn, in "
            f"{len(found)} windows; {len(of_members)} of members hold exactly what the gateway was "
            f"told meanwhile, {exact} of which end with no export in flight"
        )


def halved(found, wrong=tuple(RATES)):
    """The windows, but that some rates are half of what they were."""
    return [
        replace(
            window,
            rates={
                rate: value / 2 if rate in wrong else value for rate, value in window.rates.items()
            },
        )
        for window in found
    ]


def swapped(found):
    """The windows, but that two which follow one another have each other's rates."""
    one, other = next(
        (one, other)
        for pair in {window.pair for window in found}
        for one, other in pairwise(window for window in found if window.pair == pair)
        if one.rates and other.rates and one.rates != other.rates
    )
    rates = {id(one): other.rates, id(other): one.rates}
    return [replace(window, rates=rates.get(id(window), window.rates)) for window in found]


def logged(lines):
    """What log lines add up to."""
    cells = {}
    for line in lines:
        cells.setdefault((line["namespace"], line["surface"]), Counter()).update(
            decisions=1, **{name: line[f"{name}_count"] for name in ITEM_COUNTS}
        )
    return without_zeros(cells)


def labels(prometheus, metric="recsys_decisions_total"):
    return [series["metric"] for series in prometheus.query(f"{metric}[2h]")]


# --- surfaces that come, go, and stand still -----------------------------------------------------


@contextmanager
def hook_to(collector):
    """A hook in this process, that exports often."""
    provider = pipeline.configure(
        "ranking",
        endpoint=collector.endpoint,
        export_interval=EXPORT_SECONDS,
        set_global=False,
    )
    try:
        yield PersonalizationHook(meter_provider=provider, log="none")
    finally:
        provider.shutdown()


def decide(hook, pair, served, personalized, **extras):
    ids = [f"item-{n}" for n in range(served)]
    hook.record(
        {
            "namespace": pair[0],
            "surface": pair[1],
            "final_items": [{"item_id": item} for item in ids],
            "extras": {"personalized_items": ids[:personalized], **extras},
        }
    )


def of(found, pair):
    return [window for window in found if window.pair == pair]


def test_an_idle_surface_has_no_rate_and_one_without_personalised_items_has_0(tmp_path):
    with live_path(tmp_path) as path, hook_to(path.collector) as hook:
        decide(hook, CART, 5, 3)
        wait_for(
            lambda: sum(w.items for w in windows(path.prometheus) if w.pair == CART) == 5,
            "the cart's window",
        )

        def home_has_windows():
            decide(hook, HOME, 4, 0)
            return sum(bool(w.rates) for w in of(windows(path.prometheus), HOME)) > 2

        wait_for(home_has_windows, "three windows in which the cart is idle")
        found = windows(path.prometheus)
        (busy,) = (window for window in of(found, CART) if window.items)
        assert busy.rates == {"personalized_impression_rate": 0.6, "reason_coverage_rate": 0.0} | {
            "requested_reason_coverage_rate": 0.0
        }
        idle = [window for window in of(found, CART) if not window.items]
        assert idle
        assert all(window.rates == {} for window in idle)
        for window in of(found, HOME):
            if window.items:
                assert window.rates["personalized_impression_rate"] == 0


def test_a_surface_that_nobody_asked_reasons_of_has_no_requested_coverage(tmp_path):
    with live_path(tmp_path) as path, hook_to(path.collector) as hook:
        decide(hook, HOME, 4, 4, include_reasons=False)
        wait_for(lambda: any(w.items for w in windows(path.prometheus)), "the window")
        (window,) = (window for window in windows(path.prometheus) if window.items)
        assert window.rates == {"personalized_impression_rate": 1.0, "reason_coverage_rate": 0.0}


def test_a_surface_born_half_an_hour_into_a_process_is_right_from_its_first_window(tmp_path):
    """SDKs may give a series the start time of its process, which is older than the Collector."""
    began = time.time() - 1800
    with live_path(tmp_path) as path:
        for seconds, personalized, served in ((0, 0, 0), (1, 30, 100), (2, 30, 120)):
            counts = {
                "served_items": served,
                "personalized_items": personalized,
            }
            request = otlp.totals(
                counts, HOME, start=began, at=began + 1800 + seconds, resource=PROCESS
            )
            assert otlp.send(path.collector.endpoint, request) == 200
        truth = {HOME: Counter(served_items=120, personalized_items=30)}
        path.raw_is(truth)
        path.views_are(truth)
        # At the time of the last point, which is a second ahead.
        at = began + 1802
        assert counted_by(path.prometheus, "increase(%s[1h] anchored)", at=at) == truth


def test_a_surface_born_late_is_right_from_its_first_window(tmp_path):
    with live_path(tmp_path) as path, hook_to(path.collector) as hook:
        decide(hook, HOME, 8, 2)
        wait_for(lambda: any(w.items for w in windows(path.prometheus)), "the first surface")
        decide(hook, CART, 10, 7)
        wait_for(
            lambda: any(w.items for w in of(windows(path.prometheus), CART)), "the late surface"
        )
        assert [
            (window.items, window.rates["personalized_impression_rate"])
            for window in of(windows(path.prometheus), CART)
            if window.items
        ] == [(10, 0.7)]


# --- forked workers -----------------------------------------------------------------------------


def test_workers_recycled_long_after_their_master_began_are_exact(tmp_path):
    """After a restart of the Collector, too: the master has exported for an hour, and each worker
    ends after some requests."""
    command = gunicorn(WSGI, "--preload", "--max-requests", "120")
    with (
        live_path(tmp_path) as path,
        serving(
            command,
            path.collector.endpoint,
            tmp_path,
            E2E_AGE="hour",
            OTEL_METRIC_EXPORT_INTERVAL="500",
        ) as server,
    ):
        before = server.load()
        wait_for(lambda: items_counted(path) == items_in(before), "what was served first")
        wait_for(lambda: items_in_windows(path) == items_in(before), "the views of it")
        path.collector.stop()
        restarted = time.time()
        path.collector.start()
        # From here on their growth is seen again.
        told = f"timestamp(otel_personalization_folded_decisions_total) > {restarted}"
        wait_for(
            lambda: path.prometheus.value(f"count(count by (instance) ({told}))") == 3,
            "master and workers to have told their totals to the new Collector",
        )
        after = server.load()
        server.stop()
        answers = before + after
        wait_for(lambda: items_counted(path) == items_in(answers), "what was served in all")
        wait_for(lambda: items_in_windows(path) == items_in(answers), "the views of it all")


def items_in(answers):
    return sum(answer.served for answer in answers)


def items_in_windows(path):
    return sum(window.items for window in windows(path.prometheus))


def items_counted(path):
    return total(raw(path.prometheus))


def test_siblings_of_one_instance_id_are_two_processes(tmp_path):
    """Older SDKs leave a forked worker its master's service.instance.id: its scope differs."""
    began = time.time() - 600
    with live_path(tmp_path) as path:
        for n, growth in enumerate((0, 10, 20, 25)):
            for process, share in ((17, 1), (18, 3)):
                counts = {
                    "served_items": 4 * share * growth,
                    "personalized_items": share * growth,
                }
                request = otlp.totals(
                    counts,
                    HOME,
                    start=began + process / 1000,
                    at=began + 1 + 10 * n,
                    resource=PROCESS,
                    scope={"otel_personalization.forked_process_id": str(process)},
                )
                assert otlp.send(path.collector.endpoint, request) == 200
        truth = {HOME: Counter(served_items=400, personalized_items=100)}
        path.raw_is(truth)
        path.views_are(truth)


# --- the ways to export -------------------------------------------------------------------------


@pytest.mark.parametrize("exporter", ["otlp_http/prometheus", "prometheus_remote_write"])
def test_each_way_to_push_is_exact_and_a_restarted_process_is_a_new_series(exporter, tmp_path):
    with live_path(tmp_path, RECSYS_EXPORTERS=f"[{exporter}]") as path:
        restarted(path)
        path.check_exact()
        check_series(path)


def test_a_scrape_is_exact_and_a_restarted_process_is_a_new_series(tmp_path):
    """Views, too, if a window is longer than the time between two scrapes."""
    with live_path(
        tmp_path, scrapes=True, view_seconds=4.0, RECSYS_EXPORTERS="[prometheus]"
    ) as path:
        restarted(path)
        path.check_exact()
        check_series(path)


def restarted(path):
    for seed in range(3):
        path.fleet.start(Member(rate=100, share=0.3 * seed, seconds=4, seed=seed)).wait()


def check_series(path):
    series = labels(path.prometheus)
    assert {label["job"] for label in series} == {"ranking"}
    assert len({label["instance"] for label in series}) == len(path.fleet.members)
    assert not [name for label in series for name in label if name.startswith("exported_")]
    assert path.prometheus.value("sum(resets(recsys_served_items_total[2h]))") == 0
    (gateway,) = {label["instance"] for label in labels(path.prometheus, next(iter(RATES)))}
    assert gateway == "gateway-0"


# --- services that end ------------------------------------------------------------------------


def test_a_service_that_is_told_to_end_loses_nothing(tmp_path):
    with live_path(tmp_path) as path:
        ending = path.fleet.start(Member(rate=200))
        wait_for(lambda: len(ending.decisions()) > 400, "400 decisions")
        ending.stop()
        path.check_exact()


def test_a_killed_service_loses_one_export_interval_at_most(tmp_path, measure):
    with live_path(tmp_path, export_seconds=1.0) as path:
        killed = path.fleet.start(Member(rate=300, pairs=(HOME,)))
        wait_for(lambda: total(told_last(killed)) > 0, "the series to be above 0")
        first, second = [
            total(export.totals) for export in killed.exports() if HOME in export.totals
        ][:2]
        assert first == 0 < second
        before = len(killed.exports())
        wait_for(lambda: len(killed.exports()) > before, "the next export")
        measure(kill_late_in_an_export_interval(path, killed, intervals=1))


def test_a_service_that_is_killed_before_its_series_is_above_0_loses_two_at_most(tmp_path, measure):
    """Of what was served by the first of them the series tells nothing but 0; the second tells all,
    as the test above sees."""
    with live_path(tmp_path, export_seconds=1.0) as path:
        # Not from its start, when it exports early for the sake of the first decisions.
        killed = path.fleet.start(Member(rate=300, pairs=(HOME,), idle=1.2))
        wait_for(
            lambda: path.prometheus.value("recsys_served_items_total") == 0, "the first sample"
        )
        measure(kill_late_in_an_export_interval(path, killed, intervals=2))


def told_last(member):
    """The totals that its last export told."""
    exports = member.exports()
    return exports[-1].totals if exports else {}


def kill_late_in_an_export_interval(path, member, *, intervals):
    """When the next export is about to come: then most is lost. Its log says what it served."""
    interval = path.fleet.export_seconds
    wait_for(
        lambda: time.time() > member.exports()[-1].answered + 0.75 * interval,
        "the next export to be near",
    )
    member.stop(signal.SIGKILL)
    told, due = total(told_last(member)), member.exports()[-1].answered + interval
    lines = member.logged()
    seconds = [instant_of(line["timestamp"]).timestamp() for line in lines]
    since = due - intervals * interval - SEND_SECONDS
    at_most = items_of(line for line, at in zip(lines, seconds, strict=True) if at > since)

    if told:
        wait_for(lambda: items_counted(path) >= told, "what the last export told", ARRIVAL_SECONDS)
    counts = raw(path.prometheus)
    path.views_are(counts)
    counted, fed = total(counts), items_of(lines)
    assert counted == told
    assert 0 < fed - counted <= at_most
    return (
        f"fed {fed}, counted {counted:.0f}, lost {fed - counted:.0f} items of at most {at_most}: "
        f"those of {intervals} x {interval:g} s, and of {SEND_SECONDS:g} s to send them"
    )


def items_of(lines):
    return total(logged(lines))


# --- a gateway that ends ------------------------------------------------------------------------


def test_a_restarted_gateway_has_views_of_all_but_what_was_served_between_two_exports(
    tmp_path, measure
):
    """The last that the old one took, and the first that the new one took, of each process."""
    with live_path(tmp_path) as path:
        members = [path.fleet.start(Member(rate=100, seed=seed)) for seed in range(3)]
        wait_for(
            lambda: all(
                told_last(m).get(pair, Counter()).total() for m in members for pair in PAIRS
            ),
            "every pair to be above 0",
        )
        path.collector.stop()
        stopped = time.time()
        path.collector.start()
        wait_for(
            lambda: all(member.exports()[-2].began > stopped for member in members),
            "each member to have told the new gateway twice",
        )
        for member in members:
            member.stop()
        truth = path.fleet.truth()
        path.raw_is(truth)

        told: Cells = {pair: Counter() for pair in PAIRS}
        for member in members:
            exports = member.exports()
            # Nobody answers in between.
            of_old = [export for export in exports if export.answered < stopped]
            of_new = [export for export in exports if export.answered >= stopped]
            for pair in PAIRS:
                for part in (of_old, of_new):
                    told[pair].update(dict(zip(ITEM_COUNTS, growths(part, pair)[-1], strict=True)))
        path.views_are(told)
        lost = total(truth) - total(told)
        assert lost > 0
        measure(
            f"fed {total(truth)}; counters {total(truth)}, lost 0; views {total(told)}, lost "
            f"{lost}: exactly those between two exports, each {EXPORT_SECONDS:g} s"
        )


# --- PromQL -----------------------------------------------------------------------------------


def test_promql_over_counters_the_views_and_log_lines_agree(tmp_path):
    """Three independent ways to one number."""
    with live_path(tmp_path) as path:
        path.fleet.start(Member(rate=200, seconds=5)).wait()
        truth = path.fleet.truth()
        path.check_exact()
        by_promql = counted_by(path.prometheus, "increase(%s[1h] anchored)")
        by_lines = logged(line for member in path.fleet.members for line in member.logged())
        assert by_promql == by_lines == without_zeros(truth)
        assert of_views(by_promql) == of_views(truth)
