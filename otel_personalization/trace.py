"""Reads one decision trace: what was served, personalised, explained and cold.

Pure: no I/O, nothing kept, the trace left as it is. Total: whatever comes in, a `Decision` or a
`MalformedReason` comes out, and no exception::

    >>> read_decision({"surface": "Home", "final_items": [{"item_id": "a", "reasons": ["new"]}]})
    Decision(namespace='unknown', surface='home', served_items=1, personalized_items=0, ...)

A trace is a mapping, or an object with attributes (dataclass, pydantic, attrs, anything), nested
either way. The HTTP answer of the service, ``{"items": [...]}``, is read like a trace.

How the code is laid out: `_read` counts *plain* input, which is what JSON gives: dicts, lists and
strings. What is not plain is first turned into plain parts by the ``_plain_*`` functions, where
everything odd is dealt with, each odd part becoming an absent one.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, time, timezone
from types import AsyncGeneratorType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any, Final, NamedTuple
from uuid import UUID

from otel_personalization.conventions import (
    COLD_START_REASON,
    DEFAULT_STAGES,
    DEFAULT_SURFACE,
    MAX_CANDIDATES,
    MAX_LABEL_LENGTH,
    MAX_LOG_VALUE_LENGTH,
    MAX_LOGGED_SOURCES,
    PERSONALIZATION_REASON,
    STAMPED_PERSONALIZED,
    UNKNOWN_NAMESPACE,
    MalformedReason,
)


class Decision(NamedTuple):
    """The counts of one finalised decision. All are non-negative ints, none above `served_items`
    but the candidates.
    """

    namespace: str
    """Trimmed and lower-cased; ``unknown`` where the trace has none."""
    surface: str
    """Trimmed and lower-cased; ``default`` where the trace has none."""
    served_items: int
    personalized_items: int
    reason_items: int
    """Served items with a non-blank reason, unless the caller declined reasons."""
    reason_requested_items: int
    """Served items, unless the caller declined reasons: `extras.include_reasons` is not false."""
    cold_start_items: int
    candidates: dict[str, int]
    """Number of candidates by source. A source that took part and found none is there with 0."""
    from_response: bool
    """Read from a response body, which has nowhere to put a stamp."""


class Identity(NamedTuple):
    """What tells one decision from another, as values that are safe to keep: nothing of the trace
    that can change, and no text much longer than `MAX_LOG_VALUE_LENGTH`.
    """

    decision_id: str | None
    request_id: str | None
    timestamp: str | datetime | None
    """As it stands in the trace; `instant_of` reads it."""
    k: int | None
    experiment: str | None
    variant: str | None
    user_hash: str | None


class SourceTiming(NamedTuple):
    """A candidate source or stage of a decision, as values that are safe to keep."""

    source: str
    candidates: int
    duration_ms: float | None
    """Milliseconds; finite."""


def read_decision(
    trace: object, stages: Collection[str] = DEFAULT_STAGES
) -> Decision | MalformedReason:
    """Count what a decision trace, or a response body, served.

    Args:
        trace: anything.
        stages: keys of ``extras.candidate_sources`` that are no sources.

    Returns:
        The counts, or why there are none.
    """
    try:
        return _read(trace, stages)
    except Exception:
        return MalformedReason.UNREADABLE


def read_identity(trace: object) -> Identity:
    """Read what tells a decision from another. What is absent, or of an odd type, is None.

    Args:
        trace: one that `read_decision` could count.
    """
    fields: Any = trace
    if type(fields) is not dict:
        fields = _plain_fields(fields, _IDENTITY_FIELDS)
    get = fields.get
    extras = get("extras")
    if type(extras) is not dict:
        extras = _plain_fields(extras, _EXPERIMENT_FIELDS)
    bandit = get("bandit")
    if bandit is None:
        bandit = {}
    elif type(bandit) is not dict:
        bandit = _plain_fields(bandit, ("experiment", "variant"))
    timestamp = get("ts")
    k = get("k")
    return Identity(
        _short_text(get("decision_id")),
        _short_text(get("request_id")),
        timestamp if isinstance(timestamp, datetime) else _short_text(timestamp),
        count_of(k),
        _short_text(extras.get("bandit_experiment")) or _short_text(bandit.get("experiment")),
        _short_text(extras.get("experiment_variant"))
        or _short_text(extras.get("bandit_variant"))
        or _short_text(bandit.get("variant")),
        _short_text(get("user_hash")),
    )


def read_source_timings(trace: object) -> tuple[SourceTiming, ...]:
    """Count and duration of each source and stage of ``extras.candidate_sources``.

    Args:
        trace: one that `read_decision` could count.

    Returns:
        At most `MAX_LOGGED_SOURCES` of those that have a count.
    """
    extras = _plain_fields(_plain_fields(trace, ("extras",)).get("extras"), ("candidate_sources",))
    timings: list[SourceTiming] = []
    for source, entry in _plain_mapping(extras.get("candidate_sources")).items():
        fields = _plain_fields(entry, ("count", "duration_ms"))
        name, count = _short_text(source), count_of(fields.get("count"))
        if name and count is not None and len(timings) < MAX_LOGGED_SOURCES:
            timings.append(SourceTiming(name, count, _finite(fields.get("duration_ms"))))
    return tuple(timings)


def read_timestamp(trace: object) -> datetime | None:
    """The instant of a trace's ``ts`` in UTC; None where it has no readable one."""
    return instant_of(_plain_fields(trace, ("ts",)).get("ts"))


