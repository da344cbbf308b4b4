"""The nightly job once more, in plain Python and from the definitions, for tests to compare with.

Written from what `otel_personalization.daily.tables` says of each column, and from the definitions
of a decision trace; it shares nothing with the job, and is simple rather than fast::

    day_tables(lines, date(2026, 11, 20))["analytics.personalization_daily"]

Where the definitions leave a choice, it is made here and said beside the code.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from hashlib import md5
from itertools import combinations, product
from typing import Any, Final, NamedTuple

Row = dict[str, Any]
"""Every column of a table, by name."""

ALL: Final = "all"
NONE: Final = "none"
UNKNOWN: Final = "unknown"

TRACE_FIELDS: Final = {"final_items", "items", "decision_id", "extras", "namespace", "surface"}
"""What has none of them is no trace."""
STAGES: Final = {"merged", "post_constraints", "post_exclusion", "prefetched"}
LARGEST_COUNT: Final = 1_000_000_000
"""More candidates of one source in one decision are not believed."""
LONGEST_NAME: Final = 64
"""Characters; longer ones count together, as `OTHER`."""
OTHER: Final = "other"
LARGEST_COMPARISON: Final = 5_000
"""Users whose lists are compared at most."""
FEWEST_FOR_PERCENTILES: Final = 30
"""Users."""
MOST_RARE: Final = 0.03
"""Share of items of values that one group alone was served, or that just two were, up to which an
entropy is reliable."""
MOST_LONE: Final = 0.1
"""Share of items of values that one group alone was served, over which it is not in any case."""
LEAST_COVERAGE: Final = 0.95
"""Sample coverage, under which it is not either."""
FEWEST_GROUPS: Final = 30
"""Groups of users, for an entropy to be reliable."""
DIMENSIONS: Final = ("brand", "category")
PERCENTILES: Final = (50, 75, 90, 95, 99)
WEIGHTS: Final = ("alpha", "beta", "gamma", "profile_boost", "mmr_lambda")

EXCLUDED: Final = (
    "jaccard_mean_lower",
    "jaccard_mean_upper",
    *(f"entropy_{of}_{end}" for of in DIMENSIONS for end in ("lower", "upper")),
)
"""Columns that are None here, whatever they are: intervals, by jackknife and bootstrap."""
OUTCOMES: Final = (
    "impressions",
    "clicks",
    "ctr",
    "ctr_lower",
    "ctr_upper",
    "personalized_ctr",
    "other_ctr",
    "ctr_difference",
    "ctr_difference_lower",
    "ctr_difference_upper",
    "sample_ratio_p_value",
    "users_of_several_variants",
)
"""Columns that are None here, because no outcomes are given."""


def day_tables(
    lines: Iterable[str],
    day: date,
    *,
    k: int = 10,
    window_days: int = 1,
    history_days: int = 28,
    org: str | None = None,
    history: bool = True,
) -> dict[str, list[Row]]:
    """The rows of the three tables, sorted by their key.

    Args:
        lines: stored traces as JSON, one a line, of several days in any order; the order tells
            deliveries of one instant apart.
        day: the UTC day.
        k: items of a list that are compared.
        window_days: days from which lists are taken, the last of which is the day.
        history_days: days before the day, by which users are new or returning.
        org: the only organisation that counts; None is every one, each with rows of its own.
        history: whether lines of days before the day make a history; without, no user is told to
            be new or returning.

    Returns:
        Qualified name of a table -> its rows.
    """
    decisions = [one for one in decisions_of(lines) if org is None or one.org_id == org]
    days: dict[date, list[Decision]] = defaultdict(list)
    for decision in decisions:
        days[decision.instant.date()].append(decision)
    seen = {
        (one.org_id, one.namespace, one.user_hash)
        for n in range(1, history_days + 1)
        for one in days[day - timedelta(n)]
    }
    orgs_with_history = {org_id for org_id, _, _ in seen}

    def cohort_of(one: Decision) -> str:
        if one.cohort is not None:
            return one.cohort
        if not history or one.user_hash is None or one.org_id not in orgs_with_history:
            return UNKNOWN
        return "returning" if (one.org_id, one.namespace, one.user_hash) in seen else "new"

    def counted(on: date) -> list[Decision]:
        return [one._replace(cohort=cohort_of(one)) for one in once(days[on])]

    today = counted(day)
    window = [one for n in range(window_days) for one in counted(day - timedelta(n))]

    def rows(dimensions: Sequence[str], figures: Callable[[list[Decision]], Row]) -> list[Row]:
        lists = roll_up(window, dimensions)
        table = []
        for key, cell in sorted(roll_up(today, dimensions).items()):
            row = dict(zip(("org_id", "namespace", *dimensions), key, strict=True))
            overlap = overlap_of(latest_lists(lists[key], k), k, window_days)
            if row["surface"] == ALL:
                overlap = dict.fromkeys(overlap)
            table.append({"day": day, **row, **volumes_of(cell), **overlap, **figures(cell)})
        return table

    return {
        "analytics.personalization_daily": rows(("surface", "cohort", "device"), diversity_of),
        "analytics.personalization_sources_daily": source_rows(today, day),
        "experiments.blend_weights_daily": rows(
            ("experiment", "variant", "surface", "cohort", "device"),
            lambda cell: {**weights_of(cell), **dict.fromkeys(OUTCOMES)},
        ),
    }


# --- reading a line ---------------------------------------------------------------------------


class Counts(NamedTuple):
    """What one decision served."""

    served_items: int
    personalized_items: int
    reason_items: int
    reason_requested_items: int
    cold_start_items: int


class Decision(NamedTuple):
    """One decision, as far as the tables tell of it. Names are as stored: ``all_`` for ``all``."""

    instant: datetime
    ordinal: int
    """Of its line."""
    decision_id: str
    """Empty where it has none."""
    org_id: str
    namespace: str
    surface: str
    cohort: str | None
    """None until it is known whether its user was seen before."""
    device: str
    experiment: str
    variant: str
    user_hash: str | None
    counts: Counts
    item_ids: list[str | None]
    """Of each position."""
    values: dict[str, list[str | None]]
    """Brand and category of each position."""
    picks: list[dict[str, Any]]
    """Entries of mmr_info that name an item."""
    sources: dict[str, int]
    """Candidates by source."""
    weights: tuple[float | None, ...] | None
    """Of `WEIGHTS`; None where none is on record."""


def decisions_of(lines: Iterable[str]) -> Iterator[Decision]:
    """The decisions of lines; those that are no JSON, or no decision, are left out."""
    for ordinal, line in enumerate(lines):
        try:
            trace = json.loads(line)
        except (ValueError, RecursionError):
            continue
        decision = decision_of(trace, ordinal)
        if decision is not None:
            yield decision


def decision_of(trace: Any, ordinal: int = 0) -> Decision | None:
    """A decision from its trace as JSON; None where it is malformed or undated, or its organisation
    has too long an id, or one with NUL: organisations do not count together."""
    counts = counts_of(trace)
    instant = instant_of(trace.get("ts")) if isinstance(trace, dict) else None
    if counts is None or instant is None:
        return None
    org_id = name(trace.get("org_id")) or UNKNOWN
    if len(org_id) > LONGEST_NAME or "\0" in org_id:
        return None
    namespace = label(trace.get("namespace")) or UNKNOWN
    surface = label(trace.get("surface")) or "default"
    if max(len(namespace), len(surface)) > LONGEST_NAME:
        namespace = surface = OTHER
    items, extras = items_and_extras(trace)
    bandit = mapping(trace.get("bandit"))
    ids = [id_text(item.get("item_id")) for item in items]
    caps = mapping(trace.get("caps"))
    picks = trace.get("mmr_info")
    config = mapping(trace.get("effective_config"))
    weights = tuple(number(config.get(weight)) for weight in WEIGHTS)
    decision_id, user_hash = trace.get("decision_id"), trace.get("user_hash")
    cohort, device = label(extras.get("cohort")), label(extras.get("device"))
    experiment = name(extras.get("bandit_experiment")) or name(bandit.get("experiment"))
    variant = (
        name(extras.get("experiment_variant"))
        or name(extras.get("bandit_variant"))
        or name(bandit.get("variant"))
    )
    return Decision(
        instant,
        ordinal,
        decision_id if isinstance(decision_id, str) else "",
        counted_as(org_id),
        counted_as(namespace),
        stored(surface, ALL),
        stored(cohort, ALL) if cohort else None,
        stored(device or device_of_bucket(bandit.get("bucket_key")) or UNKNOWN, ALL),
        stored(experiment, ALL, NONE) if experiment else NONE,
        stored(variant, ALL, NONE) if variant else NONE,
        # A hash is not trimmed: it is compared, and never shown.
        user_hash if name(user_hash) else None,
        counts,
        ids,
        {
            of: [
                None
                if item_id is None
                else label(mapping(mapping(caps.get(item_id)).get(of)).get("value")) or None
                for item_id in ids
            ]
            for of in DIMENSIONS
        },
        [
            pick
            for pick in (picks if isinstance(picks, list) else [])
            if isinstance(pick, dict) and id_text(pick.get("item_id")) is not None
        ],
        sources_of(extras),
        None if weights == (None,) * len(WEIGHTS) else weights,
    )


def items_and_extras(trace: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What was served, and the extras; a response body holds ``items`` and has no extras."""
    items = trace.get("final_items")
    extras = mapping(trace.get("extras"))
    if "items" in trace and "final_items" not in trace and "decision_id" not in trace:
        items, extras = trace["items"], {}
    return [] if items is None else items, extras


