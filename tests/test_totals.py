"""Running totals: exact whoever adds to them, bounded whatever the labels are."""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_personalization.conventions import (
    DROPPED_LOG_RECORDS,
    FOLDED_DECISIONS,
    INTERNAL_ERRORS,
    MALFORMED_TRACES,
    MAX_SOURCES,
    OUTCOME_COUNTERS,
    InternalErrorKind,
    MalformedReason,
)
from otel_personalization.totals import Totals
from otel_personalization.trace import Decision
from tests.conftest import decisions_of, run_program, sources_of

OTHER = ("other", "other")


def decision(
    surface: str = "home", served: int = 4, personalized: int = 2, **candidates: int
) -> Decision:
    return Decision("shop", surface, served, personalized, 1, 3, 0, candidates, False)


def test_every_count_goes_to_its_own_counter():
    totals = Totals()
    totals.add(Decision("shop", "home", 7, 5, 4, 6, 3, {"content": 0, "popularity": 9}, False))
    totals.add(Decision("shop", "home", 0, 0, 0, 0, 0, {"content": 2}, False))
    snapshot = totals.snapshot()
    assert decisions_of(snapshot) == {
        ("shop", "home"): {
            "decisions": 2,
            "empty_decisions": 1,
            "served_items": 7,
            "served_items_squared": 49,
            "personalized_items": 5,
            "reason_items": 4,
            "reason_requested_items": 6,
            "cold_start_items": 3,
        }
    }
    assert sources_of(snapshot) == {
        ("shop", "home", "content"): {"decisions": 2, "empty_decisions": 1, "candidates": 2},
        ("shop", "home", "popularity"): {"decisions": 1, "empty_decisions": 0, "candidates": 9},
    }


def test_events_are_counted_by_reason_and_kind_and_are_there_with_0_before():
    totals = Totals()
    before = totals.snapshot()
    totals.add_malformed_trace(MalformedReason.NOT_A_TRACE)
    totals.add_internal_error(InternalErrorKind.LOCATE)
    totals.add_dropped_log_records(1)
    totals.add_dropped_log_records(1)
    after = totals.snapshot()
    for counter, labels, count in (
        (MALFORMED_TRACES, ("not_a_trace",), 1),
        (INTERNAL_ERRORS, ("locate",), 1),
        (DROPPED_LOG_RECORDS, (), 2),
        (FOLDED_DECISIONS, (), 0),
    ):
        assert before[counter,][labels] == (0,)
        assert after[counter,][labels] == (count,)
    assert set(after[MALFORMED_TRACES,]) == {(reason.value,) for reason in MalformedReason}


def test_outcomes_are_counted_by_namespace_and_surface():
    totals = Totals()
    totals.add_outcomes("shop", "home", impressions=20)
    totals.add_outcomes("shop", "home", clicks=3)
    assert totals.snapshot()[OUTCOME_COUNTERS] == {("shop", "home"): (20, 3)}


# --- threads ----------------------------------------------------------------------------------


