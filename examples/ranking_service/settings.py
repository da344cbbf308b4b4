"""The settings of the service, all from ``RANKING_*`` variables, each with a default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Fault(str, Enum):
    """What can be made to go wrong, by a request or by the configuration."""

    PERSONALIZATION_OFF = "personalization_off"
    """The profile boost fails: nothing is personalised."""
    COLLABORATIVE_EMPTY = "collaborative_empty"
    """The collaborative source finds nothing."""
    COLD_START_FLOOD = "cold_start_flood"
    """Fresh items push themselves to the front."""


@dataclass(frozen=True)
class PlantedFault:
    """A fault of one surface, or of a whole namespace: ``personalization_off@shop/cart``."""

    fault: Fault
    namespace: str
    surface: str
    """``*`` is every surface."""

    @classmethod
    def parse(cls, text: str) -> PlantedFault:
        """Read ``fault@namespace/surface``.

        Raises:
            ValueError: it is not of that form, or there is no such fault.
        """
        fault, at, place = text.strip().partition("@")
        namespace, slash, surface = place.partition("/")
        if not (at and slash):
            raise ValueError(f"{text!r} is not of the form fault@namespace/surface")
        return cls(Fault(fault), namespace, surface)

    def strikes(self, namespace: str, surface: str) -> bool:
        """Whether decisions of a surface have this fault."""
        return self.namespace == namespace and self.surface in {surface, "*"}


@dataclass(frozen=True)
class Settings:
    """What the service can be told."""

    data_dir: Path = Path("ranking-data")
    """``RANKING_DATA_DIR``: where traces and outcomes are stored."""
    seed: int = 1
    """``RANKING_SEED``: of the catalogue and the users. All processes must have the same."""
    faults: tuple[PlantedFault, ...] = ()
    """``RANKING_FAULTS``: comma-separated, see `PlantedFault`."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """What the variables say."""
        faults = environment.get("RANKING_FAULTS", "")
        return cls(
            data_dir=Path(environment.get("RANKING_DATA_DIR", cls.data_dir)),
            seed=int(environment.get("RANKING_SEED", cls.seed)),
            faults=tuple(PlantedFault.parse(text) for text in faults.split(",") if text.strip()),
        )

    def faults_of(self, namespace: str, surface: str) -> frozenset[Fault]:
        """The faults that are planted on a surface."""
        return frozenset(
            planted.fault for planted in self.faults if planted.strikes(namespace, surface)
        )
