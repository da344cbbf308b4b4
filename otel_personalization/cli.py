"""The command line: ``otel-personalization replay | doctor | snapshot | daily``.

What one command needs is imported when that runs: OpenTelemetry alone takes a tenth of a second,
and HTTP a twentieth.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from otel_personalization.console import (
    FAILED,
    NO_TRACES,
    SOME_NOT_COUNTED,
    fail,
    printing,
    progress_of,
    show_problems,
    told,
    url_such_as,
    whole_file,
    working,
)
from otel_personalization.conventions import COLLABORATIVE_SOURCE, DOCTOR_WAIT_SECONDS
from otel_personalization.daily import commands
from otel_personalization.ndjson import STDIN, Format
from otel_personalization.remarks import cause_among, drop_late_ones, listening
from otel_personalization.settings import NONE, SettingsError, silenced_by
from otel_personalization.urls import without_credentials
from otel_personalization.version import __version__

if TYPE_CHECKING:
    from otel_personalization.hook import PersonalizationHook
    from otel_personalization.replay import Report

ANY_WIDTH: Final = 10_000
"""More columns than a table takes, which is as wide as its figures and labels: none is cut off."""

app = typer.Typer(
    help="Does personalisation still reach users?", no_args_is_help=True, add_completion=False
)


app.command()(commands.snapshot)
app.command()(commands.daily)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Count personalised and explained items of decision traces."""


@app.command()
def replay(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Decision traces, one JSON object a line; gzipped or not; - is standard input.",
        ),
    ],
    trace_format: Annotated[
        Format, typer.Option("--format", help="Whether lines are traces or HTTP response bodies.")
    ] = Format.trace,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    otlp: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=url_such_as("http://localhost:4318"),
            help="Send the counters there, such as http://localhost:4318; the protocol is that of "
            "OTEL_EXPORTER_OTLP_PROTOCOL, http/protobuf if unset.",
        ),
    ] = None,
    stamp: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the traces there with their counts; gzipped if it ends with .gz.",
        ),
    ] = None,
) -> None:
    """Count recorded decision traces as a service would have.

    \b
    Exit codes:
      0  every line was counted
      1  a file could not be read, or the OTLP endpoint did not answer
      2  no decision trace is in the input, or the command was wrong
      3  some lines were not counted, or not stamped; they are listed by file and line
    """  # noqa: D301  # the character, which keeps lines apart
    from otel_personalization.replay import replay as count  # noqa: PLC0415  # OpenTelemetry

    if stamp is not None:
        _check_stamp(stamp, files, trace_format)
    drop_late_ones()
    try:
        with (
            listening() as remarks,  # what the hook would warn of is told with file and line
            _otlp_hook(otlp) as hook,
            whole_file(stamp) as stamped,
            progress_of(files) as progress,
        ):
            report = count(
                files,
                trace_format=trace_format,
                further_hook=hook,
                stamped=stamped,
                progress=progress,
            )
            before = len(remarks)
            is_unsent = hook is not None and not hook.flush(30)
    except SettingsError as error:
        raise typer.BadParameter(str(error), param_hint="environment") from None
    except OSError as error:
        fail(told(error))
    with printing():
        if as_json:
            typer.echo(json.dumps(report.as_json()))
        elif report.has_traces:
            # With a height, too: else rich takes 80 columns on a terminal that is dumb.
            Console(width=ANY_WIDTH, height=1).print(table_of(report))
    _tell_problems(report)
    if otlp and is_unsent:
        cause = cause_among(remarks[before:])
        why = f": {cause.text}" if cause else ""
        fail(without_credentials(f"the counters could not be sent to {otlp}{why}", otlp))
    if not report.has_traces:
        typer.echo(
            "There is no decision trace in the input: no line is a JSON object with decision_id, "
            "final_items or items. A file with one object over several lines becomes such a file "
            "by: jq -c . FILE",
            err=True,
        )
        raise typer.Exit(NO_TRACES)
    if report.problems:
        raise typer.Exit(SOME_NOT_COUNTED)