def instant_of(value: object) -> datetime | None:
    """A timestamp in UTC; None where it is none.

    It is a datetime, or text as of RFC 3339 or as PostgreSQL writes a timestamptz. One without an
    offset is taken as UTC. Digits past the microsecond are cut.
    """
    try:
        if isinstance(value, datetime):
            instant = value
        elif isinstance(value, str) and (match := _RFC_3339.fullmatch(value.strip())):
            seconds, fraction, sign, hours, minutes = match.groups()
            offset = f"{sign}{hours}:{minutes or '00'}" if sign else "+00:00"
            instant = datetime.fromisoformat(f"{seconds}.{(fraction or '0')[:6]:0<6}{offset}")
        else:
            return None
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=timezone.utc)
        utc = instant.astimezone(timezone.utc)
        if type(utc) is datetime:
            return utc
        # Of a kind of its own, such as "not a time", of which nothing is an integer.
        return datetime.combine(
            date(utc.year, utc.month, utc.day),
            time(utc.hour, utc.minute, utc.second, utc.microsecond, timezone.utc),
        )
    except Exception:  # no such instant, or an object that raises
        return None


def namespace_of(value: object) -> str:
    """A namespace as it is counted: trimmed, lower-cased, ``unknown`` where there is none."""
    return _plain_label(value) or UNKNOWN_NAMESPACE


def surface_of(value: object) -> str:
    """A surface as it is counted: trimmed, lower-cased, ``default`` where there is none."""
    return _plain_label(value) or DEFAULT_SURFACE


def fits_label(value: str) -> bool:
    """Whether a label value is short enough, and text that OTLP can carry (no lone surrogate)."""
    if len(value) > MAX_LABEL_LENGTH:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def count_of(value: object, largest: int = MAX_CANDIDATES) -> int | None:
    """A count as an int of 0..largest (an integer of numpy is one, a bool or a float is none)."""
    if isinstance(value, bool):
        return None
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except Exception:
        return None
    return count if 0 <= count <= largest else None


_RFC_3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII,
)


# --- counting plain input ---------------------------------------------------------------------


