"""What an engine says when it cannot go on, and how it spells what is spelled in two ways."""

from __future__ import annotations

from hashlib import md5

import duckdb
import pytest

from otel_personalization.daily import engines
from otel_personalization.daily.engines import DuckDB, EngineError
from tests.daily import hostile
from tests.daily.comparison import snapshots
from tests.daily.test_job import SAMPLE, lines_of


def test_too_little_memory_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    manifests = snapshots(lines_of(SAMPLE), tmp_path)
    monkeypatch.setattr(engines, "MEMORY_LIMIT", "1MB")
    with (
        pytest.raises(EngineError, match=r"(?s)DuckDB could not go on.*more room"),
        DuckDB(list(manifests.values()), "00000000-0000-0000-0000-000000000001") as engine,
    ):
        engine.make("repeated", window_start="2026-11-19", day="2026-11-23")


def test_decisions_whose_ids_share_a_hash_are_no_repeated_deliveries(tmp_path, monkeypatch):
    manifests = snapshots(hostile.corpus(1), tmp_path)
    first, last = hostile.CORPUS_DAYS[0], hostile.CORPUS_DAYS[-1]

    def repeated() -> list[dict[str, object]]:
        with DuckDB(list(manifests.values()), hostile.ORG) as engine:
            engine.make("repeated", window_start=first, day=last)
            rows = engine.fetch("repeated").to_pylist()
        return sorted(rows, key=lambda row: (row["day"], row["ordinal"]))

    expected = repeated()
    assert len(expected) > 10
    monkeypatch.setattr(DuckDB, "words", {**DuckDB.words, "hash": "0 * hash"})
    assert repeated() == expected


def test_a_user_is_the_first_thirty_digits_of_a_digest():
    texts = [f"personalization:{user}" for user in range(2000)]
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE texts AS SELECT unnest(?) AS text", [texts])
        found = connection.sql(
            "SELECT text, {digits_1_to_15}, {digits_16_to_30} "
            "FROM (SELECT text, {digest}(text) AS digest FROM texts)".format_map(DuckDB.words)
        ).fetchall()
    digests = {text: md5(text.encode()).hexdigest() for text in texts}
    assert sorted(found) == sorted(
        (text, int(digest[:15], 16), int(digest[15:30], 16)) for text, digest in digests.items()
    )
