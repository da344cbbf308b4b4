"""The tables of the nightly job: every column, its type and its meaning, named once.

The warehouse makes its tables from here, comments included, and the reference shows them::

    >>> SOURCES_DAILY.qualified_name, [column.name for column in SOURCES_DAILY.key]
    ('analytics.personalization_sources_daily', ['day', 'org_id', 'namespace', 'surface', 'source'])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Final

import pyarrow as pa

ALL: Final = "all"
"""Stands for every surface, cohort, device, experiment or variant in a rolled-up row. A real value
of that name is stored as ``all_``, in one row with a value that is itself called so."""
NONE: Final = "none"
"""Experiment and variant of a decision without one; a real one of that name is ``none_``, and
in one row with one that is itself called so."""
UNKNOWN: Final = "unknown"
"""An organisation, cohort or device of which nothing is known."""
NEW: Final = "new"
RETURNING: Final = "returning"

DIMENSIONS: Final = ("brand", "category")
"""Of what entropy is taken."""
PERCENTILES: Final = (50, 75, 90, 95, 99)
"""Of pairwise overlap."""
OVERLAP_SETTINGS: Final = ("overlap_k", "overlap_window_days")
"""Columns that say which overlap it is: two are compared only where these are the same."""
CONFIDENCE: Final = 0.95
"""Of all intervals."""
SPLIT_P_VALUE: Final = 0.001
"""Chance of a split at least as odd, under which the arms of an experiment do not hold the users
that they should (Fabijan et al., 2019, KDD)."""


class Kind(str, Enum):
    """Types of columns."""

    DATE = "date"
    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        name: its name in every warehouse.
        kind: its type; only key columns and those that say so are never null.
        meaning: what it says, with its unit or range.
        is_key: whether it is one of those that tell rows apart.
    """

    name: str
    kind: Kind
    meaning: str
    is_key: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the warehouse, in which a day of an organisation is replaced as a whole."""

    schema: str
    name: str
    meaning: str
    columns: tuple[Column, ...]

    @property
    def qualified_name(self) -> str:
        """Schema and name."""
        return f"{self.schema}.{self.name}"

    @property
    def key(self) -> tuple[Column, ...]:
        """The columns that tell rows apart."""
        return tuple(column for column in self.columns if column.is_key)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return tuple(column.name for column in self.columns)


def _key(name: str, meaning: str, kind: Kind = Kind.TEXT) -> Column:
    return Column(name, kind, meaning, is_key=True)


def _count(name: str, meaning: str) -> Column:
    return Column(name, Kind.INTEGER, meaning)


def _number(name: str, meaning: str) -> Column:
    return Column(name, Kind.NUMBER, meaning)


_DAY: Final = _key("day", "UTC date of the decisions' `ts`", Kind.DATE)
_ORG: Final = _key("org_id", "organisation; `unknown` where the trace has none")
_NAMESPACE: Final = _key("namespace", "trimmed, lower-cased; `unknown` where the trace has none")
_SURFACE: Final = _key(
    "surface", "trimmed, lower-cased; `default` where the trace has none; `all` is every surface"
)
_COHORT: Final = _key(
    "cohort",
    "`extras.cohort`, else `returning` if the user was seen in the days before, else `new`; "
    "`unknown` without a user or without days before; `all` is every cohort",
)
_DEVICE: Final = _key(
    "device",
    "`extras.device`, else that of `bandit.bucket_key`, else `unknown`; `all` is every device",
)

_VOLUMES: Final = (
    _count("decisions", "decisions; deliveries of one decision_id count once"),
    _count("empty_decisions", "decisions that served nothing"),
    _count("users", "distinct user hashes"),
    _number("known_user_share", "share of decisions that have a user hash; 0 to 1"),
    _count("served_items", "positions of final_items"),
    _number(
        "effective_decisions",
        "(sum n)^2 / sum n^2 over decisions of n items (Kish): as many decisions as uncertainty "
        "of a share of items comes from; null where nothing was served",
    ),
    _count("personalized_items", "served items marked as personalised"),
    _count("reason_items", "served items with a surfaced reason"),
    _count(
        "reason_requested_items",
        "served items of decisions whose caller did not decline reasons "
        "(extras.include_reasons is not false)",
    ),
    _count("cold_start_items", "served cold-start items"),
)
_RATES: Final = (
    _number("personalized_impression_rate", "personalized_items / served_items; null without any"),
    _number("reason_coverage_rate", "reason_items / served_items; null without any"),
    _number(
        "requested_reason_coverage_rate",
        "reason_items / reason_requested_items; null where nobody asked",
    ),
)
_OVERLAP: Final = (
    _number(
        "jaccard_mean",
        "mean Jaccard overlap |A and B| / |A or B| of two users' lists, 0 to 1; a user's list is "
        "the first overlap_k distinct items of the last non-empty one of the window; null with "
        "fewer than two users, and where surface is `all`",
    ),
    _number("jaccard_mean_lower", "95 % interval of jaccard_mean, by jackknife over users"),
    _number("jaccard_mean_upper", "95 % interval; null under 30 users"),
    *(
        _number(f"jaccard_p{p}", f"{p}th percentile over pairs of users; null under 30 users")
        for p in PERCENTILES
    ),
    _number("identical_list_share", "share of pairs whose lists hold the same items"),
    _count("overlap_users", "users whose lists were compared: all, or 5,000 chosen by hash"),
    _count("overlap_pairs", "unordered pairs of them"),
    _count("overlap_eligible_users", "users with a hash and a list that is not empty"),
    _number("overlap_short_list_share", "share of the compared lists with under overlap_k items"),
    _count("overlap_k", "K: how many items of a list are compared at most"),
    _count("overlap_window_days", "days from which lists are taken, the day itself included"),
)


def _entropy(of: str) -> Iterable[Column]:
    yield _number(
        f"entropy_{of}",
        f"entropy of the {of} of served items, in nats, corrected for what was not seen (Chao, "
        "Wang and Jost, 2013): for comparing cells and days; null where no item has one",
    )
    yield _number(f"entropy_{of}_observed", "the same of just what was served (plug-in), in nats")
    yield _number(
        f"entropy_{of}_lower", f"95 % interval of entropy_{of}, by leaving out groups of users"
    )
    yield _number(f"entropy_{of}_upper", "95 % interval; null where not reliable")
    yield _number(
        f"entropy_{of}_effective_number", f"exp(entropy_{of}): as many equally served ones"
    )
    yield _number(f"entropy_{of}_known_share", f"share of served items whose {of} is known")
    yield _number(
        f"entropy_{of}_sample_coverage",
        "estimated share of what could be served that was seen, 1 - f1 / n (Good, 1953)",
    )
    yield Column(
        f"entropy_{of}_reliable",
        Kind.BOOLEAN,
        "whether 30 groups of users (256 by hash) were served one, the sample coverage is 0.95 at "
        "least, and of the items at most 10 % are of values that one group alone was served, and "
        "at most 3 % either of those, or of values that just two groups were served",
    )


PERSONALIZATION_DAILY: Final = Table(
    "analytics",
    "personalization_daily",
    "What was served on a day: volumes, shares, overlap and entropy.",
    (
        _DAY,
        _ORG,
        _NAMESPACE,
        _SURFACE,
        _COHORT,
        _DEVICE,
        *_VOLUMES,
        *_RATES,
        _number(
            "mean_decision_personalized_rate",
            "mean over non-empty decisions of their personalised share: each weighs the same, "
            "while 1 % of decisions can hold 20 % of the items",
        ),
        _number("top10_exposure_share", "share of served items that are the ten most served ones"),
        _count("catalog_items", "distinct items that were served"),
        *_OVERLAP,
        *(column for of in DIMENSIONS for column in _entropy(of)),
        _count("mmr_picks", "picks of the diversity re-ranker (mmr_info)"),
        _number("brand_cap_hit_share", "share of picks whose brand had a cap value"),
        _number("category_cap_hit_share", "share of picks whose category had a cap value"),
    ),
)

SOURCES_DAILY: Final = Table(
    "analytics",
    "personalization_sources_daily",
    "Candidate sources on a day: did they find anything?",
    (
        _DAY,
        _ORG,
        _NAMESPACE,
        _SURFACE,
        _key("source", "key of extras.candidate_sources that is no stage of the funnel"),
        _count("candidates", "candidates that it found"),
        _count("decisions", "decisions in which it took part"),
        _count("empty_decisions", "those of them in which it found none"),
        _count(
            "longest_empty_streak",
            "longest run of such decisions in the order of ts; those without the source are "
            "skipped",
        ),
    ),
)

WEIGHTS: Final = ("alpha", "beta", "gamma", "profile_boost", "mmr_lambda")
"""Blend weights on record: keys of ``effective_config``."""

_OUTCOMES: Final = (
    _count(
        "impressions",
        "items of decisions of which an impression was reported, each once; null without outcomes",
    ),
    _count("clicks", "those that were clicked, each once"),
    _number("ctr", "clicks / impressions; null without any"),
    _number("ctr_lower", "95 % interval of ctr, clustered by user (256 groups by hash)"),
    _number(
        "ctr_upper",
        "95 % interval; null under 30 groups of users, and unless 10 of them have a click and 10 "
        "an impression without",
    ),
    _number(
        "personalized_ctr",
        "ctr of personalised items at the positions that have impressions of both kinds, with n "
        "and m of them each weighted by n m / (n + m); null without such positions",
    ),
    _number("other_ctr", "ctr of the other items at the same positions, weighted alike"),
    _number(
        "ctr_difference",
        "personalized_ctr - other_ctr; it shows no cause, for users are not alike who get the one "
        "or the other",
    ),
    _number("ctr_difference_lower", "95 % interval of ctr_difference, clustered by user"),
    _number("ctr_difference_upper", "95 % interval; null unless either kind has what ctr needs"),
    _number(
        "sample_ratio_p_value",
        "chi-squared test of an even split of users among the variants of the experiment that had "
        "any, users of several and variant `none` left out; only where variant is `all`, with two "
        "variants, 30 users, and 5 for each variant",
    ),
    _count(
        "users_of_several_variants",
        "users who were served several variants of the experiment, `none` left out: what they saw "
        "and clicked is in the ctr of each; only where variant is `all`, with outcomes",
    ),
)

BLEND_WEIGHTS_DAILY: Final = Table(
    "experiments",
    "blend_weights_daily",
    "Overlap, shares and blend weights by experiment and variant.",
    (
        _DAY,
        _ORG,
        _NAMESPACE,
        _key("experiment", "`none` without one; `all` is every decision"),
        _key("variant", "`none` without one; `all` is every variant"),
        _SURFACE,
        _COHORT,
        _DEVICE,
        *_VOLUMES,
        *_RATES,
        *_OVERLAP,
        *(_number(weight, f"most frequent {weight} on record") for weight in WEIGHTS),
        _count("weight_settings", "distinct settings of those weights together"),
        *_OUTCOMES,
    ),
)

TABLES: Final = (PERSONALIZATION_DAILY, SOURCES_DAILY, BLEND_WEIGHTS_DAILY)
"""Every table of the warehouse."""


_ARROW: Final = {
    Kind.DATE: pa.date32(),
    Kind.TEXT: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
}


def arrow_schema(table: Table) -> pa.Schema:
    """The schema of a table's rows in memory; key columns are never null."""
    return pa.schema(
        pa.field(column.name, _ARROW[column.kind], nullable=not column.is_key)
        for column in table.columns
    )


