"""The demo shows what it says, and ends by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_the_demo_shows_table_stamp_and_counters(truth):
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / "demo.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    home = [
        row for row in truth["cells"] if (row["namespace"], row["surface"]) == ("shop_eu", "home")
    ]
    for line in (
        *(
            f'recsys_{name}_total{{recsys_namespace="shop_eu", surface="home"}} {total}\n'
            for name in ("decisions", "served_items", "personalized_items", "reason_items")
            for total in (sum(row[name] for row in home),)
        ),
        'recsys_cold_start_impressions_total{recsys_namespace="planted", surface="odd"} 1',
        'recsys_personalized_items_total{recsys_namespace="planted", surface="odd"} 2',
        'recsys_reason_items_total{recsys_namespace="planted", surface="odd"} 1',
        'otel_personalization_malformed_traces_total{reason="item_not_an_object"} 1',
        '    "personalized_items_count": ',
    ):
        assert line in done.stdout
    assert done.stderr.count("could not be counted") == 1
