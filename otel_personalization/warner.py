"""Warnings that do not flood: at most one a minute of each kind."""

from __future__ import annotations

import logging
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
        now = monotonic()
        if now - self._warned.get(kind, -INTERVAL_SECONDS) < INTERVAL_SECONDS:
            return
        self._warned[kind] = now
        try:
            self._logger.warning(
                message + " Further ones are counted, and not told, for a minute.",
                *args,
                exc_info=exc_info,
            )
        except Exception:
            return  # a filter or handler of the host's raised; what happened is counted in any case
