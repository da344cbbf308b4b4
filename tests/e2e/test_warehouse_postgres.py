"""The warehouse in a real PostgreSQL: what all warehouses promise, and what only a server can."""

from __future__ import annotations

import itertools
import json
import random
import string
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from examples.stack.servers import free_port
from otel_personalization.daily.job import Run
from otel_personalization.daily.tables import PERSONALIZATION_DAILY, TABLES
from otel_personalization.daily.warehouse import WarehouseError, open_warehouse
from otel_personalization.daily.warehouse import postgresql as module
from otel_personalization.daily.warehouse.postgresql import _PostgreSQL
from tests.daily import oracle
from tests.daily.comparison import computed, differences_of_rows, snapshots
from tests.daily.days import DAY, ORG, day_tables
from tests.daily.test_warehouse import (  # noqa: F401  # they run here with the target below
    DAY_BEFORE,
    contents,
    in_order,
    killed_while_writing,
    rows_of,
    test_a_day_without_rows_replaces_one_that_had_some,
    test_a_second_run_changes_nothing,
    test_days_are_read_from_the_first_to_the_last,
    test_rows_that_are_gone_go_and_other_days_and_organisations_stay,
    test_what_was_replaced_is_read_in_the_order_of_its_keys,
    test_what_was_stored_is_there_when_it_is_opened_again,
    test_whatever_the_names_and_figures_are_they_come_back,
    test_wrong_rows_are_refused_and_what_was_there_stays,
    versions_after_a_kill,
)
from tests.e2e.postgres import postgres
from tests.e2e.servers import wait_for

DATABASES = itertools.count()
DAILY = "analytics.personalization_daily"


@pytest.fixture(scope="module")
def server():
    with postgres() as database:
        yield database


@pytest.fixture
def target(server):
    """A database of its own."""
    name = f"warehouse_{next(DATABASES)}"
    server.run(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.fixture
def warehouse(target):
    with open_warehouse(target) as opened:
        yield opened


@contextmanager
def asking(target):
    """A function that gives the rows of a statement."""
    with psycopg.connect(target, autocommit=True) as connection:
        yield (
            lambda statement, *parameters: (
                cursor.fetchall()
                if (cursor := connection.execute(statement, parameters or None)).description
                else []
            )
        )


# --- a day is replaced as a whole -----------------------------------------------------------------


def test_a_run_that_is_killed_at_ten_random_moments_leaves_a_whole_day_in_all_tables(target):
    choice = random.Random(3)
    others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
    for _ in range(10):
        killed_while_writing(target, choice)
        with psycopg.connect(target, autocommit=True) as own:
            # The server may have been told to commit, and still do: between two tables that are
            # read one after the other, say.
            mine = (own.info.backend_pid,)
            wait_for(lambda: not own.execute(others, mine).fetchall(), "the server to notice")  # noqa: B023
        assert len(set(versions_after_a_kill(target))) == 1


def test_an_error_in_the_last_table_leaves_the_old_day_in_all(target, monkeypatch):
    insert = _PostgreSQL._insert

    def failing(self, table, rows):
        insert(self, table, rows)
        if table is TABLES[-1]:
            insert(self, table, rows)  # again: no key is there twice

    with open_warehouse(target) as warehouse:
        warehouse.replace(day_tables(version=1))
        monkeypatch.setattr(_PostgreSQL, "_insert", failing)
        with pytest.raises(WarehouseError, match=r"duplicate key .* nothing was changed"):
            warehouse.replace(day_tables(version=2))
        monkeypatch.undo()
        assert contents(warehouse) == rows_of(day_tables(version=1))
        warehouse.replace(day_tables(version=2))
        assert contents(warehouse) == rows_of(day_tables(version=2))


def test_a_connection_that_is_lost_is_said_to_be_and_leaves_the_old_day(target, monkeypatch):
    insert = _PostgreSQL._insert

    def losing(self, table, rows):
        insert(self, table, rows)
        with asking(target) as ask:
            ask("SELECT pg_terminate_backend(%s)", self._connection.info.backend_pid)

    with open_warehouse(target) as warehouse:
        warehouse.replace(day_tables(version=1))
        monkeypatch.setattr(_PostgreSQL, "_insert", losing)
        with pytest.raises(WarehouseError, match=r"refused: .*; nothing was changed"):
            warehouse.replace(day_tables(version=2))
    monkeypatch.undo()
    with open_warehouse(target) as warehouse:
        assert contents(warehouse) == rows_of(day_tables(version=1))


def test_names_that_postgresql_cannot_hold_cost_no_night(target, tmp_path):
    """Neither those that no index takes, nor two that would be the same."""
    letters = random.Random(1)
    trace = {"ts": f"{DAY}T12:00:00Z", "org_id": ORG, "namespace": "shop", "final_items": []}
    long = "".join(letters.choices(string.ascii_lowercase, k=5_000))
    lines = [
        json.dumps({**trace, **of})
        for of in (
            {"extras": {"device": long, "candidate_sources": {long: {"count": 1}}}},
            {"surface": "a\0b", "extras": {"candidate_sources": {"a\0b": {"count": 1}}}},
            {"surface": "a\ufffdb", "extras": {"candidate_sources": {"a\ufffdb": {"count": 1}}}},
            {"surface": f"{'🎧' * 64}", "extras": dict.fromkeys(("cohort", "device"), "🎧" * 64)},
        )
    ]
    tables = computed(snapshots(lines, tmp_path), Run(DAY, ORG))
    with open_warehouse(target) as warehouse:
        warehouse.replace(tables)
        of_day = contents(warehouse)
    expected = oracle.day_tables(lines, DAY, org=ORG)
    for table, rows in zip(TABLES, of_day, strict=True):
        name = table.qualified_name
        assert differences_of_rows(name, rows.to_pylist(), expected[name]) == []


# --- runs at the same time ------------------------------------------------------------------------


def test_runs_at_the_same_time_all_come_through_and_leave_the_day_of_one(target):
    """Of the same day, from the first on, before there are tables; readers see whole days."""
    versions = {n: rows_of(day_tables(version=n)) for n in range(4)}
    start = threading.Barrier(len(versions) + 1, timeout=60)

    def write(version):
        start.wait()
        for _ in range(8):
            with open_warehouse(target) as warehouse:
                warehouse.replace(day_tables(version=version))
        return True

    def read():
        start.wait()
        with open_warehouse(target) as warehouse:
            for _ in range(50):
                (rows, *_) = contents(warehouse)
                assert rows.num_rows == 0 or rows in [one[0] for one in versions.values()]
        return True

    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(write, version) for version in versions] + [pool.submit(read)]
        assert all(run.result(timeout=120) for run in runs)
    with open_warehouse(target) as warehouse:
        assert contents(warehouse) in versions.values()


