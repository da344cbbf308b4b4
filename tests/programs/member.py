"""One process of a fleet of services, that writes down itself what it served: the truth.

    python -m tests.programs.member TRUTH EXPORTS SPECIFICATION

SPECIFICATION is the JSON of `tests.e2e.fleet.Member`. A line of TRUTH is written once a decision is
finalised: when, namespace, surface, and how many items were served, personalised, asked to have a
reason, and had one. A line of EXPORTS is written once an export was answered with success: when it
was begun, when it was answered, and the totals that it told. It ends after its time, by SIGTERM, or
by SIGKILL.
"""

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

specification: dict[str, Any] = json.loads(sys.argv[3])

if specification["version"]:  # the scope of another release
    release = ModuleType("otel_personalization.version")
    release.__version__ = specification["version"]  # type: ignore[attr-defined]
    sys.modules["otel_personalization.version"] = release

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: E402
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData  # noqa: E402

from otel_personalization import PersonalizationInstrumentor, conventions, pipeline  # noqa: E402
from tests.programs import finaliser  # noqa: E402


def main() -> None:
    write_exports_down(Path(sys.argv[2]))
    pipeline.configure("ranking")
    PersonalizationInstrumentor().instrument(target="tests.programs.finaliser:finalize")
    # It is looked for between two decisions: within one, the truth would lack what was counted.
    told_to_end, tell = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(tell, b"."))
    draw = random.Random(specification["seed"])
    with Path(sys.argv[1]).open("a", buffering=1) as truth:
        ends = time.monotonic() + specification["seconds"]
        due = time.monotonic() + specification["idle"]
        while (now := time.monotonic()) < ends:
            if select.select([told_to_end], [], [], max(0.0, due - now))[0]:
                break
            due += 1 / specification["rate"]
            decide(*draw.choice(specification["pairs"]), draw, truth)


def write_exports_down(file: Path) -> None:
    """Have each export written down that is answered with success."""
    lines = file.open("a", buffering=1)
    export = OTLPMetricExporter.export

    def written_down(self: Any, data: MetricsData, *args: Any, **kwargs: Any) -> MetricExportResult:
        began = time.time()
        result = export(self, data, *args, **kwargs)
        answered = time.time()
        if result is MetricExportResult.SUCCESS:
            lines.write(json.dumps((began, answered, totals_in(data))) + "\n")
        return result

    OTLPMetricExporter.export = written_down  # type: ignore[method-assign]


def totals_in(data: MetricsData) -> list[tuple[str, str, str, int]]:
    """Namespace, surface, field and total of each counter of decisions."""
    counters = {counter.name: counter for counter in conventions.DECISION_COUNTERS}
    return [
        (*(point.attributes[key] for key in counter.attributes), counter.field, point.value)
        for of_resource in data.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
        if (counter := counters.get(metric.name))
        for point in metric.data.data_points
    ]


def decide(namespace: str, surface: str, draw: random.Random, truth: TextIO) -> None:
    """Finalise a decision, and write it down. A few hold a good part of all items."""
    served = draw.choice((0, 4, 8, 8, 12, 12)) if draw.random() > 0.02 else 150
    personalized = sum(draw.random() < specification["share"] for _ in range(served))
    asks = draw.random() < 0.7
    explained = sum(draw.random() < 0.9 for _ in range(served)) if asks else 0
    finaliser.finalize(
        namespace,
        surface,
        served=served,
        personalized=personalized,
        asks=asks,
        explained=explained,
    )
    asked = served if asks else 0
    row = (time.time(), namespace, surface, served, personalized, asked, explained)
    truth.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
