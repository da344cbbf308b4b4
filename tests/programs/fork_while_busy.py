"""Forks while the SDK, in another thread, collects or exports; parent and child count, and end.

python -m tests.programs.fork_while_busy SETUP ENDPOINT collect|export
"""

import atexit
import json
import logging
import os
import sys
import threading
import time
from typing import Any

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from otel_personalization import PersonalizationHook, pipeline

TRACE = {"namespace": "shop", "surface": "home", "final_items": [{}]}


def main() -> None:
    setup, endpoint, busy_with = sys.argv[1:]
    logging.basicConfig()
    provider: Any
    if setup == "pipeline":
        provider = pipeline.configure("ranking", endpoint=endpoint)
    else:
        exporter = OTLPMetricExporter(f"{endpoint}/v1/metrics", timeout=2)
        reader = PeriodicExportingMetricReader(exporter, 3_600_000)
        provider = MeterProvider([reader], shutdown_on_exit=False)
        atexit.register(provider.shutdown, 2000)  # where the default is to wait for 30 s
        metrics.set_meter_provider(provider)
    hook = PersonalizationHook()
    hook.record(dict(TRACE))

    busy, go_on = threading.Event(), threading.Event()

    def wait(_: Any) -> Any:
        if threading.current_thread().name == "busy":
            busy.set()
            go_on.wait(30)
        return ()

    if busy_with == "collect":
        provider.get_meter("host").create_observable_counter("slow", [wait])
    sdk = provider._sdk_provider() if setup == "pipeline" else provider
    threading.Thread(target=sdk.force_flush, name="busy", daemon=True).start()
    if busy_with == "collect":
        assert busy.wait(30)
    else:
        time.sleep(0.3)  # in flight: the receiver has not answered, and is not going to soon

    child = os.fork()
    for _ in range(3):
        hook.record(dict(TRACE))
    if child:
        go_on.set()
        status = os.waitpid(child, 0)[1]
        print(json.dumps({"child": os.waitstatus_to_exitcode(status)}))


if __name__ == "__main__":
    main()
