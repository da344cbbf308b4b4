"""Reads lines of JSON as decisions, in DuckDB: ``sql/decisions.sql`` and what it needs."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

import duckdb
import pyarrow as pa

from otel_personalization.conventions import DEFAULT_STAGES, MAX_CANDIDATES
from otel_personalization.daily.tables import WEIGHTS

LINES: Final = pa.schema([("line", pa.string()), ("ordinal", pa.int64())])
"""What is read: a line of JSON, and its place in the order of delivery."""

_MACROS: Final = ("trimmed", "text_of", "label_of", "count_of", "instant_of")
_CAP: Final = 'STRUCT("value" VARCHAR)'
_SHAPE: Final = {
    "decision_id": "JSON",
    "org_id": "JSON",
    "ts": "VARCHAR",
    "namespace": "JSON",
    "surface": "JSON",
    "user_hash": "JSON",
    "final_items": [
        {"item_id": "VARCHAR", "reasons": ["JSON"], "personalized": "JSON", "cold_start": "JSON"}
    ],
    "caps": f"MAP(VARCHAR, STRUCT(brand {_CAP}, category {_CAP}))",
    "mmr_info": [{"brand_cap_hit": "JSON", "category_cap_hit": "JSON"}],
    "effective_config": dict.fromkeys(WEIGHTS, "JSON"),
    "bandit": {"bucket_key": "JSON", "experiment": "JSON", "variant": "JSON"},
    "extras": {
        "include_reasons": "JSON",
        "personalized_items": ["VARCHAR"],
        "personalized_items_count": "JSON",
        "candidate_sources": "MAP(VARCHAR, STRUCT(count JSON))",
        "cohort": "JSON",
        "device": "JSON",
        "bandit_experiment": "JSON",
        "experiment_variant": "JSON",
        "bandit_variant": "JSON",
    },
}
_SPACE: Final = "".join(map(chr, range(0x3001))).translate(
    {code: None for code in range(0x3001) if not chr(code).isspace()}
)
"""White space as `str.strip` knows it."""


def statement(name: str) -> str:
    """The statement in a file of ``sql/``."""
    return files(__package__).joinpath("sql", f"{name}.sql").read_text()


def read_decisions(
    connection: duckdb.DuckDBPyConnection, lines: pa.RecordBatchReader, rows: int
) -> pa.RecordBatchReader:
    """A row for each line, as ``sql/decisions.sql`` has them, in any order.

    Args:
        connection: one of which nothing else is asked until all is read.
        lines: of schema `LINES`.
        rows: of a batch, about.
    """
    for macro in _MACROS:
        connection.execute(statement(macro))
    connection.register("lines", lines)
    parameters: dict[str, Any] = {
        "shape": json.dumps(_SHAPE),
        "space": _SPACE,
        "stages": sorted(DEFAULT_STAGES),
        "most_candidates": MAX_CANDIDATES,
    }
    return connection.sql(statement("decisions"), params=parameters).to_arrow_reader(rows)
