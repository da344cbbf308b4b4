"""The Collector's configurations are of one piece: with the contract, the parts and the docs."""

from __future__ import annotations

import re

import pytest
import yaml

from examples.stack.servers import MONITORING, REPOSITORY
from otel_personalization import conventions

COLLECTOR = MONITORING / "collector"
CONFIGURATIONS = sorted(path for path in COLLECTOR.glob("*.yaml") if path.name != "builder.yaml")
OVERRIDES = {"agent-routing.yaml": "agent.yaml"}
VARIABLE = re.compile(r"\$\{env:(\w+)(?::-([^}]*))?\}")
DOCS = "".join(path.read_text() for path in sorted((REPOSITORY / "docs").rglob("*.md")))
DOCS = re.sub(r"(?<=\d),(?=\d{3})", "", DOCS)
BUILT_ELSEWHERE = {"loadbalancing"}
"""Parts of official releases that cannot be built here."""

each = pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)


def merged(path):
    """A configuration, with the one that it is merged into."""
    configuration = yaml.safe_load(path.read_text())
    if path.name in OVERRIDES:
        base = yaml.safe_load((COLLECTOR / OVERRIDES[path.name]).read_text())
        for kind in ("extensions", "receivers", "processors", "connectors", "exporters"):
            base[kind] = base.get(kind, {}) | configuration.get(kind, {})
        for name, pipeline in configuration["service"]["pipelines"].items():
            base["service"]["pipelines"][name] |= pipeline
        return base
    return configuration


@each
def test_what_a_pipeline_names_is_there_and_what_is_there_is_named(path):
    configuration = merged(path)
    named = {"extensions": set(configuration["service"]["extensions"])}
    for pipeline in configuration["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            if isinstance(names, str):  # of a variable, one of those that are there
                names = configuration[kind]
            named.setdefault(kind, set()).update(names)
    connectors = set(configuration.get("connectors", {}))
    for kind in ("extensions", "receivers", "processors", "exporters"):
        defined = set(configuration.get(kind, {}))
        assert named[kind] - connectors - defined == set()
        if path.name not in OVERRIDES:
            assert defined - named[kind] == set()


@each
def test_every_part_is_one_that_is_built(path):
    """By the Go module that it comes from."""
    builder = yaml.safe_load((COLLECTOR / "builder.yaml").read_text())
    modules = [
        part["gomod"].split()[0].rsplit("/", 1)[1]
        for parts in builder.values()
        for part in parts
        if isinstance(part, dict)
    ]
    built = {re.sub("[^a-z]", "", module) for module in modules}
    aliases = {"otlpgrpc": "otlp"}
    configuration = merged(path)
    for kind in ("extensions", "receivers", "processors", "connectors", "exporters"):
        for name in configuration.get(kind, {}):
            part = re.sub("[^a-z]", "", name.partition("/")[0])
            if part in BUILT_ELSEWHERE:
                continue
            part = aliases.get(part, part)
            assert {part, part + kind.removesuffix("s")} & built, f"{name} is not in builder.yaml"


@each
def test_every_variable_is_documented_with_its_default(path):
    for name, default in VARIABLE.findall(path.read_text()):
        assert f"`{name}`" in DOCS
        assert f"`{default}`" in DOCS or re.search(rf"\b{re.escape(default)}\b", DOCS), name


def test_the_views_are_those_of_the_contract():
    text = (COLLECTOR / "gateway.yaml").read_text()
    processors = yaml.safe_load(text)["processors"]
    rules = processors["metricsgeneration"]["rules"]
    assert [(rule["name"], rule["metric1"], rule["metric2"]) for rule in rules] == [
        (rate.name, part.name, whole.name) for rate, (part, whole) in conventions.RATES.items()
    ]
    (condition,) = processors["filter/operands"]["metric_conditions"]
    (pattern,) = re.findall(r'"(\^.*\$)"', condition)
    for rule in rules:
        for operand in (rule["metric1"], rule["metric2"]):
            assert re.match(pattern.replace("\\\\", "\\"), operand)
    for view in conventions.VIEWS:
        assert f'set(metric.description, "{view.description}")' in text
    assert f'"{conventions.WINDOW_SERVED_ITEMS.name}"' in text
    kept = f'["{conventions.NAMESPACE}", "{conventions.SURFACE}"]'
    assert f"keep_keys(datapoint.attributes, {kept})" in text


def test_scopes_tell_forked_processes_apart_in_prometheus():
    """They have an attribute of their own, which becomes a label if scopes are promoted."""
    prometheus = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    assert prometheus["otlp"]["promote_scope_metadata"] is True
