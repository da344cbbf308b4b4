"""The nightly report: the tables of a day as one file of HTML.

It needs no network and no script: plots are SVG within the page, and all numbers stand in tables
beside them::

    html = render(tables, history, made_at=datetime.now(timezone.utc))
    Path("report.html").write_text(html, encoding="utf-8")

The same tables give the same page, to the byte::

    estimates.py    intervals, and the difference between two days
    days.py         the rows by namespace, day and surface
    words.py        figures, days and names as words
    plots.py        rows of the warehouse -> SVG
    layout.py       what a page is made of
    changes.py      what the report says of other days
    parts.py        its parts
    experiments.py  the part on experiments
    quality.py      the part on the data that figures rest on
    content.py      the parts of a namespace, in their order
    page.html.j2    what it looks like

A figure that is null is ``no data`` or ``too few users``, and never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Final

import jinja2
import pyarrow as pa

from otel_personalization.daily.report.content import namespace_report
from otel_personalization.daily.report.days import Days
from otel_personalization.daily.report.plots import MAX_SHOWN
from otel_personalization.daily.report.quality import quality_grids
from otel_personalization.daily.report.words import (
    DOWN,
    MONTHS,
    NO_DATA,
    NOT_RELIABLE,
    TOO_FEW,
    UP,
    clean,
)
from otel_personalization.daily.tables import UNKNOWN, DayTables

HISTORY_DAYS: Final = 28
"""Days before that the plots have room for."""

_WEEKDAYS: Final = (
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
)


def render(tables: DayTables, history: Mapping[str, pa.Table], *, made_at: datetime) -> str:
    """Write the report of a day.

    Args:
        tables: the day of an organisation.
        history: qualified name of a table -> its rows of earlier days, some four weeks of them,
            of `arrow_schema`; may be empty. Rows of the day itself, of later days and of other
            organisations are left aside.
        made_at: when the report was made; aware.

    Returns:
        A page of HTML, to be stored as UTF-8.

    Raises:
        ValueError: `made_at` has no time zone.
    """
    if made_at.tzinfo is None:
        raise ValueError("made_at needs a time zone")
    days = Days(tables, history)
    names = days.namespaces()
    namespaces = [namespace_report(days, name, f"n{index}") for index, name in enumerate(names)]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            day=tables.day.isoformat(),
            day_in_words=_in_words(tables.day),
            organisation="" if tables.org_id == UNKNOWN else clean(tables.org_id),
            made_at=made_at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            days_before=len(days.on_record),
            namespaces=namespaces,
            quality=quality_grids(tables.quality, days, names),
            max_shown=MAX_SHOWN,
            quiet=(NO_DATA, TOO_FEW, NOT_RELIABLE),
            marks={UP: "up", DOWN: "down"},
        )
    )


def _in_words(day: date) -> str:
    return f"{_WEEKDAYS[day.weekday()]}, {day.day} {MONTHS[day.month - 1]} {day.year}"


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
