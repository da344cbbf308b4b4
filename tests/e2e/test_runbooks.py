"""The queries of the runbooks, on the servers that they are pasted into.

PromQL runs on Prometheus, and gives an answer on the series that it asks for. SQL runs on
PostgreSQL and gives rows, over the service's table of traces and over the tables that the nightly
job makes. LogQL is parsed by Grafana's grammar: there is no Loki.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from examples.stack.servers import TOOLS, Prometheus
from otel_personalization import PersonalizationHook, conventions
from otel_personalization.conventions import COUNTERS, Counter, Gauge
from otel_personalization.daily.warehouse import open_warehouse
from otel_personalization.trace import Decision, read_decision
from tests.daily.days import day_tables
from tests.e2e.postgres import postgres
from tests.runbooks import queries
from tests.test_runbooks import OF_THE_SERVERS, RECORDED, metrics

STEP_SECONDS = 240
"""Shorter than Prometheus' lookback."""
HISTORY_SECONDS = 8 * 86400
"""The longest look back is a week, for a day."""
YOUNG_SECONDS = 3600
"""Age of a process and of a surface that have just begun."""

SURFACES = [
    f'recsys_namespace="{namespace}",surface="{surface}"'
    for namespace, surface in (("shop_eu", "home"), ("shop_eu", "cart"), ("media", "home"))
]
NEW_SURFACE = 'recsys_namespace="shop_eu",surface="new"'
# Of one service: two processes; of the views, two gateways.
WRITERS = ['job="ranking",instance="a"', 'job="ranking",instance="b"']
LABELS = {
    "recsys_namespace": SURFACES,
    "source": ['source="collaborative"', 'source="popularity"'],
    "reason": ['reason="not_a_trace"'],
    "kind": ['kind="patch"', 'kind="flush"'],
    "sample_rate": ['sample_rate="1"'],
}
"""By attribute."""
LEVELS = {"surface": [SURFACES], "recsys": []}
"""By what the names of recorded series begin with."""
SERVERS = {
    "ALERTS": [
        f'alertname="{name}",alertstate="firing",severity="ticket"'
        for name in ("Watchdog", "LabelsFolded")
    ],
    "up": ['job="personalization-gateway"', 'job="pushgateway"'],
}
COLLECTORS = [
    f'instance="{instance}",exporter="{exporter}",receiver="otlp"'
    for instance in ("gateway-0", "logs-0")
    for exporter in ("otlp_http/prometheus", "otlp_http/loki")
]
CONTRACT = {
    metric.prometheus_name: metric
    for metric in (*COUNTERS, *vars(conventions).values())
    if isinstance(metric, Counter | Gauge)
}


@dataclass(frozen=True)
class Series:
    """One that has a sample in each step: of a counter one more than before, of a gauge 1."""

    name: str
    labels: str
    is_counter: bool
    seconds: int = HISTORY_SECONDS

    def samples(self, now: int) -> Iterator[str]:
        for n, at in enumerate(range(now - self.seconds, now + 1, STEP_SECONDS)):
            yield f"{self.name}{{{self.labels}}} {n if self.is_counter else 1} {at}"


def all_series() -> Iterator[Series]:
    """Those that the queries name; each counter also of a process and a surface that are young."""
    for name in sorted(set().union(*(metrics(query.text) for query in queries("promql")))):
        if name in OF_THE_SERVERS:
            is_counter = name.startswith("otelcol_") and not name.endswith("_size")
            of_servers = SERVERS.get(name, COLLECTORS)
            yield from (Series(name, labels, is_counter) for labels in of_servers)
        elif name in RECORDED:
            choices = LEVELS[name.partition(":")[0]]
            yield from (Series(name, labels, False) for labels in combined(*choices))
        else:
            metric = CONTRACT[name]
            is_counter = isinstance(metric, Counter)
            attributes = [key.replace(".", "_") for key in metric.attributes if key != "surface"]
            choices = [LABELS[key] for key in attributes]
            yield from (Series(name, labels, is_counter) for labels in combined(WRITERS, *choices))
            if is_counter and "recsys_namespace" in attributes:
                young = ['job="ranking",instance="young"'], [NEW_SURFACE], *choices[1:]
                yield from (
                    Series(name, labels, True, YOUNG_SECONDS) for labels in combined(*young)
                )


def combined(*choices: list[str]) -> Iterator[str]:
    """Labels, one of each choice."""
    return map(",".join, itertools.product(*choices))


