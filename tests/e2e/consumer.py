"""A service that uses all that is public, for a strict type checker and for a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_personalization import (
    NotWrappableError,
    PersonalizationHook,
    PersonalizationInstrumentor,
    SettingsError,
    TargetError,
    __version__,
)
from otel_personalization.asgi import FlushAtShutdown
from otel_personalization.testing import Counted, counting

Trace = dict[str, Any]

hook = PersonalizationHook(surfaces=["shop/home", ("shop", "cart")], log="none", max_label_sets=16)


@hook.finalizer()
def finalize(items: list[Trace]) -> Trace:
    return {"surface": "home", "final_items": items}


class Tracer:
    def finalize(self) -> Trace:
        return {"surface": "cart", "final_items": [{"item_id": "a", "personalized": True}]}


def served(finalizer: Callable[[list[Trace]], Trace], items: list[Trace]) -> int:
    counted: Counted
    with counting(hook) as counted:
        finalizer(items)
    return counted.served_items


async def app(scope: Any, receive: Any, send: Any) -> None: ...


def main() -> None:
    # A decorated function keeps its own type: this is checked, too.
    assert served(finalize, [{"item_id": "a"}, {"item_id": "b"}]) == 2
    hook.record({"final_items": []})
    hook.record_impressions(3, namespace="shop", surface="home")
    hook.record_clicks(1, namespace="shop", surface="home")
    flushed: bool = hook.flush(timeout=1.0)
    assert not flushed  # nowhere to flush to
    instrumentor = PersonalizationInstrumentor()
    instrumentor.instrument(target="__main__:Tracer.finalize", trace="result", when="after")
    with counting() as counted:
        Tracer().finalize()
    assert counted.cells["unknown", "cart"]["personalized_items"] == 1
    instrumentor.uninstrument()
    for error, target, when in (
        (SettingsError, "__main__:Tracer.finalize", "never"),
        (TargetError, "__main__:Tracer.absent", "after"),
    ):
        try:
            instrumentor.instrument(target=target, when=when)
        except error:
            continue
        raise AssertionError(error)
    assert issubclass(NotWrappableError, TypeError)
    assert callable(FlushAtShutdown(app))
    assert __version__.count(".") == 2


if __name__ == "__main__":
    main()
