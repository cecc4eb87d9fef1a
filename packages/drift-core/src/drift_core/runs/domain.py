"""The interface of domains: what the applications need to know about one type of data."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch

from drift_core.field import Batch, Field
from drift_core.runs.config import DomainConfig
from drift_core.runs.metrics import Metrics
from drift_core.training.samplers import Sampler

C = TypeVar("C", bound=DomainConfig)
D = TypeVar("D")
G = TypeVar("G", bound=torch.nn.Module)

Split = Literal["test", "val"]
"""Held-out data: test, for reports, or validation, for choosing settings."""


@dataclass(frozen=True)
class Run(Generic[C, D, G]):
    """A trained generator with its folder, settings and data."""

    folder: Path
    config: C
    data: D
    generator: G

    @property
    def device(self) -> torch.device:
        """Device of the generator."""
        return next(self.generator.parameters()).device


@dataclass(frozen=True)
class ModelNotes:
    """What the model card of a domain's generators says in words."""

    what: str = "samples"
    """What they generate, in the plural."""
    data: str = "They are described in the settings below."
    """The data, their source and their terms."""
    limits: str = "For research."
    """Intended use and limits."""
    sampling: str = "generator.sample(1_000, torch.Generator().manual_seed(0))"
    """Python expression of some samples."""


class Domain(ABC, Generic[C, D, G]):
    """One type of data: settings C, data D, generator G, field, metrics and figures.

    `drift_core.cli.train(MyDomain())` is its training application; `cli.sample` and `cli.evaluate` use its
    runs, and so does the command `drift` for domains that a package declares (`drift_core.runs.installed`).
    A generator is an nn.Module that is a `drift_core.training.Generator` and, for saving, a
    `ModelHubMixin`.
    """

    name: ClassVar[str]
    """Name of the domain in config.json, and of its folder of runs."""
    config_type: type[C]
    """Dataclass of the settings; its docstring is the description in the help text."""
    generator_type: type[G]
    """Class of the generator, for loading."""
    samples_file: ClassVar[str] = "samples.csv"
    """Name of a run's file of samples."""
    num_samples: ClassVar[int] = 5_000
    """Samples in that file and in the figures."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named groups of settings."""
    longer: ClassVar[Mapping[str, str]] = {}
    """Of a recipe that `default_recipe` names, the one with more steps of better training."""
    examples: ClassVar[Mapping[str, str]] = {}
    """Example flags, with what they do, for the help text and the end of a run."""
    notes: ClassVar[ModelNotes] = ModelNotes()
    """For the model cards."""

    def default_recipe(self, config: C) -> str | None:
        """Name of the recipe for the data of the settings."""
        return None

    @abstractmethod
    def load(self, config: C) -> D:
        """Load the data. Raises ValueError or OSError, naming file and row, for invalid data."""

    @abstractmethod
    def generator(self, config: C, data: D) -> G:
        """Make an untrained generator; called with torch's random state seeded."""

    @abstractmethod
    def field(self, config: C, data: D) -> Field:
        """Make the drift field. Raises ValueError for incompatible settings."""

    @abstractmethod
    def data_sampler(self, config: C, data: D) -> Sampler:
        """Sampler of training data, in the form that the field takes."""

    def condition_sampler(self, config: C, data: D) -> Sampler | None:
        """Sampler of the conditions of a conditional generator."""
        return None

    def validation(self, config: C, data: D) -> Callable[[G], float] | None:
        """Score on validation data, lower is better, which selects the best weights."""
        return None

    def on_step(self, folder: Path, config: C, data: D) -> Callable[[Batch], None] | None:
        """Hook for every step of training, see `drift_core.train`."""
        return None

    def remarks(self, config: C, data: D) -> list[str]:
        """Remarks about the data for the user, one line each."""
        return []

    @abstractmethod
    def sample(self, run: Run[C, D, G], n: int, seed: int) -> Any:
        """Draw n samples with a seed, on the CPU."""

    @abstractmethod
    def write(self, path: Path, samples: Any) -> None:
        """Write samples to a file."""

    @abstractmethod
    def metrics(self, run: Run[C, D, G], draws: int, on: Split) -> Metrics:
        """Metrics and their floors on held-out data, over a number of draws (`evaluate_draws`)."""

    def figures(self, run: Run[C, D, G], samples: Any) -> None:
        """Draw the figures of a run into its folder figures/."""


def untrained(domain: Domain[C, D, G], config: C, data: D) -> G:
    """Generator of a run before training, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):  # torch's random state is afterwards as it was
        torch.manual_seed(config.run.seed)
        return domain.generator(config, data)
