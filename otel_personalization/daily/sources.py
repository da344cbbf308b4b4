"""Candidate sources of a day: did they find anything, and how long did they find nothing?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from otel_personalization.daily.tables import ALL


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


def count_sources(events: Iterable[pa.RecordBatch]) -> dict[Place, SourceCounts]:
    """Count what each source found, on each surface and in each namespace as a whole.

    Args:
        events: of ``sql/source_events.sql``: a row for each decision and source, in the order of
            time; decisions without a source have no row of it, and do not end its streak.
    """
    found: dict[Place, SourceCounts] = {}
    for batch in events:
        candidates = batch["candidates"].to_numpy()
        for columns in (("namespace", "surface", "source"), ("namespace", "source")):
            for rows, names in _grouped([batch[column] for column in columns]):
                place = Place(names[0], names[1] if len(names) > 2 else ALL, names[-1])
                found.setdefault(place, SourceCounts()).add(candidates[rows])
    return found


def _grouped(columns: list[pa.Array]) -> Iterator[tuple[npt.NDArray[np.int64], list[str]]]:
    """Rows of the same values, in their order, with the values."""
    code = np.zeros(len(columns[0]), np.int64)
    values: list[list[str]] = []
    for column in columns:
        encoded = column.dictionary_encode()
        values.append(encoded.dictionary.to_pylist())
        code = code * len(values[-1]) + encoded.indices.to_numpy()
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else ():
        names = []
        rest = int(code[rows[0]])
        for of in reversed(values):
            rest, place = divmod(rest, len(of))
            names.append(of[place])
        yield rows, names[::-1]
