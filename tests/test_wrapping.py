"""Wrapped finalisers: each call is counted once, and nothing else about them changes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import copy
import functools
import gc
import inspect
import pickle
import sys
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider

from otel_personalization import NotWrappableError, PersonalizationHook
from otel_personalization.settings import Locate
from otel_personalization.testing import Counted, counting
from otel_personalization.wrapping import Finalizer, FinalizerWrapper
from tests import tracers
from tests.tracers import Tracer, trace


@pytest.fixture
def hook():
    return PersonalizationHook(meter_provider=NoOpMeterProvider())


@pytest.fixture
def wrapped(hook, monkeypatch):
    """Wraps a member of `Tracer`, or of another owner, until the test ends."""

    def wrap(
        name: str, owner: Any = Tracer, trace: str | Locate = "result", when: str = "after"
    ) -> Any:
        function = inspect.getattr_static(owner, name)
        finalizer = Finalizer(function, hook, trace, when)
        monkeypatch.setattr(owner, name, FinalizerWrapper(function, finalizer))
        return getattr(owner, name)

    return wrap


def surfaces(counted: Counted) -> dict[str, int]:
    return {surface: counts["decisions"] for (_, surface), counts in counted.cells.items()}


# --- kinds of functions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "surface"),
    [
        ("finalize", "home"),
        ("of_class", "tracer"),
        ("static", "static"),
    ],
)
def test_methods_of_each_kind_are_counted(hook, wrapped, name, surface):
    """On an instance, and on the class where that works."""
    wrapped(name)
    with counting(hook) as counted:
        result = getattr(Tracer(), name)(3)
    assert surfaces(counted) == {surface: 1}
    assert counted.served_items == 3
    assert result["extras"]["personalized_items_count"] == 1
    assert result["extras"]["reason_items_count"] == 3


def test_a_method_called_through_its_class_is_counted(hook, wrapped):
    wrapped("finalize")
    wrapped("of_class")
    wrapped("static")
    with counting(hook) as counted:
        Tracer.finalize(Tracer(), 1)
        Tracer.of_class(1)
        Tracer.static(1)
    assert counted.decisions == 3


@pytest.mark.parametrize(
    ("name", "surface"),
    [
        ("finalize", "function"),
        ("finalize_object", "callable"),
        ("finalize_partial", "function"),
        ("bound", "bound"),
    ],
)
def test_functions_and_other_callables_of_a_module_are_counted(hook, wrapped, name, surface):
    wrapped(name, tracers)
    with counting(hook) as counted:
        getattr(tracers, name)()
    assert surfaces(counted) == {surface: 1}


@pytest.mark.parametrize(
    "name", ["finalize_async", "returns_coroutine", "finalize_in_task", "outer_async"]
)
def test_what_is_awaited_is_counted_once_it_is_there(hook, wrapped, name):
    wrapped(name)

    async def main() -> Any:
        awaitable = getattr(Tracer(), name)()
        before = hook.totals.snapshot()
        result = await awaitable
        await asyncio.sleep(0)  # callbacks of a future come a turn later
        assert before != hook.totals.snapshot()
        return result

    with counting(hook) as counted:
        result = asyncio.run(main())
    assert surfaces(counted) == {"home": 1}
    assert result["extras"]["personalized_items_count"] == 1


def test_a_future_of_a_thread_is_counted_when_it_is_done(hook, wrapped):
    wrapped("finalize_in_thread")
    with counting(hook) as counted:
        future = Tracer().finalize_in_thread()
    assert type(future) is concurrent.futures.Future
    assert counted.decisions == 1


def test_what_fails_or_is_cancelled_is_not_counted(hook, wrapped):
    """And the exception is the finaliser's own."""
    for name in ("finalize", "finalize_async", "finalize_in_task", "returns_coroutine"):
        wrapped(name)
    error = None

    async def main() -> None:
        with pytest.raises(KeyError):
            await Tracer().finalize_async(fail=True)
        task = Tracer().finalize_in_task()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for name in ("finalize_async", "returns_coroutine"):
            asyncio.ensure_future(getattr(Tracer(), name)()).cancel()  # before its first step
            getattr(Tracer(), name)().close()

    with counting(hook) as counted:
        try:
            Tracer().finalize(5, fail=True)
        except KeyError as caught:
            error = caught
        asyncio.run(main())
    assert error is not None
    assert error.args == (5,)
    assert error.__cause__ is error.__context__ is None
    assert counted == Counted()


