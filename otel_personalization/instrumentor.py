"""Wraps the finalisers that a service names, and takes the wrapping back."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
import weakref
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.metrics import MeterProvider, get_meter_provider

from otel_personalization.conventions import ENVIRONMENT_PREFIX, InternalErrorKind
from otel_personalization.hook import PersonalizationHook
from otel_personalization.metrics import instruments_of, is_of_an_sdk
from otel_personalization.settings import HOOK_SETTINGS, SELF, Locate, Settings, resolve
from otel_personalization.wrapping import Finalizer, FinalizerWrapper, NotWrappableError

_logger = logging.getLogger(__name__)

_INHERITED: Final = object()
"""Stands for what a class did not hold itself."""


class TargetError(LookupError):
    """A target is not there, or cannot be wrapped."""


class PersonalizationInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # it is untyped
    """Counts the decision traces that a service finalises. One for a process, as all instrumentors.

    ``instrument`` takes these keywords; what is left out is taken from the
    ``OTEL_PERSONALIZATION_*`` variable of that name:

    Args:
        target: one or several of ``module:function`` or ``module:Class.method``.
        trace: where the trace is: ``result``, ``self``, ``argument:NAME``, or a callable that takes
            (instance, args, kwargs, result) and returns it.
        when: ``after`` the call; or ``before`` it, for a function that stores the trace: then the
            trace is stamped before, and counted once the call has succeeded.

    All further keywords are those of `PersonalizationHook`. ``tracer_provider`` and
    ``logger_provider`` are taken, as by every instrumentor, and not used.

    Raises:
        SettingsError: a value is none that the setting can have.
        TargetError: a target, of a module that is imported, is not there or cannot be wrapped.
            Then nothing is wrapped.

    With the target in the environment (``opentelemetry-instrument``) nothing is raised: one line of
    level ERROR says what is wrong. So does one for a target whose module is imported later.
    """

    _hook: PersonalizationHook | None = None
    _patches: list[Patch]

    @property
    def hook(self) -> PersonalizationHook:
        """The hook that counts.

        Raises:
            RuntimeError: nothing is instrumented.
        """
        if self._hook is None:
            raise RuntimeError("nothing is instrumented; call instrument(target=...) first")
        return self._hook

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: it is the service's own code that is instrumented."""
        return ()

    def instrument(self, **kwargs: Any) -> None:
        """Wrap the targets. The keywords are those of the class."""
        is_zero_code = "skip_dep_check" in kwargs  # opentelemetry-instrument says so, nobody else
        super().instrument(**kwargs)
        if is_zero_code and self._hook is not None and not is_of_an_sdk(get_meter_provider()):
            _logger.warning(
                "Personalisation is instrumented, but its counters go nowhere: no OpenTelemetry "
                'SDK is set up. pip install "otel-personalization[otlp]" brings one, with the '
                "distro that sets it up."
            )
        # Zero-code set-up without a target leaves the service free to instrument itself.
        self._is_instrumented_by_opentelemetry = self._hook is not None

    def _instrument(
        self,
        *,
        target: str | Iterable[str] | None = None,
        trace: str | Locate | None = None,
        when: str | None = None,
        meter_provider: MeterProvider | None = None,
        tracer_provider: object = None,  # noqa: ARG002  # given to all instrumentors alike
        logger_provider: object = None,  # noqa: ARG002
        **of_hook: Any,
    ) -> None:
        self._patches = []
        try:
            _check_keywords(of_hook)
            settings = resolve(target=target, trace=trace, when=when, **of_hook)
            if not settings.target:
                _logger.info(
                    "Personalisation is not instrumented: there is no target. Name the function "
                    "that finalises decision traces: %sTARGET=module:Class.method",
                    ENVIRONMENT_PREFIX,
                )
                return
            # As they were read: an iterator would be empty by now.
            of_hook = {name: getattr(settings, name) for name in HOOK_SETTINGS}
            self._hook = PersonalizationHook(meter_provider=meter_provider, **of_hook)
            for name in settings.target:
                self._patch_when_imported(name, settings, self._hook)
        except Exception as error:
            self._uninstrument()
            if target is not None:
                raise
            _report_unraised(error, meter_provider)

    def _uninstrument(self, **_kwargs: Any) -> None:
        for patch in reversed(self._patches):
            patch.undo()
        self._patches = []  # a new list: post-import hooks that still wait hold on to the old one
        self._hook = None

    def _patch_when_imported(
        self, target: str, settings: Settings, hook: PersonalizationHook
    ) -> None:
        module_name = target.partition(":")[0]
        patches = self._patches
        if module_name in sys.modules:
            patches.append(patch_target(sys.modules[module_name], target, settings, hook))
            return

        # Weakly: wrapt keeps what waits for a module, also after uninstrument().
        waiting = weakref.ref(hook)

        def patch_imported(module: ModuleType) -> None:
            hook = waiting()
            if patches is not self._patches or hook is None:
                return  # uninstrumented meanwhile
            # An exception here would reach whoever imports the module.
            try:
                patches.append(patch_target(module, target, settings, hook, has_run=True))
            except Exception as error:
                _report_unraised(error, hook=hook)

        wrapt.register_post_import_hook(patch_imported, module_name)
        self._expect_module(module_name, patches)

    def _expect_module(self, name: str, patches: list[Patch]) -> None:
        """Warn as soon as it is certain that there is no such module: a misspelt one."""
        package = name.rpartition(".")[0]
        if package and package not in sys.modules:
            wrapt.register_post_import_hook(
                lambda _module: self._expect_module(name, patches), package
            )
            self._expect_module(package, patches)
            return
        try:
            found = name in sys.modules or importlib.util.find_spec(name) is not None
        except Exception:  # a package with a search of its own, which failed
            return
        if not found and patches is self._patches:
            _logger.warning(
                "Personalisation is not instrumented yet: there is no module %r to be found%s. "
                "It is instrumented if it is imported from elsewhere.",
                name,
                f" in {package}" if package else "",
            )


