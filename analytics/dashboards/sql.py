"""The SQL of the panels, over the tables of the nightly job, and its type in a dashboard.

Each statement shows the newest day that is not past the time range, of each organisation: a
night's figures are there whether an hour or a month is looked at.
"""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.cog import builder, variants

from analytics.dashboards.variables import POSTGRES
from otel_personalization.conventions import MIN_OVERLAP_USERS
from otel_personalization.daily.tables import (
    ALL,
    BLEND_WEIGHTS_DAILY,
    DIMENSIONS,
    NONE,
    PERCENTILES,
    PERSONALIZATION_DAILY,
    SOURCES_DAILY,
    SPLIT_P_VALUE,
    Table,
)

NOT_PROOF: Final = "correlation, not proof"
END_DAY: Final = "($__timeTo()::timestamptz AT TIME ZONE 'UTC')::date"
JACCARD: Final = ("jaccard_mean", *(f"jaccard_p{p}" for p in PERCENTILES))


class SqlQuery(variants.Dataquery, builder.Builder[variants.Dataquery]):
    """A statement for Grafana's PostgreSQL; the SDK has no type for it. It gives a table.

    Args:
        raw_sql: the statement, with Grafana's variables and macros.
        ref_id: its letter within the panel.
    """

    def __init__(self, raw_sql: str, ref_id: str = "A") -> None:
        self.raw_sql = raw_sql
        self.ref_id = ref_id

    def build(self) -> variants.Dataquery:
        """Itself: it is whole as it is."""
        return self

    def to_json(self) -> dict[str, object]:
        """As Grafana's code editor of SQL stores it."""
        return {
            "refId": self.ref_id,
            "datasource": POSTGRES.to_json(),
            "editorMode": "code",
            "format": "table",
            "rawQuery": True,
            "rawSql": self.raw_sql,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SqlQuery:
        """From what `to_json` gives."""
        return cls(data["rawSql"], data["refId"])


def matches(column: str) -> str:
    """Whether a column is what was picked in the variable of its name.

    Grafana escapes values for regular expressions, and All is one that fits everything. In quotes
    of dollars no quote of a value ends the text: the only thing that would is ``$re$``, and Grafana
    escapes its dollars.
    """
    return f"{column} ~ $re$^(?:${{{column}:regex}})$$re$"


def newest(table: Table) -> str:
    """Whether a row is of the newest day of its organisation, up to the end of the time range."""
    return (
        f"day = (\n"
        f"    SELECT max(day) FROM {table.qualified_name} AS days\n"
        f"    WHERE days.org_id = found.org_id AND days.day <= {END_DAY}\n"
        f"  )"
    )


def overlap() -> str:
    """Percentiles of overlap by cohort and device; null, and so greyed, with too few users."""
    figures = ",\n".join(
        f"  CASE WHEN overlap_users >= {MIN_OVERLAP_USERS} THEN {column} END"
        f' AS "{column.removeprefix("jaccard_")}"'
        for column in (*JACCARD[:1], "jaccard_mean_lower", "jaccard_mean_upper", *JACCARD[1:])
    )
    return f"""SELECT
  day,
  org_id AS organisation,
  namespace,
  surface,
  cohort,
  device,
  overlap_users AS users,
{figures}
FROM {BLEND_WEIGHTS_DAILY.qualified_name} AS found
WHERE experiment = '{ALL}' AND variant = '{ALL}' AND surface <> '{ALL}'
  AND {matches("namespace")}
  AND {matches("surface")}
  AND {newest(BLEND_WEIGHTS_DAILY)}
ORDER BY organisation, namespace, surface, cohort, device"""


_ENTROPY_ROWS: Final = f"""FROM {PERSONALIZATION_DAILY.qualified_name} AS found
WHERE cohort = '{ALL}' AND device = '{ALL}' AND surface <> '{ALL}'
  AND {matches("namespace")}
  AND {matches("surface")}
  AND {newest(PERSONALIZATION_DAILY)}"""


def entropy_bars() -> str:
    """Entropies by surface; null where they are not reliable."""
    bars = ",\n".join(
        f'  CASE WHEN entropy_{of}_reliable THEN entropy_{of} END AS "{of}"' for of in DIMENSIONS
    )
    return f"""SELECT
  namespace || '/' || surface
    || CASE WHEN count(*) OVER (PARTITION BY namespace, surface) > 1
       THEN ' (' || org_id || ')' ELSE '' END AS surface,
{bars}
{_ENTROPY_ROWS}
ORDER BY org_id, namespace, surface"""


def entropy_grounds() -> str:
    """What the entropies rest on: one row for each surface and dimension."""
    parts = "\nUNION ALL\n".join(
        f"""SELECT
  day,
  org_id AS organisation,
  namespace,
  surface,
  '{of}' AS "of",
  CASE WHEN entropy_{of}_reliable THEN entropy_{of} END AS entropy,
  entropy_{of}_lower AS lower,
  entropy_{of}_upper AS upper,
  CASE WHEN entropy_{of}_reliable THEN entropy_{of}_effective_number END AS "effective number",
  entropy_{of}_known_share AS "known share",
  entropy_{of}_sample_coverage AS "sample coverage",
  served_items AS "served items"
{_ENTROPY_ROWS}"""
        for of in DIMENSIONS
    )
    return f'{parts}\nORDER BY organisation, namespace, surface, "of"'


def variants_table() -> str:
    """Click-through by variant, with what may be made of it; only where outcomes were given."""
    whole = BLEND_WEIGHTS_DAILY.qualified_name
    return f"""SELECT
  found.day,
  found.org_id AS organisation,
  found.namespace,
  found.experiment,
  found.variant,
  found.surface,
  found.users,
  found.personalized_impression_rate AS "personalised share",
  found.impressions,
  found.clicks,
  found.ctr,
  found.ctr_lower AS "ctr lower",
  found.ctr_upper AS "ctr upper",
  found.personalized_ctr AS "ctr of personalised",
  found.other_ctr AS "ctr of others",
  found.ctr_difference AS difference,
  found.ctr_difference_lower AS "difference lower",
  found.ctr_difference_upper AS "difference upper",
  CASE
    WHEN found.experiment = '{NONE}' THEN '{NOT_PROOF}: no experiment'
    WHEN split.sample_ratio_p_value IS NULL
      THEN '{NOT_PROOF}: it is not known how users were split'
    WHEN split.sample_ratio_p_value < {SPLIT_P_VALUE}
      THEN '{NOT_PROOF}: the variants do not have the users that they should'
    ELSE 'variants compare, if users were split at random'
  END || CASE
    WHEN found.experiment <> '{NONE}' AND split.users_of_several_variants > 0
      THEN '; but ' || split.users_of_several_variants || ' of ' || split.users
        || ' users had several variants, so they are not separate'
    ELSE ''
  END AS reading
FROM {whole} AS found
JOIN {whole} AS split
  ON split.day = found.day
  AND split.org_id = found.org_id
  AND split.namespace = found.namespace
  AND split.experiment = found.experiment
  AND split.variant = '{ALL}' AND split.surface = '{ALL}'
  AND split.cohort = '{ALL}' AND split.device = '{ALL}'
WHERE found.experiment <> '{ALL}' AND found.variant <> '{ALL}'
  AND found.cohort = '{ALL}' AND found.device = '{ALL}'
  AND split.impressions > 0
  AND found.{matches("namespace")}
  AND (found.surface = '{ALL}' OR found.{matches("surface")})
  AND found.{newest(BLEND_WEIGHTS_DAILY)}
ORDER BY organisation, namespace, experiment, surface, variant"""


def streaks() -> str:
    """How long sources went without a candidate, the longest runs first."""
    return f"""SELECT
  day,
  org_id AS organisation,
  namespace,
  surface,
  source,
  decisions,
  empty_decisions AS "empty",
  empty_decisions::double precision / NULLIF(decisions, 0) AS "empty share",
  longest_empty_streak AS "longest run"
FROM {SOURCES_DAILY.qualified_name} AS found
WHERE {matches("namespace")}
  AND (surface = '{ALL}' OR {matches("surface")})
  AND {newest(SOURCES_DAILY)}
ORDER BY "longest run" DESC, organisation, namespace, surface, source
LIMIT 200"""