def exposition(now: int) -> Iterator[str]:
    """The series as OpenMetrics, up to now."""
    for name, group in itertools.groupby(all_series(), lambda one: one.name):
        series = list(group)
        kind = "counter" if name.endswith("_total") else "unknown"
        yield f"# TYPE {name.removesuffix('_total')} {kind}"
        for one in series:
            yield from one.samples(now)
    yield "# EOF\n"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """One that has had eight days of these series; with the time of the last sample."""
    folder = tmp_path_factory.mktemp("prometheus")
    now = int(time.time())
    text = folder / "series.txt"
    text.write_text("\n".join(exposition(now)))
    # As one block: by default it makes one of every two hours, which takes a minute.
    command = (
        TOOLS / "promtool",
        "tsdb",
        "create-blocks-from",
        f"--max-block-duration={HISTORY_SECONDS}s",
        "openmetrics",
        text,
        folder / "data",
    )
    subprocess.run(command, check=True, capture_output=True)
    with Prometheus(folder) as server:
        yield server, now


@pytest.mark.parametrize("query", queries("promql"), ids=lambda query: query.name)
def test_promql_gives_an_answer(prometheus, query):
    server, now = prometheus
    assert server.query(query.text, at=now) != []


def test_a_query_of_a_label_that_is_not_there_gives_none(prometheus):
    """So that the test above would tell."""
    server, now = prometheus
    assert server.query("recsys_decisions_total", at=now) != []
    assert server.query('recsys_decisions_total{namespace="shop_eu"}', at=now) == []


# --- SQL --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(traces):
    """The sample of recorded traces, as of the last minutes, stamped by the hook."""
    hook = PersonalizationHook()
    with postgres() as database:
        database.store(recent(hook, trace, n) for n, trace in enumerate(traces))
        with open_warehouse(database.url()) as warehouse:
            warehouse.replace(day_tables(datetime.now(timezone.utc).date() - timedelta(days=1)))
        yield database


def recent(hook, trace, n):
    trace = json.loads(json.dumps(trace))
    trace["ts"] = (datetime.now(timezone.utc) - timedelta(seconds=n)).isoformat()
    if trace["namespace"] == "shop_eu" and trace["final_items"] and trace.get("surface") == "home":
        trace["final_items"][0].setdefault("reasons", []).append("cold_start")
    hook.record(trace)
    return trace


SQL = queries("sql")
OF_TRACES = [query for query in SQL if "rec_decisions" in query.text]
OF_THE_JOB = [query for query in SQL if query not in OF_TRACES]


@pytest.mark.parametrize("query", OF_TRACES, ids=lambda query: query.name)
def test_sql_over_the_traces_gives_rows(database, query):
    (example,) = database.run("SELECT decision_id FROM rec_decisions LIMIT 1")
    text = re.sub(r"decision_id = '[^']*'", f"decision_id = '{uuid.UUID(example)}'", query.text)
    assert database.run(text)


def test_sql_about_reasons_counts_the_decisions_that_the_hook_counts():
    """Where a trace does not say whether reasons are wanted, they are: only false declines them."""
    said: list[dict[str, object]] = [{}, {"include_reasons": True}, {"include_reasons": False}]
    said += [{"include_reasons": None}, {"include_reasons": "false"}]
    about = {"namespace": "shop_eu", "surface": "home"}
    items = [{"item_id": "a", "reasons": ["personalization"]}, {"item_id": "b"}]
    decisions = [
        about | {"decision_id": uuid.UUID(int=n), "ts": "now", "final_items": items, "extras": one}
        for n, one in enumerate(said)
    ]
    requested = [
        decision.reason_requested_items
        for decision in map(read_decision, decisions)
        if isinstance(decision, Decision)
    ]
    assert requested == [2, 2, 0, 2, 2]
    with postgres() as database:
        database.store(decisions)
        told = {
            query.name: database.run(query.text)
            for query in OF_TRACES
            if "include_reasons" in query.text
        }
    assert {name: row.split("|")[1:] for name, (row,) in told.items()} == {
        "PersonalizationDrop-3": ["8", "4"],
        "ReasonCoverageLow-1": ["5", "0.800", "2"],
        "RequestedReasonCoverageLow-1": ["", "8", "4", str(uuid.UUID(int=0))],
    }


@pytest.mark.parametrize("query", OF_THE_JOB, ids=lambda query: query.name)
def test_sql_over_the_tables_of_the_nightly_job_gives_rows(database, query):
    assert database.run(query.text)


# --- LogQL ------------------------------------------------------------------------------------


def faults(*logql):
    """What is wrong with each, or None."""
    done = subprocess.run(
        [TOOLS / "logql-lint.mjs"],
        input=json.dumps(logql),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_logql_is_logql():
    of_pages = queries("logql")
    found = faults(*(query.text for query in of_pages))
    assert {q.name: fault for q, fault in zip(of_pages, found, strict=True) if fault} == {}


@pytest.mark.parametrize(
    "wrong",
    [
        '{service_name="ranking"',
        '{service_name="ranking"} | json n=',
        'sum by (x (count_over_time({service_name="ranking"}[1h]))',
        'sum_over_time({service_name="ranking"} | unwrap [1h])',
    ],
)
def test_what_is_no_logql_is_refused(wrong):
    (fault,) = faults(wrong)
    assert "No parse" in fault
