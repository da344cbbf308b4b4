"""Outcomes: what became of served items. Click-through by variant, and of personalised items.

Outcomes are read once, into one narrow file that any engine reads, and counted by statements; from
the counts come the columns of a row::

    outcomes = read_outcomes([Path("outcomes.ndjson.gz")], Path("outcomes.parquet"))
    tables = compute(engine, run, manifests, outcomes=outcomes)

What counts:

- An outcome belongs to its decision, whenever it was; so its own ``ts`` is not read. Ids compare as
  text.
- An item of a decision is one impression if one or more were reported, and one click if it was
  clicked as well. A click on an item of which no impression was reported is counted apart, and is
  in no rate: to add only those unseen items that were clicked would make every rate too high.
- An item is personalised if the trace names it so. Where a trace only has the number of such items,
  its impressions are in no comparison of personalised items with others.

Users come back and see many items; so every interval rests on groups of users, some 256 by hash,
and not on impressions. To compare personalised items with others shows no cause: who gets the one
differs from who gets the other. Variants can be compared for causes if users were assigned at
random, each to one. No trace says how they were; an uneven split (`sample_ratio_p_value`) and users
of several variants (`users_of_several_variants`) only say where it was otherwise.
"""

from __future__ import annotations

import glob
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.special import chdtrc, expit, logit, stdtrit

from otel_personalization.daily.arrays import Integers, Numbers
from otel_personalization.daily.files import is_parquet
from otel_personalization.daily.lines import NO_JSON, FileLines, Problems
from otel_personalization.daily.rollup import ByCell, Cells
from otel_personalization.daily.sql import text_of
from otel_personalization.daily.tables import CONFIDENCE, NONE, OutcomeQuality
from otel_personalization.errors import RemediedError
from otel_personalization.ndjson import Problem

TYPES: Final = ("impression", "click", "add", "purchase")
"""Of outcomes. What was added and purchased is counted, and in no rate."""
NO_IDS: Final = "no_ids"
"""Kind of problem: an outcome without a decision_id or an item_id."""
UNKNOWN_TYPE: Final = "unknown_type"
"""Kind of problem: an outcome of none of `TYPES`."""
SCHEMA: Final = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("decision_id", "item_id", "type")]
)
"""Of the file that outcomes are read into."""
BATCH_ROWS: Final = 100_000
MEMORY_LIMIT: Final = "500MB"
"""Of DuckDB, while outcomes are read."""

MIN_GROUPS: Final = 30
"""Groups of users under which there is no interval."""
MIN_EITHER: Final = 10
"""For an interval at least so many groups must have a click, and at least so many an impression
that was not clicked: fewer say too little of how groups differ."""
MIN_USERS: Final = 30
"""Of an experiment, under which it is not tested how they were split."""
MIN_EXPECTED: Final = 5
"""Users of a variant under which chi-squared is not the distribution of the test. Source: Cochran,
Some methods for strengthening the common chi-squared tests, Biometrics 10 (1954)."""


class OutcomesError(RemediedError):
    """Outcomes cannot be read."""


# --- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of any days, read into a file."""

    data: Path
    """A Parquet file of `SCHEMA`."""
    types: dict[str, int]
    """How many there are of each of `TYPES`."""
    problems: Problems
    """Those that could not be read, which are not in the file, and where."""

    @property
    def count(self) -> int:
        """How many could be read."""
        return sum(self.types.values())


