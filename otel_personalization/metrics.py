"""Observable counters over the totals: one set of them for each OpenTelemetry MeterProvider.

`instruments_of` gives the set of a provider, with the `Totals` that it shows. What is counted for a
provider stays with it, so that instrumenting again, or for another provider, never doubles or
lowers a number.

**Exact series.** A backend learns how much a series grew by comparing points, so a series that is
born above 0 hides its first growth. The first collection of a series therefore reports 0, the next
its total; `Instruments.flush`, and an exit handler, see to it that there is a next one.

**Forks.** A child must neither repeat nor take away what its parent counted, whatever the kind of
its readers; a reader of deltas would subtract the parent's last value from the child's first. A
child therefore gets instruments of its own, under a scope of its own (attribute
``otel_personalization.forked_process_id``), and the inherited ones say nothing there.

**Locks.** The SDK holds locks while it collects and exports, and a fork can copy them locked. No
thread of the host waits for them on our account: a thread of ours, one in each process that has an
SDK, does whatever needs them.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Protocol, runtime_checkable

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from otel_personalization.conventions import (
    COUNTER_GROUPS,
    FORKED_PROCESS,
    SCOPE_NAME,
    Counter,
    InternalErrorKind,
)
from otel_personalization.decision_log import finish_all
from otel_personalization.forks import call_as_worker_ends, call_in_children
from otel_personalization.totals import LabelSet, Snapshot, Totals
from otel_personalization.version import __version__
from otel_personalization.warner import Warner

_logger = logging.getLogger(__name__)

_EXIT_FLUSH_SECONDS = 1.2
"""Time for the flush before the provider's own last one. With it, and with the time for the log
lines before, it must fit in 5 s at exit, of which the server needs a part."""
_WORKER_FLUSH_SECONDS = 4.0
"""Time for the flush at the end of a worker of multiprocessing. It may take longer, since no flush
of the provider's own follows there."""
_CREATE_SECONDS = 5.0
"""Creating the instruments takes milliseconds; after this long a lock will never open."""


@runtime_checkable
class ExactProvider(Protocol):
    """A provider that wants to be collected soon after start and after new series appeared.

    ``pipeline.configure`` makes one. Nobody else's provider is flushed before it has to be.
    """

    follow_up_seconds: float

    def collect_and_export(self, timeout_millis: float) -> None:
        """Collect once, and export that."""


def is_of_an_sdk(provider: MeterProvider) -> bool:
    """Whether a provider can export, or is the API's stand-in for one that is set later, or never.

    The API has no method for it; every SDK's provider has this one.
    """
    return hasattr(provider, "force_flush")


def instruments_of(meter_provider: MeterProvider | None = None) -> Instruments:
    """The instruments of a provider, made on the first call.

    Args:
        meter_provider: None means OpenTelemetry's global one, be it set already or later.
    """
    provider = meter_provider if meter_provider is not None else get_meter_provider()
    with _registry_lock:
        instruments = _registry.get(provider)
        if instruments is None:
            instruments = Instruments(provider)
    instruments.create()
    return instruments


def is_worth_a_wait(provider: MeterProvider) -> bool:
    """Whether a process that ends has something to tell on it, and has not waited in vain yet."""
    instruments = _registry.get(provider)
    if instruments is None or instruments.gave_up:
        return False
    snapshot = instruments.totals.snapshot()
    return any(any(values) for rows in snapshot.values() for values in rows.values())


def note_export(provider: MeterProvider, *, has_arrived: bool) -> None:
    """Tell the instruments of a provider, if there are any, what became of the last collection."""
    instruments = _registry.get(provider)
    if instruments is not None:
        instruments.note_export(has_arrived=has_arrived)


def export_last(provider: MeterProvider, export: Callable[[], bool]) -> None:
    """Have a provider export for the last time. See `Instruments.export_last`."""
    instruments = _registry.get(provider)
    if instruments is None:
        export()
    else:
        instruments.export_last(export)


