"""
Classes and guidance
====================

Samples of a class may be asked to be typical of it: at a strength a above 1 the data of all classes repel,
too. Where classes overlap, guided samples leave the overlap; where a class is alone, it keeps its shape.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Batch, ConditionalField, Euclidean, KernelField, Laplace
from drift_core.lengthscale import Lengthscales

# %%
# Three petals that meet in the middle, a class each.
random = torch.Generator().manual_seed(0)
label = torch.arange(900) % 3
along = 0.05 + 1.75 * torch.rand(900, generator=random)
angle = 2 * torch.pi * (label / 3 + 0.25) + 0.55 * torch.randn(900, generator=random)
data = along[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)

# %%
# A condition is a row (label, strength), so that a generator has the strength as an input and needs one
# evaluation at any strength. Here particles follow the field directly.
plane = Euclidean()
field = ConditionalField(KernelField(plane, Laplace, Lengthscales((0.25,))))


def flow(strength, steps=150):
    x = 0.8 * torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
    condition = torch.stack([torch.arange(300) % 3, torch.full((300,), strength)], dim=1)
    for _ in range(steps):
        batch = Batch(x, data, condition=condition, data_condition=label)
        x = plane.expmap(x, 0.03 * field(batch).field)
    return x


# %%
# The price is diversity: at strength 3 each class keeps to where it is sure.
colours = [("#0072B2", "#D55E00", "#009E73")[k] for k in label.tolist()]
panels = {"data": data, **{f"strength {a:g}": flow(a) for a in (1.0, 1.5, 3.0)}}
figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
for ax, (title, x) in zip(axes, panels.items(), strict=True):
    ax.scatter(*x.T, s=8, c=colours[: len(x)], alpha=0.7, linewidths=0)
    ax.set(title=title, xlim=(-2.4, 2.4), ylim=(-2.2, 2.4), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_color("#888888")
plt.show()
