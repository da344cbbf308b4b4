"""Changes the rules in every small way, and looks whether a case notices: ``make mutate-rules``.

A mutant that no case notices survives. It has to be named in ``equivalent_mutants.yaml``, with the
reason why it makes no difference, or gets a case in ``rule_cases.py``. A part of them::

    make mutate-rules ONLY=PersonalizationDrop
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from monitoring.prometheus.build import build
from monitoring.prometheus.values import load
from tests.e2e.promtool import PROMTOOL, Case, as_text, groups_of, needed, write
from tests.e2e.record_cases import RECORD_CASES
from tests.e2e.rule_cases import CASES, OWN_CASES, OWN_VALUES
from tests.e2e.rule_mutants import Mutant, Rule, mutants_of

EQUIVALENT: Final = Path(__file__).with_name("equivalent_mutants.yaml")
LEAST: Final = 0.95
"""Of all mutants, those that have to be noticed."""
AT_ONCE: Final = 2
OF_A_RUN: Final = 24
"""Mutants that promtool gets at once, since to start it takes time."""


@dataclass(frozen=True)
class Suite:
    """Rules, and the cases that they are tested by."""

    groups: list[dict[str, Any]]
    cases: Sequence[Case]


@dataclass(frozen=True)
class _Try:
    """A case that may notice a mutant of a rule."""

    suite: Suite
    case: Case
    text: str
    rules: Sequence[Rule]

    @property
    def cost(self) -> float:
        """How long it takes, compared with others."""
        minutes = max(question.minute for question in self.case.questions)
        return minutes / self.case.every * (len(self.rules) + len(self.case.series))


def suites() -> list[Suite]:
    """The rules of values.yaml, and those of the values that only cases have."""
    values = load()
    own = values | {key: values[key] | its for key, its in OWN_VALUES.items()}
    return [
        Suite(groups_of(build(values)), [*RECORD_CASES, *CASES]),
        Suite(groups_of(build(own)), OWN_CASES),
    ]


def all_mutants(of: Iterable[Suite]) -> list[Mutant]:
    """Each once, though two suites have most rules in common."""
    found: dict[str, Mutant] = {}
    seen: list[Rule] = []
    for number, suite in enumerate(of):
        rules = [rule for group in suite.groups for rule in group["rules"]]
        records = [rule["record"] for rule in rules if "record" in rule]
        for rule in rules:
            if rule in seen:
                continue
            seen.append(rule)
            for mutant in mutants_of(rule, records):
                name = f"{'own values: ' * number}{mutant.id}"
                found[name] = Mutant(name, mutant.rule, mutant.mutated)
    return list(found.values())


def equivalent(file: Path = EQUIVALENT) -> dict[str, str]:
    """The mutants that make no difference -> why."""
    return {
        name: entry["why"]
        for entry in yaml.safe_load(file.read_text())
        for name in entry["mutants"]
    }


def survivors(mutants: Sequence[Mutant], of: Sequence[Suite]) -> list[Mutant]:
    """Those that no case notices.

    Raises:
        ValueError: the rules themselves fail, or a mutant is no PromQL; both would look as if
            mutants were noticed.
    """
    tries = [
        _Try(suite, case, as_text(case), [rule for group in groups for rule in group["rules"]])
        for suite in of
        for case in suite.cases
        for groups in [needed(suite.groups, case)]
    ]
    tries.sort(key=lambda one: one.cost)
    with tempfile.TemporaryDirectory() as folder:
        _check(mutants, Path(folder))
        unchanged = Mutant("", {}, {})
        if failed := _noticed([(unchanged, one) for one in tries], Path(folder)):
            raise ValueError(f"the rules do not do what the cases say: {sorted(failed)}")
    parts = [mutants[at : at + OF_A_RUN] for at in range(0, len(mutants), OF_A_RUN)]
    found: list[Mutant] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, part in enumerate(pool.map(lambda part: _survivors(part, tries), parts)):
            found += part
            if len(parts) > 1:
                print(f"{number + 1} of {len(parts)}: {len(found)} survive", file=sys.stderr)
    return found


def _survivors(mutants: Sequence[Mutant], tries: Sequence[_Try]) -> list[Mutant]:
    """Gives each mutant its cases, the cheapest first, until one notices it."""
    left = [(mutant, [one for one in tries if mutant.rule in one.rules]) for mutant in mutants]
    number = 0
    while tried := [(m, ones[number]) for m, ones in left if number < len(ones)]:
        with tempfile.TemporaryDirectory() as folder:
            noticed = _noticed(tried, Path(folder))
        left = [(mutant, ones) for mutant, ones in left if mutant.id not in noticed]
        number += 1
    return [mutant for mutant, _ in left]


def _noticed(tried: Sequence[tuple[Mutant, _Try]], folder: Path) -> set[str]:
    """The ids of mutants that their case notices; of the rules themselves, the cases."""
    files = {}
    for number, (mutant, one) in enumerate(tried):
        groups = [
            group | {"rules": [mutant.mutated if r == mutant.rule else r for r in group["rules"]]}
            for group in one.suite.groups
        ]
        file = write(one.case, one.text, groups, folder, f"{number:03}")
        files[str(file)] = mutant.id or one.case.name
    done = subprocess.run(
        [PROMTOOL, "test", "rules", *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found = set()
    for part in done.stdout.split("Processing test file:")[1:]:
        file, _, said = part.strip().partition("\n")
        if "FAILED" in said:
            found.add(files.pop(file))
        elif "SUCCESS" in said:
            del files[file]
    if files:
        raise ValueError(f"promtool said nothing of {sorted(files)}:\n{done.stdout[-2000:]}")
    return found


def _check(mutants: Sequence[Mutant], folder: Path) -> None:
    groups = [{"name": str(n), "rules": [m.mutated]} for n, m in enumerate(mutants)]
    file = folder / "mutants.yaml"
    file.write_text(yaml.dump({"groups": groups}, Dumper=yaml.CSafeDumper))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", "--lint=none", file],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"mutants that are no rules: {done.stdout}{done.stderr}")


def report(mutants: Sequence[Mutant], surviving: Sequence[Mutant], known: Mapping[str, str]) -> str:
    """What is wrong; nothing, if enough were noticed, and the others are known to be equivalent."""
    ids, left = {mutant.id for mutant in mutants}, {mutant.id for mutant in surviving}
    wrong = [f"no case notices, and nobody says why: {name}" for name in sorted(left - set(known))]
    wrong += [
        f"said to be equivalent, but a case notices it: {name}"
        for name in sorted(set(known) & ids - left)
    ]
    if len(left) > (1 - LEAST) * len(ids):
        wrong.append(f"less than {LEAST:.0%} of the mutants were noticed")
    return "\n".join(wrong)


def main() -> None:
    """Try all mutants, or those whose ids have a word in them."""
    of = suites()
    mutants = all_mutants(of)
    known = equivalent()
    wrong = [
        f"no mutant: {name}" for name in known if name not in {mutant.id for mutant in mutants}
    ]
    if len(sys.argv) > 1:
        mutants = [mutant for mutant in mutants if sys.argv[1] in mutant.id]
    surviving = survivors(mutants, of)
    killed = len(mutants) - len(surviving)
    print(f"{killed} of {len(mutants)} mutants noticed: {killed / len(mutants):.1%}")
    if said := "\n".join([*wrong, report(mutants, surviving, known)]).strip():
        sys.exit(said)
    print(f"{len(surviving)} make no difference, see {EQUIVALENT.name}.")


if __name__ == "__main__":
    main()
