"""For ASGI servers, whose workers end without running Python's exit handlers.

::

    app = FlushAtShutdown(app)  # or, in Starlette and FastAPI: app.add_middleware(FlushAtShutdown)

uvicorn, alone, with workers, or within gunicorn, ends its processes by the signal that it was sent.
What was counted since the last export is lost, unless it is flushed while the application shuts
down: after the last request, in the lifespan protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from otel_personalization.metrics import finish_process

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_FLUSH_SECONDS: Final = 2.5
"""Of the 5 s in which a server should end; uvicorn itself takes up to 2 s to end its workers."""
_SHUTDOWN: Final = "lifespan.shutdown"


class FlushAtShutdown:
    """An ASGI application that flushes counters and log lines when the one within has shut down.

    Those of the whole process, whoever counts. The shutdown waits 2.5 s for it at most. The
    application within need not know of the lifespan protocol; what it does with it is passed on as
    it is.

    Args:
        app: the application within.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve; as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        received: list[str] = []
        sent: list[str] = []
        is_flushed = False

        async def note_and_receive() -> Message:
            message = await receive()
            received.append(message["type"])
            return message

        async def flush_and_send(message: Message) -> None:
            nonlocal is_flushed
            if message["type"].startswith(_SHUTDOWN):
                finish_process(_FLUSH_SECONDS)
                is_flushed = True
            sent.append(message["type"])
            await send(message)

        try:
            try:
                await self._app(scope, note_and_receive, flush_and_send)
            except Exception:
                if received or sent:
                    raise
            # It does not know of the protocol, or ends its part of it early.
            if not received:
                await note_and_receive()
            if not sent:
                await send({"type": "lifespan.startup.complete"})
            elif sent[0] != "lifespan.startup.complete":
                return
            if _SHUTDOWN not in received:
                await note_and_receive()
                await flush_and_send({"type": f"{_SHUTDOWN}.complete"})
        finally:
            if not is_flushed:
                finish_process(_FLUSH_SECONDS)
