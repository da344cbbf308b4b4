"""Measures what the package costs, and writes it down: ``make bench``.

Each figure is a ratio of two things that were timed in turns in one run: machines differ, and so
does one machine from minute to minute. The unit of cost is one ``Counter.add`` of the OpenTelemetry
SDK with three attributes, which whoever counts by hand pays for each number.
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks import hook, logs
from benchmarks.figures import ROUNDS, Figure, figure, seconds
from otel_personalization.replay import replay

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "tests" / "data" / "traces.ndjson.gz"
RECORDING = (
    Path(os.environ.get("RECORDED_TRACES", ROOT.parent / "shared" / "data"))
    / "decision_traces.ndjson.gz"
)
RESULTS = Path(__file__).parent / "results.md"


def replaying(path: Path) -> Iterator[Figure]:
    """Of a file, against parsing its lines and nothing else."""

    def parse(file: Path) -> None:
        with gzip.open(file) as lines:
            for line in lines:
                json.loads(line)

    def count(file: Path) -> None:
        replay([file])

    ratios = [seconds(count, [path]) / seconds(parse, [path]) for _ in range(ROUNDS // 2)]
    yield figure(f"replay of {path.name} / json.loads of its lines", ratios, limit="2.0")


def machine() -> str:
    """What ran it."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(": ")[2] if names else model
    packages = ("opentelemetry-sdk", "wrapt")
    return (
        f"{model}, {os.cpu_count()} CPUs, {platform.system()}; "
        f"{platform.python_implementation()} {platform.python_version()}; "
        + ", ".join(f"{package} {version(package)}" for package in packages)
    )


def main() -> None:
    """Measure, show, write down."""
    path = RECORDING if RECORDING.exists() else SAMPLE
    with gzip.open(path) as stream:
        lines = list(stream)
    text = f"""\
# What the hook costs

Measured by `make bench` on {time.strftime("%Y-%m-%d")}: {machine()}.
The recorded traces are {len(lines):,} of {path.name}; {ROUNDS} rounds, or fewer of the long ones.

The first figures are the cost of one wrapped call less that of a bare one, in units of one SDK
`Counter.add` with three attributes, which costs more in a sampled span, as in a traced request.
"One trace" is a warm one of 20 items. Middle half: between the quartiles of the rounds.

| what | median | middle half | limit |
| --- | --- | --- | --- |
"""
    logs_text = f"""
# What log lines cost

The CPU of a request is that of its thread, the CPU of the process that of all its threads until the
line is written, both in adds; a warm trace of 20 items, in a sampled span, lines to `{os.devnull}`.
Requests parse a trace and finalise it, in four threads, each at its time.

| what | median | middle half | limit |
| --- | --- | --- | --- |
"""
    sections = {
        text: (
            hook.cost(lines),
            hook.throughput(lines),
            hook.memory(),
            hook.collection(),
            replaying(path),
        ),
        logs_text: (logs.cost(), logs.slowdown(), logs.writer(), logs.memory()),
    }
    out = []
    for head, benchmarks in sections.items():
        out += head.splitlines()
        print(head, end="")
        for figures in benchmarks:
            for found in figures:
                out.append(str(found))
                print(found, flush=True)
    RESULTS.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    sys.exit(main())
