"""Outcomes: what is counted, and how sure it is, against definitions in plain Python."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from hashlib import md5
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_personalization.daily.engines import DuckDB
from otel_personalization.daily.job import Run, compute
from otel_personalization.daily.outcomes import (
    TYPES,
    Comparison,
    Estimate,
    OutcomesError,
    comparison_of,
    rate_of,
    read_outcomes,
    sample_ratio_p_value,
)
from otel_personalization.daily.tables import DayTables, OutcomeQuality
from tests.daily import hostile, oracle
from tests.daily.comparison import snapshots

SAMPLE = Path(__file__).parent.parent / "data" / "traces.ndjson.gz"
BLEND = "experiments.blend_weights_daily"
DIMENSIONS = ("experiment", "variant", "surface", "cohort", "device")
T = {29: 2.045229642132703, 39: 2.022690920036761, 59: 2.000995378088267}
"""The 97.5th percentile of Student's t, by degrees of freedom."""

Report = tuple[str, str, str]
"""Decision, item and type of an outcome."""


# --- the definitions once more ----------------------------------------------------------------


class Seen(NamedTuple):
    """An impression."""

    group: str
    place: int
    is_personalized: bool | None
    was_clicked: bool


class Known(NamedTuple):
    """A decision, and what its trace says of each item: whether it was personalised."""

    decision: oracle.Decision
    flags: Callable[[str], bool | None]


def flags_of(trace: dict[str, Any]) -> Callable[[str], bool | None]:
    """Whether an item was personalised, by the first evidence that there is; None if unknown."""
    items, extras = oracle.items_and_extras(trace)
    boosted = extras.get("personalized_items")
    ids = [oracle.id_text(item.get("item_id")) for item in items]
    if isinstance(boosted, list):
        members = {oracle.id_text(one) for one in boosted}
        return lambda item: item in members
    given = [item.get("personalized") for item in items]
    reasons = ["personalization" in oracle.texts(item.get("reasons")) for item in items]
    for marks in ([flag is True for flag in given], reasons):
        evidence = any(isinstance(flag, bool) for flag in given) if marks is not reasons else True
        if evidence and (any(marks) or marks is not reasons):
            marked = {one for one, mark in zip(ids, marks, strict=True) if mark}
            return lambda item: item in marked
    stamped = oracle.count_of(extras.get("personalized_items_count"), len(items)) or 0
    return lambda item: None if stamped else False


def expected_rows(
    lines: Sequence[str], day: date, org: str, reports: Sequence[Report]
) -> tuple[dict[tuple[str, ...], dict[str, Any]], OutcomeQuality]:
    """Outcome columns of each row, by namespace and `DIMENSIONS`; of a day without history."""
    counted = oracle.once(
        one for one in oracle.decisions_of(lines) if one.instant.date() == day and one.org_id == org
    )
    counted = [one._replace(cohort=one.cohort or oracle.UNKNOWN) for one in counted]
    known = {
        one.decision_id: Known(one, flags_of(json.loads(lines[one.ordinal])))
        for one in counted
        if one.decision_id
    }
    of_day = [one for one in reports if one[0] in known]
    of_items = [one for one in of_day if one[1] in known[one[0]].decision.item_ids]
    words: dict[tuple[str, str], set[str]] = defaultdict(set)
    for decision_id, item_id, word in of_items:
        words[decision_id, item_id].add(word)
    seen: dict[str, list[Seen]] = defaultdict(list)
    for (decision_id, item_id), said in words.items():
        if "impression" in said:
            decision, flags = known[decision_id]
            place = decision.item_ids.index(item_id)
            seen[decision_id].append(
                Seen(oracle.group_of(decision), place, flags(item_id), "click" in said)
            )
    rows = {}
    several = 0
    for (_, *key), cell in oracle.roll_up(counted, DIMENSIONS).items():
        row = columns_of([one for decision in cell for one in seen[decision.decision_id]])
        row |= {"sample_ratio_p_value": None, "users_of_several_variants": None}
        _, experiment, variant, *others = key
        if experiment not in (oracle.ALL, oracle.NONE) and variant == oracle.ALL:
            arms, shared = arms_of(cell)
            row |= {
                "sample_ratio_p_value": even_split(arms),
                "users_of_several_variants": shared,
            }
            several += shared if others == [oracle.ALL] * 3 else 0
        rows[tuple(key)] = row
    types = Counter(word for _, _, word in reports)
    return rows, OutcomeQuality(
        types={word: types[word] for word in TYPES},
        unreadable={},
        other_decisions=len(reports) - len(of_day),
        unknown_items=len(of_day) - len(of_items),
        unseen_clicks=sum("click" in said and "impression" not in said for said in words.values()),
        uncompared_impressions=sum(
            one.is_personalized is None for some in seen.values() for one in some
        ),
        users_of_several_variants=several,
    )