def test_an_exception_of_a_task_that_nobody_asks_for_is_still_logged(hook, wrapped, caplog):
    """By asyncio, which must not think that somebody did."""
    wrapped("finalize_in_task")

    async def main() -> None:
        Tracer().finalize_in_task(fail=True)
        await asyncio.sleep(0.01)
        gc.collect()

    with counting(hook) as counted:
        asyncio.run(main())
    assert "Task exception was never retrieved" in caplog.text
    assert counted == Counted()


def test_a_result_that_does_not_say_what_it_is_comes_through(hook):
    class Liar:
        @property
        def __class__(self) -> Any:
            raise RuntimeError

    result = Liar()

    @hook.finalizer()
    def finalize() -> Any:
        return result

    with counting(hook) as counted:
        returned = finalize()
    assert returned is result
    assert counted.malformed_traces == 1


def test_an_awaitable_that_is_more_than_a_coroutine_stays_what_it_is(hook):
    class Request(Coroutine):  # type: ignore[type-arg]
        send = throw = close = lambda self, *_: None

        def __await__(self) -> Any:
            yield

        async def __aenter__(self) -> str:
            return "entered"

        async def __aexit__(self, *_: object) -> None: ...

    @hook.finalizer()
    def finalize() -> Any:
        return Request()

    async def main() -> str:
        async with finalize() as entered:
            return entered

    with counting(hook) as counted:
        assert asyncio.run(main()) == "entered"
    assert counted.malformed_traces == 1


def test_before_looks_for_the_trace_once(hook, wrapped):
    wrapped("returns_coroutine", trace=lambda *_: 1 / 0, when="before")
    with counting(hook) as counted:
        asyncio.run(Tracer().returns_coroutine())
    assert counted.internal_errors == 1


def test_a_coroutine_that_was_never_awaited_warns_as_it_would_without_us(wrapped):
    wrapped("finalize_async")
    with pytest.warns(RuntimeWarning) as warned:
        Tracer().finalize_async()
    assert [str(w.message) for w in warned] == [
        "coroutine 'Tracer.finalize_async' was never awaited"
    ]


def test_wrong_arguments_of_an_async_function_raise_at_the_call(wrapped):
    wrapped("finalize_async")
    with pytest.raises(TypeError, match="unexpected keyword"):
        Tracer().finalize_async(unknown=1)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("latest", "it is a property; name the method"),
        ("stream", "it is a generator"),
        ("stream_async", "it is a generator"),
        ("Inner", "it is the class Inner; name a method of it"),
        ("number", "it is a int, which cannot be called"),
    ],
)
def test_what_cannot_be_counted_is_refused(hook, name, says):
    with pytest.raises(NotWrappableError, match=says):
        Finalizer(inspect.getattr_static(Tracer, name), hook, "result", "after")


# --- where the trace is -----------------------------------------------------------------------


def test_the_trace_may_be_the_instance(hook, wrapped):
    wrapped("finalize", tracers.SelfTracer, "self")
    tracer = tracers.SelfTracer()
    with counting(hook) as counted:
        assert tracer.finalize() == "done"
    assert surfaces(counted) == {"self": 1}
    assert tracer.extras == {"personalized_items_count": 1, "reason_items_count": 0}


@pytest.mark.parametrize(
    "call",
    [
        lambda tracer, decision: tracer.store(decision, note=""),
        lambda tracer, decision: tracer.store(decision, "note"),
        lambda tracer, decision: tracer.store(decision=decision),
        lambda tracer, decision: Tracer.store(tracer, decision),  # noqa: PLW0108  # wrapped later
        lambda tracer, decision: Tracer.store(tracer, decision=decision),
    ],
)
def test_the_trace_may_be_an_argument_however_it_is_passed(hook, wrapped, call):
    wrapped("store", trace="argument:decision")
    with counting(hook) as counted:
        assert call(Tracer(), trace()) == "stored"
    assert surfaces(counted) == {"home": 1}


