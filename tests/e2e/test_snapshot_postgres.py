"""Snapshots from the service's own table, in a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from otel_personalization.conventions import MalformedReason
from otel_personalization.daily import postgres_lines as lines_module
from otel_personalization.daily.lines import FileLines, SourceError
from otel_personalization.daily.manifest import Manifest
from otel_personalization.daily.postgres_lines import PostgresLines
from otel_personalization.daily.snapshot import EmptyDayError, write
from tests.conftest import DATA, read_ndjson, recording
from tests.daily.snapshots import days_of
from tests.e2e.conftest import Measure
from tests.e2e.postgres import REC_DECISIONS, Database, postgres

DAY = date(2026, 11, 21)
ORG = "00000000-0000-0000-0000-000000000001"
INDEXES = """
CREATE INDEX ON rec_decisions (namespace, ts);
CREATE INDEX ON rec_decisions (org_id, namespace, ts);
CREATE INDEX ON rec_decisions (request_id);
CREATE INDEX ON rec_decisions (user_hash, ts);
"""
"""As the service has them."""


@pytest.fixture(scope="module")
def server() -> Iterator[Database]:
    with postgres() as database:
        yield database


@pytest.fixture
def database(server: Database) -> Iterator[Database]:
    """Without a table."""
    yield server
    server.run("DROP TABLE IF EXISTS rec_decisions")


def url_of(database: Database, user: str = "postgres", rest: str = "") -> str:
    return database.url().replace("postgres@", f"{user}@", 1) + rest


def trace(ts: str, n: int, **fields: Any) -> dict[str, Any]:
    return {
        "decision_id": str(uuid.UUID(int=n)),
        "org_id": ORG,
        "ts": ts,
        "namespace": "shop",
        "final_items": [{"item_id": "a"}],
        "extras": {"include_reasons": True},
        **fields,
    }


def store(database: Database, *traces: dict[str, Any]) -> None:
    database.store(traces)
    database.run(INDEXES)


class LinesMeanwhile(PostgresLines):
    """The decisions of a day; while they are read something else happens, after each batch."""

    def __init__(self, url: str, happens: Callable[[int], None]) -> None:
        super().__init__(url, DAY)
        self._happens = happens

    def batches(self) -> Iterator[pa.RecordBatch]:
        for batch in super().batches():
            yield batch
            self._happens(batch.num_rows)


def rows_of(manifest: Manifest) -> list[dict[str, Any]]:
    """What is in it, in an order of its own: a table has none."""
    rows: list[dict[str, Any]] = pq.read_table(manifest.data).drop_columns(["ordinal"]).to_pylist()
    for row in rows:
        row["sources"].sort(key=lambda source: source["source"])  # jsonb sorts its keys
    return sorted(rows, key=lambda row: str(row["decision_id"]))


def ids_of(manifest: Manifest) -> set[int]:
    return {uuid.UUID(row["decision_id"]).int for row in rows_of(manifest)}


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["sample", "recording"])
def test_a_snapshot_from_the_table_is_that_from_the_file(of, database, tmp_path):
    """Row for row, on each day."""
    path = DATA / "traces.ndjson.gz" if of == "sample" else recording("decision_traces.ndjson.gz")
    store(database, *read_ndjson(path))
    expected = write(FileLines([path]), tmp_path / "file")
    for day, manifest in expected.items():
        lines = PostgresLines(url_of(database), day)
        (found,) = write(lines, tmp_path / "table", [day]).values()
        assert rows_of(found) == rows_of(manifest)
        assert (found.rows, found.min_ts, found.max_ts) == (
            manifest.rows,
            manifest.min_ts,
            manifest.max_ts,
        )
        assert found.organisations == manifest.organisations
        assert found.problems == {}
    assert days_of(tmp_path / "table") == days_of(tmp_path / "file")


def test_a_day_is_a_day_in_utc_to_the_microsecond(database, tmp_path):
    """Whatever the time zone of the server, of the user, and of the trace."""
    database.run("ALTER ROLE postgres SET timezone = 'Asia/Kolkata'")
    store(
        database,
        trace("2026-11-21T01:59:59.999999+02:00", 1),
        trace("2026-11-21T02:00:00+02:00", 2),
        trace("2026-11-20T19:00:00.000001-05:00", 3),
        trace("2026-11-22T05:29:59.999999+05:30", 4),
        trace("2026-11-22T00:00:00Z", 5),
        trace("infinity", 6),
    )
    try:
        (manifest,) = write(PostgresLines(url_of(database), DAY), tmp_path, [DAY]).values()
    finally:
        database.run("ALTER ROLE postgres RESET timezone")
    assert ids_of(manifest) == {2, 3, 4}
    assert manifest.min_ts == datetime(2026, 11, 21, tzinfo=timezone.utc)
    assert manifest.max_ts == datetime(2026, 11, 21, 23, 59, 59, 999_999, timezone.utc)


def test_decisions_of_every_namespace_and_of_none_are_read_once(database, tmp_path):
    names = [None, "", " ", "A", "a", "shop", "shop_eu", "\u00e9", "z" * 300, 'quote"\\\n\t']
    traces = [
        {**trace("2026-11-21T10:00:00Z", n), "namespace": name} for n, name in enumerate(names * 3)
    ]
    for line in traces:
        if line["namespace"] is None:
            del line["namespace"]
    store(database, *traces)
    (manifest,) = write(PostgresLines(url_of(database), DAY), tmp_path / "table", [DAY]).values()
    path = tmp_path / "traces"
    path.write_text("".join(json.dumps(line) + "\n" for line in traces))
    (expected,) = write(FileLines([path]), tmp_path / "file").values()
    assert manifest.rows == len(traces)
    assert rows_of(manifest) == rows_of(expected)


def test_what_is_absent_in_any_form_reads_alike(database, tmp_path):
    """An absent key is SQL NULL there, and an empty list is the null of jsonb."""
    empty = {"final_items": None, "mmr_info": None, "caps": None, "extras": None, "bandit": None}
    absent = trace("2026-11-21T10:00:00Z", 2)
    del absent["final_items"], absent["extras"], absent["org_id"]
    store(database, trace("2026-11-21T10:00:00Z", 1, **empty, surface="HOME "), absent)
    lines = PostgresLines(url_of(database), DAY)
    (manifest,) = write(lines, tmp_path, [DAY]).values()
    first, second = rows_of(manifest)
    assert (first["surface"], first["org_id"], first["served_items"]) == ("home", ORG, 0)
    assert (second["surface"], second["org_id"], second["served_items"]) == (
        "default",
        "unknown",
        0,
    )
    assert manifest.organisations == {ORG: 1, "unknown": 1}


def test_malformed_rows_are_told_by_their_decision(database, tmp_path):
    store(
        database,
        trace("2026-11-21T10:00:00Z", 1),
        trace("2026-11-21T10:00:00Z", 2, final_items={"item_id": "a"}),
    )
    lines = PostgresLines(url_of(database), DAY)
    (manifest,) = write(lines, tmp_path, [DAY]).values()
    assert manifest.problems == {MalformedReason.ITEMS_NOT_A_LIST: 1}
    (problem,) = lines.problems.first
    assert problem.file == "rec_decisions"
    assert problem.what == f"malformed: items_not_a_list (decision_id '{uuid.UUID(int=2)}')"


def test_an_organisation_can_be_asked_for(database, tmp_path):
    others = {"org_id": str(uuid.UUID(int=7))}
    nobody = trace("2026-11-21T10:00:00Z", 3)
    del nobody["org_id"]
    store(
        database,
        trace("2026-11-21T10:00:00Z", 1),
        trace("2026-11-21T10:00:00Z", 2, **others, namespace="zoo"),
        nobody,
    )
    for org, expected in ((ORG, {1}), (others["org_id"], {2}), ("unknown", {3}), (None, {1, 2, 3})):
        lines = PostgresLines(url_of(database), DAY, org)
        (manifest,) = write(lines, tmp_path, [DAY]).values()
        assert ids_of(manifest) == expected


def test_a_day_without_rows_is_said(database, tmp_path):
    store(database, trace("2026-11-20T10:00:00Z", 1))
    with pytest.raises(EmptyDayError, match="no decision of 2026-11-21"):
        write(PostgresLines(url_of(database), DAY), tmp_path, [DAY])
    assert days_of(tmp_path) == []


# --- how it is read ---------------------------------------------------------------------------


def test_what_is_written_during_the_read_does_not_appear(database, tmp_path):
    """Not even when it is committed before the cursor comes to it."""
    store(database, *(trace("2026-11-21T10:00:00Z", n) for n in range(1000)))
    late = json.dumps(trace("2026-11-21T10:00:00Z", 5000))
    insert = (
        "INSERT INTO rec_decisions (decision_id, ts, namespace) "
        "SELECT (r->>'decision_id')::uuid, (r->>'ts')::timestamptz, {} FROM (SELECT %s::jsonb r) x"
    )
    written: list[int] = []

    def write_another(rows: int) -> None:
        if not written:
            with psycopg.connect(url_of(database)) as connection:
                connection.execute(insert.format("'zzz'"), [late])
                connection.execute("UPDATE rec_decisions SET namespace = 'changed'")
        written.append(rows)

    lines = LinesMeanwhile(url_of(database), write_another)
    (manifest,) = write(lines, tmp_path, [DAY]).values()
    assert len(written) > 1
    assert sum(written) == 1000
    assert ids_of(manifest) == set(range(1000))
    assert {row["namespace"] for row in rows_of(manifest)} == {"shop"}
    (again,) = write(PostgresLines(url_of(database), DAY), tmp_path, [DAY]).values()
    assert again.rows == 1001


def test_a_user_who_may_only_read_is_enough(database, tmp_path):
    store(database, trace("2026-11-21T10:00:00Z", 1))
    database.run("CREATE ROLE reader LOGIN; GRANT SELECT ON rec_decisions TO reader")
    try:
        url = url_of(database, "reader")
        (manifest,) = write(PostgresLines(url, DAY), tmp_path, [DAY]).values()
        assert manifest.rows == 1
    finally:
        database.run("DROP OWNED BY reader; DROP ROLE reader")


def test_its_transaction_cannot_write(database):
    store(database, trace("2026-11-21T10:00:00Z", 1))
    with lines_module._connected(url_of(database)) as connection:
        for setting, value in (("isolation", "repeatable read"), ("read_only", "on")):
            assert connection.execute(f"SHOW transaction_{setting}").fetchone() == (value,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM rec_decisions")


@pytest.mark.parametrize("org", [None, ORG])
def test_a_day_of_a_large_table_is_read_by_an_index(database, org):
    """And only its rows: 400 of 80,000, of three namespaces and of none."""
    database.run(REC_DECISIONS)
    database.run(
        "INSERT INTO rec_decisions (decision_id, org_id, ts, namespace, candidates_pre) "
        f"SELECT gen_random_uuid(), '{ORG}', timestamptz '2026-06-01Z' + n * interval '216 s', "
        "(ARRAY['shop', 'media', NULL, 'cold'])[1 + n % 4], to_jsonb(repeat('x', 500)) "
        "FROM generate_series(0, 79999) n"
    )
    database.run(INDEXES)
    database.run("ANALYZE rec_decisions")
    lines = PostgresLines(url_of(database), DAY, org)
    statement, parameters = lines._query()
    with psycopg.connect(url_of(database)) as connection:
        connection.execute("SET plan_cache_mode = force_custom_plan")
        explained = connection.execute(
            psycopg.sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ") + statement, parameters
        ).fetchone()
    assert explained is not None
    plans = list(plans_of(explained[0][0]["Plan"]))
    assert not [plan for plan in plans if plan["Node Type"] == "Seq Scan"]
    pages = (
        explained[0][0]["Plan"]["Shared Hit Blocks"] + explained[0][0]["Plan"]["Shared Read Blocks"]
    )
    (table_pages,) = map(int, database.run("SELECT pg_relation_size('rec_decisions') / 8192"))
    assert pages < table_pages / 5
    assert sum(len(batch) for batch in lines.batches()) == 400


def plans_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from plans_of(inner)


PEAK = """
import resource, sys
from datetime import date
from pathlib import Path
from otel_personalization.daily.postgres_lines import PostgresLines
from otel_personalization.daily.snapshot import write
day = date.fromisoformat(sys.argv[2])
(manifest,) = write(PostgresLines(sys.argv[1], day), Path(sys.argv[3]), [day]).values()
print(manifest.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_stays_flat_with_many_large_rows(database, tmp_path, measure: Measure):
    """5,000 and 50,000 rows of 12 KB, beside as much of candidates_pre, which is not read."""
    database.run(REC_DECISIONS)
    database.run(
        "INSERT INTO rec_decisions "
        "(decision_id, org_id, ts, namespace, user_hash, final_items, candidates_pre) "
        f"SELECT gen_random_uuid(), '{ORG}', timestamptz '2026-11-21Z' + "
        "CASE WHEN n < 5000 THEN n * interval '1 s' ELSE interval '1 d' + n * interval '1 s' END, "
        "'shop', md5(n::text), items, items FROM generate_series(0, 54999) n, LATERAL ("
        "SELECT jsonb_agg(jsonb_build_object('item_id', 'item-' || i, 'score', i / 7.0, 'reasons', "
        "jsonb_build_array('recent_popularity', repeat('y', 60)))) AS items "
        "FROM generate_series(1, 100) i) x"
    )
    database.run(INDEXES)
    peaks = []
    for day, expected in (("2026-11-21", 5000), ("2026-11-22", 50_000)):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, url_of(database), day, tmp_path],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        rows, mebibytes = map(int, done.stdout.split())
        assert rows == expected
        peaks.append(mebibytes)
    measure(f"{peaks[0]} and {peaks[1]} MiB at most")
    # Of ten times the rows; how much is in flight hangs on how busy the machine is.
    assert peaks[1] < 2 * peaks[0]


