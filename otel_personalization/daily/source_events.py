"""What sources found, decision by decision, in the order of time.

Snapshots are written nearly in that order: those of files as a whole, those from PostgreSQL one
namespace after the other; and of one namespace it does not matter when something happened in
another. So row groups are read one after the other, and a row waits only for those of its namespace
that may come before it: to sort a day takes twice as long. Of other files `in_order` finds nothing,
and the engine sorts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from otel_personalization.daily.row_groups import RowGroup, row_groups
from otel_personalization.daily.threads import side_by_side

MOST_WAITING: Final = 1_000_000
"""Rows that wait for others, of about 100 bytes each."""

_SOURCE: Final = "sources.list.element.source"
_CANDIDATES: Final = "sources.list.element.candidates"
_TIME: Final = "ts"
_NAMESPACE: Final = "namespace"
_NOT_A_TIME: Final = np.datetime64("NaT")

CellsOf = Callable[[int, int], pa.Table]
"""The decisions that count, of ordinals from one to another, in their order: ordinal, cell."""
_First = Mapping[str, datetime]
"""Of some namespaces, their first instant."""


class _Span(NamedTuple):
    """Of a namespace in a row group."""

    namespace: str
    first: datetime
    last: datetime
    rows: int


def in_order(file: Path, cells_of: CellsOf) -> Iterator[pa.RecordBatch] | None:
    """The rows of ``sql/source_events.sql``, of each namespace in its order.

    Args:
        file: data of a snapshot.
        cells_of: says what is wanted of a row group; is called by several threads.

    Returns:
        Batches of the columns cell and sources; None where too many rows would have to wait.

    Raises:
        ValueError: as they are read: the ordinals of the file do not ascend, or it has not what is
            wanted.
    """
    groups = list(row_groups([file]))
    spans = list(side_by_side(_spans, groups))
    following = _following(spans)
    if _most_waiting(spans, following) > MOST_WAITING:
        return None
    events = side_by_side(lambda group: _events(group, cells_of), groups)
    return _ordered(zip(events, following, strict=True))


def _spans(group: RowGroup) -> list[_Span]:
    rows = group.read(_NAMESPACE, _TIME).group_by(_NAMESPACE)
    found = rows.aggregate([(_TIME, "min"), (_TIME, "max"), (_TIME, "count")])
    columns = (_NAMESPACE, *(f"{_TIME}_{of}" for of in ("min", "max", "count")))
    return list(map(_Span, *(found[column].to_pylist() for column in columns)))


def _following(spans: list[list[_Span]]) -> list[_First]:
    """Of each row group, the first instants of all row groups after it."""
    found: list[_First] = []
    first: dict[str, datetime] = {}
    for of_group in reversed(spans):
        found.append(first)
        first = first | {
            one.namespace: min(one.first, first.get(one.namespace, one.first)) for one in of_group
        }
    return found[::-1]


def _most_waiting(spans: list[list[_Span]], following: list[_First]) -> int:
    """How many rows can have to wait for row groups that come later."""
    most = 0
    waiting: list[_Span] = []
    for of_group, first in zip(spans, following, strict=True):
        waiting = [
            one
            for one in (*waiting, *of_group)
            if one.namespace in first and one.last > first[one.namespace]
        ]
        most = max(most, sum(one.rows for one in waiting))
    return most


def _ordered(events: Iterable[tuple[pa.Table, _First]]) -> Iterator[pa.RecordBatch]:
    waiting: pa.Table | None = None
    for found, following in events:
        rows = found if waiting is None else pa.concat_tables([waiting, found])
        namespaces = rows[_NAMESPACE].combine_chunks()
        first = [following.get(name, _NOT_A_TIME) for name in namespaces.dictionary.to_pylist()]
        ts = rows[_TIME].to_numpy()
        waits = ts > np.array(first, ts.dtype)[namespaces.indices.to_numpy()]  # for no time not
        rows = rows.take(np.lexsort((ts, waits)))  # of one instant as in the file
        ready = len(rows) - np.count_nonzero(waits)
        yield from rows.slice(0, ready).to_batches()
        waiting = rows.slice(ready)


def _events(group: RowGroup, cells_of: CellsOf) -> pa.Table:
    ordinals = group.ordinals()
    wanted = cells_of(int(ordinals[0]), int(ordinals[-1]))
    at = group.places(ordinals, wanted)
    texts = (_NAMESPACE, _SOURCE)
    rows = group.read(_TIME, *texts, _CANDIDATES, dictionaries=texts)
    if len(at) < len(rows):
        rows = rows.take(at)
    return rows.append_column("cell", wanted["cell"])
