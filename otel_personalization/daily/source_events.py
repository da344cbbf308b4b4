"""What sources found, decision by decision, in the order of time.

As a rule a snapshot is written nearly in that order, and Parquet says the first and the last
instant of each row group. Then they are read one after the other, and rows wait only for those that
may come before them: to sort a day takes twice as long. Of other files `in_order` finds nothing,
and the engine sorts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from otel_personalization.daily.row_groups import RowGroup, row_groups, side_by_side

MOST_WAITING: Final = 1_000_000
"""Rows that wait for others, of about 100 bytes each."""

_SOURCE: Final = "sources.list.element.source"
_CANDIDATES: Final = "sources.list.element.candidates"
_TIME: Final = "ts"

CellsOf = Callable[[int, int], pa.Table]
"""The decisions that count, of ordinals from one to another, in their order: ordinal, cell."""


class _Part(NamedTuple):
    """A row group, and its instants."""

    group: RowGroup
    last: datetime
    following: datetime
    """The first instant of all row groups after it; of the last one its own last."""


def in_order(file: Path, cells_of: CellsOf) -> Iterator[pa.RecordBatch] | None:
    """The rows of ``sql/source_events.sql``, in its order.

    Args:
        file: data of a snapshot.
        cells_of: says what is wanted of a row group; is called by several threads.

    Returns:
        Batches of the columns cell and sources; None where too many rows would have to wait.

    Raises:
        ValueError: as they are read: the ordinals of the file do not ascend, or it has not what is
            wanted.
    """
    parts = _parts_of(file)
    return None if parts is None else _ordered(parts, cells_of)


def _parts_of(file: Path) -> list[_Part] | None:
    """The row groups, if few of their rows have to wait for others."""
    groups = list(row_groups([file]))
    extents = [extent for group in groups if (extent := group.extent(_TIME)) is not None]
    if len(extents) < len(groups):
        return None
    first, last = zip(*extents, strict=True)
    following = [*accumulate(first[:0:-1], min)][::-1]
    parts = list(map(_Part, groups, last, [*following, last[-1]]))
    return parts if _most_waiting(parts) <= MOST_WAITING else None


def _most_waiting(parts: Sequence[_Part]) -> int:
    """How many rows can have to wait for row groups that come later."""
    most = 0
    waiting: list[_Part] = []
    for part in parts:
        waiting = [one for one in (*waiting, part) if one.last >= part.following]
        most = max(most, sum(one.group.rows for one in waiting))
    return most


def _ordered(parts: Sequence[_Part], cells_of: CellsOf) -> Iterator[pa.RecordBatch]:
    waiting: pa.Table | None = None
    events = side_by_side(lambda part: _events(part.group, cells_of), parts)
    for part, found in zip(parts, events, strict=True):
        rows = found if waiting is None else pa.concat_tables([waiting, found])
        rows = rows.sort_by([(_TIME, "ascending"), ("ordinal", "ascending")])
        ready = int(np.searchsorted(rows[_TIME].to_numpy(), np.datetime64(part.following)))
        yield from rows.slice(0, ready).to_batches()
        waiting = rows.slice(ready)
    if waiting is not None:
        yield from waiting.to_batches()


def _events(group: RowGroup, cells_of: CellsOf) -> pa.Table:
    ordinals = group.ordinals()
    wanted = cells_of(int(ordinals[0]), int(ordinals[-1]))
    at = group.places(ordinals, wanted)
    rows = group.read(_TIME, _SOURCE, _CANDIDATES, dictionaries=[_SOURCE])
    if len(at) < len(rows):
        rows = rows.take(at)
    return rows.append_column("ordinal", wanted["ordinal"]).append_column("cell", wanted["cell"])
