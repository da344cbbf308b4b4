"""Tells Prometheus what the nightly job found, through a Pushgateway.

::

    push("http://localhost:9091", day_tables, previous_overlap(day_tables, day_before))
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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from datetime import time as time_of_day
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from prometheus_client import CollectorRegistry, delete_from_gateway, push_to_gateway
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from otel_personalization.conventions import (
    DAILY_DATE,
    DAILY_FIGURES,
    DAILY_JOB,
    DAILY_LAST_RUN_SUCCESS,
    DAILY_LAST_RUN_TIMESTAMP,
    DAILY_ORG,
    DAILY_RUN_JOB,
    DAILY_SUCCESS_TIMESTAMP,
    LARGEST_MAX_LABEL_SETS,
    Gauge,
)
from otel_personalization.daily.figures import (
    Place,
    PublishError,
    figures_of,
    place_of,
    surface_rows,
)
from otel_personalization.daily.tables import PERSONALIZATION_DAILY, DayTables
from otel_personalization.urls import authorization_of, is_http, without_credentials

TIMEOUT_SECONDS: Final = 10.0
RETRY_SECONDS: Final = (0.5, 2.0)
"""Pauses before the second and the third attempt; there is no fourth."""


@dataclass(frozen=True)
class Pushed:
    """What became of a push."""

    newer_day: date | None
    """The later day that the Pushgateway has, so that nothing was pushed; None if it was."""
    left_out: tuple[Place, ...]
    """Namespaces and surfaces without series: past the largest number of them, those with the
    fewest decisions."""


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
        surface_rows(day_tables.rows[PERSONALIZATION_DAILY.qualified_name]),
        key=lambda row: (-row["decisions"], place_of(row)),
    )
    series = [
        (place := place_of(row), figures_of(row, previous_day_overlap.get(place)))
        for row in rows[:LARGEST_MAX_LABEL_SETS]
    ]
    left_out = tuple(map(place_of, rows[LARGEST_MAX_LABEL_SETS:]))
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
        if not is_http(self._url):
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
            except (OSError, http.client.HTTPException) as error:  # URLError is the former
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


def _path(key: Mapping[str, str]) -> dict[str, str]:
    """A grouping key as it goes into a path: in base64, in which no value is a path of its own."""
    return {
        f"{name}@base64": base64.urlsafe_b64encode(value.encode()).decode() or "="
        for name, value in key.items()
    }
