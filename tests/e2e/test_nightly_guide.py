"""What the guide of the nightly job has one do with PostgreSQL, Kubernetes and the Pushgateway."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_personalization.daily.publish import push_run
from tests.conftest import DATA, read_ndjson
from tests.e2e.postgres import Database, postgres
from tests.e2e.pushgateway import Pushgateway
from tests.test_kubernetes import run_at_night

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "nightly.md").read_text()
DAY = "2026-11-21"
ORG = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """With the sample of recorded traces, as the service stores them."""
    with postgres() as database:
        database.store(read_ndjson(DATA / "traces.ndjson.gz"))
        yield database


def said(language: str) -> list[str]:
    """The blocks of the guide in a language."""
    return [
        "\n".join(line.strip() for line in block.splitlines())
        for block in re.findall(rf"^ *```{language}\n(.*?)^ *```", GUIDE, re.DOTALL | re.MULTILINE)
    ]


def test_with_the_grants_of_the_guide_the_job_of_the_cluster_runs_night_after_night(
    database: Database, tmp_path: Path
) -> None:
    to_read, to_write = said("sql")
    url = database.url().replace("postgres@", "personalization@")
    with Pushgateway(tmp_path) as gateway:
        night = {"DAY": DAY, "WAREHOUSE": url, "PUSHGATEWAY": gateway.url}
        database.run(to_read)
        refused = run_at_night(tmp_path, url, **night)
        assert refused.returncode == 1
        assert "grant the role CREATE on the database" in refused.stderr
        success = [
            value
            for (name, _), value in gateway.series().items()
            if name == "personalization_daily_last_run_success"
        ]
        assert success == [0]

        owner = run_at_night(tmp_path, url, **(night | {"WAREHOUSE": database.url()}))
        assert owner.returncode == 0, owner.stderr
        database.run(to_write)
        database.run("UPDATE analytics.personalization_daily SET decisions = -1")

        again = run_at_night(tmp_path, url, **night)
        assert again.returncode == 0, again.stderr
        total = database.run(
            "SELECT sum(decisions) FROM analytics.personalization_daily "
            f"WHERE day = '{DAY}' AND surface = 'all' AND cohort = 'all' AND device = 'all'"
        )
        assert total == ["36"]
        names = {name for name, _ in gateway.series()}
        assert {"catalog_overlap_users", "personalization_daily_date_seconds"} <= names


def test_an_organisation_is_gone_from_the_pushgateway_after_the_commands_of_the_guide(
    tmp_path: Path,
) -> None:
    commands = [line for line in GUIDE.splitlines() if line.startswith("curl ")]
    assert len(commands) == 2
    with Pushgateway(tmp_path) as gateway:
        source = DATA / "traces.ndjson.gz"
        done = run_at_night(tmp_path, source, DAY=DAY, PUSHGATEWAY=gateway.url)
        assert done.returncode == 0, done.stderr
        push_run(gateway.url, success=True, org_id=ORG)
        assert gateway.series()
        for command in commands:
            subprocess.run(
                command.replace("http://localhost:9091", gateway.url).replace("/ID", f"/{ORG}"),
                shell=True,
                env=os.environ | {"NO_PROXY": "127.0.0.1"},
                capture_output=True,
                check=True,
            )
        assert gateway.series() == {}
