"""What a page, a comment or a docstring points to is there: pages, headings, files.

The site's own checks see links between its pages; these also see what is read in the repository.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOMS = (
    *("analytics", "benchmarks", "docs", "examples", "monitoring"),
    *("otel_personalization", "tests"),
)
PAGES = sorted(
    {
        *REPOSITORY.glob("*.md"),
        *(page for room in ROOMS for page in (REPOSITORY / room).rglob("*.md")),
    }
    - set((REPOSITORY / "docs" / "_build").rglob("*"))
)
CODE = (".py", ".sql", ".yaml", ".yml", ".toml", ".mk", ".ipynb", ".tmpl", ".html", ".css", ".mjs")
of_each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY))
)


def without_code(text: str) -> str:
    """A page without its blocks of code, and without what is between backticks."""
    text = re.sub(r"^( *)(```+)\w*\n.*?^\1\2$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: "x" * len(code[0]), text)


def links(page: Path) -> list[str]:
    """Where a page leads to within the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links to them are written."""
    text = re.sub(r"^( *)(```+).*?^\1\2$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_there(link: str, folder: Path) -> bool:
    """Whether a file, and a heading of it if the link names one, is there."""
    name, _, anchor = link.partition("#")
    target = folder / name
    return target.exists() and (not anchor or anchor in anchors(target))


@of_each_page
def test_every_link_leads_to_a_page_and_a_heading_that_are_there(page: Path) -> None:
    for link in links(page):
        folder = page.parent
        assert is_there(f"{page.name}{link}" if link.startswith("#") else link, folder), link


@of_each_page
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    """Those are in backticks, and begin with a folder of the repository."""
    named = re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./-]+)`", page.read_text())
    for name in named:
        assert (REPOSITORY / name).exists(), name


def test_every_page_that_code_names_is_there() -> None:
    rooms = (file for room in ROOMS for file in (REPOSITORY / room).rglob("*"))
    found = 0
    for file in (*REPOSITORY.glob("*"), *rooms):
        if file.suffix not in CODE and file.name != "Makefile":
            continue
        for page in re.findall(r"docs/(?!_build)[\w/.-]*\w(?:#[\w-]+)?", file.read_text()):
            found += 1
            assert is_there(page, REPOSITORY), f"{file}: {page}"
    assert found > 10


def test_links_and_headings_are_found() -> None:
    page = REPOSITORY / "docs" / "explanation" / "failures.md"
    assert "../guide/collector-logs.md#when-something-fails" in links(page)
    assert not is_there("../guide/collector-logs.md#when-nothing-fails", page.parent)
    assert not is_there("../guide/no-such-page.md", page.parent)
