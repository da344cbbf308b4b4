"""The figures in a real Pushgateway, as Prometheus scrapes them."""

from __future__ import annotations

import base64
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler

import httpx
import pytest
import yaml

from examples.stack.servers import Prometheus
from monitoring.prometheus.build import build
from monitoring.prometheus.values import load
from otel_personalization.daily.figures import PublishError, previous_overlap
from otel_personalization.daily.publish import push, push_run
from otel_personalization.daily.tables import PERSONALIZATION_DAILY
from tests.daily.days import DAY, ORG, day_tables
from tests.daily.test_publish import FIGURES, HOME, TOLD, lines_of, one_day
from tests.e2e.pushgateway import Pushgateway
from tests.e2e.servers import wait_for
from tests.loopback import serving

MIDNIGHT = datetime(2026, 11, 21, tzinfo=timezone.utc).timestamp()
DATE = "personalization_daily_date_seconds"
SUCCESS_TIME = "personalization_daily_success_timestamp_seconds"
RUN_TIME = "personalization_daily_last_run_timestamp_seconds"
RUN_SUCCESS = "personalization_daily_last_run_success"
CART = ("shop_eu", "cart")


@pytest.fixture
def gateway(tmp_path):
    with Pushgateway(tmp_path) as started:
        yield started


def of_surface(place, org_id=ORG):
    namespace, surface = place
    return (
        ("job", "personalization_daily"),
        ("org_id", org_id),
        ("recsys_namespace", namespace),
        ("surface", surface),
    )


def of_day(org_id=ORG):
    return (("job", "personalization_daily"), ("org_id", org_id))


def of_run(org_id=None):
    run = ("job", "personalization_daily_run")
    return (run,) if org_id is None else (run, ("org_id", org_id))


def overlaps(gateway):
    """Organisation, namespace and surface of what has an overlap."""
    return {
        tuple(value for label, value in labels if label != "job")
        for name, labels in gateway.series()
        if name == "catalog_overlap_users"
    }


def test_a_scrape_gives_the_figures_and_nothing_else(gateway):
    began = time.time()
    push(gateway.url, one_day(), {HOME: 40.0})
    push_run(gateway.url, success=True)
    series = gateway.series()
    times = [series.pop((SUCCESS_TIME, of_day())), series.pop((RUN_TIME, of_run()))]
    assert began <= times[0] <= times[1] <= time.time()
    assert series == {
        **{(name, of_surface(HOME)): value for name, value in TOLD.items()},
        (DATE, of_day()): MIDNIGHT,
        (RUN_SUCCESS, of_run()): 1,
    }


def test_a_second_run_changes_nothing_but_the_time(gateway):
    push(gateway.url, day_tables(**FIGURES), {})
    before = gateway.series()
    push(gateway.url, day_tables(**FIGURES), {})
    after = gateway.series()
    assert before.pop((SUCCESS_TIME, of_day())) < after.pop((SUCCESS_TIME, of_day()))
    assert before == after


def test_surfaces_and_figures_that_are_gone_take_their_series_along(gateway):
    push(gateway.url, day_tables(**FIGURES), {HOME: 40.0, CART: 40.0})
    assert overlaps(gateway) == {(ORG, *HOME), (ORG, *CART)}
    push(gateway.url, one_day(overlap_users=29, entropy_brand_reliable=False), {})
    gone = {name for name in TOLD if name.startswith("catalog_overlap_pct")} | {
        "diversity_entropy_brand"
    }
    assert {name for name, labels in gateway.series() if labels == of_surface(HOME)} == (
        TOLD.keys() - gone
    )
    assert overlaps(gateway) == {(ORG, *HOME)}


