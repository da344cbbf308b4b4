"""The doctor follows decisions through the real Collector into the real Prometheus."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from contextlib import contextmanager

import pytest
import yaml

from examples.stack.servers import (
    GATEWAY,
    PROMETHEUS_FEATURES,
    Collector,
    Ports,
    Prometheus,
    Server,
    free_port,
)
from tests.e2e.servers import SCRIPTS, wait_for
from tests.otlp_receiver import receiving

NAMESPACE = "otel_personalization_doctor"
OTLP, REMOTE_WRITE, SCRAPE = "otlp_http/prometheus", "prometheus_remote_write", "prometheus"
START_TIMES = "created-timestamp-zero-ingestion"
NO_START_TIMES = [name for name in PROMETHEUS_FEATURES if name != START_TIMES]
RATES = "personalized_impression_rate, reason_coverage_rate, requested_reason_coverage_rate"
RIGHT = f"the views are right: {RATES} and recsys_window_served_items, of 2 surfaces"
LONG = "30"
"""To wait for what comes."""
SHORT = "3"
"""To wait in vain; a window of the views is 1 s."""
BCRYPT = "$2b$04$abcdefghijklmnopqrstuuPJU4nJSU7eHaeZfD8NWkUH4lHdnEOyG"


def doctor(*arguments, **variables):
    """Its exit code and its findings, each with what to do."""
    environment = {key: value for key, value in os.environ.items() if "OTEL_" not in key}
    done = subprocess.run(
        [SCRIPTS / "otel-personalization", "doctor", *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    print(done.stdout)
    assert done.stderr == ""
    return done.returncode, done.stdout.replace("\n         -> ", " -> ").splitlines()


def problems(findings):
    return [finding for finding in findings if finding.startswith("problem")]


def scraping(folder, ports, **arguments):
    """A Prometheus that scrapes the gateway as soon as it has started."""
    prometheus = Prometheus(folder / "prometheus", ports, scrape_interval="1s", **arguments)
    prometheus.command.append("--scrape.discovery-reload-interval=100ms")
    return prometheus


@contextmanager
def stack(folder, exporter=OTLP, *, honor_labels=True, features=PROMETHEUS_FEATURES, **collector):
    """A Collector and a Prometheus, which scrapes it if it has to."""
    ports = Ports()
    prometheus = scraping(folder, ports if exporter == SCRAPE else None, features=features)
    if not honor_labels:
        configured = folder / "prometheus" / "prometheus.yml"
        configuration = yaml.safe_load(configured.read_text())
        del configuration["scrape_configs"][-1]["honor_labels"]
        configured.write_text(yaml.safe_dump(configuration))
    variables = {"RECSYS_VIEW_INTERVAL": "1s", "RECSYS_EXPORTERS": f"[{exporter}]"} | collector
    with prometheus, Collector(folder, prometheus.url, ports=ports, **variables) as gateway:
        yield gateway, prometheus


def changed(folder, change):
    """The gateway's configuration, changed."""
    configuration = yaml.safe_load(GATEWAY.read_text())
    change(configuration)
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return (path,)


@pytest.mark.parametrize("exporter", [OTLP, REMOTE_WRITE, SCRAPE])
def test_a_path_that_is_right_has_no_problem(exporter, tmp_path):
    with stack(tmp_path, exporter) as (gateway, prometheus):
        code, findings = doctor(
            "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", LONG
        )
        assert problems(findings) == []
        assert code == 0
        for said in (
            f"OTLP endpoint {gateway.endpoint} (--collector): it can be reached",
            f"4 decisions of namespace {NAMESPACE} were sent and accepted",
            f"Prometheus {prometheus.url} takes start times",
            RIGHT,
        ):
            assert f"fine     {said}" in findings
        (run,) = (finding for finding in findings if "has the raw counters" in finding)
        (selector,) = re.findall(r"{.*}", run)
        found = prometheus.by(f"recsys_served_items_total{selector}", "recsys_namespace", "surface")
        assert found == {(NAMESPACE, "doctor-a"): 4, (NAMESPACE, "doctor-b"): 10}


def test_it_speaks_grpc_too(tmp_path):
    with stack(tmp_path) as (gateway, prometheus):
        code, findings = doctor(
            "--collector",
            f"http://127.0.0.1:{gateway.ports.grpc}",
            "--prometheus",
            prometheus.url,
            "--wait",
            LONG,
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        )
        assert (code, problems(findings)) == (0, [])
        assert f"fine     {RIGHT}" in findings


