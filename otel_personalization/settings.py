"""What a host can set, by keyword or environment, checked before anything is counted.

A keyword comes before its variable, a variable before the default::

    >>> resolve(target="ranking.tracing:finalize", surfaces=["shop/home"]).surfaces
    frozenset({('shop', 'home')})
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from otel_personalization.conventions import (
    DEFAULT_MAX_LABEL_SETS,
    DEFAULT_STAGES,
    ENVIRONMENT_PREFIX,
    LARGEST_MAX_LABEL_SETS,
    MAX_LABEL_LENGTH,
)
from otel_personalization.trace import fits_label, namespace_of, surface_of

Locate = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Any]
"""Finds the trace: (instance, positional arguments, keyword arguments, result) -> trace."""

AFTER: Final = "after"
BEFORE: Final = "before"
RESULT: Final = "result"
SELF: Final = "self"
STDOUT: Final = "stdout"
STDERR: Final = "stderr"
NONE: Final = "none"
ARGUMENT: Final = "argument:"
ENDPOINT_VARIABLES: Final = (
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
"""Where OpenTelemetry sends metrics to, the first that is set."""


class SettingsError(ValueError):
    """A setting has a value that it cannot have."""


@dataclass(frozen=True)
class Settings:
    """The settings of a hook and of what it is wrapped around. `resolve` makes them."""

    target: tuple[str, ...]
    """Finalisers to wrap, each ``module:function`` or ``module:Class.method``; by commas."""
    trace: str | Locate
    """Where the trace is: ``result``, ``self``, ``argument:NAME``; as a keyword also a callable
    that takes (instance, positional arguments, keyword arguments, result) and returns it."""
    when: str
    """``after`` the call, or ``before`` it: stamped before, and counted once it succeeded."""
    surfaces: frozenset[tuple[str, str]]
    """Pairs ``namespace/surface``, by commas, that never fold into ``other``, and whose series are
    there with 0 from the start."""
    max_label_sets: int
    """(namespace, surface) pairs that are told apart, 1 to 116; what comes past them is counted
    under ``other``."""
    stages: frozenset[str]
    """Keys of ``extras.candidate_sources`` that are no sources, by commas."""
    log: str
    """Where log lines go: ``stdout``, ``stderr``, ``none``, or the path of a file."""
    log_sample: float
    """Share of decisions that have a line: above 0, 1 at most."""
    log_user_hash: bool
    """Whether a line holds the trace's ``user_hash``."""
    log_sources: bool
    """Whether each candidate source of a decision has a line of its own, too."""
    log_propagate: bool
    """Whether lines also go to the handlers of the host's own logging set-up; with ``log`` set to
    ``none`` only there."""
    debug: bool
    """Whether internal errors are raised into the host. For development."""


