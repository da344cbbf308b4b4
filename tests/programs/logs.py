"""Logs decisions to a file in a process that samples, forks, or ends.

    python -m tests.programs.logs WHAT PATH

Prints the ids that are to be in the file.
"""

import json
import multiprocessing
import os
import resource
import sys
import threading
import time
from pathlib import Path

from otel_personalization import PersonalizationHook, pipeline
from otel_personalization.conventions import DROPPED_LOG_RECORDS
from otel_personalization.decision_log import finish_all


def record(hook: PersonalizationHook, ids: list[str]) -> list[str]:
    for decision_id in ids:
        sources = {"popularity": {"count": 1}, "merged": {"count": 1}}
        trace = {"decision_id": decision_id, "surface": "s" * 250}
        hook.record({**trace, "extras": {"candidate_sources": sources}})
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
        of_parent = hook._log._writer
        child = os.fork()
        if not child:
            assert of_parent.queue.empty()  # what waits there would stay as long as the child
            record(hook, ids)
            finish_all()
            assert dropped(hook) == 0  # nothing of the parent's is lost here
            sys.exit()
        expected.extend(ids)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    background.join()
    return expected


def torn(hook: PersonalizationHook, path: str) -> None:
    """The file cannot grow past a line and a half."""
    record(hook, ["first"])
    hook.flush()
    size = Path(path).stat().st_size
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + size // 2, most))
    record(hook, ["second", "third"])
    hook.finish()


def dropped(hook: PersonalizationHook) -> int:
    return hook.totals.snapshot()[(DROPPED_LOG_RECORDS,)][()][0]


def main() -> None:
    what, path = sys.argv[1:]
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
        pipeline.configure("logs")
    hook = PersonalizationHook(log=path, log_sample=0.5 if what == "sampled" else 1.0)
    ids = [f"{n}" for n in range(300)]
    if what == "sampled":
        record(hook, ids[:200])
        hook.flush()
        ids = [json.loads(line)["decision_id"] for line in Path(path).read_text().splitlines()]
    elif what == "forks":
        ids = forks(hook)
    elif what == "torn":
        torn(hook, path)
    elif what == "multiprocessing":
        worker = multiprocessing.get_context("fork").Process(target=record, args=(hook, ids))
        worker.start()
        worker.join()
    else:
        record(hook, ids)
    print(json.dumps({"ids": ids, "dropped": dropped(hook)}))


if __name__ == "__main__":
    main()
