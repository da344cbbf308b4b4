"""Makes snapshots: the decisions of a UTC day, typed, in a Parquet partition with a manifest.

::

    manifests = write(FileLines([Path("traces.ndjson.gz")]), Path("snapshots"))
    manifests[date(2026, 11, 21)].data  # snapshots/day=2026-11-21/decisions-<checksum>.parquet

To replace the manifest is what replaces the day: whoever reads by it sees the old day or the new
one, wherever a writer was killed. For a moment, or after a kill until the next run, which removes
it, a data file may lie there that no manifest names.

Only where files can be locked, which Windows does otherwise.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from otel_personalization.conventions import DEFAULT_STAGES
from otel_personalization.daily.decisions import decisions, what_is_wrong
from otel_personalization.daily.files import day_of, locked, sync
from otel_personalization.daily.lines import OTHER_DAYS, Lines, in_words
from otel_personalization.daily.manifest import (
    MANIFEST,
    Manifest,
    MissingDayError,
    SnapshotError,
    checksum_of,
    read_manifest,
)
from otel_personalization.ndjson import Problem
from otel_personalization.version import __version__

MAX_DAYS: Final = 400
"""Of one input; a file is open for each."""
COMPRESSION: Final = "zstd"
ROW_GROUP_ROWS: Final = 100_000
HELD_BYTES: Final = 96 << 20
"""Of rows in memory that are to become row groups, of all days together."""


class EmptyDayError(Exception):
    """The input has no decision of some days that were asked for. Of them nothing was written, and
    what was there before still is.

    Args:
        days: which; none where the input, of which every day was wanted, has no decision at all.
        manifests: of the other days, which were written.
        problems: how many lines were not counted, by kind.
    """

    def __init__(
        self,
        days: Collection[date],
        manifests: Mapping[date, Manifest],
        problems: Mapping[str, int],
    ) -> None:
        of_days = f" of {', '.join(map(str, sorted(days)))}" if days else ""
        but = [in_words(problems)] if problems else []
        if manifests:
            rows = sum(manifest.rows for manifest in manifests.values())
            others = str(*manifests) if len(manifests) == 1 else f"{len(manifests):,} other days"
            but.append(f"{rows:,} of {others} were written")
        super().__init__(
            f"there is no decision{of_days} in the input ({', '.join(but) or 'it is empty'})"
        )
        self.days = tuple(sorted(days))
        self.manifests = manifests


def write(
    lines: Lines,
    folder: Path,
    days: Collection[date] | None = None,
    *,
    stages: Collection[str] = DEFAULT_STAGES,
) -> dict[date, Manifest]:
    """Write the decisions of days, in one pass over the input and in constant memory.

    A day that is there already is replaced as a whole. Of two that write it at once, whoever ends
    later replaces the other's. What was not counted is in ``lines.problems``.

    Args:
        lines: the input; each line is one trace.
        folder: of snapshots; made if it is not there.
        days: UTC dates; None for each that the input has.
        stages: keys of ``extras.candidate_sources`` that are no sources.

    Returns:
        The manifest of each day.

    Raises:
        EmptyDayError: there is nothing of some days; the others were written.
        SnapshotError: the input has more than `MAX_DAYS`.
        OSError: a file cannot be read or written; no day was replaced.
        SourceError: PostgreSQL does not give the traces; no day was replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _workplace(folder) as workplace:
        writer = _Writer(lines, workplace, days)
        with writer, closing(decisions(lines, stages, workplace / "spilled")) as batches:
            for batch in batches:
                writer.add(batch)
        made = {day: file.sealed() for day, file in sorted(writer.files.items())}
        with locked(folder / _LOCK):
            manifests = {
                day: _commit(
                    sealed, folder / f"day={day}", writer.problems_of(day), workplace / MANIFEST
                )
                for day, sealed in made.items()
            }
    empty = set(days or ()) - manifests.keys()
    if empty or not manifests:
        problems = lines.problems.counts + Counter({OTHER_DAYS: writer.other_days})
        raise EmptyDayError(empty, manifests, problems)
    return manifests


