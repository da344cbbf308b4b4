"""Generated days, by which the nightly job is measured, are what they say."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from benchmarks import daily_traces
from otel_personalization.daily import manifest, snapshot
from otel_personalization.daily.lines import FileLines

DECISIONS = 2_000


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """Rows of the snapshot, and of the snapshot that is made of the lines."""
    folder = tmp_path_factory.mktemp("days")
    daily_traces.write_snapshot(folder / "made", DECISIONS)
    daily_traces.write_lines(folder / "day.ndjson", DECISIONS)
    read = snapshot.write(FileLines([folder / "day.ndjson"]), folder / "read")
    made = manifest.read_manifest(folder / "made", daily_traces.DAY)
    manifest.check(made)
    assert list(read) == [made.day]
    return [pq.read_table(one.data).sort_by("ordinal") for one in (made, read[made.day])]


def test_the_snapshot_is_what_the_job_makes_of_the_lines(day):
    made, read = (rows.to_pylist() for rows in day)
    for rows in (made, read):
        for row in rows:
            row["sources"].sort(key=lambda source: source["source"])
            row["personalized_ids"].sort()
    first = read[0]["ordinal"] - made[0]["ordinal"]
    assert made == [row | {"ordinal": row["ordinal"] - first} for row in read]


def test_the_snapshot_has_the_columns_and_types_of_a_real_one(day):
    made, read = (rows.drop_columns("day") if "day" in rows.column_names else rows for rows in day)
    assert [(f.name, str(f.type)) for f in made.schema] == [
        (f.name, str(f.type)) for f in read.schema
    ]


def test_shares_are_those_of_the_recorded_traces(day):
    rows = day[0].to_pylist()
    assert len({row["namespace"] for row in rows}) == 6
    assert {row["served_items"] for row in rows} <= {0, 13, 14, 15}

    def share(of):
        return sum(map(of, rows)) / len(rows)

    assert share(lambda row: not row["served_items"]) == pytest.approx(0.06, abs=0.02)
    assert share(lambda row: not row["personalized_ids"]) == pytest.approx(0.22, abs=0.03)
    assert share(lambda row: row["variant"] is not None) == pytest.approx(0.03, abs=0.015)
    assert share(lambda row: row["bucket_device"] is not None) == pytest.approx(0.03, abs=0.015)
    users = {(row["namespace"], row["surface"], row["user_hash"]) for row in rows}
    assert len(users) / len(rows) == pytest.approx(0.9, abs=0.03)
    for source, empty in (("collaborative", 0.57), ("session", 0.95), ("content", 0.11)):
        assert share(
            lambda row, source=source: {"source": source, "candidates": 0} in row["sources"]
        ) == pytest.approx(empty, abs=0.04)
