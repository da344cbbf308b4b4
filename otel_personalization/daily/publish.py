"""Tells what the nightly job found: to Prometheus, through a Pushgateway, and to Loki, in lines.

::

    previous = previous_overlap(
        day_tables, warehouse.read(PERSONALIZATION_DAILY, org_id, before, before)
    )
    push("http://localhost:9091", day_tables, previous)
    write_lines(day_tables, sys.stdout, previous)
    push_run("http://localhost:9091", success=True)

The figures of an organisation are one group of the Pushgateway, replaced as a whole by one PUT: a
surface that is gone takes its series along. A run that failed leaves them as they are, and only
says that it failed, in a group of its own. Both groups have the label ``org_id``, so that runs for
several organisations do not replace each other; Prometheus has to scrape with ``honor_labels``.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from datetime import time as time_of_day
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client import CollectorRegistry, delete_from_gateway, push_to_gateway
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from otel_personalization.conventions import (
    CATALOG_OVERLAP,
    CATALOG_OVERLAP_LOWER,
    CATALOG_OVERLAP_PREVIOUS_DAY,
    CATALOG_OVERLAP_UPPER,
    CATALOG_OVERLAP_USERS,
    DAILY_DATE,
    DAILY_EVENT,
    DAILY_FIGURES,
    DAILY_JOB,
    DAILY_LAST_RUN_SUCCESS,
    DAILY_LAST_RUN_TIMESTAMP,
    DAILY_ORG,
    DAILY_RUN_JOB,
    DAILY_SUCCESS_TIMESTAMP,
    DIVERSITY_ENTROPY_BRAND,
    DIVERSITY_ENTROPY_CATEGORY,
    DIVERSITY_KNOWN_BRAND_SHARE,
    DIVERSITY_KNOWN_CATEGORY_SHARE,
    LARGEST_MAX_LABEL_SETS,
    MAX_LOG_VALUE_LENGTH,
    MIN_OVERLAP_USERS,
    Gauge,
)
from otel_personalization.daily.tables import (
    ALL,
    OVERLAP_SETTINGS,
    PERSONALIZATION_DAILY,
    DayTables,
)
from otel_personalization.prometheus_api import authorization_of, without_credentials

TIMEOUT_SECONDS: Final = 10.0
RETRY_SECONDS: Final = (0.5, 2.0)
"""Pauses before the second and the third attempt; there is no fourth."""

Place = tuple[str, str]
"""Namespace and surface."""


class PublishError(Exception):
    """The Pushgateway did not take it: what is wrong, where, and what to do. Shows no password."""


@dataclass(frozen=True)
class Pushed:
    """What became of a push."""

    newer_day: date | None
    """The later day that the Pushgateway has, so that nothing was pushed; None if it was."""
    left_out: tuple[Place, ...]
    """Namespaces and surfaces without series: past the largest number of them, those with the
    fewest decisions."""


def previous_overlap(day_tables: DayTables, day_before: pa.Table) -> dict[Place, float]:
    """Mean overlap of two users' lists on the day before, in percent, by namespace and surface.

    Args:
        day_tables: the day that it is to be compared with.
        day_before: rows of `analytics.personalization_daily` of the day before.

    Returns:
        Only what has enough users, and is of the same K and window on both days.
    """
    settings_of = {
        _place_of(row): [row[name] for name in OVERLAP_SETTINGS]
        for row in _surfaces(day_tables.rows[PERSONALIZATION_DAILY.qualified_name])
    }
    return {
        place: overlap
        for row in _surfaces(day_before)
        if (place := _place_of(row)) in settings_of
        and settings_of[place] == [row[name] for name in OVERLAP_SETTINGS]
        and (overlap := _figures(row, None)[CATALOG_OVERLAP]) is not None
    }


def push(url: str, day_tables: DayTables, previous_day_overlap: Mapping[Place, float]) -> Pushed:
    """Replace the figures of an organisation, unless they are of a later day.

    What is asked for that day is the Pushgateway itself, just before the PUT. It alone knows what
    the PUT would replace: a warehouse also has days that were never pushed, and it still has those
    that a Pushgateway without a file has forgotten. Between question and PUT are milliseconds, in
    which a run of another day could come first; the next night mends that.

    Args:
        url: base URL of the Pushgateway.
        day_tables: the day.
        previous_day_overlap: see `previous_overlap`; empty where that day is missing.

    Raises:
        PublishError: it did not take them; what it had it has still.
    """
    gateway = _Gateway(url)
    key = {DAILY_ORG: day_tables.org_id}
    rows = sorted(
        _surfaces(day_tables.rows[PERSONALIZATION_DAILY.qualified_name]),
        key=lambda row: (-row["decisions"], _place_of(row)),
    )
    series = [
        (place := _place_of(row), _figures(row, previous_day_overlap.get(place)))
        for row in rows[:LARGEST_MAX_LABEL_SETS]
    ]
    left_out = tuple(map(_place_of, rows[LARGEST_MAX_LABEL_SETS:]))
    newest = gateway.day_of(key)
    if newest is not None and newest > day_tables.day:
        return Pushed(newest, left_out)
    gateway.put(
        DAILY_JOB,
        key,
        [
            *(
                _family(gauge, ((place, figures[gauge]) for place, figures in series))
                for gauge in DAILY_FIGURES
            ),
            _family(DAILY_DATE, [((), _midnight(day_tables.day))]),
            _family(DAILY_SUCCESS_TIMESTAMP, [((), time.time())]),
        ],
    )
    return Pushed(None, left_out)


def push_run(url: str, *, success: bool, org_id: str | None = None) -> None:
    """Say that a run has ended, and whether it succeeded. The figures stay as they are.

    Args:
        url: base URL of the Pushgateway.
        success: whether it did.
        org_id: the organisation that the run was for, as it was asked for; None if it was not.
            Not what the traces say: a run that fails before it reads any must find the group that
            the next good run replaces. A good run for an organisation also ends the failure of
            runs that named none, since naming one is how that is mended where there are several.

    Raises:
        PublishError: it did not take it.
    """
    gateway = _Gateway(url)
    gateway.put(
        DAILY_RUN_JOB,
        {} if org_id is None else {DAILY_ORG: org_id},
        [
            _family(DAILY_LAST_RUN_TIMESTAMP, [((), time.time())]),
            _family(DAILY_LAST_RUN_SUCCESS, [((), float(success))]),
        ],
    )
    if success and org_id is not None:
        gateway.delete(DAILY_RUN_JOB, {})


def write_lines(
    day_tables: DayTables, stream: IO[str], previous_day_overlap: Mapping[Place, float]
) -> None:
    """Write one line of JSON for each namespace and surface, with the fields `DAILY_LOG_FIELDS`.

    Args:
        day_tables: the day.
        stream: takes the lines, which are ASCII.
        previous_day_overlap: see `previous_overlap`; empty where that day is missing.

    Raises:
        OSError: the stream does not take them.
    """
    for row in _surfaces(day_tables.rows[PERSONALIZATION_DAILY.qualified_name]):
        place = _place_of(row)
        figures = _figures(row, previous_day_overlap.get(place))
        line = {
            "timestamp": datetime.now(timezone.utc).isoformat(timespec="microseconds")[:26] + "Z",
            "level": "INFO",
            "event": DAILY_EVENT,
            "day": day_tables.day.isoformat(),
            "org_id": _cut(day_tables.org_id),
            "namespace": _cut(place[0]),
            "surface": _cut(place[1]),
            **{gauge.prometheus_name: figures[gauge] for gauge in DAILY_FIGURES},
        }
        stream.write(json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LOG_VALUE_LENGTH else text[: MAX_LOG_VALUE_LENGTH - 1] + "…"


# --- figures ----------------------------------------------------------------------------------


def _surfaces(rows: pa.Table) -> list[dict[str, Any]]:
    """The rows of single surfaces, with every cohort and device."""
    of_everybody = pc.and_(pc.equal(rows["cohort"], ALL), pc.equal(rows["device"], ALL))
    found = rows.filter(pc.and_(of_everybody, pc.not_equal(rows["surface"], ALL)))
    return list(found.to_pylist())


def _place_of(row: Mapping[str, Any]) -> Place:
    return row["namespace"], row["surface"]


def _figures(row: Mapping[str, Any], previous_overlap: float | None) -> dict[Gauge, float | None]:
    """What is told of a row; None is absent."""
    users = row["overlap_users"]
    has_overlap = users is not None and users >= MIN_OVERLAP_USERS

    def percent(name: str) -> float | None:
        return 100 * row[name] if has_overlap and row[name] is not None else None

    def entropy(of: str) -> float | None:
        return row[f"entropy_{of}"] if row[f"entropy_{of}_reliable"] else None

    figures = {
        CATALOG_OVERLAP: percent("jaccard_mean"),
        CATALOG_OVERLAP_USERS: users,
        CATALOG_OVERLAP_LOWER: percent("jaccard_mean_lower"),
        CATALOG_OVERLAP_UPPER: percent("jaccard_mean_upper"),
        CATALOG_OVERLAP_PREVIOUS_DAY: previous_overlap,
        DIVERSITY_ENTROPY_BRAND: entropy("brand"),
        DIVERSITY_ENTROPY_CATEGORY: entropy("category"),
        DIVERSITY_KNOWN_BRAND_SHARE: row["entropy_brand_known_share"],
        DIVERSITY_KNOWN_CATEGORY_SHARE: row["entropy_category_known_share"],
    }
    return {
        gauge: value if value is not None and math.isfinite(value) else None
        for gauge, value in figures.items()
    }


def _midnight(day: date) -> float:
    return datetime.combine(day, time_of_day(), timezone.utc).timestamp()


def _family(gauge: Gauge, values: Iterable[tuple[Sequence[str], float | None]]) -> Metric:
    labels = [key.replace(".", "_") for key in gauge.attributes]
    family = GaugeMetricFamily(gauge.prometheus_name, gauge.description, labels=labels)
    for attributes, value in values:
        if value is not None:
            family.add_metric(attributes, value)
    return family


# --- the Pushgateway --------------------------------------------------------------------------


class _Families(Collector):
    """Gives what it was given, if it has samples."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = [family for family in families if family.samples]

    def collect(self) -> Iterator[Metric]:
        yield from self._families


