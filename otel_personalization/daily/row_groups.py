"""Row groups of snapshots: what is read of their Parquet files without an engine.

::

    for group in row_groups([manifest.data]):
        rows = group.read("decision_id", "items.list.element.item_id")
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from otel_personalization.daily.arrays import Integers

_THREADS: Final = 2
_ORDINAL: Final = "ordinal"

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


class RowGroup(NamedTuple):
    """A part of a file, whose rows were written together."""

    file: Path
    number: int
    metadata: pq.FileMetaData
    """Of the file."""

    def read(self, *columns: str, dictionaries: Sequence[str] = ()) -> pa.Table:
        """Some columns, by their paths in the file.

        Args:
            columns: those that are read.
            dictionaries: those of them that are texts, and are left as the file has them: each text
                once, and of each place which it is.
        """
        file = pq.ParquetFile(self.file, metadata=self.metadata, read_dictionary=list(dictionaries))
        return file.read_row_group(self.number, list(columns), use_threads=False)

    def ordinals(self) -> Integers:
        """The numbers of its rows.

        Raises:
            ValueError: they do not ascend.
        """
        ordinals: Integers = self.read(_ORDINAL)[_ORDINAL].to_numpy()
        if np.any(np.diff(ordinals) <= 0):
            raise ValueError(f"the ordinals of {self.file} do not ascend")
        return ordinals

    def places(self, ordinals: Integers, wanted: pa.Table) -> Integers:
        """The rows of wanted ordinals.

        Args:
            ordinals: see `ordinals`.
            wanted: has such a column, which ascends.

        Raises:
            ValueError: one is not there.
        """
        some = wanted[_ORDINAL].to_numpy()
        found: Integers = np.searchsorted(ordinals, some)
        if len(found) and (found[-1] == len(ordinals) or np.any(ordinals[found] != some)):
            raise ValueError(f"{self.file} does not have every ordinal that is wanted")
        return found


def row_groups(files: Iterable[Path]) -> Iterator[RowGroup]:
    """Those of files, in their order."""
    for file in files:
        metadata = pq.read_metadata(file)  # of many row groups it takes longer than a column of one
        for number in range(metadata.num_row_groups):
            yield RowGroup(file, number, metadata)


def side_by_side(make: Callable[[_Given], _Made], given: Iterable[_Given]) -> Iterator[_Made]:
    """What is made of each, in order, by threads that do not go far ahead."""
    ahead: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for one in given:
            ahead.append(threads.submit(make, one))
            if len(ahead) > _THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
