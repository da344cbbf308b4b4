"""The snapshots that there are, and whether they are whole.

::

    manifest = read_manifest(Path("snapshots"), date(2026, 11, 21))
    check(manifest)
    manifest.data  # snapshots/day=2026-11-21/decisions-<checksum>.parquet

A folder of snapshots holds, beside what is being written and begins with ``_`` or ``.``::

    day=2026-11-21/_manifest.json
    day=2026-11-21/decisions-8f14e45fceea167a.parquet

The manifest names the data file, and is what the day is: where there is none, there is no day.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from otel_personalization.errors import RemediedError

SCHEMA_VERSION: Final = 1
"""Of manifests and of the columns of the data."""
MANIFEST: Final = "_manifest.json"

_ITEM: Final = {"item_id": pa.string(), "brand": pa.string(), "category": pa.string()}
DATA_SCHEMA: Final = pa.schema(
    {
        "ordinal": pa.int64(),
        "decision_id": pa.string(),
        "org_id": pa.string(),
        "ts": pa.timestamp("us"),
        **dict.fromkeys(("namespace", "surface", "user_hash", "cohort", "device"), pa.string()),
        **dict.fromkeys(("bucket_device", "experiment", "variant"), pa.string()),
        **dict.fromkeys(("served_items", "identified_items", "personalized_items"), pa.int64()),
        **dict.fromkeys(("reason_items", "reason_requested_items"), pa.int64()),
        "cold_start_items": pa.int64(),
        "items": pa.list_(pa.struct(_ITEM)),
        "personalized_ids": pa.list_(pa.string()),
        "sources": pa.list_(pa.struct({"source": pa.string(), "candidates": pa.int64()})),
        **dict.fromkeys(("alpha", "beta", "gamma", "profile_boost", "mmr_lambda"), pa.float64()),
        **dict.fromkeys(("mmr_picks", "brand_cap_hits", "category_cap_hits"), pa.int64()),
    }
)
"""Of the data: what ``sql/decisions.sql`` gives, without ``problem``."""


class SnapshotError(RemediedError):
    """A snapshot cannot be read or written."""


class MissingDayError(SnapshotError):
    """There is no snapshot of the day."""


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
        fields = _fields_of(text)
        if fields["schema_version"] != SCHEMA_VERSION:
            what = f"{path} has schema_version {fields['schema_version']}, not {SCHEMA_VERSION}"
            raise SnapshotError(what, again)
        manifest = Manifest(
            partition,
            **fields
            | {
                "day": date.fromisoformat(fields["day"]),
                "min_ts": datetime.fromisoformat(fields["min_ts"]),
                "max_ts": datetime.fromisoformat(fields["max_ts"]),
            },
        )
    except (ValueError, TypeError) as error:
        raise SnapshotError(f"{path} is no manifest of a snapshot: {error}", again) from None
    if manifest.day != day:
        remedy = f"name its folder day={manifest.day}, or remove it"
        raise SnapshotError(f"{path} is of {manifest.day}, not of {day}", remedy)
    return manifest


def _fields_of(text: str) -> dict[str, Any]:
    """The fields of a manifest by name, each of its type; of another version, as they are.

    Raises:
        TypeError: something in it is of another type.
        ValueError: it is no JSON, or has a field that is not known.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError("it is no object")
    version = fields.get("schema_version")
    if type(version) is int and version != SCHEMA_VERSION:
        return fields
    for name, kind in _FIELDS.items():
        if type(fields.get(name)) is not kind:  # not isinstance: True would be an int
            raise TypeError(f"its {name} is no {_KINDS[kind]}")
    for name in ("problems", "organisations"):
        if any(type(count) is not int for count in fields[name].values()):
            raise TypeError(f"a count in its {name} is no {_KINDS[int]}")
    if unknown := fields.keys() - _FIELDS.keys():
        raise ValueError(f"its {min(unknown)} is not known")
    return fields


_FIELDS: Final[dict[str, type]] = {
    **dict.fromkeys(("rows", "bytes", "schema_version"), int),
    **dict.fromkeys(("day", "min_ts", "max_ts", "file", "sha256", "made_by"), str),
    **dict.fromkeys(("problems", "organisations"), dict),
}
_KINDS: Final = {int: "integer", str: "text", dict: "object"}


def check(manifest: Manifest) -> None:
    """Compare the data file with its manifest.

    Raises:
        SnapshotError: it is missing, or not what was written, or not of `DATA_SCHEMA`.
    """
    remedy = f"make the snapshot of {manifest.day} again"
    try:
        size, checksum = manifest.data.stat().st_size, checksum_of(manifest.data)
    except FileNotFoundError:
        raise SnapshotError(f"{manifest.data} is missing", remedy) from None
    if size != manifest.bytes:
        what = f"{manifest.data} has {size:,} bytes, {manifest.bytes:,} were written"
        raise SnapshotError(what, remedy)
    if checksum != manifest.sha256:
        raise SnapshotError(f"{manifest.data} is not what was written (SHA-256)", remedy)
    try:
        schema = pq.read_schema(manifest.data.absolute())
    except (pa.ArrowException, OSError):
        raise SnapshotError(f"{manifest.data} is no Parquet file", remedy) from None
    if differences := _differences(schema):
        what = f"{manifest.data} is damaged: it has {' and '.join(differences)}"
        raise SnapshotError(what, remedy)


def _differences(schema: pa.Schema) -> list[str]:
    """What makes a schema another one than `DATA_SCHEMA`, in words; in any order of columns."""
    types = dict(zip(DATA_SCHEMA.names, DATA_SCHEMA.types, strict=True))
    counts = Counter(schema.names)
    return [
        *(f"no column {name}" for name in types if name not in counts),
        *(f"a column {name}" for name in counts if name not in types),
        *(f"{count} columns {name}" for name, count in counts.items() if count > 1),
        *(
            f"{field.name} as {field.type}, not {types[field.name]}"
            for field in schema
            if field.type != types.get(field.name, field.type)
        ),
    ]


def checksum_of(path: Path) -> str:
    """SHA-256, in hexadecimal."""
    checksum = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            checksum.update(piece)
    return checksum.hexdigest()
