"""Asks a Prometheus, or what speaks its HTTP API, for samples and flags.

::

    api = PrometheusApi("http://localhost:9090")
    for series in api.series("recsys_served_items_total[5m]", at=time.time()):
        print(series.labels["surface"], series.samples[-1].value)

Credentials in the URL are sent, and are in no text that this module makes.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from otel_personalization.errors import RemediedError
from otel_personalization.urls import authorization_of, without_credentials

TIMEOUT_SECONDS: Final = 10.0
NO_SUCH_PAGE: Final = 404


class PrometheusError(RemediedError):
    """It gave no answer that could be used.

    Args:
        what: happened.
        remedy: what to do.
        status: of HTTP; None where there was no answer.
    """

    def __init__(self, what: str, remedy: str, status: int | None = None) -> None:
        super().__init__(what, remedy)
        self.status = status


class Sample(NamedTuple):
    """A value of a series."""

    at: float
    """Seconds since 1970, as the sample says it."""
    value: float


@dataclass(frozen=True)
class Series:
    """The samples of a series, the oldest first."""

    name: str
    labels: dict[str, str]
    samples: tuple[Sample, ...]


class PrometheusApi:
    """The HTTP API of a Prometheus.

    Args:
        url: its base URL; what is behind the host is kept, as in ``https://mimir/prometheus``.
    """

    def __init__(self, url: str) -> None:
        self.url = without_credentials(url, url).rstrip("/")
        """Without credentials."""
        self._authorization = authorization_of(url)

    def series(self, promql: str, at: float) -> list[Series]:
        """What a query of one value each, or of a range, gives.

        Args:
            promql: the query.
            at: seconds since 1970.

        Raises:
            PrometheusError: there was no answer, or it was none of Prometheus.
        """
        found = self._data("query", query=promql, time=f"{at:.3f}").get("result", [])
        return [
            Series(
                one["metric"].get("__name__", ""),
                {key: value for key, value in one["metric"].items() if key != "__name__"},
                tuple(
                    Sample(float(at), float(value))
                    for at, value in one.get("values") or [one["value"]]
                ),
            )
            for one in found
        ]

    def flags(self) -> dict[str, str] | None:
        """The flags that it runs with; None if it does not tell, as others than Prometheus.

        Raises:
            PrometheusError: there was no answer, or it was none of Prometheus.
        """
        try:
            return self._data("status/flags")
        except PrometheusError as error:
            if error.status == NO_SUCH_PAGE:
                return None
            raise

    def _data(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{path}"
        request = Request(f"{url}?{urlencode(parameters)}" if parameters else url)
        if self._authorization:
            # To this host only: where it redirects to is not to see it.
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                return dict(json.loads(response.read())["data"])
        except HTTPError as error:
            with error:
                raise PrometheusError(
                    f"Prometheus {self.url} answers {error.code} to {path}{_said_by(error)}",
                    "put name and password into the URL: https://NAME:PASSWORD@HOST"
                    if error.code in (401, 403)
                    else "see that --prometheus is the base URL, without /api; look at its log",
                    error.code,
                ) from None
        except (OSError, http.client.HTTPException) as error:  # URLError is the former
            reason = error.reason if isinstance(error, URLError) else error
            raise PrometheusError(
                f"Prometheus {self.url} cannot be reached: {reason}",
                "start it, or see that --prometheus is its base URL",
            ) from None
        except (ValueError, TypeError, KeyError):  # no JSON, or of another shape
            raise PrometheusError(
                f"what {url} answers is none of Prometheus",
                "see that --prometheus is the base URL of its HTTP API",
            ) from None


def _said_by(error: HTTPError) -> str:
    """What Prometheus says was wrong with a query."""
    try:
        return f": {json.loads(error.read())['error']}"
    except (OSError, ValueError, TypeError, KeyError):
        return ""
