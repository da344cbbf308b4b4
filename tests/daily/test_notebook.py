"""The analyst's notebook, run on a warehouse that holds made-up days."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import nbformat
import pyarrow as pa
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

from otel_personalization.daily.tables import TABLES
from tests.daily.report_data import DAY, ORG, SHOPS, Days, Surface, history_of, tables_of

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "analytics" / "notebooks" / "personalization_daily.ipynb"

# Of Jupyter's own, and none of ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def warehouse_of(days: Days, folder: Path) -> Path:
    """A warehouse with the tables of these days, as the job's."""
    file = folder / "warehouse.duckdb"
    today, before = tables_of(days).rows, history_of(days)
    with duckdb.connect(file) as warehouse:
        for table in TABLES:
            name = table.qualified_name
            rows = pa.concat_tables([today[name], *([before[name]] if before else [])])
            warehouse.register("arriving", rows)
            warehouse.execute(f"CREATE SCHEMA IF NOT EXISTS {table.schema}")
            warehouse.execute(f"CREATE TABLE {name} AS FROM arriving")
    return file


def executed(**parameters: str) -> Any:
    """The notebook with other parameters, after all of its cells ran."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    # Over a socket in the file system, and no port.
    config = Config({"KernelManager": {"transport": "ipc"}})
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources, config=config
    ).execute()
    return notebook


def refused(**parameters: str) -> str:
    """The error that the notebook ends with; what its traceback shows of the cell is not in it."""
    with pytest.raises(CellExecutionError) as error:
        executed(**parameters)
    return f"{error.value.ename}: {error.value.evalue}"


def shown(notebook: Any) -> str:
    """All that its cells show."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            texts += [output.get("text", ""), *map(str, output.get("data", {}).values())]
    return "\n".join(texts)


def test_it_walks_through_the_last_day_of_the_busiest_namespace(tmp_path):
    notebook = executed(WAREHOUSE=str(warehouse_of(SHOPS, tmp_path)))
    text = shown(notebook)
    assert f"shop_eu on {DAY}" in text
    assert text.count("<svg") == 1 + 1 + 5 + 2 + 1
    assert "since yesterday: " in text
    assert "since the same day last week: " in text
    assert "blend-2026-11" in text
    assert "collaborative" in text


def test_it_walks_through_a_day_that_has_little(tmp_path):
    few = Days({"quiet": [Surface("home", 1, 1.0)]}, history_days=0, reliable=False)
    warehouse = warehouse_of(few, tmp_path)
    text = shown(executed(WAREHOUSE=str(warehouse), DAY=str(DAY), ORG=ORG, NAMESPACE="quiet"))
    assert "since yesterday: no data" in text
    assert "no impression is on record, so there is no CTR" in text


@pytest.mark.parametrize("further", [{}, {"ORG": ORG, "NAMESPACE": "a"}])
def test_a_day_that_is_not_there_is_said(further, tmp_path):
    warehouse = warehouse_of(Days({"a": [Surface("b", 9, 0.5)]}, history_days=0), tmp_path)
    error = refused(WAREHOUSE=str(warehouse), DAY="2020-01-01", **further)
    assert error.startswith("LookupError: the warehouse has no such day")


@pytest.mark.parametrize("wrong", [{"NAMESPACE": "shopeu"}, {"ORG": "0"}, {"ORG": "0", "DAY": ""}])
def test_of_a_mistyped_namespace_or_organisation_it_is_said_which_there_are(wrong, tmp_path):
    warehouse = warehouse_of(replace(SHOPS, history_days=0), tmp_path)
    error = refused(**{"WAREHOUSE": str(warehouse), "DAY": str(DAY)} | wrong)
    assert error.startswith("LookupError: on 2026-11-23 there is nothing of ORG = ")
    for namespace in SHOPS.surfaces:
        assert f"ORG = {ORG!r}, NAMESPACE = {namespace!r}" in error


def test_it_is_committed_without_what_a_run_left():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
