"""Memory stays flat, however long a service runs."""

from __future__ import annotations

from tests.conftest import run_program


def test_a_million_decisions_with_logs_leave_memory_flat(tmp_path):
    """Of a thousand surfaces and forty sources, which are more than are told apart."""
    done = run_program("million", str(tmp_path / "decisions.ndjson"), timeout=600)
    assert (done["lines"], done["dropped"]) == (1_000_000, 0)
    after_the_second_tenth, *_, last = done["sizes"][1:]
    assert last - after_the_second_tenth < 2048  # KiB; a leak of 3 bytes a decision would show
