"""A real PostgreSQL on a socket of its own, with the service's table of decision traces."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

JSON_COLUMNS = (
    "constraints",
    "effective_config",
    "bandit",
    "candidates_pre",
    "final_items",
    "mmr_info",
    "caps",
    "extras",
)
COLUMNS = {
    "decision_id": "uuid PRIMARY KEY",
    "org_id": "uuid",
    "ts": "timestamptz",
    "namespace": "text",
    "surface": "text",
    "request_id": "text",
    "user_hash": "text",
    "k": "int",
    **dict.fromkeys(JSON_COLUMNS, "jsonb"),
}
REC_DECISIONS = f"CREATE TABLE rec_decisions ({', '.join(map(' '.join, COLUMNS.items()))})"


class PostgresError(Exception):
    """What PostgreSQL says of a statement."""


class Database:
    """Statements in PostgreSQL's own client."""

    def __init__(self, programs: Path, socket: Path) -> None:
        self._command = [programs / "psql", "-h", socket, "-U", "postgres", "-Xqt"]
        self._socket = socket

    def url(self, database: str = "postgres") -> str:
        """The URL of a database, for other clients."""
        return f"postgresql://postgres@/{database}?host={self._socket}"

    def run(self, statement: str, rows: Iterable[str] = ()) -> list[str]:
        """The rows that it gives, as text.

        Args:
            statement: one or several.
            rows: for `COPY ... FROM STDIN`.

        Raises:
            PostgresError: it was refused.
        """
        done = subprocess.run(
            [*self._command, "-v", "ON_ERROR_STOP=1", "-A", "-c", statement],
            input="".join(rows),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PostgresError(done.stderr)
        return done.stdout.splitlines()

    def store(self, traces: Iterable[dict[str, Any]]) -> None:
        """Store decision traces as the service does."""
        self.run(REC_DECISIONS)
        self.run("COPY rec_decisions FROM STDIN", map(_row, traces))


def _row(trace: dict[str, Any]) -> str:
    return "\t".join(_field(trace, column) for column in COLUMNS) + "\n"


def _field(trace: dict[str, Any], column: str) -> str:
    if column not in trace:
        return r"\N"
    value = trace[column]
    text = json.dumps(value) if column in JSON_COLUMNS else str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


@contextmanager
def postgres() -> Iterator[Database]:
    """One that runs within the block; it does not as root, so then another user runs it."""
    programs = _programs()
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if user is not None:
            os.chown(folder, user, -1)

        def run(*command: str | Path) -> None:
            done = subprocess.run(
                command, user=user, cwd=folder, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr

        data = folder / "data"
        run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8")
        control: tuple[str | Path, ...] = (programs / "pg_ctl", "-D", data, "-w")
        # No port: a socket in the folder is enough.
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run(*control, "-l", folder / "log", "-o", options, "start")
        try:
            yield Database(programs, folder)
        finally:
            run(*control, "-m", "immediate", "stop")


def _programs() -> Path:
    """Where initdb is; Debian puts it aside the path."""
    found = shutil.which("initdb") or max(
        map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None
    )
    if found is None:
        pytest.fail("these tests need PostgreSQL: apt-get install postgresql")
    return Path(found).resolve().parent
