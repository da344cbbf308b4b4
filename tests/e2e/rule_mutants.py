"""Every way in which a rule may be wrong by a little: each is a mutant of it.

A mutant differs in one threshold, comparison, duration, window, guard or grouping::

    >>> [mutant.id for mutant in mutants_of({"alert": "High", "expr": "load > 5", "for": "2m"}, ())]
    ['High: > -> >=', 'High: > -> <=', 'High: > 5 -> (nothing)', 'High: 5 -> 4', 'High: 5 -> 6',
     'High: for 2m -> 1m', 'High: for 2m -> 3m', 'High: for 2m -> (nothing)']
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from monitoring.prometheus.values import SECONDS

Rule = Mapping[str, Any]

TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<string>"(?:\\.|[^"\\])*")
      | (?P<duration>\d+[smhdw](?![a-zA-Z0-9_]))
      | (?P<number>\d+(?:\.\d+)?)
      | (?P<name>[a-zA-Z_][a-zA-Z0-9_:]*)
      | (?P<symbol>==|!=|>=|<=|=~|!~|[-+*/%^()<>{}\[\],=:])
    )""",
    re.VERBOSE,
)
COMPARISONS: Final = {
    # operator: its boundary, its opposite
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": (">=", "!="),
    "!=": (">", "=="),
}
PRECEDENCE: Final = {
    **dict.fromkeys(("or",), 1),
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys(COMPARISONS, 3),
    **dict.fromkeys("+-", 4),
    **dict.fromkeys("*/%", 5),
    "^": 6,
}
MATCHERS: Final = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}
AGGREGATIONS: Final = {"sum": "max", "max": "min", "min": "max"}
WINDOW: Final = re.compile(r"(.*?[a-z_])(\d+[smhd])")
NOTHING: Final = "(nothing)"


class PromQLError(Exception):
    """The PromQL is of a kind that no rule had when this was written."""


