"""Workers of multiprocessing that set the library up themselves.

python -m tests.programs.own_workers ENDPOINT PATH METHOD
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor


def set_up(endpoint: str, path: str) -> None:
    global hook
    from otel_personalization import PersonalizationHook, pipeline

    pipeline.configure("ranking", endpoint=endpoint)
    hook = PersonalizationHook(log=path)


def work(times: int) -> None:
    for _ in range(times):
        hook.record({"namespace": "shop", "surface": "home"})


if __name__ == "__main__":
    endpoint, path, method = sys.argv[1:]
    with ProcessPoolExecutor(
        2, multiprocessing.get_context(method), initializer=set_up, initargs=(endpoint, path)
    ) as pool:
        list(pool.map(work, [10] * 4))
