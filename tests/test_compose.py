"""compose.yaml, and the Kubernetes page, as far as they can be checked without running them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from examples.stack.servers import MONITORING, REPOSITORY
from tests.grafana import FILE, VARIABLES

TEXT = (REPOSITORY / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
TOOLS = (MONITORING / "tools.mk").read_text()
GATEWAY = MONITORING / "collector" / "gateway.yaml"
KUBERNETES = (REPOSITORY / "docs" / "guide" / "kubernetes.md").read_text()
VARIABLE = re.compile(r"\$\{(?:env:)?(\w+)(?::-([^}]*))?\}")
WITH_VARIABLES = ("gateway", "logs", "loki", "grafana")
"""Services whose mounted configuration reads variables."""


def environment(service):
    return SERVICES[service].get("environment", {})


def mounts(service):
    """Of a service, what is mounted from the checkout, by where."""
    pairs = [mount.split(":") for mount in SERVICES[service].get("volumes", ())]
    return {target: REPOSITORY / source for source, target, *_ in pairs if source.startswith("./")}


def published(service):
    return {port.split(":")[-1] for port in SERVICES[service].get("ports", ())}


def command(service):
    return " ".join(SERVICES[service].get("command", ()))


def configuration(service):
    """The text of the file that is mounted, or that the command names in a folder that is.

    Of Grafana, which has several, that of its data sources.
    """
    mounted = mounts(service)
    if service == "grafana":
        mounted = {target: path for target, path in mounted.items() if "datasources" in target}
    named = [
        path / file
        for target, path in mounted.items()
        for file in re.findall(rf"{target}/(\S+)", command(service))
    ]
    (path,) = named or mounted.values()
    return path.read_text()


def expanded(service):
    """The mounted configuration, with the variables that the service has."""

    def value(match):
        return environment(service).get(match[1], match[2])

    return yaml.safe_load(VARIABLE.sub(value, configuration(service)))


def section(service):
    """The lines of a service, comments included."""
    return re.search(rf"^  {service}:\n((?:(?:    .*)?\n)+)", TEXT, re.MULTILINE).group(1)


def version(tool):
    return re.search(rf"^{tool}_VERSION := (\S+)$", TOOLS, re.MULTILINE).group(1)


# --- files, volumes, ports --------------------------------------------------------------------


def test_there_is_a_service_for_each_part_of_the_live_path():
    assert set(SERVICES) == {
        "ranking",
        "users",
        "gateway",
        "logs",
        "prometheus",
        "alertmanager",
        "pushgateway",
        "warehouse",
        "loki",
        "grafana",
    }


def test_nothing_is_left_to_the_environment_of_who_starts_it():
    assert "$" not in TEXT


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_is_there_and_read_only(service):
    for mount in SERVICES[service].get("volumes", ()):
        source, target, *options = mount.split(":")
        if source.startswith("./"):
            assert (REPOSITORY / source).exists(), source
            assert options == ["ro"]
        else:
            assert source in COMPOSE["volumes"]
        assert target.startswith("/")


def test_every_volume_is_of_use():
    used = {
        mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())
    }
    assert set(COMPOSE["volumes"]) == {name for name in used if not name.startswith("./")}


@pytest.mark.parametrize("service", SERVICES)
def test_configurations_are_named_where_they_are_mounted(service):
    for named in re.findall(
        r"/etc/recsys/[\w.]+\.ya?ml", str(SERVICES[service].get("command", ""))
    ):
        paths = [
            path / named[len(target) :].lstrip("/") for target, path in mounts(service).items()
        ]
        assert any(path.is_file() for path in paths), named


def test_all_ports_are_published_on_this_machine_only_and_once():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    for port in ports:
        address, outside, inside = port.split(":")
        assert address == "127.0.0.1"
        assert outside == inside
    assert len(set(ports)) == len(ports)


# --- addresses and variables ------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_addresses_are_those_of_services_and_of_ports_on_which_they_listen(service):
    said = [*environment(service).values(), *SERVICES[service].get("command", ())]
    for host, port in re.findall(r"(?:http://|\b)([a-z][\w.-]*):(\d+)\b", " ".join(said)):
        if host == "localhost":
            continue  # as the browser says it, of what is no part of this
        assert host in SERVICES, f"{host} is no service"
        assert port in published(host), f"{host} does not listen on {port}"


@pytest.mark.parametrize("service", ["gateway", "logs"])
def test_collectors_listen_on_the_published_ports_and_not_on_loopback(service):
    config = expanded(service)
    protocols = config["receivers"].get("otlp", {"protocols": {}})["protocols"]
    (reader,) = config["service"]["telemetry"]["metrics"]["readers"]
    telemetry = reader["pull"]["exporter"]["prometheus"]
    doors = [
        *(protocol["endpoint"] for protocol in protocols.values()),
        config["extensions"]["health_check"]["endpoint"],
        f"{telemetry['host']}:{telemetry['port']}",
        *(door["endpoint"] for name, door in config["exporters"].items() if name == "prometheus"),
    ]
    assert {door.partition(":")[0] for door in doors} == {"0.0.0.0"}
    assert {door.partition(":")[2] for door in doors} == published(service)


def test_loki_listens_where_it_is_expected():
    server = expanded("loki")["server"]
    assert (server["http_listen_address"], {str(server["http_listen_port"])}) == (
        "0.0.0.0",
        published("loki"),
    )
    assert "-config.expand-env=true" in command("loki")


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_that_is_set_is_read(service):
    read = set()
    if service in WITH_VARIABLES:
        read = {name for name, _ in VARIABLE.findall(configuration(service))}
    if service == "warehouse":
        read = set(re.findall(r"^\\getenv \w+ (\w+)$", configuration(service), re.MULTILINE))
    is_set = {name for name in environment(service) if name.startswith("RECSYS_")}
    assert is_set <= read


@pytest.mark.parametrize("service", WITH_VARIABLES)
def test_every_variable_that_is_read_is_set_or_said_to_be_as_by_default(service):
    text = section(service)
    for name, default in VARIABLE.findall(configuration(service)):
        if name not in environment(service):
            assert re.search(rf"#.*\b{name}\b", text), name
            assert default, f"{name} has no default"


def test_what_writes_to_a_folder_of_a_collector_has_its_volume():
    for service in ("gateway", "logs"):
        directory = expanded(service)["extensions"]["file_storage/queue"]["directory"]
        assert any(
            directory.startswith(mount.split(":")[1])
            for mount in SERVICES[service]["volumes"]
            if not mount.endswith(":ro")
        )
    assert (
        expanded("loki")["common"]["path_prefix"] == SERVICES["loki"]["volumes"][-1].split(":")[1]
    )


def test_the_log_collector_reads_what_the_service_writes():
    written = Path(environment("ranking")["OTEL_PERSONALIZATION_LOG"])
    (pattern,) = expanded("logs")["receivers"]["file_log"]["include"]
    assert written.match(pattern)
    folder = str(written.parent)
    assert f"lines:{folder}" in SERVICES["ranking"]["volumes"]
    assert f"lines:{folder}:ro" in SERVICES["logs"]["volumes"]


# --- commands and versions --------------------------------------------------------------------


@pytest.mark.parametrize("service", ["gateway", "logs"])
def test_collectors_run_with_the_feature_gates_that_their_files_ask_for(service):
    (asked,) = set(re.findall(r"--feature-gates=\S+", configuration(service)))
    assert asked in SERVICES[service]["command"]


def test_prometheus_runs_with_the_flags_that_its_file_asks_for():
    asked = re.findall(
        r"^# +(--\S+)", (MONITORING / "prometheus" / "prometheus.yml").read_text(), re.M
    )
    assert len(asked) == 3
    for flag in asked:
        assert flag in command("prometheus").split()


def test_prometheus_scrapes_collectors_and_pushgateway_and_tells_alertmanager():
    (expression,) = re.findall(r"sed -i '(.*)'", command("prometheus"))
    made = subprocess.run(
        ["sed", expression, MONITORING / "prometheus" / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    changed = yaml.safe_load(made)
    targets = [
        target
        for job in [*changed["scrape_configs"], *changed["alerting"]["alertmanagers"]]
        for of_job in job["static_configs"]
        for target in of_job["targets"]
    ]
    hosts = {target.split(":")[0] for target in targets}
    assert hosts == {"gateway", "logs", "alertmanager", "pushgateway"}
    for target in targets:
        host, port = target.split(":")
        assert port in published(host)


def test_images_are_of_the_versions_that_are_built_for_the_tests():
    images = {name: service.get("image", "") for name, service in SERVICES.items()}
    assert images["gateway"] == images["logs"]
    assert images["gateway"].endswith(f":{version('BUILDER')}")
    # Its module 0.316.0 is release 3.16.0.
    major, minor, patch = re.fullmatch(r"0\.(\d)(\d\d)\.(\d+)", version("PROMETHEUS")).groups()
    assert images["prometheus"].endswith(f":v{major}.{int(minor)}.{patch}")
    assert images["alertmanager"].endswith(f":v{version('ALERTMANAGER')}")
    for image in filter(None, images.values()):
        # PostgreSQL's have two parts.
        assert re.search(r":v?\d+(\.\d+){1,2}$", image), f"{image} is not pinned"


def test_the_image_of_the_service_is_built_from_what_is_there():
    for name in ("ranking", "users"):
        build = SERVICES[name]["build"]
        assert build["context"] == "."
        dockerfile = REPOSITORY / build["dockerfile"]
        copied = [
            source
            for line in re.findall(r"^COPY (.*)$", dockerfile.read_text(), re.MULTILINE)
            for source in line.split()[:-1]
        ]
        assert copied
        let_in = dockerfile.with_name("Dockerfile.dockerignore").read_text().splitlines()
        for source in copied:
            assert (REPOSITORY / source).exists()
            assert f"!{source}" in let_in
        for folder in ("/var/lib/ranking", "/var/log/recsys"):
            assert folder in dockerfile.read_text()


def test_alertmanager_reads_its_secrets_where_they_are_mounted():
    assert "/etc/alertmanager/secrets/recsys" in mounts("alertmanager")
    for path in re.findall(r"_file: (\S+)", configuration("alertmanager")):
        assert str(Path(path).parent) in mounts("alertmanager")


# --- Grafana ----------------------------------------------------------------------------------


def data_sources():
    found = {source["type"]: source for source in expanded("grafana")["datasources"]}
    assert len({source["uid"] for source in found.values()}) == len(found)
    return found


def test_grafana_names_only_what_it_has():
    sources = data_sources()
    warehouse = sources.pop("grafana-postgresql-datasource")
    assert set(sources) == {"prometheus", "loki", "alertmanager"}
    for kind, source in sources.items():
        assert source["url"].startswith(f"http://{kind}:")
    assert warehouse["url"] == "warehouse:5432"


def test_grafana_has_every_data_source_that_the_dashboard_lets_one_pick():
    wanted = {one["query"] for one in VARIABLES.values() if one["type"] == "datasource"}
    assert wanted <= set(data_sources())


def test_grafana_reads_the_warehouse_as_a_user_who_can_only_read():
    warehouse, database = data_sources()["grafana-postgresql-datasource"], environment("warehouse")
    assert warehouse["jsonData"]["database"] == database["POSTGRES_DB"]
    assert warehouse["user"] != database["POSTGRES_USER"]
    assert warehouse["secureJsonData"]["password"] == database["RECSYS_POSTGRES_PASSWORD"]
    (path,) = mounts("warehouse").values()
    statement = path.read_text()
    assert f"CREATE ROLE {warehouse['user']} LOGIN" in statement
    assert "RECSYS_POSTGRES_PASSWORD" in statement


def test_a_trace_id_in_a_log_line_leads_to_its_trace():
    (link,) = data_sources()["loki"]["jsonData"]["derivedFields"]
    assert (link["matcherType"], link["matcherRegex"]) == ("label", "trace_id")
    # Grafana makes one dollar of two.
    assert link["url"] == environment("grafana")["RECSYS_TRACE_URL"] + "$${__value.raw}"


def test_grafana_finds_the_dashboard_where_it_is_mounted():
    mounted = mounts("grafana")
    (provider,) = yaml.safe_load(
        mounted["/etc/grafana/provisioning/dashboards/recsys.yaml"].read_text()
    )["providers"]
    assert provider["folder"]
    assert mounted[f"{provider['options']['path']}/{FILE.name}"] == FILE
