"""What was served: how often each item, brand and category, and the last lists of users.

Each engine can count it by the statements of ``sql/``. Where Parquet files can be read here, it is
counted from them, without their texts: a file says each text of a row group once, in a dictionary,
and of each place only which it is. To count numbers takes a third of the time, and of what is
served all is had in one reading::

    served = counted([Path("day=2026-11-21/decisions-8f14e45fceea167a.parquet")], wanted)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from otel_personalization.daily.tables import DIMENSIONS

USER_GROUPS: Final = 256
"""Into which ``sql/placed.sql`` puts users."""

_THREADS: Final = 2
_ITEM: Final = "item_id"
_COLUMNS: Final = (_ITEM, *DIMENSIONS)
_PLACE: Final = "items.list.element.{}"
"""Of a column in a file."""
_NONE: Final = -1
_CODE_BITS: Final = 32
_FEW: Final = 1 << 20
"""Keys that are kept apart before those that are the same are put together."""

_Integers = npt.NDArray[np.int64]
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


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


def counted(files: Sequence[Path], want: Want) -> Served:
    """Count what snapshots hold, a row group at a time.

    Args:
        files: their data, of which the ordinals ascend.
        want: says what is wanted of a row group; is called by several threads.

    Raises:
        ValueError: the ordinals of a file do not ascend, or it has not what is wanted.
    """
    groups = (
        (file, number) for file in files for number in range(pq.read_metadata(file).num_row_groups)
    )
    counts = {name: _Counts() for name in _COLUMNS}
    lists = []
    for part in _side_by_side(lambda group: _part(*group, want, counts), groups):
        for name, served in part.served.items():
            counts[name].add(*served)
        lists.append(part.lists)
    return Served(
        counts[_ITEM].table("item_id"),
        {kind: _by_users(counts[kind].table("value")) for kind in DIMENSIONS},
        pa.concat_tables(lists),
    )


def _by_users(table: pa.Table) -> pa.Table:
    """Of cells and groups of users, which are one number at first."""
    cell, users = np.divmod(table["cell"].to_numpy(), USER_GROUPS)
    return table.set_column(0, "cell", pa.array(cell)).add_column(1, "users", pa.array(users))


def _side_by_side(make: Callable[[_Given], _Made], given: Iterable[_Given]) -> Iterator[_Made]:
    """What is made of each, in order, by threads that do not go far ahead."""
    ahead: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for one in given:
            ahead.append(threads.submit(make, one))
            if len(ahead) > _THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _Part(NamedTuple):
    """What a row group says."""

    served: dict[str, tuple[_Integers, _Integers]]
    """By column: keys of `_Counts`, and how often each was served."""
    lists: pa.Table
    """See `Served.lists`; items are numbers."""


def _part(file: Path, number: int, want: Want, counts: Mapping[str, _Counts]) -> _Part:
    group = pq.ParquetFile(file, read_dictionary=[_PLACE.format(name) for name in _COLUMNS])
    ordinals = group.read_row_group(number, ["ordinal"])["ordinal"].to_numpy()
    if np.any(np.diff(ordinals) <= 0):
        raise ValueError(f"the ordinals of {file} do not ascend")
    wanted = want(file, int(ordinals[0]), int(ordinals[-1]))
    names = _COLUMNS if len(wanted.counted) else (_ITEM,)  # of other days lists alone are wanted
    columns = ["decision_id", *(_PLACE.format(name) for name in names)]
    rows = group.read_row_group(number, columns, use_threads=False)
    at, at_last = (_places(ordinals, table["ordinal"].to_numpy(), file) for table in wanted)
    items = rows["items"].combine_chunks()
    lengths = pc.list_value_length(items).to_numpy()
    flat = items.flatten()
    cell = np.full(len(ordinals), _NONE)
    cell[at] = wanted.counted["cell"].to_numpy()
    users = np.full(len(ordinals), _NONE)
    users[at] = cell[at] * USER_GROUPS + wanted.counted["users"].to_numpy()
    codes = {name: counts[name].codes_of(flat.field(name)) for name in names}
    lists = wanted.last.append_column(
        "decision_id", rows["decision_id"].take(at_last).fill_null("")
    )
    ids = pa.array(codes[_ITEM], mask=codes[_ITEM] == _NONE)
    return _Part(
        {name: _runs(cell if name == _ITEM else users, lengths, codes[name]) for name in names},
        lists.append_column("items", _lists_of(lengths, ids).take(at_last)),
    )


def _places(ordinals: _Integers, wanted: _Integers, file: Path) -> _Integers:
    found = np.searchsorted(ordinals, wanted)
    if not np.array_equal(ordinals[found], wanted):
        raise ValueError(f"{file} does not have every ordinal that is wanted")
    return found


def _lists_of(lengths: npt.NDArray[Any], values: pa.Array) -> pa.ListArray:
    ends = np.concatenate(([0], np.cumsum(lengths)))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)


# --- counts -----------------------------------------------------------------------------------


def _runs(
    owner: _Integers, lengths: npt.NDArray[Any], codes: npt.NDArray[np.int32]
) -> tuple[_Integers, _Integers]:
    """Count what was served.

    Args:
        owner: by what each list is counted, or `_NONE`, by nothing.
        lengths: of each list.
        codes: what was served, list by list, or `_NONE`.

    Returns:
        The keys, ascending, and how often each was served.
    """
    radix = int(codes.max(initial=0)) + 2
    is_short = (int(owner.max(initial=0)) + 2) * radix < 1 << 32  # to sort takes half of the time
    of_list = ((owner - _NONE) * radix - _NONE).astype(np.uint32 if is_short else np.uint64)
    keys = np.repeat(of_list, lengths)
    keys += codes.astype(keys.dtype)  # _NONE turns over, and comes to 0
    keys.sort()
    firsts = _firsts(keys)
    served = np.diff(firsts, append=len(keys))
    owner, code = np.divmod(keys[firsts].astype(np.int64), radix)
    known = (owner > 0) & (code > 0)
    return (owner[known] - 1) << _CODE_BITS | code[known] - 1, served[known]


def _firsts(ordered: npt.NDArray[Any]) -> _Integers:
    """Where another value begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])


