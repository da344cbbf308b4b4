"""What commands have in common: exit codes, errors, progress, files that are whole or not there."""

from __future__ import annotations

import errno
import gzip
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Final, NoReturn
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from otel_personalization.ndjson import Problem
from otel_personalization.urls import is_http

FAILED: Final = 1
"""Exit code: a file could not be read, or a server did not answer."""
NO_TRACES: Final = 2
"""Exit code: there is no decision trace, or the command was wrong."""
SOME_NOT_COUNTED: Final = 3
"""Exit code: it is done, but for some lines that could not be counted."""

SHOWN_PROBLEMS: Final = 20


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End with a message."""
    typer.echo(f"otel-personalization: {message}", err=True)
    raise typer.Exit(code)


def told(error: OSError) -> str:
    """What went wrong, with the file where there is one."""
    return f"{error.filename or 'error'}: {error.strerror or error}"


def url_such_as(example: str) -> Callable[[str | None], str | None]:
    """Checks whether an option is a URL. It is not repeated: it may hold a password."""

    def check(url: str | None) -> str | None:
        if url is None:
            return None
        if not is_http(url):
            raise typer.BadParameter(f"it takes a URL, such as {example}")
        if "@" in url.partition(urlsplit(url).netloc)[2]:
            raise typer.BadParameter(
                "in a password, write / as %2F, ? as %3F, # as %23 and @ as %40"
            )
        return url

    return check


@contextmanager
def writing(asked: Path | str, *unfinished: Path) -> Iterator[None]:
    """Errors of writing name the file as it was asked for, and say what to do.

    Those of other files, such as one within a folder that was asked for, stay as they are.

    Args:
        asked: the file, or what else it is called.
        unfinished: what it is called until it is whole.
    """
    names = {str(path) for path in (asked, *unfinished)}
    try:
        yield
    except OSError as error:
        # Those name no file, and others that name none may be of files that are read meanwhile.
        is_of_writing = error.filename is None and error.errno in (*_FULL, errno.EPIPE)
        if not is_of_writing and str(error.filename) not in names:
            raise
        raise _unwritable(error, asked) from None


_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _unwritable(error: OSError, asked: Path | str) -> OSError:
    if error.errno in _FULL:
        remedy = "make room there, or name another place, and run it again"
    elif error.errno == errno.EPIPE:
        said = "what read it has ended; write to a file, and run it again"
        return OSError(error.errno, said, str(asked))
    elif error.errno == errno.ENOENT:
        remedy = f"make the folder {Path(asked).parent}, and run it again"
    else:
        remedy = "see that it may be written there, or name another place, and run it again"
    said = os.strerror(error.errno) if error.errno else str(error)  # Arrow words it at length
    return OSError(error.errno, f"{said}; {remedy}", str(asked))


@contextmanager
def printing() -> Iterator[None]:
    """Where standard output is full, the command ends, and says what to do."""
    try:
        with writing("standard output"):
            yield
    except OSError as error:
        if error.filename is None or error.errno == errno.EPIPE:  # of a reader who went away
            raise
        fail(told(error))


def show_problems(problems: Sequence[Problem], count: int) -> None:
    """Tell the first problems, and how many more there are."""
    for problem in problems[:SHOWN_PROBLEMS]:
        typer.echo(str(problem), err=True)
    if count > SHOWN_PROBLEMS:
        typer.echo(f"... and {count - SHOWN_PROBLEMS:,} more", err=True)


@contextmanager
def working() -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """Says on a terminal what is being done, until that is over; nothing elsewhere."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda _what: None, lambda: None
        return
    status = console.status("")

    def tell(what: str) -> None:
        status.update(what)
        status.start()

    try:
        yield tell, status.stop
    finally:
        status.stop()


@contextmanager
def whole_file(path: Path | None) -> Iterator[IO[str] | None]:
    """A file that takes its name only when it is whole."""
    if path is None:
        yield None
        return
    asked, path = path, path.resolve()  # a link stays one
    opened = gzip.open if path.suffix == ".gz" else open
    if path.exists() and not path.is_file():  # a pipe or a device, which is to stay one
        with writing(asked, path), opened(path, "wt", encoding="utf-8") as stream:
            yield stream
        return
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as whole:
            unfinished = Path(whole.name)
    except OSError as error:
        raise _unwritable(error, asked) from None
    try:
        with writing(asked, path, unfinished):
            with opened(unfinished, "wt", encoding="utf-8") as stream:
                yield stream
            unfinished.chmod(0o666 & ~_umask())
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def progress_of(files: Sequence[Path]) -> Iterator[Callable[[Path, int], None] | None]:
    """A progress bar on a terminal, and none elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {
            file: bar.add_task(str(file), total=file.stat().st_size if file.is_file() else None)
            for file in files
        }
        yield lambda file, position: bar.update(tasks[file], completed=position)
