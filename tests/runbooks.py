"""The runbooks of docs/runbooks, and the queries in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

FOLDER = Path(__file__).parents[1] / "docs" / "runbooks"
INDEX = FOLDER / "index.md"
RUNBOOKS = sorted(set(FOLDER.glob("*.md")) - {INDEX})
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Query:
    """A block that is to be pasted somewhere."""

    name: str
    """The page, and which block of its language it is on it."""
    text: str


def queries(language: str) -> list[Query]:
    """The blocks of a language, promql, logql or sql, on all pages."""
    return [
        Query(f"{page.stem}-{number}", text)
        for page in RUNBOOKS
        for number, text in enumerate(blocks(page, language), 1)
    ]


def blocks(page: Path, language: str) -> list[str]:
    """Those of one page; most are in a list, and so indented."""
    return [
        dedent(text).strip("\n")
        for _, name, text in BLOCK.findall(page.read_text())
        if name == language
    ]


def section(page: Path, title: str) -> str:
    """The text below a heading, up to the next one of its level; empty, if it is not there."""
    _, _, text = page.read_text().partition(f"\n## {title}\n")
    return text.partition("\n## ")[0]
