"""Runs the statements of ``sql/`` where the snapshots are: in DuckDB, embedded, or in Spark.

Each file is one ``SELECT``, the same for both engines, and named for the table that it makes. Words
in braces are dates and numbers of a run, and the few words that the engines spell in two ways::

    with DuckDB([manifest], org_id="...") as engine:
        engine.make("cells")
        engine.fetch("cells")  # a pyarrow.Table
        engine.query("served_items")  # the same of a statement that makes no table
"""

from __future__ import annotations

import glob
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final

import duckdb
import pyarrow as pa
from typing_extensions import Self

from otel_personalization.daily.manifest import Manifest
from otel_personalization.daily.served import Served, Wanted, counted, of_statements
from otel_personalization.daily.source_events import in_order
from otel_personalization.daily.sql import text_of

MEMORY_LIMIT: Final = "1500MB"
"""Most memory that DuckDB may take for counting; what does not fit goes to temporary files. With
1.3 GB a day of ten million decisions failed at times: which cell each decision belongs to has to
stay in memory, beside the counts."""
MEMORY_AFTERWARDS: Final = "300MB"
"""The same once the counts are made: the rest of 2 GiB is for what is computed of them."""
BATCH_ROWS: Final = 100_000


def statement(name: str, words: Mapping[str, object]) -> str:
    """The statement of a file, with its words filled in."""
    return text_of(name).format(**words)


class EngineError(Exception):
    """An engine cannot be used: what is wrong, and what to do."""


@contextmanager
def _another_snapshot() -> Iterator[None]:
    """Have it said that a snapshot is to be made again, where its file is not what it should be."""
    try:
        yield
    except ValueError as error:
        raise EngineError(f"{error}; make the snapshot again") from None


class Engine(ABC):
    """What runs the statements; ``stored`` is the decisions of an organisation, with their days."""

    words: ClassVar[Mapping[str, str]]
    """How the engine spells what is spelled in two ways."""

    @abstractmethod
    def add(self, name: str, file: Path) -> None:
        """Have the rows of a Parquet file as a table."""

    @abstractmethod
    def make(self, name: str, **parameters: object) -> None:
        """Make a table of the statement of that name."""

    @abstractmethod
    def define(self, name: str, **parameters: object) -> None:
        """The same as a view: it is computed where it is read."""

    @abstractmethod
    def fetch(self, name: str) -> pa.Table:
        """The rows of a table."""

    @abstractmethod
    def query(self, name: str, **parameters: object) -> pa.Table:
        """The rows of a statement, without a table."""

    def served(self, day: date) -> Served:
        """What was served on a day, and ``last_decisions``; nothing large is asked for later on."""
        return of_statements(
            *(self.query(name, day=day) for name in ("served_items", "served_values", "last_lists"))
        )

    def source_events(self, day: date) -> Iterator[pa.RecordBatch]:
        """What sources found on a day, of each namespace in the order of time: cell, sources."""
        return self.stream("source_events", day=day)

    @abstractmethod
    def stream(self, name: str, **parameters: object) -> Iterator[pa.RecordBatch]:
        """The rows of a statement, in its order, without a table."""


def _turned(number: str) -> str:
    """An expression of a number of 64 bits with its bytes the other way round."""
    for bits, mask in ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF)):
        number = f"((({number} >> {bits}) & {mask}) | (({number} & {mask}) << {bits}))"
    return number


# Of a digest as the number whose lowest byte is the first of the digest. To cast its hexadecimal
# digits takes half as long again as all the rest of it.
_FIRST_HALF: Final = _turned("CAST(digest & 18446744073709551615 AS UBIGINT)")
_SECOND_HALF: Final = _turned("CAST(digest >> 64 AS UBIGINT)")


def _of_day(manifest: Manifest) -> str:
    """A statement of the rows of a snapshot, with their day."""
    path = glob.escape(str(manifest.data)).replace("'", "''")
    rows = f"read_parquet('{path}', hive_partitioning = false)"
    return f"SELECT *, DATE '{manifest.day}' AS day FROM {rows}"