class _Counts:
    """Adds up how often each text was served, by whatever owns it."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        """Of texts, the same for every row group."""
        self._lock = Lock()
        self._keys = np.zeros(0, np.int64)
        """Ascending: the number of the text in the lower `_CODE_BITS`, above it its owner's."""
        self._served = self._keys
        self._new: list[tuple[_Integers, _Integers]] = []
        """Further keys, which may be the same."""

    def codes_of(self, texts: pa.DictionaryArray) -> npt.NDArray[np.int32]:
        """The numbers of texts; `_NONE` where there is none."""
        names = texts.dictionary.to_pylist()
        with self._lock:
            numbers = self._numbers
            found = [numbers.setdefault(name, len(numbers)) for name in names]
        codes = np.array([*found, _NONE], np.int32)
        of_places: npt.NDArray[np.int32] = codes[texts.indices.fill_null(len(names)).to_numpy()]
        return of_places

    def add(self, keys: _Integers, served: _Integers) -> None:
        """Add what was served.

        Args:
            keys: ascending.
            served: how often.
        """
        # As a rule most are there already.
        place = np.searchsorted(self._keys, keys)
        is_new = np.append(self._keys, -1)[place] != keys
        self._served[place[~is_new]] += served[~is_new]
        self._new.append((keys[is_new], served[is_new]))
        if sum(len(new) for new, _ in self._new) > max(len(self._keys) // 2, _FEW):
            self._put_together()

    def table(self, name: str) -> pa.Table:
        """The columns cell, served, and one of that name for the texts."""
        self._put_together()
        texts = pa.array(list(self._numbers), pa.string())
        codes = pa.array(self._keys & (1 << _CODE_BITS) - 1, pa.int32())
        return pa.table(
            {
                "cell": self._keys >> _CODE_BITS,
                name: pa.DictionaryArray.from_arrays(codes, texts),
                "served": self._served,
            }
        )

    def _put_together(self) -> None:
        parts = [(self._keys, self._served), *self._new]
        keys, served = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(keys)
        keys = keys[order]
        firsts = _firsts(keys)
        self._keys = keys[firsts]
        self._served = np.add.reduceat(served[order], firsts) if len(keys) else served
        self._new = []
