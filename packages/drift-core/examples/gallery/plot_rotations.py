"""
Rotations: the pose of a symmetric object
=========================================

A cube looks the same from 24 sides, so that its pose is known up to a symmetry: a distribution on SO(3) with
24 separate modes. Particles that all start at one pose find every one of them.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import SO3, KernelField, Laplace
from drift_core.flow import particle_flow
from drift_core.lengthscale import parse_lengthscales
from drift_synthetic import RotationModes

# %%
# Rotations are unit quaternions, up to sign. The target has an error of 0.15 radians about each mode.
random = torch.Generator().manual_seed(0)
data = RotationModes().sample(600, random).float()
start = torch.tensor([1.0, 0.0, 0.0, 0.0]) + 0.1 * torch.randn(600, 4, generator=random)

# %%
# Lengthscales are angles in radians: from one that sees all rotations (any two are at most pi apart) to the
# width of a mode.
field = KernelField(SO3(), Laplace, parse_lengthscales("2:0.2"))
steps = (0, 30, 120)
flow = particle_flow(field, SO3().projx(start), data, steps=120, step_size=0.08, record=steps)

# %%
# A rotation has three numbers: two say where it takes a point of the cube (longitude and latitude), and the
# colour is the angle about that point. All colours at one spot would be all turns about it.
body = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) / torch.tensor([[5**0.5], [1.0]])
figure, axes = plt.subplots(
    2, 2, figsize=(10, 5.4), layout="constrained", subplot_kw={"projection": "mollweide"}
)
for ax, (title, q) in zip(axes.flat, {"data": data, **flow.records}.items(), strict=True):
    point, side = (body @ SO3.to_matrix(q).mT).unbind(1)
    east = torch.stack([-point[:, 1], point[:, 0], torch.zeros(len(q))], dim=1)
    angle = torch.atan2((side * torch.linalg.cross(point, east)).sum(1), (side * east).sum(1))
    longitude, latitude = torch.atan2(point[:, 1], point[:, 0]), point[:, 2].clamp(-1, 1).asin()
    ax.scatter(longitude, latitude, c=angle, s=7, cmap="hsv", vmin=-torch.pi, vmax=torch.pi, linewidths=0)
    ax.set(
        title=title if title == "data" else f"after {title} steps", xticks=[], yticks=[], facecolor="#f6f6f6"
    )
plt.show()
