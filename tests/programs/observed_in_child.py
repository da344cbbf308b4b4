"""Forks, and prints how often a reader that the child inherits asks for what the host observes."""

import os
import sys

from otel_personalization import pipeline

asked = 0


def observe(_options: object) -> tuple[()]:
    global asked
    asked += 1
    return ()


if __name__ == "__main__":
    provider = pipeline.configure("ranking", endpoint=sys.argv[1], export_interval=3600)
    provider.get_meter("host").create_observable_gauge("host.gauge", [observe])
    inherited = provider._provider
    assert inherited is not None
    inherited.force_flush()
    assert asked == 1
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        inherited.force_flush()
        print(f'{{"asked": {asked - 1}}}', flush=True)
        os._exit(0)