def arms_of(cell: Iterable[oracle.Decision]) -> tuple[list[int], int]:
    """The users of each variant who were in no other, and how many were in several."""
    variants: dict[str, set[str]] = defaultdict(set)
    for one in cell:
        if one.user_hash is not None and one.variant != oracle.NONE:
            variants[one.user_hash].add(one.variant)
    there = sorted({variant for some in variants.values() for variant in some})
    only = [sum(some == {variant} for some in variants.values()) for variant in there]
    return only, sum(len(some) > 1 for some in variants.values())


def even_split(arms: Sequence[int]) -> float | None:
    """Upper tail of chi-squared with m - 1 degrees of freedom, integrated step by step."""
    if len(arms) < 2 or sum(arms) < max(30, 5 * len(arms)):
        return None
    share = sum(arms) / len(arms)
    return chi_squared_tail(sum((n - share) ** 2 / share for n in arms), len(arms) - 1)


def chi_squared_tail(x: float, freedom: int) -> float:
    """By the recurrence from one or two degrees of freedom (Abramowitz and Stegun, 26.4.4-8)."""
    if x == 0:
        return 1.0
    start = 2 - freedom % 2
    tail = math.exp(-x / 2) if start == 2 else math.erfc(math.sqrt(x / 2))
    for n in range(start, freedom, 2):
        tail += math.exp(n / 2 * math.log(x / 2) - x / 2 - math.lgamma(n / 2 + 1))
    return tail


def columns_of(seen: Collection[Seen]) -> dict[str, Any]:
    """The columns of a row but the last two, without their intervals."""
    row: dict[str, Any] = {
        "impressions": len(seen),
        "clicks": sum(one.was_clicked for one in seen),
        "ctr": rate(seen),
        "personalized_ctr": None,
        "other_ctr": None,
        "ctr_difference": None,
    }
    places: dict[int, tuple[list[Seen], list[Seen]]] = defaultdict(lambda: ([], []))
    for one in seen:
        if one.is_personalized is not None:
            places[one.place][one.is_personalized].append(one)
    both = [kinds for kinds in places.values() if all(kinds)]
    if both:
        weights = [len(one) * len(other) / (len(one) + len(other)) for other, one in both]
        for column, kind in (("other_ctr", 0), ("personalized_ctr", 1)):
            rates = [rate(kinds[kind]) or 0.0 for kinds in both]
            row[column] = math.fsum(w * r for w, r in zip(weights, rates, strict=True)) / math.fsum(
                weights
            )
        row["ctr_difference"] = row["personalized_ctr"] - row["other_ctr"]
    return row


def rate(seen: Collection[Seen]) -> float | None:
    return sum(one.was_clicked for one in seen) / len(seen) if seen else None


# --- the job ----------------------------------------------------------------------------------