def test_the_figure_of_the_day_before_is_that_which_was_pushed_then(gateway):
    day_before = day_tables(DAY - timedelta(1), **{**FIGURES, "jaccard_mean": 0.36})
    push(gateway.url, day_before, {})
    pushed = gateway.series()["catalog_overlap_pct", of_surface(HOME)]
    today = day_tables(**FIGURES)
    before = day_before.rows[PERSONALIZATION_DAILY.qualified_name]
    push(gateway.url, today, previous_overlap(today, before))
    assert gateway.series()["catalog_overlap_pct_previous_day", of_surface(HOME)] == pushed


def test_a_failed_run_leaves_the_figures_and_says_that_it_failed(gateway):
    push(gateway.url, day_tables(**FIGURES), {})
    push_run(gateway.url, success=True, org_id=ORG)
    before = gateway.series()
    push_run(gateway.url, success=False, org_id=ORG)
    after = gateway.series()
    assert after.pop((RUN_SUCCESS, of_run(ORG))) == 0
    assert before.pop((RUN_SUCCESS, of_run(ORG))) == 1
    assert after.pop((RUN_TIME, of_run(ORG))) > before.pop((RUN_TIME, of_run(ORG)))
    assert after == before


def test_a_back_fill_never_pushes_an_older_day_over_a_newer_one(gateway):
    push(gateway.url, day_tables(**FIGURES), {})
    before = gateway.series()
    for days in (1, 400):
        pushed = push(gateway.url, day_tables(DAY - timedelta(days), version=days), {})
        assert pushed.newer_day == DAY
    assert gateway.series() == before
    assert push(gateway.url, day_tables(DAY + timedelta(1)), {}).newer_day is None
    assert gateway.series()[DATE, of_day()] == MIDNIGHT + 86_400


def test_organisations_do_not_replace_each_other(gateway):
    push(gateway.url, day_tables(**FIGURES), {})
    push(gateway.url, day_tables(DAY - timedelta(1), "other", places=[HOME]), {})
    assert overlaps(gateway) == {(ORG, *HOME), (ORG, *CART), ("other", *HOME)}
    push_run(gateway.url, success=False, org_id=ORG)
    push_run(gateway.url, success=True, org_id="other")
    assert gateway.series()[RUN_SUCCESS, of_run(ORG)] == 0
    assert gateway.series()[RUN_SUCCESS, of_run("other")] == 1


def test_a_run_that_names_its_organisation_ends_the_failure_of_one_that_did_not(gateway):
    """Several organisations and none named is an error, which naming one mends."""
    push_run(gateway.url, success=False)
    push_run(gateway.url, success=False, org_id=ORG)
    assert gateway.series()[RUN_SUCCESS, of_run()] == 0
    push_run(gateway.url, success=True, org_id=ORG)
    assert {labels for name, labels in gateway.series() if name == RUN_SUCCESS} == {of_run(ORG)}


