"""The dashboard as Grafana reads it, and its queries as Grafana sends them.

Grafana cannot be run here. What stands in queries for something is put in as its documentation says
(Variable syntax; Prometheus template variables; PostgreSQL query editor):

- ``$name`` and ``${name}`` are what was picked. Where several values or All can be picked, values
  are escaped for a regular expression in quotes, and several become ``(a|b)``.
- ``${name:regex}`` are the values escaped for a regular expression, several as ``(a|b)``;
  ``${name:raw}`` is the value as it is.
- All is the custom value that stands for it, as it is, whatever the format.
- ``$__rate_interval`` is the longer of a step and a scrape, and four scrapes.
- ``$__timeFrom()`` and ``$__timeTo()`` in SQL are texts of RFC 3339, in UTC.

A variable that is not there stays as it stands. So a dollar of a regular expression does no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "analytics" / "dashboards" / "personalization.json"
DASHBOARD = json.loads(FILE.read_text("utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, dict[str, Any]] = {
    variable["name"]: variable for variable in DASHBOARD["templating"]["list"]
}
LANGUAGES = {
    "prometheus": "promql",
    "loki": "logql",
    "grafana-postgresql-datasource": "sql",
}
ALL = "$__all"
REFERENCE = re.compile(r"\$(\w+)|\$\{(\w+)(?::(\w+))?\}")
MACRO = re.compile(r"\$__time(From|To)\(\)")
SCRAPE_SECONDS = 15
"""What Grafana takes for the interval of scrapes where its data source names none."""


@dataclass(frozen=True)
class Query:
    """What a panel asks for."""

    panel: str
    """Its title."""
    ref_id: str
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.panel}-{self.ref_id}"


def queries(language: str) -> list[Query]:
    """Of all panels, in a language: promql, logql or sql."""
    return [
        Query(panel["title"], target["refId"], language, target.get("expr") or target["rawSql"])
        for panel in PANELS
        for target in panel["targets"]
        if LANGUAGES[target["datasource"]["type"]] == language
    ]


def query(panel: str, ref_id: str = "A") -> Query:
    """One of them."""
    (found,) = (
        one
        for language in set(LANGUAGES.values())
        for one in queries(language)
        if (one.panel, one.ref_id) == (panel, ref_id)
    )
    return found


def annotation(name: str) -> str:
    """The PromQL of one."""
    (found,) = (one for one in DASHBOARD["annotations"]["list"] if one["name"] == name)
    return str(found["target"]["expr"])


@dataclass(frozen=True)
class Picked:
    """What a reader has picked.

    Args:
        values: by the name of the variable; what is not there is as the dashboard comes.
        end: of the time range, in Unix time.
        step: in seconds; of panels it is their least interval, at least.
    """

    values: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    end: float = 0.0
    step: int = 60

    def expanded(self, text: str, language: str) -> str:
        """A query as its server gets it."""
        rate = max(self.step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)
        text = text.replace("$__rate_interval", f"{rate}s")
        if language == "sql":
            # Data before the range is shown, too, so no statement asks when it begins.
            assert "$__timeFrom" not in text
            end = datetime.fromtimestamp(self.end, timezone.utc)
            text = MACRO.sub(f"'{end:%Y-%m-%dT%H:%M:%SZ}'", text)
        text = REFERENCE.sub(lambda found: self._value(found, language), text)
        assert "$__" not in text, text
        return text

    def _value(self, found: re.Match[str], language: str) -> str:
        variable = VARIABLES.get(found[1] or found[2])
        if variable is None:
            return found[0]
        picked = self.values.get(variable["name"], variable.get("current", {}).get("value"))
        if picked == ALL:
            return str(variable["allValue"])
        values = [picked] if isinstance(picked, str) else list(picked)
        if found[3] == "raw":
            return values[0]
        if found[3] == "regex":
            return alternatives([re.sub(r"[\\^$.*+?()\[\]{}|]", r"\\\g<0>", one) for one in values])
        assert found[3] is None, f"{found[0]}: what this format gives is not written down here"
        assert language != "sql", f"{found[0]}: in SQL say how it is to be escaped"
        if variable["multi"] or variable["includeAll"]:
            return alternatives([in_a_quoted_expression(one) for one in values])
        return values[0].replace("\\", r"\\").replace("'", r"\\'")


def alternatives(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"({'|'.join(values)})"


def in_a_quoted_expression(value: str) -> str:
    """Escaped for a regular expression, and that for quotes, in which a backslash is two."""
    return re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value.replace("\\", r"\\\\"))
