"""Draw scores.png: the drift is the smoothed score of the data minus that of the samples."""

from pathlib import Path

import torch
from drift_core import Euclidean, Laplace, smoothed_score
from drift_core.runs.figures import DATA_COLOUR, MODEL_COLOUR, written_figure

PLANE, KERNEL = Euclidean(), Laplace(lengthscale=0.4)
random = torch.Generator().manual_seed(0)
angle = 2 * torch.pi * torch.rand(300, generator=random)
data = torch.stack([angle.cos(), angle.sin()], dim=1) + 0.06 * torch.randn(300, 2, generator=random)
angle = torch.pi * torch.rand(300, generator=random)
samples = torch.stack([angle.cos(), angle.sin()], dim=1) + 0.06 * torch.randn(300, 2, generator=random)

ticks = torch.linspace(-1.6, 1.6, 17)
lattice = torch.cartesian_prod(ticks, ticks)
attraction, repulsion = (smoothed_score(PLANE, KERNEL, lattice, y).gradient for y in (data, samples))
panels = {
    "score of the data": (attraction, data, DATA_COLOUR),
    "score of the samples": (repulsion, samples, MODEL_COLOUR),
}

with written_figure(Path(__file__).with_suffix(".png"), 3.9, 11.0) as figure:
    left, middle, right = figure.subplots(1, 3)
    for axes, (title, (v, points, colour)) in zip((left, middle), panels.items(), strict=True):
        axes.scatter(*points.T, s=6, color=colour, linewidths=0)
        axes.quiver(*lattice.T, *v.T, color="#333333", scale=38, width=0.005, headwidth=4)
        axes.set_title(title)
    for points, colour in ((data, DATA_COLOUR), (samples, MODEL_COLOUR)):
        right.scatter(*points.T, s=6, color=colour, linewidths=0)
    right.quiver(*lattice.T, *(attraction - repulsion).T, color="#333333", scale=38, width=0.005, headwidth=4)
    right.set_title("drift: their difference")
    for axes in (left, middle, right):
        axes.set(xticks=[], yticks=[], aspect="equal", xlim=(-1.75, 1.75), ylim=(-1.75, 1.75))
        axes.spines[:].set_color("#888888")
