"""The plots of the nightly report, as SVG that stands in a page of HTML.

Each takes rows of one namespace as the warehouse has them, so that a notebook can draw it from a
query; Jupyter shows it::

    rows = warehouse.sql("FROM analytics.personalization_daily").to_arrow_table().to_pylist()
    share_by_surface(rows)

A plot is as wide as a telephone, and its text is text: it is drawn in the reader's own fonts, at
about the size of the page's, and needs no outlines of letters. Colours are told apart by people who
are colour-blind, and in print by lightness, hatching and marker. Names come from traces: they are
shortened, never read as formulas, and escaped.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from otel_personalization.conventions import MIN_OVERLAP_USERS
from otel_personalization.daily.report.days import busiest, everybody
from otel_personalization.daily.report.estimates import Row, interval, number
from otel_personalization.daily.report.words import clean, day_name
from otel_personalization.daily.tables import ALL, NEW, RETURNING, UNKNOWN

MAX_SHOWN: Final = 12
"""Surfaces or variants in a plot: those with the most served items. Tables have all."""
MAX_DEVICES: Final = 5
"""Columns of an overlap map beside `all`."""
MAX_COHORTS: Final = 5
"""Rows of an overlap map beside `all`."""
COVERAGE_TARGET: Final = 0.8
"""The lower edge of the target band, as on the dashboard."""
OVERLAP_LIMIT: Final = 0.35
"""Mean overlap above which users are thought to see the same, as the alert has it."""

_WIDTH: Final = 340
"""Points; one is a pixel where the page is 360 pixels wide."""
_LABELS: Final = 106
"""Points to the left of an axis of names."""
_LABEL_CELLS: Final = 14
"""Latin letters that fit there; a Chinese one takes the place of two."""

_BLUE, _ORANGE, _GREEN, _SKY, _RED, _PURPLE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#56b4e9",
    "#d55e00",
    "#cc79a7",
)
"""From the palette of Okabe and Ito, in an order that changes between dark and light."""
_FILLS: Final = (_BLUE, _ORANGE, _GREEN, _SKY, _RED, _PURPLE)
_OTHERS: Final = "#9a9a9a"
_GREY: Final = "#d9d9d9"
_INK: Final = "#1a1a1a"
_STYLE: Final[dict[str, Any]] = {
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.8,
    "axes.labelcolor": _INK,
    "axes.labelsize": 11,
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "hatch.linewidth": 1.2,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 11,
}


@dataclass(frozen=True)
class Swatch:
    """An entry of a legend."""

    label: str
    css: str
    """The background that stands for it, or nothing where `mark` does."""
    mark: str = ""
    """A character of the marker, in the colour of the series."""
    colour: str = _INK


@dataclass(frozen=True)
class Plot:
    """A drawing with its legend."""

    svg: Markup = field(repr=False)
    legend: tuple[Swatch, ...] = ()
    left_out: int = 0
    """Surfaces or variants that found no place."""

    def __html__(self) -> str:
        items = Markup("").join(
            Markup('<li><span aria-hidden="true" style="{}">{}</span> <bdi>{}</bdi></li>').format(
                f"{_SWATCH};background:{swatch.css}"
                if swatch.css
                else f"color:{swatch.colour};font-size:1.1em",
                swatch.mark,
                swatch.label,
            )
            for swatch in self.legend
        )
        legend = (
            Markup('<ul class="legend" style="list-style:none;padding:0">{}</ul>').format(items)
            if self.legend
            else ""
        )
        return f"{legend}{self.svg}"

    def _repr_html_(self) -> str:
        """As Jupyter shows it, which has no style of the page's."""
        return f'<div style="max-width:34rem">{self.__html__()}</div>'


_SWATCH: Final = (
    "display:inline-block;width:1.1em;height:.8em;border:1px solid #666;print-color-adjust:exact;"
    "-webkit-print-color-adjust:exact"
)


# --- labels -------------------------------------------------------------------------------------


def short(name: object, cells: int = _LABEL_CELLS) -> str:
    """A name cut to a width, in Latin letters; what was cut is an ellipsis."""
    text = clean(name)
    taken = 0
    for position, letter in enumerate(text):
        taken += 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
        if taken > cells:
            return text[: max(position - 1, 0)] + "…"
    return text


