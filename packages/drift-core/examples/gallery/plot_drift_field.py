"""
The drift field
===============

A drifting model moves its samples along V = grad log p - grad log q, the difference between the scores of the
data p and of the samples q, both smoothed by a kernel. Data attract, samples repel one another, and where
both have one distribution nothing moves.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Batch, Euclidean, KernelField, Laplace
from drift_core.lengthscale import Lengthscales
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR

# %%
# The data are a ring. The samples have collapsed into a cloud on one side of it.
random = torch.Generator().manual_seed(0)
angle = 2 * torch.pi * torch.rand(400, generator=random)
ring = 1.5 * torch.stack([angle.cos(), angle.sin()], dim=1)
data = ring + 0.08 * torch.randn(400, 2, generator=random)
samples = torch.tensor([0.8, 0.3]) + 0.35 * torch.randn(400, 2, generator=random)

# %%
# A field is a manifold, a kernel and its lengthscale. Here it is evaluated on a lattice; in training it is at
# the samples. Attraction and repulsion are scores of their own.
field = KernelField(Euclidean(), Laplace, Lengthscales((0.5,)))
ticks = torch.linspace(-2.3, 2.3, 19)
lattice = torch.cartesian_prod(ticks, ticks)
attraction, repulsion = field(Batch(lattice, data, samples))

# %%
# The attraction leads to the ring from everywhere, to its nearest side first. The repulsion (it enters with a
# minus sign) drives away from the samples. Their sum empties the cloud into the arcs that have no samples
# yet.
panels = {"attraction": attraction, "minus repulsion": -repulsion, "drift": attraction - repulsion}
figure, axes = plt.subplots(1, 3, figsize=(11, 4.1), layout="constrained")
for ax, (title, v) in zip(axes, panels.items(), strict=True):
    ax.scatter(*data.T, s=8, color=DATA_COLOUR, alpha=0.5, linewidths=0, label="data")
    ax.scatter(*samples.T, s=8, color=MODEL_COLOUR, alpha=0.5, linewidths=0, label="samples")
    ax.quiver(*lattice.T, *v.T, color="#222222", scale=38, width=0.005, headwidth=4)
    ax.set(title=title, xticks=[], yticks=[], xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
    ax.spines[:].set_color("#888888")
figure.legend(
    *ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=3, frameon=False
)
plt.show()
