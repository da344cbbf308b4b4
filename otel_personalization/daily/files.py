"""Files that outlast a killed run, and that two runs do not write at once; what files are."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

from otel_personalization.ndjson import STDIN


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file's lock, which ends with the process at the latest; the file stays.

    Args:
        path: is made where it is missing.
        wait: for as long as another holds it.

    Raises:
        BlockingIOError: another holds it, and it is not to be waited for.
    """
    with path.open("ab") as stream:  # to write, without which NFS gives no lock
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def day_of(folder: Path) -> date | None:
    """The day that a folder is named after; None where it is none."""
    with suppress(ValueError):
        day = date.fromisoformat(folder.name.removeprefix("day="))
        if folder.name == f"day={day}":  # and not day=20261121, which some Pythons read
            return day
    return None


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its content; what can be read but once, as a pipe, is none.

    Raises:
        OSError: it cannot be read.
    """
    if path == STDIN or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"
