"""What a line of the log says of a decision, and how it is written.

::

    formatter = LineFormatter()
    for fields in fields_of(entry, sample_rate=1.0, with_user_hash=False):
        formatter.line(fields)  # {"timestamp": "2026-11-24T10:00:00.123456Z", ...}
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from typing import Any, Final, NamedTuple

from opentelemetry import trace as tracing
from pythonjsonlogger.json import JsonFormatter

from otel_personalization.conventions import (
    DECISION_EVENT,
    DECISION_LOGGER,
    LOG_SCHEMA_VERSION,
    MAX_LABEL_LENGTH,
    MAX_LOG_LINE_BYTES,
    MAX_LOG_VALUE_LENGTH,
    MAX_LOGGED_SOURCES,
    SOURCE_EVENT,
)
from otel_personalization.trace import Decision, Identity, SourceTiming, instant_of

_TIGHT_LENGTH: Final = 32
_TIGHT_SOURCES: Final = 16
"""With texts and sources cut to these a line cannot reach the limit: a character takes 12 bytes at
most, so seven texts 2.7 KB and the sources 6.4 KB."""
_CUT_MARK: Final = "…"


class Entry(NamedTuple):
    """What is handed to the writer: values that nobody changes, of bounded size."""

    time_ns: int
    decision: Decision
    identity: Identity
    span: tracing.SpanContext
    sources: tuple[SourceTiming, ...]

    @property
    def lines(self) -> int:
        """How many lines it makes."""
        return 1 + len(self.sources)


def bounded(decision: Decision) -> Decision:
    """A decision with texts and sources at most one longer than they may be, which shows it."""
    namespace, surface, candidates = decision.namespace, decision.surface, decision.candidates
    if (
        len(namespace) <= MAX_LOG_VALUE_LENGTH
        and len(surface) <= MAX_LOG_VALUE_LENGTH
        and len(candidates) <= MAX_LOGGED_SOURCES
        and len("".join(candidates)) <= MAX_LOGGED_SOURCES * MAX_LABEL_LENGTH
    ):
        return decision
    some = islice(candidates.items(), MAX_LOGGED_SOURCES + 1)
    return decision._replace(
        namespace=namespace[: MAX_LOG_VALUE_LENGTH + 1],
        surface=surface[: MAX_LOG_VALUE_LENGTH + 1],
        candidates={name[: MAX_LOG_VALUE_LENGTH + 1]: count for name, count in some},
    )


def fields_of(entry: Entry, sample_rate: float, with_user_hash: bool) -> Iterator[dict[str, Any]]:
    """The fields of each line of an entry: of the decision, then of its sources.

    Args:
        entry: what is told of.
        sample_rate: share of decisions that are logged, above 0 and at most 1.
        with_user_hash: whether the line of the decision says whose it is.
    """
    _, decision, identity, span, sources = entry
    seconds, nanoseconds = divmod(entry.time_ns, 1_000_000_000)
    made = datetime.fromtimestamp(seconds, timezone.utc).replace(microsecond=nanoseconds // 1000)
    about = {
        "timestamp": _instant_text(made),
        "event": DECISION_EVENT,
        "schema_version": LOG_SCHEMA_VERSION,
        "namespace": decision.namespace,
        "surface": decision.surface,
        "decision_id": identity.decision_id,
        "k": identity.k,
        "sample_rate": sample_rate,
        "trace_id": tracing.format_trace_id(span.trace_id) if span.is_valid else None,
        "span_id": tracing.format_span_id(span.span_id) if span.is_valid else None,
    }
    of_decision = about | {
        "decision_ts": _instant_text(instant_of(identity.timestamp)),
        "request_id": identity.request_id,
        "served_items_count": decision.served_items,
        "personalized_items_count": decision.personalized_items,
        "reason_items_count": decision.reason_items,
        "reason_requested_items_count": decision.reason_requested_items,
        "cold_start_items_count": decision.cold_start_items,
        "candidate_sources": decision.candidates,
        "experiment": identity.experiment,
        "variant": identity.variant,
    }
    if with_user_hash:
        of_decision["user_hash"] = identity.user_hash
    _cut(of_decision, MAX_LOG_VALUE_LENGTH, MAX_LOGGED_SOURCES)
    yield of_decision
    for timing in sources:
        of_source = about | {
            "event": SOURCE_EVENT,
            "source": timing.source,
            "count": timing.candidates,
            "duration_ms": timing.duration_ms,
        }
        _cut(of_source, MAX_LOG_VALUE_LENGTH, 0)
        yield of_source


def _instant_text(instant: datetime | None) -> str | None:
    """An instant in UTC as RFC 3339."""
    if instant is None:
        return None
    return instant.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _cut(fields: dict[str, Any], length: int, sources: int) -> None:
    """Cut what is too long, say so in ``cut``, and make the rest text that UTF-8 can carry."""
    cut = set()
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = _carried(value, length)
            if len(value) > length:
                cut.add(name)
        elif isinstance(value, dict):
            fields[name] = {
                _carried(source, length): count for source, count in islice(value.items(), sources)
            }
            if len(fields[name]) < len(value) or any(len(source) > length for source in value):
                cut.add(name)
    if cut:
        fields["cut"] = sorted(cut)


def _carried(text: str, length: int) -> str:
    """A text as a line has it: cut where it is longer, and such that UTF-8 can carry it."""
    if len(text) > length:
        text = text[: length - len(_CUT_MARK)] + _CUT_MARK
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class LineFormatter:
    """Writes fields as one line of JSON, at most `MAX_LOG_LINE_BYTES` long."""

    def __init__(self) -> None:
        self._formatter = JsonFormatter(
            "%(levelname)s %(name)s",
            rename_fields={"levelname": "level", "name": "logger"},
            json_encoder=json.JSONEncoder,
        )

    def line(self, fields: dict[str, Any]) -> str:
        """A line without its end, of ASCII; what is too long for it is cut in the fields, too."""
        # Not the logger's way to make a record: fields that the host adds to its records, to all of
        # them, are not in the contract.
        record = logging.LogRecord(DECISION_LOGGER, logging.INFO, "", 0, fields, (), None)
        line = self._formatter.format(record)
        if len(line) >= MAX_LOG_LINE_BYTES:
            _cut(fields, _TIGHT_LENGTH, _TIGHT_SOURCES)
            line = self._formatter.format(record)
        return line