def test_runs_at_the_same_time_do_not_disturb_each_other(tmp_path):
    with stack(tmp_path) as (gateway, prometheus):
        ended = []
        runs = [
            threading.Thread(
                target=lambda: ended.append(
                    doctor(
                        "--collector",
                        gateway.endpoint,
                        "--prometheus",
                        prometheus.url,
                        "--wait",
                        LONG,
                        "--send",
                        OTEL_PERSONALIZATION_LOG="none",
                    )
                )
            )
            for _ in range(3)
        ]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        assert [(code, problems(findings)) for code, findings in ended] == [(0, [])] * 3


def test_a_missing_feature_gate_is_found_and_what_it_left_is_not_taken_for_later_runs(tmp_path):
    with Prometheus(tmp_path / "prometheus") as prometheus:

        def examined(**collector):
            with Collector(
                tmp_path, prometheus.url, **{"RECSYS_VIEW_INTERVAL": "1s"} | collector
            ) as gateway:
                return doctor(
                    "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", SHORT
                )

        code, findings = examined(feature_gates=())
        assert code == 1
        (problem,) = problems(findings)
        assert "the views are wrong: " in problem
        assert "--feature-gates=metricsgeneration.MatchAttributes" in problem
        assert any("has the raw counters" in finding for finding in findings)

        code, findings = examined()
        assert (code, problems(findings)) == (0, [])

        nowhere = f"http://127.0.0.1:{free_port()}/"
        code, findings = examined(RECSYS_PROMETHEUS_OTLP_ENDPOINT=nowhere)
        assert code == 1
        (problem,) = problems(findings)
        assert "did not arrive in Prometheus in time" in problem


@pytest.mark.parametrize("exporter", [OTLP, SCRAPE])
def test_a_missing_start_time_flag_is_found_and_named(exporter, tmp_path):
    with stack(tmp_path, exporter, features=NO_START_TIMES) as (gateway, prometheus):
        code, findings = doctor(
            "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", LONG
        )
    assert code == 1
    problem = problems(findings)[0]
    assert "takes no start times" in problem
    assert f"start it with --enable-feature={START_TIMES}" in problem
    assert f"fine     {RIGHT}" in findings


def test_counters_that_begin_above_0_are_found(tmp_path):
    """As they do where a scrape comes after the first points, and start times are not taken."""

    def without_the_first_points(configuration):
        configuration["processors"]["filter/zeros"] = {
            "metric_conditions": ["datapoint.value_int == 0"]
        }
        configuration["service"]["pipelines"]["metrics/raw"]["processors"].append("filter/zeros")

    with stack(
        tmp_path,
        features=NO_START_TIMES,
        configurations=changed(tmp_path, without_the_first_points),
    ) as (gateway, prometheus):
        code, findings = doctor(
            "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", LONG
        )
    assert code == 1
    _, problem = problems(findings)
    assert "they begin above 0: increase() misses what was counted before" in problem


def test_labels_that_a_scrape_renamed_are_found(tmp_path):
    with stack(tmp_path, SCRAPE, honor_labels=False) as (gateway, prometheus):
        code, findings = doctor(
            "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", LONG
        )
    assert code == 1
    (problem,) = problems(findings)
    assert "they have the labels exported_instance, exported_job" in problem
    assert "honor_labels: true" in problem
    assert f"fine     {RIGHT}" in findings


def test_a_collector_that_is_down_is_where_it_ends(tmp_path):
    endpoint = f"http://127.0.0.1:{free_port()}"
    with Prometheus(tmp_path / "prometheus") as prometheus:
        code, findings = doctor("--collector", endpoint, "--prometheus", prometheus.url)
    assert code == 1
    unreachable, refused = problems(findings)
    assert f"OTLP endpoint {endpoint} (--collector): it cannot be reached" in unreachable
    assert "4 decisions were sent and not accepted" in refused
    assert f"fine     Prometheus {prometheus.url} takes start times" in findings


def test_a_prometheus_that_is_down_is_told_from_a_collector_that_is_up(tmp_path):
    nowhere = f"http://127.0.0.1:{free_port()}"
    with Collector(tmp_path, nowhere) as gateway:
        code, findings = doctor("--collector", gateway.endpoint, "--prometheus", nowhere)
    assert code == 1
    assert f"fine     4 decisions of namespace {NAMESPACE} were sent and accepted" in findings
    (problem,) = problems(findings)
    assert f"Prometheus {nowhere} cannot be reached" in problem