def with_outcomes(lines: list[str], day: date, org: str, files: list[Path]) -> DayTables:
    """What the job makes of a day without history."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        manifests = snapshots(lines, folder)
        outcomes = read_outcomes(files, folder / "read.parquet")
        with DuckDB([manifests[day]], org) as engine:
            return compute(engine, Run(day, org), {day: manifests[day]}, outcomes=outcomes)


def written(reports: Iterable[Report], file: Path) -> Path:
    file.write_text(
        "".join(
            json.dumps(
                {"ts": "2026-11-23T00:00:01Z", "decision_id": one, "item_id": item, "type": word}
            )
            + "\n"
            for one, item, word in reports
        ),
        "utf-8",
    )
    return file


def compare(tables: DayTables, expected: Mapping[tuple[str, ...], Mapping[str, Any]]) -> None:
    found = tables.rows[BLEND].to_pylist()
    assert len(found) == len(expected)
    for row in found:
        want = expected[(row["namespace"], *(row[name] for name in DIMENSIONS))]
        got = {name: row[name] for name in want}
        assert got == {
            name: pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
            for name, value in want.items()
        }, row


def made_up(lines: Sequence[str], rng: Random) -> list[Report]:
    """Outcomes of lines as clients report them: late, twice, of the wrong things."""
    reports: list[Report] = []
    for one in oracle.decisions_of(lines):
        if not one.decision_id or rng.random() < 0.3:
            continue
        for item in one.item_ids[: rng.choice((1, 4, 30))]:
            if item in (None, "True", "False"):  # Python's names of what JSON has as true and false
                continue
            for word, share in zip(TYPES, (0.9, 0.3, 0.05, 0.02), strict=True):
                reports += [(one.decision_id, item, word)] * (rng.random() < share)
        reports += rng.sample(reports, min(len(reports), 2))
        reports.append((rng.choice((one.decision_id, "no such decision")), "no such item", "click"))
    rng.shuffle(reports)
    return reports


def lines_of(file: Path) -> list[str]:
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        return stream.read().splitlines()


def test_the_recorded_sample_gives_the_rows_of_the_definitions(tmp_path):
    lines = lines_of(SAMPLE)
    reports = made_up(lines, Random(3))
    day = min(one.instant.date() for one in oracle.decisions_of(lines))
    (org,) = {one.org_id for one in oracle.decisions_of(lines)}
    expected, quality = expected_rows(lines, day, org, reports)
    tables = with_outcomes(lines, day, org, [written(reports, tmp_path / "outcomes.ndjson")])
    compare(tables, expected)
    assert tables.quality.outcomes == quality
    assert any(row["ctr_difference"] for row in expected.values())


@pytest.mark.parametrize("seed", [2])
def test_hostile_traces_give_the_rows_of_the_definitions(seed, tmp_path):
    lines = hostile.corpus(seed)
    reports = made_up(lines, Random(seed))
    day = min(hostile.CORPUS_DAYS)
    expected, quality = expected_rows(lines, day, hostile.ORG, reports)
    tables = with_outcomes(lines, day, hostile.ORG, [written(reports, tmp_path / "o.ndjson")])
    compare(tables, expected)
    assert tables.quality.outcomes == quality
    assert quality.unseen_clicks
    assert any(row["sample_ratio_p_value"] is not None for row in expected.values())


ITEMS = ("a", "b", "5", 'say "hi"', "é")
TRACES = st.lists(
    st.fixed_dictionaries(
        {"ts": st.just("2026-11-21T12:00:00Z"), "decision_id": st.sampled_from("xyz")},
        optional={
            "user_hash": st.sampled_from("uvw"),
            "final_items": st.lists(
                st.fixed_dictionaries(
                    {"item_id": st.sampled_from((*ITEMS, 5, None))},
                    optional={"personalized": st.booleans()},
                ),
                max_size=5,
            ),
            "extras": st.fixed_dictionaries(
                {},
                optional={
                    "personalized_items": st.lists(st.sampled_from((*ITEMS, 5))),
                    "personalized_items_count": st.integers(0, 3),
                    "bandit_experiment": st.sampled_from(("one", "all")),
                    "bandit_variant": st.sampled_from("AB"),
                },
            ),
        },
    ),
    min_size=1,
    max_size=6,
)
REPORTS = st.lists(
    st.tuples(st.sampled_from("xyzq"), st.sampled_from((*ITEMS, "z")), st.sampled_from(TYPES)),
    max_size=30,
)


@settings(max_examples=20, deadline=None)
@given(TRACES, REPORTS)
def test_any_few_outcomes_give_the_rows_of_the_definitions(traces, reports):
    lines = [json.dumps(trace) for trace in traces]
    day = date(2026, 11, 21)
    expected, quality = expected_rows(lines, day, oracle.UNKNOWN, reports)
    with TemporaryDirectory() as folder:
        file = written(reports, Path(folder) / "outcomes.ndjson")
        tables = with_outcomes(lines, day, oracle.UNKNOWN, [file])
    compare(tables, expected)
    assert tables.quality.outcomes == quality


def trace_of(**fields: Any) -> str:
    trace = {
        "ts": "2026-11-21T23:59:59Z",
        "decision_id": "d",
        "final_items": [{"item_id": "a"}, {"item_id": "b"}],
    }
    return json.dumps(trace | fields)


def whole(lines: list[str], reports: Iterable[Report], tmp_path: Path) -> dict[str, Any]:
    """The row of everything."""
    file = written(reports, tmp_path / "outcomes.ndjson")
    tables = with_outcomes(lines, date(2026, 11, 21), "unknown", [file])
    (row,) = (
        row
        for row in tables.rows[BLEND].to_pylist()
        if all(row[name] == "all" for name in DIMENSIONS)
    )
    return row | {"quality": tables.quality.outcomes}


def test_a_click_after_midnight_counts_with_its_decision(tmp_path):
    row = whole([trace_of()], [("d", "a", "impression"), ("d", "a", "click")], tmp_path)
    assert (row["impressions"], row["clicks"], row["ctr"]) == (1, 1, 1.0)


def test_what_is_reported_again_counts_once(tmp_path):
    reports = [("d", "a", "impression"), ("d", "a", "click"), ("d", "b", "impression")] * 3
    row = whole([trace_of(), trace_of()], reports, tmp_path)
    assert (row["impressions"], row["clicks"]) == (2, 1)


def test_a_click_without_an_impression_is_in_no_rate_and_told(tmp_path):
    lines = [trace_of(decision_id=one, user_hash="u") for one in "de"]
    row = whole(lines, [("d", "a", "click"), ("e", "a", "impression")], tmp_path)
    assert (row["impressions"], row["clicks"], row["ctr"]) == (1, 0, 0.0)
    assert row["quality"].unseen_clicks == 1


def test_without_any_outcome_of_the_day_there_is_no_rate(tmp_path):
    row = whole([trace_of()], [("other", "a", "impression")], tmp_path)
    assert (row["impressions"], row["clicks"], row["ctr"]) == (0, 0, None)
    assert row["quality"].other_decisions == 1


def test_of_a_mere_count_no_item_is_taken_to_be_personalised_or_not(tmp_path):
    stamped = trace_of(extras={"personalized_items_count": 1})
    flagged = trace_of(decision_id="e", extras={"personalized_items": ["a"]})
    plain = trace_of(decision_id="f")
    reports = [(one, "a", "impression") for one in "def"]
    row = whole([stamped, flagged, plain], reports, tmp_path)
    assert row["quality"].uncompared_impressions == 1
    assert (row["impressions"], row["personalized_ctr"], row["other_ctr"]) == (3, 0.0, 0.0)
    assert whole([stamped, flagged], reports, tmp_path)["ctr_difference"] is None


def test_items_at_places_without_the_other_kind_are_not_compared(tmp_path):
    mixed = trace_of(extras={"personalized_items": ["a"]})
    plain = trace_of(decision_id="e", extras={"personalized_items": []})
    reports = [(one, item, "impression") for one in "de" for item in "ab"]
    row = whole([mixed, plain], [*reports, ("d", "a", "click"), ("d", "b", "click")], tmp_path)
    assert (row["personalized_ctr"], row["other_ctr"], row["ctr_difference"]) == (1.0, 0.0, 1.0)


# --- reading ----------------------------------------------------------------------------------


def read(lines: Iterable[bytes], tmp_path: Path) -> tuple[list[Report], dict[str, int], list[str]]:
    """What is read of lines, what cannot be, and how that is told."""
    (tmp_path / "o.ndjson").write_bytes(b"\n".join(lines))
    found = read_outcomes([tmp_path / "o.ndjson"], tmp_path / "read.parquet")
    rows = pq.read_table(found.data).to_pylist()
    assert found.count == len(rows)
    assert found.types == {word: sum(row["type"] == word for row in rows) for word in TYPES}
    told = [str(problem) for problem in found.problems.first]
    return [tuple(row.values()) for row in rows], dict(found.problems.counts), told


def test_lines_that_say_nothing_are_counted_and_told_with_their_place(tmp_path):
    good = b'{"decision_id": "d", "item_id": 5, "type": " Click ", "ts": null, "more": [1]}'
    rows, problems, told = read(
        [
            good,
            b"{",
            b"",
            b'{"decision_id": "d", "item_id": "a"}',
            b'{"decision_id": "d", "item_id": "a", "type": "view"}',
            b'{"decision_id": "", "item_id": "a", "type": "click"}',
            b'{"decision_id": "d", "item_id": {"id": "a"}, "type": "click"}',
            b"[1]",
            b"\xff",
        ],
        tmp_path,
    )
    assert rows == [("d", "5", "click")]
    assert problems == {"no_json": 2, "no_ids": 3, "unknown_type": 2}
    file = tmp_path / "o.ndjson"
    assert told == [
        f"{file}:2: no JSON",
        f"{file}:4: unknown type null",
        f'{file}:5: unknown type "view"',
        f"{file}:6: no decision_id, or no item_id",
        f"{file}:7: no decision_id, or no item_id",
        f"{file}:8: no decision_id, or no item_id",
        told[-1],
    ]
    assert told[-1].startswith(f"{file}:9: no JSON")


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.sampled_from(("{}", "[x]", "{", "null", "%")),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.text("ab"), SCALARS))
OUTCOMES = st.fixed_dictionaries(
    {}, optional={"decision_id": VALUES, "item_id": VALUES, "type": st.sampled_from((*TYPES, "no"))}
)


def text_of(value: Any) -> str | None:
    """A scalar as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None or isinstance(value, (list, dict)) else str(value)


