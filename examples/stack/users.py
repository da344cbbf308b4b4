"""Simulated users who go on browsing: ``python -m examples.stack.users http://127.0.0.1:8000``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import count
from typing import Final

from examples.ranking_service.traffic import Crowd

SEED: Final = 1
VISITS_AT_ONCE: Final = 5
SECONDS_BETWEEN: Final = 1.0


def visits(first: int = 0) -> Iterator[range]:
    """Numbers of visits to make, some at once, for ever.

    Args:
        first: of the numbers.
    """
    return (range(number, number + VISITS_AT_ONCE) for number in count(first, VISITS_AT_ONCE))


def main() -> None:
    """Browse until told to end."""
    parser = argparse.ArgumentParser(
        prog="examples.stack.users", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("url", help="of the ranking service")
    crowd = Crowd(parser.parse_args().url, SEED, on_answer=lambda: None)
    for numbers in visits():
        crowd.visit(numbers)
        time.sleep(SECONDS_BETWEEN)


if __name__ == "__main__":
    main()
