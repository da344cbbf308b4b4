"""What the README says is so: its snippets run, its tables are those of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from otel_personalization.cli import app
from otel_personalization.conventions import COUNTERS, DECISION_LOG_FIELDS, ENVIRONMENT_PREFIX
from otel_personalization.settings import resolve
from tests.conftest import DATA
from tests.otlp_receiver import receiving

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

TRACING = """
class DecisionTracer:
    def finalize(self, decision):
        return decision

    def store(self, decision):
        return "stored"
"""
AROUND_A_TEST = """
from otel_personalization import PersonalizationInstrumentor
PersonalizationInstrumentor().instrument(target="ranking.tracing:DecisionTracer.finalize")
from ranking.tracing import DecisionTracer
decision = {{"final_items": [{{"item_id": "a", "personalized": True}}, {{"item_id": "b"}}]}}
{snippet}
test_the_tracer_is_instrumented()
"""


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[-1][:50])
def test_a_snippet_runs(snippet, tmp_path):
    """In a process of its own, beside a service as the README has it."""
    (tmp_path / "ranking").mkdir()
    (tmp_path / "ranking" / "__init__.py").touch()
    (tmp_path / "ranking" / "tracing.py").write_text(TRACING)
    (tmp_path / "ranking" / "web.py").write_text("async def app(scope, receive, send): ...")
    if "def test_" in snippet:
        snippet = AROUND_A_TEST.format(snippet=snippet)
    elif not snippet.startswith("from"):
        snippet = "from otel_personalization import PersonalizationInstrumentor\n" + snippet
    with receiving() as received:
        program = snippet.replace("http://localhost:4318", received.endpoint)
        done = subprocess.run(
            [sys.executable, "-c", program + "\nimport ranking.tracing"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_snippets_of_every_way_to_instrument():
    for way in ("instrument(target=", "configure(", 'when="before"', "record(", "counting()"):
        assert any(way in snippet for snippet in SNIPPETS)


def rows_of_table(first: str) -> list[list[str]]:
    """The rows of the table whose header begins so, their cells without code marks."""
    table = README[README.index(first) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in row.split("|")[1:-1]] for row in table]


def test_the_counters_are_those_of_the_contract():
    rows = rows_of_table("| counter |")
    assert [(row[0], row[1]) for row in rows] == [
        (counter.name, counter.prometheus_name) for counter in COUNTERS
    ]


def test_the_log_line_is_one_as_the_contract_has_it():
    (line,) = map(json.loads, re.findall(r"```json\n(.*?)```", README, re.DOTALL))
    assert set(line) == {field.name for field in DECISION_LOG_FIELDS}


def test_the_settings_are_those_of_the_code():
    defaults = resolve(environment={})
    rows = [row for row in rows_of_table("| keyword |") if row[1]]
    assert [row[0] for row in rows] == list(vars(defaults))
    for keyword, variable, default, _ in rows:
        assert variable == ENVIRONMENT_PREFIX + keyword.upper()
        environment = {} if default == "none" else {variable: default}
        assert resolve(environment=environment) == defaults


@pytest.mark.parametrize(
    "command", re.findall(r"^otel-personalization (replay [^#\n]*)", README, re.MULTILINE)
)
def test_the_commands_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = (DATA / "traces.ndjson.gz").read_bytes()
    for name in ("traces.ndjson.gz", "traces.ndjson"):
        Path(name).write_bytes(content)
    Path("answers.ndjson").write_bytes((DATA / "responses.ndjson.gz").read_bytes())
    words, _, stdin = command.partition(" < ")
    with receiving() as received:
        words = words.replace("http://localhost:4318", received.endpoint)
        result = CliRunner().invoke(app, words.split(), input=content if stdin else None)
    assert result.exit_code == 0, result.output


def test_the_picture_shows_the_sample(truth):
    picture = (REPOSITORY / "docs" / "replay.svg").read_text()
    served = sum(row["served_items"] for row in truth["cells"])
    personalized = sum(row["personalized_items"] for row in truth["cells"])
    for shown in (served, personalized, f"{personalized / served:.1%}"):
        assert f">{shown}<" in re.sub(r"&#160;|\s", "", picture)


def test_the_figures_of_the_bench_are_the_ones_written_down():
    measured = (REPOSITORY / "benchmarks" / "results.md").read_text().splitlines()
    quoted = README[README.index("| what | median |") :].split("\n\n")[0].splitlines()
    assert len(quoted) > 10
    assert set(quoted) <= set(measured)