def counts_of(trace: Any) -> Counts | None:
    """What a trace served; None where it is malformed."""
    if not isinstance(trace, dict) or TRACE_FIELDS.isdisjoint(trace):
        return None
    items, extras = items_and_extras(trace)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    asked = extras.get("include_reasons") is not False
    reasons = [texts(item.get("reasons")) for item in items]
    surfaced = reasons if asked else [[] for _ in items]
    return Counts(
        served_items=len(items),
        personalized_items=personalized(items, reasons, extras),
        reason_items=sum(any(reason.strip() for reason in given) for given in surfaced),
        reason_requested_items=len(items) if asked else 0,
        cold_start_items=sum(
            item.get("cold_start") is True or "cold_start" in given
            for item, given in zip(items, surfaced, strict=True)
        ),
    )


def personalized(
    items: list[dict[str, Any]], reasons: list[list[str]], extras: dict[str, Any]
) -> int:
    """Personalised items, by the first evidence that there is."""
    boosted = extras.get("personalized_items")
    if isinstance(boosted, list):
        members = {id_text(item_id) for item_id in boosted} - {None}
        return sum(id_text(item.get("item_id")) in members for item in items)
    flags = [item.get("personalized") for item in items]
    if any(isinstance(flag, bool) for flag in flags):
        return sum(flag is True for flag in flags)
    with_reason = sum("personalization" in given for given in reasons)
    if with_reason:
        return with_reason
    return count_of(extras.get("personalized_items_count"), len(items)) or 0


