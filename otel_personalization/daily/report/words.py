"""Figures, days and names of the report as words, and the words for those that are not there."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import date
from typing import Final

from otel_personalization.daily.report.estimates import Estimate
from otel_personalization.daily.tables import ALL, NONE

NO_DATA: Final = "no data"
TOO_FEW: Final = "too few users"
NOT_RELIABLE: Final = "not reliable"
UP: Final = "▲"
DOWN: Final = "▼"
MONTHS: Final = tuple(
    "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905
)
"""By their English names, whatever the locale."""


def percent(value: float | None) -> str:
    """A share, 0 to 1, such as ``60.3 %``."""
    return NO_DATA if value is None else f"{100 * value:.1f}\u00a0%"


def fine(value: float | None) -> str:
    """A small share, such as ``2.31 %``."""
    return NO_DATA if value is None else f"{100 * value:.2f}\u00a0%"


def count(value: float | None) -> str:
    """A number of things."""
    return NO_DATA if value is None else f"{value:,.0f}"


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with so many digits after the point."""
    return NO_DATA if value is None else f"{value:,.{digits}f}".replace("-", "\u2212")


def signed(value: float, digits: int) -> str:
    """A difference, with its sign, and none where it rounds to 0."""
    text = f"{value:+,.{digits}f}"
    return text[1:] if float(text.replace(",", "")) == 0 else text.replace("-", "\u2212")


def points(change: Estimate | None) -> str:
    """A difference of shares, 0 to 1, in percentage points with its interval."""
    if change is None:
        return NO_DATA
    value, lower, upper = (
        signed(100 * limit, 2) for limit in (change.value, change.lower, change.upper)
    )
    return f"{value} points ({lower} to {upper})"


def range_of(estimate: Estimate | None, say: Callable[[float | None], str], otherwise: str) -> str:
    """An interval such as ``58.1 to 62.4 %``; other words where there is none."""
    if estimate is None:
        return otherwise
    lower = say(estimate.lower).removesuffix("\u00a0%")
    return f"{lower} to {say(estimate.upper)}"


def place(surface: str) -> str:
    """The name of a surface, or that it is all of them."""
    return "all surfaces" if surface == ALL else clean(surface)


def rolled(value: str) -> str:
    """The value of a dimension, or that it is all of them."""
    return "all" if value == ALL else clean(value)


def named(value: str) -> str:
    """The name of an experiment or variant, or that there is none."""
    return "no experiment" if value == NONE else clean(value)


def clean(name: object) -> str:
    """A name from a trace as one line of text that can stand in a page.

    Control characters, changes of writing direction and surrogates become U+FFFD.
    """
    return "".join(
        "\ufffd" if unicodedata.category(letter) in _NOT_TEXT or letter in _DIRECTIONS else letter
        for letter in str(name)
    )


_NOT_TEXT: Final = ("Cc", "Cs", "Zl", "Zp")
_DIRECTIONS: Final = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def day_name(day: date) -> str:
    """A day of the year, such as ``3 Nov``."""
    return f"{day.day} {MONTHS[day.month - 1]}"
