"""What docs/guide/kubernetes.md deploys, as far as it can be checked without a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from examples.stack.servers import FEATURE_GATES, MONITORING, PROMETHEUS_FEATURES, REPOSITORY
from monitoring.prometheus.build import build, for_operator
from monitoring.prometheus.values import load
from tests.conftest import DATA
from tests.runbooks import FOLDER, blocks

KUBERNETES = MONITORING / "kubernetes"
COLLECTOR = MONITORING / "collector"
PAGE = (REPOSITORY / "docs" / "guide" / "kubernetes.md").read_text()
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
MADE_OF = {"gateway": ("gateway.yaml",), "agent": ("agent.yaml", "agent-routing.yaml")}
VARIABLE = re.compile(r"\$\{env:(\w+)")
RESOURCES = [
    pytest.param(resource, id=f"{path.stem}-{resource['kind']}-{resource['metadata']['name']}")
    for path in sorted(KUBERNETES.glob("*.yaml"))
    for resource in yaml.safe_load_all(path.read_text())
]
OPERATORS = ("monitoring.coreos.com/", "opentelemetry.io/")
CUSTOM = [one for one in RESOURCES if one.values[0]["apiVersion"].startswith(OPERATORS)]
PLAIN = [one for one in RESOURCES if one not in CUSTOM]


def merged(first, second):
    """As yq's `*` merges: maps deeply, and all else is replaced."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    return first | {
        key: merged(first[key], value) if key in first else value for key, value in second.items()
    }


def resource(name):
    return yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text())


def made(name):
    """The Collector's configuration in a resource, as the page's command makes it."""
    config = {}
    for part in MADE_OF[name]:
        config = merged(config, yaml.safe_load((COLLECTOR / part).read_text()))
    del config["service"]["telemetry"]
    return merged(config, resource(name)["spec"]["config"])


def command(text):
    """yq's expression, however it is broken into lines."""
    return re.sub(r"\s+", " ", re.search(r"yq '(.*?)'", re.sub(r"\n#", "\n", text), re.S).group(1))


@pytest.mark.parametrize("what", PLAIN)
def test_kubernetes_knows_every_field(what):
    """By its own schemas; those of the operators are looked at in tests/e2e."""
    kubernetes_validate.validate(what, kubernetes_validate.latest_version(), strict=True)


def test_all_is_in_one_namespace():
    assert {one.values[0]["metadata"]["namespace"] for one in RESOURCES} == {"monitoring"}


@pytest.mark.parametrize("name", MADE_OF)
def test_page_and_file_make_the_resource_of_the_very_files(name):
    in_file = command((KUBERNETES / f"{name}.yaml").read_text())
    assert in_file in {command(found) for found in re.findall(r"yq '.*?'", PAGE)}
    assert tuple(re.findall(r'load\("monitoring/collector/([\w.-]+)"\)', in_file)) == MADE_OF[name]
    assert f"monitoring/kubernetes/{name}.yaml" in PAGE


@pytest.mark.parametrize("name", MADE_OF)
def test_what_the_operator_reads_is_of_the_types_that_it_knows(name):
    """It expands no variables: lists of names, and addresses with ports."""
    config = made(name)
    for pipeline in config["service"]["pipelines"].values():
        for names in pipeline.values():
            assert isinstance(names, list)
            assert all(isinstance(one, str) for one in names)
    telemetry = config["service"]["telemetry"]
    assert all(isinstance(value, str) for value in telemetry["resource"].values())
    (reader,) = telemetry["metrics"]["readers"]
    assert isinstance(reader["pull"]["exporter"]["prometheus"]["port"], int)
    protocols = config["receivers"]["otlp"]["protocols"]
    for door in (*protocols.values(), config["extensions"]["health_check"]):
        assert re.fullmatch(r"0\.0\.0\.0:\d+", door["endpoint"])


@pytest.mark.parametrize("name", MADE_OF)
def test_all_but_what_the_operator_reads_is_that_of_the_files(name):
    config, overlay = made(name), resource(name)["spec"]["config"]
    assert set(overlay) == {"receivers", "extensions", "service"}
    for part in MADE_OF[name]:
        original = yaml.safe_load((COLLECTOR / part).read_text())
        assert (
            merged(config, {key: original.get(key, {}) for key in ("processors", "exporters")})
            == config
        )
    for pipeline in overlay["service"].get("pipelines", {}).values():
        assert set(pipeline) == {"exporters"}
        assert set(pipeline["exporters"]) <= set(config["exporters"])