def sources_of(extras: dict[str, Any]) -> dict[str, int]:
    """Candidates by source: those that have a name and a believable count.

    Sources that are counted as one are one, with the candidates of all.
    """
    sources: Counter[str] = Counter()
    for source, entry in mapping(extras.get("candidate_sources")).items():
        count = count_of(mapping(entry).get("count"), LARGEST_COUNT)
        if source and source not in STAGES and count is not None:
            sources[counted_as(source)] += count
    return sources


_TIMESTAMP: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-][0-9]{2})(?::?([0-9]{2}))?)?"
)


def instant_of(value: Any) -> datetime | None:
    """A timestamp in UTC: RFC 3339, or as PostgreSQL writes one; without an offset it is UTC.

    Digits past the microsecond are cut, and never rounded into the next day.
    """
    match = _TIMESTAMP.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    *fields, fraction, hours, minutes = match.groups()
    microseconds = int(f"{fraction or '':0<6}"[:6])
    offset = 60 * int(hours or 0)
    offset += int(minutes or 0) * (-1 if (hours or "").startswith("-") else 1)
    try:
        year, month, day, hour, minute, second = map(int, fields)
        local = datetime(year, month, day, hour, minute, second, microseconds, timezone.utc)
        return local - timedelta(minutes=offset) if abs(offset) < 24 * 60 else None
    except (ValueError, OverflowError):  # no such instant
        return None


