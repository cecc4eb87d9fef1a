"""A new domain in one file: wind directions, points on the circle S^1.

python wind.py --help
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from drift_core import Domain, KernelField, Sphere, cli
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import checked_lengthscales
from drift_core.runs import DomainConfig, Measured, Metrics, Run, Split, evaluate_draws, written_figure
from drift_core.seeds import generator_for
from drift_core.training import OptimizerConfig, Sampler, Settings, plain_mlp, resample
from huggingface_hub import PyTorchModelHubMixin
from torch import Generator, Tensor, nn


@dataclass(frozen=True, kw_only=True)
class WindData(Settings):
    """The data."""

    data: Path | None = None
    """File of degrees, one a line; none: directions of two winds."""


@dataclass(frozen=True, kw_only=True)
class WindConfig(DomainConfig):
    """Train a one-step generator of wind directions."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(steps=500, lr=3e-3))
    data: WindData = field(default_factory=WindData)


class WindGenerator(nn.Module, PyTorchModelHubMixin):
    """MLP from Gaussian latents [n, 4] to directions [n, 2]."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.network = plain_mlp(4, width, 2, 2)

    def forward(self, z: Tensor) -> Tensor:
        """Directions for latents."""
        return Sphere().projx(self.network(z))

    def latent(self, n: int, generator: Generator) -> Tensor:
        """Draw n latents."""
        return torch.randn(n, 4, generator=generator)


class Wind(Domain[WindConfig, Tensor, WindGenerator]):
    """Wind directions; the data are unit vectors [n, 2], every fifth of them held out."""

    name, config_type, generator_type = "wind", WindConfig, WindGenerator
    samples_file, num_samples = "samples.txt", 2_000
    examples: ClassVar = {"--steps 2000": "longer", "--data FILE.txt": "your own: degrees, one a line"}

    def load(self, config: WindConfig) -> Tensor:
        """Read degrees, or draw directions of two winds."""
        if config.data.data is not None:
            degrees = torch.from_numpy(np.loadtxt(config.data.data, dtype=np.float32, ndmin=1))
        else:
            west = torch.arange(4_000) % 3 == 0
            noise = torch.randn(4_000, generator=Generator().manual_seed(0))
            degrees = torch.where(west, 270.0, 60.0) + 20 * noise
        return torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], dim=1)

    def generator(self, config: WindConfig, data: Tensor) -> WindGenerator:
        """The MLP."""
        return WindGenerator()

    def field(self, config: WindConfig, data: Tensor) -> KernelField:
        """The kernel-gradient field on the circle."""
        kernel = partial(make_kernel, config.kernel.kernel, nu=config.kernel.smoothness)
        scales = checked_lengthscales(config.kernel.lengthscale or "1:0.1", kernel)
        return KernelField(Sphere(), kernel, scales, config.kernel.direction)

    def data_sampler(self, config: WindConfig, data: Tensor) -> Sampler:
        """Sampler of training directions."""
        return resample(data[torch.arange(len(data)) % 5 != 0])

    def sample(self, run: Run[WindConfig, Tensor, WindGenerator], n: int, seed: int) -> Tensor:
        """Draw n directions."""
        z = run.generator.latent(n, generator_for(seed)).to(run.device)
        return run.generator(z).detach().cpu()

    def write(self, path: Path, samples: Tensor) -> None:
        """Write degrees, one a line."""
        np.savetxt(path, degrees_of(samples), fmt="%.3f")

    def metrics(self, run: Run[WindConfig, Tensor, WindGenerator], draws: int, on: Split) -> Metrics:
        """Mean distance between sorted directions (Wasserstein-1, in degrees), beside training data's."""
        held_out, train = degrees_of(run.data[::5]), self.data_sampler(run.config, run.data)

        def measure(k: int) -> Measured:
            clouds = self.sample(run, len(held_out), k), train(len(held_out), generator_for(k))
            value, floor = ({"w1": float(abs(degrees_of(x) - held_out).mean())} for x in clouds)
            return value, floor

        return evaluate_draws(measure, draws)

    def figures(self, run: Run[WindConfig, Tensor, WindGenerator], samples: Tensor) -> None:
        """Draw how often the wind blows from where."""
        with written_figure(run.folder / "figures" / "rose.png", 4.0, 8.0) as figure:
            for place, x in (121, run.data), (122, samples):
                axes = figure.add_subplot(place, projection="polar")
                axes.hist(np.deg2rad(degrees_of(x)), bins=36, density=True)


def degrees_of(x: Tensor) -> np.ndarray:
    """Directions in degrees, sorted."""
    return np.sort(np.rad2deg(np.arctan2(*x.numpy().T[::-1])) % 360)


if __name__ == "__main__":
    cli.train(Wind())
