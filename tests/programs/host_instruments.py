"""A host with instruments of its own on a provider of ours, made before it forks.

python -m tests.programs.host_instruments ENDPOINT
"""

import os
import sys
import time

from opentelemetry.metrics import Observation

from otel_personalization import pipeline


def main() -> None:
    provider = pipeline.configure("ranking", endpoint=sys.argv[1])
    meter = provider.get_meter("host")
    requests = meter.create_counter("host.requests")
    served = 0
    meter.create_observable_counter("host.served", [lambda _: [Observation(served)]])
    requests.add(100)
    served = 100
    for n in (1, 2):
        child = os.fork()
        if not child:
            served = n
            requests.add(n, {"kind": "child"})
            time.sleep(0.3)  # six intervals of an export
            sys.exit()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    requests.add(1)


if __name__ == "__main__":
    main()
