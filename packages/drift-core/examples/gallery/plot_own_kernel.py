"""
A kernel of your own
====================

A kernel is two functions of the distance: its logarithm and the derivative of that. Whatever they are, the
field vanishes where data and samples agree; what changes is how far it reaches. Here a rational quadratic
kernel, whose tails are heavy, beside two of the library.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from drift_core import Euclidean, Gaussian, KernelField, Laplace, RadialKernel
from drift_core.flow import particle_flow
from drift_core.lengthscale import Lengthscales
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, THIRD_COLOUR
from drift_core.testing import check_kernel


@dataclass(frozen=True)
class RationalQuadratic(RadialKernel):
    lengthscale: float

    def log(self, r):
        return -(r / self.lengthscale).square().log1p()

    def dlog(self, r):
        return -2 * r / (self.lengthscale**2 + r.square())


# %%
# The law suite says whether the two functions belong together, in both precisions.
check_kernel(RationalQuadratic(0.3), torch.linspace(0.01, 5, 100, dtype=torch.float64))

# %%
# Kernels at one lengthscale, and the particles that follow their fields for 300 steps. The data are five
# clusters, and the particles start at the lowest: only heavy tails reach the others in that time.
random = torch.Generator().manual_seed(0)
turn = 2 * torch.pi * torch.arange(5) / 5
centres = 1.5 * torch.stack([turn.sin(), -turn.cos()], dim=1)
data = centres[torch.randint(5, (500,), generator=random)] + 0.12 * torch.randn(500, 2, generator=random)
start = centres[0] + 0.12 * torch.randn(250, 2, generator=random)
figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
r = torch.linspace(0, 3, 200)
kernels = {Gaussian: THIRD_COLOUR, Laplace: "#aa4499", RationalQuadratic: MODEL_COLOUR}
for ax, (kernel, colour) in zip(axes[1:], kernels.items(), strict=True):
    axes[0].plot(r, kernel(0.3).log(r), color=colour, label=kernel.__name__)
    field = KernelField(Euclidean(), kernel, Lengthscales((0.3,)))
    x = particle_flow(field, start, data, steps=300, step_size=0.03, max_step=0.3).x
    ax.scatter(*data.T, s=4, color=DATA_COLOUR, alpha=0.4, linewidths=0)
    ax.scatter(*x.T, s=6, color=colour, linewidths=0)
    ax.set(title=kernel.__name__, xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", xticks=[], yticks=[])
axes[0].set(title="log k(r)", xlabel="distance r", ylim=(-12, 0.5), box_aspect=1)
axes[0].legend(frameon=False, fontsize=8)
plt.show()
