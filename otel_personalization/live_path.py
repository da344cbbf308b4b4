"""Follows decisions through the live path, and says at which hop they got lost.

Some decisions of known shares are sent to the Collector. Prometheus is then asked for their raw
counters and for the views that the Collector computed, and, where something is missing, for what
the Collector tells of itself::

    api = PrometheusApi("http://localhost:9090")
    for finding in follow(api, "http://localhost:4318"):
        print(finding.what)

Counters are told apart by ``service.instance.id``, which no other run has. Views are by service, so
that runs at the same time share theirs; all send the same shares, so the rates stay what they are.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from otel_personalization import conventions
from otel_personalization.conventions import (
    DECISIONS,
    DOCTOR_NAMESPACE,
    DOCTOR_WAIT_SECONDS,
    NAMESPACE,
    PERSONALIZED_ITEMS,
    REASON_ITEMS,
    REASON_REQUESTED_ITEMS,
    SERVED_ITEMS,
    SURFACE,
    Counter,
)
from otel_personalization.doctor import Finding, Level, send_decisions
from otel_personalization.prometheus_api import PrometheusApi, PrometheusError, Sample, Series
from otel_personalization.settings import NONE

FEATURE_GATE: Final = "metricsgeneration.MatchAttributes"
START_TIMES: Final = "created-timestamp-zero-ingestion"
WINDOW_ITEMS: Final = conventions.WINDOW_SERVED_ITEMS.prometheus_name
RATES: Final = {rate.prometheus_name: parts for rate, parts in conventions.RATES.items()}
"""What the views divide."""

# On each surface other rates, and none that the items of the other surface would give, too.
SENT: Final = {
    "doctor-a": {
        DECISIONS: 2,
        SERVED_ITEMS: 4,
        PERSONALIZED_ITEMS: 3,
        REASON_REQUESTED_ITEMS: 2,
        REASON_ITEMS: 1,
    },
    "doctor-b": {
        DECISIONS: 2,
        SERVED_ITEMS: 10,
        PERSONALIZED_ITEMS: 1,
        REASON_REQUESTED_ITEMS: 5,
        REASON_ITEMS: 4,
    },
}
"""The truth, by surface."""

_POLL_SECONDS: Final = 0.5
_CLOCKS_DIFFER_SECONDS: Final = 300
"""How far the clocks may be apart that give samples their times: ours, the Collector's."""
_OTHERS_SECONDS: Final = 3600
"""How far back views of other services tell that there are views at all."""
_COLLECTORS_OWN: Final = {
    "otelcol_exporter_queue_size": (
        "requests wait in the queue of {0}",
        (
            "it cannot deliver: see where it sends to (RECSYS_PROMETHEUS_OTLP_ENDPOINT or "
            "RECSYS_REMOTE_WRITE_ENDPOINT), and the Collector's log"
        ),
    ),
    "otelcol_exporter_send_failed_metric_points": (
        "points were given up by {0}, as refused for good",
        (
            "the Collector's log has the answer: 404 is a wrong path, or a Prometheus without "
            "--web.enable-otlp-receiver or --web.enable-remote-write-receiver"
        ),
    ),
    "otelcol_exporter_enqueue_failed_metric_points": (
        "points found no place in the queue of {0}",
        "it cannot deliver fast enough, or at all: see where it sends to, and RECSYS_QUEUE_BYTES",
    ),
    "otelcol_receiver_refused_metric_points": (
        "points were refused at the door of {0}",
        "its queue is full, or its memory is (RECSYS_MEMORY_LIMIT_MIB); its log says which",
    ),
}
"""What the Collector tells of points that did not get through, and what to do."""

_Waited = TypeVar("_Waited")


