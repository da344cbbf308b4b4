"""What was served: how often each item, brand and category, and the last lists of users.

Each engine can count it by the statements of ``sql/``. Where Parquet files can be read here, it is
counted from them, without their texts: a file says each text of a row group once, in a dictionary,
and of each place only which it is. To count numbers takes a third of the time, and of what is
served all is had in one reading::

    served = counted([Path("day=2026-11-21/decisions-8f14e45fceea167a.parquet")], wanted)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from otel_personalization.daily.arrays import Integers, added_up
from otel_personalization.daily.row_groups import RowGroup, row_groups
from otel_personalization.daily.tables import DIMENSIONS
from otel_personalization.daily.threads import side_by_side

USER_GROUPS: Final = 256
"""Into which ``sql/placed.sql`` puts users."""

_ITEM: Final = "item_id"
_COLUMNS: Final = (_ITEM, *DIMENSIONS)
_PLACE: Final = "items.list.element.{}"
"""Of a column in a file."""
DENSE: Final = 1 << 24
"""Counters of a column."""
_BLOCK: Final = 1 << 11
"""Lists that are counted at a time: their keys stay in the processor's cache."""
_FEW: Final = 1 << 20
"""Keys that are kept apart before those that are the same are put together."""


class Served(NamedTuple):
    """What was served, by finest cells."""

    items: pa.Table
    """How often an item was served on the day: cell, item_id, served."""
    values: Mapping[str, pa.Table]
    """The same by `DIMENSIONS` and groups of users: cell, users, value, served; entries of one
    cell, group and value add up."""
    lists: pa.Table
    """Lists of users in the window: cell, user_order, user_rest, ts, decision_id, ordinal, and
    items, a list of anything that tells items apart, or null where there is no id."""


def of_statements(items: pa.Table, values: pa.Table, lists: pa.Table) -> Served:
    """What the statements found.

    Args:
        items: of ``sql/served_items.sql``.
        values: of ``sql/served_values.sql``.
        lists: of ``sql/last_lists.sql``.
    """
    found = lists["items"].combine_chunks()
    ids = _lists_of(pc.list_value_length(found).to_numpy(), found.flatten().field(_ITEM))
    return Served(
        items,
        {
            kind: values.select(["cell", "users", kind, "served"])
            .rename_columns(["cell", "users", "value", "served"])
            .filter(pc.field("value").is_valid())
            for kind in DIMENSIONS
        },
        lists.set_column(lists.column_names.index("items"), "items", ids),
    )


# --- from Parquet files -----------------------------------------------------------------------


class Wanted(NamedTuple):
    """Decisions of a row group, and what they count for. Both are in the order of ordinals."""

    counted: pa.Table
    """Those of the day: ordinal, cell, users."""
    last: pa.Table
    """Those whose lists are wanted: ordinal, cell, user_order, user_rest, ts."""


Want = Callable[[Path, int, int], Wanted]
"""Says what is wanted of a file, of its ordinals from one to another."""


def counted(files: Sequence[Path], want: Want, cells: int) -> Served:
    """Count what snapshots hold, a row group at a time.

    Args:
        files: their data, of which the ordinals ascend.
        want: says what is wanted of a row group; is called by several threads.
        cells: how many there are, numbered from 1.

    Raises:
        ValueError: the ordinals of a file do not ascend, or it has not what is wanted.
    """
    owners = cells + 1
    counts = {_ITEM: _Counts(owners)}
    counts |= {kind: _Counts(owners * USER_GROUPS) for kind in DIMENSIONS}
    lists = list(side_by_side(lambda group: _count(group, want, counts), row_groups(files)))
    items, *values = side_by_side(lambda name: counts[name].table(), _COLUMNS)
    return Served(
        items.rename_columns({"owner": "cell", "value": "item_id"}),
        dict(zip(DIMENSIONS, map(_by_users, values), strict=True)),
        pa.concat_tables(lists),
    )


def _by_users(table: pa.Table) -> pa.Table:
    """Of owners that are groups of users of a cell."""
    cell, users = np.divmod(table["owner"].to_numpy(), USER_GROUPS)
    of = table.select(["value", "served"])
    return of.append_column("cell", pa.array(cell)).append_column("users", pa.array(users))


def _count(group: RowGroup, want: Want, counts: Mapping[str, _Counts]) -> pa.Table:
    """Count what a row group says, and give its part of `Served.lists`; items are numbers."""
    ordinals = group.ordinals()
    wanted = want(group.file, int(ordinals[0]), int(ordinals[-1]))
    names = _COLUMNS if len(wanted.counted) else (_ITEM,)  # of other days lists alone are wanted
    columns = [_PLACE.format(name) for name in names]
    rows = group.read("decision_id", *columns, dictionaries=columns)
    at, at_last = (group.places(ordinals, table) for table in wanted)
    items = rows["items"].combine_chunks()
    lengths = pc.list_value_length(items).to_numpy()
    flat = items.flatten()
    texts = {name: counts[name].texts_of(flat.field(name)) for name in names}
    cell = np.zeros(len(ordinals), np.int64)
    cell[at] = wanted.counted["cell"].to_numpy()
    users = cell * USER_GROUPS
    users[at] += wanted.counted["users"].to_numpy()
    for name in names:
        counts[name].add(texts[name], lengths, cell if name == _ITEM else users)
    lists = wanted.last.append_column(
        "decision_id", rows["decision_id"].take(at_last).fill_null("")
    )
    places = _lists_of(lengths, pa.array(texts[_ITEM].places)).take(at_last)
    keys = texts[_ITEM].keys_of(places.flatten().to_numpy())
    ids = _lists_of(lengths[at_last], pa.array(keys, mask=keys == 0))
    return lists.append_column("items", ids)