def read_outcomes(files: Sequence[Path], data: Path) -> Outcomes:
    """Read outcomes, in constant memory; what cannot be read is told in ``problems``.

    Args:
        files: with ``decision_id``, ``item_id`` and ``type`` of each outcome: Parquet where the
            content is, else one JSON object a line, gzipped or not; ``-`` is standard input.
        data: the file that they are read into; it is replaced.

    Raises:
        OSError: a file cannot be opened, read or written.
        OutcomesError: a Parquet file is damaged, or has not the columns.
    """
    tables = {file: is_parquet(file) for file in files}
    lines = FileLines([file for file in files if not tables[file]])
    counts: Counter[str] = Counter()

    def kept(reports: pa.Table, place_of: Callable[[int], tuple[str, int]]) -> pa.Table:
        """Those that say something; the others are noted."""
        problem = _problem_of(reports)
        for kind, ordinal, word in zip(
            *(column.to_pylist() for column in _problems(reports, problem)), strict=True
        ):
            what = f"unknown type {json.dumps(word)}" if kind == UNKNOWN_TYPE else _WORDS[kind]
            lines.problems.note(kind, ordinal, Problem(*place_of(ordinal), what))
        good = reports.filter(pc.is_null(problem)).select(SCHEMA.names)
        for row in pc.value_counts(good["type"]).to_pylist():
            counts[row["values"]] += row["counts"]
        return good.cast(SCHEMA)

    with (
        duckdb.connect(config={"memory_limit": MEMORY_LIMIT}) as connection,
        pq.ParquetWriter(data, SCHEMA, compression="zstd") as writer,
    ):
        connection.execute("SET enable_progress_bar = false")  # it would print to stdout
        for batch in lines.batches():
            connection.register("lines", batch)
            reports = connection.sql(text_of("outcome_lines")).to_arrow_table()
            writer.write_table(kept(reports, lines.place_of))
        for file in (file for file in files if tables[file]):
            for reports in _rows(connection, file):
                writer.write_table(kept(reports, partial(_row_of, file)))
    return Outcomes(data, {name: counts[name] for name in TYPES}, lines.problems)


_WORDS: Final = {NO_JSON: "no JSON", NO_IDS: "no decision_id, or no item_id"}
_TOLD_CHARACTERS: Final = 64


def _row_of(file: Path, row: int) -> tuple[str, int]:
    """A row of a Parquet file as a place; the first is 1."""
    return str(file), row + 1


def _rows(connection: duckdb.DuckDBPyConnection, file: Path) -> Iterator[pa.Table]:
    """The rows of a Parquet file, as text."""
    try:
        table = connection.from_parquet(
            glob.escape(str(file)),
            file_row_number=True,
            binary_as_string=True,
            hive_partitioning=False,  # or a folder item_id=x would be the item of every row
        )
        missing = [name for name in SCHEMA.names if name not in table.columns]
        if missing:
            columns = ", ".join(SCHEMA.names)
            raise OutcomesError(
                f"{file} has no column {' and no '.join(missing)}",
                f"an outcomes file has the columns {columns}",
            )
        table.create_view("rows", replace=True)
        found = connection.sql(text_of("outcome_columns")).to_arrow_reader(BATCH_ROWS)
        for batch in found:
            yield pa.Table.from_batches([batch])
    except duckdb.Error as error:
        what = str(error).partition("\n")[0]
        raise OutcomesError(f"{file} cannot be read: {what}", "write it again") from None


def _problem_of(reports: pa.Table) -> pa.ChunkedArray:
    """The kind of problem of each, null of those that say something."""
    has_no_ids = pc.or_(
        pc.or_(pc.is_null(reports["decision_id"]), pc.is_null(reports["item_id"])),
        pc.fill_null(pc.equal(reports["decision_id"], ""), False),
    )
    is_known = pc.is_in(reports["type"], pa.array(TYPES))
    return pc.case_when(
        pc.make_struct(reports["is_no_json"], has_no_ids, pc.invert(is_known)),
        pa.scalar(NO_JSON),
        pa.scalar(NO_IDS),
        pa.scalar(UNKNOWN_TYPE),
    )


def _problems(reports: pa.Table, problem: pa.ChunkedArray) -> Iterable[pa.ChunkedArray]:
    """Kind, ordinal and the beginning of the type of those that say nothing."""
    is_problem = pc.is_valid(problem)
    word = pc.utf8_slice_codeunits(reports["type"].filter(is_problem), 0, _TOLD_CHARACTERS)
    return problem.filter(is_problem), reports["ordinal"].filter(is_problem), word


# --- columns of a row -------------------------------------------------------------------------


