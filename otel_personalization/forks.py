"""What is to happen in a child: right after a fork, and when a worker of multiprocessing ends."""

from __future__ import annotations

import inspect
import multiprocessing
import multiprocessing.util
import os
import traceback
import weakref
from collections.abc import Callable
from typing import Any


def call_in_children(method: Callable[[], None]) -> None:
    """Call a method in each forked child, as long as its object is there.

    It must not wait for anything: locks may have been copied locked, and other threads are gone.
    """
    _in_children[weakref.WeakMethod(method, _forget)] = None


# A dict, which keeps the order: what was registered first is called first.
_in_children: dict[weakref.WeakMethod[Callable[[], None]], None] = {}


def _forget(reference: weakref.WeakMethod[Callable[[], None]]) -> None:
    _in_children.pop(reference, None)


def _call_in_child() -> None:
    for reference in list(_in_children):
        if (method := reference()) is not None:
            try:
                method()
            except Exception:  # the others are to be called all the same
                traceback.print_exc()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_call_in_child)


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
