"""Snapshots: a day is there as a whole or not at all, with its decisions and no others."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_personalization.conventions import MalformedReason
from otel_personalization.daily import snapshot
from otel_personalization.daily.decisions import UNDATED
from otel_personalization.daily.lines import DAMAGED, NO_JSON, OTHER_DAYS, FileLines
from otel_personalization.daily.manifest import (
    MANIFEST,
    Manifest,
    SnapshotError,
    check,
    read_manifest,
)
from otel_personalization.daily.snapshot import EmptyDayError, write
from otel_personalization.ndjson import Problem
from otel_personalization.trace import (
    Decision,
    read_decision,
    read_timestamp,
)
from tests.conftest import DATA, cells_of, read_ndjson, recording
from tests.daily.snapshots import days_of

SAMPLE = DATA / "traces.ndjson.gz"
DAY = date(2026, 11, 21)
NEXT_DAY = date(2026, 11, 22)
ROOT = Path(__file__).parents[2]


def trace(
    ts: Any = "2026-11-21T10:00:00Z", decision_id: str = "d", **fields: Any
) -> dict[str, Any]:
    return {
        "decision_id": decision_id,
        "org_id": "o",
        "ts": ts,
        "namespace": "shop",
        "final_items": [{"item_id": "a"}],
        **fields,
    }


def file_of(path: Path, *lines: Any) -> Path:
    texts = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    return path


def rows_of(manifest: Manifest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(manifest.data).to_pylist()
    return rows


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- what is in a snapshot --------------------------------------------------------------------


@pytest.mark.parametrize("of", ["sample", "recording"])
def test_a_snapshot_of_recorded_traces_has_each_decision_on_its_day(of, tmp_path, truth):
    """Equal to what an independent script counted, by namespace, surface and UTC date."""
    if of == "sample":
        path, cells = SAMPLE, truth["cells"]
        names = {"decisions": 1, "served_items": 1, "personalized_items": 1, "reason_items": 1}
        expected = {
            cell: {name: row[name] for name in names}
            for cell, row in cells_of(cells, "namespace", "surface", "date").items()
        }
    else:
        path = recording("decision_traces.ndjson.gz")
        rows = [
            {
                "namespace": line["namespace"],
                "surface": decision.surface,
                "date": str(instant.date()),
                "decisions": 1,
                "served_items": decision.served_items,
                "personalized_items": decision.personalized_items,
                "reason_items": decision.reason_items,
            }
            for line in read_ndjson(path)
            if isinstance(decision := read_decision(line), Decision)
            and (instant := read_timestamp(line)) is not None
        ]
        expected = cells_of(rows, "namespace", "surface", "date")
    lines = FileLines([path])
    manifests = write(lines, tmp_path)
    found = [
        {
            **{key: row[key] for key in row if key not in {"items", "sources", "ordinal"}},
            "date": day,
        }
        for day, manifest in manifests.items()
        for row in rows_of(manifest)
    ]
    counted = cells_of(
        (
            {
                "namespace": row["namespace"],
                "surface": row["surface"],
                "date": str(row["date"]),
                "decisions": 1,
                "served_items": row["served_items"],
                "personalized_items": row["personalized_items"],
                "reason_items": row["reason_items"],
            }
            for row in found
        ),
        "namespace",
        "surface",
        "date",
    )
    assert counted == expected
    assert lines.problems.counts == {}


def test_the_manifest_says_what_the_data_file_holds(tmp_path):
    manifests = write(FileLines([SAMPLE]), tmp_path)
    assert days_of(tmp_path) == sorted(manifests)
    assert names_in(tmp_path) == [
        ".lock",
        *(
            f"day={day}/{name}"
            for day in sorted(manifests)
            for name in (MANIFEST, manifests[day].file)
        ),
    ]
    for day, manifest in manifests.items():
        assert read_manifest(tmp_path, day) == manifest
        check(manifest)
        rows = rows_of(manifest)
        instants = [row["ts"].replace(tzinfo=timezone.utc) for row in rows]
        assert manifest.rows == len(rows)
        assert (manifest.min_ts, manifest.max_ts) == (min(instants), max(instants))
        assert manifest.organisations == Counter(row["org_id"] for row in rows)
        assert manifest.file == f"decisions-{manifest.sha256[:16]}.parquet"
        assert manifest.data.stat().st_size == manifest.bytes
        assert manifest.problems == {}


def test_a_day_is_the_utc_date_of_the_instant_whatever_the_offset(tmp_path):
    path = file_of(
        tmp_path / "traces",
        trace("2026-11-22T01:59:59.999999+02:00", "last of the day"),
        trace("2026-11-22T02:00:00+02:00", "first of the next"),
        trace("2026-11-20T19:00:00-05:00", "first of the day"),
        trace("2026-11-20T23:59:59.9Z", "last of the day before"),
        trace("1969-12-31T23:59:59.5Z", "before 1970"),
    )
    manifests = write(FileLines([path]), tmp_path / "snapshots")
    ids = {day: [row["decision_id"] for row in rows_of(m)] for day, m in manifests.items()}
    assert ids == {
        date(1969, 12, 31): ["before 1970"],
        date(2026, 11, 20): ["last of the day before"],
        DAY: ["last of the day", "first of the day"],
        NEXT_DAY: ["first of the next"],
    }
    assert manifests[DAY].min_ts == datetime(2026, 11, 21, tzinfo=timezone.utc)
    assert manifests[DAY].max_ts == datetime(2026, 11, 21, 23, 59, 59, 999_999, timezone.utc)


def test_rows_stay_in_the_order_of_the_lines_and_of_the_files(tmp_path):
    files = [
        file_of(tmp_path / f"traces {n}", *(trace(decision_id=f"{n}-{k}") for k in range(5000)))
        for n in range(4)
    ]
    (manifest,) = write(FileLines(files), tmp_path / "snapshots").values()
    rows = rows_of(manifest)
    assert [row["decision_id"] for row in rows] == [
        f"{n}-{k}" for n in range(4) for k in range(5000)
    ]
    assert [row["ordinal"] for row in rows] == list(range(20_000))


def test_row_groups_are_bounded_by_rows_and_by_memory(tmp_path, monkeypatch):
    path = file_of(
        tmp_path / "traces",
        *(trace(decision_id=str(n), ts=f"2026-11-{21 + n % 2}T00:00:00Z") for n in range(30_000)),
    )
    monkeypatch.setattr(snapshot, "ROW_GROUP_ROWS", 8000)
    manifests = write(FileLines([path]), tmp_path / "by rows")
    for manifest in manifests.values():
        data = pq.ParquetFile(manifest.data).metadata
        groups = [data.row_group(n).num_rows for n in range(data.num_row_groups)]
        assert sum(groups) == 15_000
        assert len(groups) == 2
    monkeypatch.setattr(snapshot, "HELD_BYTES", 0)
    manifests = write(FileLines([path]), tmp_path / "by memory")
    data = pq.ParquetFile(manifests[DAY].data).metadata
    assert data.num_rows == 15_000
    assert data.num_row_groups > 2


# --- what is not in it ------------------------------------------------------------------------


def test_what_is_no_decision_is_told_by_file_and_line_and_counted_on_its_day(tmp_path):
    path = file_of(
        tmp_path / "traces",
        trace(),
        b'{"decision_id": ',
        b"",
        b"[]",
        b"\xff\xfe broken",
        trace(final_items=3, decision_id="bad"),
        trace(final_items=[1]),
        trace(ts="yesterday"),
        trace(ts="2026-11-22T00:00:00Z"),
        trace(ts="2026-11-22T00:00:00Z", final_items="x"),
    )
    lines = FileLines([path])
    manifests = write(lines, tmp_path / "snapshots")
    assert {day: manifest.rows for day, manifest in manifests.items()} == {DAY: 1, NEXT_DAY: 1}
    without_day = {NO_JSON: 2, MalformedReason.NOT_A_TRACE: 1, UNDATED: 1}
    assert manifests[DAY].problems == {
        **without_day,
        MalformedReason.ITEMS_NOT_A_LIST: 1,
        MalformedReason.ITEM_NOT_AN_OBJECT: 1,
    }
    assert manifests[NEXT_DAY].problems == {**without_day, MalformedReason.ITEMS_NOT_A_LIST: 1}
    assert [(problem.file, problem.line) for problem in lines.problems.first] == [
        (str(path), line) for line in (2, 4, 5, 6, 7, 8, 10)
    ]
    assert lines.problems.counts.total() == 7
    by_line = {problem.line: problem.what for problem in lines.problems.first}
    assert by_line[2] == "no JSON"
    assert by_line[5].startswith("no JSON: 'utf-8' codec can't decode byte 0xff")
    assert by_line[6] == "malformed: items_not_a_list (decision_id 'bad')"
    assert by_line[8] == "no readable ts: it belongs to no day (decision_id 'd')"
    assert read_manifest(tmp_path / "snapshots", DAY) == manifests[DAY]


def test_other_days_than_those_asked_for_are_counted_and_no_problem(tmp_path):
    path = file_of(
        tmp_path / "traces",
        trace(),
        trace(ts="2026-11-22T00:00:00Z"),
        trace(ts="2026-11-23T00:00:00Z", final_items="x"),
    )
    lines = FileLines([path])
    manifests = write(lines, tmp_path / "snapshots", [DAY])
    assert manifests.keys() == {DAY}
    assert manifests[DAY].problems == {OTHER_DAYS: 2}
    assert lines.problems.counts == {}
    assert lines.problems.first == []


def test_a_damaged_gzip_gives_the_lines_before_and_the_manifest_says_so(tmp_path):
    path = tmp_path / "cut.gz"
    content = gzip.compress(b"".join(json.dumps(trace()).encode() + b"\n" for _ in range(100)))
    path.write_bytes(content[:-1])
    lines = FileLines([path])
    (manifest,) = write(lines, tmp_path / "snapshots").values()
    assert manifest.rows == 100
    assert manifest.problems == {DAMAGED: 1}
    (problem,) = lines.problems.first
    assert problem.line == 101


HOSTILE = st.lists(
    st.one_of(
        st.binary(max_size=40).filter(lambda line: b"\n" not in line),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["final_items", "ts", "extras", "item_id", "decision_id", "x"]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
        st.builds(
            trace,
            ts=st.sampled_from(["2026-11-21T10:00:00Z", "2026-11-22T00:30:00+02:00", "x", None, 3]),
            final_items=st.sampled_from([None, [], [{}], [{"item_id": None}], {}, "x", [[]]]),
        ).map(lambda value: json.dumps(value).encode()),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=25)  # each makes a database
@given(HOSTILE)
def test_each_line_is_a_row_or_a_problem_and_no_line_is_both(tmp_path_factory, hostile):
    folder = tmp_path_factory.mktemp("hostile")
    content = b"\n".join([json.dumps(trace()).encode(), *hostile])
    if content.startswith(b"\x1f\x8b"):
        return
    path = folder / "traces"
    path.write_bytes(content)
    lines = FileLines([path])
    manifests = write(lines, folder / "snapshots")
    rows = [row["ordinal"] + 1 for manifest in manifests.values() for row in rows_of(manifest)]
    problems = [problem.line for problem in lines.problems.first]
    expected = [n for n, line in enumerate(content.split(b"\n"), 1) if line and not line.isspace()]
    assert sorted(rows + problems) == expected
    assert lines.problems.counts.total() == len(problems)
    for manifest in manifests.values():
        check(manifest)
        assert all(row["ts"].date() == manifest.day for row in rows_of(manifest))


# --- days that are empty, and inputs that fail ------------------------------------------------


def test_a_day_without_decisions_is_said_and_the_old_snapshot_stays(tmp_path):
    """The other days are written."""
    folder = tmp_path / "snapshots"
    (old,) = write(FileLines([file_of(tmp_path / "old", trace())]), folder).values()
    lines = FileLines([file_of(tmp_path / "new", trace("2026-11-22T00:00:00Z"), trace(ts="x"))])
    with pytest.raises(EmptyDayError, match="no decision of 2026-11-21 in the input") as raised:
        write(lines, folder, [DAY, NEXT_DAY])
    assert raised.value.days == (DAY,)
    assert raised.value.manifests.keys() == {NEXT_DAY}
    assert str(raised.value).endswith("(1 undated, 1 of 2026-11-22 were written)")
    assert read_manifest(folder, DAY) == old
    assert read_manifest(folder, NEXT_DAY).rows == 1


def test_an_input_of_other_days_that_were_asked_for_is_not_said_to_be_empty(tmp_path):
    path = file_of(tmp_path / "traces", trace(), trace("2026-11-22T00:00:00Z"), trace())
    missing = date(2026, 11, 23)
    with pytest.raises(
        EmptyDayError,
        match=r"of 2026-11-23 in the input \(3 of 2 other days were written\)$",
    ):
        write(FileLines([path]), tmp_path / "snapshots", [DAY, NEXT_DAY, missing])


@pytest.mark.parametrize("content", [[], [b"x"]])
def test_an_input_without_decisions_writes_no_day(tmp_path, content):
    with pytest.raises(EmptyDayError, match="there is no decision in the input"):
        write(FileLines([file_of(tmp_path / "none", *content)]), tmp_path / "snapshots")
    assert names_in(tmp_path / "snapshots") == [".lock"]
    assert days_of(tmp_path / "snapshots") == []


def test_a_source_that_fails_is_told_as_it_is_and_replaces_nothing(tmp_path):
    folder = tmp_path / "snapshots"
    (old,) = write(FileLines([file_of(tmp_path / "old", trace())]), folder).values()
    with pytest.raises(FileNotFoundError, match="missing"):
        write(FileLines([file_of(tmp_path / "new", trace()), tmp_path / "missing"]), folder)
    assert read_manifest(folder, DAY) == old
    assert names_in(folder) == [".lock", f"day={DAY}/{MANIFEST}", f"day={DAY}/{old.file}"]


def test_a_fault_between_the_days_of_a_run_leaves_each_day_whole(tmp_path, monkeypatch):
    folder = tmp_path / "snapshots"
    days = [trace(), trace("2026-11-22T00:00:00Z")]
    old = write(FileLines([file_of(tmp_path / "old", *days)]), folder)
    replace = Path.replace
    left = iter([True, True, True])  # data and manifest of the first day, data of the second

    def failing(path: Path, target: Path) -> Path:
        if next(left, False):
            return replace(path, target)
        raise OSError("no more")

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="no more"):
        write(FileLines([file_of(tmp_path / "new", *days, *days)]), folder)
    assert read_manifest(folder, DAY).rows == 2
    assert read_manifest(folder, NEXT_DAY) == old[NEXT_DAY]
    for day in days_of(folder):
        check(read_manifest(folder, day))
    monkeypatch.undo()
    write(FileLines([file_of(tmp_path / "new", trace())]), folder)
    assert len(list(folder.glob(f"day={NEXT_DAY}/decisions-*"))) == 1


def test_an_input_of_too_many_days_is_refused(tmp_path):
    first = date(2000, 1, 1)
    traces = [trace(f"{first + timedelta(days=n)}T00:00:00Z") for n in range(401)]
    lines = FileLines([file_of(tmp_path / "traces", *traces)])
    with pytest.raises(SnapshotError, match="more than 400 days; name the days"):
        write(lines, tmp_path / "snapshots")
    assert days_of(tmp_path / "snapshots") == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from otel_personalization.daily.lines import FileLines
from otel_personalization.daily.snapshot import write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write(FileLines([Path(sys.argv[1])]), Path(sys.argv[2]))
except OSError as error:
    print("OSError", error)
"""


