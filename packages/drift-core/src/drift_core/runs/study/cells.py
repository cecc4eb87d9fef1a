"""Cells of a study: settings chosen on validation data, then trained with several seeds."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch

from drift_core.runs.config import DomainConfig
from drift_core.runs.study.trials import AnyDomain, Result, Score, Trial, on_test, on_validation, run_trials

K = TypeVar("K")

TUNING_SEED = 1000
"""Seed of the runs that choose settings, which no other run has."""


@dataclass(frozen=True)
class Cell:
    """What is trained with every seed, in one folder."""

    folder: str
    """Folder of its runs under the study's."""
    domain: AnyDomain
    config: DomainConfig
    """Settings, whatever their seed."""
    candidates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings from which those with the best `tuning` score are taken, by label; with one, or none, there is
    no choice."""
    tuning: Score = on_validation
    """Scores candidates by one metric, lower is better."""
    score: Score = on_test
    generator: Callable[[Any, Any], torch.nn.Module] | None = None
    """Maker of a generator in place of a trained one, as of `Trial`."""
    tuning_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of every candidate while it is compared with the others, such as fewer steps."""

    def tuning_trials(self) -> dict[str, Trial]:
        """A trial of each candidate by its label; none where there is no choice."""
        candidates = self.candidates if len(self.candidates) > 1 else {}
        return {
            label: Trial(
                f"{self.folder}/tuning-{label}",
                self.domain,
                self.config.replace(seed=TUNING_SEED, **{**self.tuning_settings, **settings}),
                self.tuning,
            )
            for label, settings in candidates.items()
        }

    def seed_trial(self, choice: "Choice", seed: int) -> Trial:
        """The trial of a seed with the chosen settings."""
        config = self.config.replace(seed=seed, **choice.settings)
        return Trial(f"{self.folder}/seed-{seed}", self.domain, config, self.score, self.generator)


@dataclass(frozen=True)
class Choice:
    """Chosen settings of a cell, and their score on validation data, if there was a choice."""

    label: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    value: float = math.nan


def choose(cells: Mapping[K, Cell], out: Path, workers: int) -> dict[K, Choice]:
    """The candidate of each cell with the lowest tuning score; an undefined score loses.

    Raises as `run_trials`.
    """
    trials = {key: cell.tuning_trials() for key, cell in cells.items()}
    every = list(chain.from_iterable(group.values() for group in trials.values()))
    found = run_trials(every, out, workers, "tuning") if every else {}
    chosen = {}
    for key, cell in cells.items():
        scores = {label: _only(found[trial.name]) for label, trial in trials[key].items()}
        best = min(cell.candidates, key=lambda label: scores.get(label, math.inf), default="")
        chosen[key] = Choice(best, cell.candidates.get(best, {}), scores.get(best, math.nan))
    return chosen


def run_seeds(
    cells: Mapping[K, Cell], chosen: Mapping[K, Choice], seeds: int, out: Path, workers: int
) -> dict[K, list[Result]]:
    """Train each cell with its chosen settings and the seeds 0, 1, ..., and score the runs.

    Raises as `run_trials`.
    """
    trials = {
        key: [cell.seed_trial(chosen[key], seed) for seed in range(seeds)] for key, cell in cells.items()
    }
    found = run_trials(list(chain.from_iterable(trials.values())), out, workers, "seeds")
    return {key: [found[trial.name] for trial in group] for key, group in trials.items()}


def lengthscale_candidates(scales: Iterable[str]) -> dict[str, dict[str, str]]:
    """Candidates of a cell that differ in the lengthscale alone, such as "0.2" or "auto:0.15"."""
    return {scale.replace(":", "-to-"): {"lengthscale": scale} for scale in scales}


def folder_name(row: str) -> str:
    """Name of a row as that of a folder, in small letters and without what is in brackets."""
    return "-".join(re.findall(r"[\w.]+", row.lower().partition(" (")[0]))


def _only(result: Result) -> float:
    """The value of the one metric of a tuning trial; infinite if it is undefined."""
    (metric,) = result.metrics.values()
    return math.inf if metric.value is None else metric.value
