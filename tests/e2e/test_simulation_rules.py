"""The simulation of the alerts and the rules themselves, on the same traffic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monitoring.prometheus.build import build
from monitoring.prometheus.recording import JUDGED_BY, PERSONALIZED
from monitoring.prometheus.values import Values, load
from monitoring.simulation.ladder import LONGEST_WINDOW, Evaluations, alerts, judged
from monitoring.simulation.traffic import (
    WHOLE_DECISIONS,
    Recorded,
    Traffic,
    rates,
    simulated,
    thinned,
)
from tests.e2e.promtool import (
    COARSE_MINUTES,
    Case,
    Question,
    coarse,
    failures,
    firing,
    surface,
)
from tests.test_simulation import firing as firing_by_simulation

VALUES = load()
ALERTS = alerts(VALUES)
APART_SAMPLES = 10
"""Between a change of what is judged and a question: increase() extrapolates, and long windows are
added up from those of five samples, so that a rule may change its mind a little sooner or later."""


def traffic(hourly: float, days: int, drop: slice, seed: int) -> Traffic:
    """With a daily rhythm, and a share that drops to 0.40 for a while; minute 0 is at midnight."""
    random = np.random.default_rng(seed)
    served = np.where(random.random(400) < 0.02, 100, random.integers(1, 20, 400))
    recorded = Recorded(served, random.binomial(served, 0.8))
    pool = thinned(recorded, (0.60, 0.40), WHOLE_DECISIONS, random)
    found = simulated(pool, rates(hourly, days=days, rhythm=0.8), random)
    healthy, dropped = (np.diff(sums) for sums in found.personalized)
    healthy[drop] = dropped[drop]
    return Traffic(found.served, found.squared, [np.concatenate([[0], np.cumsum(healthy)])])


def series(found: Traffic, name: str, every: int) -> dict[str, list[float]]:
    labels = surface(name).replace("{", '{instance="a",job="ranking",')
    return {
        f"recsys_{counter}_total{labels}": sums[::every].tolist()
        for counter, sums in (
            ("served_items", found.served),
            ("served_items_squared", found.squared),
            ("personalized_items", found.personalized[0]),
        )
    }


def questions(
    found: Traffic, name: str, alert: str, ratio: str, *, step: int, every: int = 1
) -> list[Question]:
    """What the simulation says, asked of the rules; where it does not change within minutes."""
    apart = APART_SAMPLES * every

    def before(sums: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(LONGEST_WINDOW, np.int64), sums])

    at = Evaluations(
        before(found.served), before(found.squared), before(found.personalized[0]), LONGEST_WINDOW
    )
    of = ALERTS[alert]
    share, window = judged(at, of.windows, of.least)
    if of.unless:
        elsewhere = judged(at, of.unless, of.least)[1] > 0
        share[elsewhere], window[elsewhere] = np.nan, -1
    fires = np.zeros(len(share), bool)
    fires = firing_by_simulation(of.condition(at), of.hold, of.keep)

    labels = surface(name)
    asked = []
    for evaluation in range(step, len(share), step):
        minute = evaluation + 1
        around = slice(evaluation - apart, evaluation + apart + 1)
        if len(set(window[around])) > 1:
            continue
        judged_by = f'surface:{JUDGED_BY}{{check="{alert}",surface="{name}"}}'
        seconds = {} if window[evaluation] < 0 else {labels: 60.0 * float(window[evaluation])}
        asked.append(Question(f"sum by (recsys_namespace, surface) ({judged_by})", minute, seconds))
        recorded = f'{ratio}{{surface="{name}"}}'
        if window[evaluation] > 0:
            near = f"abs({recorded} - {share[evaluation]:.6f}) < bool 0.01"
            asked.append(Question(near, minute, {labels: 1}))
        if len(set(fires[around])) == 1:
            fired = [labels] if fires[evaluation] else []
            asked.append(firing(alert, minute, *fired))
    return asked


@pytest.mark.parametrize(
    "volume", [("busy", 8_000, 2, slice(1500, 1800)), ("quiet", 300, 2, slice(1200, 2100))]
)
def test_the_page_comes_as_the_simulation_says(volume, tmp_path):
    name, hourly, days, drop = volume
    found = traffic(hourly, days, drop, seed=1)
    ratio = f"{PERSONALIZED}:ratio_judged"
    asked = questions(found, name, "PersonalizationDrop", ratio, step=30)
    check(found, name, asked, tmp_path)
    assert windows_of(asked) >= ({30, 120} if name == "busy" else {720})


def test_the_ticket_comes_as_the_simulation_says(tmp_path):
    found = traffic(30, 8, slice(5000, 9500), seed=1)
    ratio = f"{PERSONALIZED}:ratio_judged_low_traffic"
    asked = questions(
        found, "quiet", "PersonalizationDropLowTraffic", ratio, step=60, every=COARSE_MINUTES
    )
    check(found, "quiet", asked, tmp_path, values=coarse(VALUES), every=COARSE_MINUTES)
    assert windows_of(asked) >= {4320, 10_080}


def check(
    found: Traffic,
    name: str,
    asked: list[Question],
    folder: Path,
    *,
    values: Values = VALUES,
    every: int = 1,
) -> None:
    """On one promtool: the other one is asked shorter cases."""
    case = Case(f"simulated traffic, {name}", series(found, name, every), asked, every)
    assert failures([case], build(values), folder) == ""
    of_alert = [question.answer for question in asked if "ALERTS" in question.expr]
    assert any(of_alert), "it was seen firing"
    assert not all(of_alert), "it was seen silent"


def windows_of(asked: list[Question]) -> set[float]:
    """The windows by which the surface was judged, in minutes."""
    return {
        seconds / 60
        for question in asked
        if JUDGED_BY in question.expr
        for seconds in question.answer.values()
    }
