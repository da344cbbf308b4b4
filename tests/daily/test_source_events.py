"""What sources found is read in the order of time, however the file's rows are ordered."""

from __future__ import annotations

from datetime import timedelta
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
from tests.daily.test_served import NOON

SCHEMA = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("ts", pa.timestamp("us")),
        ("namespace", pa.string()),
        ("sources", pa.list_(pa.struct([("source", pa.string()), ("candidates", pa.int64())]))),
    ]
)
PLACED = pa.schema([("ordinal", pa.int64()), ("cell", pa.int32())])

decisions = st.fixed_dictionaries(
    {
        "second": st.integers(0, 20),
        "namespace": st.sampled_from(["n", "o", "é"]),
        "cell": st.one_of(st.none(), st.integers(1, 3)),
        "sources": st.dictionaries(st.sampled_from(["a", "b", "é"]), st.integers(0, 2)),
    }
)


@given(
    st.lists(decisions, min_size=1, max_size=30),
    st.integers(1, 9),
    st.sampled_from([(), ("second",), ("namespace", "second")]),
    st.integers(0, 30),
)
def test_rows_of_a_namespace_come_in_the_order_of_time_or_not_at_all(
    tmp_path_factory, rows, group_rows, sorted_by, most_waiting
):
    rows.sort(key=lambda row: [row[name] for name in sorted_by])
    file = tmp_path_factory.mktemp("events") / "decisions.parquet"
    write(file, rows, group_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_events, "MOST_WAITING", most_waiting)
        found = in_order(file, cells_of(rows))
        if found is None:
            assert most_waiting < len(rows)
            return
        events = [event for batch in found for event in batch.to_pylist()]
    for namespace in ("n", "o", "é"):
        expected = sorted(
            (row for row in rows if row["cell"] and row["namespace"] == namespace),
            key=lambda row: (row["second"], row["ordinal"]),
        )
        of_namespace = [event for event in events if event["namespace"] == namespace]
        assert [(event["cell"], sources_of(event)) for event in of_namespace] == [
            (row["cell"], [*row["sources"].items()]) for row in expected
        ]


@pytest.mark.parametrize(
    ("rows", "waits"),
    [
        ("n0 n1 n2 n3 n4 n5", 0),
        ("n0 n2 n1 n4 n3 n5", 2),  # 2 for 1, then 4 for 3
        ("n0 n5 n1 n2 n3 n4", 2),  # 5 for all
        ("n5 n4 n3 n2 n1 n0", 4),
        ("n3 n4 n5 o0 o1 o2", 0),  # one namespace after the other
        ("n3 n4 n5 o0 o1 n2", 3),
        ("n0 o5 n1 o4 n2 o3", 2),
    ],
)
def test_a_file_is_left_to_the_engine_where_too_many_rows_would_wait(
    tmp_path, monkeypatch, rows, waits
):
    file = tmp_path / "decisions.parquet"
    made: list[dict[str, Any]] = [
        {"namespace": row[0], "second": int(row[1]), "cell": 1, "sources": {}}
        for row in rows.split()
    ]
    write(file, made, group_rows=2)
    monkeypatch.setattr(source_events, "MOST_WAITING", waits)
    assert in_order(file, cells_of(made)) is not None
    monkeypatch.setattr(source_events, "MOST_WAITING", waits - 1)
    assert in_order(file, cells_of(made)) is None


@pytest.mark.parametrize("most_waiting", [0, source_events.MOST_WAITING])
def test_it_is_what_the_statement_finds_of_hostile_traces(tmp_path, monkeypatch, most_waiting):
    monkeypatch.setattr(snapshot, "ROW_GROUP_ROWS", 1)
    monkeypatch.setattr("otel_personalization.daily.decisions._BATCH_ROWS", 100)
    monkeypatch.setattr(source_events, "MOST_WAITING", most_waiting)
    manifests = snapshots(hostile.corpus(1), tmp_path)
    day = hostile.CORPUS_DAYS[-1]
    assert pq.read_metadata(manifests[day].data).num_row_groups > 10
    run = Run(day, hostile.ORG)
    with DuckDB(list(manifests.values()), run.org_id) as engine:
        compute(engine, run, manifests)
        cells = engine.fetch("cells").to_pylist()
        quick, plain = (
            [event for batch in of(engine, day) for event in batch.to_pylist()]
            for of in (DuckDB.source_events, Engine.source_events)
        )
    assert len(plain) > 50
    for namespace in {cell["namespace"] for cell in cells}:
        some = {cell["cell"] for cell in cells if cell["namespace"] == namespace}
        of_quick, of_plain = (
            [(event["cell"], sources_of(event)) for event in events if event["cell"] in some]
            for events in (quick, plain)
        )
        assert of_quick == of_plain


def write(file: Path, rows: list[dict[str, Any]], group_rows: int) -> None:
    """Write rows, which are given ordinals."""
    for number, row in enumerate(rows):
        row["ordinal"] = 3 * number
        row["ts"] = NOON + timedelta(seconds=row["second"])
    columns = {
        "ordinal": [row["ordinal"] for row in rows],
        "ts": [row["ts"] for row in rows],
        "namespace": [row["namespace"] for row in rows],
        "sources": [
            [{"source": s, "candidates": n} for s, n in row["sources"].items()] for row in rows
        ],
    }
    pq.write_table(pa.table(columns, SCHEMA), file, row_group_size=group_rows)


def cells_of(rows: list[dict[str, Any]]) -> source_events.CellsOf:
    """The decisions that have a cell."""

    def of(first: int, last: int) -> pa.Table:
        some = [row for row in rows if first <= row["ordinal"] <= last]
        return pa.Table.from_pylist([row for row in some if row["cell"]], PLACED)

    return of


def sources_of(event: dict[str, Any]) -> list[tuple[str, int]]:
    """What each source found."""
    return [(one["source"], one["candidates"]) for one in event["sources"] or ()]