def _read(trace: Any, stages: Collection[str]) -> Decision | MalformedReason:
    if type(trace) is not dict:
        trace = _plain_trace(trace)
        if isinstance(trace, MalformedReason):
            return trace
    get = trace.get

    items = get("final_items")
    extras: dict[str, Any] = {}
    from_response = False
    if items is None:
        if not any(name in trace for name in TRACE_FIELDS):
            return MalformedReason.NOT_A_TRACE
        from_response = _is_response(trace)
    if from_response:
        items = get("items")
    else:
        extras = get("extras")
        if type(extras) is not dict:
            extras = _plain_fields(extras, _EXTRAS_FIELDS)
    if items is None:
        items = ()
    elif type(items) is list:
        items = items[:]  # of one that another thread shortens, parts would exceed the whole
    elif type(items) is not tuple:
        if not isinstance(items, (list, tuple)):
            return MalformedReason.ITEMS_NOT_A_LIST
        items = list(items)

    asked = extras.get("include_reasons")
    reasons_surfaced = asked is None or asked is True or _flag(asked) is not False
    boosted = extras.get("personalized_items")
    if type(boosted) is frozenset:
        boosted = set(boosted)  # below, a frozenset is one of ids that were made text
    elif type(boosted) is not list and not isinstance(boosted, (list, tuple, set, frozenset)):
        boosted = None
    try:
        counts = _count_items(items, boosted, reasons_surfaced)
    except Exception:  # _NotPlainError, or what an odd id or reason raises when hashed or compared
        items = [_plain_item(item) for item in items]
        if None in items:
            return MalformedReason.ITEM_NOT_AN_OBJECT
        boosted = None if boosted is None else _plain_ids(boosted)
        counts = _count_items(items, boosted, reasons_surfaced)
    personalized_items, reason_items, cold_start_items = counts

    served_items = len(items)
    if personalized_items is None:
        stamped = count_of(extras.get(STAMPED_PERSONALIZED), served_items)
        personalized_items = 0 if stamped is None else stamped

    candidates = {}
    sources = extras.get("candidate_sources")
    if sources is not None:
        if type(sources) is not dict:
            sources = _plain_mapping(sources)
        try:
            candidates = _count_candidates(sources.items(), stages)
        except RuntimeError:  # it grew meanwhile; to copy it each time takes 7 % of the reading
            candidates = _count_candidates(list(sources.items()), stages)

    namespace = get("namespace")
    surface = get("surface")
    return Decision._make(  # faster than a call with as many arguments
        (
            (namespace.strip().lower() if type(namespace) is str else "")
            or namespace_of(namespace),
            (surface.strip().lower() if type(surface) is str else "") or surface_of(surface),
            served_items,
            personalized_items,
            reason_items,
            served_items if reasons_surfaced else 0,
            cold_start_items,
            candidates,
            from_response,
        )
    )


def _count_candidates(
    sources: Iterable[tuple[Any, Any]], stages: Collection[str]
) -> dict[str, int]:
    """Candidates by source, of those that have a name and a count."""
    candidates = {}
    for source, entry in sources:
        if source in stages:
            continue
        if type(entry) is not dict:
            entry = _plain_fields(entry, ("count",))
        count = entry.get("count")
        if type(count) is not int or not 0 <= count <= MAX_CANDIDATES:
            count = count_of(count)
        if type(source) is not str:
            if not isinstance(source, str):
                continue
            # An enumeration would be exported by its name, or by its value.
            source = str.__str__(source)
        if count is not None and source:
            candidates[source] = count
    return candidates


def _is_response(trace: Mapping[str, Any]) -> bool:
    return "items" in trace and "final_items" not in trace and "decision_id" not in trace


class _NotPlainError(Exception):
    """An item, or a part of it, is not what JSON gives."""


def _count_items(
    items: Any, boosted: Collection[Any] | None, reasons_surfaced: bool
) -> tuple[int | None, int, int]:
    """Personalised items (None without evidence), reason items and cold-start items.

    Args:
        items: a list or tuple of dicts.
        boosted: ``extras.personalized_items``; None where it is no evidence.
        reasons_surfaced: whether the items' reasons count.

    Raises:
        Exception: where an item has no id where one is needed, or anything that JSON does not
            give; of whatever kind, for odd ids and reasons may raise when hashed or compared.
    """
    reason_items = cold_start_items = 0
    for item in items:
        if type(item) is not dict:
            raise _NotPlainError
        cold = False
        if "cold_start" in item:
            cold = item["cold_start"]
            if type(cold) is not bool:
                if cold is not None:
                    raise _NotPlainError
                cold = False
        if reasons_surfaced and "reasons" in item:
            reasons = item["reasons"]
            if type(reasons) is not list:
                if reasons is not None:
                    raise _NotPlainError
            elif reasons:
                first = reasons[0]
                if type(first) is str and first.strip():  # as a rule
                    reason_items += 1
                else:
                    reason_items += _has_text(reasons)
                cold = cold or COLD_START_REASON in reasons
        if cold:
            cold_start_items += 1
    if boosted is None:
        return _count_marks(items), reason_items, cold_start_items
    if items and boosted:
        return (
            _count_members([item["item_id"] for item in items], boosted),
            reason_items,
            cold_start_items,
        )
    return 0, reason_items, cold_start_items