def _labels(names: Sequence[str], cells: int = _LABEL_CELLS) -> list[str]:
    """Names cut to a width; those that look alike then are numbered, in their order."""
    cut = [short(name, cells) for name in names]
    return [
        label if cut.count(label) == 1 else short(f"{at} {clean(name)}", cells)
        for at, (label, name) in enumerate(zip(cut, names, strict=True), start=1)
    ]


# --- the plots --------------------------------------------------------------------------------


def share_by_surface(rows: Sequence[Row], *, key: str = "share") -> Plot | None:
    """What each surface's personalised items are of all served items, day by day, stacked: the
    height of a stack is the overall share.

    Args:
        rows: of personalization_daily, one namespace, any days.
        key: tells the plots of a page apart.

    Returns:
        The plot; None where no day served anything.
    """
    rows = everybody(rows)
    served: dict[date, float] = {
        row["day"]: items
        for row in rows
        if row["surface"] == ALL and (items := number(row, "served_items"))
    }
    if not served:
        return None
    surfaces = busiest([row for row in rows if row["day"] in served])
    shown = surfaces[:MAX_SHOWN]
    parts = {name: dict.fromkeys(served, 0.0) for name in (*shown, None)}
    for row in rows:
        if row["surface"] != ALL and row["day"] in served:
            part = parts[row["surface"] if row["surface"] in shown else None]
            part[row["day"]] += (number(row, "personalized_items") or 0) / served[row["day"]]
    first, last = min(served), max(served)
    days = sorted(served)
    places = [(day - first).days for day in days]
    with _figure(key, "Personalised share by surface", 190) as drawing:
        axes = drawing.axes(left=44, right=8, top=10, bottom=26)
        floor = [0.0] * len(days)
        legend = []
        labels = (*_labels(shown, 40), f"{len(surfaces) - MAX_SHOWN} others")
        for index, (name, label) in enumerate(zip((*shown, None), labels, strict=True)):
            if name is None and len(surfaces) <= MAX_SHOWN:
                continue
            heights = [parts[name][day] for day in days]
            look = _look(index) if name is not None else {"facecolor": _OTHERS}
            axes.bar(places, heights, 0.86, floor, edgecolor="white", linewidth=0.6, **look)
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
            legend.append(Swatch(label, _css(index) if name is not None else _OTHERS))
        # Bars begin at 0; above the highest only as much as it takes to name the next step.
        axes.set_ylim(0, min(1.0, 0.2 * (int(max(floor) / 0.2) + 1) + 0.02))
        _percent(axes.yaxis)
        _days(axes, first, last)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        return drawing.plot(legend, max(len(surfaces) - MAX_SHOWN, 0))


def coverage(rows: Sequence[Row], *, key: str = "coverage") -> Plot | None:
    """Reason coverage of all served items and of requested ones: of the namespace over the days,
    and by surface on the last of them, with the target band.

    Args:
        rows: of personalization_daily, one namespace, any days.
        key: tells the plots of a page apart.

    Returns:
        The plot; None where no day has a figure.
    """
    rows = everybody(rows)
    names = ("reason_coverage_rate", "requested_reason_coverage_rate")
    if not any(number(row, name) is not None for row in rows for name in names):
        return None
    first, last = (choose(row["day"] for row in rows) for choose in (min, max))
    today = {row["surface"]: row for row in rows if row["day"] == last}
    surfaces = busiest(list(today.values()))
    shown = surfaces[:MAX_SHOWN]
    has_days = first < last
    above = 150 if has_days else 0
    height = above + 46 + 22 * max(len(shown), 1)
    with _figure(key, "Reason coverage", height) as drawing:
        if has_days:
            axes = drawing.axes(left=44, right=12, top=10, bottom=height - 116)
            axes.axhspan(COVERAGE_TARGET, 1, color="#d5ecdf", linewidth=0)
            for name, look in zip(names, _COVERAGE_LOOKS, strict=True):
                values = {
                    (row["day"] - first).days: number(row, name)
                    for row in rows
                    if row["surface"] == ALL
                }
                line = [values.get(place) for place in range((last - first).days + 1)]
                axes.plot(
                    [float("nan") if value is None else value for value in line],
                    markersize=4,
                    linewidth=1.4,
                    clip_on=False,
                    **look,
                )
            axes.set_ylim(0, 1.02)
            _percent(axes.yaxis)
            _days(axes, first, last)
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes = drawing.axes(left=_LABELS, right=16, top=above + 8, bottom=24)
        axes.axvspan(COVERAGE_TARGET, 1, color="#d5ecdf", linewidth=0)
        for name, look in zip(names, _COVERAGE_LOOKS, strict=True):
            points = [(number(today[surface], name), at) for at, surface in enumerate(shown)]
            known = [(value, at) for value, at in points if value is not None]
            axes.plot(
                [value for value, _ in known],
                [at for _, at in known],
                markersize=7,
                clip_on=False,
                **(look | {"linestyle": "none"}),
            )
        for at, surface in enumerate(shown):
            if all(number(today[surface], name) is None for name in names):
                axes.text(0.02, at, "no data", va="center", fontsize=10)
        axes.set_xlim(0, 1.02)
        _percent(axes.xaxis)
        _names(axes, shown)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        legend = (
            Swatch("of all served items", "", "●", _BLUE),
            Swatch("of items whose caller asked for reasons", "", "◆", _RED),
            Swatch("target: 80 % or more", "#d5ecdf"),
        )
        return drawing.plot(legend, len(surfaces) - len(shown))


