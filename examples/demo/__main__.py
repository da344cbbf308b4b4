"""The demo: ``make demo``, or ``python -m examples.demo``.

Starts the ranking service as a process of its own and an OTLP backend, has simulated users browse
it, makes personalisation fail on one surface half-way, runs the nightly job over what the service
stored, and shows what was counted. It talks to nothing but itself, and leaves nothing running.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from examples.demo.backend import receiving
from examples.demo.nightly import Night
from examples.demo.screen import Run, show
from examples.demo.service import running
from examples.ranking_service.settings import Fault
from examples.ranking_service.traffic import SURFACES, Crowd, Faults

WIDTH: Final = 110
"""Columns that its tables need, on a narrower terminal or in a pipe, too."""
REQUESTS: Final = 9000
SEED: Final = 1
EXPORT_INTERVAL_MILLIS: Final = "2000"
PLANTED: Final[Faults] = {
    ("shop", "cart"): Fault.PERSONALIZATION_OFF,
    ("shop", "product"): Fault.COLD_START_FLOOD,
    **{("media", surface): Fault.COLLABORATIVE_EMPTY for surface in SURFACES},
}
"""What goes wrong in the second half."""


def main() -> None:
    """Run the demo. The exit code is 1 if the counters are not what the users were served."""
    parser = argparse.ArgumentParser(prog="examples.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, default=Path("build/demo"), help="default: %(default)s"
    )
    arguments = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C, so that the service ends, too
        signal.signal(ending, lambda *_: signal.raise_signal(signal.SIGINT))
    console = Console()
    console.width = max(console.width, WIDTH)
    try:
        run = _run(arguments.requests, arguments.output, console)
        console.print("Running the nightly job over the stored traces ...")
        is_exact = show(run, Night(run.folder, run.snapshots), console)
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left running.")
        sys.exit(128 + signal.SIGINT)
    sys.exit(not is_exact)


def _run(requests: int, output: Path, console: Console) -> Run:
    """Have simulated users browse the service, calmly first, and then with the faults."""
    folder = output / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    folder.mkdir(parents=True)
    visits = max(requests // len(SURFACES), 2)
    half = visits // 2
    console.print("Starting the ranking service and an OTLP backend on loopback ...")
    with receiving() as backend:
        with (
            running(
                folder.absolute(),
                backend.endpoint,
                OTEL_METRIC_EXPORT_INTERVAL=EXPORT_INTERVAL_MILLIS,
            ) as url,
            _progress(console, visits * len(SURFACES)) as progress,
        ):
            began = time.monotonic()
            calm = Crowd(url, SEED, on_answer=progress)
            calm.visit(range(half))
            drop_began = datetime.now(timezone.utc)
            troubled = Crowd(url, SEED, faults=PLANTED, on_answer=progress)
            troubled.visit(range(half, visits))
            seconds = time.monotonic() - began
        # The service has ended, and with its last export all has arrived.
        return Run(folder, calm.tally, troubled.tally, drop_began, seconds, backend)


@contextmanager
def _progress(console: Console, requests: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, and none elsewhere."""
    columns = (
        TextColumn("Simulated users ask"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=requests)
        yield lambda: bar.advance(task)


if __name__ == "__main__":
    main()