def follow(
    prometheus: PrometheusApi | None,
    collector: str | None = None,
    *,
    wait: float = DOCTOR_WAIT_SECONDS,
    tell: Callable[[str], None] = lambda _what: None,
) -> Iterator[Finding]:
    """Send decisions, and look for them hop by hop.

    Args:
        prometheus: where they are to arrive; None asks no further than the Collector.
        collector: base URL of the OTLP endpoint; else that of the process, or of its environment.
        wait: seconds that they have to get through.
        tell: is told what is being waited for.
    """
    run = f"doctor-{uuid.uuid4().hex[:12]}"
    path = None
    if prometheus is not None:
        tell(f"Prometheus {prometheus.url}")
        try:
            yield from _flags(prometheus)
            path = _Path(prometheus, run, wait, tell)
        except PrometheusError as error:
            yield Finding(Level.PROBLEM, error.what, error.remedy)
    tell("the Collector to take some decisions")
    findings = list(send_decisions(_decisions(), _OF_HOOK, collector, run))
    yield from findings
    are_taken = bool(findings) and all(one.level is not Level.PROBLEM for one in findings)
    if path is not None and are_taken:
        try:
            yield from path.findings()
        except PrometheusError as error:
            yield Finding(Level.PROBLEM, error.what, error.remedy)


def _flags(api: PrometheusApi) -> Iterator[Finding]:
    flags = api.flags()
    if flags is None:
        yield Finding(
            Level.NOTE,
            f"{api.url} does not tell its flags, as Prometheus would: whether it takes start times "
            "is not known",
        )
    elif START_TIMES in flags.get("enable-feature", "").split(","):
        yield Finding(Level.FINE, f"Prometheus {api.url} takes start times")
    else:
        yield Finding(
            Level.PROBLEM,
            f"Prometheus {api.url} takes no start times: increase() misses what a process counted "
            "before its first sample",
            f"start it with --enable-feature={START_TIMES}",
        )


_OF_HOOK: Final = {
    # Whatever the service's settings are, these are not folded, and nobody's log lines.
    "surfaces": [(DOCTOR_NAMESPACE, surface) for surface in SENT],
    "max_label_sets": len(SENT),
    "log": NONE,
    "log_propagate": False,
}


def _decisions() -> Iterator[dict[str, Any]]:
    """Two a surface: of a caller who asked for reasons, and of one who did not."""
    for surface, sent in SENT.items():
        items: list[dict[str, Any]] = [
            {"item_id": str(n), "personalized": n < sent[PERSONALIZED_ITEMS]}
            for n in range(sent[SERVED_ITEMS])
        ]
        for item in items[: sent[REASON_ITEMS]]:
            item["reasons"] = ["popular"]
        common = {"namespace": DOCTOR_NAMESPACE, "surface": surface}
        asked = sent[REASON_REQUESTED_ITEMS]
        yield common | {"final_items": items[:asked]}
        yield common | {"final_items": items[asked:], "extras": {"include_reasons": False}}


@dataclass
class _Raw:
    """The counters of the run that have arrived."""

    series: list[Series] = field(default_factory=list)

    def last(self, counter: Counter, surface: str) -> float | None:
        return next(
            (
                one.samples[-1].value
                for one in self.series
                if one.name == counter.prometheus_name and one.labels.get(SURFACE) == surface
            ),
            None,
        )

    @property
    def differences(self) -> list[str]:
        return [
            f"{counter.prometheus_name} of surface {surface} is "
            f"{_shown(self.last(counter, surface))}, and {count} were sent"
            for surface, sent in SENT.items()
            for counter, count in sent.items()
            if self.last(counter, surface) != count
        ]


@dataclass
class _Views:
    """The views since the run began."""

    rates: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    """By name and surface."""
    items: dict[str, list[Sample]] = field(default_factory=dict)
    """By surface; of windows in which something was served."""

    @property
    def wrong_rates(self) -> list[str]:
        return [
            f"{rate} of surface {surface} is {sample.value:g}, and {_true(rate, surface):g} is true"
            for (rate, surface), samples in self.rates.items()
            for sample in samples
            if not abs(sample.value - _true(rate, surface)) < 1e-6  # NaN is wrong, too
        ]

    @property
    def missing(self) -> list[str]:
        missing = [WINDOW_ITEMS] if self.items.keys() != SENT.keys() else []
        return missing + [
            rate for rate in RATES if any((rate, surface) not in self.rates for surface in SENT)
        ]


def _true(rate: str, surface: str) -> float:
    part, whole = RATES[rate]
    return SENT[surface][part] / SENT[surface][whole]


