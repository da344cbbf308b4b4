"""The telemetry contract: every metric, attribute, unit and default, named once.

Nothing else in the package spells a metric name. Rules, dashboards, logs and documentation are
checked against this module::

    >>> SERVED_ITEMS.name, SERVED_ITEMS.unit, SERVED_ITEMS.prometheus_name
    ('recsys.served_items', '{item}', 'recsys_served_items_total')
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

SCOPE_NAME: Final = "otel_personalization"
"""Name of the instrumentation scope of every metric, and of the library's logger."""

ENVIRONMENT_PREFIX: Final = "OTEL_PERSONALIZATION_"

# --- attributes -------------------------------------------------------------------------------

NAMESPACE: Final = "recsys.namespace"
"""Not plain ``namespace``: Kubernetes scrapes overwrite that label."""
SURFACE: Final = "surface"
SOURCE: Final = "source"
REASON: Final = "reason"
KIND: Final = "kind"
FORKED_PROCESS: Final = "otel_personalization.forked_process_id"
"""Scope attribute of a forked process on an inherited provider; see ``metrics.py``."""

# --- values that stand in ---------------------------------------------------------------------

UNKNOWN_NAMESPACE: Final = "unknown"
DEFAULT_SURFACE: Final = "default"
DOCTOR_NAMESPACE: Final = "otel_personalization_doctor"
"""Of decisions that ``otel-personalization doctor`` sends: rules and panels leave it out."""
DOCTOR_WAIT_SECONDS: Final = 90
"""How long those may take: a window of the views, 60 s, a scrape interval of 15 s, and some."""
FOLDED: Final = "other"
"""Label value of whatever came past a bound on the number of labels."""

# --- bounds and defaults ----------------------------------------------------------------------

MAX_LABEL_LENGTH: Final = 64
"""Characters of a namespace, surface or source; a longer value folds."""
DEFAULT_MAX_LABEL_SETS: Final = 64
"""(namespace, surface) pairs of a process."""
MAX_SOURCES: Final = 16
"""Candidate sources of a process."""
SDK_ATTRIBUTE_SET_LIMIT: Final = 2000
"""Attribute sets the OpenTelemetry SDK keeps of one instrument; it merges the rest."""
LARGEST_MAX_LABEL_SETS: Final = SDK_ATTRIBUTE_SET_LIMIT // (MAX_SOURCES + 1) - 1
"""With it, pairs x sources, the folded ones included, stay under the SDK's limit."""
MAX_CANDIDATES: Final = 1_000_000_000
"""Largest believable candidate count of one source in one decision. More is no count: it would
soon overflow the 64-bit sums of OTLP, and one bad point fails a whole export."""
DEFAULT_STAGES: Final = frozenset({"merged", "post_constraints", "post_exclusion", "prefetched"})
"""Keys of ``extras.candidate_sources`` that are stages of the funnel, not sources."""

MAX_LOG_VALUE_LENGTH: Final = 256
"""Characters of a text in a log line; a longer one is cut."""
MAX_LOGGED_SOURCES: Final = 32
"""Candidate sources in a log line; further ones are cut."""
MAX_LOG_LINE_BYTES: Final = 16 * 1024
"""A line is shorter, whatever the trace holds: its values are cut until it is."""
MAX_QUEUED_LOG_RECORDS: Final = 10_000
"""Decisions that wait to be written as log lines, some 20 MB at most; further ones are dropped."""

# --- words of the decision trace --------------------------------------------------------------

PERSONALIZATION_REASON: Final = "personalization"
COLD_START_REASON: Final = "cold_start"
COLLABORATIVE_SOURCE: Final = "collaborative"
STAMPED_PERSONALIZED: Final = "personalized_items_count"
STAMPED_REASON: Final = "reason_items_count"


