"""Wraps a function that finalises decision traces, and changes nothing else about it.

Results, exceptions, signature, pickling and copying stay as they were; a coroutine is counted when
it has been awaited, a future when it is done. A wrapped finaliser that calls another one counts
once: the outermost does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from copy import deepcopy
from types import CoroutineType
from typing import Any, Final, Protocol, SupportsIndex

import wrapt

from otel_personalization.conventions import InternalErrorKind
from otel_personalization.settings import ARGUMENT, BEFORE, RESULT, SELF, Locate


class Recorder(Protocol):
    """What counts a trace: `hook.PersonalizationHook`."""

    def record(self, trace: object) -> None:
        """Read, stamp and count a trace."""

    def prepare(self, trace: object) -> Any:
        """Read and stamp a trace. What it returns means something to `commit` only."""

    def commit(self, prepared: Any) -> None:
        """Count what was prepared; None is nothing."""

    def report(self, kind: InternalErrorKind, error: Exception) -> None:
        """Count a fault of the library."""


class NotWrappableError(TypeError):
    """What was to be wrapped is no function, or one that cannot be counted."""


class Finalizer:
    """Counts the traces of one finaliser. `FinalizerWrapper` calls it in place of the function.

    Args:
        function: as it stands in its module or class: a staticmethod or classmethod object, too.
        recorder: counts the traces.
        trace: where the trace is; see `settings.Settings`.
        when: ``after`` or ``before`` the call.

    Raises:
        NotWrappableError: it is no function, or one whose traces cannot be found.
    """

    active = True
    """False makes it a pass-through: for a wrapper that another library has wrapped meanwhile."""

    def __init__(self, function: Any, recorder: Recorder, trace: str | Locate, when: str) -> None:
        plain = _checked_function(function)
        self._recorder = recorder
        self._locate = _locator(function, plain, trace)
        self._before = when == BEFORE
        self._is_async = inspect.iscoroutinefunction(plain)

    def __call__(
        self,
        wrapped: Callable[..., Any],
        instance: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Call the finaliser, and count what it finalised."""
        if not self.active:
            return wrapped(*args, **kwargs)
        if self._is_async:  # whether it runs within another one is seen when it is awaited
            coroutine = wrapped(*args, **kwargs)
            return self._awaited(coroutine, instance, args, kwargs, None, prepare=self._before)
        outer = _current_call.get()
        if outer is not None and outer.running:
            return wrapped(*args, **kwargs)
        call = _Call()
        _current_call.set(call)
        prepared = None
        try:
            if self._before:
                prepared = self._prepare(instance, args, kwargs, None)
            result = wrapped(*args, **kwargs)
        finally:
            call.running = False
        try:
            if type(result) is not dict:  # what is no coroutine or future, either, as a rule
                later = self._counted_later(result, instance, args, kwargs, prepared)
                if later is not None:
                    return later
            if self._before:
                self._recorder.commit(prepared)
            elif self._locate is None:
                self._recorder.record(result)
            else:
                self._recorder.commit(self._prepare(instance, args, kwargs, result))
        except RecursionError:  # see _prepare
            pass
        return result

    def _counted_later(
        self,
        result: Any,
        instance: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prepared: Any,
    ) -> Any:
        """A result that is not there yet, as one that is counted when it is; else None."""
        try:
            if isinstance(result, CoroutineType):  # others may be more than coroutines
                return self._awaited(result, instance, args, kwargs, prepared)
            if isinstance(result, (asyncio.Future, concurrent.futures.Future)):
                self._when_done(result, instance, args, kwargs, prepared)
                return result
        except Exception as error:  # of an object that does not even say what it is
            self._recorder.report(InternalErrorKind.RECORD, error)
        return None

    def _awaited(
        self,
        coroutine: Coroutine[Any, Any, Any],
        instance: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prepared: Any,
        *,
        prepare: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """The coroutine in one that counts; called as it was, which is what warnings show."""
        counted: Any = self._await(
            _Owned(coroutine), instance, args, kwargs, prepared, prepare=prepare
        )
        counted.__name__ = getattr(coroutine, "__name__", counted.__name__)
        counted.__qualname__ = getattr(coroutine, "__qualname__", counted.__qualname__)
        return counted  # type: ignore[no-any-return]

    async def _await(
        self,
        owned: _Owned,
        instance: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prepared: Any,
        *,
        prepare: bool,
    ) -> Any:
        outer = _current_call.get()
        if outer is not None and outer.running:
            return await owned.coroutine
        call = _Call()
        _current_call.set(call)
        try:
            if prepare:
                prepared = self._prepare(instance, args, kwargs, None)
            result = await owned.coroutine
        finally:
            call.running = False
        if not self._before:
            prepared = self._prepare(instance, args, kwargs, result)
        with suppress(RecursionError):  # see _prepare
            self._recorder.commit(prepared)
        return result

    def _when_done(
        self,
        future: asyncio.Future[Any] | concurrent.futures.Future[Any],
        instance: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prepared: Any,
    ) -> None:
        def count(done: Any) -> None:
            # Not `exception()`: asyncio logs an exception only where nobody ever asked for it.
            if done.cancelled() or done._exception is not None:  # noqa: SLF001
                return
            self._recorder.commit(
                prepared if self._before else self._prepare(instance, args, kwargs, done.result())
            )

        if future.done():  # a callback would come after the host has read it
            count(future)
        else:
            future.add_done_callback(count)

    def _prepare(
        self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> Any:
        try:
            if self._locate is None:
                return self._recorder.prepare(result)
            try:
                trace = self._locate(instance, args, kwargs, result)
            except Exception as error:
                self._recorder.report(InternalErrorKind.LOCATE, error)
                return None
            return self._recorder.prepare(trace)
        except RecursionError:  # so deep in the host that the fault cannot be reported, either
            return None


class _Owned:
    """A coroutine that is closed when nobody will await it any more.

    Whoever closes ours before it has started means to close this one; a task that is cancelled
    before its first step does so.
    """

    __slots__ = ("coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine

    def __del__(self) -> None:
        self.coroutine.close()


class _Call:
    """A call of a wrapped finaliser, left in the context that it was made in.

    Nobody takes it out: a task that was started within has a copy, and may outlive the call, and
    a coroutine may be closed in another context. What counts is whether it is `running`.
    """

    __slots__ = ("running",)

    def __init__(self) -> None:
        self.running = True


_current_call: Final[ContextVar[_Call | None]] = ContextVar("finalizer_call", default=None)


# --- what can be wrapped, and where its trace is ----------------------------------------------


def _checked_function(function: Any) -> Callable[..., Any]:
    """The function within a staticmethod or classmethod, or the function itself."""
    plain = function.__func__ if isinstance(function, (staticmethod, classmethod)) else function
    kind = type(function).__name__
    if isinstance(function, property):
        raise NotWrappableError("it is a property; name the method that finalises the trace")
    if isinstance(plain, type):
        raise NotWrappableError(f"it is the class {plain.__name__}; name a method of it")
    if not callable(plain):
        raise NotWrappableError(
            f"it is a {kind}, which cannot be called; name a function or method"
        )
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise NotWrappableError(
            "it is a generator, which has no one result; name the function that finalises a trace"
        )
    return plain


def _locator(function: Any, plain: Callable[..., Any], trace: str | Locate) -> Locate | None:
    """What finds the trace; None where it is the result."""
    if not isinstance(trace, str):
        return trace
    if trace == RESULT:
        return None
    if trace == SELF:
        if isinstance(function, (staticmethod, classmethod)):
            raise NotWrappableError("it is called on no instance, and trace is 'self'")
        return _instance
    return _argument(plain, trace.removeprefix(ARGUMENT))


def _instance(instance: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any], _result: Any) -> Any:
    return instance


def _argument(plain: Callable[..., Any], name: str) -> Locate:
    try:
        parameters = inspect.signature(plain).parameters
    except ValueError:
        raise NotWrappableError(
            "it does not say what its parameters are; let trace be a callable that finds the trace"
        ) from None
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    parameter = parameters.get(name)
    if parameter is not None and parameter.kind in (
        parameter.VAR_KEYWORD,
        parameter.VAR_POSITIONAL,
    ):
        parameter = None
    if parameter is None and not takes_any:
        raise NotWrappableError(
            f"it has no parameter {name!r} for trace='{ARGUMENT}{name}'; it has "
            + (", ".join(parameters) or "none")
        )
    default = None
    position: int | None = None
    if parameter is not None:
        default = None if parameter.default is parameter.empty else parameter.default
        if parameter.kind is not parameter.KEYWORD_ONLY:
            position = list(parameters).index(name)
    # The signature of what can be bound holds its `self`; the arguments that wrapt hands on do not.
    holds_self = hasattr(type(plain), "__get__") and not inspect.ismethod(plain)

    def locate(instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _result: Any) -> Any:
        if name in kwargs:
            return kwargs[name]
        if position is not None:
            index = position - 1 if holds_self and instance is not None else position
            if 0 <= index < len(args):
                return args[index]
            if index < 0:
                return instance
        return default

    return locate


# --- wrappers that can be pickled and copied --------------------------------------------------


class _BoundFinalizerWrapper(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]
    """A wrapped method, bound: what ``tracer.finalize`` gives."""

    def __reduce_ex__(self, _protocol: SupportsIndex) -> Any:
        if self._self_instance is None:  # a staticmethod, or a method taken from its class
            return _by_name(self)
        return getattr, (self._self_instance, self.__name__)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._self_instance is None or isinstance(self._self_instance, type):
            return self
        return getattr(deepcopy(self._self_instance, memo), self.__name__)


class FinalizerWrapper(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """A wrapped finaliser, as it stands in its module or class."""

    __bound_function_wrapper__ = _BoundFinalizerWrapper

    def __reduce_ex__(self, _protocol: SupportsIndex) -> Any:
        return _by_name(self)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Any:
        return self


def _by_name(wrapper: Any) -> Any:
    """As pickle treats functions: they are found again by their name."""
    name = f"{wrapper.__module__}:{wrapper.__qualname__}"
    try:
        pkgutil.resolve_name(name)
    except Exception as error:
        raise pickle.PicklingError(f"Can't pickle {wrapper!r}: {error}") from error
    return pkgutil.resolve_name, (name,)