def _shown(value: float | None) -> str:
    return "absent" if value is None else f"{value:g}"


class _Path:
    """What becomes of a run, once it is sent.

    To be made before that: what Prometheus has by then of the views is not the run's.

    Args:
        api: of the Prometheus.
        run: how the run's ``service.instance.id`` begins.
        wait: seconds that the run has to get through, once `findings` are asked for.
        tell: is told what is being waited for.

    Raises:
        PrometheusError: Prometheus does not answer.
    """

    def __init__(
        self, api: PrometheusApi, run: str, wait: float, tell: Callable[[str], None]
    ) -> None:
        self._api = api
        self._run = run
        self._selector = f'{{instance=~"{run}-.*"}}'
        self._seconds = wait
        self._tell = tell
        self._began = time.time()
        self._until = 0.0
        self._samples_before = {
            (series.name, series.labels.get(SURFACE, ""), sample.at)
            for series in self._of_namespace(WINDOW_ITEMS, *RATES)
            for sample in series.samples
        }

    def findings(self) -> Iterator[Finding]:
        """Wait for the counters, then for the views.

        Raises:
            PrometheusError: Prometheus does not answer any more.
        """
        self._until = time.monotonic() + self._seconds
        raw = self._wait(
            "the raw counters to arrive in Prometheus", self._raw, lambda raw: not raw.differences
        )
        yield from self._of_raw(raw)
        if raw.differences:
            return
        views = self._wait(
            "the views, whose window is 60 s unless set",
            self._views,
            lambda views: not views.missing or bool(views.wrong_rates),
        )
        yield from self._of_views(views)

    # --- asking -------------------------------------------------------------------------------

    def _wait(
        self, what: str, look: Callable[[], _Waited], is_there: Callable[[_Waited], bool]
    ) -> _Waited:
        while True:
            left = self._until - time.monotonic()
            self._tell(f"{what}, for {max(left, 0):.0f} s at most")
            found = look()
            if is_there(found) or left <= 0:
                return found
            time.sleep(min(_POLL_SECONDS, left))

    def _of_namespace(self, *names: str) -> list[Series]:
        label = NAMESPACE.replace(".", "_")
        selector = f'{{__name__=~"{"|".join(names)}", {label}="{DOCTOR_NAMESPACE}"}}'
        now = time.time()
        seconds = int(now - self._began) + 2 * _CLOCKS_DIFFER_SECONDS
        return self._api.series(f"{selector}[{seconds}s]", at=now + _CLOCKS_DIFFER_SECONDS)

    def _raw(self) -> _Raw:
        names = {counter.prometheus_name for sent in SENT.values() for counter in sent}
        return _Raw(
            [
                series
                for series in self._of_namespace(*sorted(names))
                if any(value.startswith(self._run) for value in series.labels.values())
            ]
        )

    def _views(self) -> _Views:
        views = _Views()
        for series in self._of_namespace(WINDOW_ITEMS, *RATES):
            surface = series.labels.get(SURFACE, "")
            new = [
                sample
                for sample in series.samples
                if (series.name, surface, sample.at) not in self._samples_before
            ]
            if surface not in SENT or not new:
                continue
            if series.name != WINDOW_ITEMS:
                views.rates.setdefault((series.name, surface), []).extend(new)
            elif served := [sample for sample in new if sample.value]:
                views.items.setdefault(surface, []).extend(served)
        return views

    # --- saying -------------------------------------------------------------------------------

    def _of_raw(self, raw: _Raw) -> Iterator[Finding]:
        if not raw.series:
            yield Finding(
                Level.PROBLEM,
                f"the raw counters of {self._selector} did not arrive in Prometheus in time",
                "the Collector took them: see what exporters its raw pipeline has "
                "(RECSYS_EXPORTERS), and that they lead to this Prometheus",
            )
            yield from self._ways_in()
            yield from self._what_the_collector_says()
            return
        if raw.differences:
            yield Finding(
                Level.PROBLEM,
                f"raw counters are not what was sent: {raw.differences[0]}",
                "see that nothing between the Collector's raw pipeline and Prometheus drops or "
                "changes points, and that this Prometheus is scraped or sent to as a whole",
            )
            yield from self._what_the_collector_says()
        else:
            yield Finding(
                Level.FINE,
                f"Prometheus has the raw counters of {self._selector}, as they were sent",
            )
        renamed = {
            label
            for series in raw.series
            for label in series.labels
            if label.startswith("exported_")
        }
        if renamed:
            yield Finding(
                Level.PROBLEM,
                f"they have the labels {', '.join(sorted(renamed))}: all services have the job and "
                "the instance of the Collector",
                "set honor_labels: true in the scrape job of the Collector's port 8889",
            )
        if any(series.samples[0].value for series in raw.series):
            yield Finding(
                Level.PROBLEM,
                "they begin above 0: increase() misses what was counted before",
                f"start Prometheus with --enable-feature={START_TIMES}; of an endpoint that is "
                "scraped, see that the Collector has enable_open_metrics there",
            )

    def _of_views(self, views: _Views) -> Iterator[Finding]:
        if views.wrong_rates:
            yield Finding(
                Level.PROBLEM,
                f"the views are wrong: {views.wrong_rates[0]}",
                f"start the Collector with --feature-gates={FEATURE_GATE}: without it all surfaces "
                "are divided by the items of one, and an idle surface gets 0. If it has the gate, "
                "compare its pipeline metrics/views with monitoring/collector/gateway.yaml",
            )
        elif not views.missing:
            yield Finding(
                Level.FINE,
                f"the views are right: {', '.join(RATES)} and {WINDOW_ITEMS}, of "
                f"{len(SENT)} surfaces",
            )
        elif views.items or views.rates:
            yield Finding(
                Level.PROBLEM,
                f"of the views {', '.join(views.missing)} did not arrive in time",
                "compare the Collector's pipeline metrics/views with "
                "monitoring/collector/gateway.yaml",
            )
        elif self._others_have_views():
            yield Finding(
                Level.PROBLEM,
                "the views of these decisions did not arrive in time, and those of others did",
                "wait longer, if RECSYS_VIEW_INTERVAL or the scrape interval is: --wait SECONDS",
            )
        else:
            yield Finding(
                Level.PROBLEM,
                "there are no views: the raw counters arrived, and no rate was computed of them",
                "run the Collector with monitoring/collector/gateway.yaml, and its pipeline "
                "metrics/views; if its RECSYS_VIEW_INTERVAL is above 60s, wait longer: --wait "
                "SECONDS",
            )

    def _others_have_views(self) -> bool:
        query = f"last_over_time({WINDOW_ITEMS}[{_OTHERS_SECONDS}s])"
        return bool(self._api.series(query, at=time.time()))

    def _ways_in(self) -> Iterator[Finding]:
        """What Prometheus does not let in."""
        flags = self._api.flags() or {}
        for flag, exporter in (
            ("web.enable-otlp-receiver", "otlp_http/prometheus"),
            ("web.enable-remote-write-receiver", "prometheus_remote_write"),
        ):
            if flags.get(flag) == "false":
                yield Finding(
                    Level.NOTE,
                    f"Prometheus refuses what an exporter {exporter} sends",
                    f"if the Collector exports by it, start Prometheus with --{flag}",
                )

    def _what_the_collector_says(self) -> Iterator[Finding]:
        """Of points that did not get through; Prometheus scrapes it."""
        names = "|".join(_COLLECTORS_OWN)
        told = self._api.series(f'{{__name__=~"({names})(_total)?"}}', at=time.time())
        if not told:
            yield Finding(
                Level.NOTE,
                "Prometheus knows nothing of the Collector's own telemetry, which would say where "
                "points wait or are refused",
                "scrape its port 8888, as monitoring/prometheus/prometheus.yml does",
            )
        for series in told:
            if count := series.samples[-1].value:
                what, remedy = _COLLECTORS_OWN[series.name.removesuffix("_total")]
                part = series.labels.get("exporter") or series.labels.get("receiver", "?")
                of = f"{part} of the Collector at {series.labels.get('instance', '?')}"
                yield Finding(Level.PROBLEM, f"{count:g} {what.format(of)}", remedy)
