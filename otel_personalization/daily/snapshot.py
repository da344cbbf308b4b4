"""Snapshots: the decisions of a UTC day, typed, in a Parquet partition with a manifest.

::

    manifests = write(FileLines([Path("traces.ndjson.gz")]), Path("snapshots"))
    manifests[date(2026, 11, 21)].data  # snapshots/day=2026-11-21/decisions-<checksum>.parquet

A folder of snapshots holds, beside what is being written and begins with ``_`` or ``.``::

    day=2026-11-21/_manifest.json
    day=2026-11-21/decisions-8f14e45fceea167a.parquet

The manifest names the data file, and to replace the manifest is what replaces the day: whoever
reads by it sees the old day or the new one, wherever a writer was killed. For a moment, or after a
kill until the next run, which removes it, a data file may lie there that no manifest names.

Only where files can be locked, which Windows does otherwise.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from otel_personalization.conventions import DEFAULT_STAGES, MAX_CANDIDATES, MAX_LABEL_LENGTH
from otel_personalization.daily.files import day_of, locked, sync
from otel_personalization.daily.lines import NO_JSON, OTHER_DAYS, SCHEMA, Lines, in_words
from otel_personalization.daily.sql import text_of
from otel_personalization.errors import RemediedError
from otel_personalization.ndjson import Problem
from otel_personalization.trace import TRACE_FIELDS
from otel_personalization.version import __version__

SCHEMA_VERSION: Final = 1
"""Of manifests and of the columns of the data."""
MANIFEST: Final = "_manifest.json"
UNDATED: Final = "undated"
"""Kind of problem: a trace without a readable ``ts``, which belongs to no day."""
UNUSABLE_ORG_ID: Final = "unusable_org_id"
"""Kind of problem: a trace of an organisation whose id is longer than names are, or has NUL. Folded
as names are, several organisations would be one."""
MAX_DAYS: Final = 400
"""Of one input; a file is open for each."""

COLUMNS: Final = (
    *("ordinal", "decision_id", "org_id", "ts", "namespace", "surface", "user_hash", "cohort"),
    *("device", "bucket_device", "experiment", "variant", "served_items", "identified_items"),
    *("personalized_items", "reason_items", "reason_requested_items", "cold_start_items", "items"),
    *("personalized_ids", "sources", "alpha", "beta", "gamma", "profile_boost", "mmr_lambda"),
    *("mmr_picks", "brand_cap_hits", "category_cap_hits"),
)
"""Of the data: those of ``sql/decisions.sql``, without ``problem``."""
COMPRESSION: Final = "zstd"
ROW_GROUP_ROWS: Final = 100_000
HELD_BYTES: Final = 96 << 20
"""Of rows in memory that are to become row groups, of all days together."""
MEMORY_LIMIT: Final = "1GB"
"""Of DuckDB."""


class SnapshotError(RemediedError):
    """A snapshot cannot be read or written."""


class MissingDayError(SnapshotError):
    """There is no snapshot of the day."""


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


@dataclass(frozen=True)
class Manifest:
    """What a snapshot of a day holds, and what it was made from."""

    partition: Path
    """Its folder; not in the file."""
    day: date
    rows: int
    """Decisions; deliveries of one decision_id are a row each."""
    min_ts: datetime
    """Of the rows, in UTC."""
    max_ts: datetime
    file: str
    """Name of the data file, which is a Parquet file."""
    bytes: int
    sha256: str
    problems: dict[str, int]
    """Lines that are no rows, by kind: ``no_json``, ``damaged`` (rests of files), ``undated``,
    ``unusable_org_id``, a `conventions.MalformedReason`, ``other_days``. Malformed traces of
    another day are not among them; what has no day is, for it may belong to this one.
    """
    organisations: dict[str, int]
    """Rows by org_id."""
    made_by: str
    """Version of this package."""
    schema_version: int = SCHEMA_VERSION

    @property
    def data(self) -> Path:
        """The data file. It is gone where the day was replaced since: read the manifest again."""
        return self.partition / self.file


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
        with writer, closing(_decisions(lines, stages, workplace)) as batches:
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


def read_manifest(folder: Path, day: date) -> Manifest:
    """The manifest of a day.

    Args:
        folder: of snapshots.
        day: UTC date.

    Raises:
        MissingDayError: there is none.
        SnapshotError: it cannot be read.
    """
    partition = folder / f"day={day}"
    path = partition / MANIFEST
    again = f"make the snapshot of {day} again"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        remedy = f"make one with: otel-personalization snapshot --day {day}"
        raise MissingDayError(f"there is no snapshot of {day} in {folder}", remedy) from None
    try:
        fields = json.loads(text)
        version = fields["schema_version"]
        if version != SCHEMA_VERSION:
            raise SnapshotError(f"{path} has schema_version {version}, not {SCHEMA_VERSION}", again)
        manifest = Manifest(
            partition,
            **fields
            | {
                "day": date.fromisoformat(fields["day"]),
                "min_ts": datetime.fromisoformat(fields["min_ts"]),
                "max_ts": datetime.fromisoformat(fields["max_ts"]),
            },
        )
    except (ValueError, KeyError, TypeError) as error:
        what = f"{path} is no manifest of a snapshot ({type(error).__name__})"
        raise SnapshotError(what, again) from None
    if manifest.day != day:
        remedy = f"name its folder day={manifest.day}, or remove it"
        raise SnapshotError(f"{path} is of {manifest.day}, not of {day}", remedy)
    return manifest


def days_of(folder: Path) -> list[date]:
    """The days of which a folder has snapshots, in order."""
    found = (day_of(path.parent) for path in folder.glob(f"day=*/{MANIFEST}"))
    return sorted(day for day in found if day is not None)


def check(manifest: Manifest) -> None:
    """Compare the data file with its manifest.

    Raises:
        SnapshotError: it is missing, or not what was written, or lacks a column.
    """
    remedy = f"make the snapshot of {manifest.day} again"
    try:
        size, checksum = manifest.data.stat().st_size, _checksum(manifest.data)
    except FileNotFoundError:
        raise SnapshotError(f"{manifest.data} is missing", remedy) from None
    if size != manifest.bytes:
        what = f"{manifest.data} has {size:,} bytes, {manifest.bytes:,} were written"
        raise SnapshotError(what, remedy)
    if checksum != manifest.sha256:
        raise SnapshotError(f"{manifest.data} is not what was written (SHA-256)", remedy)
    try:
        missing = set(COLUMNS).difference(pq.read_schema(manifest.data).names)
    except (pa.ArrowException, OSError):
        raise SnapshotError(f"{manifest.data} is no Parquet file", remedy) from None
    if missing:
        what = f"{manifest.data} is damaged: it has no column {' and no '.join(sorted(missing))}"
        raise SnapshotError(what, remedy)


# --- from lines to decisions ------------------------------------------------------------------

_JSON_TEXT: Final = "JSON"  # kept as it is written, to tell 1 from "1"
_TEXT: Final = "VARCHAR"
_SHAPE: Final[dict[str, Any]] = {
    **dict.fromkeys(("decision_id", "org_id", "namespace", "surface", "user_hash"), _JSON_TEXT),
    "ts": _TEXT,
    "final_items": [
        {
            "item_id": _TEXT,
            "reasons": [_JSON_TEXT],
            "personalized": _JSON_TEXT,
            "cold_start": _JSON_TEXT,
        }
    ],
    "caps": "MAP(VARCHAR, STRUCT(brand STRUCT(value JSON), category STRUCT(value JSON)))",
    "extras": {
        **dict.fromkeys(
            (
                "include_reasons",
                "personalized_items_count",
                "cohort",
                "device",
                "bandit_experiment",
                "experiment_variant",
                "bandit_variant",
            ),
            _JSON_TEXT,
        ),
        "personalized_items": [_TEXT],
        "candidate_sources": "MAP(VARCHAR, STRUCT(count JSON))",
    },
    "bandit": dict.fromkeys(("bucket_key", "experiment", "variant"), _JSON_TEXT),
    "effective_config": dict.fromkeys(
        ("alpha", "beta", "gamma", "profile_boost", "mmr_lambda"), _JSON_TEXT
    ),
    "mmr_info": [dict.fromkeys(("item_id", "brand_cap_hit", "category_cap_hit"), _JSON_TEXT)],
}
"""What ``sql/decisions.sql`` reads of a trace."""
_SPACE: Final = "".join(character for character in map(chr, range(0x3001)) if character.isspace())
_MACROS: Final = (
    "count_of",
    "how_many",
    "instant_of",
    "number_of",
    "trimmed",
    "text_of",
    "label_of",
    "name_of",
)
_BATCH_ROWS: Final = 10_000


def _decisions(
    lines: Lines, stages: Collection[str], workplace: Path
) -> Generator[pa.RecordBatch, None, None]:
    """What ``sql/decisions.sql`` makes of the lines, in their order."""
    failure: list[BaseException] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from lines.batches()
        except BaseException as error:  # DuckDB would only tell its text
            failure.append(error)
            raise

    with duckdb.connect(
        config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(workplace / "spilled")}
    ) as connection:
        connection.execute("SET enable_progress_bar = false")  # it would print to stdout
        for name in _MACROS:
            connection.execute(text_of(name))
        connection.register("lines", pa.RecordBatchReader.from_batches(SCHEMA, batches()))
        # Not parameters: with them DuckDB 1.5 holds the lock that batches() needs.
        for name, value in (
            ("shape", json.dumps(_SHAPE)),
            ("space", _SPACE),
            ("stages", list(stages)),
            ("most_candidates", MAX_CANDIDATES),
            ("trace_fields", list(TRACE_FIELDS)),
            ("longest_name", MAX_LABEL_LENGTH),
        ):
            connection.execute(f"SET VARIABLE {name} = ?", [value])
        try:
            found = connection.sql(text_of("decisions"))
            yield from found.to_arrow_reader(_BATCH_ROWS)
        except Exception:
            if failure:
                raise failure[0] from None
            raise


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
        self._writer = pq.ParquetWriter(
            path, schema, compression=COMPRESSION, write_statistics=flat
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
            _checksum(self.path),
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
            what = _WORDS.get(kind, f"malformed: {kind}")
            if row["decision_id"] is not None:
                what += f" (decision_id {row['decision_id'][:_TOLD_CHARACTERS]!r})"
            problem = Problem(*self.lines.place_of(row["ordinal"]), what)
            self.lines.problems.note(kind, row["ordinal"], problem)


_TOLD_CHARACTERS: Final = 64
_WORDS: Final = {
    NO_JSON: "no JSON",
    UNDATED: "no readable ts: it belongs to no day",
    UNUSABLE_ORG_ID: f"org_id of more than {MAX_LABEL_LENGTH} characters, or with NUL",
}


def _checksum(path: Path) -> str:
    """SHA-256, in hexadecimal."""
    checksum = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            checksum.update(piece)
    return checksum.hexdigest()


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
        with locked(folder / _LOCK):
            _remove_left_over(folder)
            workplace = Path(mkdtemp(prefix=_WORKPLACE, dir=folder))
            stack.callback(shutil.rmtree, workplace, ignore_errors=True)
            stack.enter_context(locked(workplace / _LOCK))
        yield workplace


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
