"""Makes a day of decisions of the recorded shape, as a snapshot or as the service's own lines.

What a decision is hangs on its number alone, so that both hold the same day. Shares are those of
the recorded traces; what is not recorded of so many is: a catalogue of 5,000 items a namespace, of
which the most served one takes 6 % of the places, as it did, and half have caps::

    python -m benchmarks.daily_traces parquet 100000 FOLDER
    python -m benchmarks.daily_traces ndjson 100000 FILE
    python -m benchmarks.daily_traces history 100000 FOLDER  # with 28 such days before it
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import duckdb
import pyarrow.parquet as pq

from otel_personalization.daily.manifest import MANIFEST, SCHEMA_VERSION
from otel_personalization.daily.snapshot import COMPRESSION, ROW_GROUP_ROWS
from otel_personalization.version import __version__

DAY: Final = date(2026, 11, 21)
ORGANISATION: Final = "00000000-0000-0000-0000-000000000001"
HISTORY_DAYS: Final = 28
MEMORY_LIMIT: Final = "2GB"

_NAMESPACES: Final = {
    "shop_eu": 0.388,
    "default": 0.298,
    "media": 0.138,
    "cold": 0.094,
    "empty_ns": 0.062,
    "launch": 0.02,
}
_SURFACES: Final = {
    "home": 0.37,
    "HOME": 0.01,
    "pdp": 0.232,
    "cart": 0.159,
    "search": 0.083,
    "email": 0.031,
    None: 0.115,
}
_EMPTY: Final = {"collaborative": 0.57, "content": 0.11, "popularity": 0.08, "session": 0.95}
"""Candidate sources, and how often they find nothing."""


def _chosen(share: str, weights: dict[str, float] | dict[str | None, float]) -> str:
    """SQL for the value at a share, 0 to 1, of the weights."""
    ends = []
    end = 0.0
    for value, weight in weights.items():
        end += weight
        ends.append(f"WHEN {share} < {end} THEN {_quoted(value)}")
    return f"CASE {' '.join(ends)} ELSE {_quoted(next(iter(weights)))} END"


def _quoted(value: str | None) -> str:
    return "NULL" if value is None else f"'{value}'"


_MACROS: Final = (
    # Two hashes put together by DuckDB itself are not independent of those of the same number.
    "CREATE MACRO drawn_by(number, what) AS hash(xor(hash(number), hash(what)))",
    "CREATE MACRO share(number, what) AS (drawn_by(number, what) >> 11) / 9007199254740992.0",
    "CREATE MACRO texts(list) AS array_to_string(list, ',')",
)


def _drawn(decisions: int, day: date) -> str:
    """SQL for the decisions of a day, by their numbers."""
    empty = " ".join(f"WHEN '{source}' THEN {share}" for source, share in _EMPTY.items())
    return f"""
