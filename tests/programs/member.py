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
from types import ModuleType
from typing import Any

specification: dict[str, Any] = json.loads(sys.argv[2])

# The SDK binds the clock when it is imported: what is made before the load is as old as is asked.
_clock, _age_ns = time.time_ns, specification["age_seconds"] * 1_000_000_000
time.time_ns = lambda: _clock() - _age_ns

if specification["version"]:  # the scope of another release
    release = ModuleType("otel_personalization.version")
    release.__version__ = specification["version"]  # type: ignore[attr-defined]
    sys.modules["otel_personalization.version"] = release

from otel_personalization import PersonalizationInstrumentor, pipeline  # noqa: E402
from tests.programs import finaliser  # noqa: E402


def main() -> None:
    global _age_ns
    pipeline.configure("ranking")
    instrumentor = PersonalizationInstrumentor()
    instrumentor.instrument(target="tests.programs.finaliser:finalize")
    if _age_ns:
        instrumentor.hook.flush()
        _age_ns = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    draw = random.Random(specification["seed"])
    pairs = [tuple(pair) for pair in specification["pairs"]]
    every = 1 / specification["rate"]
    ends = time.monotonic() + specification["seconds"]
    due = time.monotonic()
    with open(sys.argv[1], "a", buffering=1) as truth:
        while (now := time.monotonic()) < ends:
            if now < due:
                time.sleep(due - now)
            due += every
            namespace, surface = draw.choice(pairs)
            # Long-tailed: a few decisions hold a good part of all items.
            served = draw.choice((0, 4, 8, 8, 12, 12)) if draw.random() > 0.02 else 150
            share, asks = specification["share"], draw.random() < 0.7
            personalized = sum(draw.random() < share for _ in range(served))
            explained = sum(draw.random() < 0.9 for _ in range(served)) if asks else 0
            finaliser.finalize(namespace, surface, served, personalized, asks, explained)
            row = (
                time.time(),
                namespace,
                surface,
                served,
                personalized,
                served if asks else 0,
                explained,
            )
            truth.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
