"""What a line of JSON says of a decision: the same as `otel_personalization.trace` says of it."""

from __future__ import annotations

import json

from otel_personalization.conventions import MalformedReason
from otel_personalization.daily.decisions import UNUSABLE_ORG_ID
from otel_personalization.daily.lines import FileLines
from otel_personalization.daily.snapshot import write
from otel_personalization.trace import (
    TRACE_FIELDS,
    Decision,
    count_of,
    read_decision,
)
from tests.daily.test_snapshot import DAY, file_of, rows_of, trace


def test_an_object_among_personalized_items_is_no_id(tmp_path):
    """Though an id may have the same text."""
    items = [{"item_id": item_id} for item_id in ("{}", '["a"]', "[b")]
    boosted = [{}, ["a"], "[b", None]
    path = file_of(
        tmp_path / "traces", trace(final_items=items, extras={"personalized_items": boosted})
    )
    (manifest,) = write(FileLines([path]), tmp_path / "snapshots").values()
    (row,) = rows_of(manifest)
    assert (row["personalized_items"], row["personalized_ids"]) == (1, ["[b"])


def test_a_label_is_text_without_the_white_space_around_it_in_small_letters(tmp_path):
    edges = [
        *filter(str.isspace, map(chr, range(0x3001))),
        *'!~"#\\[]{}/',
        "é",
        "\x7f",
        "\0",
        "\u200b",
    ]
    texts = [text for edge in edges for text in (edge, f"{edge}Ab", f"Ab{edge}", f"A{edge}b")]
    values = [
        *texts,
        "",
        "Nike Air",
        "Café",
        "Zoë's",
        "~",
        "true",
        "3",
        None,
        3,
        True,
        [],
        {},
        ["x"],
    ]
    caps = [{"a": {"brand": {"value": one}, "category": {"value": one}}} for one in values]
    for is_escaped in (False, True):
        lines = [json.dumps(trace(caps=one), ensure_ascii=is_escaped).encode() for one in caps]
        path = file_of(tmp_path / "traces", *lines)
        (manifest,) = write(FileLines([path]), tmp_path / "snapshots").values()
        labels = [(one.strip().lower() or None) if isinstance(one, str) else None for one in values]
        assert [row["items"] for row in rows_of(manifest)] == [
            [{"item_id": "a", "brand": label, "category": label}] for label in labels
        ]


def test_white_space_around_a_timestamp_or_alone_in_a_reason_is_none(tmp_path):
    spaces = [*filter(str.isspace, map(chr, range(0x3001))), "\\", "{", "A", "~"]
    reasons = [[text] for space in spaces for text in (space, f"{space}x")]
    items = [{"item_id": "a", "reasons": one} for one in [*reasons, [" ", "x"], [], [3], ["ä"]]]
    traces = [
        trace(f"{before}2026-11-21T10:00:00Z{after}", final_items=[item])
        for item in items
        for before, after in (("", "\u00a0"), (" ", ""), ("", "\n"))
    ]
    (manifest,) = write(
        FileLines([file_of(tmp_path / "traces", *traces)]), tmp_path / "snapshots"
    ).values()
    expected = [read_decision(one) for one in traces]
    assert [row["reason_items"] for row in rows_of(manifest)] == [
        one.reason_items for one in expected if isinstance(one, Decision)
    ]
    assert manifest.rows == len(traces)


def test_a_count_of_candidates_is_an_integer_and_nothing_like_one(tmp_path):
    counts = [
        "0",
        "-0",
        "1",
        "7",
        "1000000000",
        "1000000001",
        "-1",
        "3.0",
        "-0.0",
        "1e3",
        "1E3",
        "9223372036854775808",
    ]
    counts += ['"3"', '" 3"', "true", "null", "[3]", "NaN", "Infinity", str(10**40)]
    entries = ", ".join(f'"s{n}": {{"count": {count}}}' for n, count in enumerate(counts))
    line = json.dumps(trace())[:-1] + f', "extras": {{"candidate_sources": {{{entries}}}}}}}'
    (manifest,) = write(
        FileLines([file_of(tmp_path / "traces", line.encode())]), tmp_path / "snapshots"
    ).values()
    (row,) = rows_of(manifest)
    expected = {
        f"s{n}": count_of(json.loads(count))
        for n, count in enumerate(counts)
        if count_of(json.loads(count)) is not None
    }
    assert {one["source"]: one["candidates"] for one in row["sources"]} == expected


def test_what_has_no_field_of_a_trace_is_no_trace_as_for_the_hook(tmp_path):
    alike = [{}, {"level": "info"}, *({name: None} for name in TRACE_FIELDS)]
    lines = [{"ts": "2026-11-21T00:00:00Z", **fields} for fields in alike]
    path = file_of(tmp_path / "traces", *(json.dumps(line).encode() for line in lines))
    manifest = write(FileLines([path]), tmp_path / "snapshots")[DAY]
    assert manifest.problems == {MalformedReason.NOT_A_TRACE: 2}
    assert manifest.rows == len(TRACE_FIELDS)
    read = [read_decision(line) for line in lines]
    assert [one for one in read if not isinstance(one, Decision)] == 2 * [
        MalformedReason.NOT_A_TRACE
    ]


def test_an_organisation_with_an_id_that_names_cannot_be_is_told_and_not_counted(tmp_path):
    """Folded as names are, it would be another organisation."""
    path = file_of(
        tmp_path / "traces",
        trace(org_id=f" {'o' * 64} "),
        trace(org_id="o" * 65, decision_id="long"),
        trace(org_id="a\0b", decision_id="nul"),
        trace(org_id="a\ufffdb"),
    )
    lines = FileLines([path])
    (manifest,) = write(lines, tmp_path / "snapshots").values()
    assert manifest.organisations == {"a\ufffdb": 1, "o" * 64: 1}
    assert manifest.problems == {UNUSABLE_ORG_ID: 2}
    what = "org_id of more than 64 characters, or with NUL (decision_id '{}')"
    assert [(problem.line, problem.what) for problem in lines.problems.first] == [
        (2, what.format("long")),
        (3, what.format("nul")),
    ]


def test_without_stages_every_key_is_a_source(tmp_path):
    path = file_of(
        tmp_path / "traces", trace(extras={"candidate_sources": {"merged": {"count": 3}}})
    )
    (manifest,) = write(FileLines([path]), tmp_path / "snapshots", stages=()).values()
    (row,) = rows_of(manifest)
    assert row["sources"] == [{"source": "merged", "candidates": 3}]