@settings(deadline=None)
@given(st.lists(st.one_of(VALUES, OUTCOMES), max_size=8))
def test_whatever_a_line_holds_is_read_or_counted(values):
    rows = []
    problems: Counter[str] = Counter()
    for value in values:
        of = value if isinstance(value, dict) else {}
        one, item = text_of(of.get("decision_id")), text_of(of.get("item_id"))
        if not one or item is None:
            problems["no_ids"] += 1
        elif of.get("type") not in TYPES:
            problems["unknown_type"] += 1
        else:
            rows.append((one, item, of["type"]))
    with TemporaryDirectory() as folder:
        found, unread, _ = read([json.dumps(value).encode() for value in values], Path(folder))
    assert (found, unread) == (rows, problems)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=6))
def test_no_bytes_break_the_reader(lines):
    with TemporaryDirectory() as folder:
        rows, problems, _ = read([b"", *lines], Path(folder))  # so that it is no Parquet file
    assert len(rows) + sum(problems.values()) <= len(lines)


def test_a_parquet_file_is_read_by_its_columns_and_not_by_its_path(tmp_path):
    folder = tmp_path / "item_id=b" / "type=click"
    folder.mkdir(parents=True)
    row = {"decision_id": "d", "item_id": "a", "type": "impression"}
    pq.write_table(pa.Table.from_pylist([row]), folder / "outcomes.parquet")
    found = read_outcomes([folder / "outcomes.parquet"], tmp_path / "read.parquet")
    assert pq.ParquetFile(found.data).read().to_pylist() == [row]