# --- from decisions to files ------------------------------------------------------------------


@dataclass(frozen=True)
class _Sealed:
    """A data file that is complete and on the disk, and what is known of it."""

    path: Path
    day: date
    rows: int
    min_ts: datetime
    max_ts: datetime
    sha256: str
    organisations: dict[str, int]


class _DayFile:
    """A data file that is being written."""

    def __init__(self, path: Path, day: date, schema: pa.Schema) -> None:
        self.path = path
        self.day = day
        self.held_bytes = 0
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._rows = 0
        self._instants: list[datetime] = []
        """The first and the last."""
        self._organisations: Counter[str] = Counter()
        # Of what is in lists nobody asks for the smallest and the largest.
        flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
        self._writer = pq.ParquetWriter(  # of a relative path, a folder s3: would be a scheme
            path.absolute(), schema, compression=COMPRESSION, write_statistics=flat
        )

    def add(self, batch: pa.RecordBatch) -> None:
        """Hold rows; those of a row group are written."""
        self._held.append(batch)
        self.held_bytes += batch.nbytes
        self._held_rows += len(batch)
        self._rows += len(batch)
        ends = pc.min_max(batch["ts"]).as_py()
        instants = [*self._instants, ends["min"], ends["max"]]
        self._instants = [min(instants), max(instants)]
        for row in pc.value_counts(batch["org_id"]).to_pylist():
            self._organisations[row["values"]] += row["counts"]
        if self._held_rows >= ROW_GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one row group."""
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held), row_group_size=None)
        self._held = []
        self._held_rows = self.held_bytes = 0

    def close(self) -> None:
        """Give the file back, complete or not."""
        self._writer.close()

    def sealed(self) -> _Sealed:
        """Have it on the disk, once it is closed."""
        sync(self.path)
        first, last = (instant.replace(tzinfo=timezone.utc) for instant in self._instants)
        return _Sealed(
            self.path,
            self.day,
            self._rows,
            first,
            last,
            checksum_of(self.path),
            dict(sorted(self._organisations.items())),
        )


@dataclass
class _Writer:
    """Parts decisions by day, and notes what is none."""

    lines: Lines
    workplace: Path
    days: Collection[date] | None
    files: dict[date, _DayFile] = field(default_factory=dict)
    other_days: int = 0
    _dated: dict[date, Counter[str]] = field(default_factory=dict)
    """Problems of a day, by kind."""

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for file in self.files.values():
            if kind is None:
                file.flush()
                file.close()
            else:
                with suppress(Exception):  # a full disk, say, which has been told
                    file.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take what the statement gave."""
        is_problem = pc.is_valid(batch["problem"])
        if pc.any(is_problem).as_py():
            self._note(batch.filter(is_problem))
            batch = batch.filter(pc.invert(is_problem))
        batch = batch.drop_columns(["problem"])
        days = pc.floor_temporal(batch["ts"], unit="day")
        midnights = pc.unique(days)
        for midnight in midnights:
            # As a rule there is but one, and nothing to choose: that would copy every row.
            rows = batch if len(midnights) == 1 else batch.filter(pc.equal(days, midnight))
            day = midnight.as_py().date()
            if self.days is not None and day not in self.days:
                self.other_days += len(rows)
            else:
                self._file(day, rows.schema).add(rows)
        if sum(file.held_bytes for file in self.files.values()) > HELD_BYTES:
            max(self.files.values(), key=lambda file: file.held_bytes).flush()

    def problems_of(self, day: date) -> dict[str, int]:
        """See `Manifest.problems`."""
        everything = self.lines.problems.counts
        undated = everything - sum(self._dated.values(), Counter())
        counts = undated + self._dated.get(day, Counter()) + Counter({OTHER_DAYS: self.other_days})
        return dict(sorted(counts.items()))

    def _file(self, day: date, schema: pa.Schema) -> _DayFile:
        if day not in self.files:
            if len(self.files) == MAX_DAYS:
                what = f"the input has decisions of more than {MAX_DAYS} days"
                raise SnapshotError(what, "name the days that are wanted, fewer at a time")
            self.files[day] = _DayFile(self.workplace / f"{day}.parquet", day, schema)
        return self.files[day]

    def _note(self, batch: pa.RecordBatch) -> None:
        for row in batch.select(["problem", "ordinal", "ts", "decision_id"]).to_pylist():
            kind = row["problem"]
            if row["ts"] is not None:
                day = row["ts"].date()
                if self.days is not None and day not in self.days:
                    self.other_days += 1
                    continue
                self._dated.setdefault(day, Counter())[kind] += 1
            what = what_is_wrong(kind)
            if row["decision_id"] is not None:
                what += f" (decision_id {row['decision_id'][:_TOLD_CHARACTERS]!r})"
            problem = Problem(*self.lines.place_of(row["ordinal"]), what)
            self.lines.problems.note(kind, row["ordinal"], problem)


