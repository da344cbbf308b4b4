"""URLs, whose names and passwords are sent, and never shown.

::

    without_credentials(f"{url} does not answer", url)  # https://host/ does not answer
    may_hold_password("postgresql:/me:secret@host/db")  # so it is not shown as a file's name
    is_http("localhost:9090")  # False
"""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote, urlsplit


def credentials_of(url: str) -> str:
    """What stands before the host of a URL; empty if nothing does.

    Whatever is before the last ``@`` is taken for it, so that a password in which a ``/`` was left
    as it is is none the less found.
    """
    return (url.partition("://")[2] or url).rpartition("@")[0]


def is_http(url: str) -> bool:
    """Whether HTTP can be spoken there: it names a host, and has nothing that is to be escaped."""
    if not re.fullmatch(r"https?://[!-~]+", url, re.IGNORECASE):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_postgresql(place: str) -> bool:
    """Whether it is the URL of a PostgreSQL."""
    return re.match(r"postgres(ql)?://", place, re.IGNORECASE) is not None


def may_hold_password(place: str) -> bool:
    """Whether what is to be a path is a URL, whatever its scheme, or names a password.

    Of the slashes after a scheme one is enough: of a `Path` there is but one.
    """
    return re.match(r"[^/]*:/|.*password\s*=", place, re.IGNORECASE | re.DOTALL) is not None


def without_credentials(text: str, url: str) -> str:
    """A text, such as the URL itself or what a client says of it, that can be shown."""
    credentials = credentials_of(url)
    return text.replace(f"{credentials}@", "") if credentials else text


def authorization_of(url: str) -> str:
    """The header ``Authorization`` for the name and password of a URL; empty if it has none."""
    name, _, password = credentials_of(url).partition(":")
    pair = f"{unquote(name)}:{unquote(password)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}" if name else ""
