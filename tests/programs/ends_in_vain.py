"""Finishes, as a server does at its shutdown, and then exits; no backend answers.

Prints how long the exit handlers took after that.
"""

import atexit
import json
import sys
import time

finished = 0.0
atexit.register(lambda: print(json.dumps({"seconds": time.monotonic() - finished})))  # the last

from otel_personalization import PersonalizationHook, pipeline  # noqa: E402

if __name__ == "__main__":
    pipeline.configure("ranking", endpoint=sys.argv[1])
    hook = PersonalizationHook()
    hook.record({"namespace": "shop", "surface": "home"})
    assert not hook.finish(0.5)
    hook.record({"namespace": "shop", "surface": "new"})
    finished = time.monotonic()
