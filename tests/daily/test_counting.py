"""What is counted outside of the statements: first items of lists, and what sources found."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from otel_personalization.daily.measures import first_distinct
from otel_personalization.daily.sources import Place, count_sources

BATCH = pa.schema(
    [
        ("cell", pa.int32()),
        ("sources", pa.list_(pa.struct([("source", pa.string()), ("candidates", pa.int64())]))),
    ]
)
few = st.sampled_from(["a", "b", "c", "é"])


@given(
    st.lists(st.lists(st.one_of(st.none(), st.sampled_from("abcdef")), max_size=8), max_size=8),
    st.integers(1, 4),
)
def test_the_first_distinct_items_of_each_list_are_kept_in_their_order(lists, k):
    items = pa.array(lists, pa.list_(pa.string()))
    found = first_distinct(items, k).to_pylist()
    expected = [[*dict.fromkeys(item for item in of if item is not None)][:k] for of in lists]
    names = {}
    for numbers, wanted in zip(found, expected, strict=True):
        assert len(numbers) == len(wanted)
        for number, item in zip(numbers, wanted, strict=True):
            assert names.setdefault(number, item) == item
    assert len(set(names.values())) == len(names)


@given(
    st.lists(st.tuples(few, few, st.dictionaries(few, st.integers(0, 2), max_size=3)), max_size=40),
    st.integers(1, 7),
)
def test_a_streak_goes_on_over_batches_and_skips_decisions_without_the_source(decisions, rows):
    counts: dict[Place, list[int]] = {}
    for namespace, surface, sources in decisions:
        for source, candidates in sources.items():
            for place in (Place(namespace, surface, source), Place(namespace, "all", source)):
                counts.setdefault(place, []).append(candidates)
    cells = sorted({(namespace, surface) for namespace, surface, _ in decisions})
    batches = [
        pa.RecordBatch.from_pylist(
            [
                {
                    "cell": 1 + cells.index((namespace, surface)),
                    "sources": [{"source": s, "candidates": n} for s, n in sources.items()],
                }
                for namespace, surface, sources in decisions[at : at + rows]
            ],
            BATCH,
        )
        for at in range(0, len(decisions), rows)
    ]
    found = count_sources(
        batches,
        pa.table(
            {
                "cell": pa.array(range(1, 1 + len(cells)), pa.int32()),
                "namespace": pa.array([namespace for namespace, _ in cells], pa.string()),
                "surface": pa.array([surface for _, surface in cells], pa.string()),
            }
        ),
    )
    assert found.keys() == counts.keys()
    for place, candidates in counts.items():
        streak = longest = 0
        for n in candidates:
            streak = 0 if n else streak + 1
            longest = max(longest, streak)
        of_place = found[place]
        assert (of_place.candidates, of_place.decisions) == (sum(candidates), len(candidates))
        assert of_place.empty_decisions == candidates.count(0)
        assert of_place.longest_empty_streak == longest