@pytest.mark.parametrize(
    ("name", "keyword"), [("keyword_only", "decision"), ("anything", "decision")]
)
def test_the_trace_may_be_a_keyword_argument(hook, wrapped, name, keyword):
    wrapped(name, trace=f"argument:{keyword}")
    with counting(hook) as counted:
        getattr(Tracer(), name)(**{keyword: trace()})
    assert counted.decisions == 1


def test_arguments_of_functions_classmethods_and_staticmethods_are_found(hook, monkeypatch):
    def function(first: Any, decision: Any) -> None: ...

    class Owner:
        @classmethod
        def of_class(cls, first: Any, decision: Any) -> None: ...

        @staticmethod
        def static(first: Any, decision: Any) -> None: ...

    for kind in (function, vars(Owner)["of_class"], vars(Owner)["static"]):
        wrapper = FinalizerWrapper(kind, Finalizer(kind, hook, "argument:decision", "after"))
        if kind is not function:
            Owner.wrapper = wrapper
            wrapper = Owner().wrapper
        with counting(hook) as counted:
            wrapper(1, trace())
            wrapper(1, decision=trace())
        assert (counted.decisions, counted.malformed_traces) == (2, 0)


def test_arguments_of_a_method_that_is_no_plain_function_are_found(hook):
    class Owner:
        @functools.lru_cache  # noqa: B019  # a method of C's
        def cached(self, decision: Any) -> None: ...

    function = vars(Owner)["cached"]
    Owner.cached = FinalizerWrapper(
        function, Finalizer(function, hook, "argument:decision", "after")
    )
    with counting(hook) as counted:
        Owner().cached(tracers.SelfTracer())
    assert (counted.decisions, counted.malformed_traces) == (1, 0)


def test_an_argument_that_was_left_out_is_its_default(hook, wrapped):
    wrapped("keyword_only", trace="argument:decision")
    with counting(hook) as counted:
        Tracer().keyword_only()
    assert (counted.decisions, counted.malformed_traces) == (0, 1)


def test_a_callable_may_find_the_trace(hook, wrapped):
    seen = []

    def locate(*call: Any) -> Any:
        seen.append(call)
        return call[1][0]

    wrapped("store", trace=locate)
    tracer, decision = Tracer(), trace()
    with counting(hook) as counted:
        tracer.store(decision, note="x")
    assert counted.decisions == 1
    assert seen == [(tracer, (decision,), {"note": "x"}, "stored")]


def test_a_callable_that_raises_is_counted_and_hurts_nobody(hook, wrapped, caplog):
    wrapped("store", trace=lambda *_: 1 / 0)
    with counting(hook) as counted:
        assert Tracer().store(trace()) == "stored"
        assert Tracer().store(trace()) == "stored"
    assert (counted.decisions, counted.internal_errors) == (0, 2)
    assert caplog.text.count("ZeroDivisionError") == 1


@pytest.mark.parametrize(
    ("function", "where", "says"),
    [
        (Tracer.store, "argument:trace", "no parameter 'trace' .* it has self, decision, note"),
        (vars(Tracer)["static"], "self", "called on no instance"),
        (vars(Tracer)["of_class"], "self", "called on no instance"),
        (dict.update, "argument:decision", "does not say what its parameters are|no parameter"),
    ],
)
def test_a_place_that_is_not_there_is_refused(hook, function, where, says):
    with pytest.raises(NotWrappableError, match=says):
        Finalizer(function, hook, where, "after")


# --- before -----------------------------------------------------------------------------------


def test_before_stamps_what_the_finaliser_stores_and_counts_once_it_has(hook, wrapped):
    wrapped("store", trace="argument:decision", when="before")
    tracer = Tracer()
    with counting(hook) as counted:
        tracer.store(trace())
        with pytest.raises(KeyError):
            tracer.store(trace(), note="fail")
    assert counted.decisions == 1
    assert tracer.stored["extras"]["personalized_items_count"] == 1
    assert tracer.stored["extras"]["reason_items_count"] == 2


def test_after_stamps_too_late_for_what_the_finaliser_stores(wrapped):
    """Why there is a `before`."""
    wrapped("store", trace="argument:decision")
    tracer = Tracer()
    tracer.store(trace())
    assert "personalized_items_count" not in tracer.stored["extras"]


