"""Reads ``values.yaml``, and says which values can't be.

For example::

>>> seconds("12h")
43200
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from otel_personalization.conventions import DOCTOR_NAMESPACE
from otel_personalization.settings import SettingsError, resolve

VALUES: Final = Path(__file__).with_name("values.yaml")

Values = Mapping[str, Any]

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
OWN: Final = (
    "declared",
    "personalization_threshold",
    "baseline",
    "reason_coverage_threshold",
    "cold_start_band",
)
"""What a surface can have of its own."""
MODES: Final = ("auto", "always", "never")


class ValuesError(Exception):
    """A value is none that it can be."""


def load(path: Path = VALUES) -> dict[str, Any]:
    """What the file says.

    Raises:
        ValuesError: rules can't be made of it.
    """
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    check(values)
    return values


def seconds(duration: str) -> int:
    """Of a duration in Prometheus' notation, of one unit.

    Raises:
        ValuesError: it is none.
    """
    found = re.fullmatch(r"([1-9]\d*)([smhdw])", str(duration))
    if not found:
        raise ValuesError(f"{duration!r} is no duration such as 30m, 12h or 7d")
    return int(found[1]) * SECONDS[found[2]]


def percent(share: float) -> str:
    """A value as texts have it, with all of its digits: a rounded one would be another limit."""
    return f"{100 * share:g}%"


def pair_of(text: str) -> tuple[str, str]:
    """Namespace and surface of ``namespace/surface``.

    Raises:
        ValuesError: it is none, or none that the library counts under.
    """
    try:
        (pair,) = resolve(surfaces=[text], environment={}).surfaces
    except SettingsError as error:
        raise ValuesError(str(error)) from None
    if "/".join(pair) != text:
        raise ValuesError(f"surfaces: {text!r} is counted as {'/'.join(pair)!r}: write it so")
    return pair


def check(values: Values) -> None:
    """Look whether rules made of the values would mean what they say.

    Raises:
        ValuesError: they would not; says which value, and what it can be.
    """
    _complete(values, _ours())
    if values["doctor_namespace"] != DOCTOR_NAMESPACE:
        raise ValuesError(
            f"doctor_namespace is {values['doctor_namespace']!r}, and otel-personalization doctor "
            f"sends decisions of {DOCTOR_NAMESPACE!r}"
        )
    for section in ("personalization", "baseline", "collaborative"):
        for key in ("windows", "low_traffic_windows"):
            windows = [seconds(window) for window in values[section].get(key, ())]
            if windows != sorted(set(windows)):
                raise ValuesError(f"{section}.{key} must grow: the shortest is tried first")
    evaluation = values["evaluation"]
    if seconds(evaluation["base_window"]) % seconds(evaluation["interval"]):
        raise ValuesError("evaluation.base_window must be a multiple of evaluation.interval")
    for text, own in values["surfaces"].items():
        pair_of(text)
        if unknown := sorted(set(own) - set(OWN)):
            raise ValuesError(
                f"surfaces: {text} has {', '.join(unknown)}; it can have {', '.join(OWN)}"
            )
    collaborative = values["collaborative"]
    for mode in (collaborative["mode"], *collaborative["namespaces"].values()):
        if mode not in MODES:
            raise ValuesError(f"collaborative: {mode!r} is none of {', '.join(MODES)}")


@cache
def _ours() -> Values:
    """What values.yaml has, whatever it says."""
    ours: Values = yaml.safe_load(VALUES.read_text())
    return ours


def _complete(values: Values, known: Values, within: str = "") -> None:
    """Look whether all sections and values of values.yaml are there."""
    for key, of_file in known.items():
        if key not in values:
            raise ValuesError(f"{within}{key} is missing; take it from {VALUES.name}")
        if isinstance(of_file, dict):
            if not isinstance(values[key], Mapping):
                raise ValuesError(f"{within}{key} is {values[key]!r}, and no section of values")
            _complete(values[key], of_file, f"{within}{key}.")
