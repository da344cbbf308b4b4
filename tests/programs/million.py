"""A million decisions with log lines.

    python -m tests.programs.million PATH

Prints the resident memory, in KiB, after each tenth, and how many lines there were.
"""

import gc
import json
import os
import sys
from pathlib import Path

from opentelemetry.metrics import NoOpMeterProvider

from otel_personalization import PersonalizationHook
from otel_personalization.conventions import DROPPED_LOG_RECORDS


def main() -> None:
    path = Path(sys.argv[1])
    hook = PersonalizationHook(meter_provider=NoOpMeterProvider(), log=path)
    sizes, lines = [], 0
    for tenth in range(10):
        for n in range(100_000):
            hook.record(
                {
                    "decision_id": f"{tenth}-{n}",
                    "surface": f"surface_{n % 1000}",
                    "final_items": [{"item_id": "a"}],
                    "extras": {"candidate_sources": {f"source_{n % 40}": {"count": 1}}},
                }
            )
            if n % 5000 == 4999:
                hook.flush(60)
        lines += path.read_bytes().count(b"\n")
        os.truncate(path, 0)
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(resident * os.sysconf("SC_PAGE_SIZE") // 1024)
    dropped = hook.totals.snapshot()[(DROPPED_LOG_RECORDS,)][()][0]
    print(json.dumps({"sizes": sizes, "lines": lines, "dropped": dropped}))


if __name__ == "__main__":
    main()
