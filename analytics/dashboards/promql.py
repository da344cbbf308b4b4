"""The PromQL of the panels.

Shares that panels draw are the Collector's views, put together over each step by the items of
their windows. What alerts judge is recorded by rules, and read from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analytics.dashboards.variables import ENVIRONMENT
from monitoring.prometheus import recording as records
from monitoring.prometheus.promql import NAMESPACE, OF_SURFACE, decided, either, grouped
from monitoring.prometheus.values import Values
from otel_personalization import conventions as names
from otel_personalization.conventions import Counter, Gauge

STEP: Final = "$__rate_interval"
RESOLUTION: Final = "15s"
"""Of views within a step. Each window's point counts once; windows are a minute by default, and
those of less than this, as in a demonstration, are sampled."""
MIN_STEP: Final = "1m"
"""Of panels: a step must hold a window of the views."""
PARTS: Final = {"home": ("home",), "PDP": ("pdp", "product"), "cart": ("cart",)}
"""Parts of the stacked share, and the surfaces in each."""
REST: Final = "the rest"
SELECTED: Final = f'{{{NAMESPACE}=~"$namespace",{names.SURFACE}=~"$surface"}}'
"""Selects records of the surfaces that were picked; rules leave doctor out."""
SHOP_COLD_START: Final = '{__name__=~"cold_start_impression(_total)?"}'
"""The shop's own counter, which no part of this project makes: with or without a suffix."""


class Queries:
    """Expressions over counters and views of what was picked.

    Args:
        values: those of values.yaml, which the rules are made of.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._baseline = values["baseline"]["share"]

    # --- shares ---------------------------------------------------------------------------------

    def contributions(self) -> str:
        """What each part of the surfaces adds to the personalised share of all that was served."""
        parts = self._items_of(names.PERSONALIZED_IMPRESSION_RATE, (names.SURFACE,))
        part = f'label_replace({parts}, "part", "{REST}", "", "")'
        for name, surfaces in PARTS.items():
            part = f'label_replace({part}, "part", "{name}", "surface", "{"|".join(surfaces)}")'
        whole = self._served_with(names.PERSONALIZED_IMPRESSION_RATE, ())
        return f"sum by (part) ({part})\n/ on () group_left ()\n({whole} > 0)"

    def baseline_of_all(self) -> str:
        """The baseline, while anything is served."""
        served = f"sum({self._last(names.WINDOW_SERVED_ITEMS, STEP)})"
        return f"(vector($baseline) > 0 or vector({self._baseline:g}))\nand on () {served}"

    def drop(self) -> str:
        """By surface, how far the share is from its baseline: -0.05 is 5 % less."""
        by = ", ".join(OF_SURFACE)
        served = f"0 * sum by ({by}) ({self._last(names.WINDOW_SERVED_ITEMS, STEP)})"
        baseline = either(
            f"{served} + $baseline > 0",
            f"{records.PERSONALIZED}:baseline{SELECTED}",
            f"{served} + {self._baseline:g}",
        )
        return f"{self.view(names.PERSONALIZED_IMPRESSION_RATE)}\n/\n{grouped(baseline)}\n- 1"

    def view(self, rate: Gauge) -> str:
        """By surface, a rate whose windows are weighted by the items that they served.

        There is none where nothing was served: the gateway makes no point then, and one that it
        made before is looked for within its own step only.
        """
        return f"{self._items_of(rate, OF_SURFACE)}\n/\n({self._served_with(rate, OF_SURFACE)} > 0)"

    def share(
        self, part: Counter, whole: Counter, by: Sequence[str] = OF_SURFACE, *matchers: str
    ) -> str:
        """Of what one counter counted in a step, the share that another one did.

        Args:
            part: where it has no series it is 0.
            whole: where it grew by nothing there is no share.
            by: labels.
            matchers: further ones of both.
        """
        of_part, of_whole = (self._grown(counter, by, *matchers) for counter in (part, whole))
        return f"{grouped(either(of_part, f'0 * {of_whole}'))}\n/\n({of_whole} > 0)"

    def recorded_share(self) -> str:
        """The recorded share over the shortest window that alerts judge by."""
        window = self._values["personalization"]["windows"][0]
        return f"{records.PERSONALIZED}:ratio{window}{SELECTED}"

    def click_through(self) -> str:
        """What the variable says, of what was picked."""
        return f"(${{ctr:raw}})\nand on ({', '.join(OF_SURFACE)})\n{self.recorded_share()}"

    def shop_cold_start(self) -> str:
        """How many cold-start impressions the shop itself counted in a step."""
        return f"sum(increase({SHOP_COLD_START}[{STEP}]))"

    def alerts(self, *signals: str) -> str:
        """Alerts that fire, by what they are about; those without a surface always."""
        labels = ("alertname", "severity", *OF_SURFACE, names.DAILY_ORG)
        matchers = (
            'alertstate="firing"',
            f'signal=~"{"|".join(signals)}"',
            f'{NAMESPACE}=~"$namespace|"',
            f'{names.SURFACE}=~"$surface|"',
        )
        return f"max by ({', '.join(labels)}) (ALERTS{{{','.join(matchers)}}})"

    # --- parts of them --------------------------------------------------------------------------

    def _live(self, *matchers: str) -> str:
        return decided(
            self._values,
            f'{NAMESPACE}=~"$namespace"',
            f'{names.SURFACE}=~"$surface"',
            f'{ENVIRONMENT}=~"$environment"',
            *matchers,
        )

    def _grown(self, counter: Counter, by: Sequence[str], *matchers: str) -> str:
        selector = self._live(*matchers)
        return f"sum by ({', '.join(by)}) (increase({counter.prometheus_name}{selector}[{STEP}]))"

    def _last(self, gauge: Gauge, window: str = RESOLUTION) -> str:
        return f"last_over_time({gauge.prometheus_name}{self._live()}[{window}])"

    def _items_of(self, rate: Gauge, by: Sequence[str]) -> str:
        """The items that a rate counts: rate x items, added up over windows and gateways."""
        product = f"{self._last(rate)} * {self._last(names.WINDOW_SERVED_ITEMS)}"
        return self._added_up(product, by)

    def _served_with(self, rate: Gauge, by: Sequence[str]) -> str:
        """The items of the windows that have the rate."""
        items = f"{self._last(names.WINDOW_SERVED_ITEMS)} and {self._last(rate)}"
        return self._added_up(items, by)

    def _added_up(self, expr: str, by: Sequence[str]) -> str:
        over = f"sum_over_time(({expr})[{STEP}:{RESOLUTION}])"
        return f"sum by ({', '.join(by)}) ({over})" if by else f"sum({over})"


def legend(*labels: str) -> str:
    """A legend of labels: ``{{recsys_namespace}}/{{surface}}``."""
    return "/".join(f"{{{{{label}}}}}" for label in labels)