def device_of_bucket(key: Any) -> str:
    """``web`` of ``ctx:device=web|surface=home``; empty where there is none."""
    parts = key.removeprefix("ctx:").split("|") if isinstance(key, str) else []
    devices = [part.removeprefix("device=") for part in parts if part.startswith("device=")]
    return label(devices[0]) if devices else ""


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def id_text(value: Any) -> str | None:
    """An item id as the text by which ids compare; None where it can be none."""
    return None if value is None or isinstance(value, (dict, list)) else str(value)


def label(value: Any) -> str:
    """Trimmed and lower-cased; empty where it is no text."""
    return name(value).lower()


def name(value: Any) -> str:
    """Trimmed; empty where it is no text."""
    return value.strip() if isinstance(value, str) else ""


def counted_as(value: str) -> str:
    """A name as rows have it: not too long, and without NUL, which PostgreSQL cannot hold."""
    return OTHER if len(value) > LONGEST_NAME else value.replace("\0", "\ufffd")


def stored(value: str, *taken: str) -> str:
    """A real value, told apart from the words that stand for something else."""
    return f"{value}_" if value in taken else counted_as(value)


def count_of(value: Any, largest: int) -> int | None:
    """An integer of 0..largest; a bool, a float and a text are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= largest else None


def number(value: Any) -> float | None:
    """A finite number; NaN, a bool and a text are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


# --- cells ------------------------------------------------------------------------------------


def once(decisions: Iterable[Decision]) -> list[Decision]:
    """The decisions of a day, in the order of time; a repeated delivery counts at its first.

    Those without an id each count.
    """
    delivered = set()
    first = []
    for decision in sorted(decisions, key=lambda one: (one.instant, one.ordinal)):
        key = (decision.org_id, decision.decision_id)
        if not decision.decision_id or key not in delivered:
            first.append(decision)
        delivered.add(key)
    return first


def roll_up(
    decisions: Iterable[Decision], dimensions: Sequence[str]
) -> defaultdict[tuple[str, ...], list[Decision]]:
    """Decisions by organisation, namespace and dimensions, each rolled up to `ALL` or not.

    A variant says nothing without its experiment, so there is no row of a variant of `ALL`.
    """
    cells: defaultdict[tuple[str, ...], list[Decision]] = defaultdict(list)
    for decision in decisions:
        real = [getattr(decision, dimension) for dimension in dimensions]
        for key in product(*((value, ALL) for value in real)):
            of = dict(zip(dimensions, key, strict=True))
            if of.get("experiment") != ALL or of.get("variant") == ALL:
                cells[(decision.org_id, decision.namespace, *key)].append(decision)
    return cells


def volumes_of(cell: list[Decision]) -> Row:
    """Volumes, and the three rates that divide them."""
    sizes = [one.counts.served_items for one in cell]
    served, personal, explained, asked, cold = map(
        sum, zip(*(one.counts for one in cell), strict=True)
    )
    return {
        "decisions": len(cell),
        "empty_decisions": sizes.count(0),
        "users": len({one.user_hash for one in cell} - {None}),
        "known_user_share": sum(one.user_hash is not None for one in cell) / len(cell),
        "served_items": served,
        # Kish, Survey Sampling, 1965.
        "effective_decisions": ratio(served**2, sum(n**2 for n in sizes)),
        "personalized_items": personal,
        "reason_items": explained,
        "reason_requested_items": asked,
        "cold_start_items": cold,
        "personalized_impression_rate": ratio(personal, served),
        "reason_coverage_rate": ratio(explained, served),
        "requested_reason_coverage_rate": ratio(explained, asked),
    }


def diversity_of(cell: list[Decision]) -> Row:
    """What analytics.personalization_daily tells beside volumes and overlap."""
    full = [one.counts for one in cell if one.counts.served_items]
    items = Counter(item_id for one in cell for item_id in one.item_ids if item_id is not None)
    served = sum(counts.served_items for counts in full)
    picks = [pick for one in cell for pick in one.picks]
    row: Row = {
        "mean_decision_personalized_rate": math.fsum(
            counts.personalized_items / counts.served_items for counts in full
        )
        / len(full)
        if full
        else None,
        "top10_exposure_share": ratio(sum(n for _, n in items.most_common(10)), served),
        "catalog_items": len(items),
    }
    for of in DIMENSIONS:
        row |= entropy_of(of, [(group_of(one), value) for one in cell for value in one.values[of]])
    row["mmr_picks"] = len(picks)
    for of in DIMENSIONS:
        hits = sum(pick.get(f"{of}_cap_hit") is True for pick in picks)
        row[f"{of}_cap_hit_share"] = ratio(hits, len(picks))
    return row


