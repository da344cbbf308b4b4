"""The dependencies that are said to be supported are the ones that are tested, the oldest, too."""

from __future__ import annotations

from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

OLDEST = Path(__file__).with_name("oldest.txt")
NEEDED_BY_OLD_ONES = {"click", "pyparsing"}
"""Not ours. Of these the newest does not go with the oldest of ours."""
REQUIRED = [
    requirement
    for requirement in map(Requirement, requires("otel-personalization") or ())
    if requirement.name != "otel-personalization"
]


def test_the_oldest_that_are_tested_are_the_oldest_that_are_allowed():
    allowed = {
        requirement.name: Version(bound.version)
        for requirement in REQUIRED
        for bound in requirement.specifier
        if bound.operator == ">="
    }
    pins = (Requirement(line) for line in OLDEST.read_text().splitlines() if line[0] != "#")
    tested = {
        pin.name: Version(str(pin.specifier).removeprefix("=="))
        for pin in pins
        if pin.name not in NEEDED_BY_OLD_ONES
    }
    assert tested == allowed
    assert allowed.keys() == {requirement.name for requirement in REQUIRED}


def test_nothing_but_wrapt_has_an_upper_bound():
    """`make test` installs the newest; what a bound keeps away would not be tested."""
    bounded = {
        requirement.name
        for requirement in REQUIRED
        if any(bound.operator != ">=" for bound in requirement.specifier)
    }
    assert bounded == {"wrapt"}