_COVERAGE_LOOKS: Final[tuple[dict[str, Any], ...]] = (
    {"color": _BLUE, "marker": "o", "linestyle": "-"},
    {"color": _RED, "marker": "D", "linestyle": "--", "fillstyle": "none", "markeredgewidth": 1.6},
)


def overlap(
    rows: Sequence[Row], *, key: str = "overlap", title: str = "Overlap by cohort and device"
) -> Plot | None:
    """Mean overlap of users' lists by cohort and device, with how many users were compared.

    Args:
        rows: of personalization_daily or blend_weights_daily, one day, namespace and surface.
        key: tells the plots of a page apart.
        title: what a screen reader says.

    Returns:
        The plot; None where no cell has two users.
    """
    cells = {(row["cohort"], row["device"]): row for row in rows}
    if not any(number(row, "jaccard_mean") is not None for row in rows):
        return None
    devices = _together_first(rows, "device", MAX_DEVICES)
    cohorts = _together_first(rows, "cohort", MAX_COHORTS)
    height = 24 + 36 * len(cohorts)
    with _figure(key, title, height) as drawing:
        axes = drawing.axes(left=78, right=2, top=22, bottom=2)
        shades = mpl.colormaps["Blues"]
        for at, cohort in enumerate(cohorts):
            for column, device in enumerate(devices):
                row = cells.get((cohort, device))
                mean = number(row, "jaccard_mean")
                users = int(number(row, "overlap_users") or 0)
                fill: Any = "white"
                ink, line, texts = "#555555", {}, ("", "")
                if row is not None and mean is None:
                    texts = ("too few" if users < 2 else "no data", _users(users))
                elif mean is not None and users < MIN_OVERLAP_USERS:
                    fill, texts = _GREY, (f"{mean:.2f}", _users(users))
                    ink = "#333333"
                elif mean is not None:
                    # Up to three fifths of the scale's darkness, so that all text is dark on light.
                    fill = shades(0.6 * min(mean / (2 * OVERLAP_LIMIT), 1.0))
                    ink, texts = "black", (f"{mean:.2f}", _users(users))
                    if mean > OVERLAP_LIMIT:
                        line = {"edgecolor": _RED, "linewidth": 2.5, "zorder": 2}
                box = {"facecolor": fill, "edgecolor": "white", "linewidth": 2} | line
                inset = 0.03 if line else 0.0
                axes.add_patch(
                    Rectangle((column + inset, at + inset), 1 - 2 * inset, 1 - 2 * inset, **box)
                )
                middle = column + 0.5
                size = 10 if len(texts[0]) > 5 else 12
                axes.text(middle, at + 0.46, texts[0], ha="center", color=ink, fontsize=size)
                axes.text(middle, at + 0.82, texts[1], ha="center", color=ink, fontsize=9)
        axes.set_xlim(0, len(devices))
        axes.set_ylim(len(cohorts), 0)
        narrow = max(int(262 / len(devices) / 6.2), 4)
        axes.set_xticks(
            [at + 0.5 for at in range(len(devices))],
            _labels(devices, narrow),
        )
        axes.xaxis.tick_top()
        axes.set_yticks([at + 0.5 for at in range(len(cohorts))], _labels(cohorts, 12))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return drawing.plot()


