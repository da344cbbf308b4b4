"""The gateway's configuration as docs/guide/kubernetes.md makes it, before the real Collector."""

from __future__ import annotations

import subprocess

import yaml

from examples.stack.servers import FEATURE_GATES, TOOLS
from tests.test_kubernetes import made


def test_the_collector_takes_the_configuration_that_is_made_for_the_operator(tmp_path):
    file = tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump(made("gateway")))
    done = subprocess.run(
        [
            TOOLS / "otelcol-recsys",
            "validate",
            f"--config={file}",
            f"--feature-gates={','.join(FEATURE_GATES)}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
