"""One process of a fleet of services, that writes down itself what it served: the truth.

    python -m tests.programs.member TRUTH SPECIFICATION

SPECIFICATION is the JSON of `tests.e2e.fleet.Member`. A line of TRUTH is written once a decision is
finalised: when, namespace, surface, and how many items were served, personalised, asked to have a
reason, and had one. It ends after its time, by SIGTERM, or by SIGKILL.
"""

import json
import random
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

specification: dict[str, Any] = json.loads(sys.argv[2])

if specification["version"]:  # the scope of another release
    release = ModuleType("otel_personalization.version")
    release.__version__ = specification["version"]  # type: ignore[attr-defined]
    sys.modules["otel_personalization.version"] = release

from otel_personalization import PersonalizationInstrumentor, pipeline  # noqa: E402
from tests.programs import finaliser  # noqa: E402


def main() -> None:
    pipeline.configure("ranking")
    PersonalizationInstrumentor().instrument(target="tests.programs.finaliser:finalize")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    draw = random.Random(specification["seed"])
    with Path(sys.argv[1]).open("a", buffering=1) as truth:
        due = time.monotonic()
        ends = due + specification["seconds"]
        while (now := time.monotonic()) < ends:
            if now < due:
                time.sleep(due - now)
            due += 1 / specification["rate"]
            decide(*draw.choice(specification["pairs"]), draw, truth)


def decide(namespace: str, surface: str, draw: random.Random, truth: TextIO) -> None:
    """Finalise a decision, and write it down. A few hold a good part of all items."""
    served = draw.choice((0, 4, 8, 8, 12, 12)) if draw.random() > 0.02 else 150
    personalized = sum(draw.random() < specification["share"] for _ in range(served))
    asks = draw.random() < 0.7
    explained = sum(draw.random() < 0.9 for _ in range(served)) if asks else 0
    finaliser.finalize(
        namespace,
        surface,
        served=served,
        personalized=personalized,
        asks=asks,
        explained=explained,
    )
    asked = served if asks else 0
    row = (time.time(), namespace, surface, served, personalized, asked, explained)
    truth.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
