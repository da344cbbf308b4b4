"""A real Pushgateway on loopback."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import httpx

from examples.stack.servers import Server, free_port


def program() -> str:
    """The Pushgateway's.

    Raises:
        FileNotFoundError: there is none.
    """
    for name in ("prometheus-pushgateway", "pushgateway"):
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(
        "these tests need a Pushgateway on the PATH, as prometheus-pushgateway or pushgateway: "
        "apt-get install prometheus-pushgateway"
    )


class Pushgateway(Server):
    """One that keeps nothing on the disk.

    Args:
        folder: for its log.
        port: else a free one.
        prefix: of its paths, as behind a proxy.
    """

    def __init__(self, folder: Path, port: int | None = None, prefix: str = "") -> None:
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}{prefix}"
        super().__init__(
            [
                program(),
                f"--web.listen-address=127.0.0.1:{port}",
                "--persistence.file=",  # which Debian's has unless it is told
                *([f"--web.route-prefix={prefix}"] if prefix else []),
            ],
            f"{self.url}/-/ready",
            folder / "pushgateway.log",
        )

    def series(self, but: str = "push_") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """What a scrape gives of what was pushed: name and sorted labels -> value.

        Args:
            but: what the names of others begin with: those that the Pushgateway itself adds.
        """
        text = httpx.get(f"{self.url}/metrics", trust_env=False).raise_for_status().text
        found = {}
        for line in text.split("\n"):
            # Of a group, and only of such, there is a label job.
            if (match := re.fullmatch(r"(\w+)\{(.*\bjob=\".*)\} (\S+)", line)) and not match[
                1
            ].startswith(but):
                labels = re.findall(r'(\w+)="((?:\\.|[^"\\])*)"', match[2])
                plain = tuple(
                    sorted(
                        (name, _unescaped(value)) for name, value in labels if name != "instance"
                    )
                )
                found[match[1], plain] = float(match[3])
        return found


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], value)
