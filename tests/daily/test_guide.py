"""docs/guide/nightly.md says what is so, also where running its snippets cannot tell."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from otel_personalization.cli import app
from otel_personalization.conventions import LARGEST_MAX_LABEL_SETS, MAX_LABEL_LENGTH
from otel_personalization.daily.entropy import (
    MAX_LONE_SHARE,
    MAX_RARE_SHARE,
    MIN_GROUPS,
    MIN_SAMPLE_COVERAGE,
)
from otel_personalization.daily.measures import MOST_USERS
from otel_personalization.daily.tables import TABLES

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs" / "guide" / "nightly.md").read_text()
PACKAGE = REPOSITORY / "otel_personalization"


def section(heading):
    """The text of a section of the guide."""
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE).group(1)


@cache
def texts_of_the_code():
    """What stands in its strings; of those that are put together, the parts that it holds."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found += [part.value for part in node.values if isinstance(part, ast.Constant)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\0".join(found)


def told():
    """What the guide says that the job tells."""
    rows = re.findall(r"^\| (.*?) \|", section("When something is wrong"), re.MULTILINE)
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row) if " " in text]


@pytest.mark.parametrize("message", told())
def test_what_the_guide_knows_a_remedy_for_is_what_the_job_tells(message):
    everything = texts_of_the_code()
    fragments = re.split(r"…|DAY|DIR|FILE|LINE|PID|rec_decisions|(?<= )\d(?= )", message)
    assert any(len(fragment) > 5 for fragment in fragments)
    for fragment in fragments:
        assert fragment.strip(" ():") in everything


def test_what_is_called_reliable_is_what_the_notebook_says_of_it():
    notebook = (REPOSITORY / "analytics/notebooks/personalization_daily.ipynb").read_text()
    assert f"fewer than {MIN_GROUPS} groups of users were served one" in notebook
    assert f"the sample coverage is under {MIN_SAMPLE_COVERAGE}" in notebook
    assert f"over {100 * MAX_LONE_SHARE:g} % are of values that one group" in notebook
    assert (
        f"over {100 * MAX_RARE_SHARE:g} % of these and over {100 * MAX_RARE_SHARE:g} % of"
        in notebook
    )


def test_the_guide_knows_remedies():
    assert len(told()) > 10


def options(name):
    """The options of a command, with their defaults."""
    group: Any = typer.main.get_command(app)
    return {
        option: parameter.default
        for parameter in group.commands[name].params
        for option in parameter.opts
    }


def test_every_option_of_daily_is_in_the_guide_with_its_default():
    of_daily = options("daily")
    assert set(of_daily) <= set(re.findall(r"--[a-z-]+", GUIDE))
    rows = dict(re.findall(r"^\| `(--[a-z-]+)`\S* \| `?([^|`]+?)`? \|", section("Settings"), re.M))
    assert len(rows) > 7
    for option, default in rows.items():
        actual = getattr(of_daily[option], "value", of_daily[option])
        assert default == ("none" if actual in (None, []) else str(actual)), option


def test_every_option_in_the_guide_is_one():
    commands = re.findall(r"otel-personalization (snapshot|daily)([^;|`\n]*)", GUIDE)
    assert len(commands) > 8
    for name, arguments in commands:
        assert set(re.findall(r"--[a-z-]+", arguments)) <= set(options(name)) | {"--help"}


def test_every_column_in_the_guide_is_one():
    columns = {column for table in TABLES for column in table.column_names}
    text = section("What the figures mean, and what they do not")
    for name in re.findall(r"`(?:entropy|jaccard|top10|mean|known|longest|identical)_\w+`", text):
        assert name.strip("`") in columns
    for ending in re.findall(r"`…(_\w+)`", text):
        assert f"entropy_brand{ending}" in columns


def test_numbers_in_the_guide_are_those_of_the_code():
    assert f"At most {LARGEST_MAX_LABEL_SETS} namespaces" in GUIDE
    assert f"over {MAX_LABEL_LENGTH} characters" in GUIDE
    assert f"Over {MOST_USERS:,}, the {MOST_USERS:,} with the smallest hashes" in GUIDE
