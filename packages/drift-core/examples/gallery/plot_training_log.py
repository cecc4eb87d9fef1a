"""
Reading the log of a run
========================

``train`` writes a line of ``metrics.jsonl`` every few steps. The loss alone says little: it is the squared
length of the steps, and rises when the lengthscale falls. The effective sample size says what a sample sees.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch
from drift_core import Euclidean, KernelField, Laplace, TrainConfig, effective_sample_size, train
from drift_core.lengthscale import parse_lengthscales
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, THIRD_COLOUR
from drift_core.training import plain_mlp, resample


class Ring(torch.nn.Sequential):
    def latent(self, n, generator):
        return torch.randn(n, 4, generator=generator)


# %%
# A ring, and a lengthscale that anneals from its size to a twentieth of it over the first half of training.
torch.manual_seed(0)
angle = 2 * torch.pi * torch.rand(5_000)
data = torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * torch.randn(5_000, 2)
plane, config = Euclidean(), TrainConfig.of(steps=300, batch_size=256, lr=3e-3, log_every=5, step_size=0.05)
with TemporaryDirectory() as folder:
    field = KernelField(plane, Laplace, parse_lengthscales("2:0.1"))
    train(Ring(*plain_mlp(4, 64, 2, 2)), field, resample(data), config, Path(folder))
    log = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]

# %%
# All norms grow as the lengthscale falls, since the score of a Laplace kernel is at most 1 / lengthscale: so
# does the loss, and nothing is wrong. Meanwhile ``ess`` falls, from nearly all 256 data of a batch to a few.
# On the right is what that means for one sample: the data, with areas in proportion to their weights.
figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
steps = [line["step"] for line in log]
norms = {"attraction": DATA_COLOUR, "repulsion": MODEL_COLOUR, "drift": "#222222"}
for key, colour in norms.items():
    axes[0].plot(steps, [line[f"{key}_norm"] for line in log], color=colour, label=key)
axes[0].set(yscale="log", xlabel="step", title="norms")
axes[0].legend(frameon=False, fontsize=8)
axes[1].plot(steps, [line["ess"] for line in log], color=THIRD_COLOUR)
axes[1].set(ylim=(0, 256), xlabel="step", title="effective sample size")
query = torch.tensor([[0.7, 0.7]])
for ax, scale in zip(axes[2:], (2.0, 0.1), strict=True):
    weight = Laplace(scale).log(plane.cdist(query, data[:256]))[0].softmax(0)
    size = float(effective_sample_size(plane, Laplace(scale), query, data[:256]))
    ax.scatter(*data[:256].T, s=2, color="#bbbbbb", linewidths=0)
    ax.scatter(*data[:256].T, s=4_000 * weight, color=DATA_COLOUR, alpha=0.4, linewidths=0)
    ax.scatter(*query.T, s=40, color=MODEL_COLOUR, marker="x", zorder=3)
    ax.set(title=f"lengthscale {scale:g}: ess {size:.0f}", xticks=[], yticks=[], aspect="equal")
plt.show()
