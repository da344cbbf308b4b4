import itertools
import json
import math
import statistics
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_personalization.conventions import MIN_OVERLAP_USERS
from otel_personalization.daily import overlap as module
from otel_personalization.daily import overlap_interval, shared_items
from otel_personalization.daily.overlap import Overlap, Overlaps, overlap_of

T_29 = 2.045229642132703
"""The 97.5th percentile of Student's t with 29 degrees of freedom."""


def reference(lists: list[set[str]], k: int) -> dict:
    """From the definition: all pairs, by set operations."""
    pairs = list(itertools.combinations(lists, 2))
    overlaps = sorted(Fraction(len(a & b), len(a | b)) for a, b in pairs)
    return {
        "users": len(lists),
        "pairs": len(pairs),
        "mean": float(sum(overlaps) / len(pairs)) if pairs else None,
        "identical_share": sum(a == b for a, b in pairs) / len(pairs) if pairs else None,
        "short_share": sum(len(a) < k for a in lists) / len(lists),
        "percentiles": {p: percentile(overlaps, p) for p in (50, 75, 90, 95, 99)} if pairs else {},
    }


def percentile(values: list[Fraction], percent: int) -> float:
    """Of ascending ones, as SQL's percentile_cont."""
    place = Fraction(percent, 100) * (len(values) - 1)
    below, above = values[math.floor(place)], values[math.ceil(place)]
    return float(below + (above - below) * (place - math.floor(place)))


def variance(lists: list[set[str]]) -> float:
    """Mean squared, less the mean product of two pairs without a user in common; or of pairs."""
    users = range(len(lists))
    overlap = {
        (i, j): len(lists[i] & lists[j]) / len(lists[i] | lists[j])
        for i, j in itertools.combinations(users, 2)
    }
    mean = statistics.fmean(overlap.values())
    products = [
        overlap[one] * overlap[other]
        for one, other in itertools.combinations(overlap, 2)
        if one[0] not in other and one[1] not in other
    ]
    of_users = mean**2 - statistics.fmean(products)
    of_pairs = math.fsum((value - mean) ** 2 for value in overlap.values()) / len(overlap) ** 2
    return max(of_users, of_pairs)


def assert_equal(found: Overlap, expected: dict, tolerance: float = 1e-12) -> None:
    assert (found.users, found.pairs) == (expected["users"], expected["pairs"])
    assert found.mean == pytest.approx(expected["mean"], abs=tolerance)
    assert found.identical_share == pytest.approx(expected["identical_share"], abs=tolerance)
    assert found.short_share == pytest.approx(expected["short_share"], abs=tolerance)
    if found.users < MIN_OVERLAP_USERS:
        assert (found.lower, found.upper, found.percentiles) == (None, None, None)
    else:
        assert found.percentiles == pytest.approx(expected["percentiles"], abs=tolerance)


def arrow(lists: list[list[str]]) -> pa.Array:
    return pa.array(lists, pa.list_(pa.string()))


LISTS = st.integers(1, 20).flatmap(
    lambda k: st.tuples(
        st.just(k),
        st.lists(
            st.lists(st.sampled_from("abcdefghij'\"/ é€😀kl"), min_size=1, max_size=k, unique=True),
            min_size=1,
            max_size=40,
        ),
    )
)


@given(LISTS)
def test_every_number_is_that_of_all_pairs_compared_as_sets(case):
    k, lists = case
    assert_equal(overlap_of(arrow(lists), k), reference([set(one) for one in lists], k))


@settings(max_examples=50)
@given(LISTS)
def test_small_tiles_and_blocks_change_nothing(case):
    k, lists = case
    whole = overlap_of(arrow(lists), k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_items, "_TILE_BYTES", 1)
        patch.setattr(shared_items, "_BLOCK_WORDS", 3)
        assert_equal(overlap_of(arrow(lists), k), reference([set(one) for one in lists], k))
        assert overlap_of(arrow(lists), k).percentiles == whole.percentiles