def test_before_works_for_async_functions(hook, wrapped):
    wrapped("store_async", trace="argument:decision", when="before")
    tracer = Tracer()
    with counting(hook) as counted:
        assert asyncio.run(tracer.store_async(trace())) == "stored"
    assert counted.decisions == 1
    assert tracer.stored["extras"]["personalized_items_count"] == 1


# --- nested calls -----------------------------------------------------------------------------


def test_a_finaliser_that_calls_another_counts_once(hook, wrapped):
    for name in ("finalize", "outer", "finalize_async", "outer_async"):
        wrapped(name)
    with counting(hook) as counted:
        Tracer().outer()
        asyncio.run(Tracer().outer_async())
        Tracer().finalize()
    assert counted.decisions == 3


def test_a_function_that_was_wrapped_twice_counts_once(hook, wrapped):
    wrapped("finalize")
    wrapped("finalize")
    with counting(hook) as counted:
        Tracer().finalize()
    assert counted.decisions == 1


def test_after_a_failed_call_the_next_one_counts(hook, wrapped):
    wrapped("finalize")
    with counting(hook) as counted:
        with pytest.raises(KeyError):
            Tracer().finalize(fail=True)
        Tracer().finalize()
    assert counted.decisions == 1


def test_tasks_that_run_side_by_side_are_not_nested(hook, wrapped):
    wrapped("finalize_async")

    async def main() -> None:
        await asyncio.gather(*(Tracer().finalize_async() for _ in range(50)))

    with counting(hook) as counted:
        asyncio.run(main())
    assert counted.decisions == 50


def test_a_task_that_outlives_the_finaliser_it_was_started_in_counts(hook, wrapped):
    """It has inherited the context, in which that call still seems to run."""
    wrapped("finalize")

    async def worker(started: asyncio.Event) -> None:
        await started.wait()
        Tracer().finalize()

    async def main() -> None:
        started = asyncio.Event()
        tasks = []

        @hook.finalizer()
        def start() -> Any:
            tasks.append(asyncio.ensure_future(worker(started)))
            return trace("start")

        start()
        started.set()
        await asyncio.gather(*tasks)

    with counting(hook) as counted:
        asyncio.run(main())
    assert surfaces(counted) == {"start": 1, "home": 1}


def test_what_is_begun_within_a_finaliser_and_awaited_after_it_counts(hook, wrapped):
    wrapped("finalize_async")
    wrapped("finalize")

    class Batch(Tracer):
        def finalize(self, **_: Any) -> Any:
            super().finalize()
            return {"final_items": [], "later": self.finalize_async()}

    wrapped("finalize", Batch)

    async def main() -> None:
        await Batch().finalize()["later"]

    with counting(hook) as counted:
        asyncio.run(main())
    assert counted.decisions == 2


def test_a_thread_within_a_finaliser_is_not_nested(hook, wrapped):
    wrapped("finalize")

    @hook.finalizer()
    def outer() -> Any:
        thread = threading.Thread(target=Tracer().finalize)
        thread.start()
        thread.join()
        return trace("outer")

    with counting(hook) as counted:
        outer()
    assert counted.decisions == 2


@pytest.mark.parametrize(("carries_the_context", "decisions"), [(True, 1), (False, 2)])
def test_a_finaliser_in_a_thread_is_nested_where_the_context_is_carried_there(
    hook, wrapped, carries_the_context, decisions
):
    wrapped("finalize")

    @hook.finalizer()
    async def outer() -> Any:
        if carries_the_context:
            return await asyncio.to_thread(Tracer().finalize)
        return await asyncio.get_running_loop().run_in_executor(None, Tracer().finalize)

    with counting(hook) as counted:
        asyncio.run(outer())
    assert counted.decisions == decisions


@pytest.mark.parametrize("when", ["after", "before"])
def test_a_request_as_deep_as_python_allows_fails_only_where_the_finaliser_cannot_be_called(
    hook, when
):
    """There our own faults cannot even be counted."""
    calls = []

    @hook.finalizer(trace="argument:decision", when=when)
    def finalize(decision: Any) -> Any:
        calls.append(decision)
        return decision

    def at(depth: int) -> Any:
        return finalize(trace()) if depth == 0 else at(depth - 1)

    unread = 0
    with counting(hook) as counted:
        for depth in range(sys.getrecursionlimit()):
            calls.clear()
            try:
                at(depth)
            except RecursionError:
                assert not calls
                break
            unread = depth + 1 - counted.decisions
    assert unread > 0  # so that it was as deep as where ours fails
    assert finalize(trace()) is not None