def _has_text(reasons: list[Any]) -> bool:
    for reason in reasons:
        if type(reason) is not str:
            raise _NotPlainError
        if reason.strip():
            return True
    return False


def _count_marks(items: Any) -> int | None:
    """Items flagged as personalised; without any flag, those with the reason; None if none."""
    flags = flagged = with_reason = 0
    for item in items:
        flag = item.get("personalized")
        if flag is not None:
            if type(flag) is not bool:
                raise _NotPlainError
            flags += 1
            flagged += flag
        reasons = item.get("reasons")
        if reasons is not None:
            if type(reasons) is not list:
                raise _NotPlainError
            with_reason += PERSONALIZATION_REASON in reasons
    if flags:
        return flagged
    return with_reason or None


def _count_members(ids: list[Any], boosted: Collection[Any]) -> int:
    """How many of the served ids are among the boosted ones; a repeated id counts each time."""
    if type(boosted) is frozenset:  # of plain ids
        return sum(item_id in boosted for item_id in ids)
    distinct = set(ids)
    # The boosted ids are many and most were never served: looking each of them up among the
    # served ones, in C, beats building a set of them.
    members = distinct.intersection(boosted)
    # Ids compare as text: 5 is "5", but not 5.0. Nothing tells faster than joining them that all
    # are text. A boosted 5 that is meant for "5" can only have been missed where some id was.
    try:
        "".join(ids)
        if len(members) < len(distinct):
            "".join(boosted)
    except TypeError:
        raise _NotPlainError from None
    if len(distinct) == len(ids):
        return len(members)
    return sum(item_id in members for item_id in ids)


# --- making odd input plain -------------------------------------------------------------------

TRACE_FIELDS: Final = ("final_items", "items", "decision_id", "extras", "namespace", "surface")
"""What has none of them is no trace."""
_IDENTITY_FIELDS: Final = ("decision_id", "request_id", "ts", "k", "extras", "bandit", "user_hash")
_EXPERIMENT_FIELDS: Final = ("bandit_experiment", "experiment_variant", "bandit_variant")
_EXTRAS_FIELDS: Final = (
    "include_reasons",
    "personalized_items",
    STAMPED_PERSONALIZED,
    "candidate_sources",
)
_ITEM_FIELDS: Final = ("item_id", "personalized", "cold_start", "reasons")

_FIELDLESS: Final = (
    *(type(None), str, bytes, bytearray, memoryview, int, float, complex),
    *(list, tuple, set, frozenset, range, type, ModuleType),
    *(FunctionType, MethodType, GeneratorType, AsyncGeneratorType, type(len)),
)
"""What has attributes in Python, but none that anybody means as the fields of a trace."""

_UNREADABLE: Final = object()
"""Stands for a field that raised when it was read: of no type that any field may have."""


def _field_reader(owner: object) -> Callable[[str], Any] | None:
    """A function from a field's name to its value, None where absent; None where it has no fields.

    The function raises nothing: a field that raises is `_UNREADABLE`.
    """
    get: Callable[[str], Any]
    if isinstance(owner, Mapping):
        get = owner.get
    elif (isinstance(owner, _FIELDLESS) and not hasattr(type(owner), "_fields")) or hasattr(
        type(owner), "__await__"
    ):
        return None
    else:

        def get(name: str) -> Any:
            return getattr(owner, name, None)

    def read(name: str) -> Any:
        try:
            return get(name)
        except Exception:
            return _UNREADABLE

    return read