class MalformedReason(str, Enum):
    """Why a trace could not be counted: the values of ``reason``, a fixed set."""

    NOT_A_TRACE = "not_a_trace"
    """No mapping and no object: None, a list, a string, a number, something to be awaited; or one
    that has no field of a trace, such as the body of an error."""
    ITEMS_NOT_A_LIST = "items_not_a_list"
    """``final_items`` (or ``items`` of a response) is there and is no list or tuple."""
    ITEM_NOT_AN_OBJECT = "item_not_an_object"
    """An entry of it is no mapping and no object."""
    UNREADABLE = "unreadable"
    """Reading the trace, its items or an entry raised an exception."""


class InternalErrorKind(str, Enum):
    """Faults of the library that the host never saw: the values of ``kind``, a fixed set."""

    LOCATE = "locate"
    """A ``trace=`` callable or property raised while the trace was looked for."""
    RECORD = "record"
    """Reading, stamping or counting a trace failed in a way that should be impossible."""
    PATCH = "patch"
    """A target could not be wrapped when its module was imported, or under zero-code set-up."""
    COLLECT = "collect"
    """The totals could not be handed to the OpenTelemetry SDK."""
    FLUSH = "flush"
    """A flush, at exit or asked for, failed or ran out of time."""
    LOG = "log"
    """A log line could not be made, or a logging handler of the host's raised."""


@dataclass(frozen=True)
class Counter:
    """A monotonic sum.

    Args:
        field: its name in totals, tables and JSON.
        name: its OpenTelemetry name.
        unit: its UCUM unit; braces mean that it counts what they hold.
        description: what it adds up.
        attributes: keys of its attributes.
    """

    field: str
    name: str
    unit: str
    description: str
    attributes: tuple[str, ...] = (NAMESPACE, SURFACE)

    @property
    def prometheus_name(self) -> str:
        """Its name as Prometheus shows it."""
        return self.name.replace(".", "_") + "_total"


DECISIONS = Counter("decisions", "recsys.decisions", "{decision}", "Finalised decisions.")
EMPTY_DECISIONS = Counter(
    "empty_decisions", "recsys.empty_decisions", "{decision}", "Decisions that served nothing."
)
SERVED_ITEMS = Counter("served_items", "recsys.served_items", "{item}", "Served items.")
SERVED_ITEMS_SQUARED = Counter(
    "served_items_squared",
    "recsys.served_items_squared",
    "{item}",
    "Served items of a decision, squared. (sum n)^2 / sum n^2 is the effective number of "
    "decisions behind an item-weighted share (Kish, Survey Sampling, 1965).",
)
PERSONALIZED_ITEMS = Counter(
    "personalized_items",
    "recsys.personalized_items",
    "{item}",
    "Served items marked as personalised (extras.personalized_items_count).",
)
REASON_ITEMS = Counter(
    "reason_items",
    "recsys.reason_items",
    "{item}",
    "Served items with a surfaced reason (extras.reason_items_count).",
)
REASON_REQUESTED_ITEMS = Counter(
    "reason_requested_items",
    "recsys.reason_requested_items",
    "{item}",
    "Served items of decisions whose caller did not decline reasons "
    "(extras.include_reasons is not false).",
)
COLD_START_ITEMS = Counter(
    "cold_start_items", "recsys.cold_start_impressions", "{item}", "Served cold-start items."
)

DECISION_COUNTERS: Final = (
    DECISIONS,
    EMPTY_DECISIONS,
    SERVED_ITEMS,
    SERVED_ITEMS_SQUARED,
    REASON_REQUESTED_ITEMS,
    PERSONALIZED_ITEMS,
    REASON_ITEMS,
    COLD_START_ITEMS,
)
"""The counters of a (namespace, surface)."""

CANDIDATES = Counter(
    "candidates",
    "recsys.candidates",
    "{candidate}",
    "Candidates by source.",
    (NAMESPACE, SURFACE, SOURCE),
)
SOURCE_DECISIONS = Counter(
    "decisions",
    "recsys.candidate_source.decisions",
    "{decision}",
    "Decisions in which the source took part.",
    (NAMESPACE, SURFACE, SOURCE),
)
SOURCE_EMPTY_DECISIONS = Counter(
    "empty_decisions",
    "recsys.candidate_source.empty_decisions",
    "{decision}",
    "Decisions in which the source took part and found no candidate.",
    (NAMESPACE, SURFACE, SOURCE),
)
SOURCE_COUNTERS: Final = (SOURCE_DECISIONS, SOURCE_EMPTY_DECISIONS, CANDIDATES)
"""The counters of a (namespace, surface, source)."""

