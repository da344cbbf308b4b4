"""Starts the ranking service in several processes, as gunicorn forks them."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from examples.stack.servers import REPOSITORY, Server

CONFIGURATION: Final = REPOSITORY / "examples" / "ranking_service" / "gunicorn.conf.py"


class RankingService(Server):
    """The ranking service under gunicorn.

    Args:
        folder: for its data, its log lines and its log.
        port: where it listens.
        otlp_endpoint: where its counters go.
        export_seconds: between two exports of a process.
    """

    LINES: Final = "decisions.ndjson"
    """The file with a line for each decision."""

    def __init__(
        self, folder: Path, port: int, otlp_endpoint: str, *, export_seconds: float
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            [sys.executable, "-m", "gunicorn", "--chdir", REPOSITORY, "-c", CONFIGURATION],
            f"{self.url}/health",
            folder / "service.log",
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": str(int(1000 * export_seconds)),
                "OTEL_PERSONALIZATION_LOG": str(folder / self.LINES),
                "NO_PROXY": "127.0.0.1",
                "RANKING_HOST": "127.0.0.1",
                "RANKING_PORT": str(port),
                "RANKING_DATA_DIR": str(folder),
            },
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal, and return the seconds until all its processes have ended."""
        group = self.process.pid if self.process else None
        try:
            return super().stop(number)
        finally:
            if group:
                with suppress(ProcessLookupError):  # as it should be: none outlived its master
                    os.killpg(group, signal.SIGKILL)