def _plain_trace(trace: Any) -> dict[str, Any] | MalformedReason:
    read = _field_reader(trace)
    if read is None:
        return MalformedReason.NOT_A_TRACE
    plain = {}
    for name in TRACE_FIELDS:
        value = read(name)
        # An object's `items` is a method as a rule, and an absent attribute is None here.
        is_there = name in trace if isinstance(trace, Mapping) else value is not None
        if is_there and not (name == "items" and callable(value)):
            plain[name] = value
    if not plain and not isinstance(trace, Mapping):  # nor has it any, or they are all None
        fields = (name for name in TRACE_FIELDS if hasattr(trace, name))
        plain = {name: None for name in fields if not callable(getattr(trace, name))}
    if plain.get("items" if _is_response(plain) else "final_items") is _UNREADABLE:
        return MalformedReason.UNREADABLE
    return plain


def _plain_fields(owner: object, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of its named fields that are there, as a dict."""
    read = _field_reader(owner)
    return {} if read is None else {name: read(name) for name in names}


def _plain_mapping(value: object) -> dict[Any, Any]:
    """A mapping, or an object's attributes, as a dict; empty where it is neither."""
    try:
        if isinstance(value, Mapping):
            return dict(value)
        if not isinstance(value, _FIELDLESS):
            root = getattr(value, "root", None)  # of a pydantic.RootModel
            if isinstance(root, Mapping) and hasattr(type(value), "model_fields"):
                return dict(root)
            names = [
                *getattr(value, "__dict__", ()),
                *(name for kind in type(value).__mro__ for name in _slots(kind)),
                *(getattr(value, "__pydantic_extra__", None) or ()),
            ]
            return {name: getattr(value, name, None) for name in names if name[:2] != "__"}
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return dict(value._asdict())
    except Exception:  # no attributes, or one that raises: as if absent
        pass
    return {}


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _plain_item(item: object) -> dict[str, Any] | None:
    read = _field_reader(item)
    if read is None:
        return None
    plain = {name: read(name) for name in _ITEM_FIELDS}
    plain["item_id"] = _id_text(plain["item_id"])
    plain["personalized"] = _flag(plain["personalized"])
    plain["cold_start"] = _flag(plain["cold_start"])
    reasons = plain["reasons"]
    try:
        listed = list(reasons) if isinstance(reasons, (list, tuple, set, frozenset)) else []
    except Exception:
        listed = []
    plain["reasons"] = [str.__str__(reason) for reason in listed if isinstance(reason, str)]
    return plain


def _flag(value: object) -> bool | None:
    """A flag as a bool, which one of numpy is not; None where it can be none."""
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    return bool(value) if kind.__module__ == "numpy" and kind.__name__ in _NUMPY_BOOLS else None


_NUMPY_BOOLS: Final = ("bool", "bool_")
"""The name of its one kind of flag, since numpy 2 and before."""


def _plain_ids(ids: Collection[Any]) -> frozenset[str]:
    try:
        return frozenset(text for item_id in ids if (text := _id_text(item_id)) is not None)
    except Exception:  # a list that does not let itself be read
        return frozenset()


def _id_text(item_id: object) -> str | None:
    """An item id as the text by which ids compare; None where it can be none."""
    if item_id is None or isinstance(item_id, (Mapping, list, tuple, set, frozenset)):
        return None
    try:
        return str.__str__(item_id) if isinstance(item_id, str) else str(item_id)
    except Exception:
        return None


def _short_text(value: object) -> str | None:
    """An id or a name as text that is safe to keep; None where it can be none.

    What is longer than the limit stays one character longer, so that it can be seen to be.
    """
    if value is None:
        return None
    if type(value) is not str:
        if isinstance(value, (bool, float)) or not isinstance(value, (str, int, UUID)):
            return None
        value = _id_text(value)
        if value is None:
            return None
    return value if len(value) <= MAX_LOG_VALUE_LENGTH else value[: MAX_LOG_VALUE_LENGTH + 1]


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except Exception:  # an integer that is too large
        return None
    return number if math.isfinite(number) else None


def _plain_label(value: object) -> str:
    return str.lower(str.strip(value)) if isinstance(value, str) else ""
