"""The warehouse replaces a day as a whole, and makes what it lacks."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_personalization.daily.tables import (
    BLEND_WEIGHTS_DAILY,
    PERSONALIZATION_DAILY,
    SOURCES_DAILY,
    TABLES,
    arrow_schema,
)
from otel_personalization.daily.warehouse import WarehouseError, open_warehouse
from otel_personalization.daily.warehouse.duckdb_file import _DuckDB
from tests.daily.days import DAY, ORG, day_tables, with_rows

REPOSITORY = Path(__file__).parents[2]
DAY_BEFORE = DAY - timedelta(1)


@pytest.fixture(params=["duckdb", "parquet"])
def target(request, tmp_path):
    """A warehouse that is not there yet. tests/e2e/test_warehouse_postgres.py has another one."""
    return str(tmp_path / "w.duckdb") if request.param == "duckdb" else f"{tmp_path / 'w'}/"


@pytest.fixture
def warehouse(target):
    with open_warehouse(target) as opened:
        yield opened


def in_order(table, rows):
    return rows.sort_by([(column.name, "ascending") for column in table.key])


def contents(warehouse, org_id=ORG, first_day=DAY, last_day=DAY):
    return [warehouse.read(table, org_id, first_day, last_day) for table in TABLES]


def rows_of(tables):
    return [in_order(table, tables.rows[table.qualified_name]) for table in TABLES]


# --- of every kind of warehouse ----------------------------------------------------------------


def test_what_was_replaced_is_read_in_the_order_of_its_keys(warehouse):
    tables = day_tables()
    warehouse.replace(tables)
    assert contents(warehouse) == rows_of(tables)
    for table, rows in zip(TABLES, contents(warehouse), strict=True):
        assert rows.schema == arrow_schema(table)
        assert rows.num_rows == 6


def test_a_second_run_changes_nothing(warehouse):
    for _ in range(3):
        warehouse.replace(day_tables())
        assert contents(warehouse) == rows_of(day_tables())


def test_rows_that_are_gone_go_and_other_days_and_organisations_stay(warehouse):
    other_day, other_org = day_tables(DAY_BEFORE, version=7), day_tables(org_id="other", version=9)
    for tables in (other_day, other_org, day_tables()):
        warehouse.replace(tables)
    fewer = day_tables(places=[("shop_eu", "home")], version=3)
    warehouse.replace(fewer)
    assert contents(warehouse) == rows_of(fewer)
    assert contents(warehouse, ORG, DAY_BEFORE, DAY_BEFORE) == rows_of(other_day)
    assert contents(warehouse, "other") == rows_of(other_org)


def test_days_are_read_from_the_first_to_the_last(warehouse):
    for days in range(5):
        warehouse.replace(day_tables(DAY - timedelta(days)))
    rows = warehouse.read(SOURCES_DAILY, ORG, DAY - timedelta(3), DAY_BEFORE)
    assert sorted(set(rows["day"].to_pylist())) == [DAY - timedelta(n) for n in (3, 2, 1)]
    assert warehouse.read(SOURCES_DAILY, ORG, date.min, date.max).num_rows == 30
    assert warehouse.read(SOURCES_DAILY, ORG, DAY, DAY_BEFORE).num_rows == 0


def test_a_day_without_rows_replaces_one_that_had_some(warehouse):
    warehouse.replace(day_tables())
    warehouse.replace(day_tables(places=[]))
    assert [rows.num_rows for rows in contents(warehouse)] == [0, 0, 0]


def test_what_was_stored_is_there_when_it_is_opened_again(target):
    with open_warehouse(target) as warehouse:
        warehouse.replace(day_tables())
    with open_warehouse(target) as warehouse:
        assert contents(warehouse) == rows_of(day_tables())


def column(table, name, values):
    """Rows of which a column has these values."""
    rows = day_tables().rows[table.qualified_name]
    number = rows.column_names.index(name)
    return rows.set_column(number, rows.schema.field(number), pa.array(values, rows[name].type))


@pytest.mark.parametrize(
    ("table", "rows", "problem"),
    [
        (
            SOURCES_DAILY,
            column(SOURCES_DAILY, "day", [DAY, DAY, DAY_BEFORE, DAY, DAY, DAY]),
            "rows of analytics.personalization_sources_daily for 2026-11-21 are of another day",
        ),
        (
            PERSONALIZATION_DAILY,
            column(PERSONALIZATION_DAILY, "org_id", ["acme"] * 5 + ["other"]),
            "are of another organisation",
        ),
        (
            BLEND_WEIGHTS_DAILY,
            pa.concat_tables([day_tables().rows[BLEND_WEIGHTS_DAILY.qualified_name]] * 2),
            "have the same day, org_id, namespace, experiment, variant, surface, cohort, device",
        ),
        (
            BLEND_WEIGHTS_DAILY,
            day_tables().rows[BLEND_WEIGHTS_DAILY.qualified_name].drop_columns(["jaccard_p95"]),
            "are not as tables.py has them",
        ),
        (
            SOURCES_DAILY,
            pa.table(
                {
                    name: pa.array(["x"] if name == "candidates" else [None], pa.string())
                    for name in SOURCES_DAILY.column_names
                }
            ),
            "are not as tables.py has them",
        ),
    ],
)
def test_wrong_rows_are_refused_and_what_was_there_stays(warehouse, table, rows, problem):
    warehouse.replace(day_tables(version=1))
    with pytest.raises(WarehouseError, match="nothing was replaced") as raised:
        warehouse.replace(with_rows(day_tables(), table, rows))
    assert problem in str(raised.value)
    assert contents(warehouse) == rows_of(day_tables(version=1))


def test_tables_that_are_not_given_are_an_error(warehouse):
    tables = day_tables()
    del tables.rows[SOURCES_DAILY.qualified_name]
    with pytest.raises(WarehouseError, match="no rows of analytics"):
        warehouse.replace(tables)


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NAMES = st.text(CHARACTERS)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    places=st.lists(
        st.tuples(NAMES, NAMES.filter(lambda surface: surface != "all")), unique=True, max_size=5
    ),
    org_id=st.text(CHARACTERS, max_size=20),
    day=st.dates(date(1970, 1, 1)),
    values=st.fixed_dictionaries(
        {
            "candidates": st.none() | st.integers(-(2**63), 2**63 - 1),
            "jaccard_mean": st.none() | st.floats(allow_nan=False),
            "entropy_brand_reliable": st.none() | st.booleans(),
        }
    ),
)
def test_whatever_the_names_and_figures_are_they_come_back(warehouse, places, org_id, day, values):
    tables = day_tables(day, org_id, places, **values)
    warehouse.replace(tables)
    assert contents(warehouse, org_id, day, day) == rows_of(tables)


# Writes two versions of a day in turn, until it is killed.
WRITER = """
import sys
from otel_personalization.daily.warehouse import open_warehouse
from tests.daily.days import day_tables
places = [("shop", str(n)) for n in range(60)]
days = [day_tables(places=places, version=version) for version in (1, 2)]
with open_warehouse(sys.argv[1]) as warehouse:
    while True:
        for tables in days:
            warehouse.replace(tables)
            print("replaced", flush=True)
