"""
A tree in the hyperbolic plane
==============================

The hyperbolic plane has room for trees: its circles grow exponentially with their radius, as the levels of a
tree do. A field on the Lorentz model fills the embedded branches of a binary tree, out to leaves that a flat
disc would crowd at its rim.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Hyperboloid, KernelField, Laplace
from drift_core.flow import particle_flow
from drift_core.lengthscale import parse_lengthscales
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR

# %%
# Nodes of level k lie at distance 0.9 k from the root; each has two children, in its half of the sector. Data
# are points of the edges, which are geodesics, with noise.
space, random = Hyperboloid(), torch.Generator().manual_seed(0)


def polar(radius, angle):
    return torch.stack([radius.cosh(), radius.sinh() * angle.cos(), radius.sinh() * angle.sin()], dim=-1)


nodes = torch.arange(1, 64)  # the children of node i are 2 i and 2 i + 1
level = nodes.float().log2().floor()
points = polar(0.9 * level, 2 * torch.pi * (nodes + 0.5) / 2**level)
ends, starts = points[1:], points[nodes[1:] // 2 - 1]
edge = torch.multinomial(0.6 ** level[1:], 1_500, replacement=True, generator=random)
along = torch.rand(1_500, 1, generator=random)
data = space.expmap(starts[edge], along * space.logmap(starts[edge], ends[edge]))
side = space.proju(data, torch.randn(1_500, 3, generator=random))
data = space.expmap(
    data, 0.06 * torch.randn(1_500, 1, generator=random) * side / space.norm(data, side)[:, None]
)

# %%
# Particles start at the root. The lengthscale, in hyperbolic distance, anneals from the size of the tree to
# the width of its branches.
field = KernelField(space, Laplace, parse_lengthscales("3:0.15"))
start = space.projx(torch.cat([torch.ones(1_000, 1), 0.1 * torch.randn(1_000, 2, generator=random)], 1))
flow = particle_flow(field, start, data, steps=120, step_size=0.05, record=(0, 30, 120))

# %%
# Poincaré's disc shows the whole plane; distances grow without bound to its rim.
edges = space.expmap(starts, torch.linspace(0, 1, 30)[:, None, None] * space.logmap(starts, ends))
figure, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
for ax, (title, x) in zip(axes, {"data": data, **flow.records}.items(), strict=True):
    ax.add_patch(plt.Circle((0, 0), 1, facecolor="#f6f6f6", edgecolor="#888888"))
    ax.plot(*(edges[..., 1:] / (1 + edges[..., :1])).permute(2, 0, 1).numpy(), color="#bbbbbb", linewidth=0.6)
    disc = x[:, 1:] / (1 + x[:, :1])
    ax.scatter(*disc.T, s=3, color=DATA_COLOUR if title == "data" else MODEL_COLOUR, linewidths=0, zorder=3)
    ax.set(title=title if title == "data" else f"after {title} steps", aspect="equal")
    ax.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02))
    ax.set_axis_off()
plt.show()