@pytest.fixture
def _frequent_switches():
    """Threads take turns every 10 us rather than every 5 ms."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_frequent_switches")
def test_eight_threads_with_50_000_decisions_each_are_exact_while_a_reader_collects():
    """In every cell; and no snapshot on the way shows a part above its whole, or a fall."""
    totals = Totals()
    threads, each, surfaces = 8, 50_000, 5

    def add(number: int) -> None:
        for n in range(each):
            surface = f"surface_{(n + number) % surfaces}"
            totals.add(decision(surface, served=n % 7, personalized=min(n % 3, n % 7), s=n % 2))

    def expected() -> dict[Any, Any]:
        cells: dict[tuple[str, str], Counter[str]] = {}
        for number in range(threads):
            for n in range(each):
                cell = cells.setdefault(("shop", f"surface_{(n + number) % surfaces}"), Counter())
                served = n % 7
                cell["decisions"] += 1
                cell["empty_decisions"] += not served
                if served:
                    cell["served_items"] += served
                    cell["served_items_squared"] += served**2
                    cell["personalized_items"] += min(n % 3, served)
                    cell["reason_items"] += 1
                    cell["reason_requested_items"] += 3
        return {pair: {**cell, "cold_start_items": 0} for pair, cell in cells.items()}

    seen: list[dict[Any, Any]] = []
    adding = [threading.Thread(target=add, args=(number,)) for number in range(threads)]
    for thread in adding:
        thread.start()
    while any(thread.is_alive() for thread in adding):
        seen.append(decisions_of(totals.snapshot()))
    for thread in adding:
        thread.join()

    assert decisions_of(totals.snapshot()) == expected()
    sources = sources_of(totals.snapshot()).values()
    assert sum(source["decisions"] for source in sources) == threads * each
    assert sum(source["candidates"] for source in sources) == threads * each // 2
    assert len(seen) > 10
    before: dict[Any, Any] = {}
    for cells in seen:
        for pair, cell in cells.items():
            assert cell["empty_decisions"] <= cell["decisions"]
            assert cell["personalized_items"] <= cell["served_items"]
            assert cell["served_items"] <= cell["served_items_squared"] <= 6 * cell["served_items"]
            for name, count in before.get(pair, {}).items():
                assert count <= cell[name]
        before = cells


def test_counts_of_threads_that_have_ended_stay_and_their_ledgers_are_used_again():
    """A thousand threads, one after the other, need no thousand ledgers."""
    totals = Totals()
    for _ in range(1000):
        thread = threading.Thread(target=totals.add, args=(decision(),))
        thread.start()
        thread.join()
    gc.collect()
    assert decisions_of(totals.snapshot())["shop", "home"]["decisions"] == 1000
    assert len(totals._ledgers) < 10


# --- folding ----------------------------------------------------------------------------------


def test_10_000_hostile_surfaces_before_the_real_ones_fold_and_the_declared_do_not():
    totals = Totals(64, declared={("shop", "home"), ("shop", "cart")})
    for n in range(10_000):
        totals.add(decision(f"hostile_{n}"))
    for _ in range(5):
        totals.add(decision("home"))
    totals.add(decision("late"))
    cells = decisions_of(totals.snapshot())
    assert len(cells) == 65
    assert cells["shop", "home"]["decisions"] == 5
    assert cells["shop", "cart"]["decisions"] == 0
    assert ("shop", "late") not in cells
    assert cells[OTHER]["decisions"] == 10_000 - 62 + 1
    assert sum(cell["decisions"] for cell in cells.values()) == 10_006
    assert totals.snapshot()[FOLDED_DECISIONS,][()] == (10_000 - 62 + 1,)


def test_the_bound_is_one_for_all_threads():
    totals = Totals(10)

    def add(number: int) -> None:
        for n in range(200):
            totals.add(decision(f"{number}_{n}"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cells = decisions_of(totals.snapshot())
    assert len(cells) == 11
    assert sum(cell["decisions"] for cell in cells.values()) == 1600


@pytest.mark.parametrize("label", ["x" * 65, "lone surrogate \ud800"])
def test_a_label_that_is_too_long_or_no_text_folds(label):
    totals = Totals()
    totals.add(decision(label))
    totals.add_outcomes("shop", label, clicks=1)
    assert set(decisions_of(totals.snapshot())) == {OTHER}
    assert set(totals.snapshot()[OUTCOME_COUNTERS]) == {OTHER}


def test_a_label_of_64_characters_does_not_fold():
    totals = Totals()
    totals.add(decision("x" * 64))
    assert set(decisions_of(totals.snapshot())) == {("shop", "x" * 64)}


def test_sources_past_16_fold_and_count_their_decision_once():
    """Two folded sources of one decision are one source `other`, empty if both are."""
    totals = Totals()
    totals.add(decision(**{f"s{n}": 1 for n in range(MAX_SOURCES)}))
    totals.add(decision(late=0, later=0))
    totals.add(decision(late=3, later=0, s0=5))
    sources = sources_of(totals.snapshot())
    assert len(sources) == MAX_SOURCES + 1
    assert sources["shop", "home", "other"] == {
        "decisions": 2,
        "empty_decisions": 1,
        "candidates": 3,
    }
    assert sources["shop", "home", "s0"] == {"decisions": 2, "empty_decisions": 0, "candidates": 6}


def test_a_source_that_is_called_other_is_one_with_the_folded_ones():
    totals = Totals()
    totals.add(decision(other=2, **{"x" * 65: 3}))
    assert sources_of(totals.snapshot()) == {
        ("shop", "home", "other"): {"decisions": 1, "empty_decisions": 0, "candidates": 5}
    }


def test_what_a_further_hook_reserves_is_added():
    totals = Totals(1)
    totals.add(decision("home"))
    totals.reserve(2, {("shop", "cart")})
    totals.reserve(1, ())
    totals.add(decision("cart"))
    totals.add(decision("late"))
    assert set(decisions_of(totals.snapshot())) == {("shop", "home"), ("shop", "cart"), OTHER}


def test_without_a_bound_nothing_folds():
    """As `replay` counts a file."""
    totals = Totals()
    totals.reserve(None, ())
    for n in range(200):
        totals.add(decision(f"{n}" + "x" * 65, **{f"source_{n}": 1}))
    assert len(decisions_of(totals.snapshot())) == 200
    assert len(sources_of(totals.snapshot())) == 200
    assert totals.snapshot()[FOLDED_DECISIONS,][()] == (0,)


LABELS = st.sampled_from(["home", "cart", "pdp", "x" * 65, "other", "\ud800"])


@given(
    st.lists(
        st.tuples(LABELS, st.integers(0, 9), st.dictionaries(LABELS, st.integers(0, 3))),
        max_size=30,
    )
)
def test_whatever_folds_nothing_is_lost(added):
    totals = Totals(2)
    for surface, served, candidates in added:
        totals.add(Decision("shop", surface, served, served, 0, 0, 0, candidates, False))
    snapshot = totals.snapshot()
    cells = decisions_of(snapshot).values()
    assert sum(cell["decisions"] for cell in cells) == len(added)
    assert sum(cell["served_items"] for cell in cells) == sum(served for _, served, _ in added)
    assert len(cells) <= 3
    assert sum(source["candidates"] for source in sources_of(snapshot).values()) == sum(
        sum(candidates.values()) for _, _, candidates in added
    )


# --- forks ------------------------------------------------------------------------------------


def test_a_child_starts_from_nothing_and_so_does_its_child():
    """Also while other threads of the parent add, whose ledgers the child must not count."""
    assert run_program("fork_totals")["counted"] == [[100, 100], [7, 7], [3, 3]]


def test_a_signal_handler_may_count_while_its_thread_admits_a_label():
    """It interrupts the thread that it then is."""
    totals = Totals()

    def interrupted() -> None:
        with totals._lock:
            totals.add(decision("new"))

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
