"""Figures of a benchmark: medians of rounds, as lines of a table."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROUNDS = 21


@dataclass
class Figure:
    """One line of the results."""

    what: str
    median: float
    low: float
    high: float
    unit: str = ""
    limit: str = ""

    def __str__(self) -> str:
        span = f"{self.low:.2f} to {self.high:.2f}"
        return f"| {self.what} | {self.median:.2f}{self.unit} | {span} | {self.limit} |"


def figure(what: str, values: list[float], unit: str = "", limit: str = "") -> Figure:
    """The median of the rounds, and the span of their middle half."""
    low, median, high = statistics.quantiles(values, n=4)
    return Figure(what, median, low, high, unit, limit)


def seconds(function: Callable[[Any], object], arguments: list[Any], times: int = 1) -> float:
    """Of one call, averaged over all arguments, `times` over."""
    gc.collect()
    began = time.perf_counter()
    for _ in range(times):
        for argument in arguments:
            function(argument)
    return (time.perf_counter() - began) / (times * len(arguments))


def resident() -> int:
    """Bytes of memory that the process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