"""


def killed_while_writing(target, choice):
    """Run a writer, and kill it at some moment after it has written once."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, target], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"replaced\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(choice.uniform(0, 0.4))
        writer.kill()


def versions_after_a_kill(target):
    """Which version each table has; there must be no other rows."""
    places = [("shop", str(n)) for n in range(60)]
    versions = {n: rows_of(day_tables(places=places, version=n)) for n in (1, 2)}
    with open_warehouse(target) as warehouse:
        found = contents(warehouse)
        of_tables = [
            next(n for n, rows in versions.items() if rows[number] == found[number])
            for number in range(len(TABLES))
        ]
        warehouse.replace(day_tables(places=places, version=1))
        assert contents(warehouse) == versions[1]
    return of_tables


def test_a_run_that_is_killed_at_any_moment_leaves_a_whole_day(target):
    choice = random.Random(7)
    for _ in range(4):
        killed_while_writing(target, choice)
        versions = versions_after_a_kill(target)
        # Files of Parquet come into place one after the other, each whole.
        assert target.endswith("/") or len(set(versions)) == 1


# --- databases ----------------------------------------------------------------------------------


def test_an_error_in_the_last_table_leaves_the_old_day_in_all(tmp_path, monkeypatch):
    insert = _DuckDB._insert

    def failing(self, table, rows):
        if table is TABLES[-1]:
            raise duckdb.OutOfMemoryException("no room")
        insert(self, table, rows)

    with open_warehouse(str(tmp_path / "w.duckdb")) as warehouse:
        warehouse.replace(day_tables(version=1))
        monkeypatch.setattr(_DuckDB, "_insert", failing)
        with pytest.raises(WarehouseError, match=r"w\.duckdb refused: no room; nothing was ch"):
            warehouse.replace(day_tables(version=2))
        monkeypatch.undo()
        assert contents(warehouse) == rows_of(day_tables(version=1))
        warehouse.replace(day_tables(version=2))
        assert contents(warehouse) == rows_of(day_tables(version=2))


