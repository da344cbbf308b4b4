"""Makes the sample of recorded traces beside it, with its truth, from a full recording.

    python tests/data/make_sample.py decision_traces.ndjson.gz http_responses.ndjson.gz

The truth is counted here from the definitions alone, in the most naive way and for recorded JSON
only; nothing of the package is imported, so that the tests compare two independent counts.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STAGES = {"merged", "post_constraints", "post_exclusion", "prefetched"}
RESPONSES = 45


def cell_of(trace: dict[str, Any]) -> tuple[str, str, str]:
    """Namespace, surface and UTC date."""
    seconds, fraction, offset = re.fullmatch(r"(.{19})(?:\.(\d+))?(Z|.{6})", trace["ts"]).groups()
    offset = "+00:00" if offset == "Z" else offset
    instant = datetime.fromisoformat(f"{seconds}.{fraction or '':0<6}{offset}")
    date = instant.astimezone(timezone.utc).date()
    surface = (trace.get("surface") or "").strip().lower() or "default"
    return trace["namespace"].strip().lower(), surface, str(date)


def counts_of(trace: dict[str, Any]) -> Counter[str]:
    """What one recorded trace served."""
    items = trace.get("final_items") or []
    extras = trace["extras"]
    boosted = extras.get("personalized_items", [])
    asked = extras["include_reasons"]
    with_reason = [item for item in items if any(r.strip() for r in item.get("reasons", []))]
    return Counter(
        decisions=1,
        empty_decisions=int(not items),
        served_items=len(items),
        served_items_squared=len(items) ** 2,
        personalized_items=sum(item["item_id"] in boosted for item in items),
        reason_items=len(with_reason) if asked else 0,
        reason_requested_items=len(items) if asked else 0,
        cold_start_items=sum("cold_start" in item.get("reasons", []) for item in items) * asked,
    )


def truth_of(traces: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals by cell, and by cell and source."""
    cells: dict[tuple[str, str, str], Counter[str]] = {}
    sources: dict[tuple[str, str, str, str], Counter[str]] = {}
    for trace in traces:
        cell = cell_of(trace)
        cells.setdefault(cell, Counter()).update(counts_of(trace))
        for source, entry in trace["extras"].get("candidate_sources", {}).items():
            if source not in STAGES:
                sources.setdefault((*cell, source), Counter()).update(
                    decisions=1, empty_decisions=int(entry["count"] == 0), candidates=entry["count"]
                )
    return {
        "cells": [
            {"namespace": n, "surface": s, "date": d, **counts}
            for (n, s, d), counts in sorted(cells.items())
        ],
        "sources": [
            {"namespace": n, "surface": s, "date": d, "source": source, **counts}
            for (n, s, d, source), counts in sorted(sources.items())
        ],
    }


def kind_of(trace: dict[str, Any]) -> tuple[object, ...]:
    """What makes a trace unlike others: one of each kind goes into the sample."""
    items = trace.get("final_items")
    extras = trace["extras"]
    collaborative = extras.get("candidate_sources", {}).get("collaborative", {}).get("count")
    return (
        trace["namespace"],
        trace.get("surface"),
        extras["include_reasons"],
        items is None,
        collaborative is None or collaborative > 0,
        trace["ts"].endswith("Z"),
    )


def main() -> None:
    """Write traces.ndjson.gz, responses.ndjson.gz and truth.json."""
    traces_path, responses_path = sys.argv[1:]
    with gzip.open(traces_path) as stream:
        lines = stream.readlines()
    with gzip.open(responses_path) as stream:
        answers = [json.loads(line) for line in stream]
    lines.sort(key=len)
    by_id = {}
    kept: dict[tuple[object, ...], bytes] = {}
    for line in lines:
        trace = json.loads(line)
        by_id[trace["decision_id"]] = line
        kept.setdefault(kind_of(trace), line)
    chosen = set(kept.values())

    matched = [answer for answer in answers if answer["decision_id"] in by_id]
    matched.sort(key=lambda answer: len(by_id[answer["decision_id"]]))
    matched = matched[:RESPONSES]
    chosen.update(by_id[answer["decision_id"]] for answer in matched)

    ordered = sorted(chosen, key=lambda line: json.loads(line)["ts"])
    traces = [json.loads(line) for line in ordered]
    (HERE / "traces.ndjson.gz").write_bytes(gzip.compress(b"".join(ordered), mtime=0))
    bodies = "".join(json.dumps(answer["response"]) + "\n" for answer in matched)
    (HERE / "responses.ndjson.gz").write_bytes(gzip.compress(bodies.encode(), mtime=0))
    truth = truth_of(traces)
    truth["responses"] = [answer["decision_id"] for answer in matched]
    parts = (
        f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, rows)) + "\n]"
        for name, rows in truth.items()
    )
    (HERE / "truth.json").write_text("{" + ",\n".join(parts) + "}\n")
    print(len(traces), "traces,", len(matched), "responses")


if __name__ == "__main__":
    main()
