"""Exact under real servers: what the answers said is what the backend and the log received."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.e2e.servers import (
    SCRIPTS,
    Answer,
    Load,
    Server,
    answered,
    check_clean,
    check_exact,
    counted,
    gunicorn,
    logged,
    serving,
    uvicorn,
    wait_for,
)
from tests.otlp_receiver import Received, receiving

WSGI, ASGI = "tests.e2e.instrumented:wsgi", "tests.e2e.instrumented:asgi"
BARE_ASGI = "tests.e2e.instrumented:bare_asgi"
WORKERS = {
    "sync": (WSGI,),
    "gthread": (WSGI, "--worker-class", "gthread", "--threads", "4"),
    "uvicorn": (ASGI, "--worker-class", "uvicorn_worker.UvicornWorker"),
}
PRELOAD = {"preload": ("--preload",), "no preload": ()}
ENDS = {
    "SIGTERM": (signal.SIGTERM, False),
    "SIGTERM to all": (signal.SIGTERM, True),  # as systemd sends it
    "SIGINT": (signal.SIGINT, False),
    "Ctrl-C": (signal.SIGINT, True),
}

kinds = pytest.mark.parametrize("kind", WORKERS)
preloads = pytest.mark.parametrize("preload", PRELOAD)


def load_twice(server: Server, received: Received) -> list[Answer]:
    """The first half is exported when the first points are followed up; nothing but a flush at the
    end brings the second."""
    answers = server.load()
    wait_for(lambda: counted(received) == answered(answers), "the first points to be followed up")
    return answers + server.load()


# --- gunicorn ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        *((kind, "SIGTERM") for kind in WORKERS),
        *((kind, "SIGTERM to all") for kind in WORKERS),
        ("sync", "SIGINT"),
        ("gthread", "SIGINT"),
        ("sync", "Ctrl-C"),
        ("uvicorn", "Ctrl-C"),
    ],
)
@preloads
def test_gunicorn_is_exact(kind, preload, end, tmp_path, measure):
    """Ctrl-C is not for gthread: its worker may lock itself up when the two signals for a quick
    shutdown, the terminal's and the master's, come at once."""
    command = gunicorn(*WORKERS[kind], *PRELOAD[preload])
    with receiving() as received, serving(command, received.endpoint, tmp_path) as server:
        answers = load_twice(server, received)
        seconds = server.stop(*ENDS[end])
        check_exact(received, server, answers)
        measure(f"{len(answers)} answers, exact; {seconds:.1f} s to gone")


@preloads
@pytest.mark.parametrize("kind", ["sync", "uvicorn"])
def test_gunicorn_is_exact_over_grpc(kind, preload, tmp_path):
    command = gunicorn(*WORKERS[kind], *PRELOAD[preload])
    grpc = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with (
        receiving("grpc") as received,
        serving(command, received.endpoint, tmp_path, **grpc) as server,
    ):
        answers = load_twice(server, received)
        server.stop()
        check_exact(received, server, answers)


@kinds
def test_gunicorn_is_exact_when_it_ends_before_anything_was_exported(kind, tmp_path):
    command = gunicorn(*WORKERS[kind], "--preload")
    with receiving() as received, serving(command, received.endpoint, tmp_path) as server:
        answers = server.load(40)
        server.stop()
        check_exact(received, server, answers)


def test_a_quick_shutdown_of_gunicorn_with_uvicorn_workers_loses_what_was_not_exported(
    tmp_path, measure
):
    """uvicorn's worker passes over SIGQUIT, and is killed when the graceful timeout is over."""
    command = gunicorn(*WORKERS["uvicorn"], "--graceful-timeout", "1")
    with receiving() as received, serving(command, received.endpoint, tmp_path) as server:
        first = server.load()
        wait_for(lambda: counted(received) == answered(first), "the follow-up")
        answers = first + server.load()
        seconds = server.stop(signal.SIGINT)
        assert counted(received) == answered(first)
        assert logged(server.lines) == answered(answers), "the lines have been written long before"
        check_clean(received)
        lost = len(answers) - len(first)
        measure(f"{lost} of {len(answers)} not counted, no line lost; {seconds:.1f} s")


@preloads
@kinds
def test_load_during_the_shutdown_is_counted_as_it_is_logged(kind, preload, tmp_path, measure):
    command = gunicorn(*WORKERS[kind], *PRELOAD[preload])
    with receiving() as received, serving(command, received.endpoint, tmp_path) as server:
        load = Load(server.port)
        try:
            load.until(300)
            server.stop()
        finally:
            answers = load.stop()
        found = check_served(received, server, load)
        measure(f"{len(answers)} answers, {found - len(answers)} served without an answer")


@preloads
@kinds
def test_recycled_workers_lose_nothing(kind, preload, tmp_path, measure):
    recycle = ("--max-requests", "60", "--max-requests-jitter", "20")
    command = gunicorn(*WORKERS[kind], *PRELOAD[preload], *recycle)
    with receiving() as received, serving(command, received.endpoint, tmp_path) as server:
        load = Load(server.port)
        try:
            wait_for(
                lambda: len({answer.pid for answer in load.answers}) >= 6,
                "six workers one after the other",
            )
        finally:
            answers = load.stop()
        server.stop()
        found = check_served(received, server, load)
        pids = len({answer.pid for answer in answers})
        measure(f"{len(answers)} answers of {pids} workers, {found - len(answers)} not answered")