class _Gateway:
    """A Pushgateway.

    Args:
        url: its base URL, with credentials of HTTP basic authentication if it wants some.

    Raises:
        PublishError: it is no URL of HTTP.
    """

    def __init__(self, url: str) -> None:
        base = without_credentials(url, url)
        self._url = (base if "://" in base else f"http://{base}").rstrip("/")
        if not _is_http(self._url):
            raise PublishError(
                "the URL of the Pushgateway is none of HTTP (it is not shown, for it may hold a "
                "password); write http://HOST:9091, or https://NAME:PASSWORD@HOST"
            )
        self._authorization = authorization_of(url)

    def put(self, job: str, key: Mapping[str, str], families: Iterable[Metric]) -> None:
        """Replace a group as a whole."""
        registry = CollectorRegistry()
        registry.register(_Families(families))
        push_to_gateway(self._url, job, registry, _path(key), TIMEOUT_SECONDS, self._handler)

    def delete(self, job: str, key: Mapping[str, str]) -> None:
        """Forget a group; it need not be there."""
        delete_from_gateway(self._url, job, _path(key), TIMEOUT_SECONDS, self._handler)

    def day_of(self, key: Mapping[str, str]) -> date | None:
        """The data day of a group of figures; None if there is none."""
        body = self._ask(Request(f"{self._url}/api/v1/metrics"))
        try:
            for group in json.loads(body)["data"]:
                family = group.get(DAILY_DATE.prometheus_name)
                if family and group["labels"] == {"job": DAILY_JOB, **key}:
                    at = float(family["metrics"][0]["value"])
                    return datetime.fromtimestamp(at, timezone.utc).date()
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
            raise PublishError(
                f"what {self._url}/api/v1/metrics answers is none of a Pushgateway; see that the "
                "URL is its base URL"
            ) from None
        return None

    def _handler(
        self,
        url: str,
        method: str,
        timeout: float | None,  # noqa: ARG002  # all have the same
        headers: list[tuple[str, str]],
        data: bytes,
    ) -> Callable[[], None]:
        """As prometheus_client wants it."""
        request = Request(url, data, dict(headers), method=method)

        def send() -> None:
            self._ask(request)

        return send

    def _ask(self, request: Request) -> bytes:
        """The body of an answer. Every request can be sent twice, and is, if it must be."""
        if self._authorization:
            # To this host only: where it redirects to is not to see it.
            request.add_unredirected_header("Authorization", self._authorization)
        for pause in (*RETRY_SECONDS, None):
            try:
                with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                    return bytes(response.read())
            except HTTPError as error:
                with error:
                    wrong = self._refusal(error)
                is_final = error.code < 500
            except (OSError, http.client.HTTPException) as error:  # of the first is URLError
                reason = error.reason if isinstance(error, URLError) else error
                wrong = PublishError(
                    f"the Pushgateway {self._url} cannot be reached: {reason}; start it, or see "
                    "that its URL is right, then run the day again"
                )
                is_final = False
            if is_final or pause is None:
                break
            time.sleep(pause)
        raise wrong

    def _refusal(self, error: HTTPError) -> PublishError:
        if error.code in (401, 403):
            remedy = "put name and password into its URL: https://NAME:PASSWORD@HOST"
        elif error.code < 400 or error.code == 404:
            remedy = "see that the URL is its base URL, without /metrics and without a redirect"
        else:
            remedy = "look at its log"
        said = " ".join(error.read(1000).decode(errors="replace").split())
        return PublishError(
            f"the Pushgateway {self._url} answers {error.code}: {said or error.reason}; {remedy}"
        )


def _is_http(url: str) -> bool:
    if not re.fullmatch(r"https?://[!-~]+", url):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _path(key: Mapping[str, str]) -> dict[str, str]:
    """A grouping key as it goes into a path: in base64, in which no value is a path of its own."""
    return {
        f"{name}@base64": base64.urlsafe_b64encode(value.encode()).decode() or "="
        for name, value in key.items()
    }