def _check_keywords(of_hook: Mapping[str, object]) -> None:
    unknown = of_hook.keys() - HOOK_SETTINGS
    if unknown:
        raise TypeError(
            f"instrument() has no keyword {', '.join(map(repr, sorted(unknown)))}; "
            f"further ones are {', '.join(HOOK_SETTINGS)}"
        )


# --- patching ---------------------------------------------------------------------------------


@dataclass
class Patch:
    """A wrapper that was put in the place of a function."""

    owner: Any
    name: str
    original: Any
    """What ``vars(owner)`` held; `_INHERITED` where it held nothing."""
    wrapper: FinalizerWrapper
    finalizer: Finalizer

    def undo(self) -> None:
        """Put back what was there. A wrapper that another library has wrapped meanwhile stays."""
        self.finalizer.active = False
        if vars(self.owner).get(self.name) is not self.wrapper:
            return
        if self.original is _INHERITED:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.original)


def patch_target(
    module: ModuleType,
    target: str,
    settings: Settings,
    hook: PersonalizationHook,
    *,
    has_run: bool = False,
) -> Patch:
    """Wrap a target of a module.

    Args:
        module: that the target names.
        target: see `Settings.target`.
        settings: where its trace is, and when it is read.
        hook: counts the traces.
        has_run: whether the module's code has run to its end, whatever Python says of its import.

    Raises:
        TargetError: it is not there, or cannot be wrapped.
    """
    *containers, name = target.partition(":")[2].split(".")
    owner: Any = module
    for container in containers:
        owner = _member(owner, container, target, has_run)
    if containers and not isinstance(owner, type):
        raise TargetError(
            f"{target!r} cannot be wrapped: {'.'.join(containers)} is no class but an instance of "
            f"{type(owner).__name__}; name that class"
        )
    # Not what getattr makes of it: a staticmethod must stay one.
    function = inspect.getattr_static(owner, name, _member(owner, name, target, has_run))
    if owner is module and settings.trace == SELF:
        raise TargetError(f"{target!r} cannot be wrapped: a function has no 'self'; see trace=")
    try:
        finalizer = Finalizer(function, hook, settings.trace, settings.when)
        wrapper = FinalizerWrapper(function, finalizer)
        patch = Patch(owner, name, vars(owner).get(name, _INHERITED), wrapper, finalizer)
        setattr(owner, name, wrapper)
    except (NotWrappableError, TypeError, AttributeError) as error:  # or an owner that is fixed
        raise TargetError(f"{target!r} cannot be wrapped: {error}") from None
    if owner is module:
        with suppress(Exception):  # whatever stands in sys.modules, the patch is in place
            _warn_of_copies(function, target, module)
    return patch


def _member(owner: Any, name: str, target: str, has_run: bool) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        what = getattr(owner, "__name__", f"an instance of {type(owner).__name__}")
        there = sorted(
            member
            for member, value in getattr(owner, "__dict__", {}).items()
            if callable(getattr(owner, member, value)) and not member.startswith("__")
        )
        hint = ""
        if what == "__main__":
            hint = (
                " A program that is run is not importable: move the function to a module of its "
                "own, or call instrument() below its definition."
            )
        elif not has_run and getattr(getattr(owner, "__spec__", None), "_initializing", False):
            hint = (
                " It is still being imported: call instrument() before anything imports it, or "
                "after it has been."
            )
        raise TargetError(
            f"{target!r} is not there: {what} has no {name!r}; it has "
            + (", ".join(there) or "nothing that is called")
            + f".{hint}"
        ) from None


def _warn_of_copies(function: Any, target: str, module: ModuleType) -> None:
    """A module that did ``from ranking import finalize`` before goes on calling the original."""
    name = target.partition(":")[2]
    holders = [
        holder
        for holder, other in list(sys.modules.items())
        if other is not module and getattr(other, "__dict__", {}).get(name) is function
    ]
    if holders:
        _logger.warning(
            "%s had imported %s before it was instrumented, and goes on calling the original: "
            "instrument earlier, or name %s as a target, too.",
            ", ".join(holders),
            target,
            ", ".join(f"{holder}:{name}" for holder in holders),
        )


def _report_unraised(
    error: Exception,
    meter_provider: MeterProvider | None = None,
    hook: PersonalizationHook | None = None,
) -> None:
    """Say what is wrong, and count it, where an exception would hurt somebody else."""
    _logger.error("Personalisation is not instrumented: %s", error)
    with suppress(Exception):
        totals = hook.totals if hook is not None else instruments_of(meter_provider).totals
        totals.add_internal_error(InternalErrorKind.PATCH)