def ask(file, statement):
    with duckdb.connect(str(file)) as connection:
        return connection.execute(statement).fetchall()


def test_the_meanings_of_tables_and_columns_are_comments_of_the_database(tmp_path):
    file = tmp_path / "w.duckdb"
    with open_warehouse(str(file)):
        pass
    ask(file, "COMMENT ON COLUMN analytics.personalization_daily.users IS 'as it was once'")
    with open_warehouse(str(file)):
        pass
    assert set(ask(file, "SELECT schema_name, table_name, comment FROM duckdb_tables()")) == {
        (table.schema, table.name, table.meaning) for table in TABLES
    }
    columns = ask(
        file,
        "SELECT table_name, column_name, comment FROM duckdb_columns() "
        "WHERE schema_name IN ('analytics', 'experiments')",
    )
    assert set(columns) == {
        (table.name, column.name, column.meaning) for table in TABLES for column in table.columns
    }


def test_keys_are_primary_keys(tmp_path):
    file = tmp_path / "w.duckdb"
    with open_warehouse(str(file)) as warehouse:
        warehouse.replace(day_tables())
    with pytest.raises(duckdb.ConstraintException):
        ask(
            file,
            "INSERT INTO experiments.blend_weights_daily "
            "SELECT * FROM experiments.blend_weights_daily",
        )


def test_columns_that_a_table_lacks_are_added_and_those_of_others_stay(tmp_path):
    file = tmp_path / "w.duckdb"
    with open_warehouse(str(file)) as warehouse:
        warehouse.replace(day_tables(DAY_BEFORE))
    for statement in ("DROP COLUMN users", "DROP COLUMN catalog_items", "ADD COLUMN note VARCHAR"):
        ask(file, f"ALTER TABLE analytics.personalization_daily {statement}")
    ask(file, "UPDATE analytics.personalization_daily SET note = 'of somebody else'")
    with open_warehouse(str(file)) as warehouse:
        warehouse.replace(day_tables())
        assert contents(warehouse) == rows_of(day_tables())
        old = warehouse.read(PERSONALIZATION_DAILY, ORG, DAY_BEFORE, DAY_BEFORE)
    lacked = {"users", "catalog_items"}
    before = in_order(
        PERSONALIZATION_DAILY, day_tables(DAY_BEFORE).rows["analytics.personalization_daily"]
    )
    for name in PERSONALIZATION_DAILY.column_names:
        assert old[name].null_count == 6 if name in lacked else old[name] == before[name], name
    notes = ask(
        file, "SELECT day, note, count(*) FROM analytics.personalization_daily GROUP BY ALL"
    )
    assert set(notes) == {(DAY_BEFORE, "of somebody else", 6), (DAY, None, 6)}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            "ALTER TABLE analytics.personalization_daily ALTER COLUMN users TYPE VARCHAR",
            (
                "column users of analytics.personalization_daily of the DuckDB file {file} is "
                "VARCHAR, not BIGINT; convert it (ALTER TABLE analytics.personalization_daily "
                "ALTER COLUMN users TYPE BIGINT), or rename the table, and the job makes its own"
            ),
        ),
        (
            (
                "DROP TABLE experiments.blend_weights_daily; "
                "CREATE TABLE experiments.blend_weights_daily (day DATE)"
            ),
            (
                "experiments.blend_weights_daily of the DuckDB file {file} has no column org_id, "
                "which tells its rows apart, so it is another table; rename it, and the job makes "
                "its own"
            ),
        ),
        (
            (
                "DROP TABLE experiments.blend_weights_daily; "
                "CREATE VIEW experiments.blend_weights_daily AS SELECT 1 AS day"
            ),
            (
                "experiments.blend_weights_daily of the DuckDB file {file} is no table; rename it, "
                "and the job makes its own"
            ),
        ),
    ],
)
def test_a_table_that_is_another_one_is_an_error_and_is_left_alone(tmp_path, change, problem):
    file = tmp_path / "w.duckdb"
    with open_warehouse(str(file)):
        pass
    ask(file, change)
    before = ask(file, "SELECT * FROM duckdb_columns()")
    with pytest.raises(WarehouseError) as raised, open_warehouse(str(file)):
        pass
    assert str(raised.value) == problem.format(file=file)
    assert ask(file, "SELECT * FROM duckdb_columns()") == before


