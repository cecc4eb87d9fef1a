"""
A manifold of your own: the Möbius strip
========================================

A geometry is a class with a few functions of points. Here (angle, height) and (angle + 2 pi, -height) are one
point, and a logarithm is the shortest way to any image of its end.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Euclidean, KernelField, Laplace, Manifold, broadcast_pairs
from drift_core.flow import particle_flow
from drift_core.lengthscale import parse_lengthscales
from drift_core.testing import check_drift, check_manifold


class Moebius(Manifold):
    point_ndim, injectivity_radius = 1, torch.pi
    proju, inner, pairs = Euclidean().proju, Euclidean().inner, broadcast_pairs  # flat, as the plane is

    def projx(self, x):
        turns = ((x[..., :1] + torch.pi) / (2 * torch.pi)).floor()
        return torch.cat([x[..., :1] - 2 * torch.pi * turns, x[..., 1:] * (1 - 2 * (turns % 2))], dim=-1)

    def expmap(self, x, u):
        return self.projx(x + u)

    def logmap(self, x, y):
        turn, over = y.new_tensor([2 * torch.pi, 0]), y * y.new_tensor([1, -1])
        ways = torch.stack([y, over - turn, over + turn]) - x
        return ways.take_along_dim(ways.square().sum(-1, keepdim=True).argmin(0, keepdim=True), 0)[0]

    def dist(self, x, y):
        return self.logmap(x, y).norm(dim=-1)


# %%
# The law suites say that it is a manifold, and that drift fields on it are gradients. The data are a wave
# that closes only because of the twist.
strip, random = Moebius(), torch.Generator().manual_seed(0)
x, y = strip.projx(2 * torch.randn(2, 20, 2, generator=random, dtype=torch.float64))
check_manifold(strip, x, y)
check_drift(strip, Laplace(0.5), x, y)
angle, noise = 2 * torch.pi * torch.rand(150, generator=random), torch.randn(2, 150, 2, generator=random)
data = strip.projx(torch.stack([angle, 0.6 * (1.5 * angle).cos()], dim=1) + 0.03 * noise[0])
field = KernelField(strip, Laplace, parse_lengthscales("3:0.15"))
flow = particle_flow(field, 0.1 * noise[1], data, steps=100, step_size=0.04, record=(0, 20, 100))
surface = torch.meshgrid(torch.linspace(0, 2 * torch.pi, 121), torch.linspace(-1, 1, 9), indexing="ij")
kind = {"projection": "3d", "computed_zorder": False}
figure, axes = plt.subplots(1, 4, figsize=(12, 2.9), layout="constrained", subplot_kw=kind)
for ax, (title, points) in zip(axes, {"data": data, **flow.records}.items(), strict=True):
    spots = {"s": 6, "depthshade": False, "color": "#0072B2" if title == "data" else "#D55E00"}
    layers = (surface, ax.plot_surface, {"color": "#f4f4f4", "alpha": 0.8}), (points.T, ax.scatter, spots)
    for (a, h), draw, style in layers:
        r = 1 + 0.5 * h * (a / 2).cos()
        draw((r * a.cos()).numpy(), (r * a.sin()).numpy(), (0.5 * h * (a / 2).sin()).numpy(), **style)
    ax.set(title=title if title == "data" else f"after {title} steps")
    ax.set_box_aspect((2, 2, 0.9), zoom=1.6)
    ax.set_axis_off()
plt.show()
