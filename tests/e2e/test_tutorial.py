"""docs/tutorial.md, done by somebody who has nothing: every command, in an empty folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sysconfig
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
import pytest

from examples.stack.servers import REPOSITORY, Ports, free_port
from tests.grafana import Picked, query

TUTORIAL = (REPOSITORY / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(bash|python|text)\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE)
SECONDS = 180
MARK = "--- block"
AFTER_VENV = f"""\
echo {sysconfig.get_path("purelib")} >"$(echo .venv/lib/python3*/site-packages)/here.pth"
"""
"""What the machine has already is not fetched again: pip finds that it is there."""


def script(prometheus: int) -> str:
    """The page as one script, which says before each block of commands which one it is."""
    parts = []
    for number, (language, text) in enumerate(BLOCKS):
        if language == "python":
            name = text.partition("\n")[0].removeprefix("# ")
            parts.append(f"cat >{name} <<'THE END'\n{text}THE END\n")
        elif language == "bash":
            commands = text.replace(":9090", f":{prometheus}")
            # The one thing that is done otherwise than a reader does it.
            commands = commands.replace("-m venv .venv\n", f"-m venv .venv\n{AFTER_VENV}")
            parts.append(f"echo '{MARK} {number}'\n{commands}")
    return "".join(parts)


def shown(number: int) -> str:
    """What the page shows below a block of commands; nothing, if it shows nothing."""
    following = BLOCKS[number + 1 : number + 2]
    return following[0][1] if following and following[0][0] == "text" else ""


def pattern(text: str) -> str:
    """A shown text as a pattern, in which `…` is whatever is on a line there."""
    return "[^\n]*".join(map(re.escape, text.split("…")))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of somebody who has nothing."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def printed(home: Path) -> dict[int, str]:
    """What each block of commands printed, until one failed."""
    ports, prometheus = Ports(), free_port()
    environment = {name: value for name, value in os.environ.items() if name[:5] != "OTEL_"}
    environment |= {
        "HOME": str(home),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "NO_PROXY": "localhost,127.0.0.1",
        "RECSYS_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{ports.grpc}",
        "RECSYS_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{ports.http}",
        "RECSYS_HEALTH_ENDPOINT": f"127.0.0.1:{ports.health}",
        "RECSYS_TELEMETRY_PORT": str(ports.telemetry),
        "RECSYS_PROMETHEUS_OTLP_ENDPOINT": f"http://127.0.0.1:{prometheus}/api/v1/otlp/v1/metrics",
    }
    text = script(prometheus)
    text = text.replace(":4318", f":{ports.http}").replace(":13133", f":{ports.health}")
    said = home / "said.txt"
    with said.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            print(said.read_text(errors="replace")[-4000:])
    assert process.returncode == 0
    pieces = re.split(rf"^{MARK} (\d+)\n", said.read_text(), flags=re.MULTILINE)
    return dict(zip(map(int, pieces[1::2]), pieces[2::2], strict=True))


def test_every_command_of_the_tutorial_runs(printed: dict[int, str]) -> None:
    commands = [n for n, (language, _) in enumerate(BLOCKS) if language == "bash"]
    assert list(printed) == commands
    assert len(commands) > 8


@pytest.mark.parametrize("number", [n for n, (kind, _) in enumerate(BLOCKS) if kind == "bash"])
def test_what_the_tutorial_shows_is_what_is_printed(number: int, printed: dict[int, str]) -> None:
    assert re.fullmatch(pattern(shown(number)), printed[number]), printed[number]


def of_the_dashboard(panel: str, home: Path) -> list[dict[str, Any]]:
    """What a panel would show of the tables that the tutorial made."""
    picked = Picked(end=datetime(2026, 11, 22, tzinfo=timezone.utc).timestamp())
    sql = picked.expanded(query(panel).text, "sql")
    with closing(
        duckdb.connect(str(home / "personalization" / "personalization.duckdb"), read_only=True)
    ) as tables:
        rows = tables.execute(sql)
        names = [column[0] for column in rows.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def lines(*rows: tuple[Any, ...]) -> str:
    """As the tutorial's program prints them."""
    return "".join(
        " ".join(str(round(value, 3) if isinstance(value, float) else value) for value in row)
        + "\n"
        for row in rows
    )


def test_the_numbers_of_the_tutorial_are_those_of_the_dashboard(
    home: Path, printed: dict[int, str]
) -> None:
    shown = ("surface", "cohort", "users", "mean", "mean_lower", "mean_upper", "p95")
    overlap = lines(
        *(
            tuple(row[name] for name in shown)
            for row in of_the_dashboard("Top-K overlap by cohort and device", home)
            if row["device"] == "all"
        )
    )
    bars = {
        row["surface"]: (row["brand"], row["category"])
        for row in of_the_dashboard("Entropy of brands and categories", home)
    }
    rest = {
        (row["surface"], row["of"]): (row["effective number"], row["known share"])
        for row in of_the_dashboard("What the entropies rest on", home)
    }
    entropy = lines(
        *(
            (surface, brand, *rest[surface, "brand"], category, *rest[surface, "category"])
            for surface in ("cart", "home")
            for brand, category in [bars[f"shop/{surface}"]]
        )
    )
    assert overlap in printed.values()
    assert entropy in printed.values()
