"""Where log lines go: to a file descriptor, a file that others rotate, or a stream without one.

Lines are written whole, past Python's buffers: a buffer would keep what a full disk refused, write
it at another time, and fail when the host exits.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from otel_personalization.settings import NONE, STDERR, STDOUT

MAX_WRITE_BYTES: Final = getattr(select, "PIPE_BUF", 512)
"""Of several processes that share a pipe, writes of up to so many bytes do not mix (POSIX)."""


class Outcome(NamedTuple):
    """What became of lines."""

    lost: int
    error: Exception | None
    """Why."""


class Output(Protocol):
    """Takes lines, from one thread."""

    def write(self, lines: Sequence[bytes]) -> Outcome:
        """Write lines, each with its newline. It may take as long as whoever reads them."""

    def forget(self) -> int:
        """Drop what is left of a line that was written in part; says how many lines that is."""

    def close(self) -> None:
        """Take no more lines. What is not ours stays open."""


def output_for(log: str) -> Output | None:
    """The output that `settings.Settings.log` names; None for ``none``.

    Raises:
        OSError: the file cannot be opened.
    """
    if log == NONE:
        return None
    if log not in (STDOUT, STDERR):
        return _File(Path(log))
    stream = sys.stdout if log == STDOUT else sys.stderr
    if stream is None:  # closed before Python started
        return _Descriptor(-1)
    try:
        return _Descriptor(stream.fileno())
    except (OSError, ValueError, AttributeError):  # a notebook's, or a test's
        return _Stream(stream)


class _Descriptor:
    """An open file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        """Of a line that was written in part: it comes first, when there is room again."""

    def write(self, lines: Sequence[bytes]) -> Outcome:
        data = self._rest + b"".join(lines)
        unfinished = len(lines) + bool(self._rest)
        written, error = self._write_bytes(data)
        unfinished -= data.count(b"\n", 0, written)
        if written and data[written - 1 : written] != b"\n":
            self._rest = data[written : data.index(b"\n", written) + 1]
        elif written or not self._rest:
            self._rest = b""
        return Outcome(unfinished - bool(self._rest), error)

    def forget(self) -> int:
        lines, self._rest = int(bool(self._rest)), b""
        return lines

    def close(self) -> None:
        self.forget()

    def _write_bytes(self, data: bytes) -> tuple[int, OSError | None]:
        written = 0
        while written < len(data):
            try:
                written += os.write(self._descriptor, data[written:])
            except BlockingIOError:  # somebody made it non-blocking
                poll = select.poll()  # select() knows no descriptors past 1,023
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError as error:
                return written, error
        return written, None


class _File(_Descriptor):
    """A file, appended to. When it is renamed or removed, as by logrotate, a new one is begun."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(self._open())

    def write(self, lines: Sequence[bytes]) -> Outcome:
        lost = 0
        try:
            if not self._is_current():
                descriptor = self._open()
                os.close(self._descriptor)
                self._descriptor = descriptor
                lost = self.forget()
        except OSError as error:
            return Outcome(len(lines), error)
        outcome = super().write(lines)
        return outcome._replace(lost=outcome.lost + lost)

    def close(self) -> None:
        super().close()
        os.close(self._descriptor)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _open(self) -> int:
        # Non-blocking, for a named pipe that nobody reads would hold up the host's start.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            return os.open(self._path, flags, 0o666)
        except OSError as error:
            if error.errno == errno.ENXIO:
                error.strerror = "nobody reads this pipe"
            raise


class _Stream:
    """A stream of text that has no file descriptor."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, lines: Sequence[bytes]) -> Outcome:
        try:
            self._stream.write(b"".join(lines).decode())
            self._stream.flush()
        except Exception as error:
            return Outcome(len(lines), error)
        return Outcome(0, None)

    def forget(self) -> int:
        return 0

    def close(self) -> None:
        return
