"""
A one-step generator on the sphere
==================================

A network maps latents to points of the sphere, in a single evaluation. It is trained without a teacher: its
samples are moved along the drift field, and it is regressed onto where they arrive.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Laplace, Sphere, drift, drift_loss
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR
from drift_core.training import plain_mlp

# %%
# The target is a checkerboard of longitude and latitude: eight cells of equal area, every other one filled.
random = torch.Generator().manual_seed(0)
cell = torch.randint(4, (20_000,), generator=random)
row, column = cell // 2, 2 * (cell % 2) + cell // 2
longitude = torch.pi / 2 * (column - 2 + torch.rand(20_000, generator=random))
height = row - torch.rand(20_000, generator=random)
level = (1 - height**2).sqrt()
data = torch.stack([level * longitude.cos(), level * longitude.sin(), height], dim=1)

# %%
# The training loop is all there is. The kernel is short at the end, where the detail is, and long at the
# start, so that every cell is seen from everywhere.
torch.manual_seed(0)
sphere, network = Sphere(), plain_mlp(4, 128, 3, 3)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
steps = 700
for step in range(steps):
    x = sphere.projx(network(torch.randn(512, 4)))
    kernel = Laplace(0.5 * 0.1 ** min(1, 2 * step / steps))
    v = drift(sphere, kernel, x.detach(), data[torch.randint(len(data), (512,))])
    loss = drift_loss(sphere, x, v, step_size=0.1)
    optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# Latents that the network has not seen, beside as many data.
samples = sphere.projx(network(torch.randn(4_000, 4))).detach()
figure, axes = plt.subplots(
    1, 2, figsize=(11, 3.2), layout="constrained", subplot_kw={"projection": "mollweide"}
)
panels = {"data": (data[:4_000], DATA_COLOUR), "samples, one evaluation each": (samples, MODEL_COLOUR)}
for ax, (title, (points, colour)) in zip(axes, panels.items(), strict=True):
    ax.scatter(torch.atan2(points[:, 1], points[:, 0]), points[:, 2].asin(), s=3, color=colour, linewidths=0)
    ax.set(title=title, xticks=[], yticks=[])
plt.show()