def _together_first(rows: Sequence[Row], column: str, most: int) -> list[str]:
    """``all``, then the values with the most decisions, those of a fixed meaning in their order."""
    decisions: dict[str, float] = {}
    for row in rows:
        decisions[row[column]] = decisions.get(row[column], 0) + (number(row, "decisions") or 0)
    names = sorted(decisions.keys() - {ALL}, key=lambda name: (-decisions[name], name))[:most]
    fixed = {NEW: 0, RETURNING: 1, UNKNOWN: 3}
    kept = sorted(names, key=lambda name: fixed.get(name, 2))
    return [ALL, *kept] if ALL in decisions else kept


def _users(users: int) -> str:
    return f"n {users:,}"


def entropy(rows: Sequence[Row], *, of: str, key: str = "entropy") -> Plot | None:
    """Corrected entropy of what was served by surface, with its interval; beside it the effective
    number and the share of items of which it is known.

    Args:
        rows: of personalization_daily, one day and namespace.
        of: ``brand`` or ``category``.
        key: tells the plots of a page apart.

    Returns:
        The plot; None where no surface has one.
    """
    by_surface = {row["surface"]: row for row in everybody(rows)}
    column = f"entropy_{of}"
    if not any(number(row, column) is not None for row in by_surface.values()):
        return None
    surfaces = busiest(list(by_surface.values()))
    shown = [*([ALL] if ALL in by_surface else []), *surfaces[:MAX_SHOWN]]
    with _figure(key, f"Entropy of {of} by surface", 64 + 23 * len(shown)) as drawing:
        axes = drawing.axes(left=_LABELS, right=108, top=22, bottom=40)
        most = 0.1
        for at, surface in enumerate(shown):
            row = by_surface[surface]
            value = number(row, column)
            if value is None:
                axes.text(0.02, at, " no data", va="center", fontsize=10)
                continue
            reliable = bool(row.get(f"{column}_reliable"))
            look: dict[str, Any]
            look = {"facecolor": _SKY} if reliable else {"facecolor": _GREY, "hatch": "////"}
            axes.barh(at, value, 0.66, edgecolor="#777777", linewidth=0.6, **look)
            limits = interval(row, column)
            if limits is not None:
                axes.plot([limits.lower, limits.upper], [at, at], color="black", linewidth=1.4)
                axes.plot([limits.lower, limits.upper], [at, at], "|", color="black", markersize=8)
            most = max(most, value, limits.upper if limits else 0)
            equal, known = (
                number(row, f"{column}_{x}") for x in ("effective_number", "known_share")
            )
            axes.text(
                1.04,
                at,
                f"≈ {_rounded(equal)} · {_whole_percent(known)}",
                va="center",
                fontsize=11,
                transform=axes.get_yaxis_transform(),
            )
        axes.text(
            1.04, 1.0, "effective · known", fontsize=10, transform=axes.transAxes, va="bottom"
        )
        axes.set_xlim(0, most * 1.06)
        axes.set_xlabel("nats")
        _names(axes, shown)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        legend = (
            Swatch("with its 95 % interval", _SKY),
            Swatch("not reliable: too little of it was seen", _hatched(_GREY, "#777777")),
        )
        return drawing.plot(legend, len(surfaces[MAX_SHOWN:]))


def share_and_ctr(
    rows: Sequence[tuple[str, Row]], *, key: str = "ctr", title: str = "Personalised share and CTR"
) -> Plot | None:
    """Personalised share, on the lower axis, and click-through with its interval, on the upper.

    Args:
        rows: of blend_weights_daily with what each is called, in the order in which they are to
            stand; the first `MAX_SHOWN` are drawn.
        key: tells the plots of a page apart.
        title: what a screen reader says.

    Returns:
        The plot; None where no row has a click-through rate.
    """
    if not any(number(row, "ctr") is not None for _, row in rows):
        return None
    shown = rows[:MAX_SHOWN]
    with _figure(key, title, 92 + 25 * len(shown)) as drawing:
        axes = drawing.axes(left=_LABELS, right=18, top=44, bottom=44)
        clicks = axes.twiny()
        most = 0.001
        for at, (_, row) in enumerate(shown):
            personalised = number(row, "personalized_impression_rate")
            if personalised is not None:
                axes.barh(at, personalised, 0.66, facecolor="#b9dcf2", edgecolor=_BLUE)
            ctr = number(row, "ctr")
            if ctr is None:
                clicks.text(0, at, " CTR: no data", va="center", fontsize=10)
                continue
            limits = interval(row, "ctr")
            if limits is not None:
                clicks.plot([limits.lower, limits.upper], [at, at], color=_INK, linewidth=1.6)
            clicks.plot([ctr], [at], "o", color=_RED, markersize=7, markeredgecolor=_INK)
            most = max(most, ctr, limits.upper if limits else 0)
        axes.set_xlim(0, 1)
        _percent(axes.xaxis)
        axes.set_xlabel("personalised share (bar)")
        clicks.set_xlim(0, most * 1.1)
        clicks.xaxis.set_major_locator(MaxNLocator(4))
        clicks.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
        clicks.set_xlabel("CTR (dot), with its 95 % interval")
        _names(axes, [name for name, _ in shown])
        return drawing.plot((), len(rows) - len(shown))