class Clicks:
    """Impressions, and which were clicked.

    Args:
        table: of ``sql/outcome_items.sql``.
    """

    def __init__(self, table: pa.Table) -> None:
        # Sorted, so that no rounding depends on the order of rows.
        keys = ("cell", "users", "place", "is_personalized")
        self._by_cell = ByCell(table.sort_by([(key, "ascending") for key in keys]))
        table = self._by_cell.table
        self._users, self._places, self._impressions, self._clicks = (
            table[name].to_numpy().astype(np.int64)
            for name in ("users", "place", "impressions", "clicks")
        )
        self._is_known = table["is_personalized"].is_valid().to_numpy()
        self._is_personalized = table["is_personalized"].fill_null(0).to_numpy() == 1

    def of(self, cells: Cells) -> dict[str, Any]:
        """The columns of a row: click-through, and of personalised items against others."""
        rows = self._by_cell.rows(cells)
        rows = rows[self._impressions[rows] > 0]
        users, impressions, clicks = (
            column[rows] for column in (self._users, self._impressions, self._clicks)
        )
        found: dict[str, Any] = {
            "impressions": int(impressions.sum()),
            "clicks": int(clicks.sum()),
        }
        rate = rate_of(users, impressions, clicks)
        if rate is not None:
            found |= {"ctr": rate.value, "ctr_lower": rate.lower, "ctr_upper": rate.upper}
        rows = rows[self._is_known[rows]]
        comparison = comparison_of(
            self._users[rows],
            self._places[rows],
            self._is_personalized[rows],
            self._impressions[rows],
            self._clicks[rows],
        )
        if comparison is not None:
            found |= {
                "personalized_ctr": comparison.personalized,
                "other_ctr": comparison.other,
                "ctr_difference": comparison.difference.value,
                "ctr_difference_lower": comparison.difference.lower,
                "ctr_difference_upper": comparison.difference.upper,
            }
        return found


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    lower: float | None
    """None where too little is known of how groups of users differ."""
    upper: float | None


@dataclass(frozen=True)
class Comparison:
    """Click-through of personalised items and of others, had both been at the same places."""

    personalized: float
    other: float
    difference: Estimate


def rate_of(group: Integers, impressions: Integers, clicks: Integers) -> Estimate | None:
    """The share of impressions that were clicked, clustered by groups of users.

    The rate R is a ratio of two totals. With k groups, i_g impressions and c_g clicks of group g,
    its variance is k / (k - 1) x sum (c_g - R i_g)^2 / (sum i_g)^2. Clicks are rare, and the rate's
    distribution is skewed; so the interval is of log(R / (1 - R)), whose standard error is that of
    R over R (1 - R), by Student's t with k - 1 degrees of freedom. It is always within 0 and 1.

    Sources: Cochran, Sampling Techniques, 3rd edition (1977), section 6.4, for the variance of a
    ratio; Deng, Knoblich and Lu, Applying the delta method in metric analytics, KDD (2018), for its
    use where users are randomised and impressions counted; Korn and Graubard, Analysis of Health
    Surveys (1999), section 3.2, for the interval of the logit.

    Args:
        group: of each entry, the group of users.
        impressions: of each entry; 1 or more.
        clicks: of each entry, how many of those were clicked.

    Returns:
        None without impressions. There is no interval under `MIN_GROUPS` groups, nor unless
        `MIN_EITHER` of them have a click and so many an impression without.
    """
    if not len(group):
        return None
    whole = int(impressions.sum())
    rate = int(clicks.sum()) / whole
    if not _tells(group, impressions, clicks):
        return Estimate(rate, None, None)
    error, quantile = _standard_error(group, (clicks - rate * impressions) / whole)
    center, margin = logit(rate), quantile * error / (rate * (1 - rate))
    return Estimate(rate, float(expit(center - margin)), float(expit(center + margin)))


