"""The job makes the rows that the oracle makes, of recorded traces and of hostile ones."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import date, timedelta
from itertools import cycle
from pathlib import Path
from random import Random

import pytest

from otel_personalization.daily.engines import EngineError
from otel_personalization.daily.job import Run
from tests.conftest import DATA, recording
from tests.daily import hostile, oracle
from tests.daily.comparison import computed, differences, snapshots

SAMPLE = DATA / "traces.ndjson.gz"
WINDOWS = ((10, 1), (3, 2))
"""Items of a list, and days from which lists are taken; days have them in turns."""
NO_ITEMS = {"final_items": []}


def lines_of(file: Path) -> list[str]:
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        return stream.read().splitlines()


def compare(lines: list[str], folder: Path, least_rows: int = 1) -> int:
    """Compare every day and organisation of which there is that much; how many there were."""
    manifests = snapshots(lines, folder)
    of_day = [
        (day, org_id)
        for day, manifest in manifests.items()
        for org_id, rows in manifest.organisations.items()
        if rows >= least_rows
    ]
    for (day, org_id), (k, window_days) in zip(of_day, cycle(WINDOWS), strict=False):
        tables = computed(manifests, Run(day, org_id, k, window_days))
        expected = oracle.day_tables(lines, day, k=k, window_days=window_days, org=org_id)
        assert differences(tables, expected) == []
    return len(of_day)


def test_the_recorded_sample_gives_the_rows_of_the_oracle(tmp_path):
    assert compare(lines_of(SAMPLE), tmp_path) >= 5


def test_the_full_recording_gives_the_rows_of_the_oracle(tmp_path):
    assert compare(lines_of(recording("decision_traces.ndjson.gz")), tmp_path) == 5


@pytest.mark.parametrize("seed", [1])
def test_hostile_traces_give_the_rows_of_the_oracle(seed, tmp_path):
    assert compare(hostile.corpus(seed), tmp_path, least_rows=100) >= 4


def test_more_users_than_are_compared_are_chosen_as_the_oracle_chooses(tmp_path, monkeypatch):
    monkeypatch.setattr(oracle, "LARGEST_COMPARISON", 5)
    monkeypatch.setattr("otel_personalization.daily.job.MOST_USERS", 5)
    monkeypatch.setattr("otel_personalization.daily.measures.MOST_USERS", 5)
    lines = lines_of(SAMPLE)
    manifests = snapshots(lines, tmp_path)
    day = max(manifests)
    (org_id,) = manifests[day].organisations
    tables = computed(manifests, Run(day, org_id, window_days=5))
    assert differences(tables, oracle.day_tables(lines, day, org=org_id, window_days=5)) == []
    rows = tables.rows["analytics.personalization_daily"].to_pylist()
    assert any(row["overlap_users"] == 5 < row["overlap_eligible_users"] for row in rows)


def test_the_order_of_lines_makes_no_difference(tmp_path):
    lines = lines_of(SAMPLE)
    shuffled = list(lines)
    Random(7).shuffle(shuffled)
    tables = []
    for name, given in (("one", lines), ("other", shuffled)):
        (tmp_path / name).mkdir()
        manifests = snapshots(given, tmp_path / name)
        day = max(manifests)
        (org_id,) = manifests[day].organisations
        tables.append(computed(manifests, Run(day, org_id)))
    for name, rows in tables[0].rows.items():
        assert rows.equals(tables[1].rows[name]), name


def test_the_rules_that_told_users_apart_are_counted(tmp_path):
    lines = lines_of(SAMPLE)
    manifests = snapshots(lines, tmp_path)
    first, last = min(manifests), max(manifests)
    (org_id,) = manifests[first].organisations
    of_first = computed(manifests, Run(first, org_id)).quality
    assert set(of_first.cohort_rules) == {"unknown"}
    assert of_first.history_days == 0
    of_last = computed(manifests, Run(last, org_id)).quality
    assert of_last.cohort_rules["history"] > 0
    assert of_last.history_days == len(manifests) - 1
    assert sum(of_last.device_rules.values()) == of_last.decisions


def test_each_rule_is_counted_where_it_told_a_decision_apart(tmp_path):
    day = date(2026, 11, 21)
    of_day = (
        {"user_hash": "seen", "bandit": {"bucket_key": "ctx:device=web"}},
        {"extras": {"cohort": "vip", "device": "ios"}},
        {"user_hash": "seen", "extras": {"cohort": "vip"}, "bandit": {"bucket_key": "ctx:"}},
        {"user_hash": "new", "extras": {"device": "ios"}},
        {"extras": {"device": " "}},
    )
    lines = [
        json.dumps({"ts": f"{on}T12:00:00Z", "final_items": []} | decision)
        for on, decisions in ((day - timedelta(days=1), of_day[:1]), (day, of_day))
        for decision in decisions
    ]
    found = computed(snapshots(lines, tmp_path), Run(day, "unknown")).quality
    assert found.cohort_rules == {"history": 2, "extras": 2, "unknown": 1}
    assert found.device_rules == {"bucket_key": 1, "extras": 2, "unknown": 2}


def test_days_of_the_window_without_a_snapshot_are_missing_and_those_without_a_decision_are_not(
    tmp_path,
):
    day = date(2026, 11, 21)
    of_days = ((1, "other"), (3, "one"), (0, "one"))
    lines = [
        json.dumps({"ts": f"{day - timedelta(days=ago)}T12:00:00Z", "org_id": org_id} | NO_ITEMS)
        for ago, org_id in of_days
    ]
    manifests = snapshots(lines, tmp_path)
    missing = [day - timedelta(days=ago) for ago in (4, 2)]
    for window_days, expected in ((5, missing), (3, missing[1:]), (2, []), (1, [])):
        found = computed(manifests, Run(day, "one", window_days=window_days)).quality
        assert list(found.missing_window_days) == expected


def test_other_decisions_than_the_manifest_has_are_an_error_and_no_day(tmp_path):
    manifests = snapshots(lines_of(SAMPLE), tmp_path)
    day = max(manifests)
    ((org_id, rows),) = manifests[day].organisations.items()
    manifests[day] = replace(manifests[day], organisations={org_id: rows + 1})
    with pytest.raises(
        EngineError, match=rf"{rows} decisions were counted, and its manifest has {rows + 1};"
    ):
        computed(manifests, Run(day, org_id))


def test_only_days_within_the_history_window_make_a_user_return(tmp_path):
    day = date(2026, 11, 21)
    lines = [
        json.dumps({"ts": f"{on}T12:00:00Z", "user_hash": "u", "final_items": [{"item_id": "a"}]})
        for on in (day, day - timedelta(days=3))
    ]
    manifests = snapshots(lines, tmp_path)
    for history_days, cohort in ((3, "returning"), (2, "unknown")):
        tables = computed(manifests, Run(day, "unknown", history_days=history_days))
        rows = tables.rows["analytics.personalization_daily"].to_pylist()
        assert {row["cohort"] for row in rows} == {cohort, "all"}
