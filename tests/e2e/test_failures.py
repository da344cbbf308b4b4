"""Backends and logs that fail: requests go on, exits are quick, losses are told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import quantiles

import pytest

from examples.stack.servers import free_port
from tests.e2e.backends import black_hole, refusing, silent, slow
from tests.e2e.servers import (
    Answer,
    Client,
    Server,
    answered,
    counted,
    gunicorn,
    logged,
    serving,
    uvicorn,
    wait_for,
)
from tests.otlp_receiver import Received, receiving

WSGI, ASGI = "tests.e2e.instrumented:wsgi", "tests.e2e.instrumented:asgi"
SERVERS = {
    "uvicorn": uvicorn(ASGI),
    "gunicorn sync": gunicorn(WSGI),
    "gunicorn gthread": gunicorn(WSGI, "--worker-class", "gthread", "--threads", "4"),
    "gunicorn sync preload": gunicorn(WSGI, "--preload"),
    "gunicorn uvicorn preload": gunicorn(
        ASGI, "--preload", "--worker-class", "uvicorn_worker.UvicornWorker"
    ),
    "uvicorn workers": uvicorn(ASGI, "--workers", "2"),
}
BACKENDS = {"refusing": refusing, "slow": slow, "black hole": black_hole}
EXIT_SECONDS = 5.0
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "500"}

WARNINGS = ("The counters could not be flushed", "Failed to export")
"""Ours, and the OpenTelemetry SDK's."""

backends = pytest.mark.parametrize("backend", BACKENDS)

ROUNDS, REQUESTS = 20, 100


LATENCY = 1.5
"""Bounds of ratios, for a machine that is busy with other things; measured is about 1."""
LATENCY_P99 = 3.0


def check_latencies(healthy: Server, broken: Server) -> tuple[list[Answer], str]:
    """Ask both by turns, over a connection each that is kept alive: neither is slower.

    Returns:
        The answers of the broken one, and what was measured.
    """
    with (
        closing(Client(healthy.port, "healthy", keep_alive=True)) as well,
        closing(Client(broken.port, "broken", keep_alive=True)) as ill,
    ):
        for _ in range(ROUNDS):
            for client in (well, ill):
                for _ in range(REQUESTS):
                    client.ask()
    assert well.unanswered + ill.unanswered == []
    well_p50, well_p99 = percentiles(answer.seconds for answer in well.answers)
    ill_p50, ill_p99 = percentiles(answer.seconds for answer in ill.answers)
    well_hook, _ = percentiles(answer.finalize_us for answer in well.answers)
    ill_hook, _ = percentiles(answer.finalize_us for answer in ill.answers)
    said = (
        f"request p50 {1000 * ill_p50:.2f} ms, {ill_p50 / well_p50:.2f} of healthy; "
        f"p99 {1000 * ill_p99:.2f} ms, {ill_p99 / well_p99:.2f} of healthy; "
        f"finalize p50 {ill_hook:.0f} us, {ill_hook / well_hook:.2f} of healthy"
    )
    assert ill_p50 / well_p50 < LATENCY, said
    assert ill_p99 / well_p99 < LATENCY_P99, said
    assert ill_hook / well_hook < LATENCY, said
    return ill.answers, said


def percentiles(values: Iterable[float]) -> tuple[float, float]:
    """p50 and p99."""
    cuts = quantiles(values, n=100)
    return cuts[49], cuts[98]


# --- backends ---------------------------------------------------------------------------------


@backends
def test_requests_do_not_notice_a_backend_that_fails(backend, tmp_path, measure):
    with (
        receiving() as received,
        BACKENDS[backend]() as failing,
        serving(SERVERS["uvicorn"], received.endpoint, tmp_path, **OFTEN) as healthy,
        serving(SERVERS["uvicorn"], failing.endpoint, tmp_path, **OFTEN) as broken,
    ):
        answers, said = check_latencies(healthy, broken)
        broken.stop()
        assert logged(broken.lines) == answered(answers)
        measure(said)


@pytest.mark.parametrize("when", ["at once", "export in flight"])
@pytest.mark.parametrize(
    ("server", "backend"),
    [
        *((server, "black hole") for server in SERVERS),
        ("uvicorn", "refusing"),
        ("uvicorn workers", "refusing"),
        ("gunicorn gthread", "refusing"),
        ("gunicorn sync preload", "refusing"),
        ("gunicorn sync", "slow"),
    ],
)
def test_an_exit_is_quick_and_warns_though_the_backend_fails(
    server, backend, when, tmp_path, measure
):
    """At once: before the first export, so that there is one more to be tried than otherwise."""
    often = OFTEN if when == "export in flight" else {}
    with (
        BACKENDS[backend]() as failing,
        serving(SERVERS[server], failing.endpoint, tmp_path, **often) as broken,
    ):
        answers = broken.load(100)
        if when == "export in flight" and backend != "refusing":
            wait_for(lambda: failing.in_flight, "an export in flight")
        seconds = broken.stop()
        measure(f"{seconds:.2f} s from SIGTERM to gone")
        assert seconds < EXIT_SECONDS
        assert logged(broken.lines) == answered(answers), "all lines are there"
        assert any(said in broken.errors for said in WARNINGS), "the loss is told"


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn sync"])
@pytest.mark.parametrize("backend", ["refusing", "silent"])
def test_an_exit_is_quick_though_the_backend_fails_over_grpc(server, backend, tmp_path, measure):
    with (
        {"refusing": refusing, "silent": silent}[backend]() as failing,
        serving(
            SERVERS[server], failing.endpoint, tmp_path, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", **OFTEN
        ) as broken,
    ):
        answers = broken.load(100)
        if backend == "silent":
            wait_for(lambda: failing.in_flight, "an export in flight")
        seconds = broken.stop()
        measure(f"{seconds:.2f} s from SIGTERM to gone")
        assert seconds < EXIT_SECONDS
        assert logged(broken.lines) == answered(answers)


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("server", ["uvicorn", "gunicorn gthread", "gunicorn sync preload"])
def test_an_exit_is_quick_though_backend_and_log_both_hang(server, end, tmp_path, measure):
    """At SIGINT uvicorn flushes in its lifespan, and then runs exit handlers on top."""
    with (
        black_hole() as failing,
        fifo(tmp_path) as path,
        serving(
            SERVERS[server], failing.endpoint, tmp_path, OTEL_PERSONALIZATION_LOG=str(path)
        ) as broken,
        closing(Client(broken.port, "filling")) as client,
    ):
        for _ in range(6):
            assert client.ask(times=200), "more than the pipe holds"
        seconds = broken.stop(signal.Signals[end])
        measure(f"{seconds:.2f} s from {end} to gone")
        assert seconds < EXIT_SECONDS
        assert any(said in broken.errors for said in WARNINGS)


