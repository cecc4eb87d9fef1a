"""
Nearest neighbours at the end of training
=========================================

A short kernel sees few points of a batch, and the field is mostly noise. :class:`~drift_core.NearestField`
looks at the nearest of all data and of a buffer of samples instead, found by a k-d tree.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Batch, Euclidean, KernelField, Laplace, NearestField
from drift_core.lengthscale import Lengthscales
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR

# %%
# 20,000 data on a spiral, and as many samples, which are off by a little.
random = torch.Generator().manual_seed(0)


def spiral(n, shift):
    t = 1 + 2 * torch.rand(n, generator=random)
    return torch.stack([t * (4 * t).cos() + shift, t * (4 * t).sin()], 1) / 3 + 0.02 * torch.randn(
        n, 2, generator=random
    )


data, samples = spiral(20_000, 0.0), spiral(20_000, 0.2)
some = spiral(60, 0.2)

# %%
# The kernel is short. The truth is the field of all pairs, 20,000 x 20,000 at every step. A batch of 256 has
# few neighbours of any point.
field = KernelField(Euclidean(), Laplace, Lengthscales((0.02,)))
nearest = NearestField(field, data, buffer_size=20_000, neighbors=512)
nearest.observe(Batch(samples, data))
batch = Batch(some, data[:256], samples[:256])
exact = field(Batch(some, data, samples)).field
panels = {"all pairs": exact, "a batch of 256": field(batch).field, "512 nearest": nearest(batch).field}

# %%
# The error of the direction, on average over points.
figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
for ax, (title, v) in zip(axes, panels.items(), strict=True):
    angle = torch.cosine_similarity(v, exact).clamp(-1, 1).acos().rad2deg()
    ax.scatter(*data[:3_000].T, s=2, color=DATA_COLOUR, alpha=0.4, linewidths=0)
    ax.scatter(*samples[:3_000].T, s=2, color=MODEL_COLOUR, alpha=0.4, linewidths=0)
    ax.quiver(*some.T, *v.T, color="#222222", width=0.004, headwidth=4)
    ax.set(title=title, xlabel=f"{angle.mean():.0f} degrees off", xticks=[], yticks=[], aspect="equal")
plt.show()
