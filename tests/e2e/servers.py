"""Real servers on loopback, clients that load them, and what is compared afterwards."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.stack.servers import free_port
from tests.otlp_receiver import Received

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
SURFACES = ("home", "cart", "pdp")
START_SECONDS = 40.0
"""Until a server answers, on a machine that is busy with other things."""
HANG_SECONDS = 40.0
"""Past gunicorn's own 30 s after which it kills its workers."""

Cells = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Answer:
    """What an answer that arrived complete says."""

    decision_id: str
    surface: str
    decisions: int
    served: int
    personalized: int
    pid: int
    asked: float
    """Wall clock, in s."""
    arrived: float
    finalize_us: float

    @property
    def seconds(self) -> float:
        return self.arrived - self.asked


class Client:
    """Asks over one connection; or over one each, if it is not kept alive."""

    def __init__(self, port: int, name: str, *, keep_alive: bool = False) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {} if keep_alive else {"Connection": "close"}
        self._name = name
        self._asked = 0
        self.answers: list[Answer] = []
        self.unanswered: list[str] = []

    def ask(self, times: int = 1) -> bool:
        """Whether there was an answer."""
        n = self._asked
        self._asked += 1
        decision_id = f"{self._name}-{n}"
        query = f"id={decision_id}&surface={SURFACES[n % 3]}&n={n % 8}&times={times}"
        asked = time.time()
        try:
            self._connection.request("GET", f"/rank?{query}", headers=self._headers)
            response = self._connection.getresponse()
            said = json.loads(response.read())
            assert response.status == 200
        except (OSError, http.client.HTTPException):
            self.unanswered.append(decision_id)
            self._connection.close()
            return False
        self.answers.append(Answer(**said, asked=asked, arrived=time.time()))
        return True

    def close(self) -> None:
        self._connection.close()


class Load:
    """Clients in threads of their own, that ask until they are stopped."""

    def __init__(self, port: int, clients: int = 4, *, keep_alive: bool = False) -> None:
        self._stopped = threading.Event()
        names = (f"{os.getpid()}-{random.getrandbits(32):08x}-{n}" for n in range(clients))
        self.clients = [Client(port, name, keep_alive=keep_alive) for name in names]
        self._threads = [
            threading.Thread(target=self._run, args=(client,)) for client in self.clients
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, client: Client) -> None:
        with closing(client):
            while not self._stopped.is_set():
                if not client.ask():
                    time.sleep(0.01)  # not to spin once the server is gone

    @property
    def answers(self) -> list[Answer]:
        return [answer for client in self.clients for answer in client.answers]

    @property
    def unanswered(self) -> list[str]:
        return [decision_id for client in self.clients for decision_id in client.unanswered]

    def until(self, answers: int) -> Load:
        """Wait for so many answers."""
        wait_for(lambda: len(self.answers) >= answers, f"{answers} answers")
        return self

    def stop(self) -> list[Answer]:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        return self.answers


@dataclass
class Server:
    """A server process with its workers, all in one process group."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    stderr: Path

    def load(self, answers: int = 600, clients: int = 4) -> list[Answer]:
        """Load it until there are so many answers, all of which must have come."""
        load = Load(self.port, clients)
        try:
            load.until(answers)
        finally:
            load.stop()
        assert load.unanswered == []
        return load.answers

    def stop(self, number: signal.Signals = signal.SIGTERM, group: bool = False) -> float:
        """Send a signal, and return the seconds until the process and its workers are gone.

        Args:
            number: the signal.
            group: send it to the workers, too, as a terminal does on Ctrl-C.
        """
        began = time.monotonic()
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        try:
            self.process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the server hung:\n{self.errors}")
        wait_for(lambda: not self.is_alive, "the workers to end")
        return time.monotonic() - began

    @property
    def is_alive(self) -> bool:
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def errors(self) -> str:
        return self.stderr.read_text(errors="replace")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log lines, each of which must be whole."""
        return [json.loads(line) for line in self.log.read_bytes().splitlines()]


def gunicorn(app: str, *options: str, workers: int = 2) -> tuple[str, ...]:
    return ("gunicorn", app, "--workers", str(workers), "--bind", "127.0.0.1:{port}", *options)


