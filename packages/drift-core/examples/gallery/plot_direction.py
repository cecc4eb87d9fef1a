"""
Why the kernel's gradient
=========================

The original drifting models move samples by the kernel-weighted mean displacement, which is the mean shift.
It is the gradient of a log-density only for a Gaussian kernel. For all others the mean displacement
circulates; the kernel gradient never does.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Euclidean, Laplace, drift

# %%
# Few data and few samples, so that the fields are easy to read, and a Laplace kernel.
random = torch.Generator().manual_seed(5)
data, samples = 1.1 * torch.randn(2, 6, 2, generator=random, dtype=torch.float64)
plane, kernel = Euclidean(), Laplace(0.5)

# %%
# The curl dV_y/dx - dV_x/dy is taken by automatic differentiation: a field is differentiable in the points
# where it is evaluated. A conservative field, the gradient of something, has none.


def curl(at, direction):
    """The field at some points, and its curl."""
    at = at.clone().requires_grad_()
    v = drift(plane, kernel, at, data, samples, direction=direction)
    (dx,) = torch.autograd.grad(v[:, 0].sum(), at, retain_graph=True)
    (dy,) = torch.autograd.grad(v[:, 1].sum(), at)
    return v.detach(), dy[:, 0] - dx[:, 1]


# %%
# Streamlines of both fields, over the curl. The displacement circulates, so that samples that follow it
# descend no function. The kernel gradient climbs log p - log q, from the samples to the data.
ticks = torch.linspace(-2.5, 2.5, 161, dtype=torch.float64)
grid = torch.cartesian_prod(ticks, ticks)
figure, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
for ax, direction in zip(axes, ("displacement", "gradient"), strict=True):
    v, rotation = curl(grid, direction)
    u, w, r = (part.reshape(161, 161).T.numpy() for part in (*v.T, rotation))
    image = ax.imshow(r, extent=(-2.5, 2.5, -2.5, 2.5), origin="lower", cmap="PuOr", vmin=-1, vmax=1)
    ax.streamplot(
        ticks.numpy(), ticks.numpy(), u, w, color="#222222", linewidth=0.7, arrowsize=0.8, density=1.3
    )
    ax.scatter(*data.T, s=60, color="#0072B2", edgecolors="white", zorder=3, label="data")
    ax.scatter(*samples.T, s=60, color="#D55E00", edgecolors="white", zorder=3, label="samples")
    ax.set(title=f"{direction}, curl up to {rotation.abs().max():.0e}", xticks=[], yticks=[])
    ax.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
figure.colorbar(image, ax=axes, label="curl", shrink=0.8)
plt.show()
