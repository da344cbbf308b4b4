"""Service processes under load, and the truth that they wrote down about what they served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e.servers import REPOSITORY, wait_for

Pair = tuple[str, str]
"""Namespace and surface."""
Cells = dict[Pair, Counter[str]]
ITEM_COUNTS = ("served_items", "personalized_items", "reason_requested_items", "reason_items")
PAIRS: tuple[Pair, ...] = tuple(
    (namespace, surface)
    for namespace in ("shop_eu", "shop_us")
    for surface in ("home", "pdp", "cart")
)


@dataclass(frozen=True)
class Decision:
    """What a process wrote down of a decision that it had finalised."""

    at: float
    """Wall clock, in s."""
    namespace: str
    surface: str
    served_items: int
    personalized_items: int
    reason_requested_items: int
    reason_items: int

    @property
    def pair(self) -> Pair:
        return self.namespace, self.surface


@dataclass(frozen=True)
class Export:
    """What a process wrote down of an export that was answered with success."""

    began: float
    """Wall clock, in s."""
    answered: float
    totals: Cells

    @classmethod
    def read(cls, began: float, answered: float, rows: list[tuple[str, str, str, int]]) -> Export:
        totals: Cells = {}
        for namespace, surface, name, value in rows:
            totals.setdefault((namespace, surface), Counter())[name] = value
        return cls(began, answered, totals)


def add_up(decisions: Iterable[Decision]) -> Cells:
    cells: Cells = {}
    for decision in decisions:
        cells.setdefault(decision.pair, Counter()).update(
            decisions=1, **{name: getattr(decision, name) for name in ITEM_COUNTS}
        )
    return cells


def total(cells: Cells, name: str = "served_items") -> int:
    return sum(counts[name] for counts in cells.values())


@dataclass
class Member:
    """A process of a fleet.

    Args:
        rate: decisions in a second.
        share: of its items that are personalised.
        seconds: how long it lives; until it is told to end, by default.
        idle: seconds until its first decision.
        pairs: what its decisions are of.
        version: of the library, where it is to look like another.
    """

    rate: float = 100.0
    share: float = 0.6
    seconds: float = 3600.0
    idle: float = 0.0
    pairs: tuple[Pair, ...] = PAIRS
    seed: int = 1
    version: str = ""


@dataclass
class Running:
    """A member that runs, or has ended; and what it has written down."""

    process: subprocess.Popen[bytes]
    truth: Path
    exported: Path
    lines: Path

    def decisions(self) -> list[Decision]:
        return [Decision(*row) for row in _rows(self.truth)]

    def exports(self) -> list[Export]:
        return [Export.read(*row) for row in _rows(self.exported)]

    def logged(self) -> list[dict[str, Any]]:
        """The lines of its decision log."""
        return _rows(self.lines)

    def wait(self) -> None:
        """Wait until it has ended by itself."""
        wait_for(lambda: self.process.poll() is not None, "a service to end", 150)
        assert self.process.returncode == 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        wait_for(lambda: self.process.poll() is not None, "a service to end")


def _rows(file: Path) -> list[Any]:
    """Whatever is written there as a whole: who is killed may have torn its last line."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_bytes().rpartition(b"\n")[0].splitlines()]


class Fleet:
    """Starts members, and knows the truth about all of them.

    Args:
        endpoint: of the Collector, for OTLP over HTTP.
        folder: for their truths, log lines and errors.
        export_seconds: between two exports of a member.
    """

    def __init__(self, endpoint: str, folder: Path, export_seconds: float = 1.0) -> None:
        self._endpoint = endpoint
        self._folder = folder
        self.export_seconds = export_seconds
        self.members: list[Running] = []
        self._lock = threading.Lock()
        self._started = 0
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, member: Member) -> Running:
        with self._lock:  # members are started by several threads
            number = self._started
            self._started += 1
        truth = self._folder / f"truth-{number}.ndjson"
        exported = self._folder / f"exports-{number}.ndjson"
        lines = self._folder / f"lines-{number}.ndjson"
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("OTEL_")
        }
        environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": str(int(1000 * self.export_seconds)),
            "OTEL_PERSONALIZATION_LOG": str(lines),
        }
        with (self._folder / f"errors-{number}.txt").open("wb") as errors:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.programs.member",
                    str(truth),
                    str(exported),
                    json.dumps(asdict(member)),
                ],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        running = Running(process, truth, exported, lines)
        self.members.append(running)
        return running

    def decisions(self) -> list[Decision]:
        return [decision for member in self.members for decision in member.decisions()]

    def truth(self) -> Cells:
        return add_up(self.decisions())

    def kill(self) -> None:
        for member in self.members:
            with suppress(ProcessLookupError):
                member.process.kill()
            member.process.wait()


@contextmanager
def fleet(endpoint: str, folder: Path, export_seconds: float = 1.0) -> Iterator[Fleet]:
    """A fleet, of which nothing is left running."""
    started = Fleet(endpoint, folder, export_seconds)
    try:
        yield started
    finally:
        started.kill()