@settings(max_examples=50)
@given(LISTS, st.data())
def test_what_differs_by_few_lists_is_the_same_as_compared_anew(case, data):
    k, lists = case
    some = st.lists(st.sampled_from(range(len(lists))), min_size=2, unique=True)
    choices = [data.draw(some) for _ in range(3)] if len(lists) > 1 else [[0]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", math.inf)  # the second and third are taken from the first
        patch.setattr(module, "MIN_OVERLAP_USERS", 4)  # with interval and percentiles
        overlaps = Overlaps(arrow(lists), k)
        for chosen in choices:
            found = overlaps.of(np.array(chosen))
            expected = overlap_of(arrow([lists[at] for at in chosen]), k)
            found, expected = dict(vars(found)), dict(vars(expected))
            for figures in (found, expected):
                figures |= figures.pop("percentiles") or {}
            assert found == pytest.approx(expected, abs=1e-9)
        assert len(overlaps._compared) <= 1


@pytest.mark.parametrize(("k", "users"), [(10, 1500), (20, 300), (200, 60), (300, 40)])
def test_many_users_and_long_lists_of_all_lengths_are_exact(k, users):
    random = np.random.default_rng(k)
    lists = [
        [str(int(item**2 * 3 * k)) for item in random.random(length)]
        for length in random.integers(1, k + 1, users)
    ]
    lists[1], lists[2] = list(reversed(lists[0])), [f"own {n}" for n in range(k)]
    sets = [set(one) for one in lists]
    overlaps = sorted(len(a & b) / len(a | b) for a, b in itertools.combinations(sets, 2))
    found = overlap_of(arrow(lists), k)
    assert found.pairs == len(overlaps)
    assert found.mean == pytest.approx(statistics.fmean(overlaps), rel=1e-12)
    assert found.identical_share == overlaps.count(1.0) / len(overlaps)
    hundredths = statistics.quantiles(overlaps, n=100, method="inclusive")
    assert found.percentiles == pytest.approx(
        {p: hundredths[p - 1] for p in (50, 75, 90, 95, 99)}, abs=1e-12
    )


@pytest.mark.parametrize("shared", [1, 4, 5, 8, 14])
def test_very_many_pairs_that_share_as_much_are_each_counted(shared):
    """Users have one of 50 items each, and all others."""
    users, own = 9000, 50
    everybody = [f"of all {n}" for n in range(shared)]
    lists = [[f"own {n % own}", *everybody] for n in range(users)]
    pairs = math.comb(users, 2)
    identical = own * math.comb(users // own, 2)
    found = overlap_of(arrow(lists), 15)
    assert found.identical_share == identical / pairs
    others = shared / (shared + 2)
    assert found.mean == pytest.approx(others + (1 - others) * identical / pairs, rel=1e-12)
    assert found.percentiles == pytest.approx(
        {50: others, 75: others, 90: others, 95: others, 99: 1}
    )


def normal_limits(
    lists: list[set[str]], lower: float, upper: float, some: int | None = None
) -> tuple[float, float]:
    """The limits of an interval, as what is normal by the definition.

    Args:
        some: how many of the users tell how pairs are skewed.
    """
    n = len(lists)
    overlap = {
        (i, j): len(lists[i] & lists[j]) / len(lists[i] | lists[j])
        for i, j in itertools.permutations(range(n), 2)
    }
    mean, error = statistics.fmean(overlap.values()), math.sqrt(variance(lists))
    h = [statistics.fmean(overlap[u, v] for v in range(n) if v != u) - mean for u in range(n)]
    v2 = max(statistics.fmean(one**2 for one in h), n * error**2 / 4)
    skewness = statistics.fmean(one**3 for one in h) / v2**1.5
    of_pairs = (
        statistics.fmean(
            h[u] * h[v] * (overlap[u, v] - mean - h[u] - h[v])
            for u, v in itertools.permutations(range(some or n), 2)
        )
        / v2**1.5
    )
    root = 6 * math.sqrt(n)
    b = (skewness + 3 * of_pairs) / root
    a = (2 * skewness + 3 * of_pairs) / root
    a -= error * (1 - 2 * mean) / (2 * mean * (1 - mean))

    def normal(limit: float) -> float:
        t = (scipy.special.logit(mean) - scipy.special.logit(limit)) * mean * (1 - mean) / error
        return t + a * t**2 + a**2 * t**3 / 3 + b

    return normal(lower), normal(upper)


@settings(max_examples=25)
@given(st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1), min_size=30, max_size=30))
def test_the_interval_is_that_of_student_once_skewness_is_taken_out(lists):
    found = overlap_of(arrow([sorted(one) for one in lists]), 8)
    assert 0 <= found.lower <= found.mean <= found.upper <= 1
    if 0 < found.mean < 1:
        limits = normal_limits(lists, found.lower, found.upper)
        assert limits == pytest.approx((T_29, -T_29), abs=1e-6)


