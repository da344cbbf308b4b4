"""Recorded decision traces through an instrumented tracer: what `make demo` shows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from rich.console import Console

from otel_personalization import PersonalizationInstrumentor
from otel_personalization.cli import TABLE_WIDTH, table_of
from otel_personalization.conventions import DECISION_COUNTERS, MALFORMED_TRACES, Counter
from otel_personalization.replay import replay
from otel_personalization.testing import points_of

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "traces.ndjson.gz"
SHOWN = ("shop_eu", "home")
ODD = ("planted", "odd")

# What was never recorded, and must not hurt: counted like everything else, or by its reason.
ODD_TRACES: list[dict[str, Any]] = [
    {
        "namespace": "planted",
        "surface": " Odd ",
        "final_items": [
            {
                "item_id": "twice",
                "score": float("nan"),
                "reasons": ["cold_start", "personalization"],
            },
            {"item_id": "twice", "score": 0.5, "reasons": ["", "  "]},
        ],
        "extras": {"personalized_items": ["twice", "never served"]},
    },
    {"namespace": "planted", "surface": "odd", "final_items": [None], "extras": {}},
]


def main() -> None:
    """Count, and show what was counted."""
    # What a service does at its start, with a reader that can be looked into in place of OTLP.
    reader = InMemoryMetricReader()
    set_meter_provider(MeterProvider([reader]))
    PersonalizationInstrumentor().instrument(target="tracer:DecisionTracer.finalize")

    from tracer import DecisionTracer  # noqa: PLC0415  # instrumented as it is imported

    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        recorded = [json.loads(line) for line in lines]
    traces = [DecisionTracer().finalize(decision) for decision in recorded + ODD_TRACES]

    console = Console()
    console.width = max(console.width, TABLE_WIDTH)

    console.rule("What was served (otel-personalization replay tests/data/traces.ndjson.gz)")
    console.print(table_of(replay([SAMPLE])))

    console.rule("A trace that the instrumented tracer returned, with its two stamps")
    shown = next(
        trace
        for trace in traces
        if 2 <= len(trace["final_items"] or ()) <= 4 and trace["extras"]["personalized_items_count"]
    )
    stamps = ("include_reasons", "personalized_items_count", "reason_items_count")
    short = {key: shown[key] for key in ("decision_id", "namespace", "surface", "final_items")}
    console.print_json(
        json.dumps({**short, "extras": {name: shown["extras"][name] for name in stamps}})
    )

    points = points_of(reader)
    for title, pair in (
        (f"The counters of {'/'.join(SHOWN)}, as Prometheus shows them", SHOWN),
        ("Those of a trace with NaN, an id twice, blank reasons and a cold start", ODD),
    ):
        console.rule(title)
        for counter in DECISION_COUNTERS:
            show(console, counter, pair, points[counter.name][pair])
    console.rule("One more was no trace at all: the service got it back, and it is counted here")
    for labels, value in points[MALFORMED_TRACES.name].items():
        show(console, MALFORMED_TRACES, labels, value)

    console.rule("Next")
    console.print(
        "Your own traces:    .venv/bin/otel-personalization replay FILE...\n"
        "Your own service:   PersonalizationInstrumentor().instrument("
        'target="your.module:DecisionTracer.finalize")\n'
        "How, and what each number means:   README.md",
        highlight=False,
    )


def show(console: Console, counter: Counter, values: tuple[str, ...], total: int) -> None:
    """A line of Prometheus's text format."""
    labels = ", ".join(
        f'{key.replace(".", "_")}="{value}"'
        for key, value in zip(counter.attributes, values, strict=True)
    )
    console.print(f"{counter.prometheus_name}{{{labels}}} {total}", highlight=False)


if __name__ == "__main__":
    main()
