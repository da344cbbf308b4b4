"""Rules of Prometheus, and the PromQL that they are made of.

For example::

>>> print(either("a > 1", "b > 1"))
a > 1
or
b > 1
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from monitoring.prometheus.values import Values, seconds
from otel_personalization import conventions as names
from otel_personalization.conventions import Counter

NAMESPACE: Final = names.NAMESPACE.replace(".", "_")
OF_SURFACE: Final = (NAMESPACE, names.SURFACE)
OF_SOURCE: Final = (NAMESPACE, names.SOURCE)


@dataclass(frozen=True)
class Rule:
    """A rule, and why there is one.

    Args:
        name: of the series that it records, or of the alert.
        expr: PromQL.
        why: a comment above it.
        labels: that it adds.
        hold: of an alert, how long its condition holds before it fires.
        keep: of an alert, how long it goes on firing afterwards.
        annotations: of an alert; they make it one.
    """

    name: str
    expr: str
    why: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    hold: str = ""
    keep: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        fields = {
            "alert" if self.annotations else "record": self.name,
            "expr": self.expr,
            "for": self.hold,
            "keep_firing_for": self.keep,
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
        }
        return {key: value for key, value in fields.items() if value}


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after the other, at one time."""

    name: str
    interval: str
    rules: Sequence[Rule]


def metric(counter: Counter) -> str:
    """The name under which something of a counter is recorded."""
    return counter.prometheus_name.removesuffix("_total")


def grown(counter: Counter, window: str) -> str:
    """The record of what a counter of surfaces, or of sources, grew by in a window."""
    level = "namespace_source" if names.SOURCE in counter.attributes else "surface"
    return f"{level}:{metric(counter)}:increase{window}"


def quoted(text: str) -> str:
    """A string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def any_of(texts: Iterable[str]) -> str:
    """A regular expression that matches one of the texts."""
    return quoted("|".join(map(re.escape, sorted(texts))))


def decided(values: Values, *more: str) -> str:
    """A selector of what services decided, not doctor; with further matchers."""
    doctor = f"{NAMESPACE}!={quoted(values['doctor_namespace'])}"
    return f"{{{','.join((doctor, *more))}}}"


def either(*parts: str) -> str:
    """The first of several that there is, for each series."""
    return "\nor\n".join(parts)


def grouped(expr: str) -> str:
    """In parentheses."""
    return f"(\n{textwrap.indent(expr, '  ')}\n)"


class Windows:
    """How what happened in a window is added up.

    Args:
        values: windows longer than ``evaluation.longest_raw_window`` are added up from records of
            ``evaluation.base_window``.
    """

    def __init__(self, values: Values) -> None:
        evaluation = values["evaluation"]
        self.base: str = evaluation["base_window"]
        self._values = values
        self._longest = seconds(evaluation["longest_raw_window"])
        # What happens is in the record of each evaluation until the base window has passed.
        self._times = seconds(self.base) // seconds(evaluation["interval"])

    def is_long(self, window: str) -> bool:
        """Whether it is added up from records."""
        return seconds(window) > self._longest

    def raw(self, counter: Counter, window: str, by: Sequence[str], *matchers: str) -> str:
        """Straight from the counters of all processes."""
        selector = decided(self._values, *matchers)
        return f"sum by ({', '.join(by)}) (increase({counter.prometheus_name}{selector}[{window}]))"

    def added_up(self, record: str, window: str) -> str:
        """From records of the base window."""
        return f"sum_over_time({record}[{window}]) / {self._times}"

    def rule(
        self, counter: Counter, window: str, *, within: Counter | None = None, why: str = ""
    ) -> Rule:
        """Records what a counter grew by.

        Args:
            counter: of surfaces, or of sources, of which there is one that is looked at.
            window: its length.
            within: what it counts is a part of what this one counts: where there is only that, it
                is 0.
            why: a comment.
        """
        if self.is_long(window):
            expr = self.added_up(grown(counter, self.base), window)
        else:
            by = OF_SURFACE
            matchers: tuple[str, ...] = ()
            if names.SOURCE in counter.attributes:
                by = OF_SOURCE
                matchers = (f"{names.SOURCE}={quoted(names.COLLABORATIVE_SOURCE)}",)
            expr = self.raw(counter, window, by, *matchers)
            if within:
                expr = either(expr, f"0 * {grown(within, window)}")
        return Rule(grown(counter, window), expr, why)
