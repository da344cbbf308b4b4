"""Writes the tables of docs/reference from the code: ``python docs/tables.py``."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from otel_personalization import conventions, settings
from otel_personalization.cli import app
from otel_personalization.daily import tables as daily

REFERENCE = Path(__file__).parent / "reference"
KEPT = "\b\n"
"""Begins a paragraph that the command line does not wrap."""


def table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    columns = head.split(", ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n" for cells in lines
    )


def docstrings_of(kind: type) -> dict[str, str]:
    """What stands below each attribute of a class, on one line."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for attribute, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(attribute, ast.AnnAssign):
            name = ast.unparse(attribute.target)
        elif isinstance(attribute, ast.Assign):
            name = ast.unparse(attribute.targets[0])
        else:
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = inspect.cleandoc(str(following.value.value))
            found[name] = " ".join(text.split()).replace("``", "`").rstrip(".")
    return found


def counters(of: Iterable[conventions.Counter]) -> str:
    """Counters of the contract."""
    return table(
        "counter, as Prometheus shows it, unit, attributes, adds up",
        (
            (
                f"`{counter.name}`",
                f"`{counter.prometheus_name}`",
                f"`{counter.unit}`",
                ", ".join(f"`{key}`" for key in counter.attributes) or "none",
                counter.description.rstrip("."),
            )
            for counter in of
        ),
    )


def gauges(of: Iterable[conventions.Gauge]) -> str:
    """Gauges of the contract."""
    return table(
        "gauge, labels, says",
        (
            (
                f"`{gauge.prometheus_name}`",
                ", ".join(f"`{key.replace('.', '_')}`" for key in gauge.attributes) or "none",
                gauge.description.rstrip("."),
            )
            for gauge in of
        ),
    )


def columns(of: daily.Table) -> str:
    """Every column of a table of the nightly job; those that tell its rows apart are marked."""
    return table(
        "column, is, says",
        (
            (
                f"`{column.name}`",
                f"{column.kind.value}, key" if column.is_key else column.kind.value,
                column.meaning,
            )
            for column in of.columns
        ),
    )


def values(kind: type[Enum], head: str) -> str:
    """The values of an attribute that has few."""
    texts = docstrings_of(kind)
    return table(head, ((f"`{value.value}`", texts[value.name]) for value in kind))


def log_fields(fields: Iterable[conventions.LogField]) -> str:
    """The fields of a log line."""
    return table(
        "field, is, says", ((f"`{field.name}`", field.kind, field.description) for field in fields)
    )


def settings_table() -> str:
    """Every setting, its variable and its default."""
    texts = docstrings_of(settings.Settings)
    return table(
        "keyword, variable, default, is",
        (
            (
                f"`{name}`",
                f"`{conventions.ENVIRONMENT_PREFIX}{name.upper()}`",
                _default(value),
                texts[name],
            )
            for name, value in vars(settings.resolve(environment={})).items()
        ),
    )


def commands() -> str:
    """Every command of the command line: what it does, its exit codes, its options."""
    group: Any = typer.main.get_command(app)
    return "\n".join(
        f"## `{name}`\n\n{_prose(command.help)}\n\n"
        + table("option, takes, default, is", map(_option, command.params))
        for name, command in group.commands.items()
    )


def _prose(text: str) -> str:
    """The help of a command; paragraphs whose lines are to stay as they are become code."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```text\n{paragraph.removeprefix(KEPT)}\n```" if paragraph.startswith(KEPT) else paragraph
        for paragraph in paragraphs
    )


def _option(parameter: Any) -> tuple[str, ...]:
    is_argument = parameter.param_type_name == "argument"
    default = parameter.default
    takes = parameter.metavar
    if getattr(parameter, "is_flag", False):
        takes = default = None
    elif isinstance(default, Enum):
        takes = ", ".join(f"`{value.value}`" for value in type(default))
        default = default.value
    elif takes is None:
        takes = "number" if isinstance(default, int) else "text"
    if getattr(parameter, "multiple", False) or parameter.nargs == -1:
        takes = f"{takes}, several times"
    has_default = isinstance(default, (str, int, float))
    return (
        f"`{parameter.metavar}`" if is_argument else f"`{parameter.opts[0]}`",
        takes or "",
        "required" if parameter.required else f"`{default}`" if has_default else "none",
        parameter.help.rstrip("."),
    )


def _default(value: object) -> str:
    if isinstance(value, (tuple, frozenset)):
        return f"`{','.join(sorted(value))}`" if value else "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


TABLES = {
    "counters": counters(conventions.COUNTERS),
    "of_collectors": counters((conventions.LOG_DECISIONS,)),
    "views": gauges(conventions.VIEWS),
    "malformed": values(conventions.MalformedReason, "`reason`, the trace"),
    "errors": values(conventions.InternalErrorKind, "`kind`, what happened"),
    "decision": log_fields(conventions.DECISION_LOG_FIELDS),
    "source": log_fields(conventions.SOURCE_LOG_FIELDS),
    "optional": log_fields(conventions.OPTIONAL_LOG_FIELDS),
    "settings": settings_table(),
    "commands": commands(),
    "gauges": gauges(conventions.DAILY_GAUGES),
    "daily": log_fields(conventions.DAILY_LOG_FIELDS),
    **{of.name: columns(of) for of in daily.TABLES},
}


def updated(text: str) -> str:
    """A page with its tables as they should be."""
    return re.sub(
        r"<!-- (\w+) -->\n.*?<!-- end -->",
        lambda match: f"<!-- {match[1]} -->\n{TABLES[match[1]]}<!-- end -->",
        text,
        flags=re.DOTALL,
    )


def main() -> None:
    """Write them."""
    for page in REFERENCE.glob("*.md"):
        page.write_text(updated(page.read_text()))


if __name__ == "__main__":
    main()
