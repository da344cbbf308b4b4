"""The simulation of the alerts: traffic is what it says, and alerts fire as the rules say."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.prometheus.values import load
from monitoring.simulation.__main__ import HOURLY, RHYTHMS, usable
from monitoring.simulation.cases import DROPS, Case, outcome
from monitoring.simulation.ladder import (
    LITERAL,
    LONGEST_WINDOW,
    Alert,
    Evaluations,
    alerts,
    beginnings,
    judged,
)
from monitoring.simulation.traffic import (
    BURSTS,
    CLUSTERINGS,
    ITEMS,
    POOL_SIZE,
    SHARED_BURSTS,
    WHOLE_DECISIONS,
    Recorded,
    Traffic,
    rates,
    read_recording,
    simulated,
    thinned,
)
from tests.conftest import recording

REPOSITORY = Path(__file__).parents[1]
ALERTS = alerts(load())
PAGE, TICKET = ALERTS["PersonalizationDrop"], ALERTS["PersonalizationDropLowTraffic"]
SHARES = (0.60, *DROPS)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    """Few decisions of many items among many of few, as those that were recorded."""
    random = np.random.default_rng(7)
    served = np.where(random.random(400) < 0.02, 400, random.integers(0, 20, 400))
    return Recorded(served, random.binomial(served, 0.8))


# --- traffic ----------------------------------------------------------------------------------


@pytest.mark.parametrize("clustering", CLUSTERINGS, ids=lambda clustering: clustering.name)
def test_decisions_keep_their_sizes_and_lose_items_until_the_share_is_right(
    recorded, clustering, random
):
    pool = thinned(recorded, SHARES, clustering, random)
    copies = np.arange(POOL_SIZE) % len(recorded.served)
    assert (pool.served == recorded.served[copies]).all()
    assert (pool.squared == pool.served**2).all()
    left = recorded.personalized[copies]
    for share, personalized in zip(SHARES, pool.personalized, strict=True):
        assert personalized.sum() / pool.served.sum() == pytest.approx(share, abs=0.001)
        assert (personalized <= left).all(), "what is lost at one share is lost at a lower one"
        left = personalized


def test_whole_decisions_and_whole_bursts_share_a_fate(recorded, random):
    copies = np.arange(POOL_SIZE) % len(recorded.served)
    before = recorded.personalized[copies]
    for clustering in (WHOLE_DECISIONS, BURSTS, SHARED_BURSTS):
        (after,) = thinned(recorded, SHARES[:1], clustering, random).personalized
        assert ((after == before) | (after == 0)).all()
        bursts = np.split(np.arange(POOL_SIZE // 10 * 10), POOL_SIZE // 10)
        split = [burst for burst in bursts if 0 < after[burst].sum() < before[burst].sum()]
        # The share is met within a burst, which is the one that may be split.
        assert (len(split) <= 1) == clustering.shared
    (after,) = thinned(recorded, SHARES[:1], ITEMS, random).personalized
    assert ((after > 0) & (after < before)).any()


def test_a_share_that_was_not_recorded_cannot_be_made(recorded, random):
    with pytest.raises(ValueError, match=r"there is no 0\.95 in it"):
        thinned(recorded, [0.95], WHOLE_DECISIONS, random)


def test_traffic_has_the_volume_and_the_rhythm_that_were_asked_for(recorded, random):
    by_minute = rates(600, days=10, rhythm=0.9)
    assert by_minute.mean() == pytest.approx(10)
    assert (by_minute.argmax(), by_minute.max()) == (20 * 60, pytest.approx(19))
    traffic = simulated(thinned(recorded, SHARES, BURSTS, random), by_minute, random)
    assert traffic.minutes == 10 * 24 * 60
    assert traffic.served[-1] / recorded.served.mean() == pytest.approx(10 * 24 * 600, rel=0.02)
    for share, personalized in zip(SHARES, traffic.personalized, strict=True):
        assert personalized[-1] / traffic.served[-1] == pytest.approx(share, abs=0.01)
    night, evening = (
        traffic.served[minute + 60] - traffic.served[minute] for minute in (8 * 60, 20 * 60)
    )
    assert night < evening / 5


def test_a_burst_comes_within_a_minute(recorded, random):
    """And is one of decisions that were recorded one after the other."""
    pool = thinned(recorded, SHARES, BURSTS, random)
    traffic = simulated(pool, rates(1, days=20), random)
    bursts = {int(pool.served[start : start + 10].sum()) for start in range(0, POOL_SIZE - 10, 10)}
    of_minutes = np.diff(traffic.served)
    assert sum(int(n) in bursts for n in of_minutes if n) / (of_minutes > 0).sum() > 0.95


def test_a_seed_gives_the_same_outcome_again(recorded):
    case = Case("home", 600, 0.9, WHOLE_DECISIONS)
    first, again, other = (
        outcome(recorded, case, ALERTS, days=20, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


# --- alerts -----------------------------------------------------------------------------------


def firing(condition: Iterable[bool], hold: int, keep: int) -> list[bool]:
    """At each evaluation, as Prometheus documents ``for`` and ``keep_firing_for``."""
    fires, active_since, well_since = [False], None, None
    for now, low in enumerate(condition):
        if low:
            active_since, well_since = now if active_since is None else active_since, None
            fires.append(fires[-1] or now - active_since >= hold)
            continue
        well_since = now if well_since is None else well_since
        fires.append(fires[-1] and now - well_since < keep)
        if not fires[-1]:
            active_since = None
    return fires[1:]


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 5), st.integers(0, 5))
def test_an_alert_begins_to_fire_as_prometheus_does(condition, hold, keep):
    fires = [False, *firing(condition, hold, keep)]
    began = [now for now, pair in enumerate(pairwise(fires)) if pair == (False, True)]
    assert beginnings(np.array(condition, bool), hold, keep) == began


def traffic_of(served: list[int], squared: list[int], *personalized: list[int]) -> Traffic:
    """What came in each minute, after as long as the longest window in which nothing did."""

    def running(by_minute: list[int]) -> np.ndarray:
        return np.cumsum([0] * (LONGEST_WINDOW + 1) + by_minute)

    return Traffic(running(served), running(squared), [running(row) for row in personalized])


def test_the_shortest_window_that_holds_enough_effective_decisions_is_judged():
    """One decision of 1,000 items among small ones does not make enough of them."""
    minutes, rows = 60, [1000] * 60
    alike = traffic_of(rows, [1000 * 10] * minutes, [500] * minutes)
    share, window = judged(Evaluations.of(alike, 0), (30, 120), 1000)
    assert window.tolist() == [0] * 9 + [30] * 51, "100 decisions of 10 items a minute"
    assert (share[9:] == 0.5).all()
    huge = traffic_of(rows, [1000**2] * minutes, [500] * minutes)
    assert (judged(Evaluations.of(huge, 0), (30, 120), 1000)[1] == 0).all()


def test_the_threshold_itself_is_well():
    alert = Alert(0.55, (30,), 1000, hold=5)
    for personalized, fires in ((5500, []), (5499, [5])):
        steady = traffic_of([10_000] * 60, [100_000] * 60, [personalized] * 60)
        assert alert.fires(Evaluations.of(steady, 0)) == fires


def test_low_traffic_is_left_to_the_ticket_and_only_that():
    a_day = 24 * 60
    quiet = traffic_of([1] * 3 * a_day, [1] * 3 * a_day, [0] * 3 * a_day)
    at = Evaluations.of(quiet, 0)
    assert PAGE.fires(at) == [], "720 decisions in 12 hours"
    assert TICKET.fires(at) == [999 + TICKET.hold]
    busy = traffic_of([2] * 3 * a_day, [2] * 3 * a_day, [0] * 3 * a_day)
    at = Evaluations.of(busy, 0)
    assert PAGE.fires(at) == [499 + PAGE.hold]
    assert TICKET.fires(at) == []


def test_a_drop_is_followed_as_if_the_traffic_had_dropped(recorded, random):
    pool = thinned(recorded, SHARES, WHOLE_DECISIONS, random)
    traffic = simulated(pool, rates(2000, days=9), random)
    drop, minutes = LONGEST_WINDOW + 300, 900
    rows = [np.diff(column) for column in traffic.personalized]
    fallen = np.concatenate([rows[0][:drop], rows[2][drop:]])
    fell = Traffic(traffic.served, traffic.squared, [np.concatenate([[0], np.cumsum(fallen)])])
    after = Evaluations.after_drops(traffic, np.array([drop]), minutes, 0, 2)
    for window in (5, 30, 720, 10080):
        for found, expected in zip(
            after.window(window), Evaluations.of(fell, 0, drop).window(window), strict=True
        ):
            assert (found[0] == expected[:minutes]).all()
    (first,) = PAGE.first(after)
    assert first == PAGE.fires(Evaluations.of(fell, 0, drop))[0]


def test_the_numbers_are_those_that_the_rules_are_made_of():
    assert Alert(0.55, [30, 120, 720], 1000, 5, 15) == PAGE
    assert Alert(0.55, [4320, 10080], 1000, 5, 0, [30, 120, 720]) == TICKET
    assert ALERTS["PersonalizationBelowBaseline"] == Alert(0.57, [1440, 10080], 4000, 5)


# --- the promise, at small scale --------------------------------------------------------------


@pytest.fixture(scope="module")
def surfaces() -> dict[str, Recorded]:
    return usable(read_recording(recording("decision_traces.ndjson.gz")))


@pytest.mark.parametrize("hourly", [60, 600, 2000])
@pytest.mark.parametrize("rhythm", RHYTHMS.values(), ids=list(RHYTHMS))
def test_nobody_is_woken_by_chance_and_a_drop_is_found(hourly, rhythm, surfaces):
    """Whole decisions lost, on the surface whose decisions differ most; eight weeks."""
    case = Case("cart", hourly, rhythm, WHOLE_DECISIONS)
    seen = outcome(surfaces["cart"], case, ALERTS, days=56, seed=1)
    assert sum(n for alert, n in seen.fired.items() if alert != LITERAL) == 0
    found = [found for (share, _), found in seen.found.items() if share == DROPS[-1]]
    assert sum(one.drops for one in found) >= 10
    assert sum(one.in_time for one in found) >= 0.95 * sum(one.drops for one in found)
    if not rhythm:
        assert sum(one.in_window for one in found) >= 0.95 * sum(one.drops for one in found)
    assert seen.not_judged == 0


def test_every_surface_of_the_recording_is_simulated(surfaces):
    assert list(surfaces) == ["cart", "default", "email", "home", "pdp", "search"]
    assert sum(len(one.served) for one in surfaces.values()) == 3556


# --- the tool ---------------------------------------------------------------------------------


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitoring.simulation", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def written(path: Path, traces: list[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(trace) + "\n" for trace in traces).encode()))
    return path


def test_tables_are_written_between_the_marks_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- simulated -->\nold\n<!-- end -->\nafter\n")
    items = [{"item_id": str(n), "personalized": n < 4} for n in range(5)]
    trace = {"ts": "2026-11-19T10:00:00Z", "surface": "Home", "final_items": items}
    traces = written(tmp_path / "traces.ndjson.gz", 60 * [trace])
    done = run(traces, "--days", "1", "--seeds", "1", "--write", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert page.read_text() == f"before\n<!-- simulated -->\n{done.stdout}<!-- end -->\nafter\n"
    assert "| home | 60 | 5 | 5 | 1.00 | 0.800 |" in done.stdout
    assert "| shared bursts | 20,000 | daily |" in done.stdout

    other = run(traces, "--days", "1", "--seeds", "1", "--windows", "5m", "1h", "--least", "1")
    assert "--days 1 --seeds 1 --windows 5m 1h --least 1`" in other.stdout
    healthy = "| decisions | 60 | flat | 0 |"
    assert healthy in done.stdout
    assert healthy not in other.stdout

    page.write_text("no marks")
    done = run(traces, "--days", "1", "--seeds", "1", "--write", page)
    assert done.returncode != 0
    assert "there are no marks" in done.stderr


def test_a_recording_that_cannot_be_resampled_is_refused(tmp_path):
    trace = {"ts": "2026-11-19T10:00:00Z", "final_items": []}
    done = run(written(tmp_path / "few.ndjson.gz", [trace]))
    assert done.returncode != 0
    assert "nothing to resample" in done.stderr
    done = run(written(tmp_path / "timeless.ndjson.gz", [trace, {"final_items": []}]))
    assert done.returncode != 0
    assert "timeless.ndjson.gz:2: no decision trace with a time" in done.stderr


def test_the_page_has_what_was_simulated():
    page = (REPOSITORY / "docs" / "alert-simulation.md").read_text()
    for clustering in CLUSTERINGS:
        for hourly in HOURLY:
            for rhythm in RHYTHMS:
                assert f"| {clustering.name} | {hourly:,} | {rhythm} |" in page
