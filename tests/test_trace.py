"""Reading a decision trace: the definitions, to the letter, on recorded and on hostile input."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
from collections import Counter
from datetime import datetime, timezone
from types import MappingProxyType, SimpleNamespace
from typing import Any

import attrs
import numpy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_personalization.conventions import MAX_CANDIDATES, MalformedReason
from otel_personalization.trace import TRACE_FIELDS, Decision, read_decision, read_timestamp
from tests.conftest import DATA, cells_of, read_ndjson, recording


def decision(**trace: Any) -> Decision:
    read = read_decision(trace)
    assert isinstance(read, Decision), read
    return read


def served(*items: Any, **extras: Any) -> Decision:
    return decision(final_items=list(items), extras=extras)


def items(*ids: Any) -> list[dict[str, Any]]:
    return [{"item_id": item_id} for item_id in ids]


def rows_of(traces: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for trace in traces:
        read = read_decision(trace)
        assert isinstance(read, Decision)
        timestamp = read_timestamp(trace)
        assert timestamp is not None
        rows.append(
            {
                **{k: v for k, v in read._asdict().items() if type(v) in (int, str)},
                "date": str(timestamp.date()),
                "decisions": 1,
                "empty_decisions": int(not read.served_items),
                "served_items_squared": read.served_items**2,
                "candidates": read.candidates,
            }
        )
    return rows


# --- recorded traces --------------------------------------------------------------------------


def test_the_sample_is_exact_in_every_cell(traces, truth):
    """Each count of each namespace, surface and UTC date equals the independent one."""
    keys = ("namespace", "surface", "date")
    assert cells_of(rows_of(traces), *keys) == cells_of(truth["cells"], *keys)


def test_the_sources_of_the_sample_are_exact_in_every_cell(traces, truth):
    """So does each source's."""
    rows = [
        {**row, "source": source, "decisions": 1, "empty_decisions": int(n == 0), "candidates": n}
        for row in rows_of(traces)
        for source, n in row["candidates"].items()
    ]
    keys = ("namespace", "surface", "date", "source")
    expected = cells_of(truth["sources"], *keys)
    found = cells_of(rows, *keys)
    assert {
        cell: {name: n for name, n in counts.items() if name in expected[cell]}
        for cell, counts in found.items()
    } == expected


def test_the_full_recording_is_exact_in_every_cell():
    """All 3,556 recorded traces agree with their truth, which another script counted."""
    names = {
        "decisions": "decisions",
        "decisions_empty": "empty_decisions",
        "served_items": "served_items",
        "personalized_served_items": "personalized_items",
        "items_with_reason_surfaced": "reason_items",
        "served_items_surfaced": "reason_requested_items",
    }
    truth = json.loads(recording("decision_traces.truth.json").read_text())
    expected: dict[tuple[str, ...], Counter[str]] = {}
    for row in truth["cells"]:
        cell = (row["namespace"].lower(), row["surface"].lower() or "default", row["date"])
        expected.setdefault(cell, Counter()).update(
            {ours: row[name] for name, ours in names.items()}
        )
    rows = rows_of(read_ndjson(recording("decision_traces.ndjson.gz")))
    found = cells_of(rows, "namespace", "surface", "date")
    assert len(rows) == 3556
    assert {
        cell: {name: counts[name] for name in names.values()} for cell, counts in found.items()
    } == expected


def differences(responses: list[Any], their_traces: list[Any]) -> Counter[str]:
    """In how many answers each count differs from that of the trace, by include_reasons."""
    found: Counter[str] = Counter()
    for response, trace in zip(responses, their_traces, strict=True):
        of_response, of_trace = read_decision(response), read_decision(trace)
        assert isinstance(of_response, Decision)
        assert isinstance(of_trace, Decision)
        assert of_response.candidates == {}
        asked = trace["extras"]["include_reasons"]
        for name in (
            "served_items",
            "personalized_items",
            "reason_items",
            "reason_requested_items",
            "cold_start_items",
        ):
            if getattr(of_response, name) != getattr(of_trace, name):
                found[f"{name}, reasons {'asked for' if asked else 'not asked for'}"] += 1
    return found


