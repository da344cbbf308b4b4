"""SIGTERM ends a command as an exit does: what it holds is given back, and its end is told.

::

    @ended_by_signals()
    def command() -> None:
        with tempfile.TemporaryDirectory():  # which is not left behind
            ...
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM raise `SystemExit`, in the main thread, which alone may have it so.

    While C code runs, such as a statement of DuckDB, that waits. A handler of the host's stays.
    """
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, _frame: object) -> NoReturn:
    # `timeout` sends it twice. The second would cut short what the first has begun.
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)
