"""Errors that tell people what to do."""

from __future__ import annotations


class RemediedError(Exception):
    """Something went wrong, and can be mended.

    Args:
        what: is wrong, and where.
        remedy: what to do.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy
