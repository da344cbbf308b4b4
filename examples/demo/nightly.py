"""The nightly job over what the demo's service stored, as its command line runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.table import Table

from examples.ranking_service.tracing import ORG_ID
from otel_personalization.daily.tables import PERSONALIZATION_DAILY
from otel_personalization.daily.warehouse import open_warehouse

MOST_SECONDS: Final = 120


class Night:
    """A run of the nightly job, and what it left in the folder.

    Args:
        folder: of the demo's run, with its ``traces/YYYY-MM-DD.ndjson``.
        snapshots: those files.

    Raises:
        RuntimeError: the job failed.
    """

    def __init__(self, folder: Path, snapshots: Sequence[Path]) -> None:
        self.report = folder / "report.html"
        self.warehouse = folder / "personalization.duckdb"
        self._day = date.fromisoformat(snapshots[-1].stem)
        self._command = [
            "daily",
            *("--day", str(self._day)),
            *(part for snapshot in snapshots for part in ("--traces", str(snapshot))),
            *("--warehouse", str(self.warehouse)),
            *("--report", str(self.report)),
            *("--log", str(folder / "daily.log")),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "otel_personalization", *self._command],
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the nightly job failed:\n{done.stdout}{done.stderr}")
        self.said = done.stderr.strip()
        """What it told: how many decisions and rows."""

    @property
    def command(self) -> str:
        """As it is typed."""
        return " ".join([program(), *self._command])

    def table(self) -> Table:
        """A few of its figures, by surface."""
        rows = [
            row
            for row in self._rows()
            if row["surface"] != "all" and row["cohort"] == row["device"] == "all"
        ]
        table = Table(box=SIMPLE, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("namespace / surface")
        for column in ("personalised", "lists compared", "overlap (95 %)", "effective brands"):
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(
                f"{row['namespace']} / {row['surface']}",
                _percent(row["personalized_impression_rate"]),
                f"{row['overlap_users']:,}",
                _interval(row),
                f"{row['entropy_brand_effective_number']:.1f}"
                if row["entropy_brand_reliable"]
                else "not reliable",
            )
        return table

    def _rows(self) -> list[dict[str, Any]]:
        with open_warehouse(str(self.warehouse)) as warehouse:
            rows = warehouse.read(PERSONALIZATION_DAILY, ORG_ID, self._day, self._day)
        return list(rows.to_pylist())


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _interval(row: dict[str, Any]) -> str:
    mean, lower, upper = (row[f"jaccard_mean{end}"] for end in ("", "_lower", "_upper"))
    between = "" if lower is None else f" ({lower:.1%} to {upper:.1%})"
    return _percent(mean) + between


def program() -> str:
    """The command line as it can be called from here: `make demo` activates no environment."""
    path = Path(sys.executable).with_name("otel-personalization")
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