_TOLD_CHARACTERS: Final = 64

# --- from files to partitions -----------------------------------------------------------------

_LOCK: Final = ".lock"
_WORKPLACE: Final = "_writing-"
_DATA: Final = "decisions-*.parquet"


def _commit(sealed: _Sealed, partition: Path, problems: dict[str, int], draft: Path) -> Manifest:
    """Put a data file in its place, and have it be the day.

    Args:
        sealed: the file.
        partition: where its place is.
        problems: of its manifest.
        draft: where the manifest is written, before it replaces the one that is there.
    """
    manifest = Manifest(
        partition,
        sealed.day,
        sealed.rows,
        sealed.min_ts,
        sealed.max_ts,
        f"decisions-{sealed.sha256[:16]}.parquet",
        sealed.path.stat().st_size,
        sealed.sha256,
        problems,
        sealed.organisations,
        __version__,
    )
    partition.mkdir(exist_ok=True)
    sealed.path.replace(manifest.data)
    sync(partition)
    fields = {name: value for name, value in vars(manifest).items() if name != "partition"}
    draft.write_text(json.dumps(fields, indent=1, default=_iso) + "\n", "utf-8")
    sync(draft)
    draft.replace(partition / MANIFEST)  # from here on it is the day
    sync(partition)
    sync(partition.parent)
    _remove_others(partition, manifest.file)
    return manifest


def _iso(value: date) -> str:
    return value.isoformat()


def _remove_others(partition: Path, current: str | None) -> None:
    for path in partition.glob(_DATA):
        if path.name != current:
            path.unlink()


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder for files that are not complete. It is locked for as long as its process lives."""
    with ExitStack() as stack:
        with ExitStack() as beginning:
            with _named(folder):
                beginning.enter_context(locked(folder / _LOCK))
            _remove_left_over(folder)
            with _named(folder):
                workplace = Path(mkdtemp(prefix=_WORKPLACE, dir=folder))
                stack.callback(shutil.rmtree, workplace, ignore_errors=True)
                stack.enter_context(locked(workplace / _LOCK))
        yield workplace


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Errors name the folder, not what is to be made in it, which nobody knows."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def _remove_left_over(folder: Path) -> None:
    """Remove what killed runs left; those that live are left alone, whose workplaces are locked."""
    for workplace in folder.glob(f"{_WORKPLACE}*"):
        with suppress(BlockingIOError, FileNotFoundError), locked(workplace / _LOCK, wait=False):
            shutil.rmtree(workplace, ignore_errors=True)
    for partition in folder.glob("day=*"):
        day = day_of(partition)
        if day is None:
            continue
        with suppress(SnapshotError):
            try:
                current = read_manifest(folder, day).file
            except MissingDayError:
                current = None
            _remove_others(partition, current)
