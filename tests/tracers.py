"""Finalisers of every kind, as services have them. The instrumentor's tests wrap these."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any


def trace(surface: str = "home", served: int = 2) -> dict[str, Any]:
    return {
        "namespace": "shop",
        "surface": surface,
        "final_items": [{"item_id": str(n), "reasons": ["new"]} for n in range(served)],
        "extras": {"personalized_items": ["0"]},
    }


class Tracer:
    """What a ranking service has."""

    def __init__(self, surface: str = "home") -> None:
        self.surface = surface
        self.stored: Any = None

    def finalize(self, served: int = 2, *, fail: bool = False) -> Any:
        """Finalise."""
        if fail:
            raise KeyError(served)
        return trace(self.surface, served)

    async def finalize_async(self, served: int = 2, *, fail: bool = False) -> Any:
        await asyncio.sleep(0)
        if fail:
            raise KeyError(served)
        return trace(self.surface, served)

    def finalize_in_task(self, *, fail: bool = False) -> Any:
        return asyncio.ensure_future(self.finalize_async(fail=fail))

    def finalize_in_thread(self) -> Any:
        future: Future[Any] = Future()
        future.set_result(trace(self.surface))
        return future

    def returns_coroutine(self) -> Any:
        return self.finalize_async()

    def store(self, decision: Any, note: str = "") -> str:
        """Persists what it is given."""
        if note == "fail":
            raise KeyError(note)
        self.stored = {**decision, "extras": dict(decision["extras"])}
        return "stored"

    async def store_async(self, decision: Any) -> str:
        await asyncio.sleep(0)
        return self.store(decision)

    def keyword_only(self, *, decision: Any = None) -> str:
        return "done"

    def anything(self, **decisions: Any) -> str:
        return "done"

    @classmethod
    def of_class(cls, served: int = 2) -> Any:
        return trace(cls.__name__.lower(), served)

    @staticmethod
    def static(served: int = 2) -> Any:
        return trace("static", served)

    @property
    def latest(self) -> Any:
        return trace()

    def stream(self) -> Iterator[Any]:
        yield trace()

    async def stream_async(self) -> Any:
        yield trace()

    def outer(self) -> Any:
        """Calls another finaliser."""
        return self.finalize()

    async def outer_async(self) -> Any:
        return await self.finalize_async()

    class Inner:
        def finalize(self) -> Any:
            return trace("inner")

    number = 7


class Derived(Tracer):
    """Inherits its finaliser."""


class SelfTracer:
    """Is the trace itself."""

    def __init__(self) -> None:
        self.namespace = "shop"
        self.surface = "self"
        self.final_items: list[Any] = []
        self.extras: Any = None

    def finalize(self) -> str:
        self.final_items.append({"item_id": "a", "personalized": True})
        return "done"


def finalize(served: int = 2) -> Any:
    """Finalise."""
    return trace("function", served)


async def finalize_async(served: int = 2) -> Any:
    return trace("function", served)


class Finalize:
    def __call__(self) -> Any:
        return trace("callable")


finalize_object = Finalize()
finalize_partial = functools.partial(finalize, 3)
bound = Tracer("bound").finalize