def test_a_gateway_without_the_views_is_found(tmp_path):
    def without_views(configuration):
        del configuration["service"]["pipelines"]["metrics/views"]

    with stack(tmp_path, configurations=changed(tmp_path, without_views)) as (gateway, prometheus):
        code, findings = doctor(
            "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", SHORT
        )
    assert code == 1
    (problem,) = problems(findings)
    assert "there are no views" in problem
    assert "metrics/views" in problem


def test_a_window_that_is_longer_than_the_wait_is_told_from_no_views(tmp_path):
    with stack(tmp_path, RECSYS_VIEW_INTERVAL="3s") as (gateway, prometheus):
        arguments = ("--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait")
        assert doctor(*arguments, LONG)[0] == 0
        code, findings = doctor(*arguments, "1")
    assert code == 1
    (problem,) = problems(findings)
    assert "those of others did" in problem
    assert "--wait SECONDS" in problem


def test_counters_that_a_pipeline_drops_are_named(tmp_path):
    def dropping(configuration):
        configuration["processors"]["filter/lost"] = {
            "metric_conditions": ['metric.name == "recsys.personalized_items"']
        }
        configuration["service"]["pipelines"]["metrics/raw"]["processors"].append("filter/lost")

    with stack(tmp_path, configurations=changed(tmp_path, dropping)) as (gateway, prometheus):
        code, findings = doctor(
            "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", SHORT
        )
    assert code == 1
    lost = "recsys_personalized_items_total of surface doctor-a is absent, and 3 were sent"
    assert f"raw counters are not what was sent: {lost}" in problems(findings)[0]


def test_what_waits_in_the_queue_of_an_exporter_to_nowhere_is_seen(tmp_path):
    """Prometheus scrapes what the Collector tells of itself."""
    ports = Ports()
    nowhere = f"http://127.0.0.1:{free_port()}"
    with (
        scraping(tmp_path, ports) as prometheus,
        Collector(tmp_path, nowhere, ports=ports) as gateway,
    ):
        own = "otelcol_process_uptime"
        wait_for(lambda: prometheus.query(own), "the first scrape of the Collector's telemetry")
        code, findings = doctor(
            "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", SHORT
        )
    assert code == 1
    lost, stuck = problems(findings)
    assert "did not arrive in Prometheus in time" in lost
    assert f"requests wait in the queue of {OTLP} of the Collector at" in stuck
    assert "RECSYS_PROMETHEUS_OTLP_ENDPOINT" in stuck


def test_a_prometheus_that_lets_no_points_in_is_found(tmp_path):
    """The Collector gives up what is answered by 404."""
    ports = Ports()
    prometheus = scraping(tmp_path, ports)
    prometheus.command = [part for part in prometheus.command if "receiver" not in part]
    with prometheus, Collector(tmp_path, prometheus.url, ports=ports) as gateway:
        code, findings = doctor(
            "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", SHORT
        )
    assert code == 1
    lost, given_up = problems(findings)
    assert "did not arrive in Prometheus in time" in lost
    assert f"points were given up by {OTLP} of the Collector at" in given_up
    notes = [finding for finding in findings if "Prometheus refuses what an exporter" in finding]
    assert [note.split("--")[1] for note in notes] == [
        "web.enable-otlp-receiver",
        "web.enable-remote-write-receiver",
    ]


def test_without_the_collectors_own_telemetry_it_says_what_would_tell(tmp_path):
    nowhere = f"http://127.0.0.1:{free_port()}"
    with (
        Prometheus(tmp_path / "prometheus") as prometheus,
        Collector(tmp_path, nowhere) as gateway,
    ):
        code, findings = doctor(
            "--collector", gateway.endpoint, "--prometheus", prometheus.url, "--wait", "1"
        )
    assert code == 1
    assert findings[-1].startswith("note     Prometheus knows nothing of the Collector's own")


def test_name_and_password_of_the_url_are_used_and_not_shown(tmp_path):
    (tmp_path / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {"ann": BCRYPT}}))
    bare = Prometheus(tmp_path / "prometheus")
    known = bare.url.replace("//", "//ann:s3%2Fcret@")
    protected = Server(
        [*bare.command, f"--web.config.file={tmp_path / 'web.yml'}"], f"{known}/-/ready", bare.log
    )
    with protected, receiving() as nothing_behind:
        for url, said in (
            (known, "problem  the raw counters of"),
            (known.replace("s3", "s4"), f"problem  Prometheus {bare.url} answers 401 to"),
        ):
            code, findings = doctor(
                "--collector", nothing_behind.endpoint, "--prometheus", url, "--wait", "1"
            )
            assert code == 1
            assert problems(findings)[0].startswith(said)
            assert "cret" not in "".join(findings)
