"""What the page is made of: parts of tables and plots, for a namespace each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from otel_personalization.daily.report.plots import Plot

OPEN_ROWS: Final = 12
"""Rows of a table that is open at first; longer ones open on a click, and in print."""


@dataclass(frozen=True)
class Grid:
    """A table of text, whose first `names` columns say what a row is about."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1

    @property
    def is_open(self) -> bool:
        """Whether it is short enough to stand open."""
        return len(self.rows) <= OPEN_ROWS


@dataclass(frozen=True)
class Figure:
    """A plot with its heading; None where there is nothing to draw."""

    heading: str
    plot: Plot


@dataclass
class Part:
    """A part of a namespace's report: how to read it, what was drawn, and the numbers."""

    heading: str
    how_to_read: str
    figures: list[Figure] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences that stand before the plots."""
    left_out: int = 0
    """Surfaces or variants that the plots have no place for."""

    def draw(self, heading: str, plot: Plot | None) -> None:
        """Add a plot, if there is one."""
        if plot is not None:
            self.figures.append(Figure(heading, plot))
            self.left_out = max(self.left_out, plot.left_out)


@dataclass(frozen=True)
class Headline:
    """The figures of a namespace that are read first."""

    namespace: str
    share: str
    share_interval: str
    since_yesterday: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Namespace:
    """The report of a namespace."""

    name: str
    headline: Headline
    parts: Sequence[Part]
