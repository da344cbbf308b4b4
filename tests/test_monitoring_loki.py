"""Loki's configuration, as far as it can be checked without Loki: it fits the log Collector's."""

from __future__ import annotations

import re

import yaml

from examples.stack.servers import MONITORING, REPOSITORY

LOKI = (MONITORING / "loki" / "loki.yaml").read_text()
COLLECTOR = yaml.safe_load((MONITORING / "collector" / "logs.yaml").read_text())
FILE_LOG = COLLECTOR["receivers"]["file_log"]
BYTES = {"B": 1, "KB": 2**10, "KiB": 2**10, "MB": 2**20}


def loki():
    """With the defaults of its environment variables."""
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", LOKI))


def size(text):
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()
    return int(number) * BYTES[unit]


def hours(text):
    return int(text.removesuffix("h"))


def test_its_index_labels_are_the_resource_attributes_that_the_collector_sends():
    attributes = loki()["limits_config"]["otlp_config"]["resource_attributes"]
    assert attributes["ignore_defaults"] is True
    (labels,) = attributes["attributes_config"]
    assert labels["action"] == "index_label"
    sent = set(FILE_LOG["resource"])
    for operator in FILE_LOG["operators"]:
        field = operator.get("field", operator.get("to", ""))
        if field.startswith("resource"):
            sent.add(field.removeprefix("resource."))
    assert set(labels["attributes"]) == sent
    # As Loki names labels.
    assert {name.replace(".", "_") for name in sent} == {
        "service_name",
        "deployment_environment",
        "namespace",
    }


def test_it_takes_whatever_the_collector_cuts_or_puts_together():
    limits = loki()["limits_config"]
    assert limits["allow_structured_metadata"] is True
    assert size(FILE_LOG["max_log_size"]) < size(limits["max_line_size"])
    batch = COLLECTOR["exporters"]["otlp_http/loki"]["sending_queue"]["batch"]
    assert batch["sizer"] == "bytes"
    assert batch["max_size"] < limits["ingestion_burst_size_mb"] * 2**20
    assert batch["max_size"] < size(limits["per_stream_rate_limit_burst"])


def test_it_takes_and_finds_lines_that_are_six_hours_late():
    """It takes what is half of a chunk's age behind the newest line of a stream."""
    in_memory = hours(loki()["ingester"]["max_chunk_age"])
    assert in_memory / 2 == 6
    assert hours(loki()["querier"]["query_ingesters_within"]) > in_memory


def test_it_listens_where_the_collector_sends_to_and_deletes_what_is_old():
    configuration = loki()
    server = configuration["server"]
    endpoint = COLLECTOR["exporters"]["otlp_http/loki"]["endpoint"]
    assert f"http://{server['http_listen_address']}:{server['http_listen_port']}/otlp" in endpoint
    assert configuration["compactor"]["retention_enabled"] is True
    (period,) = configuration["schema_config"]["configs"]
    assert (period["store"], period["schema"], period["index"]["period"]) == ("tsdb", "v13", "24h")


def test_the_page_about_it_names_every_variable():
    page = (REPOSITORY / "docs" / "guide" / "collector-logs.md").read_text()
    collector = (MONITORING / "collector" / "logs.yaml").read_text()
    for name in set(re.findall(r"\$\{(?:env:)?(RECSYS_\w+)", LOKI + collector)):
        assert name in page, name
