"""Settings of an application: training, kernel and reporting."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from drift_core.training.config import RunConfig, Settings, TrainConfig, at_least, check_positive


@dataclass(frozen=True, kw_only=True)
class KernelConfig(Settings):
    """The kernel, and the direction of the drift."""

    kernel: Literal["laplace", "gaussian", "matern", "spectral"] = "laplace"
    """Kernel; spectral is Matern on the sphere, by its eigenfunctions."""
    nu: float | None = None
    """Smoothness of a kernel that has one; inf: Gaussian, heat kernel; none: 1.5."""
    lengthscale: str | None = "0.2"
    """Lengthscale: a number, several (0.2,0.6), annealed (3:0.2), or auto."""
    direction: Literal["gradient", "displacement"] = "gradient"
    """Along the kernel gradient, or along the mean displacement."""

    def check(self) -> None:
        """Raise ValueError for a setting that is out of range or has no effect."""
        super().check()
        if self.nu is None:
            return
        if self.kernel not in ("matern", "spectral"):
            raise ValueError(f"`nu` is for `kernel` matern or spectral; got {self.kernel}")
        if self.nu != float("inf"):
            check_positive("nu", self.nu)

    @property
    def smoothness(self) -> float:
        """Smoothness nu of the kernel."""
        return 1.5 if self.nu is None else self.nu


@dataclass(frozen=True, kw_only=True)
class ReportedRunConfig(RunConfig):
    """Seed, logging, checkpoints and reporting of a run."""

    eval_draws: Annotated[int, at_least(1)] = 20
    """Draws over which metrics are averaged."""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Where to log besides metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class DomainConfig(TrainConfig):
    """Settings of an application. A domain adds groups of its own, such as its data and its network."""

    kernel: KernelConfig = field(default_factory=KernelConfig)
    run: ReportedRunConfig = field(default_factory=ReportedRunConfig)
