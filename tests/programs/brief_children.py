"""Forks children that count one decision and end at once, before their exporter is made."""

import os
import sys
import time

from otel_personalization import PersonalizationHook, pipeline

CHILDREN = 5
make_exporter = pipeline.Pipeline._exporter


def slowly(self: pipeline.Pipeline) -> object:
    time.sleep(0.2)  # longer than the child lives otherwise
    return make_exporter(self)


if __name__ == "__main__":
    pipeline.configure("ranking", endpoint=sys.argv[1])
    hook = PersonalizationHook()
    pipeline.Pipeline._exporter = slowly  # type: ignore[assignment, method-assign]
    for _ in range(CHILDREN):
        child = os.fork()
        if not child:
            hook.record({"namespace": "shop", "surface": "home"})
            break
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
