"""Tests of rules, written in Python and run by promtool.

A case is made of series and of what is asked at some minute. Many cases go into one run::

    case = Case(
        "a surface below its threshold",
        {JUDGED + home: flat(0.5)},
        [firing("PersonalizationDrop", 4), firing("PersonalizationDrop", 5, home)],
    )
    assert failures([case], build(load()), tmp_path) == ""
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from examples.stack.servers import TOOLS

PROMTOOL = TOOLS / "promtool"
PROMTOOLS = [PROMTOOL, *(Path(found) for found in [shutil.which("promtool")] if found)]
"""Ours, and the one that the system has, if any: Debian's is of Prometheus 2.42."""

NAMES = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_Loader, _Dumper = yaml.CSafeLoader, yaml.CSafeDumper
# Labels that tell alerts of one name apart.
TOLD_APART = "recsys_namespace, surface, source, view, job, org_id, reason, kind, check"


COARSE_MINUTES = 4
"""At five minutes records would be stale before other rules read them."""


def coarse(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same rules, but evaluated each four minutes: days of it take promtool seconds, where each
    minute of them takes minutes, and a week is more samples than it reads at once.

    Args:
        values: those of values.yaml.
    """
    interval, base = f"{COARSE_MINUTES}m", f"{5 * COARSE_MINUTES}m"
    other = {"interval": interval, "slow_interval": interval, "base_window": base}
    return {**values, "evaluation": values["evaluation"] | other}


@dataclass(frozen=True)
class Question:
    """What an expression gives at some time: selectors such as ``{surface="home"}`` -> value."""

    expr: str
    minute: float
    answer: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """Series, and what is asked of them.

    Args:
        name: what it shows.
        series: name and labels -> samples, one each `every`; see `flat`, `total`.
        questions: see `firing`, `value`.
        every: time between samples, and between evaluations, in minutes. Records that are added up
            from records of each minute need 1.
    """

    name: str
    series: Mapping[str, str | Sequence[float]]
    questions: Sequence[Question]
    every: int = 1


def surface(name: str, namespace: str = "shop") -> str:
    """The labels of a surface."""
    return f'{{recsys_namespace="{namespace}",surface="{name}"}}'


def flat(value: float, samples: int = 60) -> list[float]:
    """A value that stays."""
    return [value] * (samples + 1)


def total(*parts: tuple[float, int]) -> list[float]:
    """A counter from 0 on: (growth for each sample, samples), one after the other."""
    found = [0.0]
    for growth, samples in parts:
        found += [found[-1] + growth * (n + 1) for n in range(samples)]
    return found


def stale(values: Sequence[float]) -> str:
    """Series that end, as those of a target that is gone."""
    return " ".join([*map(_number, values), "stale"])


def firing(alert: str, minute: float, *labels: str) -> Question:
    """An alert fires for these series, such as ``{surface="home"}``, and for no others."""
    expr = f'count by ({TOLD_APART}) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
    return Question(expr, minute, dict.fromkeys(labels, 1))


def value(expr: str, minute: float, answer: Mapping[str, float]) -> Question:
    """An expression gives these values; they are compared to 6 digits."""
    return Question(f"round({expr}, 0.000001)", minute, answer)


def failures(
    cases: Iterable[Case], rules: Mapping[str, str], folder: Path, promtool: Path = PROMTOOL
) -> str:
    """What promtool says of the cases; nothing, if all is as they say.

    Each runs with the rules that its questions lead to, which takes a tenth of the time, but for
    those whose records it puts in.

    Args:
        cases: what is tested.
        rules: the files of rules, name -> text.
        folder: for the files.
        promtool: which one.
    """
    groups = groups_of(rules)
    files = [
        write(case, as_text(case), groups, folder, f"{number:03}")
        for number, case in enumerate(cases)
    ]
    done = subprocess.run(
        [promtool, "test", "rules", *files], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def groups_of(rules: Mapping[str, str]) -> list[dict[str, Any]]:
    """The groups of all files of rules."""
    return [group for text in rules.values() for group in yaml.load(text, _Loader)["groups"]]


def write(case: Case, text: str, groups: list[dict[str, Any]], folder: Path, number: str) -> Path:
    """Write a case and the rules that it needs as promtool reads them.

    Args:
        case: what is tested.
        text: of the case, see `as_text`.
        groups: all the rules.
        folder: for the files.
        number: tells it from other cases in the folder.
    """
    # promtool names the file, and not the test.
    file = folder / f"{number}-{re.sub(r'[^a-zA-Z0-9]+', '-', case.name)}.yaml"
    used = folder / f"rules-{number}.yaml"
    used.write_text(yaml.dump({"groups": needed(groups, case)}, Dumper=_Dumper))
    file.write_text(
        f"rule_files: [{used.name}]\n"
        f"evaluation_interval: {case.every}m\n"
        f"group_eval_order: [{', '.join(group['name'] for group in groups)}]\n{text}"
    )
    return file


def as_text(case: Case) -> str:
    """The case, without the rules that it is of."""
    return yaml.dump({"tests": [_as_promtool_reads_it(case)]}, Dumper=_Dumper, width=10_000_000)


def needed(groups: list[dict[str, Any]], case: Case) -> list[dict[str, Any]]:
    """The rules that the questions of a case lead to, but for those whose records it puts in."""
    put_in = {name.partition("{")[0] for name in case.series}
    rules = [
        rule for group in groups for rule in group["rules"] if rule.get("record") not in put_in
    ]
    known: set[str] = set()
    found = {name for question in case.questions for name in NAMES.findall(question.expr)}
    while found - known:
        known |= found
        found = {
            name for rule in rules if _name(rule) in known for name in NAMES.findall(rule["expr"])
        }
    return [
        group
        | {"rules": [rule for rule in group["rules"] if rule in rules and _name(rule) in known]}
        for group in groups
    ]


def _name(rule: Mapping[str, Any]) -> str:
    return str(rule.get("record") or rule.get("alert"))


def _as_promtool_reads_it(case: Case) -> dict[str, Any]:
    return {
        "name": case.name,
        "interval": f"{case.every}m",
        "input_series": [
            {
                "series": name,
                "values": values if isinstance(values, str) else " ".join(map(_number, values)),
            }
            for name, values in case.series.items()
        ],
        "promql_expr_test": [
            {
                "expr": question.expr,
                "eval_time": f"{round(question.minute * 60)}s",
                "exp_samples": [
                    {"labels": labels, "value": number}
                    for labels, number in question.answer.items()
                ],
            }
            for question in case.questions
        ],
    }


def _number(value: float) -> str:
    return f"{value:.12g}"
