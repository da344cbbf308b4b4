"""What is to happen in a child, right after a fork."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


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