def weights_of(cell: list[Decision]) -> Row:
    """The most frequent value of each weight, of those the smallest, and how many settings."""
    settings = [one.weights for one in cell if one.weights is not None]
    row: Row = {}
    for position, weight in enumerate(WEIGHTS):
        values = (setting[position] for setting in settings)
        times = Counter(value for value in values if value is not None)
        most = max(times.values(), default=0)
        row[weight] = min((value for value, n in times.items() if n == most), default=None)
    return {**row, "weight_settings": len(set(settings))}


def source_rows(today: Iterable[Decision], day: date) -> list[Row]:
    """The rows of analytics.personalization_sources_daily.

    Args:
        today: decisions in the order of time.
        day: their day.
    """
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for one in today:
        for source, candidates in one.sources.items():
            for surface in (one.surface, ALL):
                found[one.org_id, one.namespace, surface, source].append(candidates)
    table = []
    for key, counts in sorted(found.items()):
        longest = running = 0
        for count in counts:
            running = 0 if count else running + 1
            longest = max(longest, running)
        table.append(
            {
                "day": day,
                **dict(zip(("org_id", "namespace", "surface", "source"), key, strict=True)),
                "candidates": sum(counts),
                "decisions": len(counts),
                "empty_decisions": counts.count(0),
                "longest_empty_streak": longest,
            }
        )
    return table


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


# --- overlap ----------------------------------------------------------------------------------


def latest_lists(decisions: Iterable[Decision], k: int) -> dict[str, list[str]]:
    """Each user's list: the last that has an item with an id, its first k distinct ones.

    The last is that of the largest ts, then of the largest decision_id (none is the smallest),
    then of the last line.
    """
    latest = {}
    for one in sorted(decisions, key=lambda one: (one.instant, one.decision_id, one.ordinal)):
        items = list(dict.fromkeys(item_id for item_id in one.item_ids if item_id is not None))
        if one.user_hash is not None and items:
            latest[one.user_hash] = items[:k]
    return latest


def overlap_of(lists: Mapping[str, Collection[str]], k: int, window_days: int) -> Row:
    """Jaccard overlap |A and B| / |A or B| over unordered pairs of users.

    Past `LARGEST_COMPARISON` users, those with the smallest md5("personalization:" + user_hash)
    are compared. Percentiles interpolate linearly between the two nearest pairs (definition 7 of
    Hyndman and Fan, 1996).

    Args:
        lists: user hash -> distinct items.
        k: how many items of a list there are at most.
        window_days: told as it is.
    """
    users = sorted(lists, key=lambda user: md5(f"personalization:{user}".encode()).hexdigest())
    compared = [frozenset(lists[user]) for user in users[:LARGEST_COMPARISON]]
    pairs: Counter[float] = Counter()
    for one, other in combinations(compared, 2):
        common = len(one & other)
        pairs[common / (len(one) + len(other) - common)] += 1
    row: Row = {
        "jaccard_mean": ratio(math.fsum(j * n for j, n in pairs.items()), pairs.total()),
        "jaccard_mean_lower": None,
        "jaccard_mean_upper": None,
    }
    for p in PERCENTILES:
        enough = len(compared) >= FEWEST_FOR_PERCENTILES
        row[f"jaccard_p{p}"] = percentile(pairs, p) if enough else None
    return {
        **row,
        "identical_list_share": ratio(pairs[1.0], pairs.total()),
        "overlap_users": len(compared),
        "overlap_pairs": pairs.total(),
        "overlap_eligible_users": len(users),
        "overlap_short_list_share": ratio(sum(len(one) < k for one in compared), len(compared)),
        "overlap_k": k,
        "overlap_window_days": window_days,
    }


