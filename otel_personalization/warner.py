"""Warnings that do not flood: at most one a minute of each kind."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from time import monotonic
from typing import Final

INTERVAL_SECONDS: Final = 60.0


class Warner:
    """Warns through a logger.

    Args:
        logger: of the module that warns.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._warned: dict[str, float] = {}

    def warn(self, kind: str, message: str, *args: object, exc_info: bool = False) -> None:
        """Log a warning, unless there was one of this kind within the last minute.

        Args:
            kind: one of few.
            message: what happened, as a format.
            *args: what stands in the format.
            exc_info: whether to show the traceback of the exception being handled.
        """
        if self._is_due(kind):
            self._log(message, args, exc_info)

    def warn_aside(self, kind: str, message: str, *args: object) -> None:
        """As `warn`, from a thread of its own: for where logging may take long, or for ever."""
        if self._is_due(kind):
            with suppress(RuntimeError):  # Python exits, and starts no threads any more
                threading.Thread(target=self._log, args=(message, args, False), daemon=True).start()

    def _is_due(self, kind: str) -> bool:
        now = monotonic()
        if now - self._warned.get(kind, -INTERVAL_SECONDS) < INTERVAL_SECONDS:
            return False
        self._warned[kind] = now
        return True

    def _log(self, message: str, args: tuple[object, ...], exc_info: bool) -> None:
        try:
            self._logger.warning(
                message + " Further ones are counted, and not told, for a minute.",
                *args,
                exc_info=exc_info,
            )
        except Exception:
            return  # a filter or handler of the host's raised; what happened is counted in any case
