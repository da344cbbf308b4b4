"""Logs decisions to a file in a process that samples, forks, or ends.

    python -m tests.programs.logs WHAT PATH

Prints the ids that are to be in the file.
"""

import json
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

from otel_personalization import PersonalizationHook


def record(hook: PersonalizationHook, ids: list[str]) -> list[str]:
    for decision_id in ids:
        hook.record({"decision_id": decision_id, "surface": "s" * 250})
    return ids


def forks(hook: PersonalizationHook) -> list[str]:
    """Forks again and again with lines in the queue, and from among threads that log."""
    expected: list[str] = []

    def in_background() -> None:
        for n in range(1000):
            expected.extend(record(hook, [f"background-{n}"]))
            time.sleep(0.0005)  # work, not luck: a service has some between decisions

    background = threading.Thread(target=in_background)
    background.start()
    for generation in range(8):
        expected.extend(record(hook, [f"parent-{generation}-{n}" for n in range(40)]))
        ids = [f"child-{generation}-{n}" for n in range(40)]
        child = os.fork()
        if not child:
            record(hook, ids)
            sys.exit()
        expected.extend(ids)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    background.join()
    return expected


def main() -> None:
    what, path = sys.argv[1:]
    hook = PersonalizationHook(log=path, log_sample=0.5 if what == "sampled" else 1.0)
    ids = [f"{n}" for n in range(300)]
    if what == "sampled":
        record(hook, ids[:200])
        hook.flush()
        ids = [json.loads(line)["decision_id"] for line in Path(path).read_text().splitlines()]
    elif what == "forks":
        ids = forks(hook)
    elif what == "multiprocessing":
        worker = multiprocessing.get_context("fork").Process(target=record, args=(hook, ids))
        worker.start()
        worker.join()
    else:
        record(hook, ids)
    print(json.dumps({"ids": ids}))


if __name__ == "__main__":
    main()