def test_fetches_have_as_many_rows_as_memory_allows(database, monkeypatch):
    """Few of large ones, many of small ones."""
    monkeypatch.setattr(lines_module, "FETCH_BYTES", 1 << 20)
    filler = {"include_reasons": True, "filler": "x" * 200_000}
    store(database, *(trace("2026-11-21T10:00:00Z", n, extras=filler) for n in range(200)))
    sizes = [batch.nbytes for batch in PostgresLines(url_of(database), DAY).batches()]
    assert max(sizes[1:]) < 2 << 20


# --- what goes wrong --------------------------------------------------------------------------


def failure(url: str, org_id: str | None = None) -> SourceError:
    with pytest.raises(SourceError) as raised:
        list(PostgresLines(url, DAY, org_id).batches())
    return raised.value


def test_a_table_or_column_that_is_missing_is_told_with_what_to_do(database):
    error = failure(url_of(database))
    assert 'relation "rec_decisions" does not exist' in error.what
    assert "on the search path" in error.remedy
    database.run("CREATE TABLE rec_decisions (decision_id uuid, ts timestamptz, namespace text)")
    error = failure(url_of(database))
    assert "org_id does not exist" in error.what
    assert "caps" in error.remedy


def test_a_schema_can_be_named_in_the_address(database, tmp_path):
    store(database, trace("2026-11-21T10:00:00Z", 1))
    database.run("CREATE SCHEMA ranking; ALTER TABLE rec_decisions SET SCHEMA ranking")
    try:
        url = url_of(database, rest="&options=-csearch_path%3Dranking")
        (manifest,) = write(PostgresLines(url, DAY), tmp_path, [DAY]).values()
        assert manifest.rows == 1
    finally:
        database.run("DROP SCHEMA ranking CASCADE")


