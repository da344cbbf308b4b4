"""Starts the Collector and Prometheus as `make tools` built them, on free ports of loopback."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx
import yaml

REPOSITORY: Final = Path(__file__).parents[2]
TOOLS: Final = REPOSITORY / ".tools" / "bin"
MONITORING: Final = REPOSITORY / "monitoring"
GATEWAY: Final = MONITORING / "collector" / "gateway.yaml"
FEATURE_GATES: Final = (
    "metricsgeneration.MatchAttributes",
    "exporter.prometheusremotewritexporter.RetryOn429",
)
PROMETHEUS_FEATURES: Final = (
    "created-timestamp-zero-ingestion",
    "promql-extended-range-selectors",
)
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0


def free_port() -> int:
    """A port that this process has not been given before, and that nobody listens at.

    It is below those that the kernel gives to clients, one of which could be there first.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        if port in _GIVEN:
            continue
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        _GIVEN.add(port)
        return port


_GIVEN: Final[set[int]] = set()


class Server:
    """A process that is ready once a URL answers. As a context manager it runs within the block.

    Args:
        command: the program and its arguments.
        ready: the URL.
        log: where its output goes, appended.
        variables: of its environment, on top.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        ready: str,
        log: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self._ready = ready
        self._variables = dict(variables or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            FileNotFoundError: `make tools` has not built it yet.
            RuntimeError: it ended, or did not answer in time.
        """
        if not Path(self.command[0]).exists():
            raise FileNotFoundError(f"{self.command[0]} is not there: run `make tools` first")
        with self.log.open("ab") as stream:
            # In a session of its own: Ctrl-C on a terminal is for who started it, who ends it.
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | self._variables,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        try:
            until = time.monotonic() + START_SECONDS
            while time.monotonic() < until and self.process.poll() is None:
                if _answers(self._ready):
                    return
                time.sleep(0.05)
        except KeyboardInterrupt:
            self.stop(signal.SIGKILL)
            raise
        said = self.log.read_text(errors="replace")[-3000:]
        self.stop(signal.SIGKILL)
        raise RuntimeError(f"{Path(self.command[0]).name} did not start:\n{said}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal, and return the seconds until it has ended; it is killed if it hangs."""
        if self.process is None:
            return 0.0
        began = time.monotonic()
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None
        return time.monotonic() - began

    def check(self) -> None:
        """Look whether it still runs.

        Raises:
            RuntimeError: it has ended by itself.
        """
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{Path(self.command[0]).name} has ended; {self.log} says why")

    def cpu_seconds(self) -> float:
        """CPU that it has used, to the nanosecond: see clock_getcpuclockid(3)."""
        assert self.process is not None
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def memory_mib(self, which: str = "VmRSS") -> float:
        """Its resident memory; at its peak, with ``VmHWM``."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{which}:")[2].split()[0]) / 1024

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).is_success
    except httpx.HTTPError:
        return False


@dataclass
class Ports:
    """Where the doors of a gateway are; they stay the same when it is started again."""

    grpc: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)
    health: int = field(default_factory=free_port)
    telemetry: int = field(default_factory=free_port)
    scrape: int = field(default_factory=free_port)


class Collector(Server):
    """A Collector with one or more configurations, merged as it merges them.

    Args:
        folder: for its queue and its log.
        prometheus: base URL of a Prometheus, or of whatever takes OTLP metrics as one.
        ports: else free ones.
        configurations: else the gateway's; files, or whatever ``--config`` takes.
        feature_gates: else those that the gateway needs.
        variables: of its environment, on top.
    """

    def __init__(
        self,
        folder: Path,
        prometheus: str = "",
        *,
        ports: Ports | None = None,
        configurations: Sequence[Path | str] = (GATEWAY,),
        feature_gates: Sequence[str] = FEATURE_GATES,
        **variables: str,
    ) -> None:
        self.ports = ports = ports or Ports()
        folder.mkdir(parents=True, exist_ok=True)
        gates = [f"--feature-gates={','.join(feature_gates)}"] if feature_gates else []
        super().__init__(
            [
                TOOLS / "otelcol-recsys",
                *(f"--config={path}" for path in configurations),
                *gates,
            ],
            f"http://127.0.0.1:{ports.health}",
            folder / "collector.log",
            {
                "RECSYS_QUEUE_DIRECTORY": str(folder / "queue"),
                "RECSYS_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{ports.grpc}",
                "RECSYS_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{ports.http}",
                "RECSYS_HEALTH_ENDPOINT": f"127.0.0.1:{ports.health}",
                "RECSYS_TELEMETRY_PORT": str(ports.telemetry),
                "RECSYS_SCRAPE_ENDPOINT": f"127.0.0.1:{ports.scrape}",
                "RECSYS_PROMETHEUS_OTLP_ENDPOINT": f"{prometheus}/api/v1/otlp/v1/metrics",
                "RECSYS_REMOTE_WRITE_ENDPOINT": f"{prometheus}/api/v1/write",
                **variables,
            },
        )

    @property
    def endpoint(self) -> str:
        """Base URL for OTLP over HTTP."""
        return f"http://127.0.0.1:{self.ports.http}"

    @property
    def telemetry(self) -> str:
        """URL of what it tells of itself, as Prometheus scrapes it."""
        return f"http://127.0.0.1:{self.ports.telemetry}/metrics"

    def told(self) -> str:
        """What it tells of itself, in Prometheus's text format."""
        return httpx.get(self.telemetry, trust_env=False).raise_for_status().text

    @property
    def scrape(self) -> str:
        """URL of its scrape endpoint, where one is exported to."""
        return f"http://127.0.0.1:{self.ports.scrape}/metrics"


class Prometheus(Server):
    """A Prometheus with the configuration of ``monitoring/prometheus``, but for the ports.

    Args:
        folder: for its data, its configuration and its log.
        ports: of the gateway that it scrapes, if any.
        logs: of the log Collector that it scrapes, if any.
        port: of its own; else a free one.
        features: else those that the configuration asks for.
        scrape_interval: in PromQL's notation.
        rules: a folder of rules; else those of ``monitoring/prometheus``.
        alertmanager: host and port of the one that it tells of alerts; none, if None.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports | None = None,
        *,
        logs: Ports | None = None,
        port: int | None = None,
        features: Sequence[str] = PROMETHEUS_FEATURES,
        scrape_interval: str = "5s",
        rules: Path | None = None,
        alertmanager: str | None = None,
    ) -> None:
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        folder.mkdir(parents=True, exist_ok=True)
        configuration = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
        configuration["global"]["scrape_interval"] = scrape_interval
        # Relative to the file, and this one stands elsewhere.
        configuration["rule_files"] = [
            str((rules or MONITORING / "prometheus" / "rules") / Path(files).name)
            for files in configuration["rule_files"]
        ]
        if alertmanager:
            (told,) = configuration["alerting"]["alertmanagers"]
            told["static_configs"] = [{"targets": [alertmanager]}]
        else:
            del configuration["alerting"]
        targets: dict[str, int] = {}
        if ports:
            targets |= {"personalization-gateway": ports.telemetry, "personalization": ports.scrape}
        if logs:
            targets |= {"personalization-log-collector": logs.telemetry}
        opted = yaml.safe_load((MONITORING / "prometheus" / "scrape-gateway.yml").read_text())
        configuration["scrape_configs"] = [
            job | {"static_configs": [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]}
            for job in (*configuration["scrape_configs"], *opted["scrape_configs"])
            if job["job_name"] in targets
        ]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        super().__init__(
            [
                TOOLS / "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.enable-otlp-receiver",
                "--web.enable-remote-write-receiver",
                *(f"--enable-feature={name}" for name in features),
            ],
            f"{self.url}/-/ready",
            folder / "prometheus.log",
        )

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """What an instant query gives: a list of ``metric`` with ``value``, or with ``values``.

        Raises:
            RuntimeError: Prometheus refused it.
        """
        parameters = {"query": promql} | ({} if at is None else {"time": str(at)})
        answer = httpx.post(
            f"{self.url}/api/v1/query", data=parameters, trust_env=False, timeout=30
        ).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{promql}: {answer['error']}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, promql: str, at: float | None = None) -> float | None:
        """The one value that a query gives; None, if it gives nothing."""
        result = self.query(promql, at)
        if not result:
            return None
        (one,) = result
        return float(one["value"][1])

    def by(
        self, promql: str, *labels: str, at: float | None = None
    ) -> dict[tuple[str, ...], float]:
        """The values that a query gives, by labels, which must tell them apart."""
        found: dict[tuple[str, ...], float] = {}
        for one in self.query(promql, at):
            key = tuple(one["metric"].get(label, "") for label in labels)
            if key in found:
                raise RuntimeError(f"{promql}: more than one value of {key}")
            found[key] = float(one["value"][1])
        return found
