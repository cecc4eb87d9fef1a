"""
How close is close? A distance and its floor
============================================

Particles that follow the drift field approach the data. The maximum mean discrepancy (MMD) says how far they
are; its floor, the distance of a fresh draw of data, says where the descent ends for any method.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Gaussian, KernelField, Laplace, Sphere
from drift_core.flow import particle_flow
from drift_core.lengthscale import Lengthscales
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, THIRD_COLOUR

# %%
# The data are two circles of latitude, 60 % on the northern one. As many again are held out, to measure by.
sphere, random, steps = Sphere(), torch.Generator().manual_seed(0), 400
angle = 2 * torch.pi * torch.rand(1_200, generator=random)
height = 1.2 * (torch.rand(1_200, generator=random) < 0.6) - 0.6
circles = torch.stack([angle.cos(), angle.sin(), height], dim=1)
points = sphere.projx(circles + 0.03 * torch.randn(1_200, 3, generator=random))
data, held_out, fresh = points.split(400)
start = sphere.projx(torch.tensor([1.0, 0.0, 0.6]) + 0.1 * torch.randn(400, 3, generator=random))


def mmd(x, y):
    means = (Gaussian(0.3).log(sphere.cdist(*pair)).exp().mean() for pair in ((x, x), (y, y), (x, y)))
    return float(next(means) + next(means) - 2 * next(means)) ** 0.5


# %%
# The same flow at three lengthscales, from one place on the northern circle. A long one spreads the particles
# over the sphere, and sees no circles. A short one fills the northern circle, and sees no other. The annealed
# one comes within a tenth of the floor.
figure = plt.figure(figsize=(11, 3.9), layout="constrained")
curve = figure.add_subplot(1, 2, 1)
scales = {
    "2": ((2.0,), THIRD_COLOUR),
    "0.1": ((0.1,), "#aa4499"),
    "from 2 to 0.1": ((2.0, 0.1), MODEL_COLOUR),
}
for text, (ends, colour) in scales.items():
    field = KernelField(sphere, Laplace, Lengthscales(ends[:1], ends[-1:], anneal=1.0))
    flow = particle_flow(field, start, data, steps=steps, step_size=0.02, record=range(0, steps + 1, 8))
    curve.plot(
        list(flow.records), [mmd(x, held_out) for x in flow.records.values()], color=colour, label=text
    )
curve.axhline(mmd(fresh, held_out), color="#888888", linestyle="--", label="floor: fresh data")
curve.set(yscale="log", xlabel="step", ylabel="MMD to held-out data")
curve.spines[["top", "right"]].set_visible(False)
curve.legend(frameon=False, title="lengthscale")

# %%
# The particles of the annealed flow, over the data.
world = figure.add_subplot(1, 2, 2, projection="mollweide")
for x, colour, size in ((data, DATA_COLOUR, 14), (flow.x, MODEL_COLOUR, 6)):
    world.scatter(torch.atan2(x[:, 1], x[:, 0]), x[:, 2].asin(), s=size, color=colour, linewidths=0)
world.set(xticks=[], yticks=[], title="data, and particles after 400 steps", facecolor="#f6f6f6")
plt.show()
