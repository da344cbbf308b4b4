"""A ranking service in small, as a WSGI and as an ASGI application. It knows nothing of us.

``/rank?id=..&surface=..&n=..`` finalises a decision with n items, every other one personalised, and
answers what was served. ``times=..`` finalises as many, with ids that end in ``.0``, ``.1``, ...
``/ready`` finalises nothing.
"""

import json
import os
import time
from typing import Any
from urllib.parse import parse_qs


def finalize(decision_id: str, surface: str, items: int) -> dict[str, Any]:
    ids = [f"item-{n}" for n in range(items)]
    return {
        "decision_id": decision_id,
        "namespace": "shop",
        "surface": surface,
        "final_items": [{"item_id": item, "reasons": ["popular"]} for item in ids],
        "extras": {
            "personalized_items": ids[::2],
            "candidate_sources": {"popularity": {"count": items}},
        },
    }


def answer(path: str, query: str) -> bytes:
    if path == "/ready":
        return b"{}"
    asked = {name: values[0] for name, values in parse_qs(query).items()}
    decision_id, surface, items = asked["id"], asked["surface"], int(asked["n"])
    times = int(asked.get("times", 1))
    began = time.perf_counter_ns()
    if times == 1:
        finalize(decision_id, surface, items)
    else:
        for n in range(times):
            finalize(f"{decision_id}.{n}", surface, items)
    took = time.perf_counter_ns() - began
    return json.dumps(
        {
            "decision_id": decision_id,
            "surface": surface,
            "decisions": times,
            "served": times * items,
            "personalized": times * ((items + 1) // 2),
            "finalize_us": took / 1000 / times,
            "pid": os.getpid(),
        }
    ).encode()


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    body = answer(environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """It does not know of the lifespan protocol, as many do not."""
    assert scope["type"] == "http"
    body = answer(scope["path"], scope["query_string"].decode())
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
