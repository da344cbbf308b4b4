"""A warehouse in a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from otel_personalization.daily.files import day_of, locked, sync
from otel_personalization.daily.tables import Table, arrow_schema
from otel_personalization.daily.warehouse.contract import Warehouse, WarehouseError, one_line


class Folder(Warehouse):
    """``SCHEMA/TABLE/day=YYYY-MM-DD/org-ORG.parquet``, each file whole at any time.

    The files of a day come into place one after the other, once all of them are on the disk: a run
    that is killed in that instant leaves a table of its own beside one of the run before. The next
    run mends it; a database has no such instant.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """See `Warehouse`."""
        with self._telling():
            self._folder.mkdir(parents=True, exist_ok=True)

    def _replace(self, day: date, org_id: str, rows: Mapping[Table, pa.Table]) -> None:
        with locked(self._folder / ".lock"):  # one run at a time
            written = []
            for table, new in rows.items():
                file = self._file(table, day, org_id)
                file.parent.mkdir(parents=True, exist_ok=True)
                # What a killed run left is written over; readers take no such name.
                unfinished = file.with_name(f".{file.name}.unfinished")
                pq.write_table(new, unfinished)
                sync(unfinished)
                written.append((unfinished, file))
            for unfinished, file in written:
                unfinished.replace(file)
                sync(file.parent)

    def _read(self, table: Table, org_id: str, first_day: date, last_day: date) -> pa.Table:
        found = [
            self._rows(table, file)
            for day, file in self._files(table, org_id)
            if first_day <= day <= last_day
        ]
        return pa.concat_tables([arrow_schema(table).empty_table(), *found])

    def _rows(self, table: Table, file: Path) -> pa.Table:
        try:
            with pq.ParquetFile(file) as opened:
                rows = opened.read()
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # not of what is in the file
            raise WarehouseError(
                f"{file} is damaged: {one_line(error)}; run that day again"
            ) from None
        columns = []
        for wanted, field in zip(table.columns, arrow_schema(table), strict=True):
            if field.name in rows.column_names:
                columns.append(rows[field.name])
            elif wanted.is_key:
                raise WarehouseError(f"{file} has no column {field.name}; run that day again")
            else:
                columns.append(pa.nulls(rows.num_rows, field.type))
            if columns[-1].type != field.type:
                raise WarehouseError(
                    f"column {field.name} of {file} is {columns[-1].type}, not {field.type}; "
                    "run that day again"
                )
        return pa.Table.from_arrays(columns, schema=arrow_schema(table))

    def _file(self, table: Table, day: date, org_id: str) -> Path:
        name = f"org-{quote(org_id, safe='')}.parquet"
        return self._folder / table.schema / table.name / f"day={day}" / name

    def _files(self, table: Table, org_id: str) -> Iterator[tuple[date, Path]]:
        for folder in (self._folder / table.schema / table.name).glob("day=*"):
            day = day_of(folder)
            if day is not None and (file := self._file(table, day, org_id)).exists():
                yield day, file

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise WarehouseError(
                f"the folder of Parquet {self._folder} cannot be used: {one_line(error)}; see "
                "that it may be written and has room"
            ) from None
