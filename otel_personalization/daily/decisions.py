"""What lines of JSON say of decisions, by ``sql/decisions.sql``, in constant memory.

::

    for batch in decisions(FileLines([Path("traces.ndjson.gz")]), DEFAULT_STAGES, Path("spilled")):
        batch["problem"]  # null of what is a decision, else the kind of problem
"""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from otel_personalization.conventions import MAX_CANDIDATES, MAX_LABEL_LENGTH
from otel_personalization.daily.lines import NO_JSON, SCHEMA, Lines
from otel_personalization.daily.sql import text_of
from otel_personalization.trace import TRACE_FIELDS

UNDATED: Final = "undated"
"""Kind of problem: a trace without a readable ``ts``, which belongs to no day."""
UNUSABLE_ORG_ID: Final = "unusable_org_id"
"""Kind of problem: a trace of an organisation whose id is longer than names are, or has NUL. Folded
as names are, several organisations would be one."""
_WORDS: Final = {
    NO_JSON: "no JSON",
    UNDATED: "no readable ts: it belongs to no day",
    UNUSABLE_ORG_ID: f"org_id of more than {MAX_LABEL_LENGTH} characters, or with NUL",
}
MEMORY_LIMIT: Final = "1GB"
"""Of DuckDB."""

_JSON_TEXT: Final = "JSON"  # kept as it is written, to tell 1 from "1"
_TEXT: Final = "VARCHAR"
SHAPE: Final[dict[str, Any]] = {
    **dict.fromkeys(("decision_id", "org_id", "namespace", "surface", "user_hash"), _JSON_TEXT),
    "ts": _TEXT,
    "final_items": [
        {
            "item_id": _TEXT,
            "reasons": [_JSON_TEXT],
            "personalized": _JSON_TEXT,
            "cold_start": _JSON_TEXT,
        }
    ],
    "caps": "MAP(VARCHAR, STRUCT(brand STRUCT(value JSON), category STRUCT(value JSON)))",
    "extras": {
        **dict.fromkeys(
            (
                "include_reasons",
                "personalized_items_count",
                "cohort",
                "device",
                "bandit_experiment",
                "experiment_variant",
                "bandit_variant",
            ),
            _JSON_TEXT,
        ),
        "personalized_items": [_TEXT],
        "candidate_sources": "MAP(VARCHAR, STRUCT(count JSON))",
    },
    "bandit": dict.fromkeys(("bucket_key", "experiment", "variant"), _JSON_TEXT),
    "effective_config": dict.fromkeys(
        ("alpha", "beta", "gamma", "profile_boost", "mmr_lambda"), _JSON_TEXT
    ),
    "mmr_info": [dict.fromkeys(("item_id", "brand_cap_hit", "category_cap_hit"), _JSON_TEXT)],
}
"""What ``sql/decisions.sql`` reads of a trace."""
_SPACE: Final = "".join(character for character in map(chr, range(0x3001)) if character.isspace())
_MACROS: Final = (
    "count_of",
    "how_many",
    "instant_of",
    "may_be_nested",
    "number_of",
    "trimmed",
    "text_of",
    "label_of",
    "name_of",
)
_BATCH_ROWS: Final = 10_000


def decisions(
    lines: Lines, stages: Collection[str], spilled: Path
) -> Generator[pa.RecordBatch, None, None]:
    """What ``sql/decisions.sql`` makes of the lines: a row for each, in their order.

    Args:
        lines: each is one trace.
        stages: keys of ``extras.candidate_sources`` that are no sources.
        spilled: a folder for what is too much for the memory; made if it is needed.

    Raises:
        OSError: a file cannot be opened or read.
        SourceError: PostgreSQL does not give the lines.
    """
    failure: list[BaseException] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from lines.batches()
        except BaseException as error:  # DuckDB would only tell its text
            failure.append(error)
            raise

    with duckdb.connect(
        config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(spilled)}
    ) as connection:
        connection.execute("SET enable_progress_bar = false")  # it would print to stdout
        for name in _MACROS:
            connection.execute(text_of(name))
        connection.register("lines", pa.RecordBatchReader.from_batches(SCHEMA, batches()))
        # Not parameters: with them DuckDB 1.5 holds the lock that batches() needs.
        for name, value in (
            ("shape", json.dumps(SHAPE)),
            ("space", _SPACE),
            ("stages", list(stages)),
            ("most_candidates", MAX_CANDIDATES),
            ("trace_fields", list(TRACE_FIELDS)),
            ("longest_name", MAX_LABEL_LENGTH),
        ):
            # Without a type, an empty list is one of integers to DuckDB 1.5.
            given = "CAST(? AS VARCHAR[])" if isinstance(value, list) else "?"
            connection.execute(f"SET VARIABLE {name} = {given}", [value])
        try:
            found = connection.sql(text_of("decisions"))
            yield from found.to_arrow_reader(_BATCH_ROWS)
        except Exception:
            if failure:
                raise failure[0] from None
            raise


def what_is_wrong(kind: str) -> str:
    """A kind of problem in words."""
    return _WORDS.get(kind, f"malformed: {kind}")