def comparison_of(
    group: Integers,
    place: Integers,
    is_personalized: npt.NDArray[np.bool_],
    impressions: Integers,
    clicks: Integers,
) -> Comparison | None:
    """Click-through of personalised items and of others at the same places.

    The further up an item stands the more it is clicked, whatever it is. So both rates are
    standardised to the same weights of places: with I_p impressions of personalised items and J_p
    of others at place p, w_p = I_p J_p / (I_p + J_p) over the places that have both. With weights
    of I_p alone, places where next to all are personalised would weigh most, and there a few
    impressions of others decide.

    Each rate is the weighted mean of those at the places. The difference D is a smooth function of
    the totals of groups of users; to first order a group g adds to it, with a_p and b_p the rates,

        sum over p of [w_p (c_gp - a_p i_gp) / I_p - w_p (d_gp - b_p j_gp) / J_p
            + ((J_p / N_p)^2 i_gp + (I_p / N_p)^2 j_gp) (a_p - b_p - D)] / sum of w_p

    for its i_gp impressions and c_gp clicks of personalised items, j_gp and d_gp of others, and
    N_p = I_p + J_p; the variance is k / (k - 1) x the sum of squares over the k groups. The
    interval is by Student's t with k - 1 degrees of freedom, clipped to -1 and 1.

    Sources: Mantel and Haenszel, Statistical aspects of the analysis of data from retrospective
    studies of disease, J. Natl Cancer Inst. 22 (1959), and Greenland and Robins, Estimation of a
    common effect parameter from sparse follow-up data, Biometrics 41 (1985), for the weights;
    Woodruff, A simple method for approximating the variance of a complicated estimate, JASA 66
    (1971), for the variance.

    Args:
        group: of each entry, the group of users.
        place: of each entry, where in the list it was served.
        is_personalized: of each entry.
        impressions: of each entry; 1 or more.
        clicks: of each entry, how many of those were clicked.

    Returns:
        None where no place has both. There is no interval unless `rate_of` has one of either kind.
    """
    _, place = np.unique(place, return_inverse=True)
    kind = is_personalized.astype(np.int64)
    shape = (2, int(place.max(initial=-1)) + 1)
    cell = kind * shape[1] + place
    seen = np.bincount(cell, impressions, shape[0] * shape[1]).reshape(shape)
    clicked = np.bincount(cell, clicks, shape[0] * shape[1]).reshape(shape)
    has_both = np.minimum(seen[0], seen[1]) > 0
    if not has_both.any():
        return None
    weights = np.where(has_both, seen.prod(axis=0) / np.maximum(seen.sum(axis=0), 1), 0)
    weights /= weights.sum()
    rates = clicked / np.maximum(seen, 1)
    other, personalized = (float(weights @ of_kind) for of_kind in rates)
    difference = personalized - other
    kept = has_both[place]
    group, place, kind, impressions, clicks = (
        column[kept] for column in (group, place, kind, impressions, clicks)
    )
    if not all(
        _tells(group[kind == one], impressions[kind == one], clicks[kind == one]) for one in (0, 1)
    ):
        return Comparison(personalized, other, Estimate(difference, None, None))
    # How w_p, a share of the sum, grows with impressions: (J_p / N_p)^2 by those of personalised
    # items, which is w_p J_p / (I_p N_p).
    own, opposite = seen[kind, place], seen[1 - kind, place]
    of_rate = np.where(kind == 1, 1, -1) * (clicks - rates[kind, place] * impressions) / own
    of_weight = impressions * opposite / (own * (own + opposite))
    excess = rates[1, place] - rates[0, place] - difference
    error, quantile = _standard_error(group, weights[place] * (of_rate + of_weight * excess))
    margin = quantile * error
    return Comparison(
        personalized,
        other,
        Estimate(difference, max(-1.0, difference - margin), min(1.0, difference + margin)),
    )


def _tells(group: Integers, impressions: Integers, clicks: Integers) -> bool:
    """Whether there is enough for an interval; see `rate_of`."""
    return len(np.unique(group)) >= MIN_GROUPS and all(
        len(np.unique(group[some])) >= MIN_EITHER for some in (clicks > 0, clicks < impressions)
    )


def _standard_error(group: Integers, parts: Numbers) -> tuple[float, float]:
    """Of a sum whose parts are independent between groups, and the quantile that goes with it."""
    _, place = np.unique(group, return_inverse=True)
    sums = np.bincount(place, parts)
    k = len(sums)
    error = math.sqrt(k / (k - 1) * float(np.square(sums).sum()))
    return error, float(stdtrit(k - 1, (1 + CONFIDENCE) / 2))


