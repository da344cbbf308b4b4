"""Simulates what the alerts on the personalised share do in a year: ``make simulate``.

    python -m monitoring.simulation traces.ndjson.gz --write docs/alert-simulation.md

Decision traces are resampled to traffic of several volumes, flat and with a daily rhythm, and the
alerts of ``monitoring/prometheus`` are evaluated each minute: how often they fire while the share
is 0.60, and how soon after it has dropped to 0.54 or 0.50. Tables go to standard output, and with
``--write`` between the marks of a page.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np

from monitoring.prometheus.values import check, load
from monitoring.simulation.cases import DROPS, HEALTHY, Case, Found, Outcome, outcome
from monitoring.simulation.ladder import Alert, alerts
from monitoring.simulation.traffic import CLUSTERINGS, WHOLE_DECISIONS, Recorded, read_recording

HOURLY: Final = (60, 600, 2_000, 20_000)
RHYTHMS: Final = {"flat": 0.0, "daily": 0.9}
WINDOWS: Final = {30: "30 m", 120: "2 h", 720: "12 h", 4320: "3 d", 10080: "7 d"}
MIN_RECORDED: Final = 50
"""Decisions; of fewer a year would be the same few again and again."""
MARKS: Final = "<!-- simulated -->\n{}<!-- end -->"
BETWEEN_MARKS: Final = re.compile(MARKS.format(".*?"), re.DOTALL)

Outcomes = Mapping[Case, Outcome]


def cases(surfaces: Iterable[str]) -> list[Case]:
    """All that are simulated."""
    return [
        Case(surface, hourly, rhythm, clustering)
        for clustering, surface, hourly, rhythm in product(
            CLUSTERINGS, surfaces, HOURLY, RHYTHMS.values()
        )
    ]


def usable(recorded: Mapping[str, Recorded]) -> dict[str, Recorded]:
    """The surfaces, all namespaces taken together, of which there is enough to resample."""
    return {
        name: of_surface
        for name, of_surface in recorded.items()
        if "/" not in name
        and len(of_surface.served) >= MIN_RECORDED
        and of_surface.share >= HEALTHY
    }


def simulate(
    recorded: Mapping[str, Recorded],
    chosen: Sequence[Case],
    of: Mapping[str, Alert],
    *,
    days: int,
    seeds: Sequence[int],
) -> dict[Case, Outcome]:
    """What is seen of each case, over all seeds."""
    seen: dict[Case, Outcome] = {}
    for number, case in enumerate(chosen, 1):
        seen[case] = Outcome()
        for seed in seeds:
            seen[case].add(outcome(recorded[case.surface], case, of, days=days, seed=seed))
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{number} of {len(chosen)} cases")
    return seen


# --- tables -----------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def false_alarms(outcomes: Outcomes, of: Iterable[str]) -> str:
    """How often each alert fires on a healthy surface, by clustering."""
    rows = []
    for clustering, hourly, (rhythm, depth) in product(CLUSTERINGS, HOURLY, RHYTHMS.items()):
        these = [
            seen
            for case, seen in outcomes.items()
            if (case.clustering, case.hourly, case.rhythm) == (clustering, hourly, depth)
        ]
        cells = []
        for name in of:
            a_year = [seen.fired[name] / seen.years for seen in these]
            cells.append(
                f"{statistics.mean(a_year):.2g} ({max(a_year):.2g})" if any(a_year) else "0"
            )
        rows.append([clustering.name, f"{hourly:,}", rhythm, *cells])
    return table(["clustering", "an hour", "rhythm", *of], rows)


def detection(
    outcomes: Outcomes, by: Callable[[Case], tuple[str, ...]], head: Sequence[str]
) -> str:
    """How drops are found, by the window that judged when they came."""
    groups: dict[tuple[tuple[str, ...], int], dict[float, Found]] = {}
    keys: list[tuple[str, ...]] = []
    for case, seen in outcomes.items():
        keys.append(by(case))
        for (level, window), found in seen.found.items():
            by_level = groups.setdefault((by(case), window), {})
            by_level.setdefault(level, Found()).add(found)
    rows = []
    for (key, window), by_level in sorted(
        groups.items(), key=lambda group: (keys.index(group[0][0]), group[0][1])
    ):
        row = [*key, WINDOWS.get(window, f"{window} m"), f"{by_level[DROPS[-1]].drops}"]
        for level in reversed(DROPS):
            found = by_level[level]
            delay = f"{statistics.median(found.delays) / 60:.1f} h" if found.delays else ""
            row += [
                f"{found.in_window / found.drops:.1%}",
                f"{found.in_time / found.drops:.1%}",
                delay,
                f"{found.literal / found.drops:.1%}",
            ]
        rows.append(row)
    of_level = ("within it", "within a day", "median", "literal")
    levels = [f"{level:.2f}: {what}" for level in reversed(DROPS) for what in of_level]
    return table([*head, "window", "drops", *levels], rows)


def surfaces(recorded: Mapping[str, Recorded]) -> str:
    """What is resampled."""
    rows = []
    for name, of_surface in recorded.items():
        served, personalized = of_surface.served, of_surface.personalized
        effective = served.sum() ** 2 / (served**2).sum()
        # Of a ratio of sums, by the deviations of whole decisions (linearised).
        variance = ((personalized - of_surface.share * served) ** 2).sum() / served.sum() ** 2
        simple = of_surface.share * (1 - of_surface.share)
        rows.append(
            [
                name,
                f"{len(served):,}",
                f"{np.median(served):.0f}",
                f"{served.max():,}",
                f"{effective / len(served):.2f}",
                f"{of_surface.share:.3f}",
                f"{variance / simple * served.sum():.0f}",
                f"{variance / simple * effective:.2f}",
            ]
        )
    columns = ("surface", "decisions", "median items", "most", "effective per decision", "share")
    return table([*columns, "design effect", "variance / bound"], rows)


def report(recorded: Mapping[str, Recorded], outcomes: Outcomes, of: Iterable[str]) -> str:
    """All tables."""
    rhythm = {depth: name for name, depth in RHYTHMS.items()}
    independent = {c: seen for c, seen in outcomes.items() if c.clustering == WHOLE_DECISIONS}
    return "\n".join(
        [
            "### The recorded surfaces\n",
            surfaces(recorded),
            "### False alarms\n",
            "For each surface and year: mean over surfaces, and in brackets the worst surface.\n",
            false_alarms(outcomes, of),
            "### Drops found, by volume\n",
            detection(
                outcomes,
                lambda case: (case.clustering.name, f"{case.hourly:,}", rhythm[case.rhythm]),
                ("clustering", "an hour", "rhythm"),
            ),
            "### Drops found, by surface\n",
            f"Clustering: {WHOLE_DECISIONS.name}; flat.\n",
            detection(
                {case: seen for case, seen in independent.items() if not case.rhythm},
                lambda case: (case.surface, f"{case.hourly:,}"),
                ("surface", "an hour"),
            ),
        ]
    )


def main() -> None:
    """Simulate, and write what was seen."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.simulation")
    parser.add_argument("traces", type=Path, help="recorded decision traces, NDJSON, gzipped")
    parser.add_argument("--days", type=int, default=365, help="of each case and seed")
    parser.add_argument("--seeds", type=int, default=3, help="how many; they are 1, 2, ...")
    parser.add_argument("--quick", action="store_true", help="four weeks, one seed")
    parser.add_argument(
        "--windows",
        nargs="+",
        metavar="WINDOW",
        help="of the page, instead of those of values.yaml",
    )
    parser.add_argument("--least", type=int, help="effective decisions, instead of values.yaml's")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables on this page")
    arguments = parser.parse_args()
    days, count = (28, 1) if arguments.quick else (arguments.days, arguments.seeds)

    if arguments.write and not BETWEEN_MARKS.search(arguments.write.read_text()):
        sys.exit(f"{arguments.write}: there are no marks {MARKS.format('... ')!r} to write between")
    recorded = usable(read_recording(arguments.traces))
    if not recorded:
        sys.exit(
            f"{arguments.traces}: no surface with {MIN_RECORDED} decisions and a share of "
            f"{HEALTHY} or more: there is nothing to resample"
        )
    values, other = load(), ""
    if arguments.windows:
        values["personalization"]["windows"] = arguments.windows
        other += f" --windows {' '.join(arguments.windows)}"
    if arguments.least:
        values["personalization"]["min_effective_decisions"] = arguments.least
        other += f" --least {arguments.least}"
    check(values)
    of = alerts(values)
    chosen = cases(recorded)
    began = time.process_time()
    outcomes = simulate(recorded, chosen, of, days=days, seeds=range(1, count + 1))
    took = (time.process_time() - began) / 60
    text = (
        f"Simulated by `python -m monitoring.simulation {arguments.traces.name} --days {days} "
        f"--seeds {count}{other}` on {datetime.now(timezone.utc):%Y-%m-%d}, in {took:.0f} minutes "
        f"of one core: {len(chosen)} cases, each of {days} days by {count} (seeds 1 to {count}); "
        f"numpy {np.__version__}.\n\n" + report(recorded, outcomes, of)
    )
    if arguments.write:
        page = arguments.write.read_text()
        arguments.write.write_text(BETWEEN_MARKS.sub(lambda _: MARKS.format(text), page, count=1))
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