class DuckDB(Engine):
    """In this process, on the files of a machine.

    Args:
        manifests: of the snapshots that are read.
        org_id: whose decisions are read.
    """

    words: ClassVar = {
        "explode": "unnest",
        "list": "list",
        "sorted": "list_sort",
        "text": "VARCHAR",
        "hash": "hash",
        "size": "len",
        "items_and_places": "unnest(items) AS item, generate_subscripts(items, 1) AS place",
        "digest": "md5_number",
        "digits_1_to_15": f"CAST({_FIRST_HALF} >> 4 AS BIGINT)",
        "digits_16_to_30": f"CAST((({_FIRST_HALF} & 15) << 56) | ({_SECOND_HALF} >> 8) AS BIGINT)",
    }

    def __init__(self, manifests: Sequence[Manifest], org_id: str) -> None:
        self._exit = ExitStack()
        # A relative path that begins with a folder such as file: or s3: is read as a URL.
        self._manifests = [replace(one, partition=one.partition.absolute()) for one in manifests]
        self._org_id = org_id

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _open(self) -> None:
        spilled = self._exit.enter_context(tempfile.TemporaryDirectory(prefix="personalization-"))
        self._connection = self._exit.enter_context(
            duckdb.connect(  # tables on the disk: there they leave the memory
                f"{spilled}/tables.duckdb",
                config={
                    "memory_limit": MEMORY_LIMIT,
                    "temp_directory": spilled,
                    "preserve_insertion_order": False,
                },
            )
        )
        self._connection.execute("SET enable_progress_bar = false")  # it would print to stdout
        # To look for the best way to compress a table takes longer than to write it as it is.
        self._connection.execute("SET force_compression = 'uncompressed'")
        # Of a join, what is written on the right is kept in memory. Left to guess, DuckDB keeps ten
        # million decisions with their items, and has no memory left.
        self._connection.execute("SET disabled_optimizers = 'join_order, build_side_probe_side'")
        # Left to find the days in paths, DuckDB takes any part of one for a column: org_id=x, say.
        days = self._connection.sql(" UNION ALL BY NAME ".join(map(_of_day, self._manifests)))
        days.filter(
            duckdb.ColumnExpression("org_id") == duckdb.ConstantExpression(self._org_id)
        ).create_view("stored")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()
        # A disk that is full as something is committed gives the last of these.
        no_room = duckdb.OutOfMemoryException, duckdb.IOException, duckdb.TransactionException
        if isinstance(error, no_room):
            raise EngineError(
                f"DuckDB could not go on: {str(error).partition(chr(10))[0]}; give the folder of "
                f"temporary files ({tempfile.gettempdir()}, or TMPDIR) more room, or use "
                "--engine spark"
            ) from None

    def add(self, name: str, file: Path) -> None:
        rows = self._connection.from_parquet(glob.escape(str(file)), hive_partitioning=False)
        rows.create_view(name)

    def make(self, name: str, **parameters: object) -> None:
        self._connection.execute(f"CREATE TABLE {name} AS {self._text(name, parameters)}")

    def define(self, name: str, **parameters: object) -> None:
        self._connection.execute(f"CREATE VIEW {name} AS {self._text(name, parameters)}")

    def fetch(self, name: str) -> pa.Table:
        return self._connection.table(name).to_arrow_table()

    def query(self, name: str, **parameters: object) -> pa.Table:
        return self._connection.sql(self._text(name, parameters)).to_arrow_table()

    def served(self, day: date) -> Served:
        self._connection.execute(f"SET memory_limit = '{MEMORY_AFTERWARDS}'")
        days = {row[0] for row in self._connection.table("last_decisions").unique("day").fetchall()}
        day_of = {one.data: one.day for one in self._manifests if one.day in days | {day}}

        def want(file: Path, first: int, last: int) -> Wanted:
            some = f"day = DATE '{day_of[file]}' AND ordinal BETWEEN {first} AND {last}"
            return Wanted(
                self._rows_of("placed", f"{some} AND day = DATE '{day}'", "ordinal, cell, users"),
                self._rows_of("last_decisions", some, "* EXCLUDE (day)"),
            )

        with _another_snapshot():
            return counted(list(day_of), want, len(self.fetch("cells")))

    def source_events(self, day: date) -> Iterator[pa.RecordBatch]:
        (file,) = (one.data for one in self._manifests if one.day == day)

        def cells_of(first: int, last: int) -> pa.Table:
            some = f"day = DATE '{day}' AND ordinal BETWEEN {first} AND {last}"
            return self._rows_of("placed", some, "ordinal, cell")

        with _another_snapshot():
            found = in_order(file, cells_of)
            if found is None:  # a day is sorted, which `served` left no memory for
                self._connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
                found = super().source_events(day)
            yield from found

    def _rows_of(self, name: str, some: str, columns: str) -> pa.Table:
        """Some rows of a table in the order of ordinals, for any thread."""
        with self._connection.cursor() as connection:
            rows = connection.table(name).filter(some)
            # To have DuckDB sort takes half as long again.
            return rows.select(columns).to_arrow_table().sort_by("ordinal")

    def stream(self, name: str, **parameters: object) -> Iterator[pa.RecordBatch]:
        yield from self._connection.sql(self._text(name, parameters)).to_arrow_reader(BATCH_ROWS)

    def _text(self, name: str, parameters: Mapping[str, object]) -> str:
        return statement(name, {**self.words, **parameters})
