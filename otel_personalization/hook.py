"""The finalisation hook: reads a trace, stamps, counts and logs it. It raises nothing but under
``debug``.

For hosts that call it themselves, rather than have a function wrapped by the instrumentor::

    hook = PersonalizationHook()


    def finalize(self, decision):
        trace = self.build(decision)
        hook.record(trace)
        return trace

or, which leaves the function as it is::

    @hook.finalizer()
    def finalize(self, decision): ...
"""

from __future__ import annotations

import builtins
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from functools import lru_cache
from time import monotonic
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from opentelemetry.metrics import MeterProvider

from otel_personalization.conventions import (
    MAX_CANDIDATES,
    STAMPED_PERSONALIZED,
    STAMPED_REASON,
    InternalErrorKind,
    MalformedReason,
)
from otel_personalization.decision_log import DecisionLog
from otel_personalization.log_lines import Entry
from otel_personalization.metrics import instruments_of
from otel_personalization.settings import AFTER, NONE, Locate, SettingsError, resolve
from otel_personalization.totals import Totals
from otel_personalization.trace import (
    Decision,
    count_of,
    namespace_of,
    read_decision,
    surface_of,
)
from otel_personalization.warner import Warner
from otel_personalization.wrapping import Finalizer, FinalizerWrapper

_logger = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Prepared = tuple[Decision | MalformedReason, Entry | None]


