"""What these tests measure is printed at the end, and written to build/e2e.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

MEASURED = pytest.StashKey[dict[str, str]]()
RESULTS = Path(__file__).parents[2] / "build" / "e2e.json"

Measure = Callable[[str], None]


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Measure:
    """Note down what a test measured."""

    def note(what: str) -> None:
        request.config.stash.setdefault(MEASURED, {})[request.node.name] = what

    return note


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    measured = config.stash.get(MEASURED, {})
    if not measured:
        return
    terminalreporter.section("measured")
    for name, what in measured.items():
        terminalreporter.line(f"{name}: {what}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
