"""What sources found is read in the order of time, however the file's rows are ordered."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_personalization.daily import snapshot, source_events
from otel_personalization.daily.engines import DuckDB, Engine
from otel_personalization.daily.job import Run, compute
from otel_personalization.daily.source_events import in_order
from tests.daily import hostile
from tests.daily.comparison import snapshots

SCHEMA = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("ts", pa.timestamp("us")),
        ("sources", pa.list_(pa.struct([("source", pa.string()), ("candidates", pa.int64())]))),
    ]
)
PLACED = pa.schema([("ordinal", pa.int64()), ("cell", pa.int32())])
NOON = datetime(2026, 11, 21, 12)  # noqa: DTZ001  # as it is in snapshots

decisions = st.fixed_dictionaries(
    {
        "second": st.integers(0, 20),
        "cell": st.one_of(st.none(), st.integers(1, 3)),
        "sources": st.dictionaries(st.sampled_from(["a", "b", "é"]), st.integers(0, 2)),
    }
)


@given(
    st.lists(decisions, min_size=1, max_size=30),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 30),
)
def test_rows_come_in_the_order_of_time_or_not_at_all(
    tmp_path_factory, rows, group_rows, is_sorted, most_waiting
):
    if is_sorted:
        rows.sort(key=lambda row: row["second"])
    file = tmp_path_factory.mktemp("events") / "decisions.parquet"
    write(file, rows, group_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_events, "MOST_WAITING", most_waiting)
        found = in_order(file, cells_of(rows))
        if found is None:
            assert most_waiting < len(rows)
            return
        events = [event for batch in found for event in events_of(batch)]
    expected = sorted(
        (row for row in rows if row["cell"]), key=lambda row: (row["second"], row["ordinal"])
    )
    assert events == [(row["cell"], [*row["sources"].items()]) for row in expected]


@pytest.mark.parametrize(
    ("seconds", "waits"),
    [
        ([0, 1, 2, 3, 4, 5], 2),  # the last two, for no one
        ([0, 2, 1, 4, 3, 5], 2),  # 2 for 1, then 4 for 3
        ([0, 5, 1, 2, 3, 4], 4),  # 5 for all, at the end beside the last two
        ([5, 4, 3, 2, 1, 0], 6),
    ],
)
def test_a_file_is_left_to_the_engine_where_too_many_rows_would_wait(
    tmp_path, monkeypatch, seconds, waits
):
    file = tmp_path / "decisions.parquet"
    rows: list[dict[str, Any]] = [{"second": s, "cell": 1, "sources": {}} for s in seconds]
    write(file, rows, group_rows=2)
    monkeypatch.setattr(source_events, "MOST_WAITING", waits)
    assert in_order(file, cells_of(rows)) is not None
    monkeypatch.setattr(source_events, "MOST_WAITING", waits - 1)
    assert in_order(file, cells_of(rows)) is None


def test_a_file_that_does_not_say_its_instants_is_left_to_the_engine(tmp_path):
    file = tmp_path / "decisions.parquet"
    rows = [{"second": 1, "cell": 1, "sources": {}}]
    write(file, rows, 1, write_statistics=False)
    assert in_order(file, cells_of(rows)) is None


@pytest.mark.parametrize("most_waiting", [0, source_events.MOST_WAITING])
def test_it_is_what_the_statement_finds_of_hostile_traces(tmp_path, monkeypatch, most_waiting):
    monkeypatch.setattr(snapshot, "ROW_GROUP_ROWS", 1)
    monkeypatch.setattr(snapshot, "_BATCH_ROWS", 100)
    monkeypatch.setattr(source_events, "MOST_WAITING", most_waiting)
    manifests = snapshots(hostile.corpus(1), tmp_path)
    day = hostile.CORPUS_DAYS[-1]
    assert pq.read_metadata(manifests[day].data).num_row_groups > 10
    run = Run(day, hostile.ORG)
    with DuckDB(list(manifests.values()), run.org_id) as engine:
        compute(engine, run, manifests)
        quick, plain = (
            [event for batch in of(engine, day) for event in events_of(batch)]
            for of in (DuckDB.source_events, Engine.source_events)
        )
    assert len(plain) > 50
    assert quick == plain


def write(file: Path, rows: list[dict[str, Any]], group_rows: int, **options: Any) -> None:
    """Write rows, which are given ordinals."""
    for number, row in enumerate(rows):
        row["ordinal"] = 3 * number
        row["ts"] = NOON + timedelta(seconds=row["second"])
    columns = {
        "ordinal": [row["ordinal"] for row in rows],
        "ts": [row["ts"] for row in rows],
        "sources": [
            [{"source": s, "candidates": n} for s, n in row["sources"].items()] for row in rows
        ],
    }
    pq.write_table(pa.table(columns, SCHEMA), file, row_group_size=group_rows, **options)


def cells_of(rows: list[dict[str, Any]]) -> source_events.CellsOf:
    """The decisions that have a cell."""

    def of(first: int, last: int) -> pa.Table:
        some = [row for row in rows if first <= row["ordinal"] <= last]
        return pa.Table.from_pylist([row for row in some if row["cell"]], PLACED)

    return of


def events_of(batch: pa.RecordBatch) -> list[tuple[int, list[tuple[str, int]]]]:
    """The cells and sources of a batch."""
    return [
        (row["cell"], [(source["source"], source["candidates"]) for source in row["sources"] or ()])
        for row in batch.select(["cell", "sources"]).to_pylist()
    ]