def test_the_interval_of_thirty_users_holds_the_truth_though_a_fifth_get_the_fallback(monkeypatch):
    """Others have 10 items out of 400: what two of them share is hypergeometric."""
    random = np.random.default_rng(4)
    fallback = [f"of all {n}" for n in range(10)]
    chance = [math.comb(10, n) * math.comb(390, 10 - n) / math.comb(400, 10) for n in range(11)]
    truth = 0.2**2 + 0.8**2 * sum(p * n / (20 - n) for n, p in enumerate(chance))
    days = [
        [
            fallback if gets else [str(item) for item in random.permutation(400)[:10]]
            for gets in random.random(30) < 0.2
        ]
        for _ in range(1000)
    ]

    def coverage():
        found = [overlap_of(arrow(lists), 10) for lists in days]
        return statistics.fmean(one.lower <= truth <= one.upper for one in found)

    assert 0.95 <= coverage() <= 0.98
    monkeypatch.setattr(overlap_interval._Skewness, "turned_round", lambda _, normal: normal)
    assert coverage() < 0.9


def test_of_many_users_the_first_tell_how_pairs_are_skewed(monkeypatch):
    lists = [{"a", str(n % 3)} for n in range(10)] + [{f"own {n}", str(n % 7)} for n in range(20)]
    whole = overlap_of(arrow([sorted(one) for one in lists]), 2)
    monkeypatch.setattr(module, "SKEWNESS_USERS", 15)
    found = overlap_of(arrow([sorted(one) for one in lists]), 2)
    assert (found.lower, found.upper) != (whole.lower, whole.upper)
    limits = normal_limits(lists, found.lower, found.upper, some=15)
    assert limits == pytest.approx((T_29, -T_29), abs=1e-9)


@given(st.integers(30, 60), st.integers(1, 19))
def test_users_whose_pairs_all_overlap_alike_have_an_interval_without_width(users, own):
    """Where the mean is rounded, its error is not quite 0."""
    lists = [["of all", *(f"own {n} {m}" for m in range(own))] for n in range(users)]
    found = overlap_of(arrow(lists), 20)
    assert found.lower == found.mean == found.upper == pytest.approx(1 / (2 * own + 1))


def test_users_who_all_overlap_alike_have_the_uncertainty_of_their_pairs():
    couples = [{f"of couple {n // 2}"} for n in range(30)]
    found = overlap_of(arrow([sorted(one) for one in couples]), 1)
    assert found.mean == 15 / 435
    assert variance(couples) == pytest.approx(found.mean * (1 - found.mean) / 435)
    limits = normal_limits(couples, found.lower, found.upper)
    assert limits == pytest.approx((T_29, -T_29), abs=1e-9)


def test_the_variance_is_the_jackknife_s_less_what_pairs_count_twice():
    random = np.random.default_rng(3)
    n = 12
    upper = np.triu(random.random((n, n)), 1)
    overlaps = upper + upper.T

    def mean(users):
        return upper[np.ix_(users, users)].sum() / math.comb(len(users), 2)

    without = [mean([u for u in range(n) if u != left]) for left in range(n)]
    jackknife = (n - 1) / n * sum((one - statistics.fmean(without)) ** 2 for one in without)
    sums = overlaps.sum(axis=1)
    squared = float(np.square(sums - sums.mean()).sum())
    assert jackknife == pytest.approx(4 * squared / (n * (n - 1) * (n - 2) ** 2), rel=1e-12)
    spread = squared / 4
    assert overlap_interval.standard_error(sums, spread) ** 2 == pytest.approx(
        4 * (squared - spread) / (n * (n - 1) * (n - 2) * (n - 3)), rel=1e-12
    )


