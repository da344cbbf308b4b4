"""The doctor says what is wrong with a set-up, and what to do."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from otel_personalization import doctor as doctoring
from otel_personalization.cli import app
from tests.conftest import read_lines
from tests.otlp_receiver import receiving

TRACING = """
import functools
import wrapt

def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

@wrapt.decorator
def counted(wrapped, instance, args, kwargs):
    return wrapped(*args, **kwargs)

class DecisionTracer:
    def finalize(self, decision):
        return decision

    @counted
    @timed
    def wrapped(self):
        return {}

finalizers = 7
"""
ELSEWHERE = """
import os
from otel_personalization import pipeline
pipeline.configure("ranking", endpoint=os.environ["RANKING_ENDPOINT"])
def finalize(): ...
"""
INSTRUMENTED = """
from otel_personalization import PersonalizationInstrumentor, pipeline
pipeline.configure("ranking")
PersonalizationInstrumentor().instrument(target="ranking.tracing:DecisionTracer.finalize")
"""


@pytest.fixture
def backend():
    with receiving() as received:
        yield received


@pytest.fixture
def doctor(tmp_path, backend):
    (tmp_path / "ranking").mkdir()
    (tmp_path / "ranking" / "__init__.py").touch()
    (tmp_path / "ranking" / "tracing.py").write_text(TRACING)
    (tmp_path / "ranking" / "web.py").write_text(TRACING + INSTRUMENTED)
    (tmp_path / "ranking" / "broken.py").write_text("import no_such_module")
    (tmp_path / "ranking" / "elsewhere.py").write_text(ELSEWHERE)
    (tmp_path / "ranking" / "program.py").write_text("raise SystemExit(0)")

    def run(
        *arguments: str,
        zero_code: bool = False,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **variables: str,
    ):
        bin_folder = Path(sys.executable).parent
        environment = {key: value for key, value in os.environ.items() if "OTEL_" not in key}
        environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        }
        done = subprocess.run(
            [
                *([bin_folder / "opentelemetry-instrument"] if zero_code else []),
                bin_folder / "otel-personalization",
                "doctor",
                *arguments,
            ],
            cwd=tmp_path,
            env=environment | variables,
            stdout=stdout,
            stderr=stderr,
            text=True,
            timeout=60,
            check=False,
        )
        if stderr == subprocess.PIPE:
            assert done.stderr == ""
        return done.returncode, done.stdout

    return run


@pytest.fixture
def closed_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


def test_a_set_up_that_is_right_has_no_problem(doctor):
    code, out = doctor("--target", "ranking.tracing:DecisionTracer.finalize")
    assert code == 0
    assert "problem" not in out
    for said in (
        "otel-personalization 0.1.0 on Python 3.",
        "opentelemetry-exporter-otlp-proto-http",
        "settings: target=ranking.tracing:DecisionTracer.finalize",
        "it is there and can be wrapped",
        "no MeterProvider is set up in this process",
        "(OTEL_EXPORTER_OTLP_ENDPOINT): it can be reached",
        "log lines: stdout",
    ):
        assert said in out


@pytest.mark.parametrize("setup", ["none", "pipeline", "zero-code"])
def test_a_decision_that_is_sent_arrives(doctor, backend, setup, tmp_path):
    path = tmp_path / "decisions.ndjson"
    module = "web" if setup == "pipeline" else "tracing"
    code, out = doctor(
        "--send",
        zero_code=setup == "zero-code",
        OTEL_PERSONALIZATION_TARGET=f"ranking.{module}:DecisionTracer.finalize",
        OTEL_PERSONALIZATION_LOG=str(path),
        OTEL_PERSONALIZATION_LOG_SAMPLE="0.000001",
    )
    assert backend.total("recsys.served_items") == 1
    (labels,) = backend.totals()["recsys.served_items"]
    assert dict(labels)["recsys.namespace"] == "otel_personalization_doctor"
    assert code == 0, out
    assert "a decision of namespace otel_personalization_doctor was sent and accepted" in out
    assert f"its log line was written to {path}" in out
    assert [line["namespace"] for line in read_lines(path)] == ["otel_personalization_doctor"]
    says = {
        "none": "no MeterProvider is set up in this process",
        "pipeline": "Pipeline; safe to be made before a fork",
        "zero-code": "exact over forks, unless one hits an export",
    }
    assert says[setup] in out
    assert ("instrumentation is set up in this process" in out) == (setup != "none")


def test_a_target_that_ends_the_process_as_it_is_imported_is_a_problem(doctor):
    code, out = doctor("--target", "ranking.program:finalize")
    assert code == 1
    assert "ranking.program cannot be imported: SystemExit(0)" in out
    assert "it can be reached" in out, "what comes after it is checked as well"


def test_an_endpoint_that_the_code_gives_is_not_to_be_set_in_the_environment(doctor, closed_port):
    code, out = doctor(
        "--target", "ranking.elsewhere:finalize", RANKING_ENDPOINT=f"http://127.0.0.1:{closed_port}"
    )
    assert code == 1
    assert f"OTLP endpoint http://127.0.0.1:{closed_port} (endpoint=): it cannot be reached" in out
    assert "start a Collector there, or name another" in out


def test_an_endpoint_that_is_not_there_is_a_problem(doctor, closed_port):
    endpoint = f"http://127.0.0.1:{closed_port}"
    code, out = doctor("--send", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert code == 1
    assert f"problem  OTLP endpoint {endpoint} (OTEL_EXPORTER_OTLP_ENDPOINT): it cannot be" in out
    assert "-> start a Collector there, or set OTEL_EXPORTER_OTLP_ENDPOINT" in out
    assert "problem  a decision was sent and not accepted" in out
    assert "its log line was written to stdout" in out


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_why_a_decision_was_not_accepted_is_what_the_export_said(doctor, closed_port, protocol):
    """And not what was said of a variable before it, which is a note."""
    code, out = doctor(
        "--send",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{closed_port}",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_METRIC_EXPORT_INTERVAL="abc",
    )
    assert code == 1
    (line,) = (line for line in out.splitlines() if "sent and not accepted: " in line)
    # Older exporters over gRPC have but the status.
    assert "Connection refused" in line or "StatusCode.UNAVAILABLE" in line
    assert out.count("Found invalid value for export interval") == 1
    assert "note     OpenTelemetry says: Found invalid value for export interval" in out


def test_a_variable_that_opentelemetry_passes_over_is_a_note_and_no_problem(doctor, backend):
    """A header, which may hold a key, is not shown with it."""
    code, out = doctor(
        *("--collector", backend.endpoint, "--prometheus", backend.endpoint),
        OTEL_METRIC_EXPORT_INTERVAL="abc",
        OTEL_EXPORTER_OTLP_HEADERS="s3cret",
    )
    assert "note     OpenTelemetry says: Found invalid value for export interval" in out
    assert "note     OpenTelemetry says: Header format invalid!" in out
    assert "s3cret" not in out
    assert "were sent and accepted" in out
    problems = [line for line in out.splitlines() if line.startswith("problem")]
    assert [f"{backend.endpoint} answers 501" in line for line in problems] == [True]
    assert code == 1


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (["--target", "ranking.tracing:DecisionTracer.finalise"], {}, "it has finalize"),
        (["--target", "ranking.tracing:finalizers"], {}, "it is a int, which cannot be called"),
        (["--target", "ranking.tracer:finalize"], {}, "No module named 'ranking.tracer'"),
        (["--target", "ranking.broken:finalize"], {}, "No module named 'no_such_module'"),
        (
            ["--target", "ranking.tracing:DecisionTracer.finalize", "--trace", "argument:trace"],
            {},
            "it has no parameter 'trace'",
        ),
        ([], {"OTEL_PERSONALIZATION_LOG_SAMPLE": "2"}, "OTEL_PERSONALIZATION_LOG_SAMPLE is '2'"),
        ([], {"OTEL_PERSONALIZATION_LOG": "./no/such/folder.log"}, "folder.log cannot be written"),
        ([], {"OTEL_PERSONALIZATION_LOG": "."}, "is a folder"),
        ([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[x"}, "it cannot be reached"),
        (["--send"], {"OTEL_METRICS_EXPORTER": "none"}, "OTEL_METRICS_EXPORTER is 'none'"),
        (["--send"], {"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED is 'true'"),
        (
            ["--send"],
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json'; it can be",
        ),
        (["--send"], {"OTEL_METRICS_EXPORTER": "console"}, "it can be 'otlp' or 'none'"),
        (
            ["--send"],
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_COMPRESSION": "foo"},
            'Invalid value "foo" for compression envvar OTEL_EXPORTER_OTLP_COMPRESSION',
        ),
        (["--send"], {"OTEL_PERSONALIZATION_LOG": "./no/such/folder.log"}, "cannot be opened"),
    ],
)
def test_what_is_wrong_is_a_problem(doctor, arguments, variables, says):
    code, out = doctor(*arguments, **variables)
    assert code == 1
    problems = [line for line in out.splitlines() if line.startswith("problem")]
    assert any(says in line for line in problems), out


def test_that_the_exporter_of_the_protocol_is_not_installed_is_a_problem(doctor, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http'] = None"
    )
    code, out = doctor("--send", PYTHONPATH=str(tmp_path))
    assert code == 1
    assert "no decision could be sent: no exporter for http/protobuf is installed\n" in out
    assert '-> pip install "otel-personalization[otlp]"\n' in out


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_METRICS_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true")]
)
def test_that_the_environment_keeps_counters_back_is_a_note(doctor, variable, value):
    code, out = doctor(**{variable: value})
    assert code == 0, out
    assert f"note     no counter leaves this process: {variable} is '{value}'" in out


def test_a_process_whose_target_is_not_there_is_not_called_instrumented(doctor):
    code, out = doctor(
        zero_code=True,
        stderr=subprocess.STDOUT,
        OTEL_PERSONALIZATION_TARGET="ranking.tracing:DecisionTracer.finalise",
    )
    assert code == 1
    assert "it has finalize" in out
    assert "is instrumented" not in out


def test_it_says_who_has_wrapped_a_target(doctor):
    _, out = doctor("--target", "ranking.tracing:DecisionTracer.wrapped")
    assert "wrapped, from the outside, by ranking.tracing, ranking.tracing\n" in out
    _, out = doctor("--target", "ranking.web:DecisionTracer.wrapped")
    assert "from the outside" in out
    _, out = doctor("--target", "ranking.tracing:DecisionTracer.finalize")
    assert "from the outside" not in out


def test_it_says_that_we_have_wrapped_a_target_already(doctor):
    target = "ranking.tracing:DecisionTracer.finalize"
    for variables in ({}, {"OTEL_PERSONALIZATION_TARGET": target}):
        _, out = doctor("--target", target, zero_code=True, **variables)
        assert ("from the outside, by otel-personalization\n" in out) == bool(variables)


def test_a_lost_log_line_is_a_problem(doctor):
    code, out = doctor("--send", OTEL_PERSONALIZATION_LOG="/dev/full")
    assert code == 1
    assert "problem  its log line could not be written to /dev/full" in out


def test_a_full_disk_under_standard_output_is_said(doctor, tmp_path):
    said = tmp_path / "said"
    with Path("/dev/full").open("w") as full, said.open("w") as stderr:
        code, _ = doctor(stdout=full, stderr=stderr)
    assert code == 1
    assert said.read_text() == (
        "otel-personalization: standard output: No space left on device; make room there, or name "
        "another place, and run it again\n"
    )


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("opentelemetry-sdk", "no OpenTelemetry SDK is installed: counters go nowhere"),
        ("opentelemetry-exporter-otlp-proto", "no OTLP exporter is installed"),
        ("opentelemetry-distro", "opentelemetry-instrument would set up no SDK"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_remedy(missing, says, monkeypatch):
    present = doctoring._version_of
    monkeypatch.setattr(
        doctoring,
        "_version_of",
        lambda package: None if package.startswith(missing) else present(package),
    )
    found = [finding for finding in doctoring.examine({}) if says in finding.what]
    assert len(found) == 1
    assert 'pip install "otel-personalization[otlp]"' in found[0].remedy


def test_an_sdk_of_another_version_than_the_api_is_a_problem(monkeypatch):
    present = doctoring._version_of
    monkeypatch.setattr(
        doctoring,
        "_version_of",
        lambda package: "1.2" if package == "opentelemetry-sdk" else present(package),
    )
    (finding,) = [
        finding for finding in doctoring.examine({}) if "opentelemetry-sdk is 1.2" in finding.what
    ]
    assert finding.level is doctoring.Level.PROBLEM


# --- the live path: what needs no servers; the rest is in tests/e2e/test_doctor_live_path.py ------


def test_decisions_go_to_the_collector_that_is_named_and_to_no_other(doctor, backend, closed_port):
    code, out = doctor(
        "--collector",
        backend.endpoint,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{closed_port}",
    )
    assert code == 0
    assert f"fine     OTLP endpoint {backend.endpoint} (--collector): it can be reached" in out
    assert "4 decisions of namespace otel_personalization_doctor were sent and accepted" in out
    assert '"event"' not in out, "they have no log lines"
    counted = {
        name: {dict(labels)["surface"]: count for labels, count in counts.items()}
        for name, counts in backend.totals().items()
        if name in ("recsys.served_items", "recsys.personalized_items", "recsys.reason_items")
    }
    assert counted == {
        "recsys.served_items": {"doctor-a": 4, "doctor-b": 10},
        "recsys.personalized_items": {"doctor-a": 3, "doctor-b": 1},
        "recsys.reason_items": {"doctor-a": 1, "doctor-b": 4},
    }


def test_each_run_is_told_apart_by_its_instance(doctor, backend):
    for _ in range(2):
        doctor("--collector", backend.endpoint)
    instances = {dict(series.resource)["service.instance.id"] for series in backend.series}
    assert len(instances) == 2
    assert all(instance.startswith("doctor-") for instance in instances)


def test_a_decision_that_is_sent_goes_to_the_collector_that_is_named(doctor, backend, closed_port):
    code, _ = doctor(
        "--send",
        "--collector",
        backend.endpoint,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{closed_port}",
    )
    assert code == 0
    assert backend.total("recsys.served_items") == 1 + 4 + 10


def test_without_a_collector_named_decisions_go_where_the_environment_says(
    doctor, backend, closed_port
):
    code, out = doctor("--prometheus", f"http://127.0.0.1:{closed_port}")
    assert code == 1
    assert f"problem  Prometheus http://127.0.0.1:{closed_port} cannot be reached: " in out
    assert "were sent and accepted" in out
    assert backend.total("recsys.served_items") == 14


def test_settings_of_the_service_do_not_fold_the_decisions(doctor, backend):
    doctor("--collector", backend.endpoint, OTEL_PERSONALIZATION_MAX_LABEL_SETS="1")
    surfaces = {dict(labels)["surface"] for labels in backend.totals()["recsys.served_items"]}
    assert surfaces == {"doctor-a", "doctor-b"}


def test_what_is_no_prometheus_is_a_problem(doctor, backend):
    """It answers, as any server does."""
    code, out = doctor("--collector", backend.endpoint, "--prometheus", backend.endpoint)
    assert code == 1
    problems = [line for line in out.splitlines() if line.startswith("problem")]
    assert len(problems) == 1
    assert f"Prometheus {backend.endpoint} answers 501 to " in problems[0]


@pytest.mark.parametrize(
    "url",
    [
        "ann:s3cret@localhost:9090",
        "localhost:9090",
        "ftp://ann:s3cret@localhost",
        "http://",
        "http://ann:s3cret@[x",
        "http://ann:s3cret@localhost:port",
        "http://ann:s3/cret@localhost",
        "http://ann:s3#cret@localhost",
    ],
)
@pytest.mark.parametrize("option", ["--collector", "--prometheus"])
def test_what_is_no_url_is_refused_and_not_repeated(option, url):
    result = CliRunner().invoke(app, ["doctor", option, url])
    assert result.exit_code == 2
    assert option in result.output
    assert "s3" not in result.output
    assert "cret" not in result.output


@pytest.mark.parametrize(
    ("way", "protocol"),
    [("options", "http/protobuf"), ("options", "grpc"), ("environment", "http/protobuf")],
)
def test_credentials_of_a_url_are_never_shown(way, protocol, doctor, closed_port):
    """Where everything fails that can."""
    url = f"http://ann:s3cret@127.0.0.1:{closed_port}"
    options = ("--collector", url, "--prometheus", url) if way == "options" else ("--send",)
    code, out = doctor(
        *options,
        OTEL_EXPORTER_OTLP_ENDPOINT=url,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    assert code == 1
    assert f"OTLP endpoint http://127.0.0.1:{closed_port} (" in out
    assert "sent and not accepted: " in out
    assert "s3cret" not in out
    assert "ann" not in out.replace("cannot", "")


@pytest.mark.parametrize("wait", ["nan", "inf", "0"])
def test_a_wait_without_an_end_or_a_beginning_is_refused(wait):
    result = CliRunner().invoke(app, ["doctor", "--wait", wait])
    assert result.exit_code == 2
    assert "--wait" in result.output


def test_what_it_waits_for_is_told_on_a_terminal_only(doctor, backend):
    ours, its = pty.openpty()
    shown = []

    def read():
        with suppress(OSError):  # the other end was closed
            while chunk := os.read(ours, 4096):
                shown.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        code, out = doctor("--collector", backend.endpoint, stderr=its, TERM="xterm")
    finally:
        os.close(its)
        reader.join()
        os.close(ours)
    assert code == 0
    assert "waiting for" not in out
    assert b"waiting for the Collector to take some decisions" in b"".join(shown)
