"""What the tests share: recorded traces, the truth about them, and helpers."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from otel_personalization import warner
from otel_personalization.conventions import DECISION_COUNTERS, SOURCE_COUNTERS
from otel_personalization.totals import Snapshot

settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

os.environ["OTEL_PERSONALIZATION_LOG"] = "none"  # tests of log lines say where theirs go

DATA = Path(__file__).parent / "data"
RECORDING = Path(os.environ.get("RECORDED_TRACES", Path(__file__).parents[2] / "shared" / "data"))
"""The full recording, of which tests/data is a sample. Tests of it skip where it is not there."""

Cells = dict[tuple[str, ...], dict[str, int]]


def read_ndjson(path: Path) -> list[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_lines(path: Path) -> list[Any]:
    """The log lines of a file that may not be there yet."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.fixture(autouse=True)
def _warnings_are_logged_at_once(monkeypatch):
    """They come from a thread of their own; here a test may look for them at once."""
    monkeypatch.setattr(warner, "start_new_thread", lambda function, args: function(*args))


@pytest.fixture(scope="session")
def traces() -> list[dict[str, Any]]:
    """The sample of recorded traces. Tests must not change them."""
    return read_ndjson(DATA / "traces.ndjson.gz")


@pytest.fixture(scope="session")
def truth() -> dict[str, Any]:
    """What make_sample.py counted, without this package."""
    loaded: dict[str, Any] = json.loads((DATA / "truth.json").read_text())
    return loaded


def cells_of(rows: Iterable[dict[str, Any]], *keys: str) -> Cells:
    """Rows of counts, added up by keys."""
    cells: dict[tuple[str, ...], Counter[str]] = {}
    for row in rows:
        counts = {name: n for name, n in row.items() if isinstance(n, int)}
        cells.setdefault(tuple(row[key] for key in keys), Counter()).update(counts)
    return {cell: dict(counts) for cell, counts in cells.items()}


def decisions_of(snapshot: Snapshot) -> Cells:
    """The decision counters of a snapshot, by namespace and surface, in words."""
    names = [counter.field for counter in DECISION_COUNTERS]
    return {
        pair: dict(zip(names, values, strict=True))
        for pair, values in snapshot[DECISION_COUNTERS].items()
    }


def sources_of(snapshot: Snapshot) -> Cells:
    names = [counter.field for counter in SOURCE_COUNTERS]
    return {
        labels: dict(zip(names, values, strict=True))
        for labels, values in snapshot[SOURCE_COUNTERS].items()
    }


def recording(name: str) -> Path:
    path = RECORDING / name
    if not path.exists():
        pytest.skip(f"the full recording is not here ({name}); the sample has been tested")
    return path


def wait_for(condition: Callable[[], object]) -> None:
    """Until it holds; a minute is too long."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


def run_into_a_full_disk(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `otel-personalization` with a standard output that takes nothing."""
    with Path("/dev/full").open("w") as full:
        return subprocess.run(
            [sys.executable, "-m", "otel_personalization", *map(str, arguments)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )


def run_program(name: str, *args: str, timeout: float = 60, **variables: str) -> dict[str, Any]:
    """Run tests/programs/NAME.py in a process of its own, and return the JSON that it prints.

    It and its children are killed when the time is over: whoever hangs fails.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environment["OTEL_PERSONALIZATION_LOG"] = "none"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", f"tests.programs.{name}", *args],
        cwd=Path(__file__).parents[1],
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
        pytest.fail(f"{name} hung for {timeout} s:\n{out}\n{errors}")
    assert process.returncode == 0, errors
    printed: dict[str, Any] = json.loads(out.splitlines()[-1]) if out.strip() else {}
    return printed | {"stderr": errors}
