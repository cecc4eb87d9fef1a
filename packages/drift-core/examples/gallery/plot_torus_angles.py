"""
Angles on a torus
=================

The backbone of a protein turns by two angles at each residue. Their plot has no edges: what leaves on one
side comes in on the other. A generator whose field knows that fills basins that straddle the cut; one that
takes angles for numbers is torn there.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Euclidean, Laplace, Torus, drift, drift_loss
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, THIRD_COLOUR
from drift_core.training import plain_mlp

# %%
# A made-up Ramachandran plot: (phi, psi) of helices, of strands, which straddle psi = 180 degrees, and of
# left-handed helices.
random = torch.Generator().manual_seed(0)
centres = torch.tensor([[-63.0, -43.0], [-120.0, 140.0], [-70.0, 165.0], [57.0, 40.0]])
widths = torch.tensor([[10.0, 12.0], [22.0, 25.0], [14.0, 20.0], [8.0, 12.0]])
basin = torch.multinomial(torch.tensor([0.4, 0.3, 0.2, 0.1]), 10_000, replacement=True, generator=random)
degrees = centres[basin] + widths[basin] * torch.randn(10_000, 2, generator=random)
torus = Torus(2)
data = torus.projx(degrees.deg2rad())

# %%
# The same network on both geometries. Its outputs are two vectors of the plane, whose directions are the
# angles.


def trained(manifold, steps=400):
    torch.manual_seed(0)
    network = plain_mlp(6, 96, 3, 4)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(steps):
        x = torch.atan2(*network(torch.randn(256, 6)).reshape(-1, 2, 2).unbind(-1))
        kernel = Laplace(1.5 * 0.1 ** min(1, 2 * step / steps))
        v = drift(manifold, kernel, x.detach(), data[torch.randint(len(data), (256,))])
        loss = drift_loss(manifold, x, v, step_size=0.1)
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.atan2(*network(torch.randn(3_000, 6)).detach().reshape(-1, 2, 2).unbind(-1))


# %%
# Turned by 180 degrees in psi, so that the cut is in the middle.
panels = {"data": (data[:3_000], DATA_COLOUR), "Torus(2)": (trained(torus), MODEL_COLOUR)}
panels["Euclidean()"] = trained(Euclidean()), THIRD_COLOUR
figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharey=True)
for ax, (title, (points, colour)) in zip(axes, panels.items(), strict=True):
    phi, psi = points.rad2deg().T
    ax.scatter(phi, psi % 360, s=3, color=colour, alpha=0.5, linewidths=0)
    ax.axhline(180, color="#888888", linewidth=0.8, linestyle="--")
    ax.set(title=title, xlabel="phi (degrees)", xlim=(-180, 180), ylim=(0, 360), xticks=range(-180, 181, 90))
axes[0].set(ylabel="psi (degrees)", yticks=range(0, 361, 90))
plt.show()