def _lists_of(lengths: npt.NDArray[Any], values: pa.Array) -> pa.ListArray:
    ends = np.concatenate(([0], np.cumsum(lengths)))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)


# --- counts -----------------------------------------------------------------------------------


class _Texts(NamedTuple):
    """Texts as `_Counts` knows them."""

    keys: Integers
    """Of each that there is, without an owner; the first is 0, for none."""
    places: npt.NDArray[np.int32]
    """Which of these is where."""

    def keys_of(self, places: npt.NDArray[np.int32]) -> Integers:
        """The keys of some places."""
        keys: Integers = self.keys.take(places)  # with [] it takes twice as long
        return keys


class _Counts:
    """Adds up how often each text was served, by whatever owns it.

    A key is the number of a text, times how many owners there are, plus the number of the owner.
    Number 0 of both is none, which is counted as well, since to leave it out takes longer.

    Of the keys below `DENSE` each has a counter: as a rule they are all, and if not, they are those
    of the texts that came first, and so of the most frequent. Of the others those that come are
    kept, in their order, which takes four times as long.

    Args:
        owners: how many there are, none among them.
    """

    def __init__(self, owners: int) -> None:
        self._owners = owners
        self._lock = Lock()
        self._texts = pa.array([], pa.string())
        """Those with the numbers 1, 2 and so on, the same for every row group."""
        # Takes memory only where something is counted. Of 32 bits, more stays in the cache, and no
        # day serves two billion of one text.
        self._dense = np.zeros(DENSE, np.int32)
        self._keys = np.zeros(0, np.int64)
        """Ascending."""
        self._served = self._keys
        self._new: list[tuple[Integers, Integers]] = []
        """Further keys, which may be the same."""

    def texts_of(self, texts: pa.DictionaryArray) -> _Texts:
        """What texts are here."""
        names = texts.dictionary
        with self._lock:
            known = pc.index_in(names, self._texts)
            if known.null_count:
                self._texts = pa.concat_arrays([self._texts, names.filter(known.is_null())])
                known = pc.index_in(names, self._texts)
        keys = np.append(0, known.to_numpy() + np.int64(1)) * self._owners
        return _Texts(keys, _places(texts.indices))

    def add(self, texts: _Texts, lengths: npt.NDArray[np.int32], owners: Integers) -> None:
        """Count texts once each.

        Args:
            texts: those of lists, one after the other.
            lengths: how many each list has.
            owners: of each list.
        """
        further = []
        one = self._dense.dtype.type(1)  # with one of another type it takes ten times as long
        end = 0
        for first in range(0, len(owners), _BLOCK):
            some = slice(first, first + _BLOCK)
            owner = np.repeat(owners[some], lengths[some])
            start, end = end, end + len(owner)
            keys = texts.keys_of(texts.places[start:end])
            keys += owner
            if keys.max(initial=0) >= DENSE:
                is_dense = keys < DENSE
                further.append(keys[~is_dense])
                keys = keys[is_dense]
            with self._lock:
                np.add.at(self._dense, keys, one)
        if further:
            self._add_further(*np.unique(np.concatenate(further), return_counts=True))

    def _add_further(self, keys: Integers, served: Integers) -> None:
        with self._lock:
            # As a rule most are there already.
            place = np.searchsorted(self._keys, keys)
            is_new = np.append(self._keys, -1)[place] != keys
            self._served[place[~is_new]] += served[~is_new]
            self._new.append((keys[is_new], served[is_new]))
            if sum(len(new) for new, _ in self._new) > max(len(self._keys) // 2, _FEW):
                self._put_together()

    def table(self) -> pa.Table:
        """The columns owner, value, served."""
        self._put_together()
        dense = np.flatnonzero(self._dense[: (len(self._texts) + 1) * self._owners] != 0)
        number, owner = np.divmod(np.concatenate((dense, self._keys)), self._owners)
        served = np.concatenate((self._dense[dense], self._served))
        known = (number > 0) & (owner > 0)
        return pa.table(
            {
                "owner": owner[known],
                "value": pa.DictionaryArray.from_arrays(
                    pa.array(number[known] - 1, pa.int32()), self._texts
                ),
                "served": served[known],
            }
        )

    def _put_together(self) -> None:
        parts = [(self._keys, self._served), *self._new]
        keys, served = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._keys, self._served = added_up(keys, served)
        self._new = []


def _places(indices: pa.Array) -> npt.NDArray[np.int32]:
    """1 for the first of what indices of 32 bits point to, 2 for the second, and so on; 0 for null.

    To have another index filled in takes four times as long, and to ask Arrow what is valid twenty
    times as long as to look at its bits.
    """
    validity, values = indices.buffers()
    whole = pa.Array.from_buffers(pa.int32(), len(indices), [None, values], offset=indices.offset)
    found: npt.NDArray[np.int32] = whole.to_numpy() + np.int32(1)
    if indices.null_count:
        bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
        found *= bits[indices.offset : indices.offset + len(indices)]
    return found
