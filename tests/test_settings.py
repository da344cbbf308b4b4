"""Settings: keyword before variable before default; a wrong one says what is allowed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider

from otel_personalization import PersonalizationHook
from otel_personalization.conventions import LARGEST_MAX_LABEL_SETS, MAX_SOURCES
from otel_personalization.settings import Settings, SettingsError, resolve

DEFAULTS = Settings(
    target=(),
    trace="result",
    when="after",
    surfaces=frozenset(),
    max_label_sets=64,
    stages=frozenset({"merged", "post_constraints", "post_exclusion", "prefetched"}),
    log="stdout",
    log_sample=1.0,
    log_user_hash=False,
    log_sources=False,
    log_propagate=False,
    debug=False,
)


def test_what_is_not_set_or_blank_has_its_default():
    assert resolve(environment={}) == DEFAULTS
    blank = {f"OTEL_PERSONALIZATION_{name.upper()}": " " for name in vars(DEFAULTS)}
    assert resolve(environment=blank) == DEFAULTS


def test_every_setting_has_a_variable():
    environment = {
        "OTEL_PERSONALIZATION_TARGET": "a.b:finalize, a:B.finalize",
        "OTEL_PERSONALIZATION_TRACE": "argument:decision",
        "OTEL_PERSONALIZATION_WHEN": "before",
        "OTEL_PERSONALIZATION_SURFACES": "Shop/Home, shop/cart",
        "OTEL_PERSONALIZATION_MAX_LABEL_SETS": "100",
        "OTEL_PERSONALIZATION_STAGES": "merged,rerank",
        "OTEL_PERSONALIZATION_LOG": "/var/log/decisions.ndjson",
        "OTEL_PERSONALIZATION_LOG_SAMPLE": "0.25",
        "OTEL_PERSONALIZATION_LOG_USER_HASH": "true",
        "OTEL_PERSONALIZATION_LOG_SOURCES": "TRUE",
        "OTEL_PERSONALIZATION_LOG_PROPAGATE": "True",
        "OTEL_PERSONALIZATION_DEBUG": "True",
    }
    expected = Settings(
        target=("a.b:finalize", "a:B.finalize"),
        trace="argument:decision",
        when="before",
        surfaces=frozenset({("shop", "home"), ("shop", "cart")}),
        max_label_sets=100,
        stages=frozenset({"merged", "rerank"}),
        log="/var/log/decisions.ndjson",
        log_sample=0.25,
        log_user_hash=True,
        log_sources=True,
        log_propagate=True,
        debug=True,
    )
    assert resolve(environment=environment) == expected
    assert resolve(**vars(expected), environment={}) == expected


def test_a_keyword_comes_before_its_variable():
    environment = {"OTEL_PERSONALIZATION_MAX_LABEL_SETS": "100"}
    assert resolve(max_label_sets=3, environment=environment).max_label_sets == 3


def test_a_variable_of_a_target_is_no_matter_of_a_hook(monkeypatch):
    monkeypatch.setenv("OTEL_PERSONALIZATION_WHEN", "before")
    PersonalizationHook(meter_provider=NoOpMeterProvider()).finalizer()


def test_a_target_that_is_named_twice_is_one():
    assert resolve(target=["a:f", "a:f"], environment={}).target == ("a:f",)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"target": "ranking.finalize"}, "'ranking.finalize' is no 'module:function' or"),
        ({"target": "ranking:"}, "'ranking:' is no"),
        ({"target": [None]}, "None is no"),
        ({"target": 7}, "target is 7; it takes 'module:function'"),
        ({"trace": "argument:"}, "it can be 'result', 'self', 'argument:NAME' or"),
        ({"trace": "argument:a b"}, "it can be"),
        ({"trace": 7}, "trace is 7; it can be"),
        ({"when": "later"}, "when is 'later'; it can be 'after' or 'before'"),
        ({"when": "before"}, "trace is 'result', which there is none of before the call"),
        ({"surfaces": "home"}, "'home' is no 'namespace/surface', such as 'shop_eu/home'"),
        ({"surfaces": ["a/b/c"]}, "'a/b/c' is no"),
        ({"surfaces": ["/home"]}, "'/home' is no"),
        ({"surfaces": [5]}, "5 is no 'namespace/surface'"),
        ({"surfaces": [("shop", None)]}, "is no 'namespace/surface'"),
        ({"surfaces": "shop/" + "x" * 65}, "has a name of over 64 characters"),
        ({"surfaces": "shop/\ud800"}, "or one that UTF-8 cannot carry"),
        ({"surfaces": ["a/b", "c/d"], "max_label_sets": 1}, "it must hold them all"),
        ({"max_label_sets": 0}, "max_label_sets is 0; it can be a whole number from 1 to 116"),
        ({"max_label_sets": 117}, "from 1 to 116"),
        ({"max_label_sets": True}, "from 1 to 116"),
        ({"max_label_sets": 7.0}, "from 1 to 116"),
        ({"stages": 7}, "stages is 7; it takes the name of a stage"),
        ({"stages": [7]}, "it takes names of stages"),
        ({"log": "stdot"}, "log is 'stdot'; it can be 'stdout', 'stderr', 'none' or the path of"),
        ({"log": 7}, "log is 7; it can be 'stdout'"),
        ({"surfaces": 5}, "surfaces is 5; it takes 'namespace/surface', or several"),
        ({"log_sample": 0}, "log_sample is 0; it can be a number above 0, up to 1; for no lines"),
        ({"log_sample": 1.01}, "it can be a number above 0, up to 1"),
        ({"log_sample": float("nan")}, "it can be a number above 0"),
        ({"log_sample": True}, "it can be a number above 0"),
        ({"log_sources": "on"}, "it can be 'true' or 'false'"),
        ({"debug": 1}, "it can be 'true' or 'false'"),
    ],
)
def test_a_wrong_keyword_is_refused_with_what_is_allowed(wrong: Any, says: str):
    with pytest.raises(SettingsError, match=re.escape(says)):
        resolve(**wrong, environment={})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MAX_LABEL_SETS", "many", "MAX_LABEL_SETS is 'many'; it can be a whole number from 1 to"),
        ("DEBUG", "yes", "OTEL_PERSONALIZATION_DEBUG is 'yes'; it can be 'true' or 'false'"),
        (
            "LOG_SAMPLE",
            "1 %",
            "OTEL_PERSONALIZATION_LOG_SAMPLE is '1 %'; it can be a number above 0",
        ),
        ("WHEN", "later", "OTEL_PERSONALIZATION_WHEN is 'later'"),
        ("TARGET", "x", "OTEL_PERSONALIZATION_TARGET is 'x'"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(name: str, value: str, says: str):
    with pytest.raises(SettingsError, match=re.escape(says)):
        resolve(environment={f"OTEL_PERSONALIZATION_{name}": value})


def test_a_log_file_stays_where_it_is_when_the_host_changes_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = str(tmp_path / "decisions.ndjson")
    for path in ("./decisions.ndjson", "decisions.ndjson", Path("decisions.ndjson")):
        assert resolve(log=path, environment={}).log == expected
    # A mistyped word is no file; a Path is one.
    assert resolve(log=Path("decisions"), environment={}).log == str(tmp_path / "decisions")


def test_a_log_file_that_cannot_be_opened_is_refused(tmp_path):
    path = tmp_path / "missing" / "decisions.ndjson"
    with pytest.raises(SettingsError, match="which cannot be opened: No such file or directory"):
        PersonalizationHook(meter_provider=NoOpMeterProvider(), log=path)


@pytest.mark.parametrize("path", ["./a\0b", "./\ud800"])
def test_a_log_file_of_no_possible_name_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="which cannot be opened"):
        PersonalizationHook(meter_provider=NoOpMeterProvider(), log=path)


def test_a_decorator_reads_no_variables_of_others(monkeypatch):
    hook = PersonalizationHook(meter_provider=NoOpMeterProvider())
    monkeypatch.setenv("OTEL_PERSONALIZATION_LOG", "stdot")
    hook.finalizer()


def test_no_stage_is_a_set_of_none():
    assert resolve(stages="", environment={}).stages == frozenset()


def test_a_pipe_that_nobody_reads_is_refused_and_waited_for_by_nobody(tmp_path):
    os.mkfifo(tmp_path / "pipe.ndjson")
    with pytest.raises(SettingsError, match="nobody reads this pipe"):
        PersonalizationHook(meter_provider=NoOpMeterProvider(), log=tmp_path / "pipe.ndjson")


def test_no_setting_takes_a_provider_past_its_limit_of_attribute_sets():
    """The SDK merges the attribute sets of a counter past 2,000 into one."""
    assert (LARGEST_MAX_LABEL_SETS + 1) * (MAX_SOURCES + 1) <= 2000
