"""Row groups of snapshots: what is read of their Parquet files without an engine.

::

    for group in row_groups([manifest.data]):
        rows = group.read("decision_id", "items.list.element.item_id")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from otel_personalization.daily.arrays import Integers

_ORDINAL: Final = "ordinal"


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