HOSTILE = [
    'quote " and \\ backslash',
    "line\nbreak",
    "back\\nslash n",
    "ünï漢字🦆",
    "a/b ../c?d#e%20+f",
    "..",
    "=",
    "{} , =~",
    "\u2028 \x00 \x7f",
    "x" * 64,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_arrives_as_it_is(gateway, name):
    pushed = push(gateway.url, day_tables(org_id=name, places=[(name, name)], **FIGURES), {})
    assert pushed.left_out == ()
    assert overlaps(gateway) == {(name, name, name)}
    push_run(gateway.url, success=True, org_id=name)
    assert gateway.series()[RUN_SUCCESS, of_run(name)] == 1
    # What is asked for the day finds it again.
    older = day_tables(DAY - timedelta(1), org_id=name)
    assert push(gateway.url, older, {}).newer_day == DAY


def test_lines_have_the_figures_that_a_scrape_gives(gateway):
    tables = day_tables(version=5)
    push(gateway.url, tables, {HOME: 12.0})
    lines = lines_of(tables, {HOME: 12.0})
    series = gateway.series()
    assert len(lines) == 2
    for line in lines:
        labels = of_surface((line["namespace"], line["surface"]))
        assert {name: line[name] for name in TOLD if line[name] is not None} == {
            name: value for (name, of), value in series.items() if of == labels
        }


def test_a_pushgateway_that_comes_back_gets_it_in_the_same_run(tmp_path, monkeypatch):
    """It is started while the run pauses."""
    late = Pushgateway(tmp_path)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 1:
            late.start()

    # Of that module only: servers are waited for with the real one.
    monkeypatch.setattr("otel_personalization.daily.publish.time", Clock(pause))
    try:
        push(late.url, one_day(), {})
        assert overlaps(late) == {(ORG, *HOME)}
        assert pauses == [0.5]
    finally:
        late.stop()


class Clock:
    def __init__(self, pause):
        self.sleep = pause
        self.time = time.time


def test_a_prefix_of_paths_is_kept(tmp_path):
    with Pushgateway(tmp_path, prefix="/push") as gateway:
        push(f"{gateway.url}/", one_day(), {})
        assert overlaps(gateway) == {(ORG, *HOME)}
        with pytest.raises(PublishError, match="see that the URL is its base URL"):
            push_run(gateway.url.removesuffix("/push"), success=True)


def test_a_proxy_that_wants_a_password_gets_it(gateway):
    """The Pushgateway itself asks for none."""
    wanted = "Basic " + base64.b64encode(b"night:a/b c").decode()

    class Proxy(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") == wanted:
                kind = {"Content-Type": self.headers.get("Content-Type", "")}
                got = httpx.request(
                    self.command,
                    gateway.url + self.path,
                    content=body,
                    headers=kind,
                    trust_env=False,
                )
                status, text = got.status_code, got.content
            else:
                status, text = 401, b"who are you?"
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args):
            pass

    for method in ("GET", "PUT", "DELETE"):
        setattr(Proxy, f"do_{method}", Proxy.answer)
    with serving(Proxy) as url:
        push(url.replace("//", "//night:a%2Fb%20c@"), one_day(), {})
        assert overlaps(gateway) == {(ORG, *HOME)}
        with pytest.raises(PublishError, match="answers 401: who are you") as raised:
            push_run(url.replace("//", "//night:secret@"), success=False)
    assert "secret" not in str(raised.value)
    assert "night" not in str(raised.value)


def test_prometheus_has_the_figures_under_their_own_labels(gateway, tmp_path):
    """With ``honor_labels``, and the rules of the alerts evaluate them."""
    high = {**FIGURES, "jaccard_mean": 0.5}
    push(gateway.url, day_tables(**high), {HOME: 36.0, CART: 34.0})
    # Yesterday its cart was high, and today it is not.
    low = day_tables(org_id="other", places=[CART], **{**FIGURES, "jaccard_mean": 0.25})
    push(gateway.url, low, {CART: 36.0})
    push_run(gateway.url, success=False, org_id=ORG)
    prometheus = Prometheus(tmp_path, scrape_interval="1s")
    file = tmp_path / "prometheus.yml"
    configuration = yaml.safe_load(file.read_text())
    configuration["scrape_configs"] = [
        {
            "job_name": "pushgateway",
            "honor_labels": True,
            "static_configs": [{"targets": [gateway.url.removeprefix("http://")]}],
        }
    ]
    file.write_text(yaml.safe_dump(configuration))
    (overlap,) = (
        rule["expr"]
        for text in build(load()).values()
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if rule.get("alert") == "CatalogOverlapSpike"
    )
    with prometheus:
        wait_for(lambda: prometheus.query("catalog_overlap_pct"), "a scrape")
        assert prometheus.by("catalog_overlap_pct", "org_id", "recsys_namespace", "surface") == {
            (ORG, *HOME): 50,
            (ORG, *CART): 50,
            ("other", *CART): 25,
        }
        assert prometheus.by(overlap, "org_id", "recsys_namespace", "surface") == {(ORG, *HOME): 50}
        assert prometheus.value(f"max({DATE})") == MIDNIGHT
        assert prometheus.by(f"min by (job) ({RUN_SUCCESS}) == 0", "job") == {
            ("personalization_daily_run",): 0
        }
