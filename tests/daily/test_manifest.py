"""Snapshots are read by their manifests; one that is not whole is told, with what to do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from otel_personalization.daily.lines import FileLines
from otel_personalization.daily.manifest import (
    DATA_SCHEMA,
    MANIFEST,
    Manifest,
    MissingDayError,
    SnapshotError,
    check,
    read_manifest,
)
from otel_personalization.daily.snapshot import write
from tests.daily.test_snapshot import DAY, NEXT_DAY, file_of, trace


def test_a_snapshot_that_is_not_there_is_told_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(MissingDayError, match="there is no snapshot of 2026-11-21") as raised:
        read_manifest(tmp_path, DAY)
    assert raised.value.remedy == "make one with: otel-personalization snapshot --day 2026-11-21"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "it is no object"),
        ("3", "it is no object"),
        ("{}", "its rows is no integer"),
        ('{"schema_version": 1}', "its rows is no integer"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_told_by_its_file(tmp_path, text, told):
    (tmp_path / f"day={DAY}").mkdir()
    path = tmp_path / f"day={DAY}" / MANIFEST
    path.write_text(text)
    with pytest.raises(SnapshotError, match=told) as raised:
        read_manifest(tmp_path, DAY)
    assert str(path) in raised.value.what
    assert raised.value.remedy == "make the snapshot of 2026-11-21 again"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("rows", "1", "its rows is no integer"),
        ("bytes", True, "its bytes is no integer"),
        ("file", None, "its file is no text"),
        ("sha256", ["0"], "its sha256 is no text"),
        ("problems", 3, "its problems is no object"),
        ("problems", {"undated": "3"}, "a count in its problems is no integer"),
        ("organisations", ["acme"], "its organisations is no object"),
        ("organisations", {"acme": 1.5}, "a count in its organisations is no integer"),
        ("min_ts", 3, "its min_ts is no text"),
        ("max_ts", "yesterday", "Invalid isoformat"),
        ("day", "21 November", "Invalid isoformat"),
        ("schema_version", "1", "its schema_version is no integer"),
        ("owner", "me", "its owner is not known"),
    ],
)
def test_a_field_of_a_manifest_that_is_not_as_it_has_to_be_is_told(tmp_path, field, value, told):
    (manifest,) = write(FileLines([file_of(tmp_path / "traces", trace())]), tmp_path).values()
    path = manifest.partition / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(SnapshotError, match=told) as raised:
        read_manifest(tmp_path, DAY)
    assert str(path) in raised.value.what
    assert raised.value.remedy == "make the snapshot of 2026-11-21 again"


def test_a_manifest_of_another_version_is_refused(tmp_path):
    (manifest,) = write(FileLines([file_of(tmp_path / "traces", trace())]), tmp_path).values()
    path = manifest.partition / MANIFEST
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(SnapshotError, match="schema_version 2, not 1"):
        read_manifest(tmp_path, DAY)


def test_a_manifest_of_another_day_than_its_folder_is_refused(tmp_path):
    (manifest,) = write(FileLines([file_of(tmp_path / "traces", trace())]), tmp_path).values()
    manifest.partition.rename(tmp_path / f"day={NEXT_DAY}")
    with pytest.raises(SnapshotError, match=f"is of {DAY}, not of {NEXT_DAY}") as raised:
        read_manifest(tmp_path, NEXT_DAY)
    assert raised.value.remedy == f"name its folder day={DAY}, or remove it"


@pytest.mark.parametrize("name", ["day=20261121", "day=2026-W47-6", "day=x", "day="])
def test_a_folder_of_another_name_is_no_snapshot_and_stays_as_it_is(tmp_path, name):
    """Though some Pythons read the first two as that day."""
    file = file_of(tmp_path / "traces", trace())
    (manifest,) = write(FileLines([file]), tmp_path / "snapshots").values()
    manifest.partition.rename(tmp_path / "snapshots" / name)
    there = {path: path.read_bytes() for path in (tmp_path / "snapshots" / name).iterdir()}
    with pytest.raises(MissingDayError):
        read_manifest(tmp_path / "snapshots", DAY)
    write(FileLines([file_of(tmp_path / "more", trace(decision_id="e"))]), tmp_path / "snapshots")
    assert {path: path.read_bytes() for path in there} == there


def test_a_data_file_that_lacks_a_column_is_damaged(tmp_path):
    """Though it is the one that its manifest is of."""
    (manifest,) = write(FileLines([file_of(tmp_path / "traces", trace())]), tmp_path).values()
    rows = pq.ParquetFile(manifest.data).read()
    pq.write_table(rows.drop_columns(["user_hash", "sources"]), manifest.data)
    told = "is damaged: it has no column user_hash and no column sources"
    with pytest.raises(SnapshotError, match=told) as raised:
        check(resealed(manifest))
    assert raised.value.remedy == "make the snapshot of 2026-11-21 again"


@pytest.mark.parametrize("name", DATA_SCHEMA.names)
def test_a_column_of_another_type_is_damaged(tmp_path, name):
    (manifest,) = write(FileLines([file_of(tmp_path / "traces", trace())]), tmp_path).values()
    rows = pq.ParquetFile(manifest.data).read()
    assert rows.schema == DATA_SCHEMA
    index = DATA_SCHEMA.get_field_index(name)
    other = pa.array([[1]], pa.list_(pa.int32()))
    pq.write_table(rows.set_column(index, name, other), manifest.data)
    told = rf"it has {name} as list<element: int32>, not {re.escape(str(DATA_SCHEMA.types[index]))}"
    with pytest.raises(SnapshotError, match=told):
        check(resealed(manifest))


def test_a_column_that_is_not_known_is_damage(tmp_path):
    """`day` would be there twice."""
    (manifest,) = write(FileLines([file_of(tmp_path / "traces", trace())]), tmp_path).values()
    rows = pq.ParquetFile(manifest.data).read()
    pq.write_table(rows.append_column("day", rows["ts"]), manifest.data)
    with pytest.raises(SnapshotError, match="it has a column day"):
        check(resealed(manifest))
    rows = rows.append_column("ts", rows["ts"])
    pq.write_table(rows, manifest.data)
    with pytest.raises(SnapshotError, match="it has 2 columns ts"):
        check(resealed(manifest))


@pytest.mark.parametrize(
    "content", [b"ordinal,decision_id", b"PAR1" + 16 * b"x" + b"\x08\0\0\0PAR1"]
)
def test_a_data_file_of_another_format_is_told(tmp_path, content):
    (manifest,) = write(FileLines([file_of(tmp_path / "traces", trace())]), tmp_path).values()
    manifest.data.write_bytes(content)
    with pytest.raises(SnapshotError, match="is no Parquet file"):
        check(resealed(manifest))


def resealed(manifest: Manifest) -> Manifest:
    """A manifest of what is in the data file now."""
    content = manifest.data.read_bytes()
    return replace(manifest, bytes=len(content), sha256=sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content[:-1], "bytes, .* were written"),
        (lambda content: bytes([content[0], content[1] ^ 1]) + content[2:], "SHA-256"),
        (lambda content: None, "is missing"),
    ],
)
def test_a_data_file_that_is_not_what_was_written_is_told(tmp_path, change, told):
    (manifest,) = write(FileLines([file_of(tmp_path / "traces", trace())]), tmp_path).values()
    content = change(manifest.data.read_bytes())
    if content is None:
        manifest.data.unlink()
    else:
        manifest.data.write_bytes(content)
    with pytest.raises(SnapshotError, match=told) as raised:
        check(manifest)
    assert str(manifest.data) in raised.value.what
    assert raised.value.remedy == "make the snapshot of 2026-11-21 again"