@app.command()
def doctor(
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Finaliser to look at; else OTEL_PERSONALIZATION_TARGET. Its module is imported.",
        ),
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="Where its trace is: result, self or argument:NAME.")
    ] = None,
    when: Annotated[str | None, typer.Option(help="after or before the call.")] = None,
    send: Annotated[
        bool, typer.Option("--send", help="Send one decision, and say what became of it.")
    ] = False,
    collector: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=url_such_as("http://localhost:4318"),
            help="Send some decisions to this OTLP endpoint, such as http://localhost:4318; the "
            "protocol is that of OTEL_EXPORTER_OTLP_PROTOCOL, http/protobuf if unset.",
        ),
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=url_such_as("http://localhost:9090"),
            help="Follow those decisions to this Prometheus, such as http://localhost:9090, and "
            "say at which hop they got lost.",
        ),
    ] = None,
    wait: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", min=1, help="How long they may take, the window of a view included."
        ),
    ] = DOCTOR_WAIT_SECONDS,
) -> None:
    """Check a set-up, where the service runs: what is wrong, and what to do.

    \b
    Exit codes:
      0  no problem was found
      1  there is a problem
    """  # noqa: D301  # the character, which keeps lines apart
    from otel_personalization import live_path  # noqa: PLC0415  # OpenTelemetry
    from otel_personalization.doctor import Level, examine  # noqa: PLC0415  # OpenTelemetry
    from otel_personalization.prometheus_api import PrometheusApi  # noqa: PLC0415  # HTTP

    sys.path.insert(0, str(Path.cwd()))  # as servers do
    drop_late_ones()
    given = {"target": target, "trace": trace, "when": when}
    worst = 0
    with working() as (tell, stop):
        findings = examine(given, send=send, collector=collector)
        if collector or prometheus:
            api = PrometheusApi(prometheus) if prometheus else None
            findings = chain(
                findings,
                live_path.follow(
                    api, collector, wait=wait, tell=lambda what: tell(f"waiting for {what}")
                ),
            )
        for finding in findings:
            stop()
            with printing():
                typer.echo(f"{finding.level.value:8} {finding.what}")
                if finding.remedy:
                    typer.echo(f"{'':8} -> {finding.remedy}")
            worst = max(worst, FAILED if finding.level is Level.PROBLEM else 0)
    raise typer.Exit(worst)


def _check_stamp(stamp: Path, files: list[Path], trace_format: Format) -> None:
    if trace_format is Format.response:
        raise typer.BadParameter("a response has nowhere to put a stamp", param_hint="--stamp")
    if stamp == STDIN:
        raise typer.BadParameter(
            "standard output has the report; name a file", param_hint="--stamp"
        )
    for file in files:
        if stamp.exists() and file.exists() and stamp.samefile(file):
            raise typer.BadParameter(f"{stamp} is read from, too", param_hint="--stamp")


@contextmanager
def _otlp_hook(endpoint: str | None) -> Iterator[PersonalizationHook | None]:
    """A hook whose counters are sent to an endpoint when all is counted."""
    if endpoint is None:
        yield None
        return
    if silenced := silenced_by():
        fail(f"the counters cannot be sent: {silenced}; unset it, and run it again")
    try:
        from otel_personalization import pipeline  # noqa: PLC0415  # needs the SDK
        from otel_personalization.hook import PersonalizationHook  # noqa: PLC0415  # OpenTelemetry

        provider = pipeline.configure(
            "otel-personalization-replay", endpoint=endpoint, set_global=False
        )
    except (ImportError, ValueError) as error:
        fail(str(error))
    try:
        yield PersonalizationHook(meter_provider=provider, log=NONE, log_propagate=False)
    finally:
        provider.shutdown()


def _tell_problems(report: Report) -> None:
    show_problems(report.problems, report.problem_count)
    malformed = sum(report.malformed.values())
    if report.skipped_lines or malformed:  # else nobody knows how many lines a damage took
        typer.echo(
            f"Not counted: {report.skipped_lines:,} lines that are no JSON, {malformed:,} "
            "malformed traces.",
            err=True,
        )


# --- the table --------------------------------------------------------------------------------

_COLUMNS: Final = (
    "decisions",
    "served",
    "personalised",
    "share",
    "reasons",
    "coverage",
    "requested\ncoverage",
    "collaborative\nempty",
    "longest\nstreak",
)


def table_of(report: Report) -> Table:
    """A row for each namespace, below it one for each of its surfaces, and one for all."""
    from otel_personalization.replay import COUNTS  # noqa: PLC0415  # OpenTelemetry

    table = Table(box=SIMPLE, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("namespace\n  surface", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    sources = {
        (row["namespace"], row["surface"]): row
        for row in report.sources
        if row["source"] == COLLABORATIVE_SOURCE
    }
    for namespace, grouped in groupby(report.cells, key=itemgetter("namespace")):
        cells = list(grouped)
        whole = {name: sum(cell[name] for cell in cells) for name in COUNTS}
        figures = _figures(whole, sources.get((namespace, None)))
        table.add_row(_text(namespace), *figures, style="bold")
        for cell in cells:
            figures = _figures(cell, sources.get((namespace, cell["surface"])))
            table.add_row(_text("  " + cell["surface"]), *figures)
        table.add_section()
    table.add_row("all", *_figures(report.totals, None), style="bold")
    return table


def _figures(counts: dict[str, Any], source: dict[str, Any] | None) -> list[str]:
    served = counts["served_items"]
    return [
        f"{counts['decisions']:,}",
        f"{served:,}",
        f"{counts['personalized_items']:,}",
        _share(counts["personalized_items"], served),
        f"{counts['reason_items']:,}",
        _share(counts["reason_items"], served),
        _share(counts["reason_items"], counts["reason_requested_items"]),
        _share(source["empty_decisions"], source["decisions"]) if source else "",
        f"{source['longest_empty_streak']:,}" if source else "",
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "no data"


def _text(label: str) -> Text:
    """A label as it can be shown: what does not print is escaped."""
    with suppress(UnicodeEncodeError):
        label.encode(sys.stdout.encoding or "utf-8")
        if label.isprintable():
            return Text(label)
    return Text(label.encode("unicode_escape").decode())