def test_responses_of_the_sample_count_as_their_traces(traces, truth):
    """An answer without reasons cannot say who was personalised, nor that none were asked for."""
    responses = read_ndjson(DATA / "responses.ndjson.gz")
    by_id = {trace["decision_id"]: trace for trace in traces}
    their_traces = [by_id[decision_id] for decision_id in truth["responses"]]
    assert len(responses) == 45
    assert differences(responses, their_traces) == {
        "reason_requested_items, reasons not asked for": 6,
        "personalized_items, reasons not asked for": 4,
    }


def test_responses_of_the_full_recording_count_as_their_traces():
    """150 recorded answers have their trace in the recording."""
    by_id = {
        trace["decision_id"]: trace for trace in read_ndjson(recording("decision_traces.ndjson.gz"))
    }
    answers = [
        answer
        for answer in read_ndjson(recording("http_responses.ndjson.gz"))
        if answer["decision_id"] in by_id
    ]
    assert len(answers) == 150
    assert differences(
        [answer["response"] for answer in answers],
        [by_id[answer["decision_id"]] for answer in answers],
    ) == {
        "reason_requested_items, reasons not asked for": 54,
        "personalized_items, reasons not asked for": 47,
    }


# --- served and personalised ------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [{}, {"final_items": None}, {"final_items": []}])
def test_absent_null_and_empty_items_are_an_empty_decision(nothing):
    assert decision(decision_id="d", **nothing).served_items == 0


def test_the_boosted_list_counts_served_members_only():
    """It lists candidates, most of which were never served."""
    read = served(*items("a", "b", "c"), personalized_items=["x", "b", "y", "a", "z"])
    assert read.personalized_items == 2


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_the_boosted_list_may_be_any_of_the_usual_collections(kind):
    assert served(*items("a", "b"), personalized_items=kind(["b"])).personalized_items == 1


def test_the_boosted_list_comes_before_flags_reasons_and_stamp():
    item = {"item_id": "a", "personalized": True, "reasons": ["personalization"]}
    read = served(item, personalized_items=[], personalized_items_count=1)
    assert read.personalized_items == 0


def test_flags_come_before_reasons_and_stamp():
    """One boolean flag makes the flags the evidence for every item."""
    flagged = [{"personalized": False}, {"reasons": ["personalization"]}, {"personalized": True}]
    assert served(*flagged, personalized_items_count=3).personalized_items == 1


def test_flags_that_all_say_no_are_evidence_of_none():
    read = served({"personalized": False, "reasons": ["personalization"]})
    assert read.personalized_items == 0


@pytest.mark.parametrize("flag", [1, "true", None, 0])
def test_a_flag_that_is_no_boolean_is_no_evidence(flag):
    read = served({"personalized": flag, "reasons": ["personalization"]})
    assert read.personalized_items == 1


def test_the_reason_personalization_is_evidence_even_where_reasons_are_not_surfaced():
    read = served({"reasons": ["personalization"]}, {"reasons": ["new"]}, include_reasons=False)
    assert (read.personalized_items, read.reason_items) == (1, 0)


def test_the_stamp_is_the_last_evidence():
    assert served(*items("a", "b"), personalized_items_count=2).personalized_items == 2


@pytest.mark.parametrize("stamp", [3, -1, True, "1", 1.0, None, float("nan"), 2**70])
def test_a_stamp_that_cannot_be_a_count_is_none(stamp):
    assert served(*items("a", "b"), personalized_items_count=stamp).personalized_items == 0


def test_ids_compare_as_text():
    """A service may list numbers where items carry strings, or the other way round."""
    assert served(*items(5, "6"), personalized_items=["5", 6]).personalized_items == 2
    assert served(*items("5", "6"), personalized_items=["x", 6]).personalized_items == 1
    assert served(*items(5, 6), personalized_items=["x", "6"]).personalized_items == 1
    assert served(*items(5.0), personalized_items=["5"]).personalized_items == 0
    for kind in (set, frozenset, tuple):
        assert served(*items("5"), personalized_items=kind([5])).personalized_items == 1
        assert served(*items(5), personalized_items=kind(["5"])).personalized_items == 1
        assert served(*items(5.0), personalized_items=kind([5])).personalized_items == 0
    assert served(*items(True), personalized_items=[1]).personalized_items == 0


