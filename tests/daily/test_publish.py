"""What the nightly job pushes and writes: figures that are right, or absent."""

from __future__ import annotations

import base64
import io
import json
import re
from datetime import date, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.stack.servers import free_port
from otel_personalization.conventions import (
    DAILY_FIGURES,
    DAILY_GAUGES,
    DAILY_LOG_FIELDS,
    LARGEST_MAX_LABEL_SETS,
)
from otel_personalization.daily import publish
from otel_personalization.daily.figures import PublishError, previous_overlap, write_lines
from otel_personalization.daily.publish import push, push_run
from otel_personalization.daily.tables import PERSONALIZATION_DAILY
from tests.daily.days import DAY, ORG, day_tables
from tests.loopback import serving

HOME = ("shop_eu", "home")
FIGURES = {
    "overlap_users": 30,
    "jaccard_mean": 0.25,
    "jaccard_mean_lower": 0.125,
    "jaccard_mean_upper": 0.5,
    "entropy_brand": 1.5,
    "entropy_brand_reliable": True,
    "entropy_brand_known_share": 0.375,
    "entropy_category": 2.5,
    "entropy_category_reliable": True,
    "entropy_category_known_share": 0.75,
}
TOLD = {
    "catalog_overlap_pct": 25.0,
    "catalog_overlap_users": 30,
    "catalog_overlap_pct_lower": 12.5,
    "catalog_overlap_pct_upper": 50.0,
    "catalog_overlap_pct_previous_day": 40.0,
    "diversity_entropy_brand": 1.5,
    "diversity_entropy_category": 2.5,
    "diversity_known_brand_share": 0.375,
    "diversity_known_category_share": 0.75,
}


def one_day(**values):
    """A day of one surface."""
    return day_tables(places=[HOME], **{**FIGURES, **values})


def daily_rows(tables):
    return tables.rows[PERSONALIZATION_DAILY.qualified_name]


def lines_of(tables, previous=None):
    stream = io.StringIO()
    write_lines(tables, stream, previous or {})
    text = stream.getvalue()
    assert text.isascii()
    assert text == "" or text.endswith("\n")
    # Strict: no NaN and no Infinity.
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


# --- lines ----------------------------------------------------------------------------------------


def test_a_line_has_the_fields_of_the_contract_and_the_figures_that_are_pushed():
    began = datetime.now(timezone.utc)
    (line,) = lines_of(one_day(), {HOME: 40.0})
    assert list(line) == [field.name for field in DAILY_LOG_FIELDS]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    made = datetime.fromisoformat(line.pop("timestamp").replace("Z", "+00:00"))
    assert began <= made <= datetime.now(timezone.utc)
    assert line == {
        "level": "INFO",
        "event": "personalization.daily",
        "day": "2026-11-21",
        "org_id": ORG,
        "namespace": "shop_eu",
        "surface": "home",
        **TOLD,
    }
    assert type(line["catalog_overlap_users"]) is int


@pytest.mark.parametrize(
    ("values", "absent"),
    [
        (
            {"overlap_users": 29},
            {"catalog_overlap_pct", "catalog_overlap_pct_lower", "catalog_overlap_pct_upper"},
        ),
        ({"jaccard_mean": None}, {"catalog_overlap_pct"}),
        ({"jaccard_mean": float("nan")}, {"catalog_overlap_pct"}),
        ({"jaccard_mean_lower": float("inf")}, {"catalog_overlap_pct_lower"}),
        ({"entropy_brand_reliable": False}, {"diversity_entropy_brand"}),
        ({"entropy_brand_reliable": None}, {"diversity_entropy_brand"}),
        ({"entropy_category": None}, {"diversity_entropy_category"}),
        ({"entropy_category_known_share": None}, {"diversity_known_category_share"}),
    ],
)
def test_what_is_not_known_well_enough_is_null(values, absent):
    (line,) = lines_of(one_day(**values), {HOME: 40.0})
    for name, value in (TOLD | {"catalog_overlap_users": values.get("overlap_users", 30)}).items():
        assert line[name] == (None if name in absent else value), name


