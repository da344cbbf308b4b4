"""Lines of files: every one of them, where it is, and nothing that is none."""

from __future__ import annotations

import gzip
import io
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_personalization import ndjson
from otel_personalization.daily.lines import (
    DAMAGED,
    NO_JSON,
    SCHEMA,
    FileLines,
    Problems,
    SourceError,
)
from otel_personalization.daily.postgres_lines import PostgresLines
from otel_personalization.ndjson import MAX_PROBLEMS, Problem
from tests.conftest import DATA

Told = list[tuple[str, int, str]]


def read(lines: FileLines) -> Told:
    """Where each line is, and what it says."""
    told = []
    for batch in lines.batches():
        assert batch.schema == SCHEMA
        batch.validate(full=True)
        for line, ordinal in zip(
            batch["line"].to_pylist(), batch["ordinal"].to_pylist(), strict=True
        ):
            told.append((*lines.place_of(ordinal), line.removesuffix("\n")))
    return told


def as_replay_reads(*files: Path) -> Told:
    """The lines that are UTF-8, by replay's reader."""
    told = []
    for file in files:
        for number, line in ndjson.lines(file, lambda problem: None):
            try:
                told.append((str(file), number, line.decode("utf-8-sig").removesuffix("\n")))
            except UnicodeDecodeError:
                continue
    return told


HOSTILE = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.text(max_size=30).map(str.encode),
        st.sampled_from(
            [
                b"",
                b" \t\r",
                b"{}",
                b'{"decision_id": "a"}\r',
                b"\xef\xbb\xbf{}",
                b"\xff\xfe{\x00}\x00",
                b"\xed\xa0\x80",
                b"\x00",
                b"\x1f\x8b",
                "\u2028é".encode(),
                b"x" * 300,
            ]
        ),
    ),
    max_size=30,
).map(b"\n".join)
BLOCKS = st.sampled_from([1, 7, 64, 1 << 20])


def in_blocks(monkeypatch: pytest.MonkeyPatch, block_bytes: int, read_bytes: int) -> None:
    monkeypatch.setitem(ndjson.blocks.__kwdefaults__, "block_bytes", block_bytes)
    monkeypatch.setattr(ndjson, "_READ_BYTES", {True: read_bytes, False: read_bytes})


@given(st.tuples(HOSTILE, HOSTILE), BLOCKS, BLOCKS, st.booleans())
@example((b"\n\n", b"\xff\n{}"), 1, 1, False)
def test_lines_are_those_of_replay_whatever_they_hold(
    tmp_path_factory, contents, block_bytes, read_bytes, compressed
):
    """Of two files, in blocks of any size, read in pieces of any size."""
    folder = tmp_path_factory.mktemp("lines")
    files = [folder / "first", folder / "second"]
    for file, content in zip(files, contents, strict=True):
        is_gzip = content.startswith(b"\x1f\x8b")  # which would be a damaged one
        file.write_bytes(gzip.compress(content) if compressed or is_gzip else content)
    lines = FileLines(files)
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_blocks(monkeypatch, block_bytes, read_bytes)
        assert read(lines) == as_replay_reads(*files)
    wrong = [
        (str(file), number)
        for file in files
        for number, line in ndjson.lines(file, lambda problem: None)
        if not is_utf_8(line)
    ]
    assert [(problem.file, problem.line) for problem in lines.problems.first] == wrong
    assert lines.problems.counts[NO_JSON] == len(wrong)


def is_utf_8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_the_recorded_sample_is_read_as_it_is():
    file = DATA / "traces.ndjson.gz"
    expected = gzip.decompress(file.read_bytes()).decode().splitlines()
    assert read(FileLines([file])) == [
        (str(file), number, line) for number, line in enumerate(expected, 1)
    ]


def test_blank_lines_are_no_lines_and_count_in_the_numbering(tmp_path):
    file = tmp_path / "blank"
    file.write_bytes(b"\n{}\n \t\r\n\x0b\x0c\n\n[]\n\n")
    assert [(number, line) for _, number, line in read(FileLines([file]))] == [(2, "{}"), (6, "[]")]


@pytest.mark.parametrize("content", [b"", b"\n", b" "])
def test_of_nothing_there_is_no_line(tmp_path, content):
    file = tmp_path / "nothing"
    file.write_bytes(content)
    assert read(FileLines([file, file])) == []


@given(st.integers(1, 10_000), BLOCKS)
def test_of_a_truncated_gzip_every_whole_line_is_read(tmp_path_factory, left, block_bytes):
    """And the rest is told, with the number of the line in which it begins; then the next file."""
    folder = tmp_path_factory.mktemp("cut")
    content = gzip.compress(b"".join(b'{"n": %d}\n' % (n * n) for n in range(5000)))
    cut, whole = folder / "cut", folder / "whole"
    cut.write_bytes(content[: max(2, len(content) - left)])
    whole.write_bytes(b"{}\n")
    lines = FileLines([cut, whole])
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(ndjson.blocks.__kwdefaults__, "block_bytes", block_bytes)
        told = read(lines)
    # A partial line may end with a truncated gzip; replay's reader keeps none either.
    assert told == as_replay_reads(cut, whole)
    (problem,) = lines.problems.first
    assert (problem.file, problem.line) == (str(cut), len(told))
    assert "the gzip stream is damaged; nothing after was read" in problem.what
    assert lines.problems.counts == {DAMAGED: 1}


