"""Riemannian flow matching (Chen and Lipman 2024, arXiv 2302.03660): a many-step sampler to compare with."""

import math

import torch
from drift_core import Sphere
from drift_core.seeds import generator_for
from drift_core.training.learner import make_optimizer
from drift_core.training.network import MovingAverage, in_batches, residual_mlp
from jaxtyping import Float
from torch import Generator, Tensor, nn

from drift_sphere.data import Points
from drift_sphere.density import UniformPoints
from drift_sphere.domain import WIDTH, SphereConfig

_FREQUENCIES = 16
"""Sines and cosines of the time that the network sees."""
_TRAINING = 5
"""Number of the stream of random numbers."""


class FlowMatching(nn.Module):
    """A vector field v(x, t) on the sphere, whose flow carries uniform noise at t = 0 to the data at t = 1.

    Its residual network is that of `SphereGenerator`, of the same width and depth. `sample` follows the flow
    by `evaluations` exponential steps of equal size (Euler's method).
    """

    def __init__(self, width: int = WIDTH, blocks: int = 4, evaluations: int = 100) -> None:
        super().__init__()
        self.evaluations = evaluations
        self.lift = nn.Linear(3 + 2 * _FREQUENCIES, width)
        self.network = residual_mlp(width, blocks, 3)

    def forward(self, x: Float[Tensor, "n 3"], t: Float[Tensor, "n 1"]) -> Float[Tensor, "n 3"]:
        """Tangent vectors at x."""
        angle = math.pi * t * torch.arange(_FREQUENCIES, device=t.device)
        velocity: Tensor = self.network(self.lift(torch.cat([x, angle.sin(), angle.cos()], dim=1)))
        return Sphere().proju(x, velocity)

    def loss(self, y: Float[Tensor, "n 3"], generator: Generator) -> Float[Tensor, ""]:
        """Mean squared error of the velocity, on geodesics from noise to data at uniform times."""
        start = UniformPoints().sample(len(y), generator).to(y)
        t = torch.rand(len(y), 1, generator=generator).to(y)
        x, velocity = geodesic(start, y, t)
        return (self(x, t) - velocity).square().sum(dim=-1).mean()

    @torch.no_grad()
    def sample(self, n: int, generator: Generator, batch_size: int = 16_384) -> Float[Tensor, "n 3"]:
        """Draw n unit vectors; `batch_size` only bounds memory."""
        noise, device = UniformPoints().sample(n, generator), self.lift.weight.device
        return in_batches(self._follow, noise, batch_size=batch_size, device=device)

    def _follow(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        for step in range(self.evaluations):
            t = x.new_full((len(x), 1), step / self.evaluations)
            x = Sphere().expmap(x, self(x, t) / self.evaluations)
        return x


def geodesic(
    x: Float[Tensor, "n 3"], y: Float[Tensor, "n 3"], t: Float[Tensor, "n 1"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Points at times t of the geodesics from x (t = 0) to y (t = 1), and their velocities."""
    direction = Sphere().logmap(x, y)
    angle = direction.norm(dim=-1, keepdim=True)
    point = Sphere().expmap(x, t * direction)
    return point, (t * angle).cos() * direction - angle * (t * angle).sin() * x


def flow_matching(config: SphereConfig, data: Points, evaluations: int = 100) -> FlowMatching:
    """Train with the optimiser, its schedule, the batch and the moving average of a run's settings."""
    random, settings = generator_for(config.run.seed, _TRAINING), config.optimizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        model = FlowMatching(evaluations=evaluations)
    optimizer, average = make_optimizer(model, settings), MovingAverage(model)
    for step in range(settings.steps):
        rows = torch.randint(len(data.train), (config.batch.batch_size,), generator=random)
        optimizer.zero_grad()
        torch.autograd.backward(model.loss(data.train[rows], random))
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        for group in optimizer.param_groups:
            group.update(settings.parameters_at(step))
        optimizer.step()
        average.update(1 - settings.averaging if step else 1.0)
    return average.module.eval()
