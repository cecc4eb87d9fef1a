"""Runs: domains, run folders, evaluation, data sets and figures."""

from drift_core.runs.config import DomainConfig, KernelConfig, ReportedRunConfig
from drift_core.runs.domain import Domain, Run, Split, untrained
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, written_figure
from drift_core.runs.floors import Floors, cached_floors
from drift_core.runs.folder import Place, open_run
from drift_core.runs.main import load_run, report, train_domain, train_generator
from drift_core.runs.metrics import Measured, Metric, Metrics, evaluate_draws, frechet
from drift_core.runs.model import load_model, save_model

__all__ = [
    "DATA_COLOUR",
    "MODEL_COLOUR",
    "Domain",
    "DomainConfig",
    "Floors",
    "KernelConfig",
    "Measured",
    "Metric",
    "Metrics",
    "Place",
    "ReportedRunConfig",
    "Run",
    "Split",
    "cached_floors",
    "evaluate_draws",
    "frechet",
    "load_model",
    "load_run",
    "open_run",
    "report",
    "save_model",
    "train_domain",
    "train_generator",
    "untrained",
    "written_figure",
]
