"""Counts in workers of multiprocessing, which end without exit handlers."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from otel_personalization import PersonalizationHook, pipeline


def work(times: int) -> None:
    for _ in range(times):
        hook.record({"namespace": "shop", "surface": "home"})


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    pipeline.configure("ranking", endpoint=sys.argv[1])
    hook = PersonalizationHook()
    work(1)
    if sys.argv[2] == "process":
        workers = [fork.Process(target=work, args=(10,)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    else:
        with ProcessPoolExecutor(3, mp_context=fork) as pool:
            list(pool.map(work, [10] * 3))
