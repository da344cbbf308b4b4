"""Measures what one could have instead: ``make bench-comparison``, which writes comparison.md.

Counters written by hand, evidently, and metrics derived from log lines; each against what this
package does of the same. Costs of a call are CPU in units of one ``Counter.add``; costs of
processes are CPU seconds of all their threads, start included.
"""

from __future__ import annotations

import copy
import csv
import gc
import gzip
import hashlib
import inspect
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from benchmarks import hand_written, hosts
from benchmarks.__main__ import RECORDING, SAMPLE, machine
from benchmarks.daily import Cost, cost_of, job_of
from benchmarks.figures import ROUNDS, Figure, figure
from examples.stack.__main__ import LOGS, LOGS_FEATURE_GATES, WITHOUT_LOKI
from examples.stack.servers import Collector, Prometheus
from otel_personalization import PersonalizationHook
from otel_personalization.conventions import LOG_DECISIONS
from otel_personalization.trace import Decision, read_decision

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "comparison.md"
EVIDENTLY = max((ROOT / ".tools").glob("evidently-*/bin/python"), default=None)
"""As `make bench-comparison` has installed it; its folder names the version."""
DECISIONS = 100_000
LINES = 100_000
K = 10
CELL = ("shop_eu", "home")
"""Namespace and surface whose lists are compared."""
DRAWS = 1000

Table = list[tuple[str, ...]]


def provider_of(reader: InMemoryMetricReader) -> MeterProvider:
    """One that only the reader reads."""
    return MeterProvider([reader], shutdown_on_exit=False)


def tracers(provider: MeterProvider) -> dict[str, hosts.Tracer]:
    """Who counts: by hand four numbers, by hand all of them, and this package."""
    return {
        "four counters by hand": hand_written.four_counters(provider),
        "all counters by hand": hosts.naive(provider),
        "this package": hosts.hooked(PersonalizationHook(meter_provider=provider, log="none")),
    }


# --- counters by hand -------------------------------------------------------------------------


def cpu_seconds(function: Callable[[Any], object], arguments: list[Any], times: int = 1) -> float:
    """Of one call, averaged; of this thread alone, whatever else the machine does."""
    gc.collect()
    began = time.thread_time()
    for _ in range(times):
        for argument in arguments:
            function(argument)
    return (time.thread_time() - began) / (times * len(arguments))


def cost(lines: list[bytes]) -> Iterator[Figure]:
    """Of one call, less that of a bare one, in adds, in a sampled span."""
    recorded = [json.loads(line) for line in lines]
    provider = provider_of(InMemoryMetricReader())
    counter = provider.get_meter("bench").create_counter("bench")
    bare = hosts.Tracer()
    times = max(1, 4000 // len(recorded))

    def add(_: Any) -> None:
        counter.add(1, {"recsys.namespace": "shop_eu", "surface": "home", "source": "content"})

    def call(tracer: hosts.Tracer) -> Callable[[Any], Any]:
        return lambda trace: tracer.finalize(trace)  # noqa: PLW0108  # the lookup is timed, too

    counting = tracers(provider)
    ratios: dict[str, list[float]] = {name: [] for name in counting}
    with hosts.sampled_span():
        for _ in range(ROUNDS // 3):
            unit = cpu_seconds(add, [None], 8000)
            floor = cpu_seconds(call(bare), recorded, times)
            for name, tracer in counting.items():
                ratios[name].append((cpu_seconds(call(tracer), recorded, times) - floor) / unit)
    for name, values in ratios.items():
        yield figure(name, values)


def odd_traces() -> list[Any]:
    """Of which each has been seen, or is one change of a producer away."""
    plain = hosts.warm_trace(plain=False)
    changes: list[dict[str, Any]] = [
        {"extras": None},
        {"extras": {}},
        {"final_items": "none"},
        {"final_items": [None]},
        {"final_items": [{}]},
        {"namespace": None},
        {"surface": 7},
        {"surface": ["home"]},
        {"extras": {"personalized_items": None}},
        {"extras": {"personalized_items": [["a"]]}},
        {"extras": {"candidate_sources": {"popularity": None}}},
    ]
    without = copy.deepcopy(plain)
    del without["namespace"]
    return [None, [], "a trace", without, *(copy.deepcopy(plain) | change for change in changes)]


def raised(tracer: hosts.Tracer) -> int:
    """How many odd traces end in an exception in the request."""
    found = 0
    for trace in odd_traces():
        try:
            tracer.finalize(trace)
        except Exception:
            found += 1
    return found


def decisions_of(reader: InMemoryMetricReader) -> int:
    """What a reader would export of the decisions, by whoever counts them; once there are any."""
    total, until = 0, time.monotonic() + 5
    # This package's series begin with 0; and in a forked child a thread makes its instruments.
    while not total and time.monotonic() < until:
        data = reader.get_metrics_data()
        total = sum(
            int(point.value)
            for of_resource in (data.resource_metrics if data else ())
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
            if metric.name in ("decisions", "recsys.decisions")
            for point in metric.data.data_points
        )
    return total


def forked(name: str) -> list[int]:
    """What a process that counted 100 exports, and two children of it, each of which counts one."""
    reader = InMemoryMetricReader()
    tracer = tracers(provider_of(reader))[name]
    trace = hosts.warm_trace(plain=False)
    for _ in range(100):
        tracer.finalize(trace)
    values = [decisions_of(reader)]
    for _ in range(2):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            tracer.finalize(trace)
            os.write(write, str(decisions_of(reader)).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as said:
            values.append(int(said.read()))
        os.waitpid(child, 0)
    return values


def nested(name: str) -> int:
    """As how many a decision counts, whose finaliser calls another one that is instrumented."""
    reader = InMemoryMetricReader()
    provider = provider_of(reader)
    inner = tracers(provider)[name]
    if name == "this package":
        hook = PersonalizationHook(meter_provider=provider, log="none")
        outer = hook.finalizer()(lambda trace: inner.finalize(trace))  # noqa: PLW0108
        outer(hosts.warm_trace(plain=False))
    else:
        # The other one is the same function, with the same counters.
        inner.finalize(inner.finalize(hosts.warm_trace(plain=False)))
    return decisions_of(reader)


def code(name: str) -> str:
    """Lines that a service has to keep."""
    if name == "this package":
        return "1"
    source = {
        "four counters by hand": hand_written.four_counters,
        "all counters by hand": hosts.naive,
    }
    lines = inspect.getsource(source[name]).splitlines()
    return str(sum(bool(line.strip()) and '"""' not in line for line in lines))


def behaviour() -> Table:
    """What each does where it is not easy."""
    rows: Table = []
    odd = len(odd_traces())
    for name in tracers(provider_of(InMemoryMetricReader())):
        tracer = tracers(provider_of(InMemoryMetricReader()))[name]
        exported = forked(name)
        rows.append(
            (
                name,
                code(name),
                f"{raised(tracer)} of {odd}",
                f"{' + '.join(map(str, exported))} = {sum(exported)}",
                str(nested(name)),
            )
        )
    return rows


# --- evidently --------------------------------------------------------------------------------

_LISTS = """
WITH last AS (
    SELECT user_hash, arg_max(items, ts) AS items FROM decisions
    WHERE namespace = $namespace AND surface = $surface AND len(items) > 0
        AND user_hash IS NOT NULL AND hour(ts) BETWEEN $first AND $last
    GROUP BY user_hash
)
SELECT
    user_hash AS "user",
    unnest([item.item_id FOR item IN items[:10]]) AS item,
    unnest([item.brand FOR item IN items[:10]]) AS brand,
    unnest(range(1, least(len(items), 10) + 1)) AS place,
    0 AS target
FROM last
"""


def write_lists(snapshots: Path, file: Path, hours: str) -> None:
    """The last list of each user of the cell within hours of the day, as evidently reads it."""
    with closing(duckdb.connect()) as connection:
        connection.execute(
            f"CREATE VIEW decisions AS SELECT * FROM read_parquet('{snapshots}/*/*.parquet')"
        )
        first, last = map(int, hours.split("-"))
        namespace, surface = CELL
        rows = connection.execute(
            _LISTS, {"namespace": namespace, "surface": surface, "first": first, "last": last}
        ).fetchall()
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("user", "item", "brand", "place", "target"))
        writer.writerows(rows)


def lists_of(file: Path) -> dict[str, list[str]]:
    """By user, the items."""
    found: dict[str, list[str]] = {}
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["user"], []).append(row["item"])
    return found


def shared_part(file: Path) -> float:
    """Of two users at random, the items that both have, by K; counted exactly."""
    lists = lists_of(file)
    users = Counter(item for items in lists.values() for item in items)
    pairs = len(lists) * (len(lists) - 1)
    return sum(n * (n - 1) for n in users.values()) / pairs / K


def ours(file: Path, result: Path) -> None:
    """What this package's nightly job says of the lists; run in a process of its own."""
    import pyarrow as pa

    from otel_personalization.daily.measures import MOST_USERS
    from otel_personalization.daily.overlap import overlap_of

    lists = lists_of(file)
    chosen = sorted(
        lists, key=lambda user: hashlib.md5(f"personalization:{user}".encode()).digest()
    )
    overlap = overlap_of(pa.array([lists[user] for user in chosen[:MOST_USERS]]), K)
    assert overlap is not None
    said = {"mean": overlap.mean, "lower": overlap.lower, "upper": overlap.upper}
    said |= {"users": overlap.users, "short": overlap.short_share}
    result.write_text(json.dumps(said))


def evidently(folder: Path) -> tuple[Table, Table]:
    """What it costs and what it says, of a generated day and of recorded lists."""
    day, generated, recorded = folder / "day", folder / "generated.csv", folder / "recorded.csv"
    halves = folder / "morning.csv", folder / "afternoon.csv"
    otel_personalization = str(Path(sys.executable).parent / "otel-personalization")
    source = RECORDING if RECORDING.exists() else SAMPLE
    snapshots = folder / "snapshots"
    this = (sys.executable, "-m", "benchmarks.comparison")
    # In processes of their own: the memory of this one counts as that of those it starts.
    cost_of(sys.executable, "-m", "benchmarks.daily_traces", "parquet", str(DECISIONS), str(day))
    cost_of(otel_personalization, "snapshot", "--from", str(source), "--to", str(snapshots))
    for of, file, hours in (
        (day, generated, "0-23"),
        (day, halves[0], "0-11"),
        (day, halves[1], "12-23"),
        (snapshots, recorded, "0-23"),
    ):
        cost_of(*this, "lists", str(of), str(file), hours)

    out = folder / "said.json"
    said: dict[str, Any] = {}

    def run(name: str, *command: str) -> Cost:
        taken = cost_of(*command)
        said[name] = json.loads(out.read_text())
        return taken

    def of_evidently(name: str, file: Path, *reference: Path) -> Cost:
        script = str(ROOT / "benchmarks" / "evidently_lists.py")
        return run(name, str(EVIDENTLY), script, str(file), str(out), *map(str, reference))

    def of_ours(name: str, file: Path) -> Cost:
        return run(name, *this, "ours", str(file), str(out))

    costs = {
        "evidently: personalization of the lists": of_evidently("evidently", generated),
        "the same, and drift of brands from morning to afternoon": of_evidently("drift", *halves),
        "this package: overlap of the lists, interval and percentiles": of_ours("ours", generated),
        "this package: the whole nightly job, all tables of all surfaces": job_of(day),
    }
    of_evidently("evidently, recorded", recorded)
    of_ours("ours, recorded", recorded)
    cost_rows = [
        (name, f"{cost.cpu:.1f}", f"{cost.wall:.1f}", f"{cost.peak:.0f}")
        for name, cost in costs.items()
    ]

    def personalization(name: str) -> float:
        (value,) = (v for key, v in said[name]["values"].items() if "Personalization" in key)
        return float(value)

    rows: Table = []
    for what, file, suffix in (
        (f"generated, {len(lists_of(generated)):,} users", generated, ""),
        (f"recorded, {len(lists_of(recorded)):,} users", recorded, ", recorded"),
    ):
        mine = said[f"ours{suffix}"]
        rows.append(
            (
                what,
                f"{mine['short']:.0%}",
                f"{1 - personalization(f'evidently{suffix}'):.4f}",
                f"{shared_part(file):.4f}",
                f"{mine['mean']:.4f}, {mine['lower']:.4f} to {mine['upper']:.4f}",
            )
        )
    drift = next(v for key, v in said["drift"]["values"].items() if "Drift" in key)
    rows.append(("brands, morning and afternoon of the generated day", "", f"{drift:.4f}", "", ""))
    return cost_rows, rows


# --- metrics from log lines -------------------------------------------------------------------


def log_lines(recorded: list[bytes], folder: Path) -> Table:
    """What lines weigh, and what it takes to count them; recorded traces over and over."""
    file = folder / "decisions.ndjson"
    hook = PersonalizationHook(
        meter_provider=provider_of(InMemoryMetricReader()), log=str(file), log_sample=1.0
    )
    traces = [json.loads(line) for line in recorded]
    chance = random.Random(1)
    for n in range(LINES):
        # No two decisions have an id in common, which would be packed well.
        own = {"decision_id": str(UUID(int=chance.getrandbits(128))), "request_id": f"req-{n}"}
        hook.record(traces[n % len(traces)] | own)
        if n % 5000 == 0:
            hook.flush(60)
    hook.flush(60)
    raw = file.read_bytes()
    count = raw.count(b"\n")
    rows: Table = [
        ("bytes of a line", f"{len(raw) / count:,.0f}"),
        ("the same, gzipped in blocks of 1 MB", f"{_gzipped(raw) / count:,.0f}"),
    ]
    with Prometheus(folder / "prometheus") as prometheus:
        collector = Collector(
            folder / "logs",
            prometheus.url,
            configurations=(LOGS, WITHOUT_LOKI),
            feature_gates=LOGS_FEATURE_GATES,
            RECSYS_LOG_FILES=json.dumps([str(file)]),
            RECSYS_COUNT_INTERVAL="1s",
        )
        with collector:
            until = time.monotonic() + 300
            counted = f"sum({LOG_DECISIONS.prometheus_name})"
            while (prometheus.value(counted) or 0) < count:
                if time.monotonic() > until:
                    raise RuntimeError(f"the Collector counted {prometheus.value(counted)}")
                time.sleep(0.2)
            taken = collector.cpu_seconds()
    rows.append(("CPU of the Collector for each million lines, s", f"{taken / count * 1e6:.0f}"))
    began = time.process_time()
    with closing(duckdb.connect()) as connection:
        connection.execute(
            "SELECT namespace, surface, sum(personalized_items_count) / sum(served_items_count) "
            f"FROM read_json('{file}', format = 'newline_delimited') GROUP BY ALL"
        ).fetchall()
    taken = time.process_time() - began
    rows.append(
        ("CPU of DuckDB for a share of each million lines, s", f"{taken / count * 1e6:.0f}")
    )
    return rows


def _gzipped(raw: bytes, block: int = 1 << 20) -> int:
    return sum(len(gzip.compress(raw[at : at + block])) for at in range(0, len(raw), block))


def sampled(lines: list[bytes]) -> str:
    """By how much the share of a tenth of the recorded decisions differs from that of all."""
    decisions = [read_decision(json.loads(line)) for line in lines]
    counts = [
        (decision.personalized_items, decision.served_items)
        for decision in decisions
        if isinstance(decision, Decision)
    ]
    chance = random.Random(1)
    shares = []
    for _ in range(DRAWS):
        chosen = [pair for pair in counts if chance.random() < 0.1]
        shares.append(sum(part for part, _ in chosen) / sum(whole for _, whole in chosen))
    return f"{100 * statistics.stdev(shares):.1f} points"


# --- what is written --------------------------------------------------------------------------


def table(head: str, rows: Table) -> list[str]:
    """A table of Markdown."""
    columns = head.split(", ")
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def main() -> None:
    """Measure, and write it down; with a name, one part in a process of its own."""
    if sys.argv[1:2] == ["ours"]:
        ours(*map(Path, sys.argv[2:]))
        return
    if sys.argv[1:2] == ["lists"]:
        snapshots, file, hours = sys.argv[2:]
        write_lists(Path(snapshots), Path(file), hours)
        return
    if EVIDENTLY is None:
        sys.exit("evidently is not installed: make bench-comparison does it")
    os.environ["DO_NOT_TRACK"] = "1"  # evidently tells its makers of its use unless this is set
    path = RECORDING if RECORDING.exists() else SAMPLE
    with gzip.open(path) as stream:
        lines = list(stream)
    with tempfile.TemporaryDirectory(prefix="bench-comparison-") as temporary:
        folder = Path(temporary)
        costs, values = evidently(folder)
        of_lines = log_lines(lines, folder)
    of_lines.append(
        ("standard error of the share in a tenth of the recorded traces", sampled(lines))
    )
    text = [
        "# What one could have instead",
        "",
        f"Measured by `make bench-comparison` on {time.strftime('%Y-%m-%d')}: {machine()}.",
        f"The recorded traces are {len(lines):,} of {path.name}. What the figures mean is in",
        "docs/comparison.md.",
        "",
        "## Counters by hand",
        "",
        "The CPU of one call less that of a bare one, recorded traces in sequence in a sampled",
        f"span, in units of one `Counter.add`; {ROUNDS // 3} rounds.",
        "",
        *table("what, median, middle half, limit", []),
        *(str(figure) for figure in cost(lines)),
        "",
        "Odd traces are listed in `benchmarks/comparison.py`; of a forked service, the parent",
        "counted 100 decisions and two children one each, so that 102 is right.",
        "",
        *table(
            "what, lines of code, odd traces that raise into the request, exported after a fork, "
            "one decision of two nested finalisers counts",
            behaviour(),
        ),
        "",
        "## evidently",
        "",
        f"{EVIDENTLY.parents[1].name}, in a virtual environment of its own; a generated day of",
        f"{DECISIONS:,} decisions; lists are those of {CELL[0]}/{CELL[1]}, {K} items at most.",
        "",
        *table("what, CPU s, wall s, peak MiB", costs),
        "",
        "Values: 1 - personalization, or the Jensen-Shannon distance; what both of two users have,",
        f"by {K}, counted exactly; and Jaccard overlap with its interval.",
        "",
        *table("of, short lists, evidently, counted, this package", values),
        "",
        "## Metrics from log lines",
        "",
        f"{LINES:,} lines of recorded traces, whose ids are made to differ.",
        "",
        *table("what, measured", of_lines),
    ]
    RESULTS.write_text("\n".join(text) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
