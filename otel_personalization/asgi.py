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

from otel_personalization.hook import PersonalizationHook
from otel_personalization.instrumentor import PersonalizationInstrumentor

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_FLUSH_SECONDS: Final = 2.5
"""Of the 5 s in which a server should end; uvicorn itself takes up to 2 s to end its workers."""
_LAST_MESSAGES: Final = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


class FlushAtShutdown:
    """An ASGI application that flushes counters and log lines when the one within has shut down.

    Args:
        app: the application. It need not know of the lifespan protocol.
        hook: whose counters and lines; the instrumented one, if None.
    """

    def __init__(self, app: Application, hook: PersonalizationHook | None = None) -> None:
        self._app = app
        self._hook = hook

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve; as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        received: list[Message] = []
        answered = False

        async def remember() -> Message:
            received.append(await receive())
            return received[-1]

        async def flush_and_send(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"] in _LAST_MESSAGES:
                self._flush()
            await send(message)

        try:
            await self._app(scope, remember, flush_and_send)
        except Exception:
            if answered:
                raise
        if not answered:  # it does not know of the protocol
            if not received:
                await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self._flush()
            await send({"type": "lifespan.shutdown.complete"})

    def _flush(self) -> None:
        hook = self._hook
        if hook is None:
            try:
                hook = PersonalizationInstrumentor().hook
            except RuntimeError:  # nothing is instrumented
                return
        hook.finish(_FLUSH_SECONDS)
