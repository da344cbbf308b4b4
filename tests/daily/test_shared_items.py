from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_personalization.daily.shared_items import tiles

ITEMS = 12
LISTS = st.lists(
    st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=9, unique=True),
    min_size=1,
    max_size=150,
)


def whole(lists: list[list[int]]) -> np.ndarray:
    """Lists by places; what is behind an end is an item, too, and may not count."""
    return np.array([(one + one[:1] * 9)[:9] for one in lists])


@given(LISTS, st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=9, unique=True))
def test_it_is_how_many_items_sets_have_in_common(lists, one):
    sizes = np.array(list(map(len, lists)))
    (tile,) = tiles(whole(lists), sizes, ITEMS)
    found = tile.shared(np.array([one, one[::-1]]))
    in_common = Counter((len(other), len({*one} & {*other})) for other in lists)
    expected = [
        [0, *(in_common[size, number] for number in range(1, len(one) + 1))]
        for size in sorted({*sizes.tolist()})
    ]
    assert tile.sizes.tolist() == sorted({*sizes.tolist()})
    assert found[:, :, 0].tolist() == found[:, :, 1].tolist() == expected


def test_sixty_four_lists_of_one_size_are_one_word_and_one_more_is_another():
    items = np.arange(65)[:, None]
    (tile,) = tiles(items[:64], np.ones(64, int), 65)
    assert tile.bits.shape == (65, 1)
    (tile,) = tiles(items, np.ones(65, int), 65)
    assert tile.bits.shape == (65, 2)
    assert tile.shared(items)[0].tolist() == [[0] * 65, [1] * 65]


def test_no_list_makes_no_tile():
    assert list(tiles(np.zeros((0, 3), int), np.zeros(0, int), 1)) == []