def finish_process(timeout: float) -> None:
    """Have all lines written and all counters exported, where a process ends without exit handlers.

    Args:
        timeout: seconds to wait at most; lines get a third of it, and what is left of them then is
            counted as dropped.
    """
    until = monotonic() + timeout
    finish_all(timeout / 3)
    for instruments in list(_registry.values()):
        instruments.finish(max(0.0, until - monotonic()))


_registry: weakref.WeakKeyDictionary[MeterProvider, Instruments] = weakref.WeakKeyDictionary()
_registry_lock = threading.Lock()


def _renew_registry_lock() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_registry_lock)


class Instruments:
    """The observable counters of one provider, and the totals that they show.

    Use `instruments_of`: a second set on the same provider would be ignored by the SDK.
    """

    def __init__(self, provider: MeterProvider) -> None:
        self.totals = Totals(0)  # each hook reserves what it needs
        self._warner = Warner(_logger)
        self._generation = 0
        self._created = False
        self._flusher: _Flusher | None = None
        self._exiting = False
        self._arrived: Snapshot | None = None
        """What had arrived when the provider ended, nothing if that is not known; None before."""
        # Until a provider is set, the global one is a proxy of the API.
        self._is_proxy = provider is get_meter_provider() and not is_of_an_sdk(provider)
        self._belongs_to(provider)
        self._start_from_nothing()
        call_in_children(self._after_fork_in_child)

    def _belongs_to(self, provider: MeterProvider) -> None:
        self._provider = weakref.ref(provider)
        _registry[provider] = self

    def _start_from_nothing(self) -> None:
        self.gave_up = False
        """Whether the last flush of a process that ends was in vain: none waits for one again."""
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._observed: set[Counter] = set()
        self._led: set[tuple[Counter, LabelSet]] = set()
        """Series whose 0 was reported, by the first counter of their group and their labels."""
        self._led_lately: set[tuple[Counter, LabelSet]] = set()
        """Those of which nobody has said yet that it arrived."""

    # --- creation -----------------------------------------------------------------------------

    def create(self) -> None:
        """Create the counters on the provider. Those of a proxy come to life when it does."""
        provider = self._provider()
        with self._lock:
            if self._created or provider is None:
                return
            self._created = True
        generation = self._generation
        if generation:
            meter = provider.get_meter(
                SCOPE_NAME, __version__, attributes={FORKED_PROCESS: os.getpid()}
            )
        else:
            meter = provider.get_meter(SCOPE_NAME, __version__)
        for counter in _COUNTERS:
            callback: Any = self._callback(counter, generation)
            if counter is _COUNTERS[0]:
                callback = self._announced(callback)
            meter.create_observable_counter(
                counter.name, [callback], unit=counter.unit, description=counter.description
            )

    def _announced(
        self, callback: Callable[[CallbackOptions], Iterable[Observation]]
    ) -> Generator[Iterable[Observation], CallbackOptions, None]:
        """The callback as a generator, which an SDK starts when it creates the real instrument.

        That is the moment to know of: with a provider that is set later than the hook was made,
        the API first gives instruments that do nothing.
        """
        self._come_alive()
        observations: Iterable[Observation] = ()
        while True:
            options = yield observations
            observations = callback(options)

    def _come_alive(self) -> None:
        if self._flusher is None:
            provider = self._provider()
            if provider is None or self._is_proxy:
                provider = get_meter_provider()  # what was a proxy has become this
                self._belongs_to(provider)
            self._flusher = _Flusher(self._warner)
            # Now, and not earlier: exit handlers run last in, first out, and ours must run before
            # that of the provider, which has been made by now.
            atexit.register(self._at_exit)
            weakref.finalize(provider, self._retire).atexit = False
            call_as_worker_ends(self._flush_as_worker_ends, priority=100)
        self._follow_up()

    def _flush_as_worker_ends(self) -> None:
        self.flush(_WORKER_FLUSH_SECONDS)

    def _retire(self) -> None:
        """The provider is gone: nobody is left to call."""
        atexit.unregister(self._at_exit)
        if self._flusher is not None:
            self._flusher.stop()

    # --- collection ---------------------------------------------------------------------------

    def _callback(
        self, counter: Counter, generation: int
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        group = _GROUP_OF[counter]
        position = group.index(counter)

        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            if generation != self._generation:
                return ()  # inherited through a fork: what it showed is the parent's
            try:
                rows = self._snapshot_for(counter)[group]
                return [
                    Observation(
                        values[position], dict(zip(counter.attributes, labels, strict=True))
                    )
                    for labels, values in rows.items()
                ]
            except Exception:
                self.totals.add_internal_error(InternalErrorKind.COLLECT)
                self._warner.warn("collect", "The totals could not be collected.", exc_info=True)
                return ()

        return observe

    def _snapshot_for(self, counter: Counter) -> Snapshot:
        """The snapshot of this collection. All counters of one collection see the same.

        A collection asks each counter once, so a counter that asks again begins the next.
        """
        with self._lock:
            snapshot = self._snapshot
            if snapshot is None or counter in self._observed:
                snapshot = self._snapshot = self._take_snapshot()
                self._observed.clear()
            self._observed.add(counter)
            return snapshot

    def _take_snapshot(self) -> Snapshot:
        snapshot = self.totals.snapshot()
        if self._exiting:
            return snapshot  # no further collection will come: better late growth than none
        hidden = False
        for group, rows in snapshot.items():
            for labels, values in rows.items():
                series = (group[0], labels)
                if series not in self._led:
                    self._led.add(series)
                    self._led_lately.add(series)
                    if any(values):
                        rows[labels] = (0,) * len(values)
                        hidden = True
        if hidden:
            self._follow_up()
        return snapshot

    def note_export(self, *, has_arrived: bool) -> None:
        """Be told what became of the last collection: a 0 that did not arrive is reported again."""
        with self._lock:
            if not has_arrived:
                self._led -= self._led_lately
            self._led_lately.clear()

    def export_last(self, export: Callable[[], bool]) -> None:
        """Have all exported that was counted until now, by a provider that then ends.

        Args:
            export: does it, and says whether it arrived.
        """
        counted = self.totals.snapshot()
        self._arrived = counted if export() else {}

    def hides_growth(self) -> bool:
        """Whether the next collection would report 0 for something that was counted."""
        with self._lock:
            return any(
                any(values) and (group[0], labels) not in self._led
                for group, rows in self.totals.snapshot().items()
                for labels, values in rows.items()
            )

    # --- flushing -----------------------------------------------------------------------------

    def flush(self, timeout: float = 5.0) -> bool:
        """Have the provider export everything that was counted until now.

        Call it before a ``provider.shutdown()`` of your own, and wherever a process ends without
        running exit handlers.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether it was done in time; False, too, where there is no SDK to do it. Only a provider
            of `pipeline.configure` tells whether the backend took it.
        """
        if self._arrived is not None:
            return self.totals.snapshot() == self._arrived

        def collect_and_export() -> None:
            if self.hides_growth():
                self._collect_and_export(timeout)
            self._collect_and_export(timeout)

        return self._call_flusher(collect_and_export, timeout)

    def finish(self, timeout: float) -> bool:
        """As `flush`, at the end of a process. Exit handlers that run then do not wait again."""
        is_flushed = self.flush(timeout)
        self.gave_up = self._flusher is not None and not is_flushed
        return is_flushed

    def _at_exit(self) -> None:
        finish_all()
        if self.hides_growth() and not self.gave_up:
            seconds = _EXIT_FLUSH_SECONDS
            self._call_flusher(lambda: self._collect_and_export(seconds), seconds)
        self._exiting = True

    def _call_flusher(self, job: Callable[[], None], timeout: float) -> bool:
        flusher = self._flusher
        if flusher is None:
            return False
        try:
            flusher.call(job, timeout)
        except Exception as error:
            self.totals.add_internal_error(InternalErrorKind.FLUSH)
            self._warner.warn("flush", "The counters could not be flushed: %r.", error)
            self._warner.wait()
            return False
        return True

    def _follow_up(self) -> None:
        provider = self._provider()
        if self._flusher is not None and isinstance(provider, ExactProvider):
            seconds = provider.follow_up_seconds
            self._flusher.call_later(lambda: self._collect_and_export(seconds), seconds)

    def _collect_and_export(self, seconds: float) -> None:
        provider: Any = self._provider()
        if isinstance(provider, ExactProvider):
            provider.collect_and_export(seconds * 1000)
        elif provider is not None:
            provider.force_flush(seconds * 1000)

    # --- fork ---------------------------------------------------------------------------------

    def _after_fork_in_child(self) -> None:
        self._start_from_nothing()
        if self._arrived is not None:
            self._arrived = {}
        if self._flusher is None:
            return  # no SDK yet: the proxies' instruments are as good here as there
        self._generation += 1
        self._created = False
        self._flusher = _Flusher(self._warner)
        self._flusher.call_later(self._create_in_child, 0)

    def _create_in_child(self) -> None:
        def create() -> None:
            try:
                self.create()
            except Exception:
                self.totals.add_internal_error(InternalErrorKind.COLLECT)
                _logger.exception("This forked process has no counters: they were not created.")

        creating = threading.Thread(target=create, name="otel-personalization-create", daemon=True)
        creating.start()
        creating.join(_CREATE_SECONDS)
        if creating.is_alive():
            self._flusher = None  # it would wait for the same lock
            self.totals.add_internal_error(InternalErrorKind.COLLECT)
            _logger.error(
                "This process was forked while its MeterProvider was collecting, and has inherited "
                "a lock that nobody will open: none of its counters will be exported. Make the "
                "provider in each worker, after the fork (gunicorn: post_fork), or use "
                "otel_personalization.pipeline.configure, which does."
            )


_GROUP_OF = {counter: group for group in COUNTER_GROUPS for counter in group}
_COUNTERS = tuple(_GROUP_OF)


class _Flusher:
    """A daemon thread that makes the calls for which a thread may have to wait.

    It is there before it is needed: a thread cannot be started any more when Python exits.
    """

    def __init__(self, warner: Warner) -> None:
        self._warner = warner
        self._jobs: SimpleQueue[tuple[float, Callable[[], None] | None]] = SimpleQueue()
        threading.Thread(target=self._run, name="otel-personalization", daemon=True).start()

    def call(self, job: Callable[[], None], timeout: float) -> None:
        """Have a job done and wait for it.

        Raises:
            TimeoutError: it was not done in time; it may be done yet.
            Exception: what the job raised.
        """
        done = threading.Event()
        errors: list[Exception] = []

        def report() -> None:
            try:
                job()
            except Exception as error:
                errors.append(error)
            finally:
                done.set()

        self._jobs.put((0, report))
        if not done.wait(timeout):
            raise TimeoutError(f"not done within {timeout:g} s; is the OTLP endpoint reachable?")
        if errors:
            raise errors[0]

    def call_later(self, job: Callable[[], None], seconds: float) -> None:
        """Have a job done after so many seconds, unless one is due already."""
        self._jobs.put((seconds, job))

    def stop(self) -> None:
        """Do what is asked for already, then end."""
        self._jobs.put((0, None))

    def _run(self) -> None:
        due: tuple[float, Callable[[], None]] | None = None
        while True:
            try:
                wait = None if due is None else max(0.0, due[0] - monotonic())
                seconds, job = self._jobs.get(timeout=wait)
                if job is None:
                    return
                if seconds:
                    due = due or (monotonic() + seconds, job)
                    continue
            except Empty:
                assert due is not None
                job, due = due[1], None
            try:
                job()
            except Exception as error:
                self._warner.warn("flush", "The counters could not be flushed: %r.", error)
