"""The queries of the dashboard, on the servers that Grafana sends them to.

PromQL runs on a Prometheus that holds thirty surfaces of a shop, whose figures are known; also
before it holds anything. SQL runs on a PostgreSQL that the nightly job has filled, and on one whose
tables are empty. LogQL is parsed by Grafana's grammar: there is no Loki. That the running stack
records what the panels ask for is seen in test_stack.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from examples.stack.servers import MONITORING, TOOLS, Prometheus
from monitoring.prometheus.build import build
from monitoring.prometheus.values import load
from otel_personalization.daily.tables import DayTables
from otel_personalization.daily.warehouse import open_warehouse
from tests.daily.days import day_tables
from tests.e2e.postgres import postgres
from tests.e2e.promtool import Case, failures, total, value
from tests.e2e.test_night import run
from tests.e2e.test_runbooks import faults
from tests.grafana import PANELS, VARIABLES, Picked, annotation, queries, query

EVERY = 15
"""Seconds between samples of a counter."""
WINDOW = 60
"""Seconds of a view."""
HISTORY = 3600
STEP = 585
"""So that $__rate_interval is ten minutes: ten windows."""
NAMESPACE, QUIET, DOCTOR = "shop", "quiet", "otel_personalization_doctor"
# One name is a regular expression that would match another.
SURFACES = ["home", "product", "cart", "a.b", "axb", QUIET, *(f"s{n:02}" for n in range(24))]
PLACES = {(NAMESPACE, surface) for surface in SURFACES}
BY_PLACE = ("recsys_namespace", "surface")
QUIET_SECONDS = 1800
"""For so long the quiet one has served nothing; its counters are still there."""


# --- a Prometheus whose figures are known -------------------------------------------------------


def grown(surface: str) -> dict[str, int]:
    """What each counter of a process grows by in EVERY seconds."""
    n = SURFACES.index(surface)
    served = 10 + n
    return {
        "decisions": 5,
        "empty_decisions": n % 5,
        "served_items": served,
        "personalized_items": served * (n % 11) // 10,
        "reason_items": served // 2,
        "reason_requested_items": served // 2 + n % 3,
        "cold_start_impressions": n % 4,
    }


def windows(surface: str) -> list[tuple[float, int]]:
    """Rate and items of two windows of a view, which take turns; they differ in both."""
    n = SURFACES.index(surface)
    return [(n / 30, 10 + n), ((29 - n) / 30, 50)]


def weighted(surface: str) -> float:
    """The share of both together."""
    (a, n), (b, m) = windows(surface)
    return (a * n + b * m) / (n + m)


def series(now: int) -> Iterator[tuple[str, str, float, int]]:
    """Name, labels, value, time."""
    begin = now - HISTORY

    def place(surface, namespace=NAMESPACE):
        return f'recsys_namespace="{namespace}",surface="{surface}"'

    live = "deployment_environment_name"
    for surface, process in itertools.product(SURFACES, "ab"):
        labels = f'{place(surface)},job="ranking",instance="{process}",{live}="production"'
        last = HISTORY - QUIET_SECONDS if surface == QUIET else HISTORY
        for counter, by in grown(surface).items():
            if by == 0:
                continue  # nothing has counted it yet, so there is no series
            for second in range(0, HISTORY + 1, EVERY):
                at, times = begin + second, min(second, last) // EVERY
                yield f"recsys_{counter}_total", labels, by * times, at
    # A second environment, and doctor, whose decisions are in no panel.
    for labels in (
        f'{place("home")},job="ranking",instance="c",{live}="staging"',
        f'{place("home", DOCTOR)},job="doctor",instance="d",{live}="production"',
    ):
        for counter, second in itertools.product(grown("home"), range(0, HISTORY + 1, EVERY)):
            value = 1000 * second if counter in ("served_items", "decisions") else 0
            yield f"recsys_{counter}_total", labels, value, begin + second
    for surface in SURFACES:
        labels = f'{place(surface)},job="ranking",instance="gateway-0",{live}="production"'
        last = HISTORY - QUIET_SECONDS if surface == QUIET else HISTORY
        for number, second in enumerate(range(0, HISTORY + 1, WINDOW)):
            # The gateway makes no point for a window of nothing; another one might.
            rate, items = windows(surface)[number % 2] if second <= last else (0, 0)
            for view in ("personalized_impression_rate", "reason_coverage_rate"):
                yield view, labels, rate if view[0] == "p" else 1 - rate, begin + second
            yield "recsys_window_served_items", labels, items, begin + second
    for namespace, (decisions, empty) in {NAMESPACE: (8, 2), "media": (4, 4)}.items():
        labels = f'{place("home", namespace)},source="collaborative",job="ranking",instance="a"'
        for second in range(0, HISTORY + 1, EVERY):
            for counter, by in (("decisions", decisions), ("empty_decisions", empty)):
                name = f"recsys_candidate_source_{counter}_total"
                yield name, labels, by * second, begin + second
    for second in range(0, HISTORY + 1, EVERY):
        yield "cold_start_impression_total", 'surface="HOME"', 3 * second / EVERY, begin + second
        for name, value, labels in recorded(now):
            yield name, labels, value, begin + second
    for surface, second in itertools.product(SURFACES, range(0, HISTORY + 1, EVERY)):
        labels = f'{place(surface)},job="ranking",instance="a"'
        yield "recsys_impressions_total", labels, 20 * second, begin + second
        yield "recsys_clicks_total", labels, SURFACES.index(surface) * second / 4, begin + second


def recorded(now: int) -> Iterator[tuple[str, float, str]]:
    """What rules and the nightly job leave: name, value, labels."""
    for n, surface in enumerate(SURFACES):
        place = f'recsys_namespace="{NAMESPACE}",surface="{surface}"'
        yield "surface:recsys_personalized_per_served:ratio30m", n / 100, place
        view = f'{place},view="personalized_impression_rate"'
        yield (
            "surface:recsys_view_minus_counters:difference1h",
            math.inf if n == 1 else n / 1e3,
            view,
        )
        for check in ("PersonalizationDrop", "ReasonCoverageLow"):
            window = 0 if surface.startswith("s") and check == "PersonalizationDrop" else 1800
            yield "surface:recsys_judged:window_seconds", window, f'{place},check="{check}"'
        state = f'alertname="ReasonCoverageLow",alertstate="{"firing" if n < 3 else "pending"}"'
        yield "ALERTS", 1, f'{place},{state},severity="chat",signal="ratio"'
    own = f'recsys_namespace="{NAMESPACE}",surface="cart"'
    yield "surface:recsys_personalized_per_served:baseline", 0.5, own
    yield "recsys:recsys_log_decisions_per_decision:ratio6h", 0.98, ""
    for n, fault in enumerate(("dropped_log_records", "folded_decisions")):
        yield f"job:otel_personalization_{fault}:increase1h", 2 + n, 'job="ranking"'
    yield "job_kind:otel_personalization_internal_errors:increase1h", 4, 'job="ranking",kind="log"'
    reason = 'job="ranking",reason="unreadable"'
    yield "job_reason:otel_personalization_malformed_traces:increase1h", 5, reason
    yield "ALERTS", 1, 'alertname="Watchdog",alertstate="firing",severity="none",signal="watchdog"'
    for n, org in enumerate(("acme", "other")):
        of_job = f'job="personalization_daily",org_id="{org}"'
        yield "personalization_daily_date_seconds", now - 86400 * (1 + n), of_job
        of_run = f'job="personalization_daily_run",org_id="{org}"'
        yield "personalization_daily_last_run_success", 1 - n, of_run
        late = 'alertname="DailyJobLate",alertstate="firing",severity="t",signal="daily"'
        yield "ALERTS", 1, f'{late},org_id="{org}"'


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """One that has had an hour of these series; with the time of the last sample."""
    folder = tmp_path_factory.mktemp("prometheus")
    now = int(time.time()) // WINDOW * WINDOW
    samples = defaultdict(list)
    for name, labels, number, at in series(now):
        samples[name].append(f"{name}{{{labels}}} {number} {at}")
    text = folder / "series.txt"
    with text.open("w") as stream:
        for name, lines in samples.items():
            kind = "counter" if name.endswith("_total") else "unknown"
            stream.write(f"# TYPE {name.removesuffix('_total')} {kind}\n")
            stream.writelines(f"{line}\n" for line in lines)
        stream.write("# EOF\n")
    command = (TOOLS / "promtool", "tsdb", "create-blocks-from", "--max-block-duration=1d")
    subprocess.run(
        (*command, "openmetrics", text, folder / "data"), check=True, capture_output=True
    )
    with Prometheus(folder) as server:
        yield server, now


def answer(prometheus, panel, ref_id="A", *, labels=BY_PLACE, seconds_ago=0, **picked):
    """The values that a query of a panel gives, by labels."""
    server, now = prometheus
    text = Picked(picked, now, STEP).expanded(query(panel, ref_id).text, "promql")
    return server.by(text, *labels, at=now - seconds_ago)


def by_surface(value):
    """What a function of a surface gives, but for that which serves nothing any more."""
    return {(NAMESPACE, surface): value(surface) for surface in SURFACES if surface != QUIET}


def shares(part, whole):
    """Of what counters grew by, where the second grew at all."""
    return by_surface(lambda surface: grown(surface)[part] / grown(surface)[whole])


# --- PromQL -------------------------------------------------------------------------------------

PROMQL = queries("promql")
OF_SURFACES = {
    "Share against its baseline-A",
    "Reason coverage-A",
    "Reason coverage of those who asked-A",
    "Cold-start items-A",
    "Decisions that served nothing-A",
}
"""Queries of counters and views that give a line to each surface that serves."""
OF_RECORDS = {
    "Personalised share against CTR-A",
    "Personalised share against CTR-B",
    "Views against raw counters-A",
}
"""Queries of records that give one to each."""


@pytest.mark.parametrize("one", PROMQL, ids=lambda one: one.name)
def test_promql_gives_values_for_every_surface_for_one_and_for_none(prometheus, one):
    server, now = prometheus

    def asked(at, **picked):
        return server.query(Picked(picked, now, STEP).expanded(one.text, "promql"), at=at)

    def places(found):
        return {tuple(series["metric"].get(label) for label in BY_PLACE) for series in found}

    assert asked(now) != []
    if one.name in OF_SURFACES:
        assert places(asked(now)) == PLACES - {(NAMESPACE, QUIET)}
    if one.name in OF_RECORDS:
        assert places(asked(now)) == PLACES
    if one.name in OF_SURFACES | OF_RECORDS:
        assert places(asked(now, surface="home")) == {(NAMESPACE, "home")}
        two = {"namespace": [NAMESPACE, "media"], "surface": ["a.b", "cart"]}
        assert places(asked(now, **two)) == {(NAMESPACE, "a.b"), (NAMESPACE, "cart")}
        assert asked(now, namespace="none") == []
    assert asked(now - 2 * HISTORY) == [], "there is something where there is no data"


def test_the_stack_adds_up_to_the_share_of_all_that_was_served(prometheus):
    parts = answer(prometheus, "Personalised share by surface", labels=("part",))
    served = {s: sum(items for _, items in windows(s)) for s in SURFACES if s != QUIET}
    given = {s: served[s] * weighted(s) / sum(served.values()) for s in served}
    rest = sum(share for s, share in given.items() if s not in ("home", "product", "cart"))
    assert parts == pytest.approx(
        {
            ("home",): given["home"],
            ("PDP",): given["product"],
            ("cart",): given["cart"],
            ("the rest",): rest,
        }
    )


def test_the_share_of_a_surface_is_that_of_all_items_of_its_windows_against_its_baseline(
    prometheus,
):
    panel = "Share against its baseline"
    # The rules have one for the cart.
    expected = by_surface(lambda s: weighted(s) / (0.5 if s == "cart" else 0.6) - 1)
    assert answer(prometheus, panel) == pytest.approx(expected)
    tried = by_surface(lambda s: weighted(s) / 0.65 - 1)
    assert answer(prometheus, panel, baseline="0.65") == pytest.approx(tried)


@pytest.mark.parametrize(("picked", "expected"), [("0", 0.6), ("0.55", 0.55)])
def test_the_baseline_is_that_of_the_rules_unless_another_is_picked(prometheus, picked, expected):
    found = answer(prometheus, "Personalised share by surface", "B", labels=(), baseline=picked)
    assert found == {(): expected}


def test_a_surface_that_serves_nothing_has_no_share_while_it_does(prometheus):
    for panel in sorted(name.removesuffix("-A") for name in OF_SURFACES):
        quiet = (NAMESPACE, QUIET)
        assert quiet not in answer(prometheus, panel, surface=QUIET)
        # A step after it fell silent its last windows are past.
        since = QUIET_SECONDS - STEP - 30
        assert quiet not in answer(prometheus, panel, surface=QUIET, seconds_ago=since)
        before = answer(prometheus, panel, surface=QUIET, seconds_ago=QUIET_SECONDS)
        assert before.keys() == {quiet}


def test_coverage_is_that_of_the_views_and_that_of_those_who_asked_that_of_the_counters(prometheus):
    coverage = by_surface(lambda surface: 1 - weighted(surface))
    assert answer(prometheus, "Reason coverage") == pytest.approx(coverage)
    expected = shares("reason_items", "reason_requested_items")
    assert answer(
        prometheus, "Reason coverage of those who asked", environment="production"
    ) == pytest.approx(expected)


def test_cold_start_and_empty_decisions_are_shares_of_what_counters_grew_by(prometheus):
    production = {"environment": "production"}
    expected = shares("cold_start_impressions", "served_items")
    assert answer(prometheus, "Cold-start items", **production) == pytest.approx(expected)
    expected = shares("empty_decisions", "decisions")
    assert answer(prometheus, "Decisions that served nothing", **production) == pytest.approx(
        expected
    )


def test_an_environment_is_counted_by_itself(prometheus):
    """Staging serves far more from the home page, and nothing of it is a cold-start item."""
    panel, home = "Decisions that served nothing", (NAMESPACE, "home")
    assert answer(prometheus, panel, environment="staging") == {home: 0}
    panel = "Cold-start items"
    of_cart = {"surface": "cart"}
    assert answer(prometheus, panel, environment="staging", **of_cart) == {}
    both = answer(prometheus, panel, environment=["staging", "production"], **of_cart)
    assert both == answer(prometheus, panel, environment="production", **of_cart) != {}


def test_what_the_shop_counts_is_beside_cold_start_items_and_not_in_them(prometheus):
    found = answer(prometheus, "Cold-start items", "B", labels=())
    assert found == pytest.approx({(): 3 * 600 / EVERY})


def test_the_collaborative_source_is_empty_where_no_decision_had_a_candidate(prometheus):
    panel, by = "Collaborative source without a candidate", ("recsys_namespace",)
    found = answer(prometheus, panel, labels=by)
    assert found == pytest.approx({(NAMESPACE,): 0.25, ("media",): 1})
    assert answer(prometheus, panel, labels=by, namespace="media").keys() == {("media",)}


def test_share_and_click_through_are_of_one_window(prometheus):
    panel = "Personalised share against CTR"
    share = {place: SURFACES.index(place[1]) / 100 for place in PLACES}
    assert answer(prometheus, panel) == pytest.approx(share)
    rate = {place: SURFACES.index(place[1]) / 4 / 20 for place in PLACES}
    assert answer(prometheus, panel, "B") == pytest.approx(rate)
    other = "0 * surface:recsys_personalized_per_served:ratio30m + 0.25"
    own = answer(prometheus, panel, "B", ctr=other, surface="cart")
    assert own == {(NAMESPACE, "cart"): 0.25}


def test_a_view_that_is_missing_is_drawn_as_one(prometheus):
    found = answer(prometheus, "Views against raw counters")
    expected = {
        place: 1 if n == 1 else n / 1e3 for place in PLACES for n in [SURFACES.index(place[1])]
    }
    assert found == pytest.approx(expected)


def test_the_row_of_telemetry_shows_what_rules_recorded(prometheus):
    assert answer(prometheus, "Log lines against counters", labels=()) == {(): 0.98}
    faults_of = "Dropped lines, folded decisions, internal errors"
    assert answer(prometheus, faults_of, labels=("job",)) == {("ranking",): 2}
    assert answer(prometheus, faults_of, "B", labels=("job",)) == {("ranking",): 3}
    assert answer(prometheus, faults_of, "C", labels=("kind",)) == {("log",): 4}
    assert answer(prometheus, "Malformed traces", labels=("reason",)) == {("unreadable",): 5}


def test_the_nightly_job_of_each_organisation_has_its_newest_day_and_its_last_run(prometheus):
    by_org = {"labels": ("org_id",)}
    ages = {("acme",): 86400, ("other",): 2 * 86400}
    assert answer(prometheus, "Nightly job", **by_org) == ages
    assert answer(prometheus, "Nightly job", "B", **by_org) == {("acme",): 1, ("other",): 0}


def test_surfaces_that_an_alert_cannot_judge_are_listed_with_it(prometheus):
    found = answer(prometheus, "Surfaces too small to judge", labels=("check", "surface"))
    small = {s for s in SURFACES if s.startswith("s")}
    assert found.keys() == {("PersonalizationDrop", surface) for surface in small}


def test_annotations_are_the_alerts_that_fire_of_what_was_picked(prometheus):
    server, now = prometheus

    def firing(name, **picked):
        text = Picked(picked, now, STEP).expanded(annotation(name), "promql")
        return set(server.by(text, "alertname", "surface", "org_id", at=now))

    late = {("DailyJobLate", "", org) for org in ("acme", "other")}
    low = [("ReasonCoverageLow", surface, "") for surface in SURFACES[:3]]
    assert firing("Alerts") == {*late, *low}
    assert firing("Alerts", surface="home") == {*late, ("ReasonCoverageLow", "home", "")}
    assert firing("Alerts of the telemetry") == set()


def test_panels_of_records_draw_what_the_rules_make_of_counters(tmp_path):
    """A quiet surface: six items in ten are personalised, and it is too small for every alert."""
    of_home = 'recsys_namespace="shop",surface="home"'
    labels = 'job="ranking",instance="a"'
    counters = {"decisions": 10, "served_items": 100, "served_items_squared": 1000}
    counters |= {"personalized_items": 60, "reason_items": 50, "reason_requested_items": 50}
    of_library = {"dropped_log_records": "", "folded_decisions": ""}
    of_library |= {"malformed_traces": ',reason="unreadable"', "internal_errors": ',kind="log"'}
    minutes = 70

    def shown(panel, ref_id, answer):
        text = Picked(step=STEP).expanded(query(panel, ref_id).text, "promql")
        return value(text, minutes, answer)

    checks = ("PersonalizationDrop", "PersonalizationDropLowTraffic")
    checks += ("PersonalizationBelowBaseline", "ColdStartExposureOutOfBand")
    checks += ("ReasonCoverageLow", "RequestedReasonCoverageLow")
    faults_of = "Dropped lines, folded decisions, internal errors"
    case = Case(
        "a quiet surface",
        {
            f"recsys_{name}_total{{{of_home},{labels}}}": total((by, minutes))
            for name, by in counters.items()
        }
        | {
            f"otel_personalization_{name}_total{{{labels}{more}}}": total((n + 1, minutes))
            for n, (name, more) in enumerate(of_library.items())
        },
        [
            shown("Personalised share against CTR", "A", {f"{{{of_home}}}": 0.6}),
            shown(
                "Surfaces too small to judge",
                "A",
                {f'{{check="{check}",{of_home}}}': 0 for check in checks},
            ),
            shown(faults_of, "A", {'{job="ranking"}': 60}),
            shown(faults_of, "B", {'{job="ranking"}': 120}),
            shown("Malformed traces", "A", {'{job="ranking",reason="unreadable"}': 180}),
            shown(faults_of, "C", {'{job="ranking",kind="log"}': 240}),
        ],
    )
    assert failures([case], build(load()), tmp_path) == ""


@pytest.mark.parametrize("name", ["environment", "namespace", "surface"])
def test_what_can_be_picked_is_what_has_decisions(prometheus, name):
    server, now = prometheus
    expected = {
        "environment": {"production", "staging"},
        "namespace": {NAMESPACE},
        "surface": set(SURFACES),
    }[name]
    text = Picked({}, now).expanded(VARIABLES[name]["query"], "promql")
    selector, label = text.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
    assert set(server.by(f"group by ({label}) ({selector})", label, at=now)) == {
        (value,) for value in expected
    }


# --- a PostgreSQL that the nightly job has filled -------------------------------------------------

DAYS = [date(2026, 11, 20), date(2026, 11, 21)]
ORG = "6f0c2b1e-7a43-4f0e-9a43-0d8a5b2f0c11"
USERS = 64
HOSTILE = 'it\'s "100 %" $re$ \\ .*'
ON_BOTH_SIDES = {"home": USERS, "cart": 12, HOSTILE: 3, **{f"s{n:02}": 2 for n in range(27)}}
"""Surfaces, and how many users each has; only the first has enough."""


def traces(day: date) -> Iterator[dict[str, Any]]:
    """Of each surface, two decisions of each user, half of whom are new, on two devices."""
    begin = datetime(day.year, day.month, day.day, 12, tzinfo=timezone.utc)
    for surface, users in ON_BOTH_SIDES.items():
        for user, number in itertools.product(range(users), range(2)):
            items = [f"i{(user * 3 + number * 5 + n * (1 + user % 4)) % 40}" for n in range(8)]
            found = 0 if surface == "home" and user < 9 else 3
            yield {
                "decision_id": f"{day}/{surface}/{user}/{number}",
                "org_id": ORG,
                "namespace": NAMESPACE,
                "surface": surface,
                "ts": (begin + timedelta(seconds=user, milliseconds=number)).isoformat(),
                "user_hash": f"u{user}",
                "k": 8,
                "final_items": [{"item_id": item} for item in items],
                "caps": {
                    item: {"brand": {"value": f"b{int(item[1:]) % 5}"}}
                    | ({"category": {"value": "c"}} if surface == "home" else {})
                    for item in items
                },
                "extras": {
                    "include_reasons": True,
                    "cohort": "new" if user % 2 else "returning",
                    "device": "web" if user % 4 < 2 else "app",
                    "personalized_items": items[: 3 + user % 3],
                    "bandit_experiment": "blend",
                    "bandit_variant": "ab"[user // 2 % 2],
                    "candidate_sources": {"collaborative": {"count": found}},
                },
            }


def outcomes(day: date) -> Iterator[dict[str, str]]:
    """An impression of every item, and a click on some; on the last day only."""
    for trace in traces(day):
        for n, item in enumerate(trace["final_items"]):
            ids = {"decision_id": trace["decision_id"], "item_id": item["item_id"]}
            yield ids | {"type": "impression"}
            if (n + len(trace["decision_id"]) + int(trace["user_hash"][1:])) % 3 == 0:
                yield ids | {"type": "click"}


def ndjson(file: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


class Warehouse:
    """The database of a data source."""

    def __init__(self, url: str) -> None:
        self.url = url

    def panel(
        self, title: str, *, day: date = DAYS[-1], **picked: str | list[str]
    ) -> list[dict[str, Any]]:
        """The rows of a panel's query, if the time range ends at noon of a day."""
        end = datetime(day.year, day.month, day.day, 12, tzinfo=timezone.utc).timestamp()
        return self.rows(Picked(picked, end).expanded(query(title).text, "sql"))

    def rows(self, statement: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[call-overload]

    def table(self, name: str, where: str, day: date = DAYS[-1]) -> list[dict[str, Any]]:
        """Rows of a table of the nightly job of a day."""
        return self.rows(f"SELECT * FROM {name} WHERE day = '{day}' AND {where}")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nightly")
    of_days = [trace for day in DAYS for trace in traces(day)]
    given = ndjson(folder / "traces.ndjson", of_days)
    clicked = ndjson(folder / "outcomes.ndjson", outcomes(DAYS[-1]))
    with postgres() as server:
        server.run("CREATE DATABASE empty")
        order = ("--from-day", DAYS[0], "--to-day", DAYS[-1], "--traces", given, "--log", "none")
        run("daily", *order, "--outcomes", clicked, "--warehouse", server.url())
        yield server


@pytest.fixture(scope="module")
def warehouse(database):
    return Warehouse(database.url())


@pytest.fixture(scope="module")
def empty(database):
    """One that has the tables, as the job makes them, and no rows."""
    url = database.url("empty")
    with open_warehouse(url) as opened:
        opened.replace(without_rows(day_tables(DAYS[0])))
    return Warehouse(url)


def without_rows(day: DayTables) -> DayTables:
    return dataclasses.replace(day, rows={name: rows[:0] for name, rows in day.rows.items()})


SQL = queries("sql")
OVERLAP, ENTROPY, GROUNDS, VARIANTS, STREAKS = (
    "Top-K overlap by cohort and device",
    "Entropy of brands and categories",
    "What the entropies rest on",
    "CTR by variant",
    "Longest runs without a candidate",
)
EVERYBODY = "cohort = 'all' AND device = 'all'"


def test_each_statement_of_the_dashboard_is_tested_below():
    assert {one.panel for one in SQL} == {OVERLAP, ENTROPY, GROUNDS, VARIANTS, STREAKS}


@pytest.mark.parametrize("one", SQL, ids=lambda one: one.panel)
def test_sql_gives_rows_for_every_surface_for_one_and_for_none(warehouse, empty, one):
    def surfaces(rows):
        found = {row["surface"].removeprefix(f"{NAMESPACE}/") for row in rows}
        return found - {"all"}

    assert surfaces(warehouse.panel(one.panel)) == set(ON_BOTH_SIDES)
    assert surfaces(warehouse.panel(one.panel, surface="home")) == {"home"}
    two = [HOSTILE, "cart"]
    assert surfaces(warehouse.panel(one.panel, surface=two)) == set(two)
    assert surfaces(warehouse.panel(one.panel, surface="car")) == set(), "a part of a name"
    assert warehouse.panel(one.panel, namespace="none") == []
    assert empty.panel(one.panel) == []


@pytest.mark.parametrize("one", SQL, ids=lambda one: one.panel)
def test_what_a_panel_says_of_a_column_is_of_one_that_the_statement_gives(warehouse, one):
    (panel,) = (panel for panel in PANELS if panel["title"] == one.panel)
    matchers = [override["matcher"] for override in panel["fieldConfig"]["overrides"]]
    named = {matcher["options"] for matcher in matchers if matcher["id"] == "byName"}
    named |= {name for name in [panel["options"].get("xField")] if name}
    assert named
    assert named <= set(warehouse.panel(one.panel)[0])


@pytest.mark.parametrize("one", SQL, ids=lambda one: one.panel)
def test_sql_shows_the_newest_day_that_is_not_past_the_time_range(warehouse, one):
    if one.panel not in (ENTROPY, VARIANTS):
        for end, shown in ((0, 0), (1, 1), (9, 1)):
            rows = warehouse.panel(one.panel, day=DAYS[0] + timedelta(days=end))
            assert {row["day"] for row in rows} == {DAYS[shown]}
    assert warehouse.panel(one.panel, day=DAYS[0] - timedelta(days=1)) == []


def test_overlap_is_that_of_the_table_and_null_with_too_few_users(warehouse):
    key = ("surface", "cohort", "device")
    where = "experiment = 'all' AND variant = 'all' AND surface <> 'all'"
    expected = {
        tuple(row[name] for name in key): row
        for row in warehouse.table("experiments.blend_weights_daily", where)
    }
    shown = {tuple(row[name] for name in key): row for row in warehouse.panel(OVERLAP)}
    assert shown.keys() == expected.keys()
    columns = ("mean", "mean_lower", "mean_upper", "p50", "p75", "p90", "p95", "p99")
    for cell, row in shown.items():
        assert row["users"] == expected[cell]["overlap_users"]
        for column in columns:
            of_table = expected[cell][f"jaccard_{column}"]
            assert row[column] == (of_table if row["users"] >= 30 else None)
    assert shown["home", "all", "all"]["p99"] > shown["home", "all", "all"]["p50"] > 0
    assert shown["home", "new", "all"]["users"] == shown["home", "all", "web"]["users"] == 32
    assert shown["home", "new", "all"]["mean"] is not None
    assert (shown["home", "new", "web"]["users"], shown["home", "new", "web"]["mean"]) == (16, None)
    # Two users of a surface do have a mean in the table.
    assert expected["s00", "all", "all"]["jaccard_mean"] is not None
    assert shown["s00", "all", "all"]["mean"] is None


def test_entropy_is_that_of_the_table_and_null_where_it_is_not_reliable(warehouse):
    expected = {
        row["surface"]: row
        for row in warehouse.table("analytics.personalization_daily", EVERYBODY)
        if row["surface"] != "all"
    }
    shown = {row["surface"].removeprefix("shop/"): row for row in warehouse.panel(ENTROPY)}
    assert shown.keys() == expected.keys()
    for surface, row in shown.items():
        for of in ("brand", "category"):
            reliable = expected[surface][f"entropy_{of}_reliable"]
            assert row[of] == (expected[surface][f"entropy_{of}"] if reliable else None)
    assert shown["home"]["brand"] == pytest.approx(math.log(5), abs=0.1)
    assert shown["home"]["category"] == pytest.approx(0)
    assert shown["cart"]["brand"] is None

    grounds = {(row["surface"], row["of"]): row for row in warehouse.panel(GROUNDS)}
    assert grounds.keys() == {(s, of) for s in ON_BOTH_SIDES for of in ("brand", "category")}
    for (surface, of), row in grounds.items():
        of_table = expected[surface]
        assert row["entropy"] == shown[surface][of]
        assert row["known share"] == of_table[f"entropy_{of}_known_share"]
        assert row["sample coverage"] == of_table[f"entropy_{of}_sample_coverage"]
        assert (row["lower"], row["upper"]) == tuple(
            of_table[f"entropy_{of}_{end}"] for end in ("lower", "upper")
        )
    assert grounds["home", "brand"]["effective number"] == pytest.approx(5, abs=0.5)
    assert grounds["cart", "category"]["known share"] == 0


def test_of_each_organisation_the_newest_day_is_shown_and_bars_are_told_apart(empty):
    """None of the two is added to the other, hides it, or is shown only on the other's day."""
    places = [("shop", "home")]
    given = [
        day_tables(day, org, places, cohort="all") for day, org in zip(DAYS, "ab", strict=True)
    ]
    with open_warehouse(empty.url) as opened:
        for day in given:
            opened.replace(day)
        try:
            bars = {row["surface"] for row in empty.panel(ENTROPY)}
            days = {row["organisation"]: row["day"] for row in empty.panel(GROUNDS)}
        finally:
            for day in given:
                opened.replace(without_rows(day))
    assert bars == {"shop/home (a)", "shop/home (b)"}
    assert days == dict(zip("ab", DAYS, strict=True))


def test_variants_have_the_rates_of_the_table_and_say_what_they_show(warehouse):
    where = f"{EVERYBODY} AND experiment = 'blend' AND variant <> 'all'"
    expected = {
        (row["surface"], row["variant"]): row
        for row in warehouse.table("experiments.blend_weights_daily", where)
    }
    rows = warehouse.panel(VARIANTS)
    shown = {(row["surface"], row["variant"]): row for row in rows}
    assert len(rows) == len(shown)
    assert shown.keys() == expected.keys()
    assert {"all", "home"} <= {surface for surface, _ in shown}
    for arm, row in shown.items():
        for column, of_table in (
            ("ctr", "ctr"),
            ("ctr lower", "ctr_lower"),
            ("ctr of personalised", "personalized_ctr"),
            ("difference upper", "ctr_difference_upper"),
            ("personalised share", "personalized_impression_rate"),
            ("impressions", "impressions"),
        ):
            assert row[column] == expected[arm][of_table]
    assert 0 < shown["all", "a"]["ctr lower"] < shown["all", "a"]["ctr"] < 1
    # The day before had no outcomes.
    assert warehouse.panel(VARIANTS, day=DAYS[0]) == []


@pytest.mark.parametrize(
    ("p_value", "experiment", "several", "reading"),
    [
        (0.4, "blend", 0, "variants compare, if users were split at random"),
        (0.001, "blend", 0, "variants compare, if users were split at random"),
        (
            0.0009,
            "blend",
            0,
            "correlation, not proof: the variants do not have the users that they should",
        ),
        (None, "blend", 0, "correlation, not proof: it is not known how users were split"),
        (0.4, "none", 7, "correlation, not proof: no experiment"),
        (
            0.4,
            "blend",
            7,
            (
                "variants compare, if users were split at random; but 7 of 20 users had several "
                "variants, so they are not separate"
            ),
        ),
    ],
)
def test_it_is_called_correlation_where_nobody_drew_lots(
    warehouse, p_value, experiment, several, reading
):
    value = "NULL" if p_value is None else p_value
    table = "experiments.blend_weights_daily"
    change = (
        f"UPDATE {table} SET sample_ratio_p_value = {value}, users = 20, "
        f"users_of_several_variants = {several} "
        "WHERE variant = 'all' AND surface = 'all' AND cohort = 'all' AND device = 'all'"
    )
    rename = f"UPDATE {table} SET experiment = '{experiment}' WHERE experiment = 'blend'"
    text = Picked({}, datetime(2026, 11, 22, tzinfo=timezone.utc).timestamp())
    with psycopg.connect(warehouse.url, row_factory=dict_row) as connection:
        connection.execute(change)
        connection.execute(rename)
        rows = connection.execute(text.expanded(query(VARIANTS).text, "sql")).fetchall()
        connection.rollback()
    assert {row["reading"] for row in rows} == {reading}


def test_the_user_for_grafana_reads_the_tables_of_the_job_and_writes_nothing(database):
    """Those that the job makes later, too: it is made before there is any."""
    database.run("CREATE ROLE night LOGIN")
    database.run("CREATE DATABASE later")
    database.run("GRANT CREATE ON DATABASE later TO night")
    script = MONITORING / "grafana" / "reader.sql"
    # psql reads the script, as it does in the container.
    done = subprocess.run(
        (database._command[0], database.url("later"), "-Xq", "-v", "job=night", "-f", script),
        env=os.environ | {"RECSYS_POSTGRES_PASSWORD": "it's a secret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with open_warehouse(database.url("later").replace("postgres@", "night@")) as opened:
        opened.replace(day_tables(DAYS[0]))
    with psycopg.connect(database.url("later")) as owner:
        owner.execute("CREATE TABLE rec_decisions AS SELECT 'u-1' AS user_hash")
        owner.execute("CREATE SCHEMA shop")
        owner.execute("CREATE TABLE shop.customers AS SELECT 'a name' AS name")
    reader = Warehouse(database.url("later").replace("postgres@", "grafana@"))
    for one in SQL:
        assert isinstance(reader.panel(one.panel), list)
    assert reader.panel(GROUNDS)
    for wrong in (
        "DELETE FROM experiments.blend_weights_daily RETURNING day",
        "UPDATE analytics.personalization_daily SET users = 0 RETURNING day",
        "CREATE TABLE experiments.mine AS SELECT 1",
        "SELECT * FROM rec_decisions",
        "SELECT * FROM shop.customers",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.rows(wrong)


def test_streaks_are_those_of_the_table_the_longest_first(warehouse):
    rows = warehouse.panel(STREAKS)
    expected = {
        row["surface"]: row
        for row in warehouse.table("analytics.personalization_sources_daily", "true")
    }
    assert [row["longest run"] for row in rows] == sorted(
        (row["longest_empty_streak"] for row in expected.values()), reverse=True
    )
    for row in rows:
        of_table = expected[row["surface"]]
        assert (row["decisions"], row["empty"]) == (
            of_table["decisions"],
            of_table["empty_decisions"],
        )
    home = next(row for row in rows if row["surface"] == "home")
    assert (home["decisions"], home["empty"], home["longest run"]) == (2 * USERS, 18, 18)
    assert home["empty share"] == 18 / 128


# --- LogQL --------------------------------------------------------------------------------------


@pytest.mark.parametrize("picked", [{}, {"surface": "home"}, {"surface": ["a.b", "c|d"]}])
def test_logql_is_logql(picked):
    texts = [Picked(picked).expanded(one.text, "logql") for one in queries("logql")]
    assert faults(*texts) == [None] * 2
