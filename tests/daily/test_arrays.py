from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_personalization.daily.arrays import added_up, firsts, groups, stable_order

NUMBERS = st.lists(st.integers(0, 3) | st.sampled_from([65_535, 65_536, 1 << 40]))


@given(NUMBERS)
def test_an_order_ascends_and_keeps_those_that_are_the_same_as_they_are(numbers):
    expected = sorted(range(len(numbers)), key=numbers.__getitem__)
    assert stable_order(np.array(numbers, np.int64)).tolist() == expected


@given(NUMBERS)
def test_a_first_is_where_another_value_begins(numbers):
    ordered = sorted(numbers)
    expected = [at for at, number in enumerate(ordered) if number not in ordered[:at]]
    assert firsts(np.array(ordered, np.int64)).tolist() == expected


@given(NUMBERS)
def test_a_group_has_the_places_of_one_number(numbers):
    expected = [
        [at for at, other in enumerate(numbers) if other == number] for number in sorted({*numbers})
    ]
    assert [group.tolist() for group in groups(np.array(numbers, np.int64))] == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9))))
def test_counts_of_a_key_add_up(entries):
    keys, counts = np.array(entries, np.int64).reshape(-1, 2).T
    expected = Counter()
    for key, count in entries:
        expected[key] += count
    found = [of.tolist() for of in added_up(keys, counts)]
    assert list(zip(*found, strict=True)) == sorted(expected.items())