def test_without_a_day_before_there_is_no_figure_of_it():
    (line,) = lines_of(one_day(), {("shop_eu", "cart"): 40.0})
    assert line["catalog_overlap_pct_previous_day"] is None


def test_only_surfaces_with_every_cohort_and_device_have_a_line():
    lines = lines_of(day_tables())
    assert [(line["namespace"], line["surface"]) for line in lines] == [
        ("shop_eu", "home"),
        ("shop_eu", "cart"),
    ]


def test_the_overlap_of_a_day_is_the_previous_one_of_the_next():
    tables = day_tables(**FIGURES)
    assert previous_overlap(tables, daily_rows(tables)) == dict.fromkeys(
        [("shop_eu", "home"), ("shop_eu", "cart")], 25.0
    )
    assert previous_overlap(tables, daily_rows(one_day(overlap_users=29))) == {}
    assert previous_overlap(tables, daily_rows(day_tables(places=[]))) == {}
    assert previous_overlap(day_tables(places=[]), daily_rows(tables)) == {}


@pytest.mark.parametrize("setting", ["overlap_k", "overlap_window_days"])
def test_an_overlap_of_another_k_or_window_is_no_previous_one(setting):
    before = daily_rows(day_tables(**FIGURES, **{setting: 20}))
    assert previous_overlap(day_tables(**FIGURES, **{setting: 10}), before) == {}
    assert len(previous_overlap(day_tables(**FIGURES, **{setting: 20}), before)) == 2


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(TEXT, TEXT.filter(lambda surface: surface != "all"))
def test_any_name_gives_one_line_of_ascii(namespace, surface):
    (line,) = lines_of(day_tables(places=[(namespace, surface)]))
    assert (line["namespace"], line["surface"]) == (namespace[:256], surface[:256])


def test_a_long_name_is_cut():
    (line,) = lines_of(day_tables(places=[("n" * 257, "s" * 256)]))
    assert (line["namespace"], line["surface"]) == ("n" * 255 + "…", "s" * 256)


# --- what is sent ---------------------------------------------------------------------------------


