"""What is released: built from a checkout, installed where nothing else is, used from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.stack.servers import REPOSITORY
from tests.conftest import DATA
from tests.otlp_receiver import receiving

DAY = "2026-11-21"
CONSUMER = Path(__file__).with_name("consumer.py")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel that is built from it and not from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def tracked(*folders: str) -> set[str]:
    done = subprocess.run(
        ["git", "ls-files", "-z", "--", *folders],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    return {name for name in done.stdout.split("\0") if (REPOSITORY / name).is_file()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names >= tracked("otel_personalization")
    assert {name.split("/")[0] for name in names} == {"otel_personalization"}
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_source_distribution_holds_what_the_tests_need(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    left_out = {".ci/run", ".gitignore"}
    assert names >= tracked() - left_out


def test_twine_accepts_the_wheel_and_the_sdist(built: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Callable[[str], Run]:
    """Make an environment that has the wheel with an extra, and nothing else."""

    def made(extra: str) -> Run:
        environment = tmp_path_factory.mktemp(extra or "base")
        venv.create(environment)
        python = environment / "bin" / "python"
        what = f"{wheel}[{extra}]" if extra else str(wheel)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        subprocess.run([*pip, "--no-compile", what], check=True, timeout=600)

        def run(*command: str | Path, **variables: str) -> str:
            done = subprocess.run(
                list(map(str, command)),
                cwd=environment,
                # As for somebody who has activated it: nothing of the checkout is found.
                env={
                    "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
                    "HOME": str(environment),
                    "OTEL_PERSONALIZATION_LOG": "none",
                    **variables,
                },
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        return run

    return made


SERVICE = """
from otel_personalization import PersonalizationInstrumentor
from otel_personalization.testing import counting

class Tracer:
    def finalize(self):
        return {"surface": "home", "final_items": [{"item_id": "a", "personalized": True}]}

PersonalizationInstrumentor().instrument(target="__main__:Tracer.finalize")
with counting() as counted:
    trace = Tracer().finalize()
print(trace["extras"]["personalized_items_count"], counted.served_items)
"""
COUNTED = """
import duckdb, json, sys
rows = duckdb.connect(sys.argv[1]).execute(
    "SELECT namespace, surface, decisions, personalized_items FROM analytics.personalization_daily "
    "WHERE surface <> 'all' AND cohort = 'all' AND device = 'all'"
)
print(json.dumps(rows.fetchall()))
"""
EXPORTING = "from otel_personalization import pipeline; pipeline.configure('ranking')\n" + SERVICE


def test_the_base_install_counts_and_a_strict_type_checker_takes_its_use(
    install: Callable[[str], Run],
) -> None:
    run = install("")
    assert run("python", "-c", SERVICE) == "1 1\n"
    python = run("python", "-c", "import sys; print(sys.executable)").strip()
    # Of the checkout's configuration nothing is read.
    checked = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-incremental"]
    run(*checked, "--python-executable", python, CONSUMER)
    run("python", CONSUMER)


def test_the_extra_otlp_exports(install: Callable[[str], Run]) -> None:
    with receiving() as received:
        run = install("otlp")
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint}
        assert run("python", "-c", EXPORTING, **variables) == "1 1\n"
        run("opentelemetry-instrument", "--version")
    assert received.total("recsys.served_items") == 1


def test_the_extra_cli_counts_recorded_traces(install: Callable[[str], Run]) -> None:
    run = install("cli")
    truth = json.loads((DATA / "truth.json").read_text())
    counted = json.loads(run("otel-personalization", "replay", "--json", DATA / "traces.ndjson.gz"))
    served = sum(row["served_items"] for row in truth["cells"])
    assert sum(row["served_items"] for row in counted["cells"]) == served


@pytest.mark.parametrize(
    ("extra", "engine"), [("daily", "duckdb"), ("all", "duckdb"), ("spark", "spark")]
)
def test_the_extra_measures_a_day(
    install: Callable[[str], Run], tmp_path: Path, extra: str, engine: str
) -> None:
    run = install(extra)
    command = ["otel-personalization"]
    run(*command, "snapshot", "--from", DATA / "traces.ndjson.gz", "--day", DAY, "--to", tmp_path)
    files = {
        "--traces": tmp_path,
        "--warehouse": tmp_path / "w.duckdb",
        "--report": tmp_path / "report.html",
        "--log": tmp_path / "daily.ndjson",
    }
    options = [part for option in files.items() for part in option]
    run(*command, "daily", "--day", DAY, "--engine", engine, *options)
    counted = json.loads(run("python", "-c", COUNTED, tmp_path / "w.duckdb"))
    truth = json.loads((DATA / "truth.json").read_text())["cells"]
    of_day = [row for row in truth if row["date"] == DAY]
    assert {tuple(row) for row in counted} == {
        (row["namespace"], row["surface"], row["decisions"], row["personalized_items"])
        for row in of_day
    }
    assert (tmp_path / "daily.ndjson").read_text().count("\n") == len(of_day)
    assert "<title>" in (tmp_path / "report.html").read_text()
