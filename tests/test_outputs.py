"""Lines go out whole, to where they are meant to go, and what does not is told."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path

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
        with redirect_stdout(stream):
            output = output_for("stdout")
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
        with redirect_stdout(stream):
            output = output_for("stdout")
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


def test_a_number_that_a_daemon_gave_to_another_file_is_neither_written_to_nor_closed(tmp_path):
    """It closes every descriptor; a file of lines is begun anew, and a stream cannot be."""
    with (tmp_path / "stdout").open("wb") as stream, redirect_stdout(stream):
        outputs = {"file": output_for(str(tmp_path / "log")), "stream": output_for("stdout")}
    (tmp_path / "database").touch()
    for name, output in outputs.items():
        number = output._descriptor
        os.close(number)
        database = os.open(tmp_path / "database", os.O_RDWR)
        if database != number:
            os.dup2(database, number)
        lost, error = output.write(LINES)
        assert (lost, error is None) == ((0, True) if name == "file" else (5, False))
        output.close()
        for descriptor in {database, number}:
            os.close(descriptor)  # which fails where it is closed already
    assert (tmp_path / "database").read_bytes() == b""
    assert (tmp_path / "log").read_bytes() == b"0\n1\n2\n3\n4\n"


def test_lines_go_on_after_a_daemon_closed_every_descriptor(tmp_path):
    output = output_for(str(tmp_path / "log"))
    os.close(output._descriptor)
    assert output.write(LINES) == (0, None)
    output.close()
    with (tmp_path / "stdout").open("wb") as stream, redirect_stdout(stream):
        output = output_for("stdout")
    os.close(output._descriptor)
    lost, error = output.write(LINES)
    assert lost == 5
    assert "somebody closed" in str(error)
    output.close()
    assert (tmp_path / "log").read_bytes() == b"0\n1\n2\n3\n4\n"


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
        with redirect_stdout(stream):
            output = output_for("stdout")
        os.close(reading)
        lost, error = output.write(LINES)
    assert (lost, type(error)) == (5, BrokenPipeError)


def test_a_service_that_prints_as_the_guide_says_writes_each_line_at_once():
    """A socket of datagrams keeps writes apart."""
    guide = (Path(__file__).parents[1] / "docs/guide/logs.md").read_text("utf-8")
    advice = "sys.stdout.reconfigure(line_buffering=True, write_through=False)"
    assert f"`{advice}`" in guide
    for program, writes in ((advice, [b"a line\n"]), ("", [b"a line", b"\n"])):
        ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
        with ours, theirs:
            subprocess.run(
                [sys.executable, "-c", f"import sys\n{program}\nprint('a line')"],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=theirs,
                check=True,
            )
            ours.setblocking(False)
            assert [ours.recv(100) for _ in writes] == writes
            with pytest.raises(BlockingIOError):
                ours.recv(100)
