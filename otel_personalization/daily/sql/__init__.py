"""The statements of the nightly job: a file each, named for what it makes."""

from __future__ import annotations

from importlib.resources import files


def text_of(name: str) -> str:
    """The text of a statement."""
    return files(__package__).joinpath(f"{name}.sql").read_text("utf-8")
