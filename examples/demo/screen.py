"""Shows what a run of the demo counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from examples.demo.backend import Backend, Pair
from examples.demo.nightly import Night, program
from examples.ranking_service.traffic import Tally
from otel_personalization.cli import table_of
from otel_personalization.conventions import DECISION_COUNTERS, OUTCOME_COUNTERS
from otel_personalization.replay import replay

Trace = dict[str, Any]

COMPARED: Final = DECISION_COUNTERS + OUTCOME_COUNTERS
LOGGED: Final = (
    "served_items",
    "personalized_items",
    "reason_items",
    "reason_requested_items",
    "cold_start_items",
)
"""Counts that a log line has, under these names and ``_count``."""


@dataclass(frozen=True)
class Run:
    """What happened."""

    folder: Path
    """Where the service stored its data."""
    calm: Tally
    """What the users were served in the first half, and what in the second."""
    troubled: Tally
    drop_began: datetime
    seconds: float
    backend: Backend

    @property
    def snapshots(self) -> list[Path]:
        """The stored traces: one file a UTC day."""
        return sorted((self.folder / "traces").iterdir())

    def traces(self) -> Iterator[Trace]:
        """The stored traces, in the order in which they were stored."""
        for snapshot in self.snapshots:
            with snapshot.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def log_lines(self) -> Iterator[str]:
        """The lines that the library wrote, one a decision."""
        with (self.folder / "decisions.log").open(encoding="utf-8") as lines:
            yield from lines

    def logged(self) -> Tally:
        """The sums over the log lines."""
        logged = Tally(Counter)
        for line in map(json.loads, self.log_lines()):
            counts = logged[line["namespace"], line["surface"]]
            items = line["served_items_count"]
            counts["decisions"] += 1
            counts["empty_decisions"] += not items
            counts["served_items_squared"] += items**2
            for name in LOGGED:
                counts[name] += line[f"{name}_count"]
        return logged

    def served(self) -> Tally:
        """What the users counted in both halves."""
        served = Tally(Counter)
        for half in (self.calm, self.troubled):
            for pair, counts in half.items():
                served[pair] += counts
        return served


def show(run: Run, night: Night, console: Console) -> bool:
    """Show it all. Returns whether the counters are what the users were served."""
    served = run.served()
    requests = sum(counts["decisions"] for counts in served.values())
    console.print(
        f"Simulated users were answered {requests:,} times in {run.seconds:.0f} s: "
        f"{requests / run.seconds:,.0f} requests a second.\n",
        highlight=False,
    )
    console.rule("What was served, by the stored traces")
    console.print(table_of(replay(run.snapshots)))

    console.rule(f"What changed at {run.drop_began:%H:%M:%S} UTC, by the stamps of stored traces")
    console.print(_changes(run))

    console.rule("The counters over OTLP, the sums over the log lines, and what users were served")
    comparison, is_exact = _comparison(run, served)
    console.print(comparison)

    console.rule("A log line, as Loki takes it")
    console.print(next(run.log_lines()).strip(), highlight=False, soft_wrap=True, markup=False)

    console.rule("A stored trace, shortened, with its two stamps")
    console.print_json(json.dumps(_shortened(next(filter(_is_telling, run.traces())))))

    console.rule("The nightly job, over the stored traces")
    console.print(f"{night.command}\n\n{night.said}", highlight=False, soft_wrap=True)
    console.print(night.table())

    console.rule("Next")
    console.print(
        f"The nightly report:       {night.report}\n"
        f"The files of this run:    {run.folder}: traces/, outcomes.ndjson, decisions.log,\n"
        f"                          {night.warehouse.name}\n"
        f"Count them again:         {program()} replay {run.snapshots[0]}\n"
        "The service, to run it:   examples/ranking_service/README.md\n"
        "Your own service:         PersonalizationInstrumentor().instrument("
        'target="your.module:DecisionTracer.finalize")\n'
        "How, and what each number means:   README.md",
        highlight=False,
        soft_wrap=True,
    )
    return is_exact


# --- before and after -------------------------------------------------------------------------


def _changes(run: Run) -> Table:
    """Three shares of each surface, before the faults and since."""
    halves: dict[Pair, tuple[list[Trace], list[Trace]]] = {}
    for trace in run.traces():
        is_later = datetime.fromisoformat(trace["ts"].replace("Z", "+00:00")) >= run.drop_began
        pair = (trace["namespace"], trace["surface"])
        halves.setdefault(pair, ([], []))[is_later].append(trace)
    table = Table(box=SIMPLE, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("namespace / surface")
    for column in ("personalised", "collaborative empty", "cold start"):
        table.add_column(f"{column}\nbefore", justify="right")
        table.add_column("\nsince", justify="right")
    for pair, (before, since) in sorted(halves.items()):
        figures = []
        for share in (_personalized, _collaborative_empty, _cold_start):
            was, now = share(before), share(since)
            figures += [
                f"{was:.1%}",
                f"[bold]{now:.1%}[/]" if abs(now - was) > 0.1 else f"{now:.1%}",
            ]
        table.add_row(" / ".join(pair), *figures)
    return table


def _personalized(traces: list[Trace]) -> float:
    stamped = sum(trace["extras"]["personalized_items_count"] for trace in traces)
    return _share(stamped, sum(len(trace["final_items"] or ()) for trace in traces))


def _collaborative_empty(traces: list[Trace]) -> float:
    sources = (trace["extras"]["candidate_sources"] for trace in traces)
    return _share(sum(not found["collaborative"]["count"] for found in sources), len(traces))


def _cold_start(traces: list[Trace]) -> float:
    explained = [item["reasons"] for item in _items(traces) if "reasons" in item]
    return _share(sum("cold_start" in reasons for reasons in explained), len(explained))


def _items(traces: Iterable[Trace]) -> Iterator[dict[str, Any]]:
    for trace in traces:
        yield from trace["final_items"] or ()


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


# --- counters and answers ---------------------------------------------------------------------


def _comparison(run: Run, served: Tally) -> tuple[Table, bool]:
    """The totals of each counter by all who counted; and whether all are equal.

    Equal are those of which each namespace and surface has the same number.
    """
    table = Table(box=SIMPLE, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("counter, as Prometheus shows it")
    for column in ("over OTLP", "log lines", "users", "on every surface"):
        table.add_column(column, justify="right")
    logged = run.logged()
    is_exact = True
    for counter in COMPARED:
        by_otlp = run.backend.totals(counter.name)
        by_users = _totals(served, counter.field)
        by_lines = _totals(logged, counter.field) if counter in DECISION_COUNTERS else None
        is_equal = by_otlp == by_users and by_lines in (None, by_users)
        is_exact &= is_equal
        table.add_row(
            counter.prometheus_name,
            f"{by_otlp.total():,}",
            "" if by_lines is None else f"{by_lines.total():,}",
            f"{by_users.total():,}",
            "[green]equal[/]" if is_equal else "[red]DIFFERENT[/]",
        )
    return table, is_exact


def _totals(tally: Tally, name: str) -> Counter[Pair]:
    return Counter({pair: counts[name] for pair, counts in tally.items()})


# --- one trace --------------------------------------------------------------------------------


def _is_telling(trace: Trace) -> bool:
    extras = trace["extras"]
    return bool(
        extras["personalized_items_count"]
        and extras["include_reasons"]
        and "experiment_variant" in extras
    )


def _shortened(trace: Trace) -> Trace:
    names = (
        "include_reasons",
        "device",
        "cohort",
        "experiment_variant",
        "personalized_items_count",
        "reason_items_count",
    )
    first = ("decision_id", "namespace", "surface", "ts", "k")
    return {
        **{name: trace[name] for name in first},
        "final_items": [*trace["final_items"][:2], f"... {len(trace['final_items']) - 2} more"],
        "extras": {name: trace["extras"][name] for name in names},
    }
