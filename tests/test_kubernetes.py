"""What docs/guide/kubernetes.md deploys, as far as it can be checked without a cluster."""

from __future__ import annotations

import re

import pytest
import yaml

from examples.stack.servers import FEATURE_GATES, MONITORING, PROMETHEUS_FEATURES, REPOSITORY

KUBERNETES = MONITORING / "kubernetes"
COLLECTOR = MONITORING / "collector"
PAGE = (REPOSITORY / "docs" / "guide" / "kubernetes.md").read_text()
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
MADE_OF = {"gateway": ("gateway.yaml",), "agent": ("agent.yaml", "agent-routing.yaml")}
VARIABLE = re.compile(r"\$\{env:(\w+)")


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


def test_addresses_are_those_of_services_that_the_operator_makes():
    """It appends -collector to the name of the resource."""
    text = PAGE + "".join(path.read_text() for path in KUBERNETES.iterdir())
    names = {resource(name)["metadata"]["name"] for name in MADE_OF}
    found = set(re.findall(r"\b(recsys-\w+)-collector(?:-headless)?\.monitoring\.svc", text))
    assert found == names


def test_prometheus_is_set_as_its_file_says():
    monitor, scraped = yaml.safe_load_all((KUBERNETES / "prometheus.yaml").read_text())
    spec = monitor["spec"]
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
    (endpoint,) = scraped["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True


def test_instrumentation_is_named_as_the_service_asks_for_it():
    instrumentation = resource("instrumentation")["metadata"]
    (asked,) = re.findall(r"inject-python: (\S+)", PAGE)
    assert asked == f"{instrumentation['namespace']}/{instrumentation['name']}"


def test_the_page_says_the_versions_that_this_package_needs():
    needed = re.findall(
        r'"opentelemetry-(?:api|instrumentation)>=([\w.]+)"',
        (REPOSITORY / "pyproject.toml").read_text(),
    )
    for version in needed:
        assert version in PAGE