def test_gzip_and_parquet_are_known_by_content_and_read_together(tmp_path):
    line = b'{"decision_id": "d", "item_id": "a", "type": "click"}\n'
    zipped, table, odd = tmp_path / "zipped", tmp_path / "table", tmp_path / "odd [1]*.parquet"
    zipped.write_bytes(gzip.compress(line * 2))
    ids = "7f3c1f0e-6d6a-4d5e-9a51-1c4f1fd3a111"
    duckdb.sql(
        f"SELECT 7 AS item_id, CAST('{ids}' AS UUID) AS decision_id, 'Impression' AS type, "
        "now() AS ts"
    ).write_parquet(str(table))
    duckdb.sql(
        "SELECT unnest([1.5, NULL]) AS item_id, CAST('d' AS BLOB) AS decision_id, 'x' AS type"
    ).write_parquet(str(odd))
    found = read_outcomes([table, zipped, odd], tmp_path / "read.parquet")
    rows = [tuple(row.values()) for row in pq.read_table(found.data).to_pylist()]
    assert sorted(rows) == [(ids, "7", "impression"), *[("d", "a", "click")] * 2]
    assert found.problems.counts == {"unknown_type": 1, "no_ids": 1}
    assert {str(problem) for problem in found.problems.first} == {
        f'{odd}:1: unknown type "x"',
        f"{odd}:2: no decision_id, or no item_id",
    }


