"""What services may rely on: names and signatures are written down, and importing them is light.

A change of `tests/data/public_api.txt` is a change for users: it belongs in the CHANGELOG.

    python -m tests.test_public_api    # writes it
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import otel_personalization
from tests.conftest import DATA

LISTED = DATA / "public_api.txt"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "api.md"
DIRECTIVE = re.compile(r"^\.\. auto\w+:: (\S+)\n(?:   :members: (.*)\n)?", re.MULTILINE)
HEAVY = {
    *("opentelemetry.sdk", "opentelemetry.exporter", "grpc", "google"),
    *("typer", "click", "rich"),
    *("duckdb", "jinja2", "matplotlib", "numpy", "psycopg", "pyarrow", "scipy", "pyspark"),
    "prometheus_client",
}
"""What the extras bring, which a service that only counts should not pay for."""


def documented() -> dict[str, object]:
    """What docs/reference/api.md has: full name -> object."""
    found: dict[str, object] = {}
    for name, members in DIRECTIVE.findall(PAGE.read_text()):
        module, _, last = name.rpartition(".")
        found[name] = getattr(importlib.import_module(module), last)
        for member in re.split(r",\s*", members) if members else ():
            found[f"{name}.{member}"] = inspect.getattr_static(found[name], member)
    return found


def line(name: str, what: object) -> str:
    if isinstance(what, property):
        return f"{name}: {inspect.signature(what.fget).return_annotation}"
    if isinstance(what, type) and issubclass(what, Exception):
        return f"{name}({what.__base__.__name__})"
    return f"{name}{inspect.signature(what)}"


def listing() -> str:
    lines = [line(name, what) for name, what in documented().items()]
    # It takes what is documented for `instrument`, and passes it on to this.
    lines.append(
        line(
            "otel_personalization.PersonalizationInstrumentor.instrument, keywords",
            otel_personalization.PersonalizationInstrumentor._instrument,
        )
    )
    return "\n".join(sorted(lines)) + "\n"


def test_the_public_api_is_the_one_written_down():
    """If it is meant to change: `python -m tests.test_public_api`, and a line in the CHANGELOG."""
    assert listing() == LISTED.read_text()


def test_all_that_the_package_exports_is_documented():
    exported = {f"otel_personalization.{name}" for name in otel_personalization.__all__}
    assert exported - {"otel_personalization.__version__"} <= documented().keys()


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("from otel_personalization import *", "otel_personalization.hook"),
        ("import otel_personalization.asgi", "otel_personalization.asgi"),
    ],
)
def test_importing_it_imports_nothing_of_the_extras(how, what):
    loaded = json.loads(run(f"{how}; import json, sys; print(json.dumps(list(sys.modules)))"))
    assert what in loaded
    assert {name for name in HEAVY if name in loaded} == set()


def test_its_names_are_listed_before_they_are_asked_for():
    listed = json.loads(run("import otel_personalization as o, json; print(json.dumps(dir(o)))"))
    assert {*otel_personalization.__all__} <= {*listed}


def test_type_checkers_know_its_names_and_no_others(tmp_path):
    program = tmp_path / "host.py"
    program.write_text(
        "from otel_personalization import PersonalisationHook, PersonalizationHook\n"
        "PersonalizationHook(log=1)\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-incremental", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert 'has no attribute "PersonalisationHook"; maybe "PersonalizationHook"?' in done.stdout
    assert 'Argument "log" to "PersonalizationHook" has incompatible type "int"' in done.stdout
    assert "Found 2 errors" in done.stdout


def test_a_name_that_it_does_not_have_is_missed_as_of_any_module():
    with pytest.raises(AttributeError, match="'otel_personalization' has no attribute 'Hook'"):
        _ = otel_personalization.Hook
    with pytest.raises(ImportError, match="cannot import name 'Hook'"):
        from otel_personalization import Hook  # noqa: F401


def test_importing_the_command_line_imports_nothing_of_the_nightly_job():
    loaded = json.loads(
        run("import otel_personalization.cli, json, sys; print(json.dumps(list(sys.modules)))")
    )
    light = {"typer", "click", "rich"}
    assert {name for name in HEAVY - light if name in loaded} == set()


def test_importing_it_costs_a_few_imports_of_the_metrics_api():
    """Measured as 3.7, of which most is wrapt, asyncio and OpenTelemetry's instrumentation."""
    measure = "from time import process_time as t; a = t(); from {} import *; print(t() - a)"
    rounds = [
        float(run(measure.format("otel_personalization")))
        / float(run(measure.format("opentelemetry.metrics")))
        for _ in range(5)
    ]
    assert statistics.median(rounds) < 6


if __name__ == "__main__":
    LISTED.write_text(listing())