def test_a_user_who_may_not_read_is_told_what_to_grant(database):
    store(database, trace("2026-11-21T10:00:00Z", 1))
    database.run("CREATE ROLE stranger LOGIN")
    try:
        error = failure(url_of(database, "stranger"))
        assert "permission denied for table rec_decisions" in error.what
        assert "GRANT SELECT ON rec_decisions" in error.remedy
    finally:
        database.run("DROP ROLE stranger")


def test_an_organisation_that_can_be_none_is_told(database):
    store(database, trace("2026-11-21T10:00:00Z", 1))
    assert "organisation's id" in failure(url_of(database), "no uuid").remedy


def test_a_wrong_password_is_told_and_not_shown(database):
    (hba,) = database.run("SHOW hba_file")
    rules = Path(hba).read_text()
    database.run("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    Path(hba).write_text("local all guarded scram-sha-256\n" + rules)
    database.run("SELECT pg_reload_conf()")
    try:
        error = failure(url_of(database, "guarded:wr0ng%40secret"))
        assert "password authentication failed for the user of the URL" in error.what
        assert "wr0ng" not in f"{error} {error.remedy} {error.__cause__}"
        assert "secret" not in str(error)
    finally:
        Path(hba).write_text(rules)
        database.run("SELECT pg_reload_conf(); DROP ROLE guarded")


def test_a_server_that_is_not_there_is_told_by_its_address(tmp_path):
    error = failure(f"postgresql://me:secret@/db?host={tmp_path}")
    assert str(tmp_path) in error.what
    assert "secret" not in str(error)


def test_a_connection_that_breaks_replaces_nothing(database, tmp_path):
    store(database, *(trace("2026-11-21T10:00:00Z", n) for n in range(3000)))

    def cut_off(rows: int) -> None:
        database.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'otel-personalization snapshot'"
        )

    with pytest.raises(SourceError, match="terminating connection"):
        write(LinesMeanwhile(url_of(database), cut_off), tmp_path, [DAY])
    assert days_of(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_of_a_reader_that_stops_no_connection_stays(database):
    store(database, *(trace("2026-11-21T10:00:00Z", n) for n in range(3000)))
    batches = PostgresLines(url_of(database), DAY).batches()
    next(batches)
    batches.close()
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'otel%'"
    deadline = datetime.now(timezone.utc) + timedelta(seconds=10)
    while database.run(ours) != ["0"]:
        assert datetime.now(timezone.utc) < deadline