def test_a_disk_that_is_full_is_told_and_the_old_day_stays(tmp_path):
    folder = tmp_path / "snapshots"
    (old,) = write(FileLines([file_of(tmp_path / "old", trace())]), folder).values()
    ids = random.Random(0)
    traces = [trace(decision_id=f"{ids.getrandbits(128):x}") for _ in range(5000)]
    new = file_of(tmp_path / "new", *traces)
    assert run(FULL_DISK, new, folder).startswith("OSError")
    assert read_manifest(folder, DAY) == old
    check(old)
    assert names_in(folder) == [".lock", f"day={DAY}/{MANIFEST}", f"day={DAY}/{old.file}"]


# --- again, at once, and killed ---------------------------------------------------------------


def test_a_day_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "snapshots"
    write(FileLines([file_of(tmp_path / "first", trace(), trace())]), folder)
    (manifest,) = write(FileLines([file_of(tmp_path / "second", trace())]), folder).values()
    assert read_manifest(folder, DAY) == manifest
    assert manifest.rows == 1
    assert names_in(folder) == [".lock", f"day={DAY}/{MANIFEST}", f"day={DAY}/{manifest.file}"]


def test_the_same_input_gives_the_same_files(tmp_path):
    first = write(FileLines([SAMPLE]), tmp_path / "first")
    again = write(FileLines([SAMPLE]), tmp_path / "first")
    elsewhere = write(FileLines([SAMPLE]), tmp_path / "second")
    assert again == first
    assert names_in(tmp_path / "second") == names_in(tmp_path / "first")
    assert [m.sha256 for m in elsewhere.values()] == [m.sha256 for m in first.values()]


