"""Counts the decision traces of files as a service would have counted them.

Each line goes through the hook that a service has; on top come the streaks of decisions in which a
source found nothing, which need the order of time::

    report = replay([Path("traces.ndjson.gz")])
    report.as_json()["totals"]["served_items"]
"""

from __future__ import annotations

import json
from array import array
from collections import Counter as Sum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any, Final

from opentelemetry.metrics import NoOpMeterProvider

from otel_personalization import ndjson
from otel_personalization.conventions import (
    COLD_START_ITEMS,
    DECISION_COUNTERS,
    DECISIONS,
    EMPTY_DECISIONS,
    PERSONALIZED_ITEMS,
    REASON_ITEMS,
    REASON_REQUESTED_ITEMS,
    SERVED_ITEMS,
    SOURCE_COUNTERS,
    MalformedReason,
)
from otel_personalization.hook import PersonalizationHook
from otel_personalization.ndjson import MAX_PROBLEMS, Format, Problem, Progress
from otel_personalization.settings import NONE
from otel_personalization.totals import Snapshot
from otel_personalization.trace import Decision, read_timestamp

COUNTS: Final = tuple(
    counter.field
    for counter in (
        DECISIONS,
        EMPTY_DECISIONS,
        SERVED_ITEMS,
        PERSONALIZED_ITEMS,
        REASON_ITEMS,
        REASON_REQUESTED_ITEMS,
        COLD_START_ITEMS,
    )
)
"""The counts of the report, in its order."""


@dataclass
class Report:
    """What a replay counted."""

    totals: dict[str, int] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    """One for each namespace and surface."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    """One for each namespace, surface and source; surface None is the whole namespace."""
    malformed: dict[str, int] = field(default_factory=dict)
    """By reason."""
    skipped_lines: int = 0
    problems: list[Problem] = field(default_factory=list)
    """What was not counted, and where: lines of both kinds, and the rest of damaged files; the
    first `MAX_PROBLEMS` of them."""
    problem_count: int = 0
    has_traces: bool = False
    """Whether any line looked like a decision trace or a response."""

    def skip(self, problem: Problem) -> None:
        """Take note of a line that is no JSON."""
        self.skipped_lines += 1
        self.note(problem)

    def refuse(self, reason: MalformedReason, problem: Problem) -> None:
        """Take note of a malformed trace."""
        self.malformed[reason.value] = self.malformed.get(reason.value, 0) + 1
        self.note(problem)

    def note(self, problem: Problem) -> None:
        """Take note of a problem."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "totals": self.totals,
            "cells": self.cells,
            "sources": self.sources,
            "malformed": self.malformed,
            "skipped_lines": self.skipped_lines,
        }


def replay(
    files: Sequence[Path],
    *,
    trace_format: Format = Format.trace,
    further_hook: PersonalizationHook | None = None,
    stamped: IO[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Count the traces of files.

    Args:
        files: NDJSON, one trace or response body a line; gzipped where the content is, whatever
            the name; ``-`` is standard input.
        trace_format: ``trace``; or ``response``, where a body without ``items`` is an error
            answer, and malformed.
        further_hook: counts every line, too: one that exports, say.
        stamped: where each line that is JSON is written to, with its counts if it was counted.
        progress: see `ndjson.Progress`.

    Raises:
        OSError: a file cannot be opened or read.
    """
    report = Report()
    hook = PersonalizationHook(
        meter_provider=NoOpMeterProvider(), surfaces=(), log=NONE, log_propagate=False, debug=True
    )
    hook.totals.reserve(None, ())  # a file's labels are all told apart
    streaks = _Streaks()
    for file in files:
        for number, line in ndjson.lines(file, report.note, progress):
            try:
                trace = json.loads(line)
            except (ValueError, RecursionError) as error:
                report.skip(Problem(str(file), number, f"no JSON: {_first_line(error)}"))
                continue
            if isinstance(trace, dict) and not trace.keys().isdisjoint(_TRACE_KEYS):
                report.has_traces = True
            body = trace if trace_format == Format.trace else _response_body(trace)
            prepared = hook.prepare(body)
            assert prepared is not None  # under debug it raises instead
            hook.commit(prepared)
            if further_hook is not None:
                further_hook.record(body)
            decision, _ = prepared
            if isinstance(decision, Decision):
                streaks.add(decision, body)
            else:
                report.refuse(decision, Problem(str(file), number, f"malformed: {decision.value}"))
            if stamped is not None:
                try:
                    text = json.dumps(trace, separators=(",", ":"), allow_nan=False)
                except ValueError:
                    problem = "not written to the stamped file: NaN or Infinity is no JSON"
                    report.note(Problem(str(file), number, problem))
                else:
                    stamped.write(text + "\n")
    _fill(report, hook.totals.snapshot(), streaks)
    return report


_TRACE_KEYS: Final = ("decision_id", "final_items", "items")


def _response_body(answer: object) -> object:
    """What of a response body is read; None, which is no trace, where it has no items."""
    if not isinstance(answer, dict) or "items" not in answer:
        return None
    return {key: answer[key] for key in ("items", "namespace", "surface") if key in answer}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


# --- streaks ----------------------------------------------------------------------------------


class _Streaks:
    """Runs of decisions in which a source took part and found nothing, in the order of time."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, str | None, str], array[int]] = {}
        self._instant = 0

    def add(self, decision: Decision, trace: object) -> None:
        timestamp = read_timestamp(trace)
        if timestamp is not None:  # else it is taken to be where it stands in the file
            self._instant = (timestamp - _EPOCH) // timedelta(microseconds=1)
        for source, candidates in decision.candidates.items():
            event = self._instant << 1 | (candidates > 0)
            for surface in (decision.surface, None):
                key = (decision.namespace, surface, source)
                self._events.setdefault(key, array("q")).append(event)

    def longest(self, namespace: str, surface: str | None, source: str) -> int:
        """The longest run of a source in a namespace's surface, or in all of the namespace."""
        longest = running = 0
        # By time alone: decisions of one instant stay in the order of the file.
        for event in sorted(self._events[namespace, surface, source], key=lambda e: e >> 1):
            running = 0 if event & 1 else running + 1
            longest = max(longest, running)
        return longest


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _fill(report: Report, snapshot: Snapshot, streaks: _Streaks) -> None:
    names = [counter.field for counter in DECISION_COUNTERS]
    totals = Sum(dict.fromkeys(COUNTS, 0))
    for (namespace, surface), values in sorted(snapshot[DECISION_COUNTERS].items()):
        counted = dict(zip(names, values, strict=True))
        counts = {name: counted[name] for name in COUNTS}
        report.cells.append({"namespace": namespace, "surface": surface, **counts})
        totals.update(counts)
    report.totals = {**totals, "malformed_traces": sum(report.malformed.values())}

    source_names = [counter.field for counter in SOURCE_COUNTERS]
    sources: dict[tuple[str, str | None, str], Sum[str]] = {}
    for (namespace, surface, source), values in snapshot[SOURCE_COUNTERS].items():
        for place in (surface, None):
            row = sources.setdefault(
                (namespace, place, source), Sum(dict.fromkeys(source_names, 0))
            )
            row.update(dict(zip(source_names, values, strict=True)))
    for (namespace, place, source), row in sorted(
        sources.items(), key=lambda item: (item[0][0], item[0][1] or "", item[0][2])
    ):
        report.sources.append(
            {
                "namespace": namespace,
                "surface": place,
                "source": source,
                "candidates": row["candidates"],
                "decisions": row["decisions"],
                "empty_decisions": row["empty_decisions"],
                "longest_empty_streak": streaks.longest(namespace, place, source),
            }
        )
