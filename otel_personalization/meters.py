"""Instruments that survive a fork: in a child, those that a host made before are the child's own.

A provider that is inherited through a fork goes on with its parent's identity and counts, so that
parent and children overwrite each other's series. The meters of `pipeline.Pipeline` make their
instruments anew, from nothing, on the provider of whichever process they are used in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from opentelemetry import metrics

_Made = TypeVar("_Made")


class PerProcess(Generic[_Made]):
    """Something that each process makes for itself when it first needs it.

    Args:
        make: makes it; making it twice in one process gives the same.
    """

    def __init__(self, make: Callable[[], _Made]) -> None:
        self._make = make
        self._process = os.getpid()
        self._made = make()

    def __call__(self) -> _Made:
        """That of this process."""
        process = os.getpid()
        if process != self._process:
            self._made = self._make()
            self._process = process
        return self._made


class PerProcessMeter(metrics.Meter):
    """A meter whose instruments are those of the process that uses them.

    Args:
        name: of the instrumentation scope.
        make: makes the SDK's meter.
        keep: takes what has to be called in each child, for nobody will use it there: observable
            instruments, whose callbacks the SDK calls.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], metrics.Meter],
        keep: Callable[[PerProcess[Any]], None],
    ) -> None:
        super().__init__(name)
        self._meter = PerProcess(make)
        self._keep = keep

    def create_counter(self, *args: Any, **kwargs: Any) -> metrics.Counter:
        """See `opentelemetry.metrics.Meter`, as for all below."""
        return _Counter(lambda: self._meter().create_counter(*args, **kwargs))

    def create_up_down_counter(self, *args: Any, **kwargs: Any) -> metrics.UpDownCounter:
        return _UpDownCounter(lambda: self._meter().create_up_down_counter(*args, **kwargs))

    def create_histogram(self, *args: Any, **kwargs: Any) -> metrics.Histogram:
        return _Histogram(lambda: self._meter().create_histogram(*args, **kwargs))

    def create_gauge(self, *args: Any, **kwargs: Any) -> Any:
        return _Gauge(lambda: self._meter().create_gauge(*args, **kwargs))

    def create_observable_counter(self, *args: Any, **kwargs: Any) -> metrics.ObservableCounter:
        return self._observed(lambda: self._meter().create_observable_counter(*args, **kwargs))

    def create_observable_up_down_counter(
        self, *args: Any, **kwargs: Any
    ) -> metrics.ObservableUpDownCounter:
        return self._observed(
            lambda: self._meter().create_observable_up_down_counter(*args, **kwargs)
        )

    def create_observable_gauge(self, *args: Any, **kwargs: Any) -> metrics.ObservableGauge:
        return self._observed(lambda: self._meter().create_observable_gauge(*args, **kwargs))

    def _observed(self, make: Callable[[], _Made]) -> _Made:
        instrument = PerProcess(make)
        self._keep(instrument)
        return instrument()


class _Instrument:
    """What is recorded goes to the instrument of this process."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._instrument = PerProcess(make)


class _Counter(_Instrument, metrics.Counter):
    def add(self, *args: Any, **kwargs: Any) -> None:
        self._instrument().add(*args, **kwargs)


class _UpDownCounter(_Instrument, metrics.UpDownCounter):
    def add(self, *args: Any, **kwargs: Any) -> None:
        self._instrument().add(*args, **kwargs)


class _Histogram(_Instrument, metrics.Histogram):
    def record(self, *args: Any, **kwargs: Any) -> None:
        self._instrument().record(*args, **kwargs)


class _Gauge(_Instrument, metrics._Gauge):  # noqa: SLF001  # its only name in older versions
    def set(self, *args: Any, **kwargs: Any) -> None:
        self._instrument().set(*args, **kwargs)