# --- DuckDB --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["analytics.duckdb", "Experiments.duckdb", "analytics.v2.duckdb"])
def test_a_file_that_is_called_as_a_schema_is_refused(tmp_path, name):
    """DuckDB could not tell `analytics.personalization_daily` from a catalogue's table."""
    with (
        pytest.raises(WarehouseError, match="give it another name"),
        open_warehouse(str(tmp_path / name)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_tables_are_found_by_schema_and_name(tmp_path):
    file = tmp_path / "a b'; DROP.duckdb"
    with open_warehouse(str(file)) as warehouse:
        warehouse.replace(day_tables())
    assert ask(file, "SELECT count(*) FROM experiments.blend_weights_daily") == [(6,)]


HOLDER = """
import sys
from otel_personalization.daily.warehouse import open_warehouse
with open_warehouse(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_file_that_another_process_has_open_is_said_to_be(tmp_path):
    file = str(tmp_path / "w.duckdb")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, file],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(WarehouseError) as raised, open_warehouse(file):
            pass
        holder.communicate()
    assert f"{file} is open in another process (PID {holder.pid}); close it" in str(raised.value)
    with open_warehouse(file):
        pass


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    other = tmp_path / "other.duckdb"
    other.write_bytes(b"something else" * 1000)
    for file in (other, tmp_path / "nowhere" / "w.duckdb"):
        with (
            pytest.raises(WarehouseError, match=f"the DuckDB file {file} cannot be opened: "),
            open_warehouse(str(file)),
        ):
            pass
    assert other.read_bytes() == b"something else" * 1000


# --- Parquet -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tables"


def test_a_day_of_an_organisation_is_a_file_of_a_table_that_anything_reads(folder):
    with open_warehouse(f"{folder}/") as warehouse:
        warehouse.replace(day_tables())
        warehouse.replace(day_tables(DAY_BEFORE))
        warehouse.replace(day_tables(org_id="../../etc"))
    for table in TABLES:
        there = folder / table.schema / table.name
        assert {str(file.relative_to(there)) for file in there.rglob("*") if file.is_file()} == {
            "day=2026-11-21/org-acme.parquet",
            "day=2026-11-20/org-acme.parquet",
            "day=2026-11-21/org-..%2F..%2Fetc.parquet",
        }
        read = duckdb.execute("SELECT count(*) FROM read_parquet(?)", [f"{there}/*/*.parquet"])
        assert read.fetchall() == [(18,)]


def test_a_folder_that_is_there_needs_no_slash(folder):
    folder.mkdir()
    with open_warehouse(str(folder)) as warehouse:
        warehouse.replace(day_tables())
        assert contents(warehouse) == rows_of(day_tables())


def file_of(folder, table=PERSONALIZATION_DAILY):
    return folder / table.schema / table.name / f"day={DAY}" / "org-acme.parquet"


@pytest.mark.parametrize("name", [f"day={DAY:%Y%m%d}", "day=x"])
def test_a_folder_that_is_not_named_as_days_are_adds_nothing(folder, name):
    """Though some Pythons read the first as a day."""
    with open_warehouse(f"{folder}/") as warehouse:
        warehouse.replace(day_tables())
        shutil.copytree(file_of(folder).parent, file_of(folder).parent.with_name(name))
        assert contents(warehouse) == rows_of(day_tables())


def test_a_file_that_lacks_columns_has_nulls_and_other_columns_are_left_out(folder):
    with open_warehouse(f"{folder}/") as warehouse:
        warehouse.replace(day_tables())
        rows = pq.ParquetFile(file_of(folder)).read()
        fewer = rows.drop_columns(["users", "catalog_items"])
        pq.write_table(fewer.append_column("note", pa.array(["x"] * 6)), file_of(folder))
        found = warehouse.read(PERSONALIZATION_DAILY, ORG, DAY, DAY)
        assert found.schema == arrow_schema(PERSONALIZATION_DAILY)
        assert found["users"].null_count == found["catalog_items"].null_count == 6
        assert found["decisions"] == in_order(PERSONALIZATION_DAILY, rows)["decisions"]


def test_a_file_that_is_damaged_or_another_one_is_named(folder):
    with open_warehouse(f"{folder}/") as warehouse:
        warehouse.replace(day_tables())
        file = file_of(folder)
        rows = pq.ParquetFile(file).read()
        users = rows.column_names.index("users")
        for damaged, problem in (
            (rows.drop_columns(["cohort"]), f"{file} has no column cohort; run that day again"),
            (
                rows.set_column(users, "users", pa.array(["x"] * 6)),
                f"column users of {file} is string, not int64; run that day again",
            ),
        ):
            pq.write_table(damaged, file)
            with pytest.raises(WarehouseError) as raised:
                warehouse.read(PERSONALIZATION_DAILY, ORG, DAY, DAY)
            assert str(raised.value) == problem
        whole = file.read_bytes()
        for content in (b"PAR1", whole[:-9], whole[:4] + bytes(len(whole) // 2) + whole[-999:]):
            file.write_bytes(content)
            with pytest.raises(WarehouseError) as raised:
                contents(warehouse)
            assert str(raised.value).startswith(f"{file} is damaged: ")
            assert str(raised.value).endswith("; run that day again")
        warehouse.replace(day_tables())
        assert contents(warehouse) == rows_of(day_tables())


def test_a_folder_that_cannot_be_one_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WarehouseError, match=f"the folder of Parquet {tmp_path}/file/x cannot"),
        open_warehouse(f"{tmp_path}/file/x/"),
    ):
        pass


# --- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "",
        "w.db",
        "host=127.0.0.1 password=hidden-word",
        "mysql://bob:hidden-word@127.0.0.1/db/",
        "postgresql:/bob:hidden-word@127.0.0.1/",
        "POSTGRESQL://bob:hidden-word@127.0.0.1/db.duckdb",
        "postgresql://bob:hidden-word",
        "postgresql://bob:hidden-word/db",
        "postgresql://bob:hidden/word@127.0.0.1/db",
        "postgresql://bob:hidden@word@127.0.0.1/db",
        "postgresql://bob:hidden word@127.0.0.1/db",
        "postgresql://bob:%zz-hidden-word@127.0.0.1/db",
        "postgresql://127.0.0.1/db?passwort=hidden-word",
        "postgresql://bob:hidden-word@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=bob&password=hidden-word",
        "postgresql://bob:hidden-word@no-such-host.invalid/db",
    ],
)
def test_what_is_no_warehouse_is_an_error_that_shows_no_password(
    target, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WarehouseError) as raised, open_warehouse(target):
        pass
    shown = str(raised.value) + caplog.text
    for secret in ("hidden", "word@", "-word"):
        assert secret not in shown
    assert "bob" not in shown or "://bob" in target
    assert list(tmp_path.iterdir()) == []
