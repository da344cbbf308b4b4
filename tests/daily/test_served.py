"""What was served is counted from Parquet files as the statements count it, item by item."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_personalization.daily import served, snapshot
from otel_personalization.daily.engines import DuckDB, Engine, EngineError
from otel_personalization.daily.job import Run, compute
from otel_personalization.daily.served import Wanted, counted
from tests.daily import hostile
from tests.daily.comparison import snapshots

ITEMS = pa.list_(
    pa.struct([("item_id", pa.string()), ("brand", pa.string()), ("category", pa.string())])
)
COUNTED = pa.schema([("ordinal", pa.int64()), ("cell", pa.int32()), ("users", pa.int32())])
LAST = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("cell", pa.int32()),
        ("user_order", pa.int64()),
        ("user_rest", pa.int64()),
        ("ts", pa.timestamp("us")),
    ]
)
NOON = datetime(2026, 11, 21, 12)  # noqa: DTZ001  # as it is in snapshots

texts = st.one_of(st.none(), st.sampled_from(["", "a", "b", "é", "\0"]), st.text(max_size=3))
items = st.lists(st.fixed_dictionaries(dict.fromkeys(("item_id", "brand", "category"), texts)))
CELLS = 1 << 10
cells = st.sampled_from([1, 2, 3, 700, CELLS])
decisions = st.fixed_dictionaries(
    {
        "cell": st.one_of(st.none(), cells),
        "users": st.sampled_from([0, 1, 255]),
        "last": st.sets(cells, max_size=2),
        "decision_id": st.one_of(st.none(), st.just("d")),
        "items": items,
    }
)


@given(
    st.lists(decisions, min_size=1, max_size=30),
    st.integers(1, 9),
    st.fixed_dictionaries(
        {
            "_FEW": st.integers(1, 20),
            "_BLOCK": st.integers(1, 20),
            "DENSE": st.sampled_from([1, 2 * CELLS, 600 * CELLS, served.DENSE]),
        }
    ),
)
def test_each_item_of_each_decision_counts_once_over_all_row_groups(
    tmp_path_factory, rows, group_rows, limits
):
    for number, row in enumerate(rows):
        row["ordinal"] = 3 * number
    file = tmp_path_factory.mktemp("served") / "decisions.parquet"
    columns = {"decision_id": pa.string(), "ordinal": pa.int64(), "items": ITEMS}
    pq.write_table(
        pa.table({name: pa.array([r[name] for r in rows], t) for name, t in columns.items()}),
        file,
        row_group_size=group_rows,
    )

    def want(of: Path, first: int, last: int) -> Wanted:
        assert of == file
        some = [row for row in rows if first <= row["ordinal"] <= last]
        user = {"user_order": 7, "user_rest": 8, "ts": NOON}
        return Wanted(
            pa.Table.from_pylist([row for row in some if row["cell"]], COUNTED),
            pa.Table.from_pylist(
                [row | user | {"cell": cell} for row in some for cell in row["last"]], LAST
            ),
        )

    with pytest.MonkeyPatch.context() as patch:
        for name, limit in limits.items():
            patch.setattr(served, name, limit)
        found = counted([file], want, CELLS)

    expected: dict[str, Counter] = {"item_id": Counter(), "brand": Counter(), "category": Counter()}
    for row in rows:
        for item in row["items"] if row["cell"] else ():
            for name, value in item.items():
                if value is not None:
                    users = () if name == "item_id" else (row["users"],)
                    expected[name][(row["cell"], *users, value)] += 1
    assert counts_of(found.items, "item_id") == expected["item_id"]
    for kind in ("brand", "category"):
        assert counts_of(found.values[kind], "users", "value") == expected[kind]

    lists = [
        (cell, row["decision_id"] or "", row["ordinal"], [item["item_id"] for item in row["items"]])
        for row in rows
        for cell in row["last"]
    ]
    made = zip(
        *(found.lists[name].to_pylist() for name in ("cell", "decision_id", "ordinal", "items")),
        strict=True,
    )
    assert_the_same_lists(list(made), lists)


def test_it_is_what_the_statements_count_of_hostile_traces(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "ROW_GROUP_ROWS", 1)
    monkeypatch.setattr("otel_personalization.daily.decisions._BATCH_ROWS", 100)
    manifests = snapshots(hostile.corpus(1), tmp_path)
    day = hostile.CORPUS_DAYS[-1]
    assert pq.read_metadata(manifests[day].data).num_row_groups > 10
    run = Run(day, hostile.ORG, window_days=3)
    with DuckDB(list(manifests.values()), run.org_id) as engine:
        compute(engine, run, manifests)
        quick, plain = engine.served(day), Engine.served(engine, day)
    assert len(plain.items) > 50
    assert len(plain.lists) > 50
    assert counts_of(quick.items, "item_id") == counts_of(plain.items, "item_id")
    for kind, table in plain.values.items():
        assert counts_of(quick.values[kind], "users", "value") == counts_of(table, "users", "value")
    keys = ("cell", "user_order", "user_rest", "ts", "decision_id", "ordinal", "items")
    assert_the_same_lists(
        *(
            list(zip(*(one.lists[key].to_pylist() for key in keys), strict=True))
            for one in (quick, plain)
        )
    )


def test_a_file_whose_rows_are_in_another_order_is_an_error(tmp_path):
    manifests = snapshots(hostile.corpus(1)[:500], tmp_path)
    day, manifest = hostile.CORPUS_DAYS[-1], manifests[hostile.CORPUS_DAYS[-1]]
    rows = pq.ParquetFile(manifest.data).read()
    pq.write_table(rows.take(list(range(len(rows)))[::-1]), manifest.data)
    with (
        pytest.raises(EngineError, match=r"ordinals of .* do not ascend; make the snapshot again"),
        DuckDB(list(manifests.values()), hostile.ORG) as engine,
    ):
        compute(engine, Run(day, hostile.ORG), manifests)


@pytest.mark.parametrize("ordinal", [0, 2, 4])
def test_a_decision_that_a_file_does_not_have_is_an_error(tmp_path, ordinal):
    file = tmp_path / "decisions.parquet"
    pq.write_table(
        pa.table(
            {"ordinal": [1, 3], "decision_id": ["a", "b"], "items": pa.array([[], []], ITEMS)}
        ),
        file,
    )
    wanted = Wanted(
        pa.Table.from_pylist([{"ordinal": ordinal, "cell": 1, "users": 0}], COUNTED),
        LAST.empty_table(),
    )
    with pytest.raises(ValueError, match="does not have every ordinal that is wanted"):
        counted([file], lambda *_: wanted, 1)


def counts_of(table: pa.Table, *names: str) -> Counter:
    """How often each was served, by cell and those columns."""
    found: Counter = Counter()
    for row in table.to_pylist():
        found[(row["cell"], *(row[name] for name in names))] += row["served"]
    return found


def assert_the_same_lists(found: list[tuple], expected: list[tuple]) -> None:
    """Compare lists, last in tuples, whose items may have other names in one than in the other."""
    assert sorted(row[:-1] for row in found) == sorted(row[:-1] for row in expected)
    names: dict[object, object] = {None: None}
    for one, other in zip(
        sorted(found, key=lambda row: row[:-1]),
        sorted(expected, key=lambda row: row[:-1]),
        strict=True,
    ):
        assert len(one[-1]) == len(other[-1])
        for item, known_as in zip(one[-1], other[-1], strict=True):
            assert names.setdefault(item, known_as) == known_as
    assert len(set(names.values())) == len(names)


def test_what_indices_point_to_is_read_where_they_are_a_part_of_others():
    indices = pa.array([5, None, 4, None, 0], pa.int32())
    assert served._places(indices).tolist() == [6, 0, 5, 0, 1]
    assert served._places(indices.slice(1, 3)).tolist() == [0, 5, 0]
    assert served._places(pa.nulls(2, pa.int32())).tolist() == [0, 0]
    assert served._places(pa.array([], pa.int32())).tolist() == []