@dataclass(frozen=True)
class OutcomeQuality:
    """What became of the outcomes that were given."""

    types: dict[str, int]
    """Those that could be read, by type; adds and purchases are in no rate."""
    unreadable: dict[str, int]
    """Those that could not, by kind: ``no_json``, ``damaged`` (rests of files), ``no_ids``,
    ``unknown_type``."""
    other_decisions: int
    """Those of decisions that are not among the organisation's of the day."""
    unknown_items: int
    """Those of an item that the decision did not serve."""
    unseen_clicks: int
    """Clicked items of which no impression was reported; they are in no rate."""
    uncompared_impressions: int
    """Impressions of decisions of which only the number of personalised items is known; they are
    in no comparison of those with others."""
    users_of_several_variants: int
    """Of all experiments; they are in no test of how users were split."""


@dataclass(frozen=True)
class Quality:
    """What became of the stored traces of a day, and by which rule their users were told apart."""

    decisions: int
    """Counted ones."""
    malformed: dict[str, int]
    """Traces with a day that could not be counted, by reason: malformed ones, and those whose
    organisation has an id that cannot be used."""
    skipped_lines: int
    """Lines that are no JSON."""
    damaged_rests: int
    """Rests of files whose gzip stream is damaged, each of an unknown number of lines."""
    undated: int
    """Traces without a readable ``ts``, which belong to no day."""
    repeated: int
    """Further deliveries of a decision_id, which do not count."""
    cohort_rules: dict[str, int]
    """Decisions by what gave their cohort: ``extras``, ``history`` or ``unknown``."""
    device_rules: dict[str, int]
    """Decisions by what gave their device: ``extras``, ``bucket_key`` or ``unknown``."""
    history_days: int
    """Days of snapshots within the history window, by which users are new or returning."""
    missing_window_days: Sequence[date] = ()
    """Days of the window without a snapshot, so without lists; in order."""
    outcomes: OutcomeQuality | None = None
    """None where none were given."""


@dataclass(frozen=True)
class DayTables:
    """The rows of a day of an organisation, and what they rest on."""

    day: date
    org_id: str
    rows: Mapping[str, pa.Table]
    """Qualified name of a table -> its rows, of `arrow_schema`."""
    quality: Quality
