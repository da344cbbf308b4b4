"""What evidently says of users' lists; run by the Python of its own virtual environment.

``python benchmarks/evidently_lists.py LISTS.csv RESULT.json [REFERENCE.csv]``
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Compute, and write down values and seconds."""
    lists, result, *reference = sys.argv[1:]
    began = time.perf_counter()
    import pandas as pd
    from evidently import DataDefinition, Dataset, Recsys, Report
    from evidently.metrics import Personalization, ValueDrift

    imported = time.perf_counter()
    ranking = Recsys(
        user_id="user",
        item_id="item",
        target="target",
        prediction="place",
        recommendations_type="rank",
    )
    definition = DataDefinition(ranking=[ranking], categorical_columns=["brand"])
    current, *before = (
        Dataset.from_pandas(pd.read_csv(file), data_definition=definition)
        for file in (lists, *reference)
    )
    metrics = [Personalization(k=10), *([ValueDrift(column="brand")] if before else [])]
    run = Report(metrics).run(current, before[0] if before else None)
    done = time.perf_counter()
    values = {
        metric["metric_name"]: metric["value"] for metric in json.loads(run.json())["metrics"]
    }
    said = {"values": values, "import": imported - began, "report": done - imported}
    Path(result).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
