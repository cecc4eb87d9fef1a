"""What a domain is: all that the applications need to know of a kind of data."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch

from drift_core.field import Batch, Field
from drift_core.runs.config import DomainConfig
from drift_core.runs.metrics import Metrics
from drift_core.training.learner import Sampler

C = TypeVar("C", bound=DomainConfig)
D = TypeVar("D")
G = TypeVar("G", bound=torch.nn.Module)

Split = Literal["test", "val"]
"""Held-out data: test, for reports, or validation, for choosing settings."""


@dataclass(frozen=True)
class Run(Generic[C, D, G]):
    """A trained generator, and what it was trained on."""

    folder: Path
    config: C
    data: D
    generator: G

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(self.generator.parameters()).device


class Domain(ABC, Generic[C, D, G]):
    """A kind of data: its settings C, its data D, its generator G, the field, metrics and figures.

    `drift_core.cli.train(MyDomain())` makes an application of it, and `cli.sample` and `cli.evaluate` handle
    its runs. A generator is an nn.Module that is a `drift_core.training.Generator` and a `ModelHubMixin`, by
    which it is saved.
    """

    name: ClassVar[str]
    """Name of the domain in config.json, and of its folder of runs."""
    config_type: type[C]
    """Dataclass of the settings; its docstring is shown to those who ask for help."""
    generator_type: type[G]
    """Class of the generator, to load it again."""
    samples_file: ClassVar[str] = "samples.csv"
    """Name of a run's file of samples."""
    num_samples: ClassVar[int] = 5_000
    """Samples in that file and in the figures."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings that belong together, by the name of the recipe."""

    def default_recipe(self, config: C) -> str | None:
        """Name of the recipe that suits the data which the settings name."""
        return None

    @abstractmethod
    def load(self, config: C) -> D:
        """Load the data. Raises ValueError or OSError, naming file and row, for data that cannot be used."""

    @abstractmethod
    def generator(self, config: C, data: D) -> G:
        """Make an untrained generator; torch's random state is seeded."""

    @abstractmethod
    def field(self, config: C, data: D) -> Field:
        """Make the drift field. Raises ValueError for settings that do not go together."""

    @abstractmethod
    def data_sampler(self, config: C, data: D) -> Sampler:
        """Sampler of training data, as the field takes them."""

    def condition_sampler(self, config: C, data: D) -> Sampler | None:
        """Sampler of the conditions of a conditional generator."""
        return None

    def validation(self, config: C, data: D) -> Callable[[G], float] | None:
        """Score on validation data, lower is better, by which the best weights are kept."""
        return None

    def on_step(self, folder: Path, config: C, data: D) -> Callable[[Batch], None] | None:
        """Hook for every step of training, see `drift_core.train`."""
        return None

    def remarks(self, config: C, data: D) -> list[str]:
        """What a user should know about the data, a line each."""
        return []

    @abstractmethod
    def sample(self, run: Run[C, D, G], n: int, seed: int) -> Any:
        """Draw n samples with a seed, on the CPU."""

    @abstractmethod
    def write(self, path: Path, samples: Any) -> None:
        """Write samples to a file."""

    @abstractmethod
    def metrics(self, run: Run[C, D, G], draws: int, on: Split) -> Metrics:
        """Metrics over so many draws beside their floors, on held-out data (`evaluate_draws`)."""

    def figures(self, run: Run[C, D, G], samples: Any) -> None:
        """Draw the figures of a run into its folder figures/."""


def untrained(domain: Domain[C, D, G], config: C, data: D) -> G:
    """Generator of a run before training, the same for the same seed."""
    with seeded(config.run.seed):
        return domain.generator(config, data)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random state of the CPU within the context; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
