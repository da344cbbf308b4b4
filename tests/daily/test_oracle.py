"""The oracle itself: small cases worked out by hand, published figures, independent counts."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Iterable
from datetime import date
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_personalization.conventions import (
    CANDIDATES,
    DECISION_COUNTERS,
    DEFAULT_STAGES,
    FOLDED,
    MAX_CANDIDATES,
    MAX_LABEL_LENGTH,
    SOURCE_COUNTERS,
)
from otel_personalization.daily import tables
from otel_personalization.totals import Totals
from otel_personalization.trace import Decision, fits_label, read_decision, read_timestamp
from tests.conftest import DATA, cells_of, recording
from tests.daily import hostile, oracle
from tests.daily.oracle import Row, day_tables

DAY = date(2026, 11, 20)
PERSONALIZATION = "analytics.personalization_daily"
SOURCES = "analytics.personalization_sources_daily"
BLEND = "experiments.blend_weights_daily"


def line(*ids: Any, **fields: Any) -> str:
    """A trace of `DAY` that serves items with these ids."""
    trace = {
        "org_id": "o",
        "namespace": "shop",
        "surface": "home",
        "ts": "2026-11-20T12:00:00Z",
        "final_items": [{"item_id": item_id} for item_id in ids],
    }
    return json.dumps(trace | fields)


def rows(
    lines: Iterable[str], table: str = PERSONALIZATION, day: date = DAY, **options: Any
) -> list[Row]:
    return day_tables(lines, day, **options)[table]


def row(lines: Iterable[str], table: str = PERSONALIZATION, *, of: str = "", **options: Any) -> Row:
    """The one row of a key such as ``surface=home cohort=new``; the rest of the key is ``all``."""
    key = {"namespace": "shop"} | dict(pair.split("=") for pair in of.split())
    for name in ("surface", "cohort", "device", "experiment", "variant"):
        key.setdefault(name, "all")
    (found,) = (
        one
        for one in rows(lines, table, **options)
        if all(one.get(name, value) == value for name, value in key.items())
    )
    return found


def some(found: Row, *names: str) -> list[Any]:
    return [found[name] for name in names]


# --- by hand: volumes and rates -------------------------------------------------------------------


def test_volumes_and_rates():
    reason = {"reasons": ["new"]}
    lines = [
        line(  # 4 items, 2 of them boosted, 3 with a reason
            user_hash="u",
            final_items=[
                {"item_id": "a", **reason},
                {"item_id": "b", **reason},
                {"item_id": "c", **reason},
                {"item_id": "d", "reasons": [" "]},
            ],
            extras={"include_reasons": True, "personalized_items": ["a", "b", "x"]},
        ),
        line(  # 1 item, whose reasons were not asked for; cold by its flag
            user_hash="u",
            final_items=[{"item_id": "e", "cold_start": True, **reason}],
            extras={"include_reasons": False},
        ),
        line(final_items=None),
    ]
    found = row(lines)
    assert some(found, "decisions", "empty_decisions", "users", "served_items") == [3, 1, 1, 5]
    assert found["known_user_share"] == 2 / 3
    assert found["effective_decisions"] == 25 / 17  # (4 + 1)^2 / (16 + 1)
    assert some(found, "personalized_items", "reason_items") == [2, 3]
    assert some(found, "reason_requested_items", "cold_start_items") == [4, 1]
    assert found["personalized_impression_rate"] == 2 / 5
    assert found["reason_coverage_rate"] == 3 / 5
    assert found["requested_reason_coverage_rate"] == 3 / 4
    assert found["mean_decision_personalized_rate"] == 0.25  # of 2/4 and 0/1
    of_blend = row(lines, BLEND)
    assert {name: of_blend[name] for name in found if name in of_blend} == {
        name: value for name, value in found.items() if name in of_blend
    }


def test_nothing_served_has_no_rates():
    found = row([line(final_items=None, extras={"include_reasons": False})], of="surface=home")
    assert some(found, "decisions", "empty_decisions", "served_items") == [1, 1, 0]
    unknown = {name for name, value in found.items() if value is None}
    assert unknown == {
        *("effective_decisions", "personalized_impression_rate", "reason_coverage_rate"),
        *("requested_reason_coverage_rate", "mean_decision_personalized_rate"),
        *("top10_exposure_share", "brand_cap_hit_share", "category_cap_hit_share"),
        *("jaccard_mean", *(f"jaccard_p{p}" for p in oracle.PERCENTILES)),
        *("identical_list_share", "overlap_short_list_share"),
        *(
            f"entropy_{of}{what}"
            for of in oracle.DIMENSIONS
            for what in ("", "_observed", "_effective_number", "_known_share", "_sample_coverage")
        ),
        *oracle.EXCLUDED,
    }
    assert found["entropy_brand_reliable"] is False


def test_exposure_is_of_all_served_items_and_the_catalog_of_those_with_an_id():
    lines = [line(*range(12)), line("0", 1, None)]
    # Times served: 0 and 1 twice, ten others once, one without an id: 2 + 2 + 8 of 15.
    assert some(row(lines), "top10_exposure_share", "catalog_items") == [12 / 15, 12]


def test_picks_of_which_the_brand_or_category_had_a_cap_value():
    hits = [{"brand_cap_hit": True}, {"brand_cap_hit": 1}, {"category_cap_hit": True}, {}]
    picks = [*({"item_id": "a", **hit} for hit in hits), {"brand_cap_hit": True}, {}, None]
    found = row([line("a", mmr_info=picks), line("a", mmr_info="x")])
    assert some(found, "mmr_picks", "brand_cap_hit_share", "category_cap_hit_share") == [
        4,
        0.25,
        0.25,
    ]


# --- by hand: which decisions count, and where ----------------------------------------------------


def test_a_day_is_the_utc_date_of_the_instant_and_undated_traces_have_none():
    lines = [
        line(ts="2026-11-21T01:30:00+02:00"),
        line(ts="2026-11-20T23:59:59.9999999Z"),  # cut, not rounded
        line(ts="2026-11-20 00:00:00.5+00"),
        line(ts="2026-11-20T23:30:00-01:00"),  # the 21st
        line(ts="2026-11-20"),
        line(ts=None),
    ]
    assert row(lines)["decisions"] == 3
    assert row(lines, day=date(2026, 11, 21))["decisions"] == 1
    assert rows(lines, day=date(2026, 11, 22)) == []


def test_deliveries_of_one_decision_count_once_a_day_and_organisation_at_their_first():
    later = {"ts": "2026-11-20T13:00:00Z"}
    lines = [
        line("a", "b", decision_id="1", **later),
        line("a", decision_id="1"),  # counts: the earliest, and the first of its instant
        line("a", "b", "c", decision_id="1"),
        line(*"abcd", decision_id="1", ts="2026-11-20T11:00:00Z", final_items="malformed"),
        line(*"abcdefgh", decision_id="2"),
        line(*"abcdefghijklmnop", decision_id=""),  # these two have no id
        line(*"abcdefghijklmnop", decision_id=7),
        line("a", decision_id="1", ts="2026-11-19T12:00:00Z"),
        line("a", decision_id="1", org_id="p", namespace="other"),
    ]
    assert some(row(lines), "decisions", "served_items") == [4, 1 + 8 + 16 + 16]
    assert row(lines, of="namespace=other")["decisions"] == 1
    assert row(lines, day=date(2026, 11, 19))["decisions"] == 1


def test_names_are_trimmed_and_lower_cased_and_kept_from_the_words_that_roll_up():
    lines = [
        line(namespace="\u00a0SHOP ", surface="HOME "),
        line(surface=" All", extras={"cohort": "ALL", "device": "all"}),
        line(surface=None, extras={"cohort": " ", "device": 3}),
        line(namespace=" ", surface=7, org_id=None),
        line(namespace=None, org_id=3),
    ]
    found = rows(lines)
    assert {(one["org_id"], one["namespace"]) for one in found} == {("o", "shop"), ("unknown",) * 2}
    of_shop = [one for one in found if one["namespace"] == "shop"]
    assert {one["surface"] for one in of_shop} == {"home", "all_", "default", "all"}
    assert {one["cohort"] for one in of_shop} == {"all_", "unknown", "all"}
    assert {one["device"] for one in of_shop} == {"all_", "unknown", "all"}
    assert row(lines, of="surface=all_ cohort=all_ device=all_")["decisions"] == 1
    assert row(lines)["decisions"] == 3


def test_names_that_are_too_long_count_together_and_organisations_do_not():
    long, longest = "n" * 65, "N" * 64
    lines = [
        line(surface=long),  # takes the namespace with it
        line(namespace=long, surface="cart"),
        line(surface=longest, extras={"cohort": long, "device": long}),
        line(extras={"bandit_experiment": long, "bandit_variant": f" {longest} "}),
        line(bandit={"bucket_key": f"ctx:device={long}"}),
        line(org_id=long),
    ]
    found = rows(lines, BLEND)
    places = {(one["namespace"], one["surface"]) for one in found if one["surface"] != "all"}
    assert places == {("other", "other"), ("shop", "n" * 64), ("shop", "home")}
    assert {one["org_id"] for one in found} == {"o"}
    for of in ("cohort", "device", "experiment"):
        assert "other" in {one[of] for one in found}
    assert "N" * 64 in {one["variant"] for one in found}
    assert row(lines, of="namespace=other surface=other")["decisions"] == 2


def test_sources_of_names_that_count_together_are_one():
    counts = {"s" * 65: 3, "S" * 65: 0, "other": 4, "a\0b": 1, "a\ufffdb": 1, "s" * 64: 0}
    lines = [
        line(extras={"candidate_sources": {name: {"count": n} for name, n in counts.items()}}),
        line(extras={"candidate_sources": {"s" * 65: {"count": 0}}}),
    ]
    found = {one["source"]: one for one in rows(lines, SOURCES) if one["surface"] == "all"}
    assert found.keys() == {"other", "a\ufffdb", "s" * 64}
    assert some(found["other"], "candidates", "decisions", "empty_decisions") == [7, 2, 1]
    assert some(found["a\ufffdb"], "candidates", "decisions") == [2, 1]


def test_a_cohort_is_said_or_comes_from_the_days_before():
    seen = {"ts": "2026-11-18T12:00:00Z", "user_hash": "u"}
    lines = [
        line(**seen),
        line(**seen | {"user_hash": "v"}, namespace="other"),
        line(user_hash="w", ts="2026-10-22T12:00:00Z"),  # 29 days before
        line(user_hash="x", org_id="new", namespace="new"),
        line(extras={"cohort": " VIP "}, user_hash="u"),
        line(user_hash="u"),
        line(user_hash="v"),
        line(user_hash="w"),
        line(user_hash=" "),
    ]
    cohorts = {
        one["cohort"]: one["decisions"]
        for one in rows(lines)
        if (one["namespace"], one["surface"], one["device"]) == ("shop", "home", "all")
    }
    assert cohorts == {"vip": 1, "returning": 1, "new": 2, "unknown": 1, "all": 5}
    assert row(lines, of="cohort=returning", history_days=29)["decisions"] == 2
    assert row(lines, of="cohort=unknown", history=False)["decisions"] == 4
    assert row(lines, of="cohort=unknown", history_days=1)["decisions"] == 4
    # No day before has anything of this organisation.
    assert row(lines, of="namespace=new cohort=unknown")["decisions"] == 1


def test_a_device_is_said_or_that_of_the_bucket():
    buckets = [
        ("ctx:device=web|surface=home", "web"),
        ("ctx:surface=home|device= TV ", "tv"),
        ("ctx:mydevice=tv", "unknown"),
        ("ctx:device=", "unknown"),
        (3, "unknown"),
    ]
    for key, device in buckets:
        bandit = {"bucket_key": key}
        assert row([line(bandit=bandit)], of=f"device={device}")["decisions"] == 1
        said = line(bandit=bandit, extras={"device": " iOS"})
        assert row([said], of="device=ios")["decisions"] == 1


def test_every_combination_of_roll_ups_has_a_row():
    one = line(
        extras={"cohort": "c", "device": "d", "bandit_experiment": "e", "bandit_variant": "v"}
    )
    assert len(rows([one])) == 2**3
    blend = rows([one], BLEND)
    assert len(blend) == 24  # (all, all), (e, all) and (e, v), by 2^3
    assert {(found["experiment"], found["variant"]) for found in blend} == {
        ("all", "all"),
        ("e", "all"),
        ("e", "v"),
    }
    # A further device doubles nothing but what is told by device: 4 more of 8, 12 more of 24.
    other = line(
        extras={"cohort": "c", "device": "D2", "bandit_experiment": "e"} | {"bandit_variant": "v"}
    )
    assert len(rows([one, other])) == 12
    assert len(rows([one, other], BLEND)) == 36


# --- by hand: overlap -----------------------------------------------------------------------------


def by_user(**lists: str) -> list[str]:
    return [line(*ids, user_hash=user) for user, ids in lists.items()]


def test_overlap_is_the_mean_over_pairs_of_users():
    lines = [*by_user(a="123", b="234", c="321"), line("1"), line(user_hash="d")]
    # a and b share 2 of 4, b and c too, a and c 3 of 3.
    found = row(lines, of="surface=home")
    assert found["jaccard_mean"] == pytest.approx(2 / 3)
    assert found["identical_list_share"] == 1 / 3
    assert some(found, "overlap_users", "overlap_pairs", "overlap_eligible_users") == [3, 3, 3]
    assert some(found, "overlap_short_list_share", "overlap_k", "overlap_window_days") == [1, 10, 1]
    assert found["jaccard_p50"] is None  # fewer than 30 users
    # Of the first two: 1 of 3, 1 of 3, and c has 3 and 2, of which b has both and a one.
    found = row(lines, of="surface=home", k=2)
    assert found["jaccard_mean"] == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)
    assert some(found, "overlap_short_list_share", "overlap_k") == [0, 2]


def test_overlap_is_of_one_surface_and_compares_at_least_two_users():
    lines = [line("1", user_hash="a"), line("1", user_hash="b", surface="pdp")]
    for name, value in row(lines).items():
        if name.startswith(("jaccard_", "overlap_", "identical_")):
            assert value is None
    found = row(lines, of="surface=home")
    assert some(found, "overlap_users", "overlap_pairs", "jaccard_mean") == [1, 0, None]
    assert some(found, "identical_list_share", "overlap_short_list_share") == [None, 1]


def test_a_list_is_the_last_that_has_items_with_ids():
    first, last = {"ts": "2026-11-20T10:00:00+02:00"}, {"ts": "2026-11-20T09:00:00Z"}
    lines = [
        line("x", user_hash="a", decision_id="2", **last),
        line("y", user_hash="a", decision_id="1", **last),
        line("y", user_hash="a", decision_id="3", **first),  # earlier, though its text is later
        line(None, {}, user_hash="a", decision_id="4"),
        line(user_hash="a", decision_id="5"),
        line("x", "x", None, 5, "5", user_hash="b"),
    ]
    found = row(lines, of="surface=home", k=2)
    assert found["jaccard_mean"] == 0.5  # of x and (x, 5)
    assert found["overlap_short_list_share"] == 0.5


def test_a_window_has_lists_of_several_days():
    before = {"ts": "2026-11-19T12:00:00Z"}
    lines = [
        line("1", user_hash="a", **before),
        line("2", user_hash="b", **before),
        line("1", "2", user_hash="b"),
        line("3", user_hash="c", surface="pdp", **before),  # of no cell of the day
    ]
    assert row(lines, of="surface=home")["jaccard_mean"] is None
    found = row(lines, of="surface=home", window_days=2)
    assert some(found, "jaccard_mean", "overlap_users", "overlap_window_days") == [0.5, 2, 2]
    assert found["decisions"] == 1
    # Who was there before is a returning one, on that day too.
    assert row(lines, of="surface=home cohort=returning", window_days=2)["overlap_users"] == 2


def test_percentiles_interpolate_between_pairs():
    # 15 users have one list, 3 another, 2 another, 10 one each: 105 + 3 + 1 = 109 of 435 pairs are
    # equal, 326 have nothing in common. The 75th percentile is at 0.75 * 434 = 325.5, half-way
    # from the last 0 to the first 1.
    lists = [0] * 15 + [1] * 3 + [2] * 2 + list(range(3, 13))
    lines = [line(ids, user_hash=f"u{n}") for n, ids in enumerate(lists)]
    found = row(lines, of="surface=home")
    assert [found[f"jaccard_p{p}"] for p in oracle.PERCENTILES] == [0, 0.5, 1, 1, 1]
    assert found["jaccard_mean"] == found["identical_list_share"] == 109 / 435
    assert row(lines[:-1], of="surface=home")["jaccard_p50"] is None


def test_of_too_many_users_those_of_the_smallest_hashes_are_compared(monkeypatch):
    monkeypatch.setattr(oracle, "LARGEST_COMPARISON", 2)
    # MD5 of "personalization:a", ":b", ":c" starts with 62, 61, 88; d is c4.
    found = row(by_user(d="1", c="13", b="12", a="12"), of="surface=home", k=2)
    assert some(found, "overlap_users", "overlap_pairs", "overlap_eligible_users") == [2, 1, 4]
    assert found["jaccard_mean"] == 1  # of a and b


# --- by hand: entropy -----------------------------------------------------------------------------


def test_entropy_is_of_the_known_values_of_served_items():
    caps = {
        "a": {"brand": {"value": " Acme"}, "category": {"value": "x,y"}},
        "b": {"brand": {"value": "acme"}, "category": {"value": "y,x"}},
        "c": {"brand": {"value": "zen"}, "category": {"value": " "}},
        "d": {"brand": {"value": 3}, "category": "x"},
        "not served": {"brand": {"value": "ghost"}, "category": {"value": "ghost"}},
    }
    found = row([line(*"abcd", None, caps=caps)])
    # Brands: 2 acme, 1 zen, 2 unknown. 2/3 log 3/2 + 1/3 log 3 = 0.6365.
    assert found["entropy_brand_observed"] == pytest.approx(0.6365141683)
    # n = 3, f1 = f2 = 1, A = 2 / (2 + 2) = 1/2: 2/3 * 1/2 + 1/3 (1 + 1/2) = 0.8333, and
    # 1/3 * 4 * (log 2 - 1/2 - 1/8) = 0.0909.
    assert found["entropy_brand"] == pytest.approx(5 / 6 + 4 / 3 * (math.log(2) - 5 / 8))
    assert found["entropy_brand_effective_number"] == pytest.approx(math.exp(0.9241962407))
    assert found["entropy_brand_known_share"] == 3 / 5
    assert found["entropy_brand_sample_coverage"] == pytest.approx(2 / 3)
    assert found["entropy_brand_reliable"] is False
    # Categories: x,y is one value and y,x another. n = f1 = 2, f2 = 0, A = 2 / (1 + 2):
    # 1/2 + 1/2, and 2/2 * 3 (log 3/2 - 1/3).
    assert found["entropy_category_observed"] == pytest.approx(math.log(2))
    assert found["entropy_category"] == pytest.approx(1 + 3 * (math.log(1.5) - 1 / 3))
    assert some(found, "entropy_category_known_share", "entropy_category_sample_coverage") == [
        0.4,
        0,
    ]


def test_entropy_is_reliable_up_to_3_percent_of_values_of_one_group_or_of_two():
    caps = {item_id: {"brand": {"value": item_id}} for item_id in "abcd"}
    others = [line("a", user_hash=f"user {n}", caps=caps) for n in range(200)]

    def is_reliable(*lines: str) -> bool:
        return row([*others, *lines])["entropy_brand_reliable"]

    assert is_reliable()
    # Of values of one group 7/214 and of two 7/214 are too many together; 6/213 of two are not.
    once = {str(n): {"brand": {"value": str(n)}} for n in range(24)}
    alone = line(*list(once)[:7], user_hash="user 0", caps=once)
    twice = [
        line(*"b" * 6, user_hash="user 1", caps=caps),
        line("b", user_hash="user 2", caps=caps),
    ]
    assert is_reliable(alone)
    assert is_reliable(*twice)
    assert not is_reliable(alone, *twice)
    twice[0] = line(*"b" * 5, user_hash="user 1", caps=caps)
    assert is_reliable(alone, *twice)
    # 10/210 were seen once, and 11/211: sample coverages of 0.952 and 0.948.
    assert is_reliable(line(*list(once)[:10], user_hash="user 0", caps=once))
    assert not is_reliable(line(*list(once)[:11], user_hash="user 0", caps=once))
    # One group of users alone was served 22/222, and 23/223, however many of each value.
    assert is_reliable(line(*"b" * 22, user_hash="user 0", caps=caps))
    assert not is_reliable(line(*"b" * 23, user_hash="user 0", caps=caps))
    # Too few groups of users.
    assert not row([line(*"a" * 200, user_hash=f"user {n}", caps=caps) for n in range(29)])[
        "entropy_brand_reliable"
    ]


@pytest.mark.parametrize(
    ("times", "observed", "corrected"),
    [
        # Girdled and logged plots of spiders; Shannon diversities, exp(H), as the R package
        # iNEXT of the same authors gives them for its example data.
        ([46, 22, 17, 15, 15, 9, 8, 6, 6, 4, 2, 2, 2, 2] + [1] * 12, 12.060, 13.826),
        (
            [88, 22, 16, 15, 13, 10, 8, 8, 7, 7, 7, 5, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2] + [1] * 14,
            14.421,
            16.337,
        ),
    ],
)
def test_the_corrected_entropy_is_the_published_one(times, observed, corrected):
    plain = -sum(x / sum(times) * math.log(x / sum(times)) for x in times)
    assert math.exp(plain) == pytest.approx(observed, abs=5e-4)
    assert math.exp(oracle.chao_wang_jost(times)) == pytest.approx(corrected, abs=5e-4)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40))
@example([1] + [2] * 300)  # of 2^-600, what is left of the bracket
def test_the_correction_is_the_series_that_its_bracket_leaves(times):
    """-log A is the sum of (1-A)^r / r over all r, so that r >= n are left: nothing is lost."""
    n, f1, f2 = sum(times), times.count(1), times.count(2)
    seen = math.fsum(x / n * math.fsum(1 / j for j in range(x, n)) for x in times)
    a = 2 * f2 / ((n - 1) * f1 + 2 * f2) if f2 else 2 / ((n - 1) * (f1 - 1) + 2) if f1 else 1
    left = math.fsum((1 - a) ** (r - n + 1) / r for r in range(n, n + math.ceil(50 / a)))
    assert oracle.chao_wang_jost(times) == pytest.approx(seen + f1 / n * left, rel=1e-12)


# --- by hand: sources and weights -----------------------------------------------------------------


def test_sources_are_counted_by_surface_and_over_all():
    def at(hour: int, count: Any, surface: str = "home") -> str:
        sources = {"collab": {"count": count}, "merged": {"count": 3}}
        ts = f"2026-11-20T{hour:02}:00:00Z"
        return line(ts=ts, surface=surface, extras={"candidate_sources": sources})

    # In the order of time: home 0, home 0, pdp 5, home 0, then no count, home 0.
    lines = [at(6, 0), at(1, 0), at(2, 0), at(3, 5, "pdp"), at(4, 0), at(5, True), at(5, 3.0)]
    columns = ("surface", "candidates", "decisions", "empty_decisions", "longest_empty_streak")
    assert [some(found, "source", *columns) for found in rows(lines, SOURCES)] == [
        ["collab", "all", 5, 5, 4, 2],
        ["collab", "home", 0, 4, 4, 4],
        ["collab", "pdp", 5, 1, 0, 0],
    ]


def test_decisions_of_one_instant_are_in_the_order_of_lines():
    counts = (0, 0, 5, 0)
    lines = [
        line(decision_id=f"{9 - n}", extras={"candidate_sources": {"s": {"count": count}}})
        for n, count in enumerate(counts)
    ]
    assert rows(lines, SOURCES)[0]["longest_empty_streak"] == 2


def test_weights_are_the_most_frequent_ones_and_ties_the_smallest():
    configs = [
        {"alpha": 0.5, "beta": 1},
        {"alpha": 0.5, "beta": 1.0},  # the same setting
        {"alpha": 0.3, "beta": 2},
        {"alpha": 0.3},
        {"gamma": float("nan")},  # no number, so that nothing is on record
        {"gamma": True},
        {"gamma": "1"},
        {},
        None,
    ]
    found = row([line(effective_config=config) for config in configs], BLEND)
    assert some(found, *oracle.WEIGHTS) == [0.3, 1, None, None, None]
    assert found["weight_settings"] == 3
    assert row([line()], BLEND)["weight_settings"] == 0


def test_experiment_and_variant_are_the_first_that_are_named():
    def names(extras: Any = None, **bandit: Any) -> tuple[str, str]:
        found = rows([line(extras=extras, bandit=bandit)], BLEND)
        (named,) = {(one["experiment"], one["variant"]) for one in found if one["variant"] != "all"}
        return named

    assert names() == ("none", "none")
    assert names(experiment=" E ", variant="none") == ("E", "none_")
    assert names(experiment="ALL", variant=" all") == ("ALL", "all_")
    assert names({"bandit_experiment": "all", "bandit_variant": " "}, variant="V") == ("all_", "V")
    extras = {"bandit_experiment": 3, "experiment_variant": "x", "bandit_variant": "y"}
    assert names(extras, experiment="none", variant="z") == ("none_", "x")


# --- the contract ---------------------------------------------------------------------------------


def test_the_words_and_bounds_are_those_of_the_contract():
    assert (oracle.ALL, oracle.NONE, oracle.UNKNOWN) == (tables.ALL, tables.NONE, tables.UNKNOWN)
    assert (oracle.STAGES, oracle.LARGEST_COUNT) == (DEFAULT_STAGES, MAX_CANDIDATES)
    assert (oracle.OTHER, oracle.LONGEST_NAME) == (FOLDED, MAX_LABEL_LENGTH)
    assert oracle.DIMENSIONS == tables.DIMENSIONS
    assert oracle.PERCENTILES == tables.PERCENTILES
    assert oracle.WEIGHTS == tables.WEIGHTS


@pytest.fixture(scope="module", params=hostile.CORPUS_SEEDS)
def corpus(request: pytest.FixtureRequest) -> list[str]:
    return hostile.corpus(request.param)


def test_rows_have_every_column_of_the_contract_and_keys_of_their_own(corpus):
    found = day_tables(corpus, hostile.CORPUS_DAYS[-1])
    assert list(found) == [table.qualified_name for table in tables.TABLES]
    types = {
        tables.Kind.DATE: date,
        tables.Kind.TEXT: str,
        tables.Kind.INTEGER: int,
        tables.Kind.NUMBER: (int, float),
        tables.Kind.BOOLEAN: bool,
    }
    for table in tables.TABLES:
        of_table = found[table.qualified_name]
        keys = [tuple(one[column.name] for column in table.key) for one in of_table]
        assert len(set(keys)) == len(keys) > 0
        assert keys == sorted(keys)
        for one in of_table:
            assert sorted(one) == sorted(table.column_names)
            for column in table.columns:
                value = one[column.name]
                assert (value is None and not column.is_key) or isinstance(
                    value, types[column.kind]
                ), column


# --- independent counts ---------------------------------------------------------------------------


def assert_read_alike(text: str) -> None:
    """A line means to the oracle what it means to the reader that services run."""
    try:
        trace = json.loads(text)
    except (ValueError, RecursionError):
        return
    counts, read = oracle.counts_of(trace), read_decision(trace)
    assert (counts is None) == (not isinstance(read, Decision)), trace
    if counts is None or not isinstance(read, Decision):
        return
    assert counts == read[2:7], trace
    assert oracle.instant_of(trace.get("ts")) == read_timestamp(trace), trace
    found = oracle.decision_of(trace)
    if found is not None and fits_label(found.surface):  # half of a pair is no JSON to the job
        place, sources = as_counted(read)
        surface = "all" if found.surface == "all_" and place[1] == "all" else found.surface
        assert (found.namespace, surface) == place, trace
        assert found.sources == sources, trace


def as_counted(read: Decision) -> tuple[tuple[str, ...], Counter[str]]:
    """Namespace and surface under which services count a decision, and candidates by source.

    NUL is none of what counters change; a Prometheus can have it, a PostgreSQL cannot.
    """
    totals = Totals()
    totals.add(read)
    snapshot = totals.snapshot()
    (place,) = snapshot[DECISION_COUNTERS]
    sources: Counter[str] = Counter()
    for (*_, source), counts in snapshot[SOURCE_COUNTERS].items():
        sources[source.replace("\0", "\ufffd")] += counts[SOURCE_COUNTERS.index(CANDIDATES)]
    return tuple(name.replace("\0", "\ufffd") for name in place), sources


def test_recorded_traces_are_read_as_services_read_them():
    with gzip.open(DATA / "traces.ndjson.gz", "rt", encoding="utf-8") as lines:
        for text in lines:
            assert_read_alike(text)


def test_hostile_lines_are_read_as_services_read_them(corpus):
    for text in [*corpus, *hostile.hostile_lines(3, 2000), *hostile.UNSETTLED]:
        assert_read_alike(text)


@given(hostile.LINES)
def test_any_hostile_lines_are_read_as_services_read_them(lines):
    for text in lines:
        assert_read_alike(text)


@given(
    st.from_regex(
        r"\s?[0-3]\d{3}-[01]\d-[0-3]\d[Tt ][0-2]\d:[0-6]\d:[0-6]\d(\.\d{0,9})?"
        r"([Zz]|[+-][0-2]\d(:?[0-6]\d)?)?\s?",
        fullmatch=True,
    )
    | st.text(max_size=40)
)
def test_timestamps_are_read_as_services_read_them(ts):
    assert oracle.instant_of(ts) == read_timestamp({"ts": ts})


COUNTED = (
    *("decisions", "empty_decisions", "served_items", "personalized_items"),
    *("reason_items", "reason_requested_items", "cold_start_items"),
)


def counted(lines: list[str], expected: list[dict[str, Any]]) -> tuple[Any, Any]:
    """What the oracle and a truth have in each namespace, surface and date."""
    truth = cells_of(expected, "namespace", "surface", "date")
    names = [name for name in COUNTED if name in expected[0]]
    days: dict[date, list[str]] = {}
    for text in lines:
        instant = oracle.instant_of(json.loads(text)["ts"])
        assert instant is not None
        days.setdefault(instant.date(), []).append(text)
    found: dict[tuple[str, ...], dict[str, int]] = {}
    for day, of_day in days.items():
        for one in rows(of_day, day=day):
            if one["surface"] != "all" and one["cohort"] == one["device"] == "all":
                found[one["namespace"], one["surface"], str(day)] = {
                    name: one[name] for name in names
                }
    return found, {key: {name: cell[name] for name in names} for key, cell in truth.items()}


def test_the_sample_is_exact_in_every_cell(truth):
    """And so is each source of it."""
    with gzip.open(DATA / "traces.ndjson.gz", "rt", encoding="utf-8") as stream:
        lines = list(stream)
    found, expected = counted(lines, truth["cells"])
    assert found == expected
    sources = [
        {**one, "date": str(one["day"])}
        for day in sorted({cell["date"] for cell in truth["cells"]})
        for one in rows(lines, SOURCES, date.fromisoformat(day))
    ]
    for one in sources:
        del one["longest_empty_streak"]
    keys = ("namespace", "surface", "date", "source")
    of_surfaces = [one for one in sources if one["surface"] != "all"]
    assert cells_of(of_surfaces, *keys) == cells_of(truth["sources"], *keys)
    of_all = [one for one in sources if one["surface"] == "all"]
    keys = ("namespace", "date", "source")
    assert cells_of(of_all, *keys) == cells_of(truth["sources"], *keys)


def test_the_full_recording_is_exact_in_every_cell():
    names = {
        "decisions": "decisions",
        "decisions_empty": "empty_decisions",
        "served_items": "served_items",
        "personalized_served_items": "personalized_items",
        "items_with_reason_surfaced": "reason_items",
        "served_items_surfaced": "reason_requested_items",
    }
    cells = json.loads(recording("decision_traces.truth.json").read_text())["cells"]
    expected = [
        {
            "namespace": cell["namespace"].lower(),
            "surface": cell["surface"].lower() or "default",
            "date": cell["date"],
            **{ours: cell[theirs] for theirs, ours in names.items()},
        }
        for cell in cells
    ]
    with gzip.open(recording("decision_traces.ndjson.gz"), "rt", encoding="utf-8") as stream:
        found, truth = counted(list(stream), expected)
    assert found == truth
    assert sum(cell["served_items"] for cell in found.values()) == 54_108


# --- hostile lines --------------------------------------------------------------------------------


DAYS = st.sampled_from(hostile.CORPUS_DAYS)


@given(hostile.LINES, DAYS)
def test_roll_ups_add_up_whatever_the_lines(lines, day):
    """Of each roll-up, decisions and items are the sum over what it rolls up."""
    found = day_tables(lines, day)
    cells = ("surface", "cohort", "device")
    with_experiment = [one for one in found[BLEND] if one["experiment"] != "all"]
    without_variant = [one for one in found[BLEND] if one["variant"] == "all"]
    for table, dimensions, rolled_up in (
        (found[PERSONALIZATION], cells, cells),
        (with_experiment, ("experiment", "variant", *cells), ("variant",)),
        (without_variant, ("experiment", *cells), ("experiment", *cells)),
    ):
        for rolled in rolled_up:
            keys = ["org_id", "namespace", *(name for name in dimensions if name != rolled)]
            figures = [{name: one[name] for name in (*keys, rolled, *COUNTED)} for one in table]
            whole = cells_of((one for one in figures if one[rolled] == "all"), *keys)
            parts = cells_of((one for one in figures if one[rolled] != "all"), *keys)
            assert whole == parts


@given(hostile.LINES, DAYS)
def test_shares_are_shares(lines, day):
    for table in day_tables(lines, day, k=3, window_days=2).values():
        for one in table:
            for name, value in one.items():
                if name.endswith(("_share", "_rate", "_mean", "_coverage")):
                    assert value is None or 0 <= value <= 1, name


@given(hostile.LINES, DAYS, st.randoms(use_true_random=False))
def test_the_order_of_lines_matters_only_to_what_happened_at_one_instant(lines, day, rng):
    decisions = {one.instant: text for text in lines for one in oracle.decisions_of([text])}
    apart = list(decisions.values())
    shuffled = rng.sample(apart, len(apart))
    assert day_tables(shuffled, day, window_days=4) == day_tables(apart, day, window_days=4)


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_lines_that_are_no_decision_change_nothing(corpus):
    day = hostile.CORPUS_DAYS[-1]
    kept = [text for text in corpus if next(oracle.decisions_of([text]), None) is not None]
    assert len(kept) < len(corpus) - 100
    assert day_tables(kept, day) == day_tables(corpus, day)


def test_unsettled_lines_touch_only_their_namespace():
    day = hostile.CORPUS_DAYS[1]
    lines = hostile.hostile_lines(4, 200)
    with_them = day_tables([*lines, *hostile.UNSETTLED], day)
    for table, of_table in day_tables(lines, day).items():
        others = [one for one in with_them[table] if one["namespace"] != "unsettled"]
        assert others == of_table
        assert len(with_them[table]) > len(of_table) or table == SOURCES


# --- the corpora ----------------------------------------------------------------------------------


def test_a_corpus_is_the_same_for_the_same_seed_and_lines_end_where_they_should(corpus):
    assert corpus in [hostile.corpus(seed) for seed in hostile.CORPUS_SEEDS]
    assert len(corpus) == hostile.CORPUS_LINES
    assert not any("\n" in text for text in corpus)
    assert hostile.hostile_lines(1, 50) == hostile.hostile_lines(1, 50)


def test_a_corpus_has_what_tests_need(corpus):
    """Users enough for percentiles, entropy that is reliable and some that is not, every rule."""
    decisions = list(oracle.decisions_of(corpus))
    days = Counter(one.instant.date() for one in decisions)
    assert min(days[day] for day in hostile.CORPUS_DAYS) > 500
    assert {*hostile.NAMESPACES, "unknown", "all"} <= {one.namespace for one in decisions}
    assert {hostile.ORG, hostile.OTHER_ORG, "unknown"} == {one.org_id for one in decisions}
    assert sum(not one.decision_id for one in decisions) > 10
    found = [day_tables(corpus, day, org=hostile.ORG) for day in hostile.CORPUS_DAYS]
    cells, blend, sources = (
        [one for of_day in found for one in of_day[table]]
        for table in (PERSONALIZATION, BLEND, SOURCES)
    )
    assert {"unknown", "new", "returning", "vip", "all_"} <= {one["cohort"] for one in cells}
    assert {"unknown", "web", "tv"} <= {one["device"] for one in cells}
    assert "all_" in {one["surface"] for one in cells}
    assert sum(one["jaccard_p99"] is not None for one in cells) > 4 * len(hostile.NAMESPACES)
    for of in oracle.DIMENSIONS:
        assert {one[f"entropy_{of}_reliable"] for one in cells} == {True, False}
    assert {"blend", "diversity", "none", "none_", "all_"} <= {one["experiment"] for one in blend}
    assert any(one["longest_empty_streak"] > 1 for one in sources)
    repeated = len(decisions) - sum(
        len(oracle.once(one for one in decisions if one.instant.date() == day)) for day in days
    )
    assert repeated > 30


def test_every_trap_is_sprung_in_a_corpus(corpus):
    """Each text and each scalar that is planted is there, and each way in which a line is none."""
    text = "\n".join(corpus)
    assert "\u2028" in text  # a line end to some readers
    ids = {
        repr(one.get("item_id"))
        for line in corpus
        if is_json(line) and isinstance(trace := json.loads(line), dict)
        for one in hostile.items_of(trace)
    }
    planted = (*hostile.ODD_IDS, *hostile.OTHER_IDS, *hostile.NO_IDS)
    assert {repr(item_id) for item_id in planted} <= ids
    read = [read_decision(json.loads(line)) for line in corpus if is_json(line)]
    malformed = {one.value for one in read if not isinstance(one, Decision)}
    assert malformed == {"not_a_trace", "items_not_a_list", "item_not_an_object"}
    assert sum(not is_json(line) for line in corpus) > 30


def test_no_list_of_a_corpus_hangs_on_the_order_of_lines(corpus):
    """Of decisions of one user, surface and instant, the largest id is the last; ids tell."""
    lists: dict[tuple[object, ...], set[tuple[str | None, ...]]] = {}
    for day in hostile.CORPUS_DAYS:
        of_day = [one for one in oracle.decisions_of(corpus) if one.instant.date() == day]
        for one in oracle.once(of_day):
            if one.user_hash is not None and any(one.item_ids):
                key = (one.org_id, one.namespace, one.surface, one.user_hash)
                key = (*key, one.instant, one.decision_id)
                lists.setdefault(key, set()).add(tuple(one.item_ids))
    assert max(map(len, lists.values())) == 1


def test_each_trap_changes_a_trace():
    for trap in hostile.TRAPS:
        rng = Random(1)
        plain, trapped = (hostile.plausible(Random(2), DAY) for _ in range(2))
        trap(rng, trapped)
        assert trapped != plain, trap