@contextmanager
def busy(target):
    """Another run is in the midst of it."""
    with psycopg.connect(target) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (_PostgreSQL._lock,))
        yield
        other.rollback()


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_second_run_waits_for_the_first(target, isolation):
    """Whatever the database's transactions are like unless they say."""
    with asking(target) as ask, ThreadPoolExecutor() as pool:
        ask(
            sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}").format(
                sql.Identifier(Path(psycopg.conninfo.conninfo_to_dict(target)["dbname"]).name),
                isolation,
            )
        )
        with open_warehouse(target) as warehouse, open_warehouse(target) as other:
            warehouse.replace(day_tables(version=1))
            insert = _PostgreSQL._insert
            waits = []

            def second_comes(self, table, rows):
                """When the first run has replaced something, and not ended yet."""
                insert(self, table, rows)
                if table is TABLES[0] and not waits:
                    waits.append(pool.submit(other.replace, day_tables(version=3)))
                    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                    wait_for(lambda: ask(waiting), "the second run to wait")
                    assert not waits[0].done()
                    with open_warehouse(target) as third:  # who only reads does not wait
                        assert contents(third) == rows_of(day_tables(version=1))

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_PostgreSQL, "_insert", second_comes)
                warehouse.replace(day_tables(version=2))
            waits[0].result(timeout=60)
            assert contents(warehouse) == rows_of(day_tables(version=3))


def test_a_run_does_not_wait_for_ever(target, monkeypatch):
    monkeypatch.setattr(module, "LOCK_SECONDS", 1)
    with (
        open_warehouse(target) as warehouse,
        busy(target),
        pytest.raises(WarehouseError, match=r"nothing was changed: another run, or a session"),
    ):
        warehouse.replace(day_tables())


# --- what it makes --------------------------------------------------------------------------------


def test_the_meanings_of_tables_and_columns_are_comments_of_the_database(target):
    with asking(target) as ask:
        with open_warehouse(target):
            pass
        ask(f"COMMENT ON COLUMN {DAILY}.users IS 'as it was once'")
        with open_warehouse(target):
            pass
        for table in TABLES:
            name = table.qualified_name
            assert ask("SELECT obj_description(%s::regclass)", name) == [(table.meaning,)]
            columns = ask(
                "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
                "WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
                name,
            )
            assert columns == [(column.name, column.meaning) for column in table.columns]
            keys = ask(
                "SELECT attname FROM pg_index AS i JOIN pg_attribute AS a "
                "ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) "
                "WHERE i.indisprimary AND i.indrelid = %s::regclass ORDER BY attnum",
                name,
            )
            assert keys == [(column.name,) for column in table.key]