class Fake:
    """A Pushgateway that answers as it is told, and keeps what it was sent.

    Args:
        statuses: of the answers to come; after them 200.
        body: of the answers that are 200.
        elsewhere: where the others lead, if they lead anywhere.
    """

    def __init__(
        self,
        *statuses: int,
        body: bytes = b'{"status": "success", "data": []}',
        elsewhere: str = "http://127.0.0.1:1/elsewhere",
    ) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[str, str, str]] = []
        self.authorizations: list[str | None] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                fake.requests.append((self.command, self.path, sent))
                fake.authorizations.append(self.headers.get("Authorization"))
                status = fake.statuses.pop(0) if fake.statuses else 200
                answer = body if status == 200 else b"the reason\nof it"
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", elsewhere)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                pass

        for method in ("GET", "PUT", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)
        self.serving = serving(Handler)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Nobody pauses between attempts."""
    monkeypatch.setattr(publish, "RETRY_SECONDS", (0, 0))


def test_a_push_asks_once_and_puts_once():
    fake = Fake()
    with fake.serving as url:
        pushed = push(url, one_day(), {HOME: 40.0})
    assert (pushed.newer_day, pushed.left_out) == (None, ())
    (asked, put) = fake.requests
    assert asked[:2] == ("GET", "/api/v1/metrics")
    assert put[0] == "PUT"
    assert put[1].startswith("/metrics/job/personalization_daily/org_id")
    names = set(re.findall(r"^# TYPE (\S+) gauge$", put[2], re.MULTILINE))
    assert names == {
        gauge.prometheus_name for gauge in DAILY_GAUGES if "last_run" not in gauge.prometheus_name
    }


def test_gauges_without_a_value_are_not_sent_at_all():
    fake = Fake()
    with fake.serving as url:
        push(url, one_day(overlap_users=2, entropy_brand_reliable=False), {})
    sent = fake.requests[-1][2]
    for absent in ("catalog_overlap_pct", "diversity_entropy_brand"):
        assert absent not in sent
    assert 'catalog_overlap_users{recsys_namespace="shop_eu",surface="home"} 2.0' in sent


def test_the_busiest_surfaces_are_pushed_and_the_others_are_told():
    many = [("shop", f"s{number}") for number in range(LARGEST_MAX_LABEL_SETS + 4)]
    tables = day_tables(places=many)
    fake = Fake()
    with fake.serving as url:
        pushed = push(url, tables, {})
    sent = re.findall(r'catalog_overlap_users\{.*surface="(.*)"\}', fake.requests[-1][2])
    # `day_tables` gives each row one decision more than the one before.
    assert set(sent) == {surface for _, surface in many[4:]}
    assert set(pushed.left_out) == set(many[:4])


def test_a_failed_run_is_one_put_of_its_own():
    fake = Fake()
    with fake.serving as url:
        push_run(url, success=False, org_id=ORG)
        push_run(url, success=True)
    (failed, succeeded) = fake.requests
    assert failed[0] == succeeded[0] == "PUT"
    assert failed[1].startswith("/metrics/job/personalization_daily_run/org_id")
    assert succeeded[1] == "/metrics/job/personalization_daily_run"
    assert "personalization_daily_last_run_success 0.0" in failed[2]
    assert "personalization_daily_last_run_success 1.0" in succeeded[2]


def metrics(day, org_id=ORG, job="personalization_daily"):
    """A group, as the Pushgateway tells it."""
    labels = {"job": job, "org_id": org_id}
    seconds = (day - date(1970, 1, 1)) / timedelta(seconds=1)
    family = {"metrics": [{"labels": labels, "value": f"{seconds:.10e}"}]}
    return {
        "labels": labels,
        "last_push_successful": True,
        "personalization_daily_date_seconds": family,
    }


@pytest.mark.parametrize(
    ("groups", "is_pushed"),
    [
        ([metrics(DAY + timedelta(1))], False),
        ([metrics(DAY)], True),
        ([metrics(DAY - timedelta(1))], True),
        ([metrics(DAY + timedelta(1), "other")], True),
        ([metrics(DAY + timedelta(1), job="other")], True),
        ([{"labels": {"job": "personalization_daily", "org_id": ORG}}], True),
    ],
)
def test_a_day_is_pushed_unless_a_later_one_of_the_organisation_is_there(groups, is_pushed):
    fake = Fake(body=json.dumps({"data": groups}).encode())
    with fake.serving as url:
        pushed = push(url, one_day(), {})
    assert pushed.newer_day == (None if is_pushed else DAY + timedelta(1))
    assert [request[0] for request in fake.requests] == ["GET", "PUT"][: 1 + is_pushed]


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"data": [1]}', b'{"data": {"a": 1}}'])
def test_what_is_no_pushgateway_gets_nothing(body):
    fake = Fake(body=body)
    with fake.serving as url, pytest.raises(PublishError, match="is none of a Pushgateway"):
        push(url, one_day(), {})
    assert [request[0] for request in fake.requests] == ["GET"]


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503])
def test_an_answer_that_may_change_is_asked_for_thrice(status):
    fake = Fake(status, status)
    with fake.serving as url:
        push_run(url, success=True)
    assert len(fake.requests) == 3
    fake = Fake(status, status, status)
    with fake.serving as url, pytest.raises(PublishError, match=f"answers {status}: the reason of"):
        push_run(url, success=True)
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (301, "without a redirect"),
        (400, "look at its log"),
        (401, "put name and password into its URL"),
        (403, "put name and password into its URL"),
        (404, "see that the URL is its base URL"),
    ],
)
def test_a_refusal_is_told_at_once_with_what_to_do(status, remedy):
    fake = Fake(status)
    with fake.serving as url, pytest.raises(PublishError) as raised:
        push_run(url, success=True)
    assert len(fake.requests) == 1
    assert f"the Pushgateway {url} answers {status}: the reason of it; " in str(raised.value)
    assert remedy in str(raised.value)


def test_pauses_are_short_and_few(monkeypatch):
    monkeypatch.undo()
    pauses: list[float] = []
    monkeypatch.setattr(publish.time, "sleep", pauses.append)
    with pytest.raises(PublishError, match="cannot be reached"):
        push_run(f"http://127.0.0.1:{free_port()}", success=True)
    assert pauses == [0.5, 2.0]


def test_a_pushgateway_that_is_down_is_named():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(PublishError) as raised:
        push(url, one_day(), {})
    assert str(raised.value).startswith(f"the Pushgateway {url} cannot be reached: ")
    assert str(raised.value).endswith("then run the day again")


def test_name_and_password_of_the_url_are_sent_and_never_shown():
    fake = Fake(200, 200, 200, 403, 301)
    with fake.serving as url:
        with_password = url.replace("//", "//bob:hidden%2Fword@")
        push(with_password, one_day(), {})
        push_run(with_password, success=True)
        for _ in range(2):
            with pytest.raises(PublishError) as raised:
                push_run(with_password, success=True)
            assert "hidden" not in str(raised.value)
            assert "bob" not in str(raised.value)
            assert url in str(raised.value)
    expected = "Basic " + base64.b64encode(b"bob:hidden/word").decode()
    assert set(fake.authorizations) == {expected}


def test_where_a_pushgateway_redirects_to_sees_no_password():
    other = Fake()
    with other.serving as elsewhere:
        fake = Fake(302, elsewhere=f"{elsewhere}/api/v1/metrics")
        with fake.serving as url:
            push(url.replace("//", "//bob:hidden@"), one_day(), {})
    assert other.authorizations == [None]
    assert [request[0] for request in fake.requests] == ["GET", "PUT"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "ftp://bob:hidden@127.0.0.1",
        "http://bob:hidden",
        "http://bob:hidden@",
        "http://bob:hidden@127.0.0.1:port",
        "http://bob:hidden@127.0.0.1:99999",
        "http://bob:hid\nden@127.0.0.1:9 091",
        "http://bob:hidden@hört.invalid",
        "http://bob:hid/den@127.0.0.1:0",
        "http://[::1",
    ],
)
def test_a_url_that_is_none_is_an_error_that_shows_no_password(url):
    for send in (lambda: push(url, one_day(), {}), lambda: push_run(url, success=True)):
        with pytest.raises(PublishError, match="none of HTTP") as raised:
            send()
        assert "hid" not in str(raised.value).replace("hidden, for", "")
        assert "bob" not in str(raised.value)


def test_a_host_needs_no_scheme():
    fake = Fake()
    with fake.serving as url:
        push_run(url.removeprefix("http://"), success=True)
    assert len(fake.requests) == 1


def test_any_name_can_be_sent():
    fake = Fake()

    @given(org_id=TEXT, places=st.lists(st.tuples(TEXT, TEXT), max_size=3, unique=True))
    @settings(deadline=None)
    def sent(org_id, places):
        places = [place for place in places if place[1] != "all"]
        push(url, day_tables(org_id=org_id, places=places), {})
        path = fake.requests[-1][1]
        assert re.fullmatch(r"/metrics/job/personalization_daily/org_id@base64/[\w%-]+", path)

    with fake.serving as url:
        sent()


def test_every_figure_is_pushed_and_logged_under_one_name():
    assert [gauge.prometheus_name for gauge in DAILY_FIGURES] == list(TOLD)
