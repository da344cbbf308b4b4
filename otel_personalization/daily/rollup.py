"""Puts finest cells together: which rolled-up rows there are, and which cells are in each.

Statements count by the finest cells; what is computed of a row is computed of the union of its
cells. Rows of the same cells (``all`` and the only device there is) are computed once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from otel_personalization.daily.arrays import stable_order
from otel_personalization.daily.tables import ALL

Cells = tuple[int, ...]
"""Numbers of finest cells, ascending."""


class Row(NamedTuple):
    """What a row is told apart by; each but the namespace may be `ALL`."""

    namespace: str
    surface: str
    cohort: str
    device: str
    experiment: str
    variant: str


def rolled_up(cells: pa.Table) -> dict[Row, Cells]:
    """Every roll-up of the finest cells, with its cells. A variant has its experiment beside it.

    Args:
        cells: of ``sql/cells.sql``.
    """
    rows: defaultdict[Row, list[int]] = defaultdict(list)
    for cell in cells.sort_by("cell").to_pylist():
        own = Row(*(cell[name] for name in Row._fields))
        trials = ((ALL, ALL), (own.experiment, ALL), (own.experiment, own.variant))
        for surface, cohort, device, trial in product(
            (own.surface, ALL), (own.cohort, ALL), (own.device, ALL), trials
        ):
            rows[Row(own.namespace, surface, cohort, device, *trial)].append(cell["cell"])
    return {row: tuple(members) for row, members in rows.items()}


class ByCell:
    """Rows of a table, to be had of any cells without looking at the others.

    Args:
        table: with a column ``cell``.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        cells = table["cell"].to_numpy()
        self._order = stable_order(cells)  # to sort the table itself takes longer
        self._ends = [0, *np.cumsum(np.bincount(cells)).tolist()]
        """Behind the last row of each cell, in that order."""

    def rows(self, cells: Cells) -> npt.NDArray[np.int64]:
        """The places of the rows of cells, in `table`."""
        there = (cell for cell in cells if cell < len(self._ends) - 1)
        parts = (self._order[self._ends[cell] : self._ends[cell + 1]] for cell in there)
        return np.concatenate([self._order[:0], *parts])


class UserSets(NamedTuple):
    """Sets of cells, each ascending and not empty, with the number of users of whom it is so."""

    there: list[tuple[Cells, int]]
    """Where they were on the day."""
    listed: list[tuple[Cells, int]]
    """Where they had a list in the window."""

    @classmethod
    def of(cls, table: pa.Table) -> UserSets:
        """The sets of ``sql/user_sets.sql``."""
        found = cls([], [])
        for marks, users in zip(
            table["marks"].to_pylist(), table["users"].to_pylist(), strict=True
        ):
            for sets, bit in ((found.there, 2), (found.listed, 1)):
                if members := tuple(mark >> 2 for mark in marks if mark & bit):
                    sets.append((members, users))
        return found


def users_of(sets: Sequence[tuple[Cells, int]], rows: Sequence[Cells]) -> list[int]:
    """How many users are in any of the cells of each row.

    Args:
        sets: one of `UserSets`.
        rows: the cells of each row.
    """
    if not sets or not rows:
        return [0] * len(rows)
    width = 1 + max(*(cells[-1] for cells, _ in sets), *(cells[-1] for cells in rows), 0)
    incidence = _incidence([cells for cells, _ in sets], width)
    users = np.array([users for _, users in sets], np.int64)
    counted: list[int] = []
    for part in _parts(rows, 512):
        shared = incidence @ _incidence(part, width).T
        shared.data[:] = 1
        counted += (users @ shared).tolist()
    return counted


def _parts(rows: Sequence[Cells], size: int) -> Iterator[Sequence[Cells]]:
    for at in range(0, len(rows), size):
        yield rows[at : at + size]


def _incidence(sets: Sequence[Sequence[int]], width: int) -> Any:
    """A sparse matrix of sets by cells, with 1 where a set has a cell."""
    ends = np.cumsum([0, *map(len, sets)])
    members = np.concatenate([np.asarray(cells, np.int64) for cells in sets])
    return sparse.csr_matrix(
        (np.ones(len(members), np.int64), members, ends), shape=(len(sets), width)
    )
