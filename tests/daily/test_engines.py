"""What an engine says when it cannot go on."""

from __future__ import annotations

import pytest

from otel_personalization.daily import engines
from otel_personalization.daily.engines import DuckDB, EngineError
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
