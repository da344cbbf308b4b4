"""What is made of many things by two threads: numpy and Arrow let them run side by side.

::

    for events in side_by_side(events_of, row_groups(files)):
        ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

_THREADS: Final = 2

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def side_by_side(make: Callable[[_Given], _Made], given: Iterable[_Given]) -> Iterator[_Made]:
    """What is made of each, in order, by threads that do not go far ahead."""
    ahead: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for one in given:
            ahead.append(threads.submit(make, one))
            if len(ahead) > _THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