def test_a_coroutine_that_is_closed_in_another_context_raises_nothing(hook, wrapped):
    wrapped("finalize_async")
    coroutine = Tracer().finalize_async()
    contextvars.copy_context().run(coroutine.send, None)
    contextvars.copy_context().run(coroutine.close)
    with counting(hook) as counted:
        asyncio.run(Tracer().finalize_async())
    assert counted.decisions == 1


# --- everything else stays as it was ----------------------------------------------------------


def looks_of(function: Any) -> tuple[object, ...]:
    return (
        inspect.signature(function),
        inspect.iscoroutinefunction(function),
        inspect.isfunction(function),
        function.__name__,
        function.__qualname__,
        function.__doc__,
        function.__module__,
    )


def test_a_wrapped_function_looks_as_it_did(wrapped):
    names = ("finalize", "finalize_async", "static")
    before = {name: looks_of(getattr(Tracer, name)) for name in names}
    for name, looks in before.items():
        wrapped(name)
        assert looks_of(getattr(Tracer, name)) == looks
    assert inspect.ismethod(Tracer().finalize)
    assert isinstance(vars(Tracer)["static"], staticmethod)
    tracer = Tracer()
    assert tracer.finalize.__self__ is tracer
    assert tracer.finalize == tracer.finalize
    assert hash(tracer.finalize) == hash(tracer.finalize)


def test_the_result_is_the_very_object(hook):
    result = trace()

    @hook.finalizer()
    def finalize() -> Any:
        return result

    assert finalize() is result


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_instances_functions_and_bound_methods_can_be_pickled(hook, wrapped, protocol):
    for name in ("finalize", "of_class", "static"):
        wrapped(name)
    wrapped("finalize", tracers)

    def again(value: Any) -> Any:
        return pickle.loads(pickle.dumps(value, protocol))

    assert again(tracers.finalize) is tracers.finalize
    with counting(hook) as counted:
        assert again(Tracer("cart")).finalize()["surface"] == "cart"
        assert again(Tracer("cart").finalize)()["surface"] == "cart"
        assert again(Tracer.finalize)(Tracer())["surface"] == "home"
        assert again(Tracer.of_class)()["surface"] == "tracer"
        assert again(Tracer.static)()["surface"] == "static"
    assert counted.decisions == 5


def test_a_function_that_pickle_could_not_find_either_is_refused_likewise(hook):
    @hook.finalizer()
    def local() -> Any: ...

    with pytest.raises(pickle.PicklingError, match="local"):
        pickle.dumps(local)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_functions_and_bound_methods_can_be_copied(hook, wrapped, copied):
    for name in ("finalize", "static"):
        wrapped(name)
    wrapped("finalize", tracers)
    tracer = Tracer("cart")
    assert copied(tracers.finalize) is tracers.finalize
    with counting(hook) as counted:
        assert copied(tracer).finalize()["surface"] == "cart"
        bound = copied(tracer.finalize)
        assert bound()["surface"] == "cart"
        assert copied(Tracer.static)()["surface"] == "static"
    assert counted.decisions == 3
    assert (bound.__self__ is tracer) == (copied is copy.copy)


def test_a_wrapped_method_can_be_overridden_and_called_by_super(hook, wrapped):
    wrapped("finalize")

    class Louder(Tracer):
        def finalize(self, *args: Any, **kwargs: Any) -> Any:
            return super().finalize(*args, **kwargs)

    with counting(hook) as counted:
        Louder().finalize()
    assert counted.decisions == 1


def test_a_wrapper_that_is_not_active_does_nothing(hook, wrapped):
    wrapped("finalize")
    vars(Tracer)["finalize"]._self_wrapper.active = False
    with counting(hook) as counted:
        assert "personalized_items_count" not in Tracer().finalize()["extras"]
    assert counted == Counted()