def test_what_a_live_writer_is_writing_is_left_alone(tmp_path):
    path = file_of(tmp_path / "traces", trace())
    tmp_path = tmp_path / "snapshots"
    tmp_path.mkdir()
    with snapshot._workplace(tmp_path) as workplace:
        (workplace / "2026-11-21.parquet").write_bytes(b"not complete")
        write(FileLines([path]), tmp_path)
        assert (workplace / "2026-11-21.parquet").exists()
    assert not workplace.exists()


def test_what_killed_writers_left_is_removed_by_the_next_run(tmp_path):
    """Also a data file that came to no manifest; the manifests of other days are not touched."""
    folder = tmp_path / "snapshots"
    path = file_of(tmp_path / "traces", trace())
    (old,) = write(FileLines([path]), folder).values()
    (folder / "_writing-abc").mkdir()
    (folder / "_writing-abc" / "2026-11-20.parquet").write_bytes(b"PAR1")
    (folder / f"day={DAY}" / "decisions-0123456789abcdef.parquet").write_bytes(b"PAR1")
    (folder / "day=2026-11-19").mkdir()
    (folder / "day=2026-11-19" / "decisions-0123456789abcdef.parquet").write_bytes(b"PAR1")
    (folder / "day=2026-11-18").mkdir()
    (folder / "day=2026-11-18" / MANIFEST).write_text("{")
    (folder / "day=2026-11-18" / "decisions-0123456789abcdef.parquet").write_bytes(b"PAR1")
    (folder / "day=or not").mkdir()
    later = file_of(tmp_path / "later", trace("2026-11-22T00:00:00Z"))
    (new,) = write(FileLines([later]), folder).values()
    assert names_in(folder) == [
        ".lock",
        f"day=2026-11-18/{MANIFEST}",
        "day=2026-11-18/decisions-0123456789abcdef.parquet",  # whose manifest cannot be read
        f"day={DAY}/{MANIFEST}",
        f"day={DAY}/{old.file}",
        f"day={NEXT_DAY}/{MANIFEST}",
        f"day={NEXT_DAY}/{new.file}",
    ]


