"""Ends while no backend answers.

    python -m tests.programs.ends_in_vain ENDPOINT WHAT

WHAT comes before: `finish`, as of a server at its shutdown; `nothing`, as in a server's master;
`counted`, or `host` for an instrument of the host's own: these are worth a wait. Prints how long
the exit handlers took.
"""

import atexit
import json
import sys
import time

ending = 0.0
atexit.register(lambda: print(json.dumps({"seconds": time.monotonic() - ending})))  # the last

from otel_personalization import PersonalizationHook, pipeline  # noqa: E402

TRACE = {"namespace": "shop", "surface": "home"}

if __name__ == "__main__":
    _, endpoint, what = sys.argv
    provider = pipeline.configure("ranking", endpoint=endpoint)
    hook = PersonalizationHook()
    if what == "finish":
        hook.record(dict(TRACE))
        assert not hook.finish(0.5)
        hook.record({**TRACE, "surface": "new"})
    elif what == "counted":
        hook.record(dict(TRACE))
    elif what == "host":
        provider.get_meter("host").create_counter("requests").add(1)
    ending = time.monotonic()