def test_duplicate_ids_count_by_position():
    assert served(*items("a", "a", "b"), personalized_items=["a"]).personalized_items == 2


def test_an_item_without_id_is_not_the_boosted_id_none():
    assert served({}, personalized_items=[None, "None"]).personalized_items == 0


# --- reasons and cold start -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "counts"),
    [
        (["new"], 1),
        (["", "  ", "\t"], 0),
        (["  "], 0),
        (["", "new"], 1),
        ([" ", "new"], 1),
        ([], 0),
        (None, 0),
        ("new", 0),
        ([None, 3], 0),
        ([3, "new"], 1),
        (("new",), 1),
        ({"new": 1}, 0),
    ],
)
def test_a_reason_item_has_a_reason_that_is_not_blank(reasons, counts):
    assert served({"reasons": reasons}).reason_items == counts


@pytest.mark.parametrize(("include", "asked"), [(False, 0), (True, 1), (None, 1), (0, 1), ("", 1)])
def test_only_false_means_that_no_reasons_were_asked_for(include, asked):
    read = served({"reasons": ["new"]}, include_reasons=include)
    assert (read.reason_requested_items, read.reason_items) == (asked, asked)


def test_cold_start_items_are_those_with_the_surfaced_reason_or_the_flag():
    cold = [{"reasons": ["new", "cold_start"]}, {"cold_start": True}, {"cold_start": 1}, {}]
    assert served(*cold).cold_start_items == 2
    assert served(*cold, include_reasons=False).cold_start_items == 1


# --- labels and sources -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "namespace", "surface"),
    [
        (" Home ", "home", "home"),
        ("", "unknown", "default"),
        ("  ", "unknown", "default"),
        (None, "unknown", "default"),
        (7, "unknown", "default"),
        (["home"], "unknown", "default"),
    ],
)
def test_labels_are_trimmed_and_lower_cased(value, namespace, surface):
    read = decision(namespace=value, surface=value)
    assert (read.namespace, read.surface) == (namespace, surface)


def test_stages_are_no_sources():
    sources = {"merged": {"count": 4}, "popularity": {"count": 3}, "content": {"count": 0}}
    assert served(candidate_sources=sources).candidates == {"popularity": 3, "content": 0}
    trace = {"extras": {"candidate_sources": sources}}
    read = read_decision(trace, stages={"popularity"})
    assert isinstance(read, Decision)
    assert read.candidates == {"merged": 4, "content": 0}


@pytest.mark.parametrize(
    "count", [None, True, "3", 3.0, float("nan"), float("inf"), -1, 2**70, MAX_CANDIDATES + 1, {}]
)
def test_a_source_whose_count_is_none_is_absent_and_not_empty(count):
    assert served(candidate_sources={"content": {"count": count}}).candidates == {}


@pytest.mark.parametrize("sources", [None, [], "x", 3, {"content": 3}, {"": {"count": 1}}, {3: {}}])
def test_odd_sources_are_absent(sources):
    assert served(candidate_sources=sources).candidates == {}


# --- responses --------------------------------------------------------------------------------


def test_a_response_body_is_read_in_place_of_a_trace():
    read = decision(items=[{"item_id": "a", "reasons": ["personalization"]}, {}], surface="home")
    assert (read.served_items, read.personalized_items, read.from_response) == (2, 1, True)


@pytest.mark.parametrize("key", ["final_items", "decision_id"])
def test_a_trace_that_has_items_too_is_no_response(key):
    read = decision(items=items("a"), **{key: None})
    assert (read.served_items, read.from_response) == (0, False)


def test_a_response_has_no_extras():
    read = decision(items=items("a"), extras={"personalized_items": ["a"]})
    assert read.personalized_items == 0


# --- objects ----------------------------------------------------------------------------------

NESTED = {
    "decision_id": "d",
    "namespace": "Shop",
    "surface": "Home",
    "final_items": [
        {"item_id": "a", "score": 1.0, "reasons": ["personalization", "cold_start"]},
        {"item_id": "b", "score": 0.5},
    ],
    "extras": {
        "include_reasons": True,
        "personalized_items": ["b", "z"],
        "candidate_sources": {"content": {"count": 0}, "popularity": {"count": 9}},
    },
}
EXPECTED = Decision("shop", "home", 2, 1, 1, 2, 1, {"content": 0, "popularity": 9}, False)


