"""What OpenTelemetry warns of, for commands that say it in words of their own.

::

    with listening() as remarks:
        provider.force_flush()
    print(cause_among(remarks))  # Failed to export metrics batch due to a ConnectionError...
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from otel_personalization.conventions import SCOPE_NAME


@dataclass(frozen=True)
class Remark:
    """What OpenTelemetry warned of."""

    text: str
    is_exporters: bool


@contextmanager
def listening() -> Iterator[list[Remark]]:
    """What is warned of meanwhile; neither that nor what we log is shown."""
    said: list[Remark] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {record.exc_info[1]}"  # where older exporters say why
            if record.name == _READS_HEADERS:
                for header in record.args or ():
                    text = text.replace(str(header), "(it is not shown)")
            said.append(Remark(text, record.name.startswith("opentelemetry.exporter.")))

    theirs, ours = logging.getLogger("opentelemetry"), logging.getLogger(SCOPE_NAME)
    handler = Listening(logging.WARNING)
    theirs.addHandler(handler)
    theirs.propagate, propagate = False, theirs.propagate
    # Not by a handler: ours are logged by threads, maybe after this.
    level = ours.level
    ours.setLevel(logging.CRITICAL)
    try:
        yield said
    finally:
        theirs.removeHandler(handler)
        theirs.propagate = propagate
        ours.setLevel(level)


def drop_late_ones() -> None:
    """Have what is warned of before and after `listening` dropped; Python would print it.

    An export that a shutdown cuts off is warned of after that, and the command has said by then
    what became of it.
    """
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())


def cause_among(remarks: Sequence[Remark]) -> Remark | None:
    """Why an export failed; None if nothing was said.

    Args:
        remarks: made while it was tried; those of before are no cause.
    """
    # The first of an export: the last is that retries are over.
    of_exporter = (remark for remark in remarks if remark.is_exporters)
    return next(of_exporter, next(iter(remarks), None))


_READS_HEADERS: Final = "opentelemetry.util.re"
"""The logger that repeats a header of OTEL_EXPORTER_OTLP_HEADERS, which may hold a key."""