WRITES_FOREVER = """
import sys
from pathlib import Path
from otel_personalization.daily.lines import FileLines
from otel_personalization.daily.snapshot import write
while True:
    for path in sys.argv[2:]:
        write(FileLines([Path(path)]), Path(sys.argv[1]))
        print(flush=True)
"""
WHOLE = {"a": 40, "b": 70, "c": 110}
"""Rows of each content of a day."""


@contextlib.contextmanager
def writing(folder: Path, *paths: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes the same day again and again; killed in the end, if not before."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES_FOREVER, str(folder), *map(str, paths)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_a_write(process)
        yield process
    finally:
        process.kill()
        _, errors = process.communicate()
        assert errors == ""


def wait_for_a_write(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"


def whole_day(folder: Path) -> str:
    """Which content the day has; it is read as a reader does, while writers may be at work."""
    while True:
        manifest = read_manifest(folder, DAY)
        try:
            check(manifest)
            rows = rows_of(manifest)
        except (SnapshotError, FileNotFoundError):
            # It may have been replaced since. If it was not, it is not whole.
            if read_manifest(folder, DAY) == manifest and not manifest.data.exists():
                raise
            continue
        (content,) = {row["namespace"] for row in rows}
        assert len(rows) == manifest.rows == WHOLE[content]
        return str(content)


def contents_in(folder: Path) -> dict[str, Path]:
    return {
        name: file_of(folder / name, *(trace(namespace=name) for _ in range(rows)))
        for name, rows in WHOLE.items()
    }


def test_a_writer_killed_at_random_moments_leaves_a_whole_day(tmp_path):
    folder = tmp_path / "snapshots"
    paths = contents_in(tmp_path)
    moments = random.Random(7)
    seen = Counter()
    for n in range(10):
        with writing(folder, *[paths["a"], paths["b"]][:: (-1) ** n]) as process:
            began = time.monotonic()
            wait_for_a_write(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0, time.monotonic() - began))
            process.send_signal(signal.SIGKILL)
            process.wait()
        seen[whole_day(folder)] += 1
    assert seen.keys() == {"a", "b"}
    (manifest,) = write(FileLines([paths["c"]]), folder).values()
    assert whole_day(folder) == "c"
    assert names_in(folder) == [".lock", f"day={DAY}/{MANIFEST}", f"day={DAY}/{manifest.file}"]


KILLED_AT_EACH_STEP = """
import fcntl, os, pathlib, shutil, signal, sys
from datetime import date
from otel_personalization.daily import snapshot
from otel_personalization.daily.lines import FileLines
from otel_personalization.daily.manifest import check, read_manifest

def killing(function):
    def stepping(*args, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return stepping

folder, step = pathlib.Path(sys.argv[1]), 0
path = pathlib.Path(sys.argv[2])
while True:
    child = os.fork()
    if child == 0:
        left = step
        for place, name in (
            (pathlib.Path, "replace"), (pathlib.Path, "mkdir"), (pathlib.Path, "unlink"),
            (pathlib.Path, "write_text"), (os, "fsync"), (shutil, "rmtree"),
            (snapshot, "mkdtemp"), (fcntl, "flock"), (snapshot.pq, "ParquetWriter"),
        ):
            setattr(place, name, killing(getattr(place, name)))
        snapshot.write(FileLines([path]), folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    manifest = read_manifest(folder, date(2026, 11, 21))
    check(manifest)
    print(step, status, manifest.rows)
    if status == 0:
        break
    step += 1
"""


def test_a_writer_killed_at_any_step_leaves_the_old_day_or_the_new_one(tmp_path):
    """Each step that changes a file; there is one from which on it is the new day."""
    folder = tmp_path / "snapshots"
    paths = contents_in(tmp_path)
    write(FileLines([paths["a"]]), folder)
    steps = [
        tuple(map(int, line.split()))
        for line in run(KILLED_AT_EACH_STEP, folder, paths["b"]).splitlines()
    ]
    *killed, (_, status, _) = steps
    assert status == 0
    assert {status for _, status, _ in killed} == {signal.SIGKILL}
    rows = [rows for *_, rows in steps]
    changed = rows.index(WHOLE["b"])
    assert rows == [WHOLE["a"]] * changed + [WHOLE["b"]] * (len(steps) - changed)
    assert 8 < changed < len(steps) - 2
    assert whole_day(folder) == "b"
    assert len(names_in(folder)) == 3


def test_of_two_writers_at_once_each_leaves_a_whole_day_and_readers_see_no_other(tmp_path):
    folder = tmp_path / "snapshots"
    paths = contents_in(tmp_path)
    seen = Counter()
    with writing(folder, paths["a"]) as first, writing(folder, paths["b"]) as second:
        until = time.monotonic() + 60
        while min(seen["a"], seen["b"]) < 20 and time.monotonic() < until:
            seen[whole_day(folder)] += 1
        assert first.poll() is None
        assert second.poll() is None
    assert seen.keys() == {"a", "b"}
    write(FileLines([paths["c"]]), folder)
    assert whole_day(folder) == "c"


def test_a_problem_is_printed_as_replay_prints_it():
    assert str(Problem("traces", 3, "no JSON")) == "traces:3: no JSON"


# --- memory -----------------------------------------------------------------------------------

PEAK = """
import resource, sys
from pathlib import Path
from otel_personalization.daily.lines import FileLines
from otel_personalization.daily.snapshot import write
(manifest,) = write(FileLines([Path(sys.argv[1])]), Path(sys.argv[2])).values()
print(manifest.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def run(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ten_times_the_lines_take_no_more_memory(tmp_path):
    """Of 20,000 and 200,000 lines of 1 KB."""
    items = [{"item_id": f"item-{n}", "reasons": ["new"]} for n in range(6)]
    peaks = []
    for count in (20_000, 200_000):
        path = tmp_path / f"{count}.ndjson"
        with path.open("w") as stream:
            for n in range(count):
                line = trace(
                    decision_id=f"{n}", user_hash=f"{n * n % 9973:064x}", final_items=items
                )
                stream.write(json.dumps({**line, "filler": "x" * 500}) + "\n")
        rows, mebibytes = map(int, run(PEAK, path, tmp_path / "snapshots").split())
        path.unlink()
        assert rows == count
        peaks.append(mebibytes)
    assert peaks[1] < 1.5 * peaks[0], peaks
