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
_STANDARD: Final = (1, 2)


class Written(NamedTuple):
    """What became of lines."""

    lost: int
    error: Exception | None
    """Why."""


class Output(Protocol):
    """Takes lines, from one thread."""

    def write(self, lines: Sequence[bytes]) -> Written:
        """Write lines, each with its newline. It may take as long as whoever reads them."""

    def close(self) -> None:
        """Take no more lines. What is not ours stays open."""


def output_for(log: str) -> Output | None:
    """The output that `settings.Settings.log` names; None for ``none``.

    Raises:
        OSError, ValueError: the file cannot be opened.
    """
    if log == NONE:
        return None
    if log not in (STDOUT, STDERR):
        return _File(Path(log))
    stream = sys.stdout if log == STDOUT else sys.stderr
    if stream is None:  # closed before Python started
        return _Descriptor(-1)
    try:
        descriptor: object = stream.fileno()
    except Exception:  # a notebook's, a task queue's, a test's
        descriptor = None
    if type(descriptor) is not int or descriptor < 0:
        return _Stream(stream)
    # Servers redirect the standard ones under their numbers. Any other may be closed one day, and
    # its number given to a socket.
    return _Descriptor(descriptor) if descriptor in _STANDARD else _Own(os.dup(descriptor))


class _Descriptor:
    """An open file descriptor of the host's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn_in = 0
        """Process in which a write ended within a line: what follows begins a new one."""

    def write(self, lines: Sequence[bytes]) -> Written:
        if self._torn_in == os.getpid():
            _, error = self._write_bytes(b"\n")
            if error is not None:
                return Written(len(lines), error)
        self._torn_in = 0
        data = b"".join(lines)
        written, error = self._write_bytes(data)
        rest_of_line = written - (data.rfind(b"\n", 0, written) + 1)
        if rest_of_line and not self._take_back(rest_of_line):
            self._torn_in = os.getpid()
        return Written(len(lines) - data.count(b"\n", 0, written), error)

    def close(self) -> None:
        return

    def _take_back(self, _size: int) -> bool:
        """Take back the last bytes that were written, if that can be done."""
        return False

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


class _Own(_Descriptor):
    """A file descriptor of our own, for as long as the host leaves it to us.

    A daemon closes all that are open, and its next socket may be given the same number.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._file = os.fstat(descriptor)

    def write(self, lines: Sequence[bytes]) -> Written:
        if not self._is_ours():
            error = OSError(errno.EBADF, "somebody closed the descriptor of these lines")
            return Written(len(lines), error)
        return super().write(lines)

    def close(self) -> None:
        if self._is_ours():
            os.close(self._descriptor)

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._file)
        except OSError:
            return False


class _File(_Own):
    """A file, appended to. When it is renamed or removed, as by logrotate, a new one is begun."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(self._open())

    def write(self, lines: Sequence[bytes]) -> Written:
        try:
            if not self._is_current():
                # Asked first: a new one may be given the number of one that somebody closed.
                is_ours, old = self._is_ours(), self._descriptor
                self._descriptor = self._open()
                self._file = os.fstat(self._descriptor)
                self._torn_in = 0
                if is_ours:
                    os.close(old)
        except OSError as error:
            return Written(len(lines), error)
        return super().write(lines)

    def _take_back(self, size: int) -> bool:
        # On a full disk. Another process's line after ours would be destroyed by what is left here.
        try:
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if os.fstat(self._descriptor).st_size != end:
                return False
            os.ftruncate(self._descriptor, end - size)
        except OSError:  # no regular file
            return False
        return True

    def _is_current(self) -> bool:
        try:
            return self._is_ours() and os.path.samestat(self._path.stat(), self._file)
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

    def write(self, lines: Sequence[bytes]) -> Written:
        try:
            self._stream.write(b"".join(lines).decode())
            self._stream.flush()
        except Exception as error:
            return Written(len(lines), error)
        return Written(0, None)

    def close(self) -> None:
        return