@pytest.mark.parametrize("name", MADE_OF)
def test_variables_are_ones_that_are_read(name):
    read = set(VARIABLE.findall(yaml.safe_dump(made(name))))
    spec = resource(name)["spec"]
    assert {variable["name"] for variable in spec["env"]} <= read


def test_the_queue_of_the_gateway_is_on_its_volume():
    spec = resource("gateway")["spec"]
    folders = [mount["mountPath"] for mount in spec["volumeMounts"]]
    (queue,) = [v["value"] for v in spec["env"] if v["name"] == "RECSYS_QUEUE_DIRECTORY"]
    assert any(queue.startswith(f"{folder}/") for folder in folders)


@pytest.mark.parametrize("name", MADE_OF)
def test_the_image_is_that_of_compose(name):
    assert resource(name)["spec"]["image"] == COMPOSE["services"]["gateway"]["image"]


def test_the_gateway_has_its_gate_its_name_and_a_volume_of_its_own():
    spec = resource("gateway")["spec"]
    assert spec["mode"] == "statefulset"
    assert spec["args"]["feature-gates"] == ",".join(FEATURE_GATES)
    (name,) = [v for v in spec["env"] if v["name"] == "RECSYS_GATEWAY_NAME"]
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] in {mount["name"] for mount in spec["volumeMounts"]}


# --- the gateway without the operator, and the Pushgateway -----------------------------------


