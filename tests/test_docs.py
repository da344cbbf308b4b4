"""What README and docs/ say is so: snippets and commands run, tables are those of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from docs import tables
from otel_personalization.cli import app
from otel_personalization.conventions import DECISION_LOG_FIELDS, ENVIRONMENT_PREFIX
from otel_personalization.settings import resolve
from tests.conftest import DATA
from tests.otlp_receiver import receiving

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
"""Its blocks belong together: tests/e2e/test_tutorial.py runs them."""
PAGES = sorted({REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")} - {TUTORIAL})


def blocks(language: str) -> list[Any]:
    """The blocks of code of a language, on all pages."""
    return [
        pytest.param(block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(
            re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
        )
    ]


TRACING = """
class DecisionTracer:
    def finalize(self, decision):
        return decision

    def store(self, decision):
        return "stored"

def finalize(decision):
    return decision
"""
AROUND_A_TEST = """
from otel_personalization import PersonalizationInstrumentor
PersonalizationInstrumentor().instrument(target="ranking.tracing:DecisionTracer.finalize")
from ranking.tracing import DecisionTracer
decision = {{"final_items": [{{"item_id": "a", "personalized": True}}, {{"item_id": "b"}}]}}
{snippet}
test_the_tracer_is_instrumented()
"""


@pytest.fixture
def service(tmp_path):
    """A folder with a service as the pages have it."""
    (tmp_path / "ranking").mkdir()
    (tmp_path / "ranking" / "__init__.py").touch()
    (tmp_path / "ranking" / "tracing.py").write_text(TRACING)
    (tmp_path / "ranking" / "web.py").write_text("async def app(scope, receive, send): ...")
    (tmp_path / "app.py").write_text("from ranking.tracing import finalize\nfinalize({})")
    return tmp_path


@pytest.mark.parametrize("snippet", blocks("python"))
def test_a_snippet_runs(snippet, service):
    """In a process of its own."""
    if "def test_" in snippet:
        snippet = AROUND_A_TEST.format(snippet=snippet)
    with receiving() as received:
        program = snippet.replace("http://localhost:4318", received.endpoint)
        done = subprocess.run(
            [sys.executable, "-c", program + "\nimport ranking.tracing"],
            cwd=service,
            env=os.environ | {"PYTHONPATH": str(service), "OTEL_EXPORTER_OTLP_TIMEOUT": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_snippets_of_every_way_to_instrument():
    text = "".join(page.read_text() for page in PAGES)
    for way in ("instrument(target=", "configure(", 'when="before"', "record(", "counting()"):
        assert way in text


def test_the_tables_are_those_of_the_code():
    """`python docs/tables.py` writes them."""
    for page in (REPOSITORY / "docs" / "reference").glob("*.md"):
        assert page.read_text() == tables.updated(page.read_text())


@pytest.mark.parametrize("command", ["replay", "doctor", "snapshot", "daily"])
def test_the_help_of_a_command_is_text_as_it_is_read(command):
    shown = CliRunner().invoke(app, [command, "--help"]).stdout
    assert "\\b" not in shown
    assert re.search(r"Exit codes: *\n +0  ", shown)


def test_the_log_line_is_one_as_the_contract_has_it():
    text = (REPOSITORY / "docs" / "guide" / "logs.md").read_text()
    (line,) = map(json.loads, re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    assert set(line) == {field.name for field in DECISION_LOG_FIELDS}


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "personalized_items_count" in (tmp_path / "reference" / "log-lines.html").read_text()


def test_every_setting_is_explained_in_the_guide():
    guide = "".join(page.read_text() for page in (REPOSITORY / "docs" / "guide").glob("*.md"))
    for name in vars(resolve(environment={})):  # most are words of English, too
        variable = ENVIRONMENT_PREFIX + name.upper()
        assert re.search(rf"`{name}`|\b{name}=|\b{variable}\b", guide), name


@pytest.mark.parametrize(
    "commands", [block for block in blocks("sh") if not re.match("make|pip", block.values[0])]
)
def test_every_sh_block_of_the_pages_ends_with_0(commands, service):
    (service / "tests").mkdir()
    (service / "tests" / "data").symlink_to(DATA)
    for name in ("traces.ndjson.gz", "traces.ndjson"):
        (service / name).write_bytes((DATA / "traces.ndjson.gz").read_bytes())
    (service / "answers.ndjson").write_bytes((DATA / "responses.ndjson.gz").read_bytes())
    with receiving() as received:
        done = subprocess.run(
            ["bash", "-e", "-c", commands.replace("http://localhost:4318", received.endpoint)],
            cwd=service,
            env=os.environ
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(service),
                "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_picture_shows_the_sample(truth):
    picture = (REPOSITORY / "docs" / "replay.svg").read_text()
    served = sum(row["served_items"] for row in truth["cells"])
    personalized = sum(row["personalized_items"] for row in truth["cells"])
    for shown in (served, personalized, f"{personalized / served:.1%}"):
        assert f">{shown}<" in re.sub(r"&#160;|\s", "", picture)


def test_the_figures_of_the_bench_are_the_ones_written_down():
    """In adds; in microseconds they are what the cost of an add that is stated makes of it."""
    measured = (REPOSITORY / "benchmarks" / "results.md").read_text().splitlines()
    medians = {tuple(row.split(" | ")[:2]) for row in measured if row.startswith("| ")}
    (costs,) = re.findall(r"(\d+) µs of CPU in a sampled span and (\d+) µs outside", README)
    in_span, outside = map(int, costs)
    places = ("in a sampled span", "outside of any span")
    adds_cost = [dict(medians)[f"| one add; {place}"].removesuffix(" µs") for place in places]
    assert [round(float(cost)) for cost in adds_cost] == [in_span, outside]
    quoted = README[README.index("| what | adds | µs |") :].split("\n\n")[0].splitlines()[2:]
    assert len(quoted) == 5
    where = in_span
    for row in quoted:
        what, adds, microseconds = row.strip("|").split("|")
        assert (f"| {what.strip()}", adds.strip()) in medians
        if "span" in what or "logs" in what:
            where = outside if "outside" in what else in_span
        assert int(microseconds) == round(float(adds) * where)


def test_the_intervals_that_are_quoted_are_those_that_were_simulated():
    measured = (REPOSITORY / "benchmarks" / "interval_coverage.md").read_text().splitlines()
    page = (REPOSITORY / "docs" / "explanation" / "statistics.md").read_text().splitlines()
    quoted = [line for line in page if line.startswith("| ")]
    assert len(quoted) > 10
    assert set(quoted) <= set(measured)


def test_the_figures_of_the_comparison_are_those_that_were_measured():
    measured = (REPOSITORY / "benchmarks" / "comparison.md").read_text().splitlines()
    page = (REPOSITORY / "docs" / "comparison.md").read_text().splitlines()
    quoted = [line for line in page if line.startswith("|")]
    assert len(quoted) > 20
    assert set(quoted) <= set(measured)
