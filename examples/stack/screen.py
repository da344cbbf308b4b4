"""What `make stack` shows: where everything is, and whether all who count say the same."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Final
from urllib.parse import quote

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from examples.stack.counts import LABELS, RATES, SERVED, WINDOW_ITEMS, Said, share
from examples.stack.servers import REPOSITORY, TOOLS, Collector, Prometheus
from examples.stack.service import RankingService

TITLES: Final = {"personalized_items": "personalised", "reason_items": "with a reason"}
BY: Final = f"sum by ({', '.join(LABELS)})"
QUERIES: Final = (
    *RATES.values(),
    WINDOW_ITEMS,
    f"{BY} (recsys_personalized_items_total)",
    f"{BY} (recsys_served_items_total)",
    " / ".join(f"{BY} (rate(recsys_{name}_total[1m]))" for name in ("personalized_items", SERVED)),
)
"""What is worth asking Prometheus: the views, the raw counters, and a share from these."""


def show_addresses(
    prometheus: Prometheus,
    gateway: Collector,
    logs: Collector,
    service: RankingService,
    console: Console,
) -> None:
    """Show what listens where. All of it is on loopback."""
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    table.add_row("ranking service", service.url, "as examples/ranking_service/README.md has it")
    table.add_row(
        "Collector", gateway.endpoint, f"OTLP over HTTP; over gRPC on {gateway.ports.grpc}"
    )
    table.add_row("", gateway.telemetry, "what it tells of itself")
    table.add_row(
        "log Collector", logs.telemetry, "what it tells of itself; without Loki, it counts"
    )
    table.add_row("Prometheus", prometheus.url, "")
    console.print(table)


def show_queries(prometheus: str, console: Console) -> None:
    """Show what to ask Prometheus, and how."""
    console.rule("Ask Prometheus: open or paste, the answer is JSON")
    for query in QUERIES:
        console.print(
            f"{prometheus}/api/v1/query?query={quote(query, safe='_')}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"or, on a terminal:  {TOOLS.relative_to(REPOSITORY)}/promtool query instant"
        f" {prometheus} {RATES['personalized_items']}\n"
        "This Prometheus is built from its sources, without its web pages; compose.yaml has them.",
        highlight=False,
        soft_wrap=True,
    )


def show_counts(said: Said, console: Console) -> bool:
    """Show what was counted until now. Returns whether all say the same."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    console.rule(f"Counted until {now}: users / raw counters / the Collector's views")
    table = Table(box=SIMPLE, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("namespace / surface")
    for title in ("items served", *TITLES.values(), ""):
        table.add_column(title, justify="right")
    for pair in sorted(said.pairs()):
        three = [counts.get(pair, Counter()) for counts in (said.users, said.counters, said.views)]
        table.add_row(
            " / ".join(pair),
            " / ".join(f"{counts[SERVED]:,}" for counts in three),
            *(" / ".join(f"{share(counts, name):.1%}" for counts in three) for name in TITLES),
            _verdict(three[0] == three[1] == three[2]),
        )
    console.print(table)
    console.print(
        f"Decisions: {said.answers:,} answers, {said.lines:,} log lines: "
        + _verdict(said.answers == said.lines),
        highlight=False,
    )
    return said.is_exact()


def _verdict(is_equal: bool) -> str:
    return "[green]equal[/]" if is_equal else "[red]DIFFERENT[/]"