SELECT
    * EXCLUDE (numbers),
    CAST(CAST(md5(concat('decision', ordinal)) AS UUID) AS VARCHAR) AS decision_id,
    '{ORGANISATION}' AS org_id,
    [
        struct_pack(
            item_id := concat(namespace, '-', n),
            brand := CASE WHEN n % 2 = 0 THEN concat('brand', n // 2 % 200) END,
            category := CASE WHEN n % 2 = 0 THEN concat('category', n // 2 % 20) END
        )
        FOR n IN numbers
    ] AS items
FROM (
    SELECT
        *,
        -- Decisions are numbered as they come; those of one moment do not end in that order.
        TIMESTAMP '{day} 00:00:00'
            + to_microseconds(
                CAST((ordinal + 8 * share(ordinal, 3)) / {decisions + 8} * 86400e6 AS BIGINT)
            ) AS ts,
        -- As many that nine in ten of a namespace and surface are of different users.
        sha256(concat(
            namespace, CAST(floor(share(ordinal, 4) * {decisions * 0.45}) AS BIGINT)
        )) AS user_hash,
        CASE WHEN share(ordinal, 5) < 0.03
            THEN CASE WHEN share(ordinal, 6) < 0.6 THEN 'web' ELSE 'ios' END END AS device,
        CASE WHEN namespace IN ('shop_eu', 'default') AND share(ordinal, 7) < 0.045
            THEN CASE WHEN share(ordinal, 8) < 0.5 THEN 'treatment' ELSE 'control' END
        END AS variant,
        share(ordinal, 9) < 0.66 AS has_reasons,
        share(ordinal, 10) < 0.83 AS has_list,
        share(ordinal, 11) < 0.88 AS has_picks,
        CAST(9 + drawn_by(ordinal, 12) % 7 AS BIGINT) AS boosted,
        CASE WHEN share(ordinal, 13) < 0.06 THEN CAST([] AS BIGINT[])
            ELSE list_distinct([
                CAST(floor(5000 * pow(share(ordinal, 100 + j), 3)) AS BIGINT) FOR j IN range(20)
            ])[:15]
        END AS numbers,
        [
            struct_pack(
                source := s,
                candidates := CASE
                    WHEN share(ordinal, s) < CASE s {empty} END THEN CAST(0 AS BIGINT)
                    ELSE CAST(20 + drawn_by(ordinal, concat(s, '#')) % 100 AS BIGINT)
                END
            )
            FOR s IN {list(_EMPTY)}
        ] AS sources
    FROM (
        SELECT
            range AS ordinal,
            {_chosen("share(range, 1)", _NAMESPACES)} AS namespace,
            {_chosen("share(range, 2)", _SURFACES)} AS surface
        FROM range({decisions})
    ) AS numbered
) AS told_apart"""


_SNAPSHOT: Final = """
SELECT
    CAST(ordinal AS BIGINT) AS ordinal,
    decision_id,
    org_id,
    ts,
    namespace,
    coalesce(lower(surface), 'default') AS surface,
    user_hash,
    CAST(NULL AS VARCHAR) AS cohort,
    CAST(NULL AS VARCHAR) AS device,
    device AS bucket_device,
    CASE WHEN variant IS NOT NULL THEN 'exp_main' END AS experiment,
    variant,
    len(items) AS served_items,
    len(items) AS identified_items,
    CASE WHEN has_list THEN least(boosted, len(items)) ELSE 0 END
        AS personalized_items,
    CASE WHEN has_reasons THEN len(items) ELSE 0 END AS reason_items,
    CASE WHEN has_reasons THEN len(items) ELSE 0 END AS reason_requested_items,
    CAST(0 AS BIGINT) AS cold_start_items,
    items,
    CASE WHEN has_list THEN [item.item_id FOR item IN items[:boosted]] ELSE [] END
        AS personalized_ids,
    sources,
    CASE WHEN variant = 'treatment' THEN 0.3 ELSE 0.25 END::DOUBLE AS alpha,
    0.45::DOUBLE AS beta,
    0.3::DOUBLE AS gamma,
    0.5::DOUBLE AS profile_boost,
    0.15::DOUBLE AS mmr_lambda,
    CASE WHEN has_picks THEN len(items) ELSE 0 END AS mmr_picks,
    CASE WHEN has_picks THEN len([1 FOR item IN items IF item.brand IS NOT NULL]) ELSE 0 END
        AS brand_cap_hits,
    CASE WHEN has_picks THEN len([1 FOR item IN items IF item.category IS NOT NULL]) ELSE 0 END
        AS category_cap_hits
FROM drawn"""

_LINES: Final = """
SELECT concat(
    '{"decision_id":"', decision_id, '","org_id":"', org_id, '","namespace":"', namespace,
    '","ts":"', strftime(ts, '%Y-%m-%dT%H:%M:%S.%fZ'),
    '","surface":"' || surface,
    '","request_id":"req-main-', ordinal, '","user_hash":"', user_hash,
    '","k":15,"effective_config":{"alpha":',
    CASE WHEN variant = 'treatment' THEN '0.3' ELSE '0.25' END,
    ',"beta":0.45,"gamma":0.3,"profile_boost":0.5,"profile_window_days":30,"profile_top_n":64,'
    '"mmr_lambda":0.15,"brand_cap":2,"category_cap":3,"half_life_days":5,"co_vis_window_days":21,'
    '"purchased_window_days":30,"rule_exclude_events":true,"popularity_fanout":60},',
    '"bandit":{"chosen_policy_id":"p","algorithm":"thompson","bucket_key":"ctx:device=' || device
    || '|surface=home","explore":false},',
    '"final_items":', CASE WHEN items = [] THEN 'null' ELSE concat('[', texts([
        concat(
            '{"item_id":"', item.item_id, '","score":', share(ordinal, item.item_id),
            CASE WHEN has_reasons THEN concat(
                ',"reasons":["recent_popularity","co_visitation"',
                CASE WHEN has_list AND place <= boosted THEN ',"personalization"' END, ']'
            ) END,
            '}'
        )
        FOR item, place IN items
    ]), ']') END,
    CASE WHEN has_picks AND items <> [] THEN concat(',"mmr_info":[', texts([
        concat(
            '{"pick_index":', place - 1, ',"item_id":"', item.item_id,
            '","relevance":', share(ordinal, item.item_id),
            CASE WHEN item.brand IS NOT NULL THEN ',"brand_cap_hit":true' END,
            CASE WHEN item.category IS NOT NULL THEN ',"category_cap_hit":true' END, '}'
        )
        FOR item, place IN items
    ]), ']') END,
    CASE WHEN items <> [] THEN concat(',"caps":{', texts([
        concat(
            '"', item.item_id, '":{"brand":{"applied":true,"limit":2,"count":1,"value":"',
            item.brand,
            '"},"category":{"applied":true,"limit":3,"count":1,"value":"', item.category, '"}}'
        )
        FOR item IN items IF item.brand IS NOT NULL
    ]), '}') END,
    ',"extras":{"anchors":[', texts([concat('"', namespace, '-', n, '"') FOR n IN range(10)]), ']',
    ',"bandit_experiment":"exp_main","bandit_variant":"' || variant || '"',
    ',"candidate_sources":{', texts([
        concat(
            '"', s.source, '":{"count":', s.candidates, ',"duration_ms":', share(ordinal, s.source),
            '}'
        )
        FOR s IN sources
    ]),
    ',"merged":{"count":60,"duration_ms":0.025196},"post_constraints":{"count":60,"duration_ms":'
    '0.00013},"post_exclusion":{"count":60,"duration_ms":0.275755}}',
    ',"duration_ms":50,"explain_level":"tags","include_reasons":',
    CASE WHEN has_reasons THEN 'true' ELSE 'false' END,
    ',"model_version":"popularity_v1"',
    -- Most of the boosted candidates are not served.
    CASE WHEN has_list THEN concat(',"personalized_items":[', texts(list_concat(
        [concat('"', item.item_id, '"') FOR item IN items[:boosted]],
        [concat('"', namespace, '-', 5000 + n, '"') FOR n IN range(98)]
    )), ']') END,
    ',"request_context_keys":["locale","surface"]}}'
) AS line
FROM drawn"""


@contextmanager
def _drawing(decisions: int, day: date) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(
        config={"memory_limit": MEMORY_LIMIT, "preserve_insertion_order": True}
    ) as connection:
        connection.execute("SET enable_progress_bar = false")
        for macro in _MACROS:
            connection.execute(macro)
        connection.execute(f"CREATE TEMP VIEW drawn AS {_drawn(decisions, day)}")
        yield connection


def write_snapshot(folder: Path, decisions: int, day: date = DAY) -> Path:
    """Write the day as a snapshot.

    Args:
        folder: of snapshots.
        decisions: how many.
        day: another one has the same decisions, and so the same users.

    Returns:
        The data file.
    """
    partition = folder / f"day={day}"
    partition.mkdir(parents=True, exist_ok=True)
    data = partition / "decisions-made.parquet"
    with _drawing(decisions, day) as connection:
        # As snapshots are written: DuckDB makes no dictionary of so many items, and takes twice as
        # long to read them.
        batches = connection.sql(_SNAPSHOT).to_arrow_reader(ROW_GROUP_ROWS)
        with pq.ParquetWriter(data, batches.schema, compression=COMPRESSION) as writer:
            for batch in batches:
                writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)
    checksum = hashlib.sha256()
    with data.open("rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            checksum.update(piece)
    manifest = {
        "day": str(day),
        "rows": decisions,
        "min_ts": f"{day}T00:00:00+00:00",
        "max_ts": f"{day}T23:59:59+00:00",
        "file": data.name,
        "bytes": data.stat().st_size,
        "sha256": checksum.hexdigest(),
        "problems": {},
        "organisations": {ORGANISATION: decisions},
        "made_by": __version__,
        "schema_version": SCHEMA_VERSION,
    }
    (partition / MANIFEST).write_text(json.dumps(manifest))
    return data


def write_lines(path: Path, decisions: int) -> None:
    """Write the day as the service writes it, without candidates_pre.

    Args:
        path: NDJSON.
        decisions: how many.
    """
    with _drawing(decisions, DAY) as connection:
        # Text as it is: no value has the delimiter.
        options = "FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x01'"
        connection.execute(f"COPY ({_LINES}) TO '{path}' ({options})")


def main() -> None:
    """Write what the command line says."""
    kind, decisions, place = sys.argv[1:]
    if kind == "ndjson":
        write_lines(Path(place), int(decisions))
        return
    for before in range(HISTORY_DAYS + 1 if kind == "history" else 1):
        write_snapshot(Path(place), int(decisions), DAY - timedelta(days=before))


if __name__ == "__main__":
    main()