def test_counters_catch_up_when_the_backend_is_back(tmp_path):
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with serving(SERVERS["gunicorn sync"], endpoint, tmp_path, **OFTEN) as server:
        answers = server.load()
        wait_for(lambda: "Failed to export" in server.errors, "an export to fail")
        with receiving(port=port) as received:
            wait_for(lambda: counted(received) == answered(answers), "the counters to catch up")
            answers += server.load()
            server.stop()
            assert counted(received) == answered(answers)
            assert logged(server.lines) == answered(answers)


# --- logs -------------------------------------------------------------------------------------


def check_lost_lines_are_counted(
    received: Received, server: Server, answers: Sequence[Answer], written: int
) -> str:
    """The counters are exact, and say how many lines are missing; a warning says that some are."""
    served = sum(answer.decisions for answer in answers)
    dropped = received.total("otel_personalization.dropped_log_records")
    assert counted(received) == answered(answers)
    assert dropped + written == served
    assert dropped > 0
    assert received.problems() == []
    assert "Log lines were lost" in server.errors or "Log lines are dropped" in server.errors
    return f"{written} of {served} lines written, {dropped} counted as dropped"


def test_a_full_disk_slows_nothing_and_its_losses_are_counted(tmp_path, measure):
    full = {"OTEL_PERSONALIZATION_LOG": "/dev/full"}
    with (
        receiving() as other,
        receiving() as received,
        serving(SERVERS["uvicorn"], other.endpoint, tmp_path) as healthy,
        serving(SERVERS["uvicorn"], received.endpoint, tmp_path, **full) as broken,
    ):
        answers, said = check_latencies(healthy, broken)
        seconds = broken.stop()
        lost = check_lost_lines_are_counted(received, broken, answers, written=0)
        assert seconds < EXIT_SECONDS
        measure(f"{said}; exit {seconds:.2f} s; {lost}")


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT"])
def test_a_stalled_reader_of_the_log_slows_nothing_and_its_losses_are_counted(
    end, tmp_path, measure
):
    with (
        receiving() as other,
        receiving() as received,
        fifo(tmp_path) as path,
        serving(SERVERS["uvicorn"], other.endpoint, tmp_path) as healthy,
        serving(
            SERVERS["uvicorn"], received.endpoint, tmp_path, OTEL_PERSONALIZATION_LOG=str(path)
        ) as broken,
    ):
        with closing(Client(broken.port, "filling")) as client:
            for _ in range(6):
                assert client.ask(times=2000), "more than pipe and queue hold"
        answers, said = check_latencies(healthy, broken)
        answers += client.answers
        seconds = broken.stop(signal.Signals[end])
        written = path.read_lines()
        lost = check_lost_lines_are_counted(received, broken, answers, written)
        assert seconds < EXIT_SECONDS
        measure(f"{said}; exit {seconds:.2f} s; {lost}")


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn sync"])
@pytest.mark.parametrize("closed", ["before the start", "by its reader"])
def test_a_closed_stdout_slows_nothing_and_its_losses_are_counted(
    closed, server, tmp_path, measure
):
    shell = ("sh", "-c", 'exec "$0" "$@" >&-') if closed == "before the start" else ()
    reader, writer = os.pipe()
    os.close(reader)
    with (
        receiving() as other,
        receiving() as received,
        serving(SERVERS[server], other.endpoint, tmp_path) as healthy,
        serving(
            SERVERS[server],
            received.endpoint,
            tmp_path,
            wrapper=shell,
            stdout=writer,
            OTEL_PERSONALIZATION_LOG="stdout",
        ) as broken,
    ):
        os.close(writer)
        answers, said = check_latencies(healthy, broken)
        seconds = broken.stop()
        lost = check_lost_lines_are_counted(received, broken, answers, written=0)
        assert seconds < EXIT_SECONDS
        measure(f"{said}; exit {seconds:.2f} s; {lost}")


class Fifo(os.PathLike[str]):
    """A named pipe that is open for reading, and that nobody reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def __fspath__(self) -> str:
        return str(self._path)

    __str__ = __fspath__

    def read_lines(self) -> int:
        """How many whole lines it held. What is after the last newline is no line."""
        held = b""
        while read := os.read(self.descriptor, 1 << 20):
            held += read
        whole, _, _ = held.rpartition(b"\n")
        return len([json.loads(line) for line in whole.splitlines()])

    def close(self) -> None:
        os.close(self.descriptor)


def fifo(folder: Path) -> closing[Fifo]:
    return closing(Fifo(folder / "fifo"))
