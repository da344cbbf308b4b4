"""The lifespan of an ASGI application flushes, whatever the application knows of it."""

from __future__ import annotations

import asyncio

import pytest

from otel_personalization import PersonalizationHook, asgi
from otel_personalization.asgi import FlushAtShutdown
from tests.conftest import read_lines

STARTED, ENDED = "lifespan.startup.complete", "lifespan.shutdown.complete"


@pytest.fixture
def live(monkeypatch):
    """Lets an application live; tells what the server was sent and when all was flushed."""
    said: list[str] = []
    monkeypatch.setattr(asgi, "finish_process", lambda _: said.append("flushed"))

    def live(app, messages=("lifespan.startup", "lifespan.shutdown")):
        async def run():
            waiting = iter(messages)

            async def receive():
                for message in waiting:
                    return {"type": message}
                raise asyncio.CancelledError  # of a server that ends

            async def send(message):
                said.append(message["type"])

            await FlushAtShutdown(app)({"type": "lifespan"}, receive, send)

        try:
            asyncio.run(run())
        except Exception as error:
            said.append(type(error).__name__)
        except asyncio.CancelledError:
            said.append("cancelled")
        return said

    return live


async def knowing(scope, receive, send):
    for _ in range(2):
        message = await receive()
        await send({"type": message["type"] + ".complete"})


async def refusing(scope, receive, send):
    raise AssertionError(scope["type"])


async def ignoring(scope, receive, send):
    return


async def receiving_and_returning(scope, receive, send):
    await receive()


async def starting_and_returning(scope, receive, send):
    await receive()
    await send({"type": STARTED})


@pytest.mark.parametrize(
    "app", [knowing, refusing, ignoring, receiving_and_returning, starting_and_returning]
)
def test_it_flushes_before_it_says_that_it_has_shut_down(live, app):
    assert live(app) == [STARTED, "flushed", ENDED]


def test_it_flushes_where_the_shutdown_fails(live):
    async def app(scope, receive, send):
        await starting_and_returning(scope, receive, send)
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "x"})

    assert live(app) == [STARTED, "flushed", "lifespan.shutdown.failed"]


def test_it_flushes_where_the_application_raises_as_it_shuts_down(live):
    async def app(scope, receive, send):
        await starting_and_returning(scope, receive, send)
        await receive()
        raise ValueError

    assert live(app) == [STARTED, "flushed", "ValueError"]


def test_it_flushes_where_the_application_does_not_answer(live):
    async def app(scope, receive, send):
        await starting_and_returning(scope, receive, send)
        await receive()

    assert live(app) == [STARTED, "flushed"]


def test_it_flushes_where_the_server_cancels(live):
    assert live(knowing, ["lifespan.startup"]) == [STARTED, "flushed", "cancelled"]


def test_a_failed_startup_stays_one(live):
    async def failing(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def raising(scope, receive, send):
        await receive()
        raise RuntimeError("no database")

    assert live(failing) == ["lifespan.startup.failed", "flushed"]
    live(raising)
    assert live(raising)[-2:] == ["flushed", "RuntimeError"]
    assert STARTED not in live(raising)


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


def test_what_any_hook_of_the_process_counted_is_flushed(tmp_path):
    """Also one that nothing was instrumented with."""
    path = tmp_path / "decisions.ndjson"
    hook = PersonalizationHook(log=path)
    hook.record({"final_items": []})
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def run():
        async def receive():
            return {"type": next(messages)}

        async def send(message): ...

        await FlushAtShutdown(knowing)({"type": "lifespan"}, receive, send)

    asyncio.run(run())
    assert len(read_lines(path)) == 1
