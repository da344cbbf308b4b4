"""Draws docs/replay.svg, the picture in the README: ``python docs/replay_picture.py``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rich.console import Console

from otel_personalization.cli import table_of
from otel_personalization.replay import replay

DOCS = Path(__file__).parent
SAMPLE = DOCS.parent / "tests" / "data" / "traces.ndjson.gz"
WIDTH = 110
"""Columns of the picture."""
COMMAND = "otel-personalization replay tests/data/traces.ndjson.gz"


def main() -> None:
    """Replay the sample, and save what is shown."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(table_of(replay([SAMPLE])))
    svg = console.export_svg(title=COMMAND, unique_id="replay")
    # Without the fonts of another host: the reader's own will do.
    svg = re.sub(r"@font-face {.*?}\n", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, Menlo, Consolas")
    (DOCS / "replay.svg").write_text(svg)


if __name__ == "__main__":
    main()