@dataclass(frozen=True)
class Token:
    """A word of PromQL, and where it stands."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Operation:
    """An operator between two operands, and where these stand."""

    operator: Token
    start: int
    left_end: int
    right_start: int
    end: int


@dataclass(frozen=True)
class Mutant:
    """A rule that is wrong.

    Args:
        id: of which rule, and what was changed.
        rule: the right one.
        mutated: the wrong one.
    """

    id: str
    rule: Rule
    mutated: Rule


@dataclass(frozen=True)
class _Change:
    before: str
    after: str
    start: int
    end: int
    text: str


def mutants_of(rule: Rule, records: Iterable[str]) -> list[Mutant]:
    """All mutants of a rule.

    Args:
        rule: as Prometheus reads it.
        records: the names of all that is recorded: a reference to one can be to another window.
    """
    expr = str(rule["expr"])
    found = [
        (change.before, change.after, {**rule, "expr": _with(expr, change)})
        for change in _changes(expr, sorted(set(records)))
    ]
    for key in ("for", "keep_firing_for"):
        if key in rule:
            minutes = _seconds(rule[key]) // 60
            found += [
                (f"{key} {rule[key]}", after, {**rule, key: after})
                for after in (f"{minutes - 1}m", f"{minutes + 1}m")
            ]
            without = {name: value for name, value in rule.items() if name != key}
            found.append((f"{key} {rule[key]}", NOTHING, without))
    name = str(rule.get("record") or rule.get("alert"))
    name += "".join(f"{{{key}={text}}}" for key, text in rule.get("labels", {}).items() if _is(key))
    mutants: list[Mutant] = []
    seen: list[Rule] = [rule]
    times: Counter[str] = Counter()
    for before, after, mutated in found:
        if mutated in seen:
            continue
        seen.append(mutated)
        change = f"{name}: {before} -> {after}"
        times[change] += 1
        number = f" #{times[change]}" if times[change] > 1 else ""
        mutants.append(Mutant(change + number, rule, mutated))
    return mutants


def _is(label: str) -> bool:
    """Whether a label tells rules of one name apart."""
    return label in ("check", "view")


def _with(expr: str, change: _Change) -> str:
    return expr[: change.start] + change.text + expr[change.end :]


# --- reading ----------------------------------------------------------------------------------


def tokens_of(expr: str) -> list[Token]:
    """The words of an expression.

    Raises:
        PromQLError: it has a character that belongs to none.
    """
    found: list[Token] = []
    at = 0
    while at < len(expr.rstrip()):
        match = TOKEN.match(expr, at)
        if not match or not match.lastgroup:
            raise PromQLError(f"at {expr[at : at + 20]!r} of {expr!r}")
        kind = match.lastgroup
        found.append(Token(kind, match[kind], match.start(kind), match.end(kind)))
        at = match.end()
    return found


class _Reader:
    """Finds the operations of an expression, by precedence."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self.operations: list[Operation] = []
        self.binary(1)
        if self._at < len(tokens):
            raise PromQLError(f"{tokens[self._at]} is left")

    def _next(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    def _take(self, expected: str = "") -> Token:
        token = self._tokens[self._at]
        if expected and token.text != expected:
            raise PromQLError(f"{token}, and no {expected}")
        self._at += 1
        return token

    def binary(self, least: int) -> tuple[int, int]:
        start, end = self._operand()
        while PRECEDENCE.get(self._next(), 0) >= least:
            operator = self._take()
            while self._next() in ("on", "ignoring", "group_left", "group_right"):
                self._take()
                self._closed()
            right_start, right_end = self.binary(PRECEDENCE[operator.text] + 1)
            self.operations.append(Operation(operator, start, end, right_start, right_end))
            end = right_end
        return start, end

    def _operand(self) -> tuple[int, int]:
        token = self._take()
        end = token.end
        if token.text == "(":
            self.binary(1)
            end = self._take(")").end
        elif token.kind == "name":
            if self._next() in ("by", "without"):
                self._take()
                self._closed()
            if self._next() == "(":
                self._take()
                while self._next() != ")":
                    self.binary(1)
                    if self._next() == ",":
                        self._take()
                end = self._take(")").end
        while self._next() in ("{", "[", "offset"):
            if self._next() == "offset":
                self._take()
                end = self._take().end
            else:
                end = self._closed()
        return token.start, end

    def _closed(self) -> int:
        """Past a bracket and what is in it, which has no operation."""
        closing = {"(": ")", "{": "}", "[": "]"}[self._take().text]
        while self._next() != closing:
            self._take()
        return self._take().end


# --- changing ---------------------------------------------------------------------------------


def _changes(expr: str, records: Sequence[str]) -> Iterator[_Change]:
    tokens = tokens_of(expr)
    for operation in _Reader(tokens).operations:
        yield from _operator(expr, operation)
    for number, token in enumerate(tokens):
        before = tokens[number - 1].text if number else ""
        afters: Sequence[str] = ()
        if token.kind == "number":
            afters = _numbers(token.text)
        elif token.kind == "duration":
            afters = [f"{_seconds(token.text) * by // 100}s" for by in (80, 125)]
        elif token.kind == "name":
            if token.text in AGGREGATIONS and tokens[number + 1].text in ("by", "("):
                afters = [AGGREGATIONS[token.text]]
            elif token.text in records:
                afters = _other_windows(token.text, records)
        yield from (
            _Change(
                f"offset {token.text}" if before == "offset" else token.text,
                after,
                token.start,
                token.end,
                after,
            )
            for after in afters
        )
        if token.text in ("by", "on"):
            yield from _grouping(expr, tokens, number)
        elif token.text == "{":
            yield from _matchers(tokens, number)


def _operator(expr: str, operation: Operation) -> Iterator[_Change]:
    operator, at = operation.operator.text, operation.operator
    right = " ".join(expr[at.start : operation.end].split())
    left = " ".join(expr[operation.start : at.end].split())
    if operator in COMPARISONS:
        for other in COMPARISONS[operator]:
            yield _Change(operator, other, at.start, at.end, other)
    if operator in COMPARISONS or operator in ("and", "or", "unless"):
        yield _Change(right, NOTHING, operation.left_end, operation.end, "")
    if operator == "or":
        yield _Change(left, NOTHING, operation.start, operation.right_start, "")
    if operator in ("and", "unless"):
        other = {"and": "unless", "unless": "and"}[operator]
        yield _Change(right, other, at.start, at.end, other)


def _numbers(text: str) -> list[str]:
    value = float(text)
    if value == int(value) and value <= 100:
        return [f"{value - 1:g}", f"{value + 1:g}"]
    return [f"{value * 0.99:.10g}", f"{value * 1.01:.10g}"]


def _other_windows(name: str, records: Sequence[str]) -> list[str]:
    """The record of the next shorter, and of the next longer window."""
    whole = WINDOW.fullmatch(name)
    if not whole:
        return []
    windows = {
        other[2]: other[0] for record in records if (other := WINDOW.fullmatch(record))
        if other[1] == whole[1]
    }  # fmt: skip
    in_order = sorted(windows, key=_seconds)
    at = in_order.index(whole[2])
    return [windows[window] for window in [*in_order[:at][-1:], *in_order[at + 1 :][:1]]]


def _grouping(expr: str, tokens: Sequence[Token], number: int) -> Iterator[_Change]:
    """Without it, by all but it, and without each of its labels."""
    word = tokens[number]
    close = next(n for n in range(number, len(tokens)) if tokens[n].text == ")")
    labels = [token.text for token in tokens[number + 2 : close] if token.kind == "name"]
    whole = expr[word.start : tokens[close].end]
    other = {"by": "without", "on": "ignoring"}[word.text]
    yield _Change(whole, other, word.start, word.end, other)
    afters = [[label for label in labels if label != dropped] for dropped in labels]
    for after in afters:
        text = f"{word.text} ({', '.join(after)})"
        yield _Change(whole, text, word.start, tokens[close].end, text)


def _matchers(tokens: Sequence[Token], number: int) -> Iterator[_Change]:
    """The opposite of each matcher, and without it."""
    close = next(n for n in range(number, len(tokens)) if tokens[n].text == "}")
    for label in range(number + 1, close, 4):
        operator, text = tokens[label + 1], tokens[label + 2]
        whole = f"{tokens[label].text}{operator.text}{text.text}"
        other = MATCHERS[operator.text]
        yield _Change(whole, other, operator.start, operator.end, other)
        has_next = tokens[label + 3].text == ","
        end = tokens[label + 3].end if has_next else text.end
        start = tokens[label - 1].start if not has_next and label - 1 > number else None
        yield _Change(whole, NOTHING, tokens[label].start if start is None else start, end, "")


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * SECONDS[duration[-1]]
