"""A house with rooms in an order: no module imports from one below it in the list of its room."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LISTS = {
    "otel_personalization": "CONTRIBUTING.md",
    "otel_personalization/daily": "otel_personalization/daily/__init__.py",
    "otel_personalization/daily/report": "otel_personalization/daily/report/__init__.py",
    "otel_personalization/daily/warehouse": "otel_personalization/daily/warehouse/__init__.py",
    "analytics/dashboards": "analytics/dashboards/build.py",
    "examples/ranking_service": "examples/ranking_service/README.md",
}
"""By folder: the page that lists its modules, in a table or in an indented block."""
ROW = re.compile(r"^(?:\| ([^|]+) \|| {4}(\S+) {2,}\S)", re.MULTILINE)
SDK = ("opentelemetry.sdk", "opentelemetry.exporter")


def listed(folder: str) -> list[str]:
    """The modules and packages of a folder, in the order of its list."""
    rows = ROW.findall((REPOSITORY / LISTS[folder]).read_text())
    return re.findall(r"([\w.]+)(?:\.py\b|/(?!\w))", "\n".join(cell or word for cell, word in rows))


def there(folder: str) -> set[str]:
    """Those that it has; without its face and its starter, ``__init__`` and ``__main__``."""
    files = {path.stem for path in (REPOSITORY / folder).glob("*.py")}
    packages = {path.parent.name for path in (REPOSITORY / folder).glob("*/__init__.py")}
    return packages | files - {"__init__", "__main__"}


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The modules that a file imports anywhere, also within functions, and in which line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}:{node.lineno}: a relative import"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if is_module(inner) else node.module, node.lineno


def is_module(name: str) -> bool:
    path = REPOSITORY / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("folder", LISTS)
def test_the_list_of_a_room_has_each_module_once(folder):
    names = listed(folder)
    assert sorted(names) == sorted(there(folder))


@pytest.mark.parametrize("folder", LISTS)
def test_a_module_imports_only_from_those_above_it(folder):
    """What stands in a package of its own counts as that package."""
    order = listed(folder)
    room = folder.replace("/", ".")
    wrong = []
    for path in (REPOSITORY / folder).rglob("*.py"):
        inside = path.relative_to(REPOSITORY / folder)
        module = inside.parts[0].removesuffix(".py")
        if module in ("__init__", "__main__"):
            continue  # they stand below all others
        allowed = {*order[: order.index(module)], *([module] if len(inside.parts) > 1 else [])}
        for name, line in imported(path):
            if name == room or name.startswith(f"{room}."):
                needed = name.removeprefix(room).removeprefix(".").partition(".")[0]
                if needed not in allowed:
                    wrong.append(f"{folder}/{inside}:{line}: {name}")
    assert wrong == []


def test_only_the_pipeline_imports_the_sdk():
    importers = {
        path.name
        for path in (REPOSITORY / "otel_personalization").rglob("*.py")
        for name, _ in imported(path)
        if name.startswith(SDK)
    }
    assert importers == {"pipeline.py"}
