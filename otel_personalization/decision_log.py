"""JSON lines, one a decision, for Loki and for whoever reads logs.

The request thread copies plain values into a bounded queue. One thread a process makes the lines,
with python-json-logger, and writes them. What the queue has no room for, and what cannot be
written, is dropped and counted in `otel_personalization.dropped_log_records`::

    {"timestamp": "2026-11-24T10:00:00.123456Z", "event": "personalization.decision",
     "namespace": "shop_eu", "surface": "home", "served_items_count": 20, ...}

Without sampling the sums over the lines, and over those dropped, are the counters.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

from opentelemetry import trace as tracing

from otel_personalization.conventions import (
    DECISION_LOGGER,
    MAX_QUEUED_LOG_RECORDS,
    InternalErrorKind,
)
from otel_personalization.forks import call_as_worker_ends, call_in_children
from otel_personalization.log_lines import Entry, LineFormatter, bounded, fields_of
from otel_personalization.outputs import MAX_WRITE_BYTES, Output, output_for
from otel_personalization.settings import Settings
from otel_personalization.totals import Totals
from otel_personalization.trace import (
    Decision,
    read_identity,
    read_source_timings,
)
from otel_personalization.warner import Warner

_logger = logging.getLogger(__name__)
_line_logger = logging.getLogger(DECISION_LOGGER)

_FINISH_SECONDS: Final = 0.5
_GATHER_SECONDS: Final = 0.02
"""How long the writer lets decisions come together: it then takes Python's lock once for all."""


class DecisionLog:
    """The log lines of one hook.

    Args:
        settings: what is logged, and where to.
        totals: count the lines that are lost.

    Raises:
        OSError: the file cannot be opened.
        ValueError: its path has a NUL, which no path can have.
    """

    def __init__(self, settings: Settings, totals: Totals) -> None:
        self._settings = settings
        self._totals = totals
        self._warner = Warner(_logger)
        self._output = output_for(settings.log)
        # Of 2^64 hashes, those that are logged.
        self._threshold = math.ceil(settings.log_sample * 2**64)
        self._start()
        call_in_children(self._start_in_child)

    def entry(self, decision: Decision, trace: object) -> Entry | None:
        """What is to be logged of a decision; None where sampling leaves it out."""
        identity = read_identity(trace)
        if self._threshold < 2**64 and not self._is_sampled(identity.decision_id):
            return None
        return Entry(
            time.time_ns(),
            bounded(decision),
            identity,
            tracing.get_current_span().get_span_context(),
            read_source_timings(trace) if self._settings.log_sources else (),
        )

    def put(self, entry: Entry) -> None:
        """Hand an entry over to the writer, or drop it where the queue is full."""
        if self._writer.queue.qsize() < MAX_QUEUED_LOG_RECORDS:
            self._writer.queue.put(entry)
            return
        self._totals.add_dropped_log_records(entry.lines)
        self._warner.warn(
            "full",
            "Log lines are dropped: %s does not take them as fast as decisions are made.",
            self._settings.log,
        )

    def flush(self, timeout: float) -> bool:
        """Have everything written that was handed over until now.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether it was written, or counted as lost, in time.
        """
        return self._writer.flush(timeout)

    def finish(self, timeout: float) -> bool:
        """As `flush`, at the end of a process: what is not written in time is counted as lost.

        Returns:
            Whether nothing was.
        """
        return self._writer.finish(timeout)

    def _start(self) -> None:
        self._writer = _Writer(self._settings, self._totals, self._warner, self._output)
        self._stop = weakref.finalize(self, self._writer.stop)
        self._stop.atexit = False

    def _start_in_child(self) -> None:
        # Python does not clean up after threads that did not come along: the parent's writer stays,
        # and what waits in its queue would, too.
        self._stop.detach()
        with suppress(Empty):
            while True:
                self._writer.queue.get_nowait()
        self._start()

    def _is_sampled(self, decision_id: str | None) -> bool:
        if decision_id is None:
            return random.random() < self._settings.log_sample
        text = decision_id.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._threshold


_writers: Final[set[_Writer]] = set()
"""Those of this process that have not ended; a log may be gone before its lines are written."""


def finish_all(timeout: float = _FINISH_SECONDS) -> None:
    """Finish every log of the process, at its end.

    It comes before the last collection of the counters, so that they tell what was lost.
    """
    until = time.monotonic() + timeout
    for writer in list(_writers):
        writer.finish(max(0.0, until - time.monotonic()))


atexit.register(finish_all)
call_as_worker_ends(finish_all, priority=200)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_writers.clear)


