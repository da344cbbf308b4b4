"""The running totals of a process: exact under threads and fork, and cheap to add to.

Each thread adds to a ledger of its own, without a lock; `Totals.snapshot` adds the ledgers up. A
ledger outlives its thread and is handed to the next new one, so that there never are more of them
than threads at one time, and no count is lost with a thread. A forked child starts from nothing:
what was counted before the fork is the parent's to tell::

    >>> totals = Totals()
    >>> totals.add(read_decision({"final_items": [{"item_id": "a"}]}))
    >>> totals.snapshot()[DECISION_COUNTERS]
    {('unknown', 'default'): (1, 0, 1, 1, 1, 0, 0, 0)}
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from operator import add as add_numbers
from operator import attrgetter
from typing import Final

from otel_personalization.conventions import (
    DECISION_COUNTERS,
    DEFAULT_MAX_LABEL_SETS,
    DROPPED_LOG_RECORDS,
    FOLDED,
    FOLDED_DECISIONS,
    INTERNAL_ERRORS,
    MALFORMED_TRACES,
    MAX_SOURCES,
    OUTCOME_COUNTERS,
    SOURCE_COUNTERS,
    Counter,
    InternalErrorKind,
    MalformedReason,
)
from otel_personalization.forks import call_in_children
from otel_personalization.trace import Decision, fits_label

LabelSet = tuple[str, ...]
Snapshot = dict[tuple[Counter, ...], dict[LabelSet, tuple[int, ...]]]
"""By group of counters, by label values: the totals, in the order of the group."""


class Totals:
    """Running totals of every counter of the contract.

    Args:
        max_label_sets: pairs of (namespace, surface) that are told apart, the declared ones
            included; decisions of any further pair are counted under ``other``, ``other``. None:
            nothing folds, neither pairs nor sources; for counts that no SDK ever sees.
        declared: pairs that are never folded and are there, with 0, from the start.

    All methods may be called from any thread; those that count neither block nor raise.
    """

    def __init__(
        self,
        max_label_sets: int | None = DEFAULT_MAX_LABEL_SETS,
        declared: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._max_label_sets = max_label_sets
        self._declared = frozenset(declared)
        self._start_from_nothing()
        call_in_children(self._start_from_nothing)

    def _start_from_nothing(self) -> None:
        # For admitting labels. A new one, for a fork copies the state of the old; one that a signal
        # handler can take again.
        self._lock = threading.RLock()
        self._label_sets: set[tuple[str, str]] = set(self._declared)
        self._sources: set[str] = set()
        self._ledgers: list[_Ledger] = []
        self._free_ledgers: deque[_Ledger] = deque()
        self._of_thread = threading.local()

    def reserve(self, max_label_sets: int | None, declared: Iterable[tuple[str, str]]) -> None:
        """Take on the bound and the declared pairs of a further hook; the larger bound holds."""
        with self._lock:
            if max_label_sets is None or self._max_label_sets is None:
                self._max_label_sets = None
            else:
                self._max_label_sets = max(self._max_label_sets, max_label_sets)
            self._declared |= frozenset(declared)
            self._label_sets |= self._declared

    def add(self, decision: Decision) -> None:
        """Count a decision."""
        try:
            ledger: _Ledger = self._of_thread.ledger
        except AttributeError:
            ledger = self._open_ledger()
        (
            namespace,
            surface,
            served_items,
            personalized_items,
            reason_items,
            reason_requested_items,
            cold_start_items,
            candidates_by_source,
            _,
        ) = decision
        cell = ledger.cells.get((namespace, surface))
        if cell is None:
            cell = self._open_cell(ledger, (namespace, surface))
        # A whole before its parts, so that no snapshot ever shows a part that exceeds it.
        cell.decisions += 1
        if served_items:
            cell.served_items += served_items
            cell.served_items_squared += served_items * served_items
            cell.reason_requested_items += reason_requested_items
            cell.personalized_items += personalized_items
            cell.reason_items += reason_items
            cell.cold_start_items += cold_start_items
        else:
            cell.empty_decisions += 1
        sources = cell.sources
        folded = None
        for name, candidates in candidates_by_source.items():
            source = sources.get(name)
            if source is None:
                source = self._open_source(cell, name)
                if source is None:
                    folded = (folded or 0) + candidates
                    continue
            source.decisions += 1
            if candidates:
                source.candidates += candidates
            else:
                source.empty_decisions += 1
        if folded is not None:
            source = sources.setdefault(None, _SourceCell())
            source.decisions += 1
            source.empty_decisions += folded == 0
            source.candidates += folded

    def add_outcomes(
        self, namespace: str, surface: str, *, impressions: int = 0, clicks: int = 0
    ) -> None:
        """Count what the host saw of its users. The names are normalised ones."""
        ledger = self._ledger()
        pair = (namespace, surface)
        if not self._admits(pair):
            pair = (FOLDED, FOLDED)
        outcomes = ledger.outcomes.setdefault(pair, _OutcomeCell())
        outcomes.impressions += impressions
        outcomes.clicks += clicks

    def add_malformed_trace(self, reason: MalformedReason) -> None:
        """Count a trace that could not be counted."""
        self._ledger().add(MALFORMED_TRACES, (reason.value,))

    def add_internal_error(self, kind: InternalErrorKind) -> None:
        """Count a fault of the library that the host never saw."""
        self._ledger().add(INTERNAL_ERRORS, (kind.value,))

    def add_dropped_log_records(self, lines: int) -> None:
        """Count log lines that were lost."""
        self._ledger().add(DROPPED_LOG_RECORDS, (), lines)

    def snapshot(self) -> Snapshot:
        """The totals of now.

        Parts never exceed their whole. Series that are known beforehand are there with 0: those of
        declared pairs, of every reason and kind, and those without a label.
        """
        snapshot: Snapshot = {
            DECISION_COUNTERS: dict.fromkeys(sorted(self._declared), _NOTHING_DECIDED),
            SOURCE_COUNTERS: {},
            OUTCOME_COUNTERS: {},
            (MALFORMED_TRACES,): {(reason.value,): (0,) for reason in MalformedReason},
            (INTERNAL_ERRORS,): {(kind.value,): (0,) for kind in InternalErrorKind},
            (DROPPED_LOG_RECORDS,): {(): (0,)},
            (FOLDED_DECISIONS,): {(): (0,)},
        }

        def add(group: tuple[Counter, ...], labels: LabelSet, values: tuple[int, ...]) -> None:
            rows = snapshot[group]
            sofar = rows.get(labels)
            rows[labels] = values if sofar is None else tuple(map(add_numbers, sofar, values))

        # list() copies a dict or list in one step, whatever its owner adds meanwhile.
        for ledger in list(self._ledgers):
            for pair, cell in list(ledger.cells.items()):
                for name, source in list(cell.sources.items()):
                    add(SOURCE_COUNTERS, (*pair, name or FOLDED), _read_source(source))
                add(DECISION_COUNTERS, pair, _read_cell(cell))
            for pair, outcomes in list(ledger.outcomes.items()):
                add(OUTCOME_COUNTERS, pair, _read_outcomes(outcomes))
            for (counter, labels), event in list(ledger.events.items()):
                add((counter,), labels, (event.count,))
        return snapshot

    def _ledger(self) -> _Ledger:
        try:
            ledger: _Ledger = self._of_thread.ledger
        except AttributeError:
            ledger = self._open_ledger()
        return ledger

    def _open_ledger(self) -> _Ledger:
        try:
            ledger = self._free_ledgers.popleft()
        except IndexError:
            ledger = _Ledger()
            self._ledgers.append(ledger)
        self._of_thread.ledger = ledger
        self._of_thread.lease = _Lease(ledger, self._free_ledgers)
        return ledger

    def _open_cell(self, ledger: _Ledger, pair: tuple[str, str]) -> _Cell:
        if not self._admits(pair):
            ledger.add(FOLDED_DECISIONS, ())
            pair = (FOLDED, FOLDED)
        return ledger.cells.setdefault(pair, _Cell())

    def _admits(self, pair: tuple[str, str]) -> bool:
        bound = self._max_label_sets
        if bound is None or pair in self._label_sets or pair == (FOLDED, FOLDED):
            return True
        if len(self._label_sets) >= bound or not all(map(fits_label, pair)):
            return False
        with self._lock:
            if len(self._label_sets) < bound:
                self._label_sets.add(pair)
        return pair in self._label_sets

    def _open_source(self, cell: _Cell, name: str) -> _SourceCell | None:
        """The cell of a source; None where the source is one of the folded ones."""
        if name not in self._sources and self._max_label_sets is not None:
            if len(self._sources) >= MAX_SOURCES or not fits_label(name) or name == FOLDED:
                return None
            with self._lock:
                if len(self._sources) < MAX_SOURCES:
                    self._sources.add(name)
            if name not in self._sources:
                return None
        return cell.sources.setdefault(name, _SourceCell())


class _Ledger:
    """What one thread counted. Only that thread writes to it."""

    __slots__ = ("cells", "events", "outcomes")

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], _Cell] = {}
        self.outcomes: dict[tuple[str, str], _OutcomeCell] = {}
        self.events: dict[tuple[Counter, LabelSet], _EventCell] = {}

    def add(self, counter: Counter, labels: LabelSet, times: int = 1) -> None:
        # A cell, for `dict[key] += n` loses what a signal handler adds meanwhile.
        self.events.setdefault((counter, labels), _EventCell()).count += times


class _EventCell:
    """Running total of one kind of event."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class _Lease:
    """A thread's hold on its ledger: it dies with the thread, and then the ledger is free."""

    __slots__ = ("_free_ledgers", "_ledger")

    def __init__(self, ledger: _Ledger, free_ledgers: deque[_Ledger]) -> None:
        self._ledger = ledger
        self._free_ledgers = free_ledgers

    def __del__(self) -> None:
        self._free_ledgers.append(self._ledger)


