"""The lifespan of an ASGI application flushes, whatever the application knows of it."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.metrics import NoOpMeterProvider

from otel_personalization import PersonalizationHook
from otel_personalization.asgi import FlushAtShutdown


class Flushed(PersonalizationHook):
    def __init__(self, said):
        super().__init__(meter_provider=NoOpMeterProvider())
        self._said = said

    def finish(self, timeout=5.0):
        self._said.append("flushed")
        return True


def live(app):
    """What a server and a hook say while an application lives, in order."""
    said = []

    async def run():
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive():
            return {"type": next(messages)}

        async def send(message):
            said.append(message["type"])

        await FlushAtShutdown(app, Flushed(said))({"type": "lifespan"}, receive, send)

    asyncio.run(run())
    return said


async def knowing(scope, receive, send):
    for _ in range(2):
        message = await receive()
        await send({"type": message["type"] + ".complete"})


async def failing_at_shutdown(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "x"})


async def refusing(scope, receive, send):
    raise AssertionError(scope["type"])


async def receiving_then_refusing(scope, receive, send):
    await receive()
    raise ValueError


async def ignoring(scope, receive, send):
    return


@pytest.mark.parametrize("app", [knowing, refusing, receiving_then_refusing, ignoring])
def test_it_flushes_before_it_says_that_it_has_shut_down(app):
    assert live(app) == ["lifespan.startup.complete", "flushed", "lifespan.shutdown.complete"]


def test_it_flushes_where_the_shutdown_fails():
    assert live(failing_at_shutdown) == [
        "lifespan.startup.complete",
        "flushed",
        "lifespan.shutdown.failed",
    ]


def test_a_failed_startup_stays_one():
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError):
        live(app)


def test_requests_pass_through():
    async def app(scope, receive, send):
        await send(await receive())

    said = []

    async def run():
        async def receive():
            return {"type": "http.request"}

        async def send(message):
            said.append(message)

        await FlushAtShutdown(app)({"type": "http"}, receive, send)

    asyncio.run(run())
    assert said == [{"type": "http.request"}]


def test_nothing_instrumented_is_nothing_to_flush():
    async def run():
        messages = iter(["lifespan.startup", "lifespan.shutdown"])
        said = []

        async def receive():
            return {"type": next(messages)}

        async def send(message):
            said.append(message["type"])

        await FlushAtShutdown(knowing)({"type": "lifespan"}, receive, send)
        return said

    assert asyncio.run(run())[-1] == "lifespan.shutdown.complete"