class _Writer:
    """The thread that makes lines of entries, and writes them."""

    def __init__(
        self, settings: Settings, totals: Totals, warner: Warner, output: Output | None
    ) -> None:
        self.queue: SimpleQueue[Entry | threading.Event | None] = SimpleQueue()
        self._settings = settings
        self._totals = totals
        self._warner = warner
        self._output = output
        self._formatter = LineFormatter()
        self._lock = threading.Lock()
        self._in_hand = 0
        """Lines that the thread has taken from the queue and neither written nor lost."""
        self._batch = 0
        """Changes when what is in hand is given up: the thread then drops the rest of it."""
        self._is_stalled = False
        """Whether it was waited for in vain, and has not gone on since."""
        threading.Thread(target=self._run, name="otel-personalization-log", daemon=True).start()
        _writers.add(self)

    def stop(self) -> None:
        """Write what was handed over, then end."""
        self.queue.put(None)

    def flush(self, timeout: float) -> bool:
        """See `DecisionLog.flush`."""
        done = threading.Event()
        self.queue.put(done)
        return done.wait(timeout)

    def finish(self, timeout: float) -> bool:
        """See `DecisionLog.finish`."""
        lost = 0 if self.flush(0.0 if self._is_stalled else timeout) else self._give_up()
        if lost:
            self._totals.add_dropped_log_records(lost)
            self._warner.warn(
                "finish", "Log lines were lost: %s did not take them in time.", self._settings.log
            )
            self._warner.wait()
        return not lost

    def _give_up(self) -> int:
        """Take back what was not written yet; says how many lines that is.

        A write that is being made may succeed all the same: up to 4 KiB of lines are then both.
        """
        self._is_stalled = True
        lines = self._abandon()
        is_to_stop = False
        with suppress(Empty):
            while True:
                item = self.queue.get_nowait()
                if isinstance(item, Entry):
                    lines += item.lines
                elif item is None:
                    is_to_stop = True
                else:
                    item.set()  # of another flush
        if is_to_stop:
            self.stop()
        return lines

    def _abandon(self) -> int:
        with self._lock:
            lines, self._in_hand = self._in_hand, 0
            self._batch += 1
        return lines

    # --- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                item = self._write_next()
            except BaseException as error:  # whatever it is, there is no other writer
                self._totals.add_internal_error(InternalErrorKind.LOG)
                self._lose(self._abandon(), error)
                continue
            if isinstance(item, threading.Event):
                item.set()
            elif item is None:
                _writers.discard(self)
                if self._output is not None:
                    self._output.close()
                return

    def _write_next(self) -> Entry | threading.Event | None:
        """Write the entries that wait, up to the first thing that is none; returns that."""
        item = self.queue.get()
        batch = self._take(item)
        if isinstance(item, Entry):
            time.sleep(_GATHER_SECONDS)
        lines: list[bytes] = []
        size = 0
        with suppress(Empty):
            while isinstance(item, Entry):
                for line in self._lines(item, batch):
                    if size + len(line) > MAX_WRITE_BYTES:
                        self._write(lines, batch)
                        lines, size = [], 0
                    lines.append(line)
                    size += len(line)
                item = self.queue.get_nowait()
                if (current := self._take(item)) != batch:  # what came before was given up
                    batch, lines, size = current, [], 0
        self._write(lines, batch)
        return item

    def _take(self, item: Entry | threading.Event | None) -> int:
        """Note that the thread has taken this from the queue.

        Returns:
            The batch that it belongs to; see `_batch`.
        """
        with self._lock:
            if isinstance(item, Entry):
                self._in_hand += item.lines
            return self._batch

    def _is_done_with(self, lines: int, batch: int) -> bool:
        """Note that the thread has done with lines: they are written, or lost.

        Returns:
            False where the batch was given up meanwhile: they are counted as dropped already.
        """
        self._is_stalled = False
        with self._lock:
            if batch != self._batch:
                return False
            self._in_hand -= lines
            return True

    def _lines(self, entry: Entry, batch: int) -> Iterator[bytes]:
        settings = self._settings
        try:
            each = list(fields_of(entry, settings.log_sample, settings.log_user_hash))
        except Exception as error:  # of a span that is none of OpenTelemetry's, say
            self._fail(entry.lines, batch, error)
            return
        for fields in each:
            line = self._formatter.line(fields)
            is_propagated = self._propagate(fields, entry.time_ns)
            if self._output is not None:
                yield line.encode() + b"\n"
            elif self._is_done_with(1, batch) and not is_propagated:
                self._lose(1, None)

    def _propagate(self, fields: dict[str, Any], time_ns: int) -> bool:
        if not self._settings.log_propagate:
            return False
        try:
            record = _line_logger.makeRecord(DECISION_LOGGER, logging.INFO, "", 0, fields, (), None)
            record.created = time_ns / 1e9
            # A host that configures logging switches off the loggers that it does not name.
            _line_logger.disabled = False
            _line_logger.handle(record)
        except BaseException as error:  # it may even mean to exit
            self._totals.add_internal_error(InternalErrorKind.LOG)
            self._warner.warn("propagate", "A handler of log lines raised: %r.", error)
            return False
        return True

    def _fail(self, lines: int, batch: int, error: Exception) -> None:
        self._totals.add_internal_error(InternalErrorKind.LOG)
        if self._is_done_with(lines, batch):
            self._lose(lines, error)

    def _write(self, lines: list[bytes], batch: int) -> None:
        if not lines or self._output is None or batch != self._batch:
            return
        lost, error = self._output.write(lines)
        if self._is_done_with(len(lines), batch):
            self._lose(lost, error)

    def _lose(self, lines: int, error: BaseException | None) -> None:
        if lines:
            self._totals.add_dropped_log_records(lines)
        if error is not None:
            self._warner.warn("write", "Log lines were lost: %s: %r.", self._settings.log, error)
