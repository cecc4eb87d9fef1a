"""
Couplings and the masses of far modes
=====================================

A score sees the shape of a density, not how much of it there is beyond the kernel's reach: samples in a far
mode stay there. A coupling pairs samples and data over the whole batch, and moves mass between modes that no
kernel connects.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Euclidean, KernelField, Laplace, Sinkhorn, geometric_mean, rows_only
from drift_core.flow import particle_flow
from drift_core.lengthscale import Lengthscales
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR

# %%
# A quarter of the data are on the left and three quarters on the right, eight lengthscales away. Half of the
# particles start in each.
random = torch.Generator().manual_seed(0)
noise = 0.35 * torch.randn(2, 400, 2, generator=random)
centres = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
data = centres[(torch.arange(400) % 4 > 0).long()] + noise[0]
start = centres[torch.arange(400) % 2] + noise[1]
couplings = {
    "rows_only, the method": rows_only,
    "geometric_mean, the original code": geometric_mean,
    "Sinkhorn(10)": Sinkhorn(10),
}

# %%
# Each coupling is an argument of the field; all are exact where data and samples agree. Particles that
# changed sides are drawn with their paths.
figure, axes = plt.subplots(1, 3, figsize=(12, 2.9), layout="constrained")
for ax, (title, coupling) in zip(axes, couplings.items(), strict=True):
    field = KernelField(Euclidean(), Laplace, Lengthscales((0.5,)), coupling=coupling)
    flow = particle_flow(field, start, data, steps=150, step_size=0.05, record=range(151))
    paths = torch.stack(list(flow.records.values()))
    moved = paths[:, paths[0, :, 0].sign() != paths[-1, :, 0].sign()]
    ax.plot(*moved.permute(2, 0, 1).numpy(), color=MODEL_COLOUR, alpha=0.25, linewidth=0.6)
    ax.scatter(*data.T, s=8, color=DATA_COLOUR, alpha=0.5, linewidths=0)
    ax.scatter(*flow.x.T, s=8, color=MODEL_COLOUR, alpha=0.8, linewidths=0)
    share = float((flow.x[:, 0] < 0).float().mean())
    ax.set(title=title, xlabel=f"{share:.0%} of the particles on the left", xticks=[], yticks=[])
    ax.set(xlim=(-3.4, 3.4), ylim=(-1.6, 1.6), aspect="equal")
    ax.spines[:].set_color("#888888")

# %%
# 25 % would be right. In training, where batches are small, :class:`~drift_core.BalancedField` learns the
# weights of the data over all steps instead.
plt.show()
