"""What a recipe is, and the list of all of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from tests.parts.cache import Say, cache_root, install, locked
from tests.parts.steps import Steps


class Recipe(ABC):
    """How one part is got. `locate` is cheap and needs no network; `fetch` may take minutes, once a machine."""

    name: ClassVar[str]
    title: ClassVar[str]
    cost: ClassVar[str]
    """What a first fetch takes, told before it begins."""

    @abstractmethod
    def locate(self) -> Path | None:
        """The part's folder (of an installed program: its executable), or None where it is not on this machine."""

    @abstractmethod
    def fetch(self, say: Say) -> Path:
        """Get the part, or find that another run just did. Raises `PartUnavailable`."""

    def blocked(self) -> str | None:
        """Why the part could not run here although it was fetched (a missing Java), or None."""
        return None


class CachedRecipe(Recipe):
    """A part that is a folder in the cache, named by `key`."""

    program: ClassVar[str]
    """Path inside the folder that says the part is there."""

    @property
    @abstractmethod
    def key(self) -> str:
        """``name-version``, with a digest of everything else that decides the content."""

    @abstractmethod
    def build(self, folder: Path, steps: Steps) -> None:
        """Fill ``folder``."""

    def locate(self) -> Path | None:
        folder = cache_root() / self.key
        return folder if (folder / self.program).exists() else None

    def fetch(self, say: Say) -> Path:
        root = cache_root()
        with locked(root, self.name, say):
            found = self.locate()
            if found is not None:
                return found
            log = root / "logs" / f"{self.key}.log"
            log.unlink(missing_ok=True)
            steps = Steps(self.name, log, say)
            return install(root, self.key, lambda folder: self.build(folder, steps))


def is_root() -> bool:
    """Whether packages of the system may be installed."""
    return os.geteuid() == 0


def all_recipes() -> dict[str, Recipe]:
    """Every recipe by name, in the order in which they are fetched."""
    from tests.parts.chromium import ChromiumRecipe
    from tests.parts.collector import CollectorRecipe
    from tests.parts.debian import AlertmanagerRecipe, PrometheusRecipe
    from tests.parts.kafka import KafkaRecipe
    from tests.parts.runtimes import GoEmitterRecipe, JavaAgentRecipe, NodeEmitterRecipe
    from tests.parts.torch import TorchRecipe

    recipes: tuple[Recipe, ...] = (
        ChromiumRecipe(),
        CollectorRecipe(),
        KafkaRecipe(),
        AlertmanagerRecipe(),
        PrometheusRecipe(),
        JavaAgentRecipe(),
        GoEmitterRecipe(),
        NodeEmitterRecipe(),
        TorchRecipe(),
    )
    return {recipe.name: recipe for recipe in recipes}


NEEDED = (
    *("chromium", "collector", "kafka", "alertmanager", "prometheus"),
    *("java_agent", "go_emitter", "node_emitter", "torch"),
)
"""Those that the tests of the product can't do without: `./dev test` fetches them, REQUIRE_PARTS=1 demands them.

The harness is made for the others too; its tests of them run where they were fetched (`./dev parts`), and a test of
the product that comes to need one adds its name here.
"""
