"""Runs the ranking service as a process of its own, on a free port of loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
START_SECONDS: Final = 30
STOP_SECONDS: Final = 10
_ADDRESS: Final = re.compile(r"(?:running on|Listening at:) (http://127\.0\.0\.1:\d+)")

SINGLE_PROCESS: Final = (sys.executable, "-m", "examples.ranking_service")


@contextmanager
def running(
    folder: Path,
    otlp_endpoint: str,
    command: tuple[str, ...] = SINGLE_PROCESS,
    ending: signal.Signals = signal.SIGTERM,
    **variables: str,
) -> Iterator[str]:
    """The service, from when it listens until it has ended.

    Args:
        folder: where it stores its data and writes its log.
        otlp_endpoint: where its counters go.
        command: how it is started.
        ending: the signal that tells it to end.
        variables: of its environment, on top; variables of OpenTelemetry's are not inherited.

    Yields:
        Its URL.

    Raises:
        RuntimeError: it did not start.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL")}
    environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_PERSONALIZATION_LOG": str(folder / "decisions.log"),
        "NO_PROXY": "127.0.0.1",
        "RANKING_DATA_DIR": str(folder),
        "RANKING_PORT": "0",
        **variables,
    }
    log = folder / "service.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=stream, stderr=stream
        )
    try:
        yield _address(process, log)
    finally:
        process.send_signal(ending)
        try:
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """The URL on which the service says that it listens."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if found := _ADDRESS.search(log.read_text()):
            return found.group(1)
        time.sleep(0.05)
    raise RuntimeError(f"the ranking service did not start:\n{log.read_text()}")