def check_served(received: Received, server: Server, load: Load) -> int:
    """Counters equal lines; lines are those of the answers, and of requests that got none."""
    served = [line["decision_id"] for line in server.lines]
    answers = {answer.decision_id for answer in load.answers}
    assert len(served) == len(set(served))
    assert answers <= set(served)
    assert set(served) - answers <= set(load.unanswered)
    assert counted(received) == logged(server.lines)
    answered_lines = [line for line in server.lines if line["decision_id"] in answers]
    assert logged(answered_lines) == answered(load.answers)
    check_clean(received)
    return len(served)


@pytest.mark.parametrize("provider", ["pipeline", "own"])
def test_workers_of_an_old_master_have_series_as_young_as_they_are(provider, tmp_path):
    """A backend drops points, or misreads them, that say to have begun an hour ago."""
    began = time.time_ns()
    command = gunicorn(WSGI, "--preload")
    variables = {"E2E_AGE": "hour", "E2E_PROVIDER": provider}
    with (
        receiving() as received,
        serving(command, received.endpoint, tmp_path, **variables) as server,
    ):
        answers = server.load()
        server.stop()
        check_exact(received, server, answers)
        pids = {str(answer.pid) for answer in answers}
        with received.lock:
            starts = {}
            for series, points in received.series.items():
                pid = dict(series.resource)["process.pid"]
                starts.setdefault(pid in pids, []).extend(point.start for point in points)
        assert max(starts[False]) < began - 3e12, "the master is an hour old"
        assert min(starts[True]) >= began, f"{(began - min(starts[True])) / 1e9} s too old"


def test_a_killed_worker_loses_no_more_than_the_time_since_its_last_export(tmp_path, measure):
    interval = 0.5
    command = gunicorn(WSGI, workers=1)
    variables = {"OTEL_METRIC_EXPORT_INTERVAL": f"{1000 * interval:g}"}
    with (
        receiving() as received,
        serving(command, received.endpoint, tmp_path, **variables) as server,
    ):
        load = Load(server.port)
        try:
            load.until(100)
            began = time.time()
            wait_for(lambda: time.time() > began + 2.2, "some exports")
            killed = load.answers[-1].pid
            os.kill(killed, signal.SIGKILL)
            at = time.time()
            wait_for(
                lambda: len({answer.pid for answer in load.answers}) > 1, "the next worker's answer"
            )
        finally:
            answers = load.stop()
        server.stop()

        of_killed = [answer for answer in answers if answer.pid == killed]
        with received.lock:
            exported = max(
                point.time / 1e9
                for series, points in received.series.items()
                if ("process.pid", str(killed)) in series.resource
                for point in points
            )
        in_time = [answer for answer in of_killed if answer.arrived < exported]
        assert exported > at - interval - 1, "it exported as often as it was told to"
        got = decisions(counted(received, killed))
        assert len(in_time) <= got <= len(of_killed) + len(load.unanswered)
        of_next = [answer for answer in answers if answer.pid != killed]
        assert counted(received, of_next[0].pid) == answered(of_next)
        lines = {line["decision_id"] for line in server.lines}
        unwritten = [answer for answer in answers if answer.decision_id not in lines]
        assert all(at - answer.arrived < 1 for answer in unwritten)
        assert received.problems() == []
        measure(
            f"of {len(of_killed)} answers {len(of_killed) - got} not counted, {len(unwritten)} "
            f"not logged; killed {at - exported:.2f} s after the last export of each {interval} s"
        )


def decisions(cells) -> int:
    return sum(counts["decisions"] for counts in cells.values())


# --- uvicorn ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_uvicorn_is_exact(workers, end, tmp_path, measure):
    command = uvicorn(ASGI, "--workers", workers)
    with receiving() as received, serving(command, received.endpoint, tmp_path) as server:
        answers = load_twice(server, received)
        seconds = server.stop(*ENDS[end])
        check_exact(received, server, answers)
        measure(f"{len(answers)} answers, exact; {seconds:.1f} s to gone")


BARE = {
    "uvicorn": uvicorn(BARE_ASGI),
    "uvicorn with workers": uvicorn(BARE_ASGI, "--workers", "2"),
    "gunicorn": gunicorn(BARE_ASGI, *WORKERS["uvicorn"][1:]),
}


@pytest.mark.parametrize("kind", BARE)
def test_uvicorn_loses_counts_without_the_wrapper(kind, tmp_path, measure):
    """What FlushAtShutdown is for."""
    with receiving() as received, serving(BARE[kind], received.endpoint, tmp_path) as server:
        first = server.load()
        wait_for(lambda: counted(received) == answered(first), "the follow-up")
        answers = first + server.load()
        server.stop()
        assert counted(received) == answered(first)
        check_clean(received)
        measure(f"{len(answers) - len(first)} of {len(answers)} not counted")


# --- zero code --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("kind", ["sync", "gthread"])
@preloads
def test_zero_code_is_exact(kind, preload, end, tmp_path, measure):
    """The provider is the distro's, made in the master before it forks."""
    _, *options = WORKERS[kind]
    command = gunicorn("tests.e2e.host:wsgi", *options, *PRELOAD[preload])
    with (
        receiving() as received,
        serving(
            command,
            received.endpoint,
            tmp_path,
            wrapper=(str(SCRIPTS / "opentelemetry-instrument"),),
            OTEL_PERSONALIZATION_TARGET="tests.e2e.host:finalize",
            OTEL_TRACES_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
        ) as server,
    ):
        answers = server.load()
        seconds = server.stop(*ENDS[end])
        check_exact(received, server, answers)
        measure(f"{len(answers)} answers, exact; {seconds:.1f} s to gone")
