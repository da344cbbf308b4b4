"""Without a change of code: `opentelemetry-instrument`, run as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.otlp_receiver import Received, receiving

TRACING = """
class DecisionTracer:
    def finalize(self, served):
        items = [{"item_id": str(n), "personalized": n % 2 == 0} for n in range(served)]
        return {"namespace": "shop", "surface": "home", "final_items": items}
"""
APP = """
from ranking.tracing import DecisionTracer
for served in range(10):
    trace = DecisionTracer().finalize(served)
print("stamped" if "extras" in trace else "untouched")
"""
LATE = "import json, wsgiref.handlers, concurrent.futures\n" + APP
OTHERS = """
import logging
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

class Other(BaseInstrumentor):
    def instrumentation_dependencies(self):
        return ()
    def _uninstrument(self, **kwargs): ...

class First(Other):  # what a distribution may do
    def _instrument(self, **kwargs):
        logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")

class Last(Other):
    def _instrument(self, **kwargs):
        print("the other one is instrumented")
"""
ENTRY_POINTS = """
[opentelemetry_instrumentor]
aaa = others:First
zzz = others:Last
"""


class Host:
    """A service, and the other instrumentors that are installed beside ours."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name, text in {
            "ranking/__init__.py": "",
            "ranking/tracing.py": TRACING,
            "app.py": APP,
            "late.py": LATE,
            "others.py": OTHERS,
            "others-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: others\nVersion: 1.0\n",
            "others-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
        }.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)

    def run(
        self, target: str | None, received: Received, app: str = "app.py", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if "OTEL" not in key}
        environment |= {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "PYTHONPATH": str(self._folder),
        }
        if target is not None:
            environment["OTEL_PERSONALIZATION_TARGET"] = target
        return subprocess.run(
            [Path(sys.executable).with_name("opentelemetry-instrument"), sys.executable, app],
            cwd=self._folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def told(done: subprocess.CompletedProcess[str], level: str) -> list[str]:
    """The lines of a level that are ours."""
    prefix = f"{level} otel_personalization"
    return [line for line in done.stderr.splitlines() if line.startswith(prefix)]


def lines_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("app", ["app.py", "late.py"])
def test_a_service_is_counted_and_logged_without_a_change_of_code(host, app):
    with receiving() as received:
        done = host.run("ranking.tracing:DecisionTracer.finalize", received, app)
        assert "stamped" in done.stdout
        assert "the other one is instrumented" in done.stdout
        assert received.total("recsys.decisions") == 10
        assert received.total("recsys.served_items") == 45
        assert received.total("recsys.personalized_items") == 25
        assert received.problems() == []
    lines = lines_of(done)
    assert len(lines) == 10
    assert sum(line["served_items_count"] for line in lines) == 45
    assert [told(done, level) for level in ("WARNING", "ERROR")] == [[], []]


def test_without_a_target_one_line_of_info_says_so(host):
    with receiving() as received:
        done = host.run(None, received)
        assert received.total("recsys.decisions") == 0
    assert "untouched" in done.stdout
    (line,) = told(done, "INFO")
    assert "OTEL_PERSONALIZATION_TARGET=module:Class.method" in line
    assert [told(done, level) for level in ("WARNING", "ERROR")] == [[], []]


@pytest.mark.parametrize(
    ("target", "variables", "says"),
    [
        ("ranking.tracing:DecisionTracer.finalise", {}, "has no 'finalise'; it has finalize"),
        ("ranking.tracing.finalize", {}, "is no 'module:function'"),
        (
            "ranking.tracing:DecisionTracer.finalize",
            {"OTEL_PERSONALIZATION_LOG": "stdot"},
            "OTEL_PERSONALIZATION_LOG is 'stdot'; it can be 'stdout', 'stderr', 'none' or",
        ),
    ],
)
def test_what_is_wrong_is_one_line_of_error_and_hurts_nobody(host, target, variables, says):
    with receiving() as received:
        done = host.run(target, received, **variables)
        assert received.total("recsys.decisions") == 0
        assert received.total("otel_personalization.internal_errors") == 1
    assert "untouched" in done.stdout
    assert "the other one is instrumented" in done.stdout
    (line,) = told(done, "ERROR")
    assert says in line


def test_a_module_that_is_not_there_is_warned_of(host):
    with receiving() as received:
        done = host.run("ranking.tracer:DecisionTracer.finalize", received)
    assert "untouched" in done.stdout
    (line,) = told(done, "WARNING")
    assert "there is no module 'ranking.tracer' to be found in ranking" in line