def documents(name):
    """The resources of a file, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((KUBERNETES / name).read_text())}


@pytest.mark.parametrize("name", ["gateway-plain.yaml", "pushgateway.yaml"])
def test_what_selects_pods_and_services_finds_them(name):
    made = documents(name)
    workload = made.get("StatefulSet") or made["Deployment"]
    pods = workload["spec"]["template"]
    labels = pods["metadata"]["labels"]
    (container,) = pods["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    service = made["Service"]
    assert workload["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    for port in service["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    monitor = made["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
    offered = {port["name"] for port in service["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= offered
    probes = (container["readinessProbe"], container["livenessProbe"])
    assert {probe["httpGet"]["port"] for probe in probes} <= set(ports)


def test_the_plain_gateway_is_the_one_of_the_operator():
    made = documents("gateway-plain.yaml")
    plain = made["StatefulSet"]["spec"]
    (container,) = plain["template"]["spec"]["containers"]
    operated = resource("gateway")["spec"]
    gates, config = (
        f"--feature-gates={','.join(FEATURE_GATES)}",
        "--config=/etc/recsys/gateway.yaml",
    )
    assert container["args"] == [config, gates]
    assert container["image"] == operated["image"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert [variables[variable["name"]] for variable in operated["env"]] == operated["env"]
    assert variables.keys() <= set(VARIABLE.findall((COLLECTOR / "gateway.yaml").read_text()))
    (claim,) = plain["volumeClaimTemplates"]
    (queue,) = (v["mountPath"] for v in container["volumeMounts"] if v["name"] == "queue")
    assert claim["metadata"]["name"] == "queue"
    assert variables["RECSYS_QUEUE_DIRECTORY"]["value"].startswith(f"{queue}/")
    assert made["Service"]["metadata"]["name"] == plain["serviceName"]
    assert plain["serviceName"] == f"{resource('gateway')['metadata']['name']}-collector"


def test_the_doors_of_the_plain_gateway_are_at_the_ports_of_its_pod():
    (container,) = documents("gateway-plain.yaml")["StatefulSet"]["spec"]["template"]["spec"][
        "containers"
    ]
    ports = {port["containerPort"] for port in container["ports"]}
    values = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    opened = {
        int(value.rpartition(":")[2]) for value in values.values() if value.startswith("0.0.0.0:")
    }
    # Where it tells of itself; its port is the default of gateway.yaml.
    assert values["RECSYS_TELEMETRY_HOST"] == "0.0.0.0"
    (telemetry,) = re.findall(
        r"RECSYS_TELEMETRY_PORT:-(\d+)", (COLLECTOR / "gateway.yaml").read_text()
    )
    assert ports == opened | {int(telemetry)}


@pytest.mark.parametrize(
    ("file", "page", "job"),
    [
        ("gateway-plain.yaml", "TelemetryAbsentAll", "personalization-gateway"),
        ("gateway-plain.yaml", "InternalErrors", "personalization-gateway"),
        ("pushgateway.yaml", "DailyJobLate", "pushgateway"),
    ],
)
def test_a_runbook_asks_for_a_server_by_its_job_on_kubernetes_too(file, page, job):
    """There the job is the name of the Service, where the ServiceMonitor names no label for it."""
    made = documents(file)
    assert "jobLabel" not in made["ServiceMonitor"]["spec"]
    service = made["Service"]["metadata"]["name"]
    of_operator = f"{service}-monitoring"  # in which the operator shows a Collector's own metrics
    prometheus = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    assert job in {scrape["job_name"] for scrape in prometheus["scrape_configs"]}
    (asked,) = (
        found[1]
        for block in blocks(FOLDER / f"{page}.md", "promql")
        if (found := re.fullmatch(r'up\{job=~"(.+)"\}', block))
    )
    assert all(re.fullmatch(asked, name) for name in (job, service, of_operator))


def test_what_the_nightly_job_pushes_keeps_its_labels_and_survives_its_pod():
    made = documents("pushgateway.yaml")
    (endpoint,) = made["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True
    (container,) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    (file,) = (a.partition("=")[2] for a in container["args"] if a.startswith("--persistence.file"))
    assert any(file.startswith(f"{one['mountPath']}/") for one in container["volumeMounts"])
    assert container["image"] == COMPOSE["services"]["pushgateway"]["image"]
    values = {v["name"]: v.get("value") for v in cron_job()[-1]["env"]}
    service = made["Service"]
    (port,) = service["spec"]["ports"]
    address = f"{service['metadata']['name']}.monitoring.svc:{port['port']}"
    assert values["PUSHGATEWAY"] == f"http://{address}"


def test_the_rules_of_the_operator_are_those_of_prometheus():
    """If not: `make rules`."""
    assert (KUBERNETES / "rules.yaml").read_text() == for_operator(build(load()))
    groups = [
        group
        for one in RESOURCES
        if one.values[0]["kind"] == "PrometheusRule"
        for group in one.values[0]["spec"]["groups"]
    ]
    of_files = [
        group
        for path in sorted((MONITORING / "prometheus" / "rules").iterdir())
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    assert sorted(groups, key=str) == sorted(of_files, key=str)


def test_addresses_are_those_of_services_that_the_operator_makes():
    """It appends -collector to the name of the resource."""
    text = PAGE + "".join(path.read_text() for path in KUBERNETES.iterdir())
    names = {resource(name)["metadata"]["name"] for name in MADE_OF}
    found = set(re.findall(r"\b(recsys-\w+)-collector(?:-headless)?\.monitoring\.svc", text))
    assert found == names


def test_prometheus_is_set_as_its_file_says():
    made = documents("prometheus.yaml")
    spec = made["Prometheus"]["spec"]
    file = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    assert spec["enableOTLPReceiver"] is True
    assert tuple(spec["enableFeatures"]) == PROMETHEUS_FEATURES
    of_file = {
        re.sub(r"_(\w)", lambda letter: letter[1].upper(), key): value
        for key, value in file["otlp"].items()
    }
    assert spec["otlp"] == of_file
    window = file["storage"]["tsdb"]["out_of_order_time_window"]
    assert spec["tsdb"]["outOfOrderTimeWindow"] == window
    assert spec["version"] in COMPOSE["services"]["prometheus"]["image"]
    (endpoint,) = made["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True
    (subject,) = made["RoleBinding"]["subjects"]
    assert {subject["name"], made["ServiceAccount"]["metadata"]["name"]} == {
        spec["serviceAccountName"]
    }
    assert made["RoleBinding"]["roleRef"]["name"] == made["Role"]["metadata"]["name"]


def test_instrumentation_is_named_as_the_service_asks_for_it():
    instrumentation = resource("instrumentation")["metadata"]
    (asked,) = re.findall(r"inject-python: (\S+)", PAGE)
    assert asked == f"{instrumentation['namespace']}/{instrumentation['name']}"


# --- the nightly job --------------------------------------------------------------------------


def cron_job():
    """The CronJob, the template of its pods, and the container."""
    resource, claim = yaml.safe_load_all((KUBERNETES / "daily.yaml").read_text())
    pods = resource["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pods["containers"]
    return resource, claim, pods, container


def at_night(folder, source, **variables):
    """The script of the CronJob, and its environment, with files in place of the databases."""
    container = cron_job()[-1]
    return [*container["command"], *container["args"]], {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SOURCE": str(source),
        "SOURCE_PASSWORD": "one",
        "WAREHOUSE": str(folder / "personalization.duckdb"),
        "WAREHOUSE_PASSWORD": "other",
        "DATA": str(folder),
        **variables,
    }


def run_at_night(folder, source, **variables):
    """The script, until its end."""
    script, env = at_night(folder, source, **variables)
    return subprocess.run(script, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_nightly_job_makes_snapshot_tables_and_report_and_lets_old_snapshots_go(tmp_path):
    old = tmp_path / "snapshots" / "day=2026-10-01"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    done = run_at_night(tmp_path, DATA / "traces.ndjson.gz", DAY="2026-11-21")
    assert (done.returncode, "36 decisions" in done.stderr) == (0, True), done.stderr
    assert "<title>" in (tmp_path / "report.html").read_text()
    assert [path.name for path in (tmp_path / "snapshots").glob("day=*")] == ["day=2026-11-21"]


def test_a_pod_that_is_stopped_stops_the_command_which_removes_what_it_holds(tmp_path):
    source = tmp_path / "source"
    os.mkfifo(source)
    script, env = at_night(tmp_path, source, DAY="2026-11-21")
    job = subprocess.Popen(script, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with job:
        with source.open("wb"):  # once the command reads, which no signal may interrupt
            job.terminate()
        said, _ = job.communicate(timeout=60)  # to the end of the last process that writes there
    assert (job.returncode, said) == (143, b"")
    assert list(tmp_path.glob("snapshots/_*")) == []


def test_lines_that_are_not_counted_do_not_fail_the_nightly_job(tmp_path):
    source = tmp_path / "odd.ndjson"
    source.write_text(
        '{"decision_id": "a", "ts": "2026-11-21T09:00:00Z", "final_items": []}\n{"torn\n'
    )
    done = run_at_night(tmp_path, source, DAY="2026-11-21")
    assert "no JSON" in done.stderr
    assert done.returncode == 0


def test_the_nightly_job_takes_yesterday_by_utc_and_fails_without_it(tmp_path):
    (tmp_path / "none.ndjson").touch()
    (tmp_path / "snapshots").mkdir()
    around = {datetime.now(timezone.utc).date()}
    done = run_at_night(tmp_path, tmp_path / "none.ndjson", TZ="Pacific/Auckland")
    around.add(datetime.now(timezone.utc).date())
    assert done.returncode == 2
    asked = re.search(r"there is no snapshot of (\S+)", done.stderr).group(1)
    assert asked in {str(day - timedelta(days=1)) for day in around}


def test_the_nightly_job_has_the_variables_and_folders_that_its_script_uses():
    resource, claim, pods, container = cron_job()
    (script,) = container["args"]
    given = {variable["name"] for variable in container["env"]}
    assert set(re.findall(r"\$\{?([A-Z_]+)", script)) - {"DAY"} <= given
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert places.keys() == {volume["name"] for volume in pods["volumes"]}
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert {values["DATA"], values["TMPDIR"]} == set(places.values())
    (kept,) = (v["persistentVolumeClaim"] for v in pods["volumes"] if "emptyDir" not in v)
    assert kept["claimName"] == claim["metadata"]["name"]
    # The alert looks at 6 o'clock, by UTC.
    minute, hour, *_ = resource["spec"]["schedule"].split()
    latest = 3600 * int(hour) + 60 * int(minute) + resource["spec"]["startingDeadlineSeconds"]
    assert resource["spec"]["timeZone"] == "Etc/UTC"
    assert latest <= 5 * 3600


def test_prometheus_keeps_the_labels_of_what_the_nightly_job_pushes():
    file = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    (job,) = (job for job in file["scrape_configs"] if job["job_name"] == "pushgateway")
    assert job["honor_labels"] is True


def test_the_page_says_the_versions_that_this_package_needs():
    needed = re.findall(
        r'"opentelemetry-(?:api|instrumentation)>=([\w.]+)"',
        (REPOSITORY / "pyproject.toml").read_text(),
    )
    for version in needed:
        assert version in PAGE
