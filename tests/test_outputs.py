"""Lines go out whole, to where they are meant to go, and what does not is told."""

from __future__ import annotations

import io
import os
import sys
import threading

import pytest

from otel_personalization.outputs import MAX_WRITE_BYTES, output_for
from tests.conftest import run_program

LINES = [f"{n}\n".encode() for n in range(5)]


def test_a_file_that_was_rotated_is_begun_anew(tmp_path):
    path, rotated = tmp_path / "log.ndjson", tmp_path / "log.ndjson.1"
    output = output_for(str(path))
    assert output.write(LINES[:2]) == (0, None)
    path.rename(rotated)
    assert output.write(LINES[2:4]) == (0, None)
    path.unlink()
    assert output.write(LINES[4:]) == (0, None)
    assert rotated.read_bytes() == b"0\n1\n"
    assert path.read_bytes() == b"4\n"


def test_a_file_that_was_truncated_is_written_from_its_start(tmp_path):
    """As logrotate does with copytruncate."""
    path = tmp_path / "log.ndjson"
    output = output_for(str(path))
    output.write(LINES[:2])
    os.truncate(path, 0)
    output.write(LINES[2:])
    assert path.read_bytes() == b"2\n3\n4\n"


def test_a_folder_that_is_gone_loses_lines_until_it_is_back(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    output = output_for(str(folder / "log.ndjson"))
    (folder / "log.ndjson").unlink()
    folder.rmdir()
    lost, error = output.write(LINES)
    assert (lost, type(error)) == (5, FileNotFoundError)
    folder.mkdir()
    assert output.write(LINES) == (0, None)
    assert (folder / "log.ndjson").read_bytes() == b"".join(LINES)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("file", "aaaa\ngggg\nhhhh\niiii\n"),
        ("rotated", "gggg\nhhhh\niiii\n"),
        ("stdout", "aaaa\nbbb\ngggg\nhhhh\niiii\n"),
        ("child", "aaaa\nbbb\ngggg\nhhhh\niiii\n"),
    ],
)
def test_a_line_that_a_full_disk_tore_is_lost_and_hurts_no_other(where, text, tmp_path):
    """On a file that cannot grow past a size. What is left of the line is taken back from a file of
    ours, and ended elsewhere, by whoever tore it.
    """
    done = run_program("full_disk", str(tmp_path / "log.ndjson"), where)
    assert done["lost"] == [3, 3, 0]  # of four lines, of three, of three
    assert done["text"] == text


def test_what_another_process_appended_is_not_taken_back(tmp_path):
    path = tmp_path / "log.ndjson"
    output = output_for(str(path))
    output.write([b"torn\n"])
    with path.open("ab") as other:
        other.write(b"other\n")
    assert output._take_back(3) is False
    assert path.read_bytes() == b"torn\nother\n"


def test_a_new_file_begins_with_a_line(tmp_path):
    path = tmp_path / "log.ndjson"
    output = output_for(str(path))
    output._torn_in = os.getpid()
    path.unlink()
    output.write(LINES)
    assert path.read_bytes() == b"".join(LINES)


def test_a_pipe_that_is_full_and_does_not_block_is_waited_for():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "wb") as stream, os.fdopen(reading, "rb") as reader:
        original, sys.stdout = sys.stdout, stream
        try:
            output = output_for("stdout")
        finally:
            sys.stdout = original
        lines = [b"x" * (MAX_WRITE_BYTES - 1) + b"\n"] * 100  # more than a pipe holds
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.append(output.write(lines)))
        thread.start()
        received = [reader.readline() for _ in lines]
        thread.join()
    assert (outcomes, received) == ([(0, None)], lines)


@pytest.mark.parametrize("number", [None, -1, True, "1"])
def test_a_stream_whose_descriptor_is_none_is_written_to(number, monkeypatch):
    """Such as the one that a task queue puts in the place of stdout."""

    class Stream(io.StringIO):
        def fileno(self):
            if number == "1":
                raise NotImplementedError
            return number

    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    assert output_for("stdout").write(LINES) == (0, None)
    assert stream.getvalue() == "0\n1\n2\n3\n4\n"


def test_a_descriptor_that_the_host_closes_is_not_written_to_when_it_is_another_s(tmp_path):
    """A redirected stdout is closed one day, and its number given to a socket."""
    with (tmp_path / "stdout").open("wb") as stream:
        original, sys.stdout = sys.stdout, stream
        try:
            output = output_for("stdout")
        finally:
            sys.stdout = original
        number = stream.fileno()
    database = os.open(tmp_path / "database", os.O_WRONLY | os.O_CREAT)
    if database != number:
        os.dup2(database, number)
    assert output.write(LINES) == (0, None)
    assert (tmp_path / "database").read_bytes() == b""
    assert (tmp_path / "stdout").read_bytes() == b"0\n1\n2\n3\n4\n"
    output.close()
    for descriptor in {database, number}:
        os.close(descriptor)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_without_a_descriptor_is_written_to(name, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, name, stream)
    assert output_for(name).write(LINES) == (0, None)
    assert stream.getvalue() == "0\n1\n2\n3\n4\n"
    stream.close()
    output = output_for(name)
    lost, error = output.write(LINES)
    assert (lost, type(error)) == (5, ValueError)


def test_a_stdout_that_was_closed_at_start_loses_lines(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    lost, error = output_for("stdout").write(LINES)
    assert (lost, type(error)) == (5, OSError)


def test_a_reader_that_went_away_loses_lines():
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        original, sys.stdout = sys.stdout, stream
        try:
            output = output_for("stdout")
        finally:
            sys.stdout = original
        os.close(reading)
        lost, error = output.write(LINES)
    assert (lost, type(error)) == (5, BrokenPipeError)
