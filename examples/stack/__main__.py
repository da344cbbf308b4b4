"""The live path on this machine: ``make stack``, or ``python -m examples.stack``.

Starts Prometheus, the gateway, the log Collector and the ranking service as processes of their own
on loopback, has simulated users browse, and shows that raw counters, views and log lines say what
the users were served. It goes on until Ctrl-C, and leaves nothing running.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console

from examples.ranking_service.traffic import Crowd
from examples.stack import users
from examples.stack.counts import count
from examples.stack.screen import show_addresses, show_counts, show_queries
from examples.stack.servers import MONITORING, Collector, Ports, Prometheus, Server, free_port
from examples.stack.service import RankingService

WIDTH: Final = 110
"""Columns that its tables need, on a narrower terminal or in a pipe, too."""
LOGS: Final = MONITORING / "collector" / "logs.yaml"
LOGS_FEATURE_GATES: Final = ("stanza.synchronousLogEmitter",)
WITHOUT_LOKI: Final = "yaml:receivers::file_log::include: [/dev/null]"
"""Loki cannot be built as the others are; compose.yaml has it. Here lines are counted only."""
VIEW_SECONDS: Final = 10
EXPORT_SECONDS: Final = 2
ARRIVAL_SECONDS: Final = 6 * VIEW_SECONDS
"""What users were served is in a view after one window; on a busy machine, a little later."""
FIRST_VISITS: Final = 100
ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run it until it is told to end.

    The exit code is 0 if what was counted in the end is what the users were served, 1 if it is not
    or if something failed, and 130 if it was told to end before all servers ran, or twice.
    """
    parser = argparse.ArgumentParser(prog="examples.stack", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path("build/stack"), help="default: %(default)s"
    )
    output = parser.parse_args().output
    _at_endings(signal.default_int_handler)  # whichever it is, all is stopped in its order
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]  # they are about other services
    console = Console()
    console.width = max(console.width, WIDTH)
    try:
        is_exact = _run(output, console)
    except KeyboardInterrupt:
        console.print("Stopped before the end; nothing is left running.")
        sys.exit(128 + signal.SIGINT)
    except (OSError, RuntimeError, httpx.HTTPError) as error:
        sys.exit(f"{error}\nNothing is left running.")
    sys.exit(not is_exact)


def _run(output: Path, console: Console) -> bool:
    """Start everything, go on until told to end, and compare what was counted."""
    folder = output.absolute() / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    folder.mkdir(parents=True)
    console.print("Starting Prometheus, the Collectors and the ranking service on loopback ...")
    with _collecting(folder) as (prometheus, gateway, logs):
        with RankingService(
            folder, _port(8000), gateway.endpoint, export_seconds=EXPORT_SECONDS
        ) as service:
            show_addresses(prometheus, gateway, logs, service, console)
            crowd = Crowd(service.url, users.SEED, on_answer=lambda: None)
            try:
                _serve(crowd, prometheus, (prometheus, gateway, logs, service), console)
            except KeyboardInterrupt:
                _at_endings(signal.SIG_IGN)  # a signal may well be sent to a group, and to us again
        _at_endings(signal.default_int_handler)
        console.print(
            "\nThe service has ended, and has exported everything. The last view takes up to"
            f" {VIEW_SECONDS} s more; Ctrl-C does not wait for it.",
            soft_wrap=True,
        )
        is_exact = _compare(crowd, prometheus, console)
    console.print(f"Nothing is left running. The files of this run: {folder}", soft_wrap=True)
    return is_exact


@contextmanager
def _collecting(folder: Path) -> Iterator[tuple[Prometheus, Collector, Collector]]:
    """Prometheus, the gateway, and the log Collector, each at its usual place if that is free."""
    ports = Ports(
        grpc=_port(4317),
        http=_port(4318),
        health=_port(13133),
        telemetry=_port(8888),
        scrape=_port(8889),
    )
    for_logs = Ports(health=_port(13134), telemetry=_port(8890))
    with (
        Prometheus(folder / "prometheus", ports, logs=for_logs, port=_port(9090)) as prometheus,
        Collector(
            folder / "gateway",
            prometheus.url,
            ports=ports,
            RECSYS_VIEW_INTERVAL=f"{VIEW_SECONDS}s",
        ) as gateway,
        Collector(
            folder / "logs",
            prometheus.url,
            ports=for_logs,
            configurations=(LOGS, WITHOUT_LOKI),
            feature_gates=LOGS_FEATURE_GATES,
            RECSYS_LOG_FILES=json.dumps([str(folder / RankingService.LINES)]),
            RECSYS_COUNT_INTERVAL=f"{EXPORT_SECONDS}s",
        ) as logs,
    ):
        yield prometheus, gateway, logs


def _at_endings(handler: Any) -> None:
    for ending in ENDINGS:
        signal.signal(ending, handler)


def _port(usual: int) -> int:
    """The port that everybody expects; another one, if it is taken."""
    with socket.socket() as tried:
        # Connections to who was there before do not matter.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", usual))
        except OSError:
            return free_port()
    return usual


def _serve(
    crowd: Crowd, prometheus: Prometheus, servers: Sequence[Server], console: Console
) -> None:
    """Show that the counts of the first visits are right, and have users go on browsing.

    Raises:
        KeyboardInterrupt: it was told to end.
        RuntimeError: a server ended by itself.
    """
    console.print(
        f"\nUsers look at their first pages; the views of it take up to {VIEW_SECONDS} s ..."
    )
    _visit(crowd, range(FIRST_VISITS))
    _compare(crowd, prometheus, console)
    show_queries(prometheus.url, console)
    console.print("\nUsers go on browsing. Ready; Ctrl-C ends it.")
    for numbers in users.visits(first=FIRST_VISITS):
        _visit(crowd, numbers)
        for server in servers:
            server.check()
        time.sleep(users.SECONDS_BETWEEN)


def _visit(crowd: Crowd, numbers: range) -> None:
    """Make visits, and make them to the end.

    Of a visit that is broken off, the service has counted what the user never got.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        crowd.visit(numbers)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def _compare(crowd: Crowd, prometheus: Prometheus, console: Console) -> bool:
    """Show what was counted, once it has arrived. Returns whether it is the same everywhere."""
    until = time.monotonic() + ARRIVAL_SECONDS
    while not (said := count(crowd.tally, prometheus)).is_exact() and time.monotonic() < until:
        time.sleep(0.5)
    return show_counts(said, console)


if __name__ == "__main__":
    main()