# --- how users were split ---------------------------------------------------------------------


class Arms:
    """The users of the variants of experiments. Decisions without a variant are in no arm.

    Args:
        sets: `rollup.UserSets.there`.
        cells: of ``sql/cells.sql``.
    """

    def __init__(self, sets: Sequence[tuple[Cells, int]], cells: pa.Table) -> None:
        self._users = np.array([users for _, users in sets], np.int64)
        variants = cells["variant"].combine_chunks().dictionary_encode()
        names = variants.dictionary.to_pylist()
        self._variants = len(names)
        self._none = names.index(NONE) if NONE in names else -1
        variant_of = dict(zip(cells["cell"].to_pylist(), variants.indices.to_pylist(), strict=True))
        members = [cell for one, _ in sets for cell in one]
        self._by_cell = ByCell(
            pa.table(
                {
                    "cell": pa.array(members, pa.int64()),
                    "set": np.repeat(np.arange(len(sets)), [len(one) for one, _ in sets]),
                    "variant": pa.array([variant_of[cell] for cell in members], pa.int64()),
                }
            )
        )
        self._sets = self._by_cell.table["set"].to_numpy()
        self._variant = self._by_cell.table["variant"].to_numpy()

    def of(self, cells: Cells) -> tuple[list[int], int]:
        """The users of each variant who were in no other, and how many were in several.

        Args:
            cells: all of one experiment.
        """
        rows = self._by_cell.rows(cells)
        rows = rows[self._variant[rows] != self._none]
        pairs = np.unique(self._sets[rows] * self._variants + self._variant[rows])
        owner, variant = np.divmod(pairs, max(1, self._variants))
        _, place, times = np.unique(owner, return_inverse=True, return_counts=True)
        arms, arm = np.unique(variant, return_inverse=True)
        is_only = times[place] == 1
        users = np.bincount(arm[is_only], self._users[owner[is_only]], len(arms))
        several = self._users[np.unique(owner[~is_only])].sum()
        return users.astype(np.int64).tolist(), int(several)


def sample_ratio_p_value(users: Sequence[int]) -> float | None:
    """How likely variants differ so much in users, or more, if each user got any of them alike.

    Pearson's chi-squared test: with n users of m variants, n / m of each are expected, and
    sum (users - n / m)^2 / (n / m) has m - 1 degrees of freedom. Source: Fabijan and others,
    Diagnosing sample ratio mismatch in online controlled experiments, KDD (2019).

    Args:
        users: of each variant.

    Returns:
        None with fewer than two variants, with fewer than `MIN_USERS` users, or where fewer than
        `MIN_EXPECTED` are expected of each.
    """
    n, m = sum(users), len(users)
    if m < 2 or n < max(MIN_USERS, MIN_EXPECTED * m):
        return None
    expected = n / m
    return float(chdtrc(m - 1, sum((of_one - expected) ** 2 for of_one in users) / expected))


# --- what became of outcomes ------------------------------------------------------------------


def quality_of(
    outcomes: Outcomes, of_day: int, items: pa.Table, users_of_several_variants: int
) -> OutcomeQuality:
    """What became of outcomes.

    Args:
        outcomes: all that were read.
        of_day: of ``sql/outcome_totals.sql``.
        items: of ``sql/outcome_items.sql``.
        users_of_several_variants: of all experiments.
    """
    total: Mapping[str, int] = {
        name: pc.sum(items[name]).as_py() or 0 for name in ("outcomes", "unseen_clicks")
    }
    uncompared = items.filter(pc.is_null(items["is_personalized"]))["impressions"]
    return OutcomeQuality(
        types=outcomes.types,
        unreadable=dict(outcomes.problems.counts),
        other_decisions=outcomes.count - of_day,
        unknown_items=of_day - total["outcomes"],
        unseen_clicks=total["unseen_clicks"],
        uncompared_impressions=pc.sum(uncompared).as_py() or 0,
        users_of_several_variants=users_of_several_variants,
    )
