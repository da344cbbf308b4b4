"""SIGTERM and Ctrl-C end a command as an exit does: what it holds is given back, its end is told.

::

    @ended_by_signals()
    def command() -> None:
        with tempfile.TemporaryDirectory(), no_error_of_a_signal():  # which is not left behind
            ...
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

_DEFAULTS: Final[dict[signal.Signals, Any]] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}
_ends: list[BaseException] = []
"""What signals raised since the command began."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM raise `SystemExit`, as SIGINT raises `KeyboardInterrupt`.

    While C code runs, such as a statement of DuckDB, that waits. A handler of the host's stays.
    Only the main thread may have handlers.
    """
    _ends.clear()
    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [one for one, default in _DEFAULTS.items() if signal.getsignal(one) is default]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, _DEFAULTS[number])


@contextmanager
def no_error_of_a_signal() -> Iterator[None]:
    """Once a signal has come, errors are its doing: what it raised ends the command.

    DuckDB and Arrow make errors of their own of what is raised while they run.
    """
    try:
        yield
    except Exception:
        if not _ends:
            raise
        raise _ends[-1] from None


def _end(number: int, _frame: object) -> NoReturn:
    if number == signal.SIGINT:
        _ends.append(KeyboardInterrupt())
    else:
        # `timeout` sends it twice. The second would cut short what the first has begun.
        signal.signal(number, signal.SIG_IGN)
        _ends.append(SystemExit(128 + number))
    raise _ends[-1]
