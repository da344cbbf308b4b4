"""Adds, forks, adds in the child, forks again: prints [decisions, in an own thread] of each."""

import json
import os
import threading

from otel_personalization.totals import Totals
from otel_personalization.trace import Decision
from tests.conftest import decisions_of

totals = Totals()


def add(times: int) -> None:
    for _ in range(times):
        totals.add(Decision("shop", "home", 1, 1, 0, 0, 0, {}, False))
        totals.add(Decision("shop", threading.current_thread().name, 1, 0, 0, 0, 0, {}, False))


def count(times: int) -> list[int]:
    thread = threading.Thread(target=add, args=(times,), name="own")
    thread.start()
    thread.join()
    add(times)
    cells = decisions_of(totals.snapshot())
    return [cells["shop", "home"]["decisions"] // 2, cells["shop", "own"]["decisions"]]


def generation(times: list[int]) -> list[list[int]]:
    """Count, then have a child do the same with the rest."""
    counted = [count(times[0])]
    if len(times) > 1:
        out, into = os.pipe()
        if os.fork() == 0:
            os.write(into, json.dumps(generation(times[1:])).encode())
            os._exit(0)
        os.close(into)
        with os.fdopen(out) as pipe:
            counted += json.load(pipe)
        os.wait()
    return counted


if __name__ == "__main__":
    print(json.dumps({"counted": generation([100, 7, 3])}))