def test_what_is_before_the_damage_of_a_file_counts(tmp_path):
    line = b'{"decision_id": "d", "item_id": "a", "type": "click"}\n'
    (tmp_path / "o.gz").write_bytes(gzip.compress(line * 100_000)[:-200])
    found = read_outcomes([tmp_path / "o.gz"], tmp_path / "read.parquet")
    assert 0 < found.count < 100_000
    assert found.problems.counts == {"damaged": 1}


def test_a_table_that_cannot_be_read_says_which_and_what_to_do(tmp_path):
    file = tmp_path / "o.parquet"
    duckdb.sql("SELECT 'd' AS decision_id, 'click' AS type").write_parquet(str(file))
    said = r"o\.parquet has no column item_id; an outcomes file has the columns decision_id,"
    with pytest.raises(OutcomesError, match=said):
        read_outcomes([file], tmp_path / "read.parquet")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(OutcomesError, match=r"o\.parquet cannot be read: .*; write it again"):
        read_outcomes([file], tmp_path / "read.parquet")
    with pytest.raises(FileNotFoundError):
        read_outcomes([tmp_path / "none"], tmp_path / "read.parquet")


# --- intervals --------------------------------------------------------------------------------


def arrays(seen: Iterable[tuple[int, int, bool, bool]]) -> Iterator[np.ndarray]:
    """Groups, places, kinds and clicks of impressions, with a column of ones before the last."""
    group, place, kind, clicked = (np.array(column) for column in zip(*seen, strict=True))
    yield from (group, place, kind.astype(bool), np.ones(len(group), np.int64))
    yield clicked.astype(np.int64)


def rate_from(seen: Iterable[tuple[int, int, bool, bool]]) -> Estimate | None:
    group, _, _, impressions, clicks = arrays(seen)
    return rate_of(group, impressions, clicks)


def comparison_from(seen: Iterable[tuple[int, int, bool, bool]]) -> Comparison | None:
    return comparison_of(*arrays(seen))


def drawn(rng: Random, groups: int, share: float = 0.3) -> list[tuple[int, int, bool, bool]]:
    """Impressions: group, place, whether personalised, whether clicked."""
    seen = []
    for group in range(groups):
        taste = rng.betavariate(2, 2 / share - 2)
        for _ in range(rng.randrange(2, 30)):
            place = rng.randrange(4)
            kind = rng.random() < 0.7 - 0.1 * place
            clicked = rng.random() < taste * (1.2 if kind else 1) / (1 + place / 3)
            seen.append((group, place, kind, clicked))
    return seen


def by_group(seen: Iterable[tuple[int, int, bool, bool]]) -> dict[int, list]:
    found = defaultdict(list)
    for one in seen:
        found[one[0]].append(one)
    return found


def test_the_interval_of_a_rate_is_that_of_its_logit_over_groups_of_users():
    seen = drawn(Random(1), 40)
    found = rate_from(seen)
    groups = by_group(seen)
    clicks = {group: sum(one[3] for one in some) for group, some in groups.items()}
    rate = sum(clicks.values()) / len(seen)
    squares = math.fsum((clicks[group] - rate * len(some)) ** 2 for group, some in groups.items())
    error = math.sqrt(40 / 39 * squares) / len(seen) / (rate * (1 - rate))
    center = math.log(rate / (1 - rate))
    assert found.value == pytest.approx(rate, rel=1e-12)
    for end, sign in ((found.lower, -1), (found.upper, 1)):
        assert end == pytest.approx(1 / (1 + math.exp(-center - sign * T[39] * error)), rel=1e-9)