class _Cell:
    """Running totals of one (namespace, surface)."""

    __slots__ = (*(counter.field for counter in DECISION_COUNTERS), "sources")

    decisions: int
    empty_decisions: int
    served_items: int
    served_items_squared: int
    reason_requested_items: int
    personalized_items: int
    reason_items: int
    cold_start_items: int

    def __init__(self) -> None:
        for counter in DECISION_COUNTERS:
            setattr(self, counter.field, 0)
        self.sources: dict[str | None, _SourceCell] = {}
        """By name; None holds the folded ones."""


class _SourceCell:
    """Running totals of one (namespace, surface, source)."""

    __slots__ = ("candidates", "decisions", "empty_decisions")

    def __init__(self) -> None:
        self.decisions = self.empty_decisions = self.candidates = 0


class _OutcomeCell:
    """Running totals of what the host reported of one (namespace, surface)."""

    __slots__ = ("clicks", "impressions")

    def __init__(self) -> None:
        self.impressions = self.clicks = 0


# Readers of a cell: one call into C each, which no other thread comes between.
_read_cell: Final = attrgetter(*(counter.field for counter in DECISION_COUNTERS))
_read_source: Final = attrgetter(*(counter.field for counter in SOURCE_COUNTERS))
_read_outcomes: Final = attrgetter(*(counter.field for counter in OUTCOME_COUNTERS))
_NOTHING_DECIDED: Final = (0,) * len(DECISION_COUNTERS)
