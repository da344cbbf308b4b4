"""The nightly report, read as text; `tests/e2e/test_report_browser.py` looks at it in a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from monitoring.prometheus.values import load
from otel_personalization.daily.report import estimates, parts, plots, render, words
from otel_personalization.daily.report.days import everybody
from otel_personalization.daily.report.estimates import Estimate
from otel_personalization.daily.tables import (
    ALL,
    PERSONALIZATION_DAILY,
    TABLES,
    DayTables,
    Kind,
    OutcomeQuality,
)
from tests.daily.report_data import (
    DAY,
    HOSTILE,
    ORG,
    SHOPS,
    Days,
    Surface,
    arrow,
    empty_tables,
    history_of,
    tables_of,
)

SHOP = replace(SHOPS, surfaces={"shop_eu": SHOPS.surfaces["shop_eu"][:2]})
MADE_AT = datetime(2026, 11, 24, 3, 12, tzinfo=timezone.utc)
ONE = Days({"shop": [Surface("home", 1200, 0.6)]}, history_days=0)


def report(days: Days) -> str:
    return render(tables_of(days), history_of(days), made_at=MADE_AT)


@pytest.fixture(scope="module")
def shops() -> str:
    return report(SHOPS)


class Page(HTMLParser):
    """What stands in a page: tags, attributes, and text by the tag that it is in."""

    VOID = ("meta", "link", "use")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "tags are left open"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "tags are crossed"

    def handle_data(self, data: str) -> None:
        data = data.replace("\u00a0", " ")
        if "style" not in self._open:
            self.texts.append(data)
        if self._open and {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def row(self, *begins: str) -> list[str]:
        """The first row that begins so."""
        return next(row for row in self.rows if tuple(row[: len(begins)]) == begins)


# --- estimates --------------------------------------------------------------------------------


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_share_is_wilsons(counted: tuple[int, int]) -> None:
    items, of = counted
    estimate = estimates.share(items, of, effective=of)
    expected = binomtest(items, of).proportion_ci(method="wilson")
    assert estimate is not None
    assert estimate.lower == pytest.approx(expected.low, abs=1e-9)
    assert estimate.upper == pytest.approx(expected.high, abs=1e-9)


def test_an_interval_is_as_wide_as_effective_decisions_make_it_not_items():
    few, many = estimates.share(600, 1000, 50), estimates.share(600, 1000, 1000)
    assert few is not None
    assert many is not None
    assert few.upper - few.lower > 4 * (many.upper - many.lower)


@pytest.mark.parametrize(
    ("now", "before", "lower", "upper"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090)],
)
def test_the_interval_of_a_difference_is_that_of_newcombes_paper(now, before, lower, upper):
    """Table II of Newcombe (1998), method 10."""
    difference = estimates.change(
        *(Estimate(*_wilson(items, of)) for items, of in (now, before)),
    )
    assert difference.lower == pytest.approx(lower, abs=5e-5)
    assert difference.upper == pytest.approx(upper, abs=5e-5)


def _wilson(items: int, of: int) -> tuple[float, float, float]:
    limits = binomtest(items, of).proportion_ci(method="wilson")
    return items / of, limits.low, limits.high


def test_a_share_of_nothing_has_no_interval():
    assert estimates.share(0, 0, None) is None
    assert estimates.share(None, 10, 10) is None
    assert estimates.requested_share({"reason_requested_items": 0, "served_items": 9}) is None


# --- what is said -----------------------------------------------------------------------------


def test_the_tables_hold_the_numbers_of_the_warehouse(shops):
    rows = tables_of(SHOPS).rows[PERSONALIZATION_DAILY.qualified_name].to_pylist()
    page = Page(shops)
    for row in everybody(rows):
        if row["surface"] != ALL and row["namespace"] == "shop_eu":
            shown = page.row(row["surface"], f"{100 * row['personalized_impression_rate']:.1f} %")
            assert f"{row['served_items']:,}" in shown
            assert f"{row['decisions']:,}" in shown


def test_a_fall_is_said_with_its_interval_and_an_unchanged_share_is_no_clear_change(shops):
    page = Page(shops)
    assert re.search(r"▼ pdp: personalised share fell by \d\.\d points since yesterday", page.text)
    row = page.row("pdp", "personalised share")
    assert re.fullmatch(r"▼ \u2212\d\.\d points \(\u2212\d+\.\d to \u2212\d\.\d\)", row[4])
    assert page.row("home", "requested coverage")[4].startswith("no clear change (\u2212")


def test_a_day_that_is_not_on_record_is_no_data_and_compared_with_nothing():
    page = Page(report(replace(SHOP, missing=(1,), drop={})))
    row = page.row("home", "personalised share")
    assert row[3:5] == ["no data", "no data"]
    assert row[5].endswith("%")
    assert "no data of yesterday" in page.text


def test_other_days_that_are_on_record_are_not_said_to_be_missing():
    page = Page(report(replace(ONE, history_days=3, missing=(1,))))
    assert "2 earlier days on record" in page.text
    assert (
        "No figure of yesterday, or of the same weekday last week, is there to compare with."
        in page.text
    )
    assert "no other day" not in page.text


def test_one_clear_change_is_one():
    surfaces = [Surface("home", 20_000, 0.6), Surface("cart", 900, 0.6)]
    page = Page(report(Days({"shop": surfaces}, history_days=1)))
    assert re.search(r"1 of \d+ comparisons shows a clear change", page.text)


@pytest.mark.parametrize("part", [parts.share, parts.coverage])
def test_a_namespace_that_served_nothing_has_words_in_place_of_a_drawing(part):
    keys = {"day": DAY, "org_id": ORG, "namespace": "shop", "cohort": ALL, "device": ALL}
    rows = [
        {**keys, "surface": surface, "decisions": 3, "empty_decisions": 3, "served_items": 0}
        for surface in (ALL, "home")
    ]
    assert part(rows, [], "shop").notes == ["Nothing was served, so there is no share to draw."]


def test_overlap_is_not_compared_with_that_of_another_k():
    history = history_of(SHOP)
    name = PERSONALIZATION_DAILY.qualified_name
    rows = [row | {"overlap_k": 20} for row in history[name].to_pylist()]
    history[name] = arrow(PERSONALIZATION_DAILY, rows)
    page = Page(render(tables_of(SHOP), history, made_at=MADE_AT))
    assert page.row("home", "overlap")[4] == "not comparable: another K or window"


def test_only_earlier_days_of_the_organisation_are_compared_with():
    own = history_of(replace(ONE, history_days=1))
    odd = {
        name: pa.concat_tables(
            [table, _moved(table, days=1), _moved(table, days=3), _moved(table, org_id="another")]
        )
        for name, table in own.items()
    }
    tables = tables_of(ONE)
    assert render(tables, odd, made_at=MADE_AT) == render(tables, own, made_at=MADE_AT)


def _moved(table: pa.Table, days: int = 0, org_id: str = ORG) -> pa.Table:
    rows = [
        row | {"day": row["day"] + timedelta(days=days), "org_id": org_id, "decisions": 7}
        for row in table.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_null_is_said_and_never_shown_as_0():
    row = {
        "day": DAY,
        "org_id": ORG,
        "namespace": "quiet",
        "surface": ALL,
        "cohort": ALL,
        "device": ALL,
        "decisions": 3,
        "empty_decisions": 3,
        "served_items": 0,
        "personalized_items": 0,
        "reason_items": 0,
        "reason_requested_items": 0,
    }
    rows = [row, row | {"surface": "home", "overlap_users": 1}]
    page = Page(render(_of(rows), {}, made_at=MADE_AT))
    assert page.row("home", "no data", "no data")
    assert page.row("home", "all", "all", "too few users", "too few users")
    assert "0.0 %" not in page.text
    assert "svg" not in page.tags


def _of(rows: list[dict[str, Any]]) -> DayTables:
    table = PERSONALIZATION_DAILY
    return replace(empty_tables(), rows={table.qualified_name: arrow(table, rows)})


@pytest.mark.parametrize(
    ("p_value", "says", "does_not_say"),
    [
        (0.43, "They compare, if users were split at random, each to one: only then", "not known"),
        (0.00099, "do not have the users that they should", "if users were split at random"),
        (None, "correlation, not proof: it is not known how users were split", "at random"),
    ],
)
def test_no_cause_is_claimed_since_an_even_split_need_not_be_a_random_one(
    p_value, says, does_not_say
):
    """Variants that are devices can have as many users each, too."""
    text = Page(report(replace(SHOP, history_days=0, p_value=p_value))).text
    assert says in text
    assert does_not_say not in text
    assert "caused" not in text
    assert "several variants" not in text
    assert "Between surfaces, and between personalised and other items, it is correlation" in text


@pytest.mark.parametrize("p_value", [0.43, 0.00099, None])
def test_that_users_had_several_variants_is_said_before_anything_else_of_them(p_value):
    days = replace(SHOP, history_days=0, p_value=p_value, several=900)
    (note,) = (text for text in Page(report(days)).texts if text.startswith("Experiment "))
    assert note.startswith("Experiment blend-2026-11: no comparison of separate users. 900 of ")
    assert re.search(r"900 of 3,\d{3} users \(2\d\.\d %\) were served several variants", note)


def test_without_outcomes_there_is_no_click_through():
    text = Page(report(replace(SHOP, history_days=0, with_outcomes=False))).text
    assert "No outcomes were given, so there is no CTR" in text
    assert "Share and CTR" not in text
    assert "Blend weights on record" in text


def test_outcomes_that_were_given_but_are_of_no_item_here_are_not_said_to_be_missing():
    given = OutcomeQuality({"impression": 7}, {}, 7, 0, 0, 0, 0)
    tables = tables_of(replace(SHOP, history_days=0, with_outcomes=False))
    tables = replace(tables, quality=replace(tables.quality, outcomes=given))
    page = Page(render(tables, {}, made_at=MADE_AT))
    assert page.row("outcomes of other decisions than the day's", "7")
    assert "No outcomes were given" not in page.text
    assert "No outcome is an impression of what was served here" in page.text


def test_a_source_that_fell_silent_is_told_and_one_that_always_was_is_not(shops):
    notes = re.findall(r"▼ (\w+) found nothing in any of", Page(shops).text)
    assert notes == ["collaborative"]  # of shop_eu; in media it never finds anything
    assert "it last did on 22 Nov" in shops


def test_entropy_that_is_not_reliable_has_no_interval_and_is_drawn_hatched():
    html = report(replace(ONE, reliable=False))
    page = Page(html)
    assert "Brand: not reliable on 2 of 2 rows." in page.text
    assert any(row[:1] == ["home"] and row.count("not reliable") == 2 for row in page.rows)
    assert page.tags["pattern"] == 2
    assert Page(report(ONE)).tags["pattern"] == 0


@pytest.mark.parametrize(("reliable", "said"), [(True, r"\d+"), (False, "not reliable")])
def test_a_number_of_brands_that_is_not_reliable_is_not_among_the_figures_read_first(
    reliable, said
):
    page = Page(report(replace(ONE, reliable=reliable)))
    assert re.search(f"effective brands {said} served items", " ".join(page.text.split()))


def test_thirty_surfaces_are_capped_in_plots_and_all_in_tables():
    surfaces = [Surface(f"surface {n:02}", round(20_000 * 0.75**n), 0.6) for n in range(30)]
    html = report(Days({"shop": surfaces}, history_days=1))
    page = Page(html)
    assert "Drawn are the 12 with the most served items; 18 more stand in the table" in page.text
    assert "18 others" in page.text
    assert page.tags["figure"] == 1 + 1 + 12 + 2
    for surface in surfaces:
        assert any(row[0] == surface.name and len(row) == 11 for row in page.rows)
    drawn = set(re.findall(r"<text [^>]*>(surface \d\d)</text>", html))
    assert drawn == {surface.name for surface in surfaces[:12]}


@pytest.mark.parametrize("history_days", [0, 1, 28])
def test_one_surface_is_enough(history_days):
    page = Page(report(replace(ONE, history_days=history_days)))
    assert page.row("home", "personalised share")
    assert page.tags["svg"] == 5


def test_a_day_without_decisions_says_so():
    page = Page(render(empty_tables(), {}, made_at=MADE_AT))
    assert "No decision of this day was counted" in page.text
    assert page.row("decisions that were counted", "0")
    assert "svg" not in page.tags


def test_the_report_marks_what_the_rules_mark():
    """The package cannot read their values."""
    values = load()
    assert pytest.approx(values["overlap"]["max_pct"]) == 100 * plots.OVERLAP_LIMIT
    assert values["reason_coverage"]["target"] == plots.COVERAGE_TARGET


def test_data_quality_is_told(shops):
    page = Page(shops)
    assert page.row("lines that are no JSON, skipped", "2")
    assert page.row("rests of damaged files, of an unknown number of lines", "1")
    assert page.row("malformed traces", "4")
    assert page.row("malformed: no items", "3")
    assert page.row("cohort from the days before", "6,000")
    assert page.row("device from the bandit's bucket key", "2,900")
    assert page.row("shop_eu", "7.0 %", "45.0 %", "62.0 %")


def test_days_of_the_window_without_a_snapshot_are_said_where_overlap_is_and_in_data_quality():
    def page(tables):
        return Page(render(tables, {}, made_at=MADE_AT))

    tables = tables_of(ONE)
    name = PERSONALIZATION_DAILY.qualified_name
    rows = [row | {"overlap_window_days": 5} for row in tables.rows[name].to_pylist()]
    tables = replace(tables, rows={**tables.rows, name: arrow(PERSONALIZATION_DAILY, rows)})
    assert page(tables).row("days of the window without a snapshot", "0")
    assert "lists of the last 5 days)" in page(tables).text
    missing = (DAY - timedelta(days=3), DAY - timedelta(days=1))
    tables = replace(tables, quality=replace(tables.quality, missing_window_days=missing))
    assert page(tables).row("days of the window without a snapshot", "2")
    assert "lists of the last 5 days, 2 of them without a snapshot)" in page(tables).text


def test_each_plot_says_how_to_read_it_and_has_a_name_and_a_table(shops):
    page = Page(shops)
    namespaces, parts = 2, 7
    how = [value for name, value in page.attributes if (name, value) == ("class", "how")]
    assert len(how) == namespaces * parts + 2
    assert page.tags["svg"] == page.tags["title"] - 1 == page.tags["desc"]


# --- the page ---------------------------------------------------------------------------------


def test_the_same_tables_give_the_same_page_to_the_byte():
    program = (
        "from tests.daily.test_report import *; import hashlib;"
        "print(hashlib.sha256(report(replace(SHOP, history_days=2)).encode()).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(printed) == 1


def test_the_page_refers_to_nothing_outside_and_runs_no_script(shops):
    page = Page(shops)
    assert "script" not in page.tags
    urls = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert {url for url in urls if not url.startswith("#")} == {"data:,"}
    assert set(re.findall(r"https?://[^\"' ]*", shops)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)\)", shops))
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_ids_are_told_apart_and_references_are_met(shops):
    ids = [value for name, value in Page(shops).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    references = re.findall(r"(?:url\(|href=\")#([^)\"]+)", shops)
    references += re.findall(r"aria-labelledby=\"([^\"]+)\"", shops)
    assert set(references) <= set(ids)


def test_a_report_of_two_shops_stays_small(shops):
    assert len(shops.encode()) < 600_000


def test_made_at_needs_a_time_zone():
    with pytest.raises(ValueError, match="time zone"):
        render(tables_of(ONE), {}, made_at=MADE_AT.replace(tzinfo=None))


# --- hostile names and numbers ----------------------------------------------------------------

TAGS = frozenset(
    re.findall(
        r"\w+",
        "a bdi body caption clippath dd defs desc details div dl dt figure footer g h1 h2 h3 h4 "
        "head header html li link main meta nav p path pattern rect section span style summary svg "
        "table tbody td text th thead title tr ul use",
    )
)
"""What a page is made of."""


@settings(max_examples=12)
@given(
    st.lists(
        st.one_of(st.text(min_size=1, max_size=70), st.sampled_from(HOSTILE)),
        min_size=4,
        max_size=4,
        unique=True,
    )
)
@example(list(HOSTILE[:4]))
@example(list(HOSTILE[4:8]))
@example(list(HOSTILE[8:12]))
def test_names_from_traces_are_text_whatever_they_look_like(names):
    namespace, surface, device, variant = (
        f"{name}_" if name in (ALL, "none", "new", "returning", "unknown") else name
        for name in names
    )
    tables = tables_of(
        Days({namespace: [Surface(surface, 300, 0.6)]}, experiment="e", with_outcomes=True)
    )
    rows = {}
    for table in TABLES:
        renamed = [
            row
            | {"device": device if row.get("device") == "web" else row.get("device")}
            | {"variant": variant if row.get("variant") == "control" else row.get("variant")}
            for row in tables.rows[table.qualified_name].to_pylist()
        ]
        rows[table.qualified_name] = arrow(table, renamed)
    html = render(replace(tables, rows=rows), {}, made_at=MADE_AT)
    html.encode("utf-8")
    page = Page(html)
    assert set(page.tags) <= TAGS
    for name in (namespace, surface, variant):
        assert words.clean(name).replace("\u00a0", " ") in page.text
    ids = [value for attribute, value in page.attributes if attribute == "id"]
    assert len(ids) == len(set(ids))
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 7
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_what_is_no_text_becomes_the_replacement_character():
    assert words.clean("a\ud800b\x00c\u202ed\ne") == "a\ufffdb\ufffdc\ufffdd\ufffde"


def test_dollars_are_no_formula():
    html = report(Days({"shop": [Surface("$x^2$", 300, 0.6)]}, history_days=0))
    assert "$x^2$</text>" in html


@given(st.text(max_size=60), st.integers(2, 40))
def test_a_cut_name_fits_and_begins_as_the_name_does(name, cells):
    cut = plots.short(name, cells)
    assert len(cut) <= cells
    assert words.clean(name).startswith(cut.removesuffix("…"))


_ODD: dict[Kind, Any] = {
    Kind.INTEGER: st.sampled_from([None, 0, -1, 1, 2**62]),
    Kind.NUMBER: st.sampled_from(
        [None, float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1.0, 5e-324, 1e300]
    ),
    Kind.BOOLEAN: st.sampled_from([None, True, False]),
}
_PLAUSIBLE = {
    table.qualified_name: rows[table.qualified_name].to_pylist()
    for table in TABLES
    for rows in (tables_of(replace(ONE, experiment="e", with_outcomes=True)).rows,)
}


@st.composite
def odd_cells(draw: st.DrawFn) -> tuple[str, str, Any]:
    """A column of a table, and what stands in it in every row."""
    table = draw(st.sampled_from(TABLES))
    column = draw(st.sampled_from([column for column in table.columns if not column.is_key]))
    return table.qualified_name, column.name, draw(_ODD[column.kind])


@settings(max_examples=15)
@given(st.lists(odd_cells(), max_size=25))
@example([(name, column, None) for name, rows in _PLAUSIBLE.items() for column in rows[0]][10:])
def test_no_number_breaks_the_page(cells):
    """A warehouse may have been filled by another program, or by hand."""
    keys = {column.name for table in TABLES for column in table.key}
    odd: dict[str, dict[str, Any]] = {}
    for name, column, value in cells:
        if column not in keys:
            odd.setdefault(name, {})[column] = value
    today, before = {}, {}
    for table in TABLES:
        name = table.qualified_name
        rows = [row | odd.get(name, {}) for row in _PLAUSIBLE[name]]
        today[name] = arrow(table, rows)
        before[name] = _moved(arrow(table, _PLAUSIBLE[name]), days=-1)
    tables = replace(empty_tables(), rows=today)
    page = Page(render(tables, before, made_at=MADE_AT))
    assert not {"nan", "inf"} & set(re.findall("[a-z]+", page.text.lower()))
    assert not any("None" in cell for row in page.rows for cell in row)


def test_numbers_are_written_with_their_signs_and_without_a_signed_0():
    assert words.signed(-5.14, 1) == "\u22125.1"
    assert words.signed(2.0, 1) == "+2.0"
    assert words.signed(-0.04, 1) == "0.0"
    assert words.percent(None) == "no data"
