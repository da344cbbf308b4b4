"""What the columns of a row are computed from: totals, lists, exposure, settings of its cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from otel_personalization.daily.arrays import Integers
from otel_personalization.daily.entropy import entropy_of
from otel_personalization.daily.overlap import Overlap, Overlaps
from otel_personalization.daily.rollup import ByCell, Cells
from otel_personalization.daily.tables import DIMENSIONS, PERCENTILES, WEIGHTS

MOST_USERS: Final = 5_000
"""Whose lists are compared in a row; of more, those with the smallest hashes."""
TOP_ITEMS: Final = 10

_TOLD_APART: Final = ("cell", "cohort_rule", "device_rule", "served_items", "personalized_items")

_Columns = dict[Cells, dict[str, Any]]


class Totals:
    """What adds up.

    Args:
        table: of ``sql/cell_totals.sql``.
    """

    def __init__(self, table: pa.Table) -> None:
        self._by_cell = ByCell(table.sort_by([(name, "ascending") for name in _TOLD_APART]))
        table = self._by_cell.table
        decisions, served, personalized = (
            table[name].to_numpy() for name in ("decisions", "served_items", "personalized_items")
        )
        self._columns = {
            name: table[name].to_numpy() for name in table.column_names if name not in _TOLD_APART
        } | {
            "empty_decisions": np.where(served == 0, decisions, 0),
            "served_items": decisions * served,
            "served_items_squared": decisions * served**2,
            "personalized_items": decisions * personalized,
            "personalized_rates": decisions * personalized / np.maximum(served, 1),
        }
        self.cells = frozenset(table["cell"].to_pylist())
        """Those that had a decision on the day."""

    def of(self, cells: Cells) -> dict[str, Any]:
        """Volumes, rates and shares of picks."""
        rows = self._by_cell.rows(cells)
        total = {name: values[rows].sum().item() for name, values in self._columns.items()}
        served = total["served_items"]
        full = total["decisions"] - total["empty_decisions"]
        return {
            **{
                name: total[name]
                for name in (
                    "decisions",
                    "empty_decisions",
                    "served_items",
                    "personalized_items",
                    "reason_items",
                    "reason_requested_items",
                    "cold_start_items",
                    "mmr_picks",
                )
            },
            "known_user_share": _ratio(total["decisions_with_user"], total["decisions"]),
            "effective_decisions": _ratio(served**2, total["served_items_squared"]),
            "personalized_impression_rate": _ratio(total["personalized_items"], served),
            "reason_coverage_rate": _ratio(total["reason_items"], served),
            "requested_reason_coverage_rate": _ratio(
                total["reason_items"], total["reason_requested_items"]
            ),
            "mean_decision_personalized_rate": _ratio(total["personalized_rates"], full),
            "brand_cap_hit_share": _ratio(total["brand_cap_hits"], total["mmr_picks"]),
            "category_cap_hit_share": _ratio(total["category_cap_hits"], total["mmr_picks"]),
        }


class Lists:
    """The last lists of users.

    Args:
        table: `Served.lists`.
        k: how many distinct items of a list are compared at most.
        window_days: days from which they are taken.
    """

    def __init__(self, table: pa.Table, k: int, window_days: int) -> None:
        self._k = k
        self._window_days = window_days
        self._by_cell = ByCell(table.select(["cell"]))  # the lists themselves can be large
        # By user, in the order by which some are chosen; of a user, the last list last.
        keys = ("user_order", "user_rest", "ts", "decision_id", "ordinal")
        order = pc.sort_indices(table, [(key, "ascending") for key in keys]).to_numpy()
        self._place = np.empty(len(table), np.int64)
        self._place[order] = np.arange(len(table))
        user = [table[name].to_numpy()[order] for name in ("user_order", "user_rest")]
        is_another = np.any([np.diff(part, prepend=part[:1]) != 0 for part in user], axis=0)
        self._user = np.empty(len(table), np.int64)
        self._user[order] = np.cumsum(is_another)
        self._items = table["items"].combine_chunks()

    def of(self, sets: Iterable[Cells], eligible_users: Mapping[Cells, int]) -> _Columns:
        """The overlap of the users of each of some sets of cells.

        Args:
            sets: all of one surface.
            eligible_users: how many users have a list there, by set.
        """
        # The widest first: the others have most of its lists.
        chosen = {cells: self._chosen(cells) for cells in sorted(sets, key=lambda s: (-len(s), s))}
        used = np.unique(np.concatenate(list(chosen.values())))
        overlaps = Overlaps(first_distinct(self._items.take(pa.array(used)), self._k), self._k)
        return {
            cells: {
                **_overlap_columns(overlaps.of(np.searchsorted(used, rows))),
                "overlap_eligible_users": eligible_users[cells],
                "overlap_k": self._k,
                "overlap_window_days": self._window_days,
            }
            for cells, rows in chosen.items()
        }

    def _chosen(self, cells: Cells) -> Integers:
        """The last lists of the users of cells, of those with the smallest digests."""
        rows = self._by_cell.rows(cells)
        rows = rows[np.argsort(self._place[rows])]
        users = self._user[rows]
        is_last = np.append(users[1:] != users[:-1], True) if len(users) else np.zeros(0, bool)
        chosen: Integers = rows[is_last][:MOST_USERS]
        return chosen


def first_distinct(items: pa.ListArray, k: int) -> pa.ListArray:
    """The first k distinct items of each list, those without an id left out.

    Args:
        items: lists of anything that tells items apart, or null.
        k: items of a list.

    Returns:
        Lists of numbers that stand for items.
    """
    encoded = items.flatten().dictionary_encode()
    lengths = pc.list_value_length(items).to_numpy().astype(np.int64)
    owner = np.repeat(np.arange(len(items)), lengths)
    known = encoded.is_valid().to_numpy(zero_copy_only=False)
    code = encoded.indices.fill_null(0).to_numpy().astype(np.int64)[known]
    owner = owner[known]
    kept = _is_first(owner * max(1, len(encoded.dictionary)) + code)
    code, owner = code[kept], owner[kept]
    distinct = np.bincount(owner, minlength=len(items))
    kept = np.arange(len(owner)) - np.repeat(np.cumsum(distinct) - distinct, distinct) < k
    ends = np.append(0, np.cumsum(np.minimum(distinct, k)))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(code[kept], pa.int32()))


def _is_first(values: Integers) -> npt.NDArray[np.bool_]:
    """Whether each is the first of its value; quick where few come twice."""
    is_first = np.ones(len(values), bool)
    ordered = np.sort(values)
    repeated = np.flatnonzero(np.isin(values, ordered[1:][ordered[1:] == ordered[:-1]]))
    is_first[repeated] = False
    is_first[repeated[np.unique(values[repeated], return_index=True)[1]]] = True
    return is_first


def _overlap_columns(overlap: Overlap | None) -> dict[str, Any]:
    if overlap is None:
        return {"overlap_users": 0, "overlap_pairs": 0}
    percentiles = overlap.percentiles or {}
    return {
        "jaccard_mean": overlap.mean,
        "jaccard_mean_lower": overlap.lower,
        "jaccard_mean_upper": overlap.upper,
        **{f"jaccard_p{p}": percentiles.get(p) for p in PERCENTILES},
        "identical_list_share": overlap.identical_share,
        "overlap_users": overlap.users,
        "overlap_pairs": overlap.pairs,
        "overlap_short_list_share": overlap.short_share,
    }


class Exposure:
    """How often items, brands and categories were served.

    Args:
        items: `Served.items`.
        values: `Served.values`.
    """

    def __init__(self, items: pa.Table, values: Mapping[str, pa.Table]) -> None:
        self._items = ByCell(items)
        self._item_codes = _codes(self._items.table["item_id"])
        self._item_counts = self._items.table["served"].to_numpy()
        self._values = {kind: ByCell(table) for kind, table in values.items()}
        self._columns = {
            kind: (table["users"].to_numpy(), _codes(table["value"]), table["served"].to_numpy())
            for kind, table in values.items()
        }

    def of(self, cells: Cells, served_items: int) -> dict[str, Any]:
        """Exposure of items and entropies.

        Args:
            cells: those of the row.
            served_items: positions that were served, whether their items are known or not.
        """
        rows = self._items.rows(cells)
        counts = np.bincount(self._item_codes[rows], self._item_counts[rows])
        top = np.sort(counts)[::-1][:TOP_ITEMS]
        found: dict[str, Any] = {
            "top10_exposure_share": _ratio(int(top.sum()), served_items),
            "catalog_items": int(np.count_nonzero(counts)),
        }
        for kind in DIMENSIONS:
            rows = self._values[kind].rows(cells)
            users, codes, served = (column[rows] for column in self._columns[kind])
            entropy = entropy_of(users, codes, served)
            column = f"entropy_{kind}"
            found[f"{column}_known_share"] = _ratio(int(served.sum()), served_items)
            found[f"{column}_reliable"] = entropy is not None and entropy.reliable
            if entropy is None:
                continue
            found |= {
                column: entropy.corrected,
                f"{column}_observed": entropy.observed,
                f"{column}_lower": entropy.lower,
                f"{column}_upper": entropy.upper,
                f"{column}_effective_number": entropy.effective_number,
                f"{column}_sample_coverage": entropy.sample_coverage,
            }
        return found


def _codes(values: pa.ChunkedArray) -> Integers:
    """Numbers in the order of the values, whatever that of the rows; there is no null."""
    encoded = values.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    code = np.empty(len(order), np.int64)
    code[order] = np.arange(len(order))
    of_rows: Integers = code[encoded.indices.to_numpy()]
    return of_rows


class Settings:
    """Blend weights on record.

    Args:
        table: of ``sql/cell_settings.sql``.
    """

    def __init__(self, table: pa.Table) -> None:
        self._by_cell = ByCell(table)
        self._decisions = self._by_cell.table["decisions"].to_numpy()
        self._weights = np.column_stack(
            [self._by_cell.table[name].fill_null(np.nan).to_numpy() for name in WEIGHTS]
        )

    def of(self, cells: Cells) -> dict[str, Any]:
        """The most frequent value of each weight, of several the smallest; how many settings."""
        rows = self._by_cell.rows(cells)
        decisions, weights = self._decisions[rows], self._weights[rows]
        found: dict[str, Any] = {}
        for name, column in zip(WEIGHTS, weights.T, strict=True):
            values, place = np.unique(column[~np.isnan(column)], return_inverse=True)
            if len(values):
                counts = np.bincount(place, decisions[~np.isnan(column)])
                found[name] = values[np.argmax(counts)].item()
        found["weight_settings"] = len({tuple(map(repr, row)) for row in weights.tolist()})
        return found


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