IMPRESSIONS = Counter(
    "impressions", "recsys.impressions", "{item}", "Item impressions, as reported by the host."
)
CLICKS = Counter("clicks", "recsys.clicks", "{item}", "Item clicks, as reported by the host.")
OUTCOME_COUNTERS: Final = (IMPRESSIONS, CLICKS)
"""What the host reports; absent until it does."""

MALFORMED_TRACES = Counter(
    "malformed_traces",
    "otel_personalization.malformed_traces",
    "{trace}",
    "Traces that could not be counted.",
    (REASON,),
)
INTERNAL_ERRORS = Counter(
    "internal_errors",
    "otel_personalization.internal_errors",
    "{error}",
    "Faults of the library that the host never saw.",
    (KIND,),
)
DROPPED_LOG_RECORDS = Counter(
    "dropped_log_records",
    "otel_personalization.dropped_log_records",
    "{record}",
    "Log lines lost to a full queue or a failed write.",
    (),
)
FOLDED_DECISIONS = Counter(
    "folded_decisions",
    "otel_personalization.folded_decisions",
    "{decision}",
    "Decisions counted under the label value 'other'.",
    (),
)

COUNTER_GROUPS: Final = (
    DECISION_COUNTERS,
    SOURCE_COUNTERS,
    OUTCOME_COUNTERS,
    (MALFORMED_TRACES,),
    (INTERNAL_ERRORS,),
    (DROPPED_LOG_RECORDS,),
    (FOLDED_DECISIONS,),
)
"""The counters in groups; those of a group have the same attributes and are read together."""

COUNTERS: Final = tuple(counter for group in COUNTER_GROUPS for counter in group)
"""Every counter of the contract."""


# --- what is made of counters, lines and stored traces ------------------------------------------


@dataclass(frozen=True)
class Gauge:
    """A value that is no sum, as the Collector or the nightly job computes it.

    Args:
        name: its OpenTelemetry name. It has no unit, since Prometheus would append it.
        description: what it says.
        attributes: keys of its attributes.
    """

    name: str
    description: str
    attributes: tuple[str, ...] = (NAMESPACE, SURFACE)

    @property
    def prometheus_name(self) -> str:
        """Its name as Prometheus shows it."""
        return self.name.replace(".", "_")


PERSONALIZED_IMPRESSION_RATE = Gauge(
    "personalized_impression_rate",
    "Of the items served in the window, the share that was personalised.",
)
REASON_COVERAGE_RATE = Gauge(
    "reason_coverage_rate", "Of the items served in the window, the share with a reason."
)
REQUESTED_REASON_COVERAGE_RATE = Gauge(
    "requested_reason_coverage_rate",
    "Of the items served in the window to callers who asked for reasons, the share with one.",
)
WINDOW_SERVED_ITEMS = Gauge(
    "recsys.window_served_items",
    "Items served in the window, over which the rates beside it were taken.",
)
VIEWS: Final = (
    PERSONALIZED_IMPRESSION_RATE,
    REASON_COVERAGE_RATE,
    REQUESTED_REASON_COVERAGE_RATE,
    WINDOW_SERVED_ITEMS,
)
"""What the Collector computes, over a window of its own."""
RATES: Final = {
    PERSONALIZED_IMPRESSION_RATE: (PERSONALIZED_ITEMS, SERVED_ITEMS),
    REASON_COVERAGE_RATE: (REASON_ITEMS, SERVED_ITEMS),
    REQUESTED_REASON_COVERAGE_RATE: (REASON_ITEMS, REASON_REQUESTED_ITEMS),
}
"""What each of its rates divides."""

