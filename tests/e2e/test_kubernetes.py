"""What docs/guide/kubernetes.md deploys, before the real Collector and the operators' schemas."""

from __future__ import annotations

import copy
import subprocess
from functools import cache

import pytest
import yaml
from jsonschema import Draft202012Validator

from examples.stack.servers import FEATURE_GATES, REPOSITORY, TOOLS
from tests.test_kubernetes import CUSTOM, MADE_OF, made, resource

CRDS = REPOSITORY / ".tools" / "crds"


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


def strict(schema):
    """A schema of the cluster's in terms of JSON Schema, in which what it does not know is wrong.

    The cluster drops such fields without a word.
    """
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    known = dict(schema)
    if "properties" in schema:
        known["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            known["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        known["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        known["items"] = strict(schema["items"])
    return known


class Loader(yaml.CSafeLoader):
    """Takes the operator `=`, which YAML 1.1 has a meaning for, as the text that it is."""


Loader.add_constructor(
    "tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node)
)


@cache
def schema_of(version, kind):
    (text,) = (
        text
        for text in (path.read_text() for path in CRDS.glob("*.yaml"))
        if f"    kind: {kind}\n" in text
    )
    spec = yaml.load(text, Loader)["spec"]
    (found,) = (one for one in spec["versions"] if f"{spec['group']}/{one['name']}" == version)
    schema = strict(found["schema"]["openAPIV3Schema"])
    # Of these the cluster sees to itself.
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def errors(what):
    validator = Draft202012Validator(schema_of(what["apiVersion"], what["kind"]))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(what)]


@pytest.mark.parametrize("what", [one for one in CUSTOM if "Collector-" not in one.id])
def test_the_operators_know_every_field_of_their_resources(what):
    assert errors(what) == []


@pytest.mark.parametrize("name", MADE_OF)
def test_the_operator_knows_every_field_of_a_collector_as_it_is_made(name):
    collector = copy.deepcopy(resource(name))
    collector["spec"]["config"] = made(name)
    assert errors(collector) == []


def test_a_field_that_no_operator_knows_is_found():
    (wrong,) = (
        copy.deepcopy(one.values[0]) for one in CUSTOM if one.id.endswith("Prometheus-recsys")
    )
    wrong["spec"]["storage"]["volumeClaimTemplates"] = {}
    assert ["volumeClaimTemplates" in error for error in errors(wrong)] == [True]
