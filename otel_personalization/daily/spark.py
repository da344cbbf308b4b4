"""Runs the statements of ``sql/`` in Spark, where a day outgrows one machine.

In the session that there is, which is how a cluster is used: ``spark-submit`` the job. Without one
it is a local one, in a JVM of this process, that lasts as long as the engine::

    with Spark([manifest], org_id="...") as engine:
        engine.make("cells")
        engine.fetch("cells")  # a pyarrow.Table

Every executor reads the snapshots' files, by the same paths as the driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final

import pyarrow as pa
from typing_extensions import Self

from otel_personalization.daily.engines import Engine, EngineError, statement
from otel_personalization.daily.manifest import Manifest

try:
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import col, lit
except ImportError as error:
    _missing: ImportError | None = error
else:
    _missing = None

ARROW_ROWS: Final = 100_000
"""Of a batch."""
LOCAL_MEMORY: Final = "2g"
"""Of the JVM of a local session; what does not fit is on disk for the time being."""
SUBMITTED: Final = "PYSPARK_GATEWAY_PORT"
"""Is set by ``spark-submit``, which also says what the session is to be."""

_CONFIGURATION: Final = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    # `ts` is an instant in UTC, and a timestamp of no zone in Parquet and Arrow.
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(ARROW_ROWS),
}
"""Of the statements' session, whatever that of the host has: of them depends what is counted."""


class Spark(Engine):
    """In a session of its own, which shares executors and memory with the one that there is.

    Args:
        manifests: of the snapshots that are read; at least one, and all of one folder.
        org_id: whose decisions are read.

    Raises:
        EngineError: where it is entered, if pyspark or Java is not there.
    """

    words: ClassVar = {
        "explode": "explode",
        "list": "collect_list",
        "sorted": "sort_array",
        "text": "STRING",
        "hash": "xxhash64",
        "size": "size",
        "items_and_places": "posexplode(items) AS (place, item)",
        "digest": "md5",
        "digits_1_to_15": "CAST(conv(substr(digest, 1, 15), 16, 10) AS BIGINT)",
        "digits_16_to_30": "CAST(conv(substr(digest, 16, 15), 16, 10) AS BIGINT)",
    }

    def __init__(self, manifests: Sequence[Manifest], org_id: str) -> None:
        self._exit = ExitStack()
        self._manifests = manifests
        self._org_id = org_id

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._session = stack.enter_context(_host_session()).newSession()
            for name, value in _CONFIGURATION.items():
                self._session.conf.set(name, value)
            folder = _uri(self._manifests[0].partition.parent)
            self._session.read.options(basePath=folder, mergeSchema=True).parquet(
                *(_literal(_uri(manifest.data)) for manifest in self._manifests)
            ).where(col("org_id") == lit(self._org_id)).createTempView("stored")
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    def add(self, name: str, file: Path) -> None:
        self._session.read.parquet(_literal(_uri(file))).createTempView(name)

    def make(self, name: str, **parameters: object) -> None:
        self._cache(name, self._text(name, parameters))

    def define(self, name: str, **parameters: object) -> None:
        self._session.sql(self._text(name, parameters)).createTempView(name)

    def fetch(self, name: str) -> pa.Table:
        return self._session.table(name).toArrow()

    def query(self, name: str, **parameters: object) -> pa.Table:
        return self._session.sql(self._text(name, parameters)).toArrow()

    def stream(self, name: str, **parameters: object) -> Iterator[pa.RecordBatch]:
        # Spark hands out all of a result at once, or row by row, at 40,000 rows a second. What it
        # sorted are partitions, one after the other; each of them is a result of its own.
        self._cache(name, self._text(name, parameters))
        rows = self._session.table(name)
        part = "spark_partition_id()"
        for (number,) in rows.selectExpr(f"{part} AS part").distinct().sort("part").collect():
            yield from rows.where(f"{part} = {number}").toArrow().to_batches()
        self._session.catalog.uncacheTable(name)

    def _cache(self, name: str, text: str) -> None:
        """Have the rows in the executors' memory, or on their disks, until the end."""
        self._session.sql(f"CACHE TABLE {name} AS {text}")
        self._exit.callback(self._session.catalog.uncacheTable, name)

    def _text(self, name: str, parameters: Mapping[str, object]) -> str:
        return statement(name, {**self.words, **parameters})


def _uri(path: Path) -> str:
    """Of a file of the machine, where the cluster's paths may be those of another file system."""
    return f"file://{path.absolute()}"  # Hadoop wants it as it is, without any %20


def _literal(path: str) -> str:
    """A path that Spark does not take for a pattern."""
    return "".join(f"\\{character}" if character in "{}[]*?\\" else character for character in path)


# --- the session ------------------------------------------------------------------------------


@contextmanager
def _host_session() -> Iterator[SparkSession]:
    """The session that there is, or else one that is stopped at the end."""
    if _missing is not None:
        what = f"Spark is not installed ({_missing})"
        raise EngineError(f'{what}; install it with: pip install "otel-personalization[spark]"')
    session = _active_session()
    if session is not None:
        yield session
        return
    session = _new_session()
    try:
        yield session
    finally:
        session.stop()


def _active_session() -> SparkSession | None:
    with suppress(PySparkRuntimeError):
        return SparkSession.active()
    return None


def _new_session() -> SparkSession:
    builder = SparkSession.builder.appName("otel-personalization daily")
    if SUBMITTED not in os.environ:
        builder.config(map=_local())
    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        what = "Spark did not start, which needs Java 17 or later"
        raise EngineError(f"{what}; install it, and name it by JAVA_HOME or in PATH") from error


def _local() -> dict[str, str | int | float | bool | None]:
    """The configuration of a session on this machine: small, quiet, and closed to the others."""
    quiet = Path(__file__).with_name("spark.log4j2.properties").as_uri()
    return {
        "spark.master": "local[*]",
        "spark.driver.memory": LOCAL_MEMORY,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={quiet}",
        "spark.sql.shuffle.partitions": 2 * (os.cpu_count() or 1),
        "spark.ui.enabled": False,
        "spark.ui.showConsoleProgress": False,
    }