def test_columns_that_a_table_lacks_are_added_and_those_of_others_stay(target):
    with open_warehouse(target) as warehouse:
        warehouse.replace(day_tables(DAY_BEFORE))
    with asking(target) as ask:
        for change in ("DROP COLUMN users", "DROP COLUMN catalog_items", "ADD COLUMN note text"):
            ask(f"ALTER TABLE {DAILY} {change}")
        ask(f"UPDATE {DAILY} SET note = 'of somebody else'")
        with open_warehouse(target) as warehouse:
            warehouse.replace(day_tables())
            assert contents(warehouse) == rows_of(day_tables())
            old = warehouse.read(PERSONALIZATION_DAILY, ORG, DAY_BEFORE, DAY_BEFORE)
        notes = ask(f"SELECT day, note, count(*) FROM {DAILY} GROUP BY 1, 2 ORDER BY 1")
    assert notes == [(DAY_BEFORE, "of somebody else", 6), (DAY, None, 6)]
    before = in_order(PERSONALIZATION_DAILY, day_tables(DAY_BEFORE).rows[DAILY])
    for name in PERSONALIZATION_DAILY.column_names:
        lacked = name in {"users", "catalog_items"}
        assert old[name].null_count == 6 if lacked else old[name] == before[name], name


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            f"ALTER TABLE {DAILY} ALTER COLUMN users TYPE int",
            r"column users of .* of PostgreSQL at .* is integer, not bigint; convert it \(ALT",
        ),
        (
            f"ALTER TABLE {DAILY} RENAME TO old; CREATE TABLE {DAILY} (day date)",
            "has no column org_id, which tells its rows apart",
        ),
        (
            f"ALTER TABLE {DAILY} RENAME TO old; CREATE VIEW {DAILY} AS SELECT 1 AS day",
            "is no table; rename it",
        ),
    ],
)
def test_a_table_that_is_another_one_is_an_error_and_is_left_alone(target, change, problem):
    with open_warehouse(target):
        pass
    with asking(target) as ask:
        ask(change)
        columns = "SELECT * FROM information_schema.columns WHERE table_schema = 'analytics'"
        before = ask(columns)
        with pytest.raises(WarehouseError, match=problem), open_warehouse(target):
            pass
        assert ask(columns) == before


def test_a_role_that_may_not_make_tables_can_use_those_that_are_there(server, target):
    server.run("CREATE ROLE night LOGIN")
    as_night = target.replace("//postgres@", "//night@")
    with (
        pytest.raises(WarehouseError, match=r"permission denied .* grant the role CREATE on the"),
        open_warehouse(as_night),
    ):
        pass
    with open_warehouse(target), asking(target) as ask:
        for schema in ("analytics", "experiments"):
            ask(f"GRANT USAGE ON SCHEMA {schema} TO night")
            ask(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {schema} TO night")
    with open_warehouse(as_night) as warehouse:
        warehouse.replace(day_tables())
        assert contents(warehouse) == rows_of(day_tables())


# --- passwords ----------------------------------------------------------------------------------


@pytest.fixture
def guarded(server, target):
    """A URL of a role whose password the server wants to see."""
    server.run(
        "DROP ROLE IF EXISTS guarded; CREATE ROLE guarded SUPERUSER LOGIN PASSWORD 'a/b@c d'"
    )
    (file,) = server.run("SHOW hba_file")
    rules = Path(file)
    before = rules.read_text()
    rules.write_text(f"local all guarded scram-sha-256\n{before}")
    server.run("SELECT pg_reload_conf()")
    yield target.replace("//postgres@", "//guarded:PASSWORD@")
    rules.write_text(before)
    server.run("SELECT pg_reload_conf()")


def test_a_password_is_percent_encoded_and_is_in_no_error(guarded, caplog):
    with open_warehouse(guarded.replace("PASSWORD", "a%2Fb%40c%20d")) as warehouse:
        warehouse.replace(day_tables())
        with psycopg.connect(guarded.replace("PASSWORD", "a%2Fb%40c%20d")) as other:
            other.execute(f"DROP TABLE {DAILY}")
        with pytest.raises(WarehouseError, match=r"refused: relation .* does not exist") as raised:
            warehouse.read(PERSONALIZATION_DAILY, ORG, DAY, DAY)
    shown = [str(raised.value)]
    for password in ("wrong-secret", "a%2Fb%40c%20wrong-secret", "a/b@c wrong-secret", "%"):
        with (
            pytest.raises(WarehouseError) as raised,
            open_warehouse(guarded.replace("PASSWORD", password)),
        ):
            pass
        shown.append(str(raised.value))
    assert "password authentication failed for the user of the URL" in shown[1]
    for text in (*shown, caplog.text):
        assert "secret" not in text
        assert "a/b" not in text
        assert "a%2F" not in text
        assert "guarded" not in text


def test_a_server_that_is_not_there_is_named_without_credentials():
    port = free_port()
    with (
        pytest.raises(WarehouseError) as raised,
        open_warehouse(f"postgresql://guarded:secret@127.0.0.1:{port}/shop"),
    ):
        pass
    text = str(raised.value)
    assert text.startswith(f"PostgreSQL at 127.0.0.1:{port}, database shop cannot be reached: ")
    assert "secret" not in text
    assert "guarded" not in text


def test_a_database_that_is_not_there_is_named(server):
    with (
        pytest.raises(WarehouseError, match='database "nowhere" does not exist; see that it runs'),
        open_warehouse(server.url("nowhere")),
    ):
        pass


def test_days_that_are_far_apart_are_told_apart(target):
    with open_warehouse(target) as warehouse:
        for days in (0, 40_000):
            warehouse.replace(day_tables(DAY - timedelta(days), version=days))
        assert contents(warehouse) == rows_of(day_tables())
