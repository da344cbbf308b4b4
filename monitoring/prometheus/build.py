"""Makes the rules of Prometheus from values.yaml: ``make rules``.

Names of metrics come from the telemetry contract, numbers from ``values.yaml``. How the two go
together is in ``recording.py`` and ``alerts.py``, and why in ``docs/decisions/0007-rules.md``.
Other values give other rules::

    files = build(load(Path("our-values.yaml")))
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import yaml

from monitoring.prometheus.alerts import alerts
from monitoring.prometheus.promql import Group
from monitoring.prometheus.recording import recording
from monitoring.prometheus.values import Values, check, load

RULES: Final = Path(__file__).with_name("rules")
KUBERNETES: Final = Path(__file__).parents[1] / "kubernetes" / "rules.yaml"
HEAD: Final = """\
# {what}. Made by build.py from values.yaml: change that, and run `make rules`.
# For Prometheus 2.42 and later.
groups:
"""
RESOURCE: Final = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {name}
  namespace: monitoring
spec:
"""


class _Dumper(yaml.SafeDumper):
    """Writes PromQL of several lines as such."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def written(what: str, groups: Iterable[Group]) -> str:
    """A file of rules, with the comments of each."""
    parts = [HEAD.format(what=what)]
    for group in groups:
        parts.append(f"  - name: {group.name}\n    interval: {group.interval}\n    rules:\n")
        for rule in group.rules:
            comments = (textwrap.fill(line, 92) for line in rule.why.splitlines())
            comment = "".join(f"# {line}\n" for text in comments for line in text.splitlines())
            dumped = yaml.dump(
                [rule.as_dict()], Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True
            )
            parts.append(textwrap.indent(comment + dumped, " " * 6))
    return "".join(parts)


def build(values: Values) -> dict[str, str]:
    """The files of rules: name -> text.

    Raises:
        ValuesError: rules can't be made of these values.
    """
    check(values)
    return {
        "personalization.recording.yaml": written("Recording rules", recording(values)),
        "personalization.alerts.yaml": written("Alerts", alerts(values)),
    }


def for_operator(files: dict[str, str]) -> str:
    """The files of rules as resources for the Prometheus Operator."""
    resources = (
        RESOURCE.format(name=name.removesuffix(".yaml").replace(".", "-"))
        + textwrap.indent(text, "  ")
        for name, text in files.items()
    )
    return "---\n".join(resources)


def main() -> None:
    """Write the files."""
    files = build(load())
    for name, text in files.items():
        (RULES / name).write_text(text)
    KUBERNETES.write_text(for_operator(files))


if __name__ == "__main__":
    main()
