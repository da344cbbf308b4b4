"""Connects to a PostgreSQL, and says of it what may be shown: no name and no password.

::

    server = PostgresUrl("postgresql://NAME:PASSWORD@HOST:PORT/DATABASE")
    try:
        connection = server.connect("otel-personalization daily")
    except psycopg.Error as error:
        print(f"{server.place}: {server.shown(error)}")
"""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from otel_personalization.errors import RemediedError
from otel_personalization.urls import credentials_of, is_postgresql

CONNECT_SECONDS: Final = 10


class UnreadableUrlError(RemediedError):
    """The URL of a PostgreSQL cannot be read. No text of it shows any of it."""


class PostgresUrl:
    """Where a PostgreSQL is. What its client says can show parts of the URL, and is not passed on.

    Args:
        url: ``postgresql://NAME:PASSWORD@HOST:PORT/DATABASE``, or what else libpq takes.

    Raises:
        UnreadableUrlError: it cannot be read.
    """

    def __init__(self, url: str) -> None:
        if is_postgresql(url):  # whose scheme libpq knows in small letters only
            scheme, separator, rest = url.partition("://")
            url = scheme.lower() + separator + rest
        parameters = _parameters(url)
        if parameters is None:
            raise UnreadableUrlError(
                "the URL of PostgreSQL cannot be read (it may hold a password, and is not shown)",
                "write postgresql://NAME:PASSWORD@HOST:PORT/DATABASE, with / ? # @ % and spaces in "
                "name and password as %2F %3F %23 %40 %25 %20",
            )
        host = parameters.get("host") or parameters.get("hostaddr") or "its usual socket"
        port, database = parameters.get("port"), parameters.get("dbname")
        self.place = f"PostgreSQL at {host}" + (f":{port}" if port else "")
        self.place += f", database {database}" if database else ""
        self._url = url
        self._parameters = parameters
        encoded = credentials_of(url).partition(":")[2]
        secrets = (encoded, *(parameters.get(name) for name in ("password", "sslpassword")))
        self._secrets = [str(secret) for secret in secrets if secret]

    def connect(self, application: str, **options: Any) -> psycopg.Connection[Any]:
        """Connect to it.

        Args:
            application: name by which the server knows it, where the URL has none.
            options: further ones of ``psycopg.connect``.

        Raises:
            psycopg.Error: it cannot be reached, or lets nobody in; see `shown`.
        """
        defaults = {"connect_timeout": CONNECT_SECONDS, "application_name": application}
        options |= {name: of for name, of in defaults.items() if name not in self._parameters}
        return psycopg.connect(self._url, **options)

    def shown(self, error: psycopg.Error) -> str:
        """What the server says, or else the client, on one line and without credentials."""
        told = error.diag  # without the line of the statement, which str(error) has
        parts = (told.message_primary, told.message_detail, told.message_hint)
        said = " ".join(part for part in parts if part) or str(error)
        for secret in self._secrets:
            said = said.replace(secret, "***")
        if user := self._parameters.get("user"):
            said = re.sub(rf'(user|role) "{re.escape(str(user))}"', r"the \1 of the URL", said)
        return " ".join(said.split())


def _parameters(url: str) -> dict[str, Any] | None:
    """What a URL says; None if it cannot be read."""
    # Of an @ or a / in a password libpq makes a host or a port, and shows those.
    if re.search(r"[/?#@\s]", credentials_of(url)):
        return None
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.Error:
        return None
    # Where there is no host, what is meant for a password is the port.
    return parameters if re.fullmatch(r"[\d,]*", str(parameters.get("port", ""))) else None