SAMPLE_RATE: Final = "sample_rate"
LOG_DECISIONS = Counter(
    "log_decisions",
    "recsys.log.decisions",
    "{record}",
    "Decisions that have a log line, as the log Collector counts them.",
    (SAMPLE_RATE,),
)

CATALOG_OVERLAP = Gauge(
    "catalog_overlap_pct", "Mean Jaccard overlap of two users' items on the data day, in percent."
)
CATALOG_OVERLAP_USERS = Gauge(
    "catalog_overlap_users", "Users whose items were compared on the data day."
)
CATALOG_OVERLAP_LOWER = Gauge(
    "catalog_overlap_pct_lower", "Lower end of the 95 % interval of the overlap, in percent."
)
CATALOG_OVERLAP_UPPER = Gauge(
    "catalog_overlap_pct_upper", "Upper end of the 95 % interval of the overlap, in percent."
)
CATALOG_OVERLAP_PREVIOUS_DAY = Gauge(
    "catalog_overlap_pct_previous_day",
    "The overlap of the day before the data day, in percent; absent where that day is missing or "
    "has another K or window.",
)
DIVERSITY_ENTROPY_BRAND = Gauge(
    "diversity_entropy_brand",
    "Entropy of the brand of served items on the data day, in nats, corrected for what was not "
    "seen; absent where not reliable.",
)
DIVERSITY_ENTROPY_CATEGORY = Gauge(
    "diversity_entropy_category",
    "Entropy of the category of served items on the data day, in nats, corrected for what was "
    "not seen; absent where not reliable.",
)
DIVERSITY_KNOWN_BRAND_SHARE = Gauge(
    "diversity_known_brand_share", "Share of served items of the data day whose brand is known."
)
DIVERSITY_KNOWN_CATEGORY_SHARE = Gauge(
    "diversity_known_category_share",
    "Share of served items of the data day whose category is known.",
)
DAILY_DATE = Gauge(
    "personalization_daily_date_seconds", "UTC midnight of the data day, in Unix time.", ()
)
DAILY_SUCCESS_TIMESTAMP = Gauge(
    "personalization_daily_success_timestamp_seconds",
    "When the figures of the data day were pushed, in Unix time.",
    (),
)
DAILY_LAST_RUN_TIMESTAMP = Gauge(
    "personalization_daily_last_run_timestamp_seconds",
    "When the nightly job last ended, failed or not, in Unix time.",
    (),
)
DAILY_LAST_RUN_SUCCESS = Gauge(
    "personalization_daily_last_run_success", "Whether its last run succeeded: 1 or 0.", ()
)
DAILY_FIGURES: Final = (
    CATALOG_OVERLAP,
    CATALOG_OVERLAP_USERS,
    CATALOG_OVERLAP_LOWER,
    CATALOG_OVERLAP_UPPER,
    CATALOG_OVERLAP_PREVIOUS_DAY,
    DIVERSITY_ENTROPY_BRAND,
    DIVERSITY_ENTROPY_CATEGORY,
    DIVERSITY_KNOWN_BRAND_SHARE,
    DIVERSITY_KNOWN_CATEGORY_SHARE,
)
"""What the nightly job pushes, and logs, of a (namespace, surface)."""
DAILY_GAUGES: Final = (
    *DAILY_FIGURES,
    DAILY_DATE,
    DAILY_SUCCESS_TIMESTAMP,
    DAILY_LAST_RUN_TIMESTAMP,
    DAILY_LAST_RUN_SUCCESS,
)
"""What the nightly job pushes."""
DAILY_JOB: Final = "personalization_daily"
"""Label ``job`` of the figures, of the day and of its success."""
DAILY_RUN_JOB: Final = "personalization_daily_run"
"""Label ``job`` of what every run pushes, which a failed one must be able to replace alone."""
DAILY_ORG: Final = "org_id"
"""Label of both: what one organisation pushes does not replace what another has pushed."""
MIN_OVERLAP_USERS: Final = 30
"""With fewer users overlap has no gauge, no interval and no percentiles."""


