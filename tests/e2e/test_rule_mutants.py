"""That rules which are wrong by a little are noticed: a sample of `make mutate-rules`."""

from __future__ import annotations

import random

import pytest

from tests.e2e.mutate_rules import all_mutants, equivalent, report, suites, survivors
from tests.e2e.rule_mutants import Mutant, PromQLError, mutants_of, tokens_of

SUITES = suites()
MUTANTS = all_mutants(SUITES)
KNOWN = equivalent()
OF_A_SAMPLE = 40


def changes(expr: str, **more: str) -> set[str]:
    """What is changed of a rule, without its name."""
    records = ["items:increase5m", "items:increase30m", "items:increase1h", "items:increase1d"]
    rule = {"alert": "A", "expr": expr, **more}
    return {mutant.id.removeprefix("A: ") for mutant in mutants_of(rule, records)}


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        pytest.param("a < 0.55", {"0.55 -> 0.5445", "0.55 -> 0.5555"}, id="threshold"),
        pytest.param("a < 0.55", {"< -> <=", "< -> >=", "< 0.55 -> (nothing)"}, id="comparison"),
        pytest.param("rate(a[5m])", {"5m -> 240s", "5m -> 375s"}, id="window"),
        pytest.param("a offset 6h", {"offset 6h -> 17280s", "offset 6h -> 27000s"}, id="offset"),
        pytest.param(
            "items:increase1h",
            {
                "items:increase1h -> items:increase30m",
                "items:increase1h -> items:increase1d",
            },
            id="recorded window",
        ),
        pytest.param("a and b > 1", {"and b > 1 -> (nothing)", "and b > 1 -> unless"}, id="guard"),
        pytest.param("a unless b", {"unless b -> (nothing)", "unless b -> and"}, id="exception"),
        pytest.param("a or b", {"or b -> (nothing)", "a or -> (nothing)"}, id="alternative"),
        pytest.param(
            "sum by (a, b) (c)",
            {
                "by (a, b) -> without",
                "by (a, b) -> by (a)",
                "by (a, b) -> by (b)",
                "sum -> max",
            },
            id="grouping",
        ),
        pytest.param(
            "a / on (b) group_left () c", {"on (b) -> ignoring", "on (b) -> on ()"}, id="matching"
        ),
        pytest.param(
            'a{b="c",d!="e"}',
            {'b="c" -> !=', 'b="c" -> (nothing)', 'd!="e" -> =', 'd!="e" -> (nothing)'},
            id="selector",
        ),
    ],
)
def test_each_part_of_an_expression_is_changed(expr, expected):
    assert changes(expr) >= expected


def test_durations_of_an_alert_are_changed():
    expected = {"4m", "6m", "(nothing)"}
    assert changes("a", **{"for": "5m"}) == {f"for 5m -> {after}" for after in expected}
    assert changes("a", keep_firing_for="5m") == {
        f"keep_firing_for 5m -> {after}" for after in expected
    }


def test_a_guard_ends_where_its_precedence_ends():
    assert "and b -> (nothing)" in changes("a and b or c")
    assert "or b and c -> (nothing)" in changes("a or b and c")


def test_promql_that_is_not_understood_is_said():
    with pytest.raises(PromQLError, match="~"):
        tokens_of("a ~ b")


def test_each_mutant_has_a_name_of_its_own():
    assert len({mutant.id for mutant in MUTANTS}) == len(MUTANTS) > 1000


def test_what_is_said_to_be_equivalent_is_a_mutant_and_has_a_reason():
    assert set(KNOWN) <= {mutant.id for mutant in MUTANTS}
    assert all(len(why) > 20 for why in KNOWN.values())


def test_a_survivor_that_nobody_knows_fails_and_so_does_a_known_one_that_is_noticed():
    mutants = [Mutant(str(n), {}, {}) for n in range(100)]
    left = mutants[:2]
    assert report(mutants, left, {"0": "", "1": ""}) == ""
    assert "nobody says why: 1" in report(mutants, left, {"0": ""})
    assert "but a case notices it: 7" in report(mutants, left, {"0": "", "1": "", "7": ""})
    known = {str(n): "" for n in range(6)}
    assert "less than 95%" in report(mutants, mutants[:6], known)


def test_a_sample_of_the_mutants_is_noticed():
    """All of them take ten minutes: `make mutate-rules`."""
    sample = random.Random(2026).sample(MUTANTS, OF_A_SAMPLE)
    left = {mutant.id for mutant in survivors(sample, SUITES)}
    assert left == {mutant.id for mutant in sample} & set(KNOWN)