class PersonalizationHook:
    """Counts finalised decision traces, on the counters of one MeterProvider, and logs them.

    What is None is taken from the ``OTEL_PERSONALIZATION_*`` variable of that name.

    Args:
        meter_provider: None means OpenTelemetry's global one, be it set already or later.
        surfaces: ``namespace/surface`` pairs that are never folded into ``other``.
        max_label_sets: number of (namespace, surface) pairs that are told apart.
        stages: keys of ``extras.candidate_sources`` that are no sources.
        log: where a JSON line of each decision goes: ``stdout`` unless set, ``stderr``, ``none``,
            or the path of a file, which may be rotated by others.
        log_sample: share of decisions that have a line: above 0, 1 at most.
        log_user_hash: whether the line holds the trace's ``user_hash``.
        log_sources: whether each candidate source has a line of its own, too.
        log_propagate: whether lines also go through ``otel_personalization.decisions`` to the
            handlers of the host's logging set-up; with ``log="none"`` only there.
        debug: raise internal errors into the host.

    Raises:
        SettingsError: a value is none that the setting can have.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        surfaces: Iterable[str | tuple[str, str]] | None = None,
        max_label_sets: int | None = None,
        stages: Collection[str] | None = None,
        log: str | os.PathLike[str] | None = None,
        log_sample: float | None = None,
        log_user_hash: bool | None = None,
        log_sources: bool | None = None,
        log_propagate: bool | None = None,
        debug: bool | None = None,
    ) -> None:
        settings = resolve(
            when=AFTER,  # not ours to say: it belongs to a target
            surfaces=surfaces,
            max_label_sets=max_label_sets,
            stages=stages,
            log=log,
            log_sample=log_sample,
            log_user_hash=log_user_hash,
            log_sources=log_sources,
            log_propagate=log_propagate,
            debug=debug,
        )
        self._stages = settings.stages
        self._debug = settings.debug
        self._warner = Warner(_logger)
        self._meter_provider = meter_provider  # whoever passes one need not keep it alive
        self._instruments = instruments_of(meter_provider)
        self._totals = self._instruments.totals
        self._totals.reserve(settings.max_label_sets, settings.surfaces)
        self._log: DecisionLog | None = None
        if settings.log != NONE or settings.log_propagate:
            try:
                self._log = DecisionLog(settings, self._totals)
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"log is {settings.log!r}, which cannot be opened: "
                    f"{getattr(error, 'strerror', None) or error}; it can be 'stdout', 'stderr', "
                    "'none' or the path of a file that can be written to"
                ) from None

    @property
    def totals(self) -> Totals:
        """What was counted on this hook's MeterProvider, by this hook or another."""
        return self._totals

    def record(self, trace: object) -> None:
        """Count a finalised trace, and stamp its counts on ``extras``.

        Not for traces of a function that is wrapped or decorated: they would count twice.

        Args:
            trace: a decision trace or a response body: a mapping, or an object with attributes.

        Raises:
            Exception: an error inside this library, and only under ``debug``.
        """
        try:
            decision = read_decision(trace, self._stages)
            if isinstance(decision, MalformedReason):
                self._refuse(decision)
                return
            _stamp(trace, decision)
            self._totals.add(decision)
        except Exception as error:
            self.report(InternalErrorKind.RECORD, error)
            return
        if self._log is not None:
            self._write(self._entry(decision, trace))

    def finalizer(
        self, *, trace: str | Locate = "result", when: str = "after"
    ) -> Callable[[_Function], _Function]:
        """A decorator for the function or method that finalises a trace.

        Args:
            trace: where the trace is: ``result``, ``self``, ``argument:NAME``, or a callable that
                takes (instance, args, kwargs, result) and returns it.
            when: ``after`` the call; or ``before`` it, for a function that stores the trace: then
                the trace is stamped before, and counted once the call has succeeded.

        Raises:
            SettingsError: a value is none that the setting can have.
            NotWrappableError: what is decorated is no function, or has no such argument.
        """
        settings = resolve(trace=trace, when=when, environment={})

        def decorate(function: _Function) -> _Function:
            finalizer = Finalizer(function, self, settings.trace, settings.when)
            wrapped: Any = FinalizerWrapper(function, finalizer)
            return wrapped  # type: ignore[no-any-return]  # a proxy, of the function's own type

        return decorate

    def record_impressions(self, count: int, *, namespace: str, surface: str) -> None:
        """Count item impressions that the host saw happen.

        Args:
            count: a number of items, 0 to 1,000,000,000. Anything else is counted as an internal
                error.
            namespace: as in the traces.
            surface: as in the traces.

        Raises:
            Exception: what is counted as an internal error, and only under ``debug``.
        """
        self._record_outcomes(namespace, surface, impressions=count)

    def record_clicks(self, count: int, *, namespace: str, surface: str) -> None:
        """Count clicks on items that the host saw happen. See `record_impressions`."""
        self._record_outcomes(namespace, surface, clicks=count)

    def flush(self, timeout: float = 5.0) -> bool:
        """Have everything written and exported that was logged and counted until now.

        To be called before a ``provider.shutdown()`` of one's own. At exit a handler of ours does.

        Args:
            timeout: seconds to wait at most; log lines get a third of them.

        Returns:
            Whether it was done in time; False, too, where there is no SDK to do it. Only a provider
            of `pipeline.configure` tells whether the backend took it.
        """
        until = monotonic() + timeout
        # A third, so that a stalled reader of the log leaves time for the counters.
        written = self._log is None or self._log.flush(timeout / 3)
        return self._instruments.flush(max(0.0, until - monotonic())) and written

    def finish(self, timeout: float = 3.0) -> bool:
        """As `flush`, for the end of a process that does not run Python's exit handlers.

        Lines that cannot be written in time are given up, and counted as dropped. What is recorded
        later is counted and logged all the same, as far as the process lives to tell it.

        Args:
            timeout: seconds to wait at most; log lines get a third of them.

        Returns:
            Whether no line was given up, and the counters were exported in time, as `flush` has it.
        """
        until = monotonic() + timeout
        written = self._log is None or self._log.finish(timeout / 3)
        return self._instruments.finish(max(0.0, until - monotonic())) and written

    # --- for wrapping.Recorder ----------------------------------------------------------------

    def prepare(self, trace: object) -> _Prepared | None:
        """Read and stamp a trace, without counting it yet."""
        try:
            decision = read_decision(trace, self._stages)
            if isinstance(decision, MalformedReason):
                return decision, None
            _stamp(trace, decision)
        except Exception as error:
            self.report(InternalErrorKind.RECORD, error)
            return None
        return decision, self._entry(decision, trace)

    def commit(self, prepared: Any) -> None:
        """Count and log what `prepare` returned."""
        if prepared is None:
            return
        decision, entry = prepared
        if isinstance(decision, MalformedReason):
            self._refuse(decision)
            return
        try:
            self._totals.add(decision)
        except Exception as error:
            self.report(InternalErrorKind.RECORD, error)
            return
        self._write(entry)

    def report(self, kind: InternalErrorKind, error: Exception) -> None:
        """Count a fault of the library, and say so at most once a minute.

        Raises:
            Exception: the fault itself, under ``debug``.
        """
        self._note_fault(
            kind,
            error,
            kind.value,
            "A decision was not %s, for an error inside otel-personalization (%s): %r. The "
            "request was not affected. OTEL_PERSONALIZATION_DEBUG=true raises such errors.",
            "logged" if kind is InternalErrorKind.LOG else "counted",
            kind.value,
            error,
        )

    # --- for ourselves ------------------------------------------------------------------------

    def _note_fault(
        self, kind: InternalErrorKind, error: Exception, warning: str, message: str, *args: object
    ) -> None:
        self._totals.add_internal_error(kind)
        if self._debug:
            raise error
        self._warner.warn(warning, message, *args)

    def _refuse(self, reason: MalformedReason) -> None:
        self._totals.add_malformed_trace(reason)
        self._warner.warn(
            reason.value,
            "A decision trace could not be counted (%s). Counted are mappings and objects "
            "whose final_items is a list of mappings or objects. If this was not the trace, "
            "trace= says where it is.",
            reason.value,
        )

    def _entry(self, decision: Decision, trace: object) -> Entry | None:
        if self._log is None:
            return None
        try:
            return self._log.entry(decision, trace)
        except Exception as error:
            self._totals.add_dropped_log_records(1)
            self.report(InternalErrorKind.LOG, error)
            return None

    def _write(self, entry: Entry | None) -> None:
        if entry is not None and self._log is not None:
            self._log.put(entry)

    def _record_outcomes(
        self, namespace: str, surface: str, *, impressions: object = 0, clicks: object = 0
    ) -> None:
        impressions, clicks = count_of(impressions), count_of(clicks)
        if impressions is None or clicks is None:
            wrong = ValueError(
                f"impressions and clicks are whole numbers of 0 to {MAX_CANDIDATES:,}"
            )
            self._note_fault(
                InternalErrorKind.RECORD,
                wrong,
                "outcomes",
                "Impressions or clicks were not counted: %r.",
                wrong,
            )
            return
        try:
            self._totals.add_outcomes(
                namespace_of(namespace), surface_of(surface), impressions=impressions, clicks=clicks
            )
        except Exception as error:
            self.report(InternalErrorKind.RECORD, error)


