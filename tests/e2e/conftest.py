"""What these tests measure is printed at the end, and written to build/e2e.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

MEASURED = "measured"
RESULTS = Path(__file__).parents[2] / "build" / "e2e.json"

Measure = Callable[[str], None]


@pytest.fixture
def measure(record_property: Callable[[str, object], None]) -> Measure:
    """Note down what a test measured."""
    return lambda what: record_property(MEASURED, what)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Of reports, which come from other processes, too.
    measured = {
        report.nodeid.rpartition("::")[2]: what
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, what in report.user_properties
        if name == MEASURED
    }
    if not measured:
        return
    terminalreporter.section(MEASURED)
    for name, what in measured.items():
        terminalreporter.line(f"{name}: {what}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
