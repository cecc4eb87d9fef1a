"""
A generator leaves Python
=========================

A generator is a module from latents to points. It is saved as safetensors, loaded from a folder or the hub,
and exported as a graph that needs none of this library. The picture is what the network makes of the plane of
latents.
"""

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch
from drift_core import Euclidean, Laplace, drift, drift_loss
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR
from drift_core.training import plain_mlp
from huggingface_hub import PyTorchModelHubMixin


class Moons(torch.nn.Sequential, PyTorchModelHubMixin):
    def __init__(self, width=96):
        super().__init__(*plain_mlp(2, width, 3, 2))


# %%
# Two moons, and 400 steps of training.
torch.manual_seed(0)
angle, side = torch.pi * torch.rand(5_000), 2 * torch.randint(2, (5_000,)) - 1
moons = torch.stack([side * (0.5 - angle.cos()), side * (angle.sin() - 0.25)], dim=1)
data = 1.2 * moons + 0.06 * torch.randn(5_000, 2)
plane, model = Euclidean(), Moons()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for step in range(400):
    x = model(torch.randn(256, 2))
    v = drift(plane, Laplace(2.0 * 0.05 ** min(1, step / 200)), x.detach(), data[torch.randperm(5_000)[:256]])
    optimizer.zero_grad()
    drift_loss(plane, x, v, step_size=0.05).backward()
    optimizer.step()

# %%
# Saved, loaded, exported for any number of rows; ``torch.onnx.export(program)`` goes on from there.
with TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    loaded = Moons.from_pretrained(folder).eval()
z = torch.cartesian_prod(*2 * [torch.linspace(-2, 2, 61)])
program = torch.export.export(loaded, (z,), dynamic_shapes=({0: torch.export.Dim("n")},))
forms = {"latents": z, "trained": model(z).detach(), "saved, loaded, exported": program.module()(z).detach()}

# %%
# Lines of the lattice of latents, and their images over the data. Lines that cross a gap hold few latents.
figure, axes = plt.subplots(1, 3, figsize=(12, 3), layout="constrained", width_ratios=(1, 1.7, 1.7))
for ax, (title, x) in zip(axes, forms.items(), strict=True):
    for lines in (x.reshape(61, 61, 2)[::4], x.reshape(61, 61, 2)[:, ::4].transpose(0, 1)):
        ax.plot(*lines.permute(2, 1, 0).numpy(), color=MODEL_COLOUR, linewidth=0.5)
    if title != "latents":
        ax.scatter(*data[:1_000].T, s=3, color=DATA_COLOUR, alpha=0.5, linewidths=0)
    ax.set(title=title, aspect="equal", xticks=[], yticks=[])
axes[2].set_xlabel(f"off by {float((x - forms['trained']).abs().max()):.1g} at most")
plt.show()
