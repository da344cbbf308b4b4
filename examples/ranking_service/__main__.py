"""The instrumented service in a single process: ``python -m examples.ranking_service``."""

from __future__ import annotations

import os

import uvicorn


def main() -> None:
    """Serve on ``RANKING_HOST`` and ``RANKING_PORT``; port 0 is a free one, which is logged."""
    uvicorn.run(
        "examples.ranking_service.instrumented:app",
        host=os.environ.get("RANKING_HOST", "127.0.0.1"),
        port=int(os.environ.get("RANKING_PORT", "8000")),
        access_log=False,
    )


if __name__ == "__main__":
    main()