def test_small_cases_are_those_counted_by_hand():
    pair = overlap_of(arrow([["a", "b", "c"], ["b", "c", "d"]]), 3)
    assert pair == Overlap(2, 1, 0.5, None, None, None, 0.0, 0.0)
    assert overlap_of(arrow([["a", "b"], ["b", "a"]]), 2).identical_share == 1.0
    assert overlap_of(arrow([["a"], ["b", "c"]]), 2).mean == 0.0
    assert overlap_of(arrow([["a"], ["b", "c"]]), 2).short_share == 0.5


def test_thirty_users_of_one_list_are_all_the_same_and_of_own_ones_all_different():
    same = overlap_of(arrow([["a", "b"]] * 30), 2)
    assert (same.mean, same.lower, same.upper, same.identical_share) == (1.0, 1.0, 1.0, 1.0)
    assert set(same.percentiles.values()) == {1.0}
    own = overlap_of(arrow([[str(n)] for n in range(30)]), 2)
    assert (own.mean, own.lower, own.upper, own.identical_share) == (0.0, 0.0, 0.0, 0.0)
    assert set(own.percentiles.values()) == {0.0}


def test_no_list_is_nothing_and_one_has_no_pairs():
    assert overlap_of(arrow([]), 10) is None
    assert overlap_of(pa.chunked_array([], pa.list_(pa.string())), 10) is None
    assert overlap_of(arrow([["a"]]), 10) == Overlap(1, 0, None, None, None, None, None, 1.0)


def test_a_repeated_item_counts_once_and_order_says_nothing():
    assert overlap_of(arrow([["a", "a", "b"], ["b", "a"]]), 3).mean == 1.0


def test_chunks_slices_and_dictionaries_are_read_as_lists():
    lists = [["x"], ["a", "b"], ["b", "c"], ["d"]]
    expected = overlap_of(arrow(lists[1:]), 2)
    assert overlap_of(arrow(lists)[1:], 2) == expected
    chunks = pa.chunked_array([arrow(lists[1:2]), arrow(lists[2:])])
    assert overlap_of(chunks, 2) == expected
    codes = arrow(lists[1:])
    encoded = pa.ListArray.from_arrays(codes.offsets, codes.values.dictionary_encode())
    assert overlap_of(encoded, 2) == expected
    assert overlap_of(arrow(lists[1:]).cast(pa.large_list(pa.string())), 2) == expected


@pytest.mark.parametrize(
    "lists",
    [[["a"], []], [["a"], ["a", "b", "c"]], [["a"], None], [["a"], [None]]],
    ids=["empty", "too long", "null", "null item"],
)
def test_what_is_no_list_of_one_to_k_items_is_refused(lists):
    with pytest.raises(ValueError, match="a list"):
        overlap_of(arrow(lists), 2)


def test_of_the_recorded_traces_it_is_that_of_the_definition():
    import gzip

    sample = Path(__file__).parents[1] / "data" / "traces.ndjson.gz"
    lists = {}
    with gzip.open(sample) as lines:
        for trace in map(json.loads, lines):
            items = [item["item_id"] for item in trace.get("final_items") or []][:10]
            if items and trace.get("user_hash"):
                lists[trace["user_hash"]] = items
    assert len(lists) >= MIN_OVERLAP_USERS
    found = overlap_of(arrow(list(lists.values())), 10)
    overlaps = [
        len({*a} & {*b}) / len({*a} | {*b}) for a, b in itertools.combinations(lists.values(), 2)
    ]
    assert found.mean == pytest.approx(statistics.fmean(overlaps), rel=1e-12)