# --- drawing ----------------------------------------------------------------------------------


def _rounded(value: float | None) -> str:
    if value is None:
        return "no data"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _whole_percent(value: float | None) -> str:
    return "no data" if value is None else f"{100 * value:.0f} %"


def _look(index: int) -> dict[str, Any]:
    """The fill of the n-th surface; after one round of the colours with hatching."""
    look: dict[str, Any] = {"facecolor": _FILLS[index % len(_FILLS)]}
    return look | ({"hatch": "////"} if index >= len(_FILLS) else {})


def _css(index: int) -> str:
    """The same as a background."""
    colour = _FILLS[index % len(_FILLS)]
    return _hatched(colour, "white") if index >= len(_FILLS) else colour


def _hatched(colour: str, line: str) -> str:
    return f"repeating-linear-gradient(135deg,{colour} 0 3px,{line} 3px 4.5px)"


def _percent(axis: Any) -> None:
    axis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f} %"))


def _days(axes: Axes, first: date, last: date) -> None:
    """An axis of days, of which some four, and the last, are named."""
    count = (last - first).days + 1
    step = max(-(-count // 4), 1)
    named = list(range(count - 1, -1 if count <= 8 else 0, -step))
    axes.set_xticks(named, [day_name(first + timedelta(days=place)) for place in named])
    axes.set_xlim(-0.7, count - 0.3)
    if count > 1:
        axes.get_xticklabels()[0].set_horizontalalignment("right" if count > 8 else "center")


def _names(axes: Axes, names: Sequence[str]) -> None:
    """An axis of names, the first on top."""
    axes.set_yticks(range(len(names)), _labels(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


@dataclass
class _Drawing:
    """A figure of which sizes are points, and what becomes of it."""

    figure: Figure
    key: str
    title: str
    height: float

    def axes(self, *, left: float, right: float, top: float, bottom: float) -> Axes:
        """Axes that leave so many points on each side."""
        width, height = _WIDTH - left - right, self.height - top - bottom
        place = (left / _WIDTH, bottom / self.height, width / _WIDTH, height / self.height)
        axes = self.figure.add_axes(place)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        return axes

    def plot(self, legend: Collection[Swatch] = (), left_out: int = 0) -> Plot:
        """The figure as it stands in a page."""
        text = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with warnings.catch_warnings():
            # The page is shown in the reader's fonts; only widths are guessed from these.
            warnings.filterwarnings("ignore", message=r"Glyph .* missing", category=UserWarning)
            self.figure.savefig(text, format="svg", metadata=no_metadata)
        return Plot(_for_page(text.getvalue(), self.key, self.title), tuple(legend), left_out)


@contextmanager
def _figure(key: str, title: str, height: float) -> Iterator[_Drawing]:
    """A figure to draw on; ids within it are made from the key alone."""
    style: Any = _STYLE | {"svg.hashsalt": key}
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH / 72, height / 72))
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        yield _Drawing(figure, key, title, height)


def _for_page(svg: str, key: str, title: str) -> Markup:
    """What of a file of SVG belongs into a page, named for those who cannot see it.

    Text of names has no ``<`` here, so what follows changes elements only.
    """
    body = svg[svg.index("<svg") :]
    head, body = body.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    # Ids of groups are the same in every figure, and nothing refers to them.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"(<text style=\"[^\"<>]*?) font-family: [^;<>]*?;", r"\1", body)
    body = re.sub(r"(<text [^<>]*?) transform=\"rotate\(-?0 [^\"]*\"", r"\1", body)
    body = re.sub(r"\n\s*", "\n", body)
    return Markup(
        '<svg role="img" aria-labelledby="{key}-title" {view} xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink"><title id="{key}-title">{title}</title>'
        "<desc>The numbers are in the table with it.</desc>{body}"
    ).format(key=key, view=Markup(view[0]), title=clean(title), body=Markup(body))
