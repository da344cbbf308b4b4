"""The guides on changing the rules, done in a copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from examples.stack.servers import REPOSITORY

RULES = "monitoring/prometheus/rules/personalization.recording.yaml"


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a language in a guide; they stand in lists, and so are indented."""
    text = (REPOSITORY / "docs" / "guide" / f"{page}.md").read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [dedent(block) for _, block in found]


def run(commands: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """With all that rules and dashboard are made of, and an up-to-date virtual environment."""
    for name in ("analytics", "monitoring", "otel_personalization"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / ".tools").symlink_to(REPOSITORY / ".tools")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    identity = "-c user.name=reader -c user.email=reader@localhost"
    run(f"git init -q; git add monitoring; git {identity} commit -qm before", tmp_path)
    return tmp_path


def changed(diff: str) -> set[tuple[str, str]]:
    """The lines of a diff that were taken away or added: the sign, and the line."""
    return {
        (line[0], line[1:].strip())
        for line in diff.splitlines()
        if line[0] in "+-" and line[:3] not in ("+++", "---")
    }


def is_shown(line: tuple[str, str], diff: set[tuple[str, str]]) -> bool:
    """Whether a line of a guide, in which `…` is whatever is there, is one of the diff."""
    sign, text = line
    pattern = ".*".join(map(re.escape, text.split("…")))
    return any(sign == of and re.fullmatch(pattern, found) for of, found in diff)


def test_a_threshold_is_changed_by_the_guide_and_nothing_else_is(checkout: Path) -> None:
    commands = blocks("change-a-threshold", "bash")
    printed = run("".join(commands), checkout)
    diff = changed(printed.partition("Checking")[0])
    (guide,) = blocks("change-a-threshold", "diff")
    assert all(is_shown(line, diff) for line in changed(guide))
    assert {text.replace("0.55", "0.5") for sign, text in diff if sign == "-"} == {
        text for sign, text in diff if sign == "+"
    }
    assert "SUCCESS" in printed


def test_a_surface_is_added_by_the_guide(checkout: Path) -> None:
    (own,) = blocks("add-a-surface", "yaml")
    values = checkout / "monitoring" / "prometheus" / "values.yaml"
    before = values.read_text()
    assert before.count("\nsurfaces: {}\n") == 1
    values.write_text(before.replace("\nsurfaces: {}\n", f"\n{own}"))
    printed = run("".join(blocks("add-a-surface", "bash")), checkout)
    diff = changed(printed.partition("Checking")[0])
    (guide,) = blocks("add-a-surface", "diff")
    assert all(is_shown(line, diff) for line in changed(guide))
    labels = {"recsys_namespace": "shop_eu", "surface": "app_home"}
    records = [
        (rule["record"], rule["expr"])
        for group in yaml.safe_load((checkout / RULES).read_text())["groups"]
        for rule in group["rules"]
        if rule.get("labels") == labels
    ]
    assert records == [
        ("surface:recsys_personalized_per_served:threshold_override", "vector(0.5)"),
        ("surface:recsys_personalized_per_served:baseline_override", "vector(0.58)"),
        ("surface:recsys_surface:declared", "vector(1)"),
    ]
    assert "SUCCESS" in printed
