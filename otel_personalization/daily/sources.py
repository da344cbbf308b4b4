"""Candidate sources of a day: did they find anything, and how long did they find nothing?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from otel_personalization.daily.arrays import groups
from otel_personalization.daily.tables import ALL
from otel_personalization.daily.threads import side_by_side


class Place(NamedTuple):
    """Where a source took part; surface `ALL` is the whole namespace."""

    namespace: str
    surface: str
    source: str


@dataclass
class SourceCounts:
    """What adds up of a source, and its longest run of decisions without a candidate."""

    candidates: int = 0
    decisions: int = 0
    empty_decisions: int = 0
    longest_empty_streak: int = 0
    _running: int = 0

    def add(self, candidates: npt.NDArray[np.int64]) -> None:
        """Go on with further decisions, in the order of time."""
        found = np.flatnonzero(candidates)
        self.candidates += int(candidates.sum())
        self.decisions += len(candidates)
        self.empty_decisions += len(candidates) - len(found)
        if len(found):
            between = int(np.diff(found).max(initial=1)) - 1
            self._note(max(self._running + int(found[0]), between))
            self._running = len(candidates) - 1 - int(found[-1])
        else:
            self._running += len(candidates)
        self._note(self._running)

    def _note(self, run: int) -> None:
        self.longest_empty_streak = max(self.longest_empty_streak, run)


def count_sources(
    decisions: Iterable[pa.RecordBatch], cells: pa.Table
) -> dict[Place, SourceCounts]:
    """Count what each source found, on each surface and in each namespace as a whole.

    Args:
        decisions: of ``sql/source_events.sql``, of each namespace in the order of time; those
            without a source do not end its streak.
        cells: of ``sql/cells.sql``, which numbers them from 1.
    """
    cells = cells.sort_by("cell")
    places = [
        _Codes.of(*(cells[column].combine_chunks() for column in columns))
        for columns in (("namespace", "surface"), ("namespace",))
    ]
    found: dict[Place, SourceCounts] = {}
    for of_batch in side_by_side(lambda batch: _by_place(batch, places), decisions):
        for place, candidates in of_batch:
            found.setdefault(place, SourceCounts()).add(candidates)
    return found


def _by_place(
    batch: pa.RecordBatch, places: Iterable[_Codes]
) -> list[tuple[Place, npt.NDArray[np.int64]]]:
    """What sources found, in the order of the batch.

    Args:
        batch: see `count_sources`.
        places: of each cell, its namespace and surface, or its namespace.
    """
    lists = batch["sources"]
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    sources = lists.flatten()
    candidates = sources.field("candidates").to_numpy()
    of_source = _Codes.of(sources.field("source"))
    cell = np.repeat(batch["cell"].to_numpy() - 1, lengths)
    return [
        (Place(names[0], names[1] if len(names) > 2 else ALL, names[-1]), candidates[rows])
        for of_cells in places
        for rows, names in of_cells.taken(cell).beside(of_source).groups()
    ]


@dataclass
class _Codes:
    """Rows of texts, as numbers."""

    code: npt.NDArray[np.int64]
    """Of each row."""
    values: list[list[str]]
    """Of each column: a code is the places in these, of mixed radix."""

    @classmethod
    def of(cls, *columns: pa.Array) -> _Codes:
        """The rows of columns."""
        whole = cls(np.zeros(len(columns[0]), np.int64), [])
        for column in columns:
            encoded = column.dictionary_encode()
            whole = whole.beside(
                cls(encoded.indices.to_numpy().astype(np.int64), [encoded.dictionary.to_pylist()])
            )
        return whole

    def beside(self, other: _Codes) -> _Codes:
        """The columns of both."""
        radix = math.prod(map(len, other.values))
        return _Codes(self.code * radix + other.code, self.values + other.values)

    def taken(self, rows: npt.NDArray[np.int64]) -> _Codes:
        """The rows at some places."""
        return _Codes(self.code[rows], self.values)

    def groups(self) -> Iterator[tuple[npt.NDArray[np.int64], list[str]]]:
        """Rows of the same values, in their order, with the values."""
        for rows in groups(self.code):
            names = []
            rest = int(self.code[rows[0]])
            for of in reversed(self.values):
                rest, place = divmod(rest, len(of))
                names.append(of[place])
            yield rows, names[::-1]