class PydanticTrace(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    namespace: str
    surface: str
    final_items: list[PydanticItem]
    extras: PydanticExtras


class PydanticItem(pydantic.BaseModel):
    item_id: str
    reasons: list[str] | None = None


class PydanticExtras(pydantic.BaseModel):
    include_reasons: bool
    personalized_items: set[str]
    candidate_sources: dict[str, dict[str, int]]


@attrs.define
class AttrsTrace:
    namespace: str
    surface: str
    final_items: tuple[Any, ...]
    extras: Any


@dataclasses.dataclass(frozen=True)
class DataclassTrace:
    namespace: str
    surface: str
    final_items: Any
    extras: Any


@dataclasses.dataclass(slots=True)
class DataclassExtras:
    include_reasons: bool
    personalized_items: Any
    candidate_sources: Any


def as_namespace(value: Any) -> Any:
    """The same, dicts made objects."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: as_namespace(part) for key, part in value.items()})
    return [as_namespace(part) for part in value] if isinstance(value, list) else value


FIELDS = {key: NESTED[key] for key in ("namespace", "surface", "final_items", "extras")}


@pytest.mark.parametrize(
    "trace",
    [
        NESTED,
        MappingProxyType(NESTED),
        as_namespace(NESTED),
        PydanticTrace(**NESTED),
        AttrsTrace(**FIELDS),
        DataclassTrace(**FIELDS),
        DataclassTrace(**{**FIELDS, "extras": DataclassExtras(**NESTED["extras"])}),
        {**NESTED, "final_items": as_namespace(NESTED["final_items"])},
        {**NESTED, "extras": MappingProxyType(NESTED["extras"])},
        {**NESTED, "extras": as_namespace(NESTED["extras"])},
    ],
    ids=lambda trace: type(trace).__name__,
)
def test_a_trace_may_be_a_mapping_or_an_object_nested_either_way(trace):
    assert read_decision(trace) == EXPECTED


@attrs.define
class AttrsSources:
    popularity: Any


@dataclasses.dataclass(slots=True)
class SlottedSources:
    popularity: Any


class ExtraSources(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class RootSources(pydantic.RootModel[dict[str, Any]]):
    pass


@pytest.mark.parametrize(
    "sources",
    [
        AttrsSources({"count": 3}),
        SlottedSources({"count": 3}),
        ExtraSources(popularity={"count": 3}),
        RootSources({"popularity": {"count": 3}}),
        SimpleNamespace(popularity=SimpleNamespace(count=3)),
    ],
    ids=lambda sources: type(sources).__name__,
)
def test_sources_may_be_an_object_of_any_kind(sources):
    assert served(candidate_sources=sources).candidates == {"popularity": 3}


def test_integers_of_numpy_are_counts():
    read = served({}, candidate_sources={"content": {"count": numpy.int64(3)}})
    assert read.candidates == {"content": 3}
    assert type(read.candidates["content"]) is int


def test_the_trace_is_left_as_it_was():
    trace = copy.deepcopy(NESTED)
    read_decision(trace)
    assert trace == NESTED


# --- what is no trace -------------------------------------------------------------------------


def test_a_list_that_shrinks_while_it_is_read_is_counted_as_it_was():
    """As where another thread goes on with it: no part is above its whole."""

    class Shrinks(str):
        __slots__ = ()

        def __hash__(self) -> int:
            served_items.clear()
            return super().__hash__()

    served_items = items(Shrinks("a"), Shrinks("b"))
    read = decision(final_items=served_items, extras={"personalized_items": ["a", "b"]})
    assert not served_items
    assert (read.served_items, read.personalized_items) == (2, 2)


class Raises:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class RaisingProperty:
    extras: Any = None

    @property
    def final_items(self) -> Any:
        raise RuntimeError


async def coroutine() -> None: ...


@pytest.mark.parametrize(
    "trace",
    [None, [], (), "trace", b"trace", 3, 1.5, True, {1}, object, len, json, iter([]), [{}]],
    ids=lambda one: type(one).__name__,
)
def test_what_is_no_mapping_and_no_object_is_no_trace(trace):
    assert read_decision(trace) is MalformedReason.NOT_A_TRACE


@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
@pytest.mark.parametrize(
    "fields", [{}, {"code": "bad_request", "message": "k is no number"}, {"ts": "2026-01-01"}]
)
def test_what_has_no_field_of_a_trace_is_no_trace(kind, fields):
    assert read_decision(kind(**fields)) is MalformedReason.NOT_A_TRACE


@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
@pytest.mark.parametrize("name", TRACE_FIELDS)
def test_one_field_of_a_trace_makes_a_trace(kind, name):
    value: Any = [] if name in {"final_items", "items"} else "x"
    assert isinstance(read_decision(kind(**{name: value})), Decision)


@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
def test_a_trace_whose_fields_are_all_null_is_an_empty_decision(kind):
    for fields in ({"final_items": None, "extras": None}, {"items": None}, {"namespace": None}):
        read = read_decision(kind(**fields))
        assert isinstance(read, Decision)
        assert read.served_items == 0


@pytest.mark.parametrize(
    ("trace", "counted"),
    [
        ({"final_items": [{"item_id": "a", "personalized": numpy.True_}]}, "personalized_items"),
        ({"final_items": [{"item_id": "a", "cold_start": numpy.True_}]}, "cold_start_items"),
    ],
)
def test_a_flag_of_numpy_is_a_flag(trace, counted):
    assert getattr(decision(**trace), counted) == 1


def test_a_false_flag_of_numpy_is_false():
    read = served({"item_id": "a", "reasons": ["new"]}, include_reasons=numpy.False_)
    assert (read.reason_items, read.reason_requested_items) == (0, 0)
    assert served({"item_id": "a", "personalized": numpy.False_}).personalized_items == 0


@pytest.mark.parametrize("flag", [1, "true", [], numpy.array([True])])
def test_what_is_no_flag_is_absent(flag):
    read = served(
        {"item_id": "a", "personalized": flag, "cold_start": flag, "reasons": ["personalization"]},
        include_reasons=flag,
    )
    assert (read.personalized_items, read.cold_start_items, read.reason_items) == (1, 0, 1)


class Source(str, enum.Enum):
    COLLABORATIVE = "collaborative"


def test_a_source_that_is_an_enumeration_is_its_text():
    (source,) = served(candidate_sources={Source.COLLABORATIVE: {"count": 3}}).candidates
    assert type(source) is str
    assert source == "collaborative"


def test_a_coroutine_that_nobody_awaited_is_no_trace():
    forgotten = coroutine()
    assert read_decision(forgotten) is MalformedReason.NOT_A_TRACE
    forgotten.close()


@pytest.mark.parametrize("final_items", ["ab", 3, {"a": {}}, {1}, b"ab", True, iter([])])
def test_items_that_are_no_list_make_a_trace_malformed(final_items):
    assert read_decision({"final_items": final_items}) is MalformedReason.ITEMS_NOT_A_LIST
    assert read_decision({"items": final_items}) is MalformedReason.ITEMS_NOT_A_LIST


@pytest.mark.parametrize("item", [None, "a", 3, [], True, ("a",)])
def test_an_item_that_is_no_object_makes_a_trace_malformed(item):
    malformed = {"final_items": [{"item_id": "a"}, item]}
    assert read_decision(malformed) is MalformedReason.ITEM_NOT_AN_OBJECT


def test_a_property_that_raises_on_the_way_to_the_items_makes_a_trace_malformed():
    assert read_decision(RaisingProperty()) is MalformedReason.UNREADABLE
    assert read_decision(Raises()) is MalformedReason.UNREADABLE


@pytest.mark.parametrize("error", [ValueError, KeyError, RecursionError, StopIteration])
def test_a_list_that_does_not_let_itself_be_read_makes_a_trace_malformed(error):
    class Unreadable(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise error

    assert read_decision({"final_items": Unreadable([{}])}) is MalformedReason.UNREADABLE


def test_a_property_that_raises_elsewhere_is_an_absent_one():
    trace = SimpleNamespace(final_items=[Raises()], extras=Raises())
    assert read_decision(trace) == Decision("unknown", "default", 1, 0, 0, 1, 0, {}, False)


@pytest.mark.parametrize("odd", [[], "x", 3, True, float("nan"), 2**70], ids=repr)
def test_any_other_field_of_a_wrong_type_is_an_absent_one(odd):
    trace = {"final_items": [{"item_id": odd, "reasons": odd}], "namespace": odd, "extras": odd}
    read = read_decision(trace)
    assert isinstance(read, Decision)
    assert (read.served_items, read.personalized_items, read.reason_items) == (1, 0, 0)


# --- properties -------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "final_items",
        "items",
        "extras",
        "item_id",
        "reasons",
        "personalized",
        "cold_start",
        "a",
        "include_reasons",
        "personalized_items",
        "personalized_items_count",
        "candidate_sources",
        "namespace",
        "surface",
        "count",
        "personalization",
        "content",
        " ",
        "\ud800",
    ]
)


class Bomb:
    """An object of whose protocols any may raise, of any exception."""

    def __init__(self, error: type[Exception]) -> None:
        object.__setattr__(self, "error", error)

    def __getattribute__(self, name: str) -> Any:
        if name in {"__class__", "__await__"}:
            return object.__getattribute__(self, name)
        raise object.__getattribute__(self, "error")(name)

    def raises(self, *_: Any) -> Any:
        raise object.__getattribute__(self, "error")

    __eq__ = __hash__ = __str__ = __repr__ = __bool__ = __len__ = __iter__ = raises
    __index__ = __contains__ = __getitem__ = raises


class BombList(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        raise ValueError

    def __len__(self) -> int:
        raise OverflowError


class BombDict(dict):  # type: ignore[type-arg]
    def get(self, *_: Any) -> Any:
        raise LookupError

    def __contains__(self, _: Any) -> bool:
        raise TypeError


ERRORS = st.sampled_from([RuntimeError, AttributeError, KeyError, RecursionError, StopIteration])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | WORDS
    | st.text()
    | st.binary()
    | ERRORS.map(Bomb)
    | st.just(BombList([{}]))
    | st.just(BombDict(final_items=[]))
)


def nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    dicts = st.dictionaries(WORDS, children, max_size=8)
    lists = st.lists(children, max_size=4)
    return (
        dicts
        | lists
        | lists.map(tuple)
        | dicts.map(lambda d: SimpleNamespace(**{k: v for k, v in d.items() if k.isidentifier()}))
        | dicts.map(MappingProxyType)
    )


ANYTHING = st.recursive(LEAVES, nested, max_leaves=30)
TRACES = st.fixed_dictionaries(
    {
        "final_items": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "item_id": ANYTHING,
                    "reasons": st.lists(WORDS) | ANYTHING,
                    "personalized": st.booleans() | ANYTHING,
                    "cold_start": st.booleans() | ANYTHING,
                },
            )
        )
    },
    optional={
        "namespace": ANYTHING,
        "surface": ANYTHING,
        "extras": st.fixed_dictionaries(
            {},
            optional={
                "include_reasons": st.booleans() | ANYTHING,
                "personalized_items": st.lists(WORDS) | ANYTHING,
                "personalized_items_count": st.integers() | ANYTHING,
                "candidate_sources": st.dictionaries(
                    WORDS, st.fixed_dictionaries({"count": st.integers() | ANYTHING})
                )
                | ANYTHING,
            },
        )
        | ANYTHING,
    },
)


@given(ANYTHING | TRACES)
def test_whatever_comes_in_counts_come_out_or_a_reason(trace):
    """Never an exception, never a negative, never more than served."""
    read = read_decision(trace)
    if isinstance(read, MalformedReason):
        return
    assert type(read) is Decision
    for name in (
        "personalized_items",
        "reason_items",
        "reason_requested_items",
        "cold_start_items",
    ):
        assert type(getattr(read, name)) is int
        assert 0 <= getattr(read, name) <= read.served_items
    assert read.reason_items <= read.reason_requested_items
    for source, count in read.candidates.items():
        assert isinstance(source, str)
        assert type(count) is int
        assert 0 <= count <= MAX_CANDIDATES
    for label in (read.namespace, read.surface):
        assert label
        assert label == label.strip().lower()


@given(TRACES)
def test_objects_count_as_the_mappings_that_they_are(trace):
    """The path of odd input and the path of plain input agree."""
    as_mapping = MappingProxyType(
        {**trace, "final_items": [MappingProxyType(item) for item in trace["final_items"]]}
    )
    assert read_decision(as_mapping) == read_decision(trace)


def cyclic(kind: str) -> Any:
    trace: Any = {"namespace": "shop"}
    if kind == "itself":
        trace["final_items"] = [trace]
    elif kind == "extras":
        trace["extras"] = trace
    elif kind == "reasons":
        reasons: list[Any] = []
        reasons.append(reasons)
        trace["final_items"] = [{"reasons": reasons, "item_id": reasons}]
    else:
        trace = SimpleNamespace()
        trace.final_items, trace.extras = [trace], trace
        trace.candidate_sources = trace.personalized_items = trace
    return trace


@pytest.mark.parametrize("kind", ["itself", "extras", "reasons", "object"])
def test_a_cycle_ends(kind):
    assert isinstance(read_decision(cyclic(kind)), Decision)


def test_a_huge_trace_is_counted():
    read = served(*items(*range(100_000)), personalized_items=[str(n) for n in range(50_000)])
    assert (read.served_items, read.personalized_items) == (100_000, 50_000)


# --- timestamps -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ts", "instant"),
    [
        ("2026-11-23T22:47:41.316743Z", (2026, 11, 23, 22, 47, 41, 316743)),
        ("2026-11-24T00:47:41.316+02:00", (2026, 11, 23, 22, 47, 41, 316000)),
        ("2026-11-23T22:47:41Z", (2026, 11, 23, 22, 47, 41, 0)),
        ("2026-11-23 22:47:41", (2026, 11, 23, 22, 47, 41, 0)),
        ("2026-11-24 00:47:41.5+02", (2026, 11, 23, 22, 47, 41, 500000)),
        ("2026-11-23T17:17:41-0530", (2026, 11, 23, 22, 47, 41, 0)),
        ("2026-11-23T22:47:41.123456789Z", (2026, 11, 23, 22, 47, 41, 123456)),
    ],
)
def test_a_timestamp_is_an_instant_whatever_its_offset(ts, instant):
    assert read_timestamp({"ts": ts}) == datetime(*instant, tzinfo=timezone.utc)


def test_a_datetime_is_a_timestamp():
    naive = datetime(2026, 11, 23, 22)  # noqa: DTZ001  # one without an offset is meant
    assert read_timestamp(SimpleNamespace(ts=naive)) == naive.replace(tzinfo=timezone.utc)


def test_a_datetime_of_a_kind_of_its_own_is_read_by_its_fields():
    class Local(datetime):
        def isoformat(self, *_args, **_kwargs):
            return "NaT"

    class NotATime(Local):
        year = float("nan")

    when = (2026, 11, 23, 22, 1, 2, 3)
    read = read_timestamp({"ts": Local(*when)})
    assert (type(read), read) == (datetime, datetime(*when, tzinfo=timezone.utc))
    assert read_timestamp({"ts": NotATime(*when)}) is None


@given(ANYTHING)
def test_what_is_no_timestamp_is_none(ts):
    assert read_timestamp({"ts": ts}) is None or isinstance(ts, str)
    assert read_timestamp(ts) is None or isinstance(ts, SimpleNamespace)


@pytest.mark.parametrize("ts", ["2026-02-30T00:00:00Z", "yesterday", "0001-01-01T00:00:00+02:00"])
def test_an_impossible_timestamp_is_none(ts):
    assert read_timestamp({"ts": ts}) is None


def test_sources_that_grow_as_they_are_read_are_read():
    sources: dict[str, Any] = {}

    class Grows:
        @property
        def count(self) -> int:
            sources["late"] = {"count": 1}
            return 3

    sources["popularity"] = Grows()
    assert served(candidate_sources=sources).candidates["popularity"] == 3
