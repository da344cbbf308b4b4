"""Stores traces and outcomes as NDJSON that several processes may append to at once.

Under the data folder::

    traces/2026-11-24.ndjson    the snapshot of a UTC day: its traces, as they were stamped
    outcomes.ndjson             one line an impression or click: ts, decision_id, item_id, type
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from examples.ranking_service.messages import Outcome


class Storage:
    """The data folder.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.traces = folder / "traces"
        self.outcomes = folder / "outcomes.ndjson"
        self.traces.mkdir(parents=True, exist_ok=True)

    def store_trace(self, trace: dict[str, Any]) -> None:
        """Append a trace to the snapshot of its day."""
        _append(self.traces / f"{trace['ts'][:10]}.ndjson", [trace])  # ts is UTC, always

    def store_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Append what users did."""
        _append(
            self.outcomes,
            [
                {
                    "ts": outcome.ts.isoformat(),
                    "decision_id": outcome.decision_id,
                    "item_id": item_id,
                    "type": kind,
                }
                for outcome in outcomes
                for kind, item_ids in (
                    ("impression", outcome.impressions),
                    ("click", outcome.clicks),
                )
                for item_id in item_ids
            ],
        )


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append whole lines: one write in append mode is not torn by those of other processes."""
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(descriptor, lines)
    finally:
        os.close(descriptor)
    if written != len(lines):
        raise OSError(f"only {written} of {len(lines)} bytes could be written to {path}")