def percentile(times: Counter[float], p: int) -> float:
    """The p-th percentile of values that occur so many times."""
    rank, hundredths = divmod(p * (times.total() - 1), 100)

    def at(position: int) -> float:
        for value in sorted(times):
            position -= times[value]
            if position < 0:
                return value
        return max(times)

    return at(rank) + (at(rank + 1) - at(rank)) * hundredths / 100


# --- entropy ----------------------------------------------------------------------------------


def group_of(one: Decision) -> str:
    """The group of users that a decision's user is in; without a user it is one of its own."""
    known_by = one.user_hash or one.decision_id or str(one.ordinal)
    return md5(f"personalization:{known_by}".encode()).hexdigest()[28:30]


def entropy_of(of: str, served: Collection[tuple[str, str | None]]) -> Row:
    """Entropy columns of a dimension.

    A value is taken whole: ``a,b`` is one value, for a value may hold a comma itself, and the
    order of what the service joined is the catalogue's.

    Args:
        of: the dimension.
        served: of each served item, the group of users and the value; None where it has none.
    """
    times = Counter(value for _, value in served if value is not None)
    owners = Counter(value for _, value in set(served) if value is not None)
    groups = {group for group, value in served if value is not None}
    # What one group of users was served is alike, so that it says as little as one item.
    lone = sum(n for value, n in times.items() if owners[value] == 1)
    paired = sum(n for value, n in times.items() if owners[value] == 2)
    known = times.total()
    corrected = chao_wang_jost(times.values()) if known else None
    # Good, 1953: what was seen once tells of what was not seen.
    coverage = 1 - list(times.values()).count(1) / known if known else None
    return {
        f"entropy_{of}": corrected,
        f"entropy_{of}_observed": -math.fsum(
            n / known * math.log(n / known) for n in times.values()
        )
        if known
        else None,
        f"entropy_{of}_lower": None,
        f"entropy_{of}_upper": None,
        f"entropy_{of}_effective_number": None if corrected is None else math.exp(corrected),
        f"entropy_{of}_known_share": ratio(known, len(served)),
        f"entropy_{of}_sample_coverage": coverage,
        # Nothing known is not reliable.
        f"entropy_{of}_reliable": coverage is not None
        and coverage >= LEAST_COVERAGE
        and lone / known <= MOST_LONE
        and (lone / known <= MOST_RARE or paired / known <= MOST_RARE)
        and len(groups) >= FEWEST_GROUPS,
    }


def chao_wang_jost(times: Collection[int]) -> float:
    """Entropy in nats, corrected for what was not seen.

    Chao, Wang and Jost (2013), Entropy and the species accumulation curve, Methods in Ecology and
    Evolution 4, equation 7: over values seen X times of n,

        sum X/n (1/X + ... + 1/(n-1)) + f1/n (1-A)^(1-n) (-log A - sum_(r<n) (1-A)^r / r)

    with A = 2 f2 / ((n-1) f1 + 2 f2); 2 / ((n-1)(f1-1) + 2) where f2 is 0; the second part is 0
    where A is 1. What its brackets subtract is nearly equal, hence the decimals.

    Args:
        times: how often each value was seen, each at least once.
    """
    n = sum(times)
    once_seen, twice_seen = (list(times).count(x) for x in (1, 2))
    harmonic = [0.0]
    for j in range(1, n):
        harmonic.append(harmonic[-1] + 1 / j)
    seen = math.fsum(x / n * (harmonic[n - 1] - harmonic[x - 1]) for x in times)
    if twice_seen:
        part, whole = 2 * twice_seen, (n - 1) * once_seen + 2 * twice_seen
    else:
        part, whole = 2, (n - 1) * max(once_seen - 1, 0) + 2
    if not once_seen or part == whole:
        return seen
    with localcontext() as context:
        context.prec = 50 - math.floor(n * math.log10(1 - part / whole))
        rest = 1 - Decimal(part) / whole  # 1 - A
        bracket, power = -(1 - rest).ln(), Decimal(1)
        for r in range(1, n):
            power *= rest
            bracket -= power / r
        return seen + once_seen / n * float(bracket / power)  # power is (1-A)^(n-1)