def test_the_interval_of_a_difference_is_that_of_its_derivatives_by_each_group():
    """By numbers: the difference with a group weighed a little more, and a little less."""
    seen = drawn(Random(2), 60)
    found = comparison_from(seen)

    def difference(weight: Mapping[int, float]) -> float:
        totals: dict[tuple[int, bool], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for group, place, kind, clicked in seen:
            totals[place, kind][0] += weight.get(group, 1)
            totals[place, kind][1] += weight.get(group, 1) * clicked
        parts = []
        for place in {place for place, _ in totals}:
            (n, one), (m, other) = totals[place, True], totals[place, False]
            parts.append((n * m / (n + m), one / n - other / m))
        return sum(w * d for w, d in parts) / sum(w for w, _ in parts)

    step = 1e-4
    derivatives = [
        (difference({group: 1 + step}) - difference({group: 1 - step})) / (2 * step)
        for group in range(60)
    ]
    error = math.sqrt(60 / 59 * math.fsum(value**2 for value in derivatives))
    value = difference({})
    assert found.difference.value == pytest.approx(value, rel=1e-9)
    assert found.difference.lower == pytest.approx(value - T[59] * error, rel=1e-6)
    assert found.difference.upper == pytest.approx(value + T[59] * error, rel=1e-6)


def test_intervals_need_thirty_groups_of_users():
    assert rate_from(drawn(Random(3), 29)).lower is None
    assert rate_from(drawn(Random(3), 30)).lower is not None
    both = [(group, 0, kind, group % 2 == 0) for group in range(30) for kind in (True, False)]
    assert comparison_from(both[:-1]).difference.lower is None
    assert comparison_from(both).difference.lower is not None


@pytest.mark.parametrize("clicked", [True, False])
def test_intervals_need_ten_groups_with_clicks_and_ten_without(clicked):
    """Else all of them clicked, say, would be a rate of one that is sure."""

    def seen(some: int, kind: bool) -> list[tuple[int, int, bool, bool]]:
        return [(group, 0, kind, clicked == (group < some)) for group in range(50)]

    assert rate_from(seen(9, True)) == Estimate(0.18 if clicked else 0.82, None, None)
    assert rate_from(seen(10, True)).lower is not None
    assert comparison_from(seen(10, True) + seen(9, False)).difference.lower is None
    assert comparison_from(seen(9, True) + seen(10, False)).difference.lower is None
    assert comparison_from(seen(10, True) + seen(10, False)).difference.lower is not None


def test_groups_of_alike_users_make_the_interval_no_narrower():
    """A user who clicks all or nothing tells as much as one impression of theirs."""
    once = [(group, 0, True, group % 2 == 0) for group in range(40)]
    assert rate_from(once * 5) == rate_from(once)


def test_the_order_of_impressions_does_not_matter_but_for_rounding():
    seen = drawn(Random(5), 40)
    found = comparison_from(seen)
    again = comparison_from(Random(6).sample(seen, len(seen)))
    assert again.difference.lower == pytest.approx(found.difference.lower, rel=1e-9)


def test_a_position_effect_alone_is_no_difference():
    """Twice as many clicks at the first place, where most are personalised."""
    seen = [
        (group, place, kind, n < clicked)
        for group in range(40)
        for place, kind, shown, clicked in (
            (0, True, 20, 8),
            (0, False, 5, 2),
            (1, True, 5, 1),
            (1, False, 20, 4),
        )
        for n in range(shown)
    ]
    found = comparison_from(seen)
    assert found.difference.value == pytest.approx(0, abs=1e-12)
    assert found.personalized == pytest.approx(0.3)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """95 %; of 400 days each, which a correct interval misses by 3 points once in 200 times.

    Users have their own rates, come as often as they like, and get what is personalised more at
    the top, where more is clicked; 120 users, a rate of about 9 %.
    """
    rng = np.random.default_rng(11)

    def day(users: int) -> list[np.ndarray]:
        shown = 1 + rng.poisson(rng.gamma(0.7, 30, users))
        user = np.repeat(np.arange(users), shown)
        place = rng.integers(0, 8, len(user))
        share = rng.beta(1.5, 1.5, users)[user]
        kind = rng.random(len(user)) < np.clip(share * (1.5 - place / 8), 0, 1)
        rate = 0.12 * rng.gamma(2, 0.5, users)[user] / (1 + 0.2 * place) + 0.04 * kind
        clicks = (rng.random(len(user)) < rate).astype(np.int64)
        return [rng.integers(0, 256, users)[user], place, kind, np.ones_like(clicks), clicks]

    everyone = day(300_000)
    true_rate = rate_of(everyone[0], *everyone[3:]).value
    true_difference = comparison_of(*everyone).difference.value
    held = []
    for _ in range(400):
        drawn_day = day(120)
        rate = rate_of(drawn_day[0], *drawn_day[3:])
        difference = comparison_of(*drawn_day).difference
        held.append(
            (
                rate.lower <= true_rate <= rate.upper,
                difference.lower <= true_difference <= difference.upper,
            )
        )
    assert np.mean(held, axis=0) == pytest.approx([0.95, 0.95], abs=0.03)


# --- how users were split ---------------------------------------------------------------------


def test_an_even_split_is_likely_and_an_uneven_one_is_not():
    assert sample_ratio_p_value([500, 500]) == 1
    # As in tables of chi-squared: 3.841 with one degree of freedom is 5 %.
    assert sample_ratio_p_value([50_000 + 310, 50_000 - 310]) == pytest.approx(0.0499, abs=0.0001)
    assert sample_ratio_p_value([5_300, 4_700]) < 1e-8
    assert sample_ratio_p_value([40, 40, 10]) == pytest.approx(chi_squared_tail(20, 2), rel=1e-12)


@given(st.lists(st.integers(0, 3000), max_size=8))
def test_the_test_of_a_split_is_that_of_the_definition(users):
    found, expected = sample_ratio_p_value(users), even_split(users)
    assert (found is None) == (expected is None)
    assert found is None or found == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_few_users_and_one_variant_are_not_tested():
    assert sample_ratio_p_value([]) is None
    assert sample_ratio_p_value([1000]) is None
    assert sample_ratio_p_value([15, 14]) is None
    assert sample_ratio_p_value([15, 15]) == 1
    assert sample_ratio_p_value([10, 10, 10, 10, 0, 0, 0, 0]) is not None
    assert sample_ratio_p_value([10, 10, 10, 9, 0, 0, 0, 0]) is None


def test_only_rows_of_all_variants_of_an_experiment_are_tested_without_users_of_several(tmp_path):
    def lines_of_variant(variant: str | None, users: Iterable[int]) -> list[str]:
        arm = {} if variant is None else {"bandit_variant": variant}
        return [
            trace_of(
                decision_id=f"{variant}{user}",
                user_hash=f"u{user}",
                extras={"bandit_experiment": "exp", **arm},
            )
            for user in users
        ]

    lines = [
        *lines_of_variant("A", range(40)),
        *lines_of_variant("B", range(20, 70)),
        *lines_of_variant(None, range(70, 200)),
        *lines_of_variant(None, range(10)),
        trace_of(),
    ]
    file = written([], tmp_path / "none.ndjson")
    tables = with_outcomes(lines, date(2026, 11, 21), "unknown", [file])
    rows = tables.rows[BLEND].to_pylist()
    tested = {
        (row["experiment"], row["variant"])
        for row in rows
        if row["sample_ratio_p_value"] is not None
    }
    assert tested == {("exp", "all")}
    expected = chi_squared_tail((20 - 25) ** 2 / 25 * 2, 1)
    assert [row["sample_ratio_p_value"] for row in rows if row["variant"] == "all"].count(
        pytest.approx(expected, rel=1e-12)
    ) == 8
    assert tables.quality.outcomes.users_of_several_variants == 20
    assert {
        (row["experiment"], row["variant"], row["users_of_several_variants"])
        for row in rows
        if row["users_of_several_variants"] is not None
    } == {("exp", "all", 20)}


def test_groups_of_users_are_those_of_entropy():
    one = next(oracle.decisions_of([trace_of(user_hash="u")]))
    assert oracle.group_of(one) == md5(b"personalization:u").hexdigest()[28:30]
