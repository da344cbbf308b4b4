"""What is to happen in a child: right after a fork, and when a worker of multiprocessing ends."""

from __future__ import annotations

import inspect
import multiprocessing
import multiprocessing.util
import os
import weakref
from collections.abc import Callable
from typing import Any


def call_in_children(method: Callable[[], None]) -> None:
    """Call a method in each forked child, as long as its object is there.

    It must not wait for anything: locks may have been copied locked, and other threads are gone.
    """
    if not hasattr(os, "register_at_fork"):  # Windows, which has no forks
        return
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (bound := reference()) is not None:
            bound()

    os.register_at_fork(after_in_child=call)


def call_as_worker_ends(function: Callable[[], Any], *, priority: int) -> None:
    """Call a function at the end of a worker of multiprocessing, which may skip exit handlers.

    Args:
        function: is called in this process, if it is a worker, and in workers that it forks; a
            method, as long as its object is there.
        priority: the higher comes first.
    """
    reference: Callable[[], Callable[[], Any] | None]
    reference = (
        weakref.WeakMethod(function) if inspect.ismethod(function) else weakref.ref(function)
    )

    def call() -> None:
        if (called := reference()) is not None:
            called()

    def register(_: object = None) -> None:
        multiprocessing.util.Finalize(None, call, exitpriority=priority)

    # What is registered for after the fork is forgotten with the object that it is registered for.
    multiprocessing.util.register_after_fork(_forever, register)
    if multiprocessing.parent_process() is not None:
        register()


class _Forever:
    """Something that lives as long as the process, and can be referred to weakly."""


_forever = _Forever()
