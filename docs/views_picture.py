"""Draws docs/views.svg, how the Collector computes a view: ``python docs/views_picture.py``."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1080, 430
FONT = "ui-sans-serif, system-ui, sans-serif"
INK, FAINT, PAPER, FILL, ACCENT = "#1f2933", "#7b8794", "#ffffff", "#eef2f7", "#1d6fb8"

# Totals of served and of personalised items that three processes export, one column an export. The
# second process ends, the third begins.
TOTALS = {
    "process a": ((100, 60), (140, 84), (200, 120)),
    "process b": ((900, 540), (930, 555), None),
    "process c": (None, (0, 0), (50, 10)),
}


def main() -> None:
    """Draw it; every number of the picture is computed here from the totals at its left."""
    growth = [
        tuple(new - old for old, new in zip(before, after, strict=True))
        for totals in TOTALS.values()
        for before, after in itertools.pairwise(totals)
        if before and after
    ]
    served, personalized = (sum(counts) for counts in zip(*growth, strict=True))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="{FONT}" font-size="14" fill="{INK}">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
    ]
    parts += _heading(20, "1 totals", "each process, served / personalised")
    for row, (name, totals) in enumerate(TOTALS.items()):
        y = 110 + 90 * row
        parts.append(_text(20, y - 12, name, fill=FAINT))
        first = next(column for column, total in enumerate(totals) if total)
        said = "the 0 that it reports first" if first else "last total of the window before"
        parts.append(_text(20 + 88 * first, y + 52, f"↑ {said}", fill=FAINT))
        for column, total in enumerate(totals):
            said = f"{total[0]} / {total[1]}" if total else "-"
            parts += _box(20 + 88 * column, y, 80, said, faint=total is None)
    parts += _heading(330, "2 growth", "cumulative_to_delta")
    position = 0
    for row, totals in enumerate(TOTALS.values()):
        y = 110 + 90 * row
        parts.append(_arrow(288, y + 18, 325))
        of_process = [
            pair for pair in itertools.pairwise(totals) if all(part is not None for part in pair)
        ]
        for column, _ in enumerate(of_process):
            count = growth[position]
            position += 1
            parts += _box(330 + 88 * column, y, 80, f"+{count[0]} / +{count[1]}")
    parts += _heading(555, "3 window", "transform/service, interval")
    for row in range(len(TOTALS)):
        parts.append(_line(512, 128 + 90 * row, 550, 218))
    parts += _box(555, 200, 130, f"{served} / {personalized}", accent=True)
    parts += _heading(790, "4 view", "metricsgeneration, transform/gauge")
    parts.append(_arrow(690, 218, 785))
    parts += _box(790, 155, 270, f"recsys_window_served_items {served}")
    parts += _box(
        790, 200, 270, f"personalized_impression_rate {personalized / served:.3f}", accent=True
    )
    parts.append(
        _text(
            20,
            385,
            "The first total of a process is where its growth begins: "
            "the library reports 0 first, so nothing is lost by it.",
        )
    )
    parts.append(
        _text(
            20,
            407,
            "A ratio of sums, never a mean of ratios. "
            "A surface that served nothing in the window gets no rate.",
            fill=FAINT,
        )
    )
    parts.append("</svg>\n")
    (Path(__file__).parent / "views.svg").write_text("\n".join(parts))


def _text(x: int, y: int, text: str, *, fill: str = INK, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y}" fill="{fill}"{weight}>{escape(text)}</text>'


def _heading(x: int, title: str, below: str) -> list[str]:
    return [_text(x, 40, title, bold=True), _text(x, 62, below, fill=FAINT)]


def _box(
    x: int, y: int, width: int, text: str, *, faint: bool = False, accent: bool = False
) -> list[str]:
    stroke = ACCENT if accent else FAINT
    return [
        (
            f'<rect x="{x}" y="{y}" width="{width}" height="36" rx="6" fill="{FILL}" '
            f'stroke="{stroke}" stroke-width="{2 if accent else 1}"/>'
        ),
        (
            f'<text x="{x + width // 2}" y="{y + 23}" text-anchor="middle" font-size="13" '
            f'fill="{FAINT if faint else INK}">{escape(text)}</text>'
        ),
    ]


def _line(x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<path d="M{x1} {y1} L{x2} {y2}" stroke="{FAINT}" fill="none"/>'


def _arrow(x1: int, y: int, x2: int) -> str:
    return (
        f'<path d="M{x1} {y} L{x2} {y} M{x2 - 6} {y - 4} L{x2} {y} L{x2 - 6} {y + 4}" '
        f'stroke="{FAINT}" fill="none"/>'
    )


if __name__ == "__main__":
    main()
