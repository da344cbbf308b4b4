"""The base install, without SDK and command line: it works, and says what is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import venv
from importlib.metadata import requires
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

HOST = """
import importlib.util, json, sys
from otel_personalization import PersonalizationHook, PersonalizationInstrumentor
from otel_personalization.testing import counting

class Tracer:
    def finalize(self):
        return {"surface": "home", "final_items": [{"item_id": "a", "personalized": True}]}

PersonalizationInstrumentor().instrument(target="__main__:Tracer.finalize")
with counting() as counted:
    trace = Tracer().finalize()
try:
    from otel_personalization import pipeline
except ImportError as error:
    missing = str(error)
print(json.dumps({
    "sdk": importlib.util.find_spec("opentelemetry.sdk") is not None,
    "stamp": trace["extras"],
    "counted": counted.personalized_items,
    "flushed": PersonalizationInstrumentor().hook.flush(),
    "missing": missing,
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment in which nothing but the base install is."""
    environment = tmp_path_factory.mktemp("base")
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(REPOSITORY)], check=True, timeout=300)
    return python


def run(python: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *arguments],
        env=os.environ | variables,
        cwd=python.parent,  # not the checkout, which would be imported in its place
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_service_without_the_sdk_stamps_and_counts(python):
    done = run(python, "-c", HOST)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "sdk": False,
        "stamp": {"personalized_items_count": 1, "reason_items_count": 0},
        "counted": 1,
        "flushed": False,
        "missing": "otel_personalization.pipeline needs the OpenTelemetry SDK and its OTLP "
        'exporter: pip install "otel-personalization[otlp]"',
    }
    assert done.stderr == ""


def test_zero_code_without_an_sdk_says_that_counters_go_nowhere(python, tmp_path):
    (tmp_path / "tracing.py").write_text("def finalize():\n    return {'final_items': []}\n")
    done = run(
        python,
        str(python.parent / "opentelemetry-instrument"),
        *(str(python), "-c", "import tracing; print(tracing.finalize()['extras'])"),
        OTEL_PERSONALIZATION_TARGET="tracing:finalize",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'personalized_items_count': 0, 'reason_items_count': 0}\n"
    assert done.stderr.count("its counters go nowhere: no OpenTelemetry SDK is set up") == 1
    assert 'pip install "otel-personalization[otlp]"' in done.stderr


def test_the_command_says_how_to_get_what_it_needs(python):
    done = run(python, str(python.parent / "otel-personalization"), "replay", "x")
    assert done.returncode == 1
    assert 'pip install "otel-personalization[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_package_is_typed_and_registers_its_instrumentor(python):
    code = (
        "import otel_personalization, pathlib; from importlib.metadata import entry_points; "
        "print((pathlib.Path(otel_personalization.__file__).parent / 'py.typed').exists(), "
        "[e.value for e in entry_points(group='opentelemetry_instrumentor')])"
    )
    done = run(python, "-c", code)
    assert done.stdout.strip() == "True ['otel_personalization:PersonalizationInstrumentor']"


def test_the_base_install_needs_nothing_else():
    names = {
        re.split(r"[^\w-]", requirement)[0]
        for requirement in requires("otel-personalization") or ()
        if "extra ==" not in requirement
    }
    assert names == {
        "opentelemetry-api",
        "opentelemetry-instrumentation",
        "python-json-logger",
        "wrapt",
    }
