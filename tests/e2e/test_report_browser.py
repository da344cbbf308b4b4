"""The nightly report in a real browser, on a desk, on a telephone and on paper."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from otel_personalization.daily.report import render
from tests.daily.report_data import (
    HOSTILE,
    SHOPS,
    Days,
    Surface,
    empty_tables,
    history_of,
    tables_of,
)

AXE = Path(__file__).parents[2] / ".tools" / "bin" / "axe.min.js"
MADE_AT = datetime(2026, 11, 24, 3, 12, tzinfo=timezone.utc)
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK, A4, TELEPHONE = 1200, 703, 360
"""Widths in CSS pixels; of paper without its margins."""
MOST_PAGES = {"shops": 24, "many": 68, "empty": 2}
"""Of A4, by report; of a full one a few more than it takes."""

MANY = Days(
    {
        HOSTILE[0]: [
            Surface(name, round(4000 * 0.8**n), 0.9 - 0.06 * n, overlap=0.08 * n)
            for n, name in enumerate(HOSTILE)
        ],
        "x" * 120: [Surface(f"surface {n:02}", round(9000 * 0.8**n), 0.6) for n in range(30)],
    },
    history_days=2,
    experiment=HOSTILE[1],
    with_outcomes=True,
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.fail("these tests need Chromium: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    browser.set_script_timeout(300)  # axe takes a minute for the longest page on a busy machine
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module", params=["shops", "many", "empty"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a report."""
    if request.param == "empty":
        html = render(empty_tables(), {}, made_at=MADE_AT)
    else:
        days = {"shops": SHOPS, "many": MANY}[request.param]
        html = render(tables_of(days), history_of(days), made_at=MADE_AT)
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(html, encoding="utf-8")
    return file.as_uri()


def visit(browser: Chrome, page: str, width: int) -> None:
    """Show a page, in a window as wide as this; what was logged before is forgotten."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width != DESK}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page)


def requests(browser: Chrome) -> set[str]:
    """The URLs that were asked for since."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }


def test_nothing_is_asked_of_any_server_and_the_console_is_silent(browser, page):
    visit(browser, page, DESK)
    assert requests(browser) - {"data:,"} == {page}
    assert browser.get_log("browser") == []


def test_names_from_traces_run_nothing_and_make_no_elements(browser, page):
    visit(browser, page, DESK)
    found = browser.execute_script(
        "return document.querySelectorAll('script, img, iframe, b, [onerror], [onload]').length"
    )
    assert found == 0


@pytest.mark.parametrize("width", [DESK, TELEPHONE])
def test_axe_finds_no_fault(browser, page, width, measure):
    visit(browser, page, width)
    if not AXE.exists():
        pytest.fail("this test needs axe: make axe")
    # It looks at what is shown, so everything is.
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    result = browser.execute_async_script(
        "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(done)"
    )
    faults = {
        fault["id"]: [node["html"][:200] for node in fault["nodes"]]
        for fault in result["violations"]
    }
    assert faults == {}
    measure(f"{len(result['passes'])} rules of axe passed at {width} px")


@pytest.mark.parametrize("all_open", [False, True])
def test_the_page_is_no_wider_than_a_telephone(browser, page, all_open):
    visit(browser, page, TELEPHONE)
    if all_open:
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") == TELEPHONE
    # A wide table scrolls in a box of its own, which the keyboard reaches.
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].map(b => "
        "[b.tabIndex, b.getBoundingClientRect().right])"
    )
    assert all(tab_index == 0 and right <= TELEPHONE for tab_index, right in boxes)


def test_text_in_plots_is_legible_on_a_telephone_and_stays_within_them(browser, page):
    visit(browser, page, TELEPHONE)
    texts: list[list[Any]] = browser.execute_script(
        """
        return [...document.querySelectorAll('svg text')].map(text => {
            const box = text.getBoundingClientRect();
            const plot = text.closest('svg').getBoundingClientRect();
            const size = parseFloat(getComputedStyle(text).fontSize);
            const scale = plot.width / text.closest('svg').viewBox.baseVal.width;
            return [text.textContent, size * scale, box.left - plot.left, plot.right - box.right];
        })
        """
    )
    assert [text for text in texts if text[1] < 8.5] == []
    # A little may stand out, into the margin of the page.
    assert [text for text in texts if min(text[2:]) < -10] == []


def test_all_rows_are_printed_closed_tables_too(browser, page):
    visit(browser, page, A4)
    rows = browser.execute_script("return document.querySelectorAll('tbody tr').length")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        heights = browser.execute_script(
            "return [...document.querySelectorAll('tbody tr')].filter(row => row.checkVisibility())"
            ".map(row => row.getBoundingClientRect().height)"
        )
        width = browser.execute_script("return document.documentElement.scrollWidth")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(heights) == rows
    assert min(heights) > 0
    assert width == A4
    if rows < 400:  # the names of the long one are long, too
        assert max(heights) < 60


def test_on_paper_no_page_is_wasted(request, browser, page, measure):
    visit(browser, page, DESK)
    printed = browser.execute_cdp_cmd(
        "Page.printToPDF", {"preferCSSPageSize": True, "paperWidth": 8.27, "paperHeight": 11.69}
    )
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF-")
    pages = pdf.count(b"/Type /Page\n") or pdf.count(b"/Type /Page ")
    assert 1 <= pages <= MOST_PAGES[request.node.callspec.params["page"]]
    measure(f"{pages} pages of A4, {len(pdf) / 1024:.0f} KiB")