def resolve(
    *,
    target: str | Iterable[str] | None = None,
    trace: str | Locate | None = None,
    when: str | None = None,
    surfaces: Iterable[str | tuple[str, str]] | None = None,
    max_label_sets: int | None = None,
    stages: Collection[str] | None = None,
    log: str | os.PathLike[str] | None = None,
    log_sample: float | None = None,
    log_user_hash: bool | None = None,
    log_sources: bool | None = None,
    log_propagate: bool | None = None,
    debug: bool | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The settings that hold. What is None is taken from the environment.

    Raises:
        SettingsError: a value is none that the setting can have; says which, and what it can be.
    """
    variables = os.environ if environment is None else environment
    given = {
        "target": target,
        "trace": trace,
        "when": when,
        "surfaces": surfaces,
        "max_label_sets": max_label_sets,
        "stages": stages,
        "log": log,
        "log_sample": log_sample,
        "log_user_hash": log_user_hash,
        "log_sources": log_sources,
        "log_propagate": log_propagate,
        "debug": debug,
    }
    read = {}
    for name, (parse, default) in _PARSERS.items():
        value, label = given[name], name
        if value is None:
            label = ENVIRONMENT_PREFIX + name.upper()
            value = variables.get(label, "").strip() or None
        try:
            read[name] = default if value is None else parse(value)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{label} is {value!r}; {error}") from None
    settings = Settings(**read)
    if settings.when == BEFORE and settings.trace == RESULT:
        raise SettingsError(
            "when is 'before' and trace is 'result', which there is none of before the call; trace "
            f"({ENVIRONMENT_PREFIX}TRACE) can be 'self', 'argument:NAME' or a callable"
        )
    if len(settings.surfaces) > settings.max_label_sets:
        raise SettingsError(
            f"surfaces declares {len(settings.surfaces)} pairs, and max_label_sets is "
            f"{settings.max_label_sets}; it must hold them all"
        )
    return settings


def silenced_by() -> str | None:
    """The variable by which OpenTelemetry exports no metrics, with its value; None if none does."""
    if os.environ.get("OTEL_METRICS_EXPORTER", "").strip() == NONE:
        return f"OTEL_METRICS_EXPORTER is {NONE!r}"
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "OTEL_SDK_DISABLED is 'true'"
    return None


def _listed(value: Any, expected: str) -> list[Any]:
    """A list of values; a text is split at its commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    try:
        return list(value)
    except TypeError:
        raise ValueError(f"it takes {expected}, or several") from None


def _target(value: Any) -> tuple[str, ...]:
    targets = _listed(value, "'module:function' or 'module:Class.method'")
    for target in targets:
        if not isinstance(target, str) or not _TARGET.fullmatch(target):
            raise ValueError(
                f"{target!r} is no 'module:function' or 'module:Class.method', such as "
                "'ranking.tracing:DecisionTracer.finalize'"
            )
    return tuple(dict.fromkeys(targets))


_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _trace(value: Any) -> str | Locate:
    if isinstance(value, str):
        name = value.removeprefix(ARGUMENT)
        if value in (RESULT, SELF) or (name != value and name.isidentifier()):
            return value
    elif callable(value):
        located: Locate = value
        return located
    raise ValueError("it can be 'result', 'self', 'argument:NAME' or, as a keyword, a callable")


def _when(value: Any) -> str:
    if value not in (AFTER, BEFORE):
        raise ValueError("it can be 'after' or 'before'")
    return str(value)


def _surfaces(value: Any) -> frozenset[tuple[str, str]]:
    pairs = set()
    for declared in _listed(value, "'namespace/surface'"):
        parts = declared.split("/") if isinstance(declared, str) else declared
        if (
            not isinstance(parts, Sequence)
            or len(parts) != 2
            or not all(isinstance(part, str) and part.strip() for part in parts)
        ):
            raise ValueError(f"{declared!r} is no 'namespace/surface', such as 'shop_eu/home'")
        pair = (namespace_of(parts[0]), surface_of(parts[1]))
        if not all(map(fits_label, pair)):
            raise ValueError(
                f"{declared!r} has a name of over {MAX_LABEL_LENGTH} characters, or one that UTF-8 "
                "cannot carry"
            )
        pairs.add(pair)
    return frozenset(pairs)


def _max_label_sets(value: Any) -> int:
    allowed = f"it can be a whole number from 1 to {LARGEST_MAX_LABEL_SETS}"
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(allowed) from None
    if type(number) is not int or not 1 <= number <= LARGEST_MAX_LABEL_SETS:
        raise ValueError(allowed)
    return number


def _stages(value: Any) -> frozenset[str]:
    stages = _listed(value, "the name of a stage, such as 'merged'")
    if not all(isinstance(stage, str) for stage in stages):
        raise ValueError("it takes names of stages, such as 'merged,prefetched'")
    return frozenset(filter(None, stages))


def _log(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(Path(value).absolute())
    if value in (STDOUT, STDERR, NONE):
        return str(value)
    # A mistyped word is no file.
    if isinstance(value, str) and ("." in value or "/" in value or os.sep in value):
        return str(Path(value).absolute())
    raise ValueError(
        f"it can be '{STDOUT}', '{STDERR}', '{NONE}' or the path of a file, such as "
        "'./decisions.ndjson'"
    )


def _log_sample(value: Any) -> float:
    allowed = f"it can be a number above 0, up to 1; for no lines at all, log is '{NONE}'"
    try:
        rate = float(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(allowed) from None
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
        raise ValueError(allowed)
    return float(rate)


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("it can be 'true' or 'false'")


_PARSERS: Final[dict[str, tuple[Callable[[Any], Any], Any]]] = {
    "target": (_target, ()),
    "trace": (_trace, RESULT),
    "when": (_when, AFTER),
    "surfaces": (_surfaces, frozenset()),
    "max_label_sets": (_max_label_sets, DEFAULT_MAX_LABEL_SETS),
    "stages": (_stages, DEFAULT_STAGES),
    "log": (_log, STDOUT),
    "log_sample": (_log_sample, 1.0),
    "log_user_hash": (_switch, False),
    "log_sources": (_switch, False),
    "log_propagate": (_switch, False),
    "debug": (_switch, False),
}
"""By setting: what reads a value of it, and its default."""
HOOK_SETTINGS: Final = tuple(name for name in _PARSERS if name not in ("target", "trace", "when"))
"""Those that are a hook's, not a target's."""