# --- log lines --------------------------------------------------------------------------------

DECISION_LOGGER: Final = "otel_personalization.decisions"
"""Name of the logger of the lines."""
LOG_SCHEMA_VERSION: Final = 1
DECISION_EVENT: Final = "personalization.decision"
SOURCE_EVENT: Final = "candidate_source_metrics"
"""Named as the line of the same kind that ranking services log themselves."""


@dataclass(frozen=True)
class LogField:
    """A field of a log line. Each is in each line, null where the trace has no such thing.

    Args:
        name: its key.
        kind: its JSON type, or what its text is.
        description: what it says.
    """

    name: str
    kind: str
    description: str


_ABOUT_THE_LINE: Final = (
    LogField("timestamp", "RFC 3339, UTC", "when the decision was finalised"),
    LogField("level", "text", "`INFO`"),
    LogField("logger", "text", f"`{DECISION_LOGGER}`"),
    LogField("event", "text", "which of the two lines it is"),
    LogField("schema_version", "integer", "grows when a field changes its meaning"),
    LogField("namespace", "text", "trimmed and lower-cased, never folded"),
    LogField("surface", "text", "trimmed and lower-cased, never folded"),
    LogField("decision_id", "text", "of the trace"),
    LogField("k", "integer", "number of items that was asked for"),
    LogField("sample_rate", "number", "share of decisions that have a line, above 0, 1 at most"),
    LogField("trace_id", "32 hex digits", "of the span that was active"),
    LogField("span_id", "16 hex digits", "of the span that was active"),
)
DECISION_LOG_FIELDS: Final = (
    *_ABOUT_THE_LINE,
    LogField("decision_ts", "RFC 3339, UTC", "the trace's `ts`"),
    LogField("request_id", "text", "of the trace; retries share it"),
    LogField("served_items_count", "integer", "served items"),
    LogField("personalized_items_count", "integer", "personalised items"),
    LogField("reason_items_count", "integer", "reason items"),
    LogField("reason_requested_items_count", "integer", "reason-requested items"),
    LogField("cold_start_items_count", "integer", "cold-start items"),
    LogField("candidate_sources", "object", "number of candidates by source"),
    LogField("experiment", "text", "experiment that the decision took part in"),
    LogField("variant", "text", "its arm"),
)
"""The fields of the line of a decision."""
SOURCE_LOG_FIELDS: Final = (
    *_ABOUT_THE_LINE,
    LogField("source", "text", "key of `extras.candidate_sources`, stages included"),
    LogField("count", "integer", "its candidates"),
    LogField("duration_ms", "number", "how long it took, in ms"),
)
"""The fields of the line of a candidate source."""
OPTIONAL_LOG_FIELDS: Final = (
    LogField("user_hash", "text", "of the trace; in the line of a decision, where switched on"),
    LogField("cut", "list of text", "names of the fields whose values were too long and were cut"),
)
"""Fields that only some lines have."""

DAILY_EVENT: Final = "personalization.daily"
DAILY_LOG_FIELDS: Final = (
    LogField("timestamp", "RFC 3339, UTC", "when the line was made"),
    LogField("level", "text", "`INFO`"),
    LogField("event", "text", f"`{DAILY_EVENT}`"),
    LogField("day", "date", "the data day, in UTC"),
    LogField("org_id", "text", "organisation; `unknown` where the traces have none"),
    LogField("namespace", "text", "trimmed and lower-cased, never folded"),
    LogField("surface", "text", "trimmed and lower-cased, never folded"),
    *(
        LogField(
            gauge.prometheus_name,
            "integer" if gauge is CATALOG_OVERLAP_USERS else "number",
            gauge.description[0].lower() + gauge.description[1:].rstrip("."),
        )
        for gauge in DAILY_FIGURES
    ),
)
"""The fields of the nightly job's line of a (namespace, surface); figures that are not pushed are
null."""