def _stamp(trace: Any, decision: Decision) -> None:
    """Write the counts to the trace's extras. A trace that does not let itself be written stays."""
    if decision.from_response:
        return
    is_mapping = isinstance(trace, (dict, Mapping))
    kind: Any = type(trace)
    try:
        extras = trace.get("extras") if is_mapping else getattr(trace, "extras", None)
        if type(extras) is dict or isinstance(extras, MutableMapping):
            extras[STAMPED_PERSONALIZED] = decision.personalized_items
            extras[STAMPED_REASON] = decision.reason_items
        elif extras is not None:
            setattr(extras, STAMPED_PERSONALIZED, decision.personalized_items)
            setattr(extras, STAMPED_REASON, decision.reason_items)
        elif is_mapping or _takes_a_dict(kind):
            stamped = {
                STAMPED_PERSONALIZED: decision.personalized_items,
                STAMPED_REASON: decision.reason_items,
            }
            if is_mapping:
                trace["extras"] = stamped
            else:
                trace.extras = stamped
    except Exception:
        return  # frozen


@lru_cache(maxsize=64)
def _takes_a_dict(kind: Any) -> bool:
    """Whether the extras of a class may be a dict: by their annotation, if they have one."""
    annotation: Any = Any
    for owner in kind.__mro__:
        if "extras" in getattr(owner, "__annotations__", ()):
            annotation = _evaluated(owner.__annotations__["extras"], owner.__module__)
            break
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    plain = [get_origin(part) or part for part in parts]
    return any(
        part is Any
        or (isinstance(part, type) and (issubclass(part, Mapping) or issubclass(dict, part)))
        for part in plain
    )


def _evaluated(annotation: Any, module: str) -> Any:
    """What an annotation says; of names that only a type checker knows, nothing."""
    names = _Names(vars(builtins) | vars(sys.modules[module]))
    alone = type("", (), {"__module__": module, "__annotations__": {"extras": annotation}})
    try:
        return get_type_hints(alone, localns=names)["extras"]
    except Exception:
        return _Unknown


class _Unknown:
    """A type that only a type checker knows."""

    def __class_getitem__(cls, _: Any) -> type[_Unknown]:
        return cls


class _Names(dict[str, Any]):
    def __missing__(self, _: str) -> Any:
        return _Unknown
