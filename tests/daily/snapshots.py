"""Folders of snapshots, as tests look at them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from otel_personalization.daily.files import day_of
from otel_personalization.daily.manifest import MANIFEST


def days_of(folder: Path) -> list[date]:
    """The days of which a folder has snapshots, in order."""
    found = (day_of(path.parent) for path in folder.glob(f"day=*/{MANIFEST}"))
    return sorted(day for day in found if day is not None)
