"""Warnings that do not flood: at most one a minute of each kind. Nobody waits for them."""

from __future__ import annotations

import logging
import sys
from _thread import LockType, allocate_lock, start_new_thread
from time import monotonic
from typing import Any, Final

from otel_personalization.forks import call_in_children

INTERVAL_SECONDS: Final = 60.0
_SAY_SECONDS: Final = 0.1


class Warner:
    """Warns through a logger.

    Args:
        logger: of the module that warns.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._warned: dict[str, float] = {}
        self._saying: dict[str, LockType] = {}
        """Of each kind: taken as long as its last warning has not been logged."""
        call_in_children(self._forget_what_is_said)

    def warn(self, kind: str, message: str, *args: object, exc_info: bool = False) -> None:
        """Log a warning, unless there was one of this kind within the last minute.

        Args:
            kind: one of few.
            message: what happened, as a format.
            *args: what stands in the format.
            exc_info: whether to show the traceback of the exception being handled.
        """
        now = monotonic()
        if now - self._warned.get(kind, -INTERVAL_SECONDS) < INTERVAL_SECONDS:
            return
        if kind in self._saying and self._saying[kind].locked():
            return  # a handler of the host's hangs; one thread that waits for it is enough
        self._warned[kind] = now
        # Asked here, without a lock: when the thread gets to it, a command that wants no warnings
        # for a while may have set the level back.
        if self._logger.getEffectiveLevel() > logging.WARNING:
            return
        # In a thread of its own: a handler of the host's writes somewhere, which may take for ever.
        # A bare one, for `threading` has locks that a signal handler could find taken.
        saying = self._saying[kind] = allocate_lock()
        saying.acquire()
        try:
            start_new_thread(
                self._log, (message, args, sys.exc_info() if exc_info else None, saying)
            )
        except RuntimeError:  # Python exits, and starts no threads any more
            saying.release()

    def wait(self) -> None:
        """Wait a moment until what was warned of has been logged: the process may end next."""
        until = monotonic() + _SAY_SECONDS
        for saying in list(self._saying.values()):
            if saying.acquire(timeout=max(0.0, until - monotonic())):
                saying.release()

    def _forget_what_is_said(self) -> None:
        self._saying = {}  # nobody is left to open what was taken

    def _log(self, message: str, args: tuple[object, ...], exc_info: Any, saying: LockType) -> None:
        # A host that configures logging switches off the loggers that it does not name.
        self._logger.disabled = False
        try:
            self._logger.warning(
                message + " Further ones are counted, and not logged, for a minute.",
                *args,
                exc_info=exc_info,
            )
        except Exception:
            return  # a filter or handler of the host's raised; what happened is counted in any case
        finally:
            saying.release()
