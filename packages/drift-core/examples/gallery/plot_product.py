"""
A product of different spaces
=============================

A point of S² x R² has a place on the globe and a position in the plane. The drift of the product moves both
at once, and keeps what ties them. Two fields, one for each factor, match the factors and lose the tie.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Euclidean, KernelField, Laplace, Product, Sphere
from drift_core.flow import particle_flow
from drift_core.lengthscale import parse_lengthscales
from drift_synthetic import Spirals

# %%
# The data are a curve: a spiral from pole to pole on the sphere, and at the same time a spiral outwards in
# the plane. Points are one vector, the coordinates of both.
random = torch.Generator().manual_seed(0)
data = Spirals().sample(600, random).float()
space = Product((Sphere(), 3), (Euclidean(), 2))
start = space.projx(torch.randn(600, 5, generator=random) * torch.tensor([1, 1, 1, 0.3, 0.3]))

# %%
# Particles on the product, and on its factors. The lengthscale is one of the distance on the manifold,
# sqrt(d_sphere² + d_plane²) on the product.


def flow(manifold, x, y):
    field = KernelField(manifold, Laplace, parse_lengthscales("1:0.1"))
    return particle_flow(field, x, y, steps=120, step_size=0.02).x


pairs = [(Sphere(), slice(0, 3)), (Euclidean(), slice(3, 5))]
apart = torch.cat([flow(m, start[:, part], data[:, part]) for m, part in pairs], dim=1)
panels = {"data": data, "on the product": flow(space, start, data), "each factor by itself": apart}

# %%
# Colour is the distance from the centre in the plane, in both rows. On the sphere it runs from pole to pole,
# unless the tie is lost.
figure, axes = plt.subplots(2, 3, figsize=(9, 6.2), layout="constrained")
for (top, bottom), (title, x) in zip(axes.T, panels.items(), strict=True):
    style = {"c": x[:, 3:].norm(dim=1), "cmap": "viridis", "vmin": 0, "vmax": 1.05, "s": 9, "linewidths": 0}
    top.add_patch(plt.Circle((0, 0), 1, facecolor="#f6f6f6", edgecolor="#888888"))
    near = x[:, 1] < 0
    top.scatter(x[near, 0], x[near, 2], **{**style, "c": style["c"][near]})
    bottom.scatter(x[:, 3], x[:, 4], **style)
    top.set(title=title, xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    bottom.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", xticks=[], yticks=[])
    top.set_axis_off()
plt.show()