def test_a_flipped_bit_of_a_gzip_is_told_and_the_lines_before_are_read(tmp_path):
    lines = [b'{"n": %d}\n' % (n * n * n) for n in range(100_000)]
    content = bytearray(gzip.compress(b"".join(lines)))
    content[len(content) // 2] ^= 0xFF
    file = tmp_path / "flipped"
    file.write_bytes(content)
    source = FileLines([file])
    told = read(source)
    assert len(told) >= len(lines) // 4
    (problem,) = source.problems.first
    assert problem.line == len(told) + 1
    # Up to the flipped bit it is right; from there on a gzip can give anything before it notices.
    quarter = len(lines) // 4
    assert [line.encode() + b"\n" for *_, line in told[:quarter]] == lines[:quarter]


def test_a_line_that_is_too_long_is_told_and_the_others_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(ndjson.blocks.__kwdefaults__, "max_line_bytes", 1 << 20)
    file = tmp_path / "long"
    long = b"[" * (4 << 20)
    file.write_bytes(b"\n".join([b"{}", long, b"[]", b"", long, b"3", long]))
    lines = FileLines([file, file])
    expected = [(str(file), 1, "{}"), (str(file), 3, "[]"), (str(file), 6, "3")]
    assert read(lines) == expected * 2
    assert [problem.line for problem in lines.problems.first] == [2, 5, 7] * 2
    assert "longer than 1,048,576 bytes" in lines.problems.first[0].what
    assert lines.problems.counts == {NO_JSON: 6}


@pytest.mark.parametrize("compressed", [False, True])
def test_standard_input_is_a_file(monkeypatch, compressed):
    content = b"{}\n\n[]"
    stdin = io.TextIOWrapper(io.BytesIO(gzip.compress(content) if compressed else content))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read(FileLines([Path("-")])) == [("-", 1, "{}"), ("-", 3, "[]")]
    assert not stdin.buffer.closed


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        read(FileLines([DATA / "traces.ndjson.gz", tmp_path / "missing"]))


def test_progress_comes_to_the_end_of_a_file(tmp_path, monkeypatch):
    in_blocks(monkeypatch, 1000, 1000)
    file = tmp_path / "file"
    file.write_bytes(b'{"a": 1}\n' * 1000)
    told: list[tuple[Path, int]] = []
    list(FileLines([file], lambda *progress: told.append(progress)).batches())
    assert len(told) > 5
    assert [bytes_read for _, bytes_read in told] == sorted(bytes_read for _, bytes_read in told)
    assert told[-1][0] == file
    assert told[-1][1] > 8000


def test_a_batch_is_the_memory_of_its_block(tmp_path):
    """Lines are not copied one by one: the arrays hold what was read."""
    file = tmp_path / "file"
    content = b'{"a": 1}\n' * 1000
    file.write_bytes(content)
    (batch,) = FileLines([file]).batches()
    _, _, text = batch["line"].buffers()
    assert text.to_pybytes() == content


def test_many_problems_are_counted_and_the_first_are_told_in_order():
    problems = Problems()
    for n in reversed(range(MAX_PROBLEMS + 10)):
        problems.note(NO_JSON, n, Problem("file", n + 1, "no JSON"))
    assert problems.counts == {NO_JSON: MAX_PROBLEMS + 10}
    assert [problem.line for problem in problems.first] == list(range(11, MAX_PROBLEMS + 11))


@pytest.mark.parametrize(
    "url",
    [
        "postgres:/user:secret@host/db",
        "postgresql://user:secret@host:port/db",
        "postgresql://user:secret@host/db?nonsense=1",
        "host=localhost password=secret nonsense",
        "postgresql://user:secret@[::1/db",
        "postgresql://user:secret@127.0.0.1:1/db",
        "postgresql://user:s%65cret@127.0.0.1:1/db",
        "host=127.0.0.1 port=1 user=me password=secret dbname=db",
    ],
)
def test_no_error_of_postgresql_shows_a_password(url):
    assert "secret" not in told_of(url)


@given(st.text("@/:?#%&=[] \\'é", max_size=4))
@example("@")
@example("/")
def test_a_password_that_was_not_encoded_is_not_shown_either(special):
    text = told_of(f"postgresql://user:secret{special}hidden@127.0.0.1:1/db")
    assert "secret" not in text
    assert "hidden" not in text


def test_a_password_is_not_shown_where_the_server_says_the_same_word():
    assert "Connection ***" in told_of("postgresql://user:refused@127.0.0.1:1/db")


def told_of(url: str) -> str:
    """What the error says of an address that leads nowhere."""
    with pytest.raises(SourceError) as raised:
        list(PostgresLines(url, date(2026, 11, 21)).batches())
    error = raised.value
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    return f"{error} {error.what} {error.remedy}"


def test_the_types_of_batches_are_what_duckdb_reads():
    assert SCHEMA.field("line").type == pa.string()
    assert SCHEMA.field("ordinal").type == pa.int64()