def uvicorn(app: str, *options: str) -> tuple[str, ...]:
    quiet = ("--no-access-log", "--no-use-colors")
    return ("uvicorn", app, "--host", "127.0.0.1", "--port", "{port}", *quiet, *options)


@contextmanager
def serving(
    command: Sequence[str],
    endpoint: str,
    folder: Path,
    *,
    wrapper: Sequence[str] = (),
    stdout: int | None = None,
    **variables: str,
) -> Iterator[Server]:
    """Start a server, and wait until it answers. What is left of it at the end is killed.

    Args:
        command: that of `gunicorn` or `uvicorn`.
        endpoint: of the OTLP receiver.
        folder: for its log lines and its stderr.
        wrapper: a command that runs this command.
        stdout: a descriptor; with its stderr, if None.
        variables: of the environment. Nothing is exported by the clock, unless they say so: what
            arrives was flushed, or follows the first point of a series.
    """
    port = free_port()
    log, stderr = folder / f"lines-{port}.ndjson", folder / f"stderr-{port}.txt"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process",
        "OTEL_PERSONALIZATION_LOG": str(log),
        "PYTHONUNBUFFERED": "1",
    }
    name, *arguments = (part.format(port=port) for part in command)
    with stderr.open("wb") as errors:
        process = subprocess.Popen(
            [*wrapper, str(SCRIPTS / name), *arguments],
            cwd=REPOSITORY,
            env=environment | {"PYTHONPATH": str(REPOSITORY)} | variables,
            stdin=subprocess.DEVNULL,
            stdout=errors if stdout is None else stdout,
            stderr=errors,
            start_new_session=True,
        )
    server = Server(process, port, log, stderr)
    try:
        wait_for(lambda: _answers(server), "the server to answer", START_SECONDS)
        yield server
    except BaseException:
        print(server.errors[-4000:])
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(server: Server) -> bool:
    if server.process.poll() is not None:
        pytest.fail(f"the server ended:\n{server.errors}")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", "/ready", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_for(condition: Callable[[], object], what: str, seconds: float = HANG_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)


# --- what is compared -------------------------------------------------------------------------


def answered(answers: Iterable[Answer]) -> Cells:
    """By surface, what the answers said."""
    cells: dict[str, Counter[str]] = {}
    for answer in answers:
        cells.setdefault(answer.surface, Counter()).update(
            decisions=answer.decisions, served=answer.served, personalized=answer.personalized
        )
    return {surface: dict(counts) for surface, counts in cells.items()}


def counted(received: Received, pid: int | None = None) -> Cells:
    """By surface, what the backend was told; by one process, if it is named."""
    cells: dict[str, dict[str, int]] = {}
    names = {
        "recsys.decisions": "decisions",
        "recsys.served_items": "served",
        "recsys.personalized_items": "personalized",
    }
    with received.lock:
        for series, points in received.series.items():
            if series.name not in names:
                continue
            if pid is not None and ("process.pid", str(pid)) not in series.resource:
                continue
            counts = cells.setdefault(
                dict(series.attributes)["surface"], dict.fromkeys(names.values(), 0)
            )
            counts[names[series.name]] += points[-1].value
    return {surface: counts for surface, counts in cells.items() if any(counts.values())}


def logged(lines: Iterable[dict[str, Any]]) -> Cells:
    """By surface, what the log lines add up to."""
    cells: dict[str, Counter[str]] = {}
    for line in lines:
        cells.setdefault(line["surface"], Counter()).update(
            decisions=1,
            served=line["served_items_count"],
            personalized=line["personalized_items_count"],
        )
    return {surface: dict(counts) for surface, counts in cells.items()}


def check_exact(received: Received, server: Server, answers: Sequence[Answer]) -> None:
    """Answers, counters and log lines tell the same, decision by decision and item by item."""
    assert len(answers) > 0
    assert sorted(line["decision_id"] for line in server.lines) == sorted(
        answer.decision_id for answer in answers
    )
    assert logged(server.lines) == answered(answers)
    assert counted(received) == answered(answers)
    check_clean(received)


def check_clean(received: Received) -> None:
    assert received.problems() == []
    for name in ("dropped_log_records", "internal_errors", "malformed_traces"):
        assert received.total(f"otel_personalization.{name}") == 0
