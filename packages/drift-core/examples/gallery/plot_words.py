"""
Particles that become words
===========================

A letter is a corner of a simplex, and a string is a point of a product of simplices. In the Fisher-Rao
geometry these are spheres, on which the same drift moves soft strings, distributions over letters, until each
is a word of the list.
"""

import matplotlib.pyplot as plt
import torch
from drift_core import Batch, Laplace
from drift_core.lengthscale import parse_lengthscales
from drift_simplex import CategoricalField, FisherRao, to_simplex

# %%
# The data are words. Particles start in the middle, where every letter is about as likely as any other.
words = ["drift", "field", "graph", "kernel", "metric", "scale", "score", "sphere", "tensor", "torus"]
letters = "abcdefghijklmnopqrstuvwxyz "
tokens = torch.tensor([[letters.index(letter) for letter in word.ljust(6)] for word in words])
space, count = FisherRao(), 36
x = space.projx(1 + 0.3 * torch.rand(count, 6, 27, generator=torch.Generator().manual_seed(1)))

# %%
# They follow the drift field, whose lengthscale anneals; the step size decays. Data stay tokens.
field, steps = CategoricalField(27, Laplace, parse_lengthscales("2:0.2")), 80
shown = {}
for step in range(steps + 1):
    if step in (0, 10, 20, 40, steps):
        shown[step] = x
    v = field(Batch(x, tokens, progress=step / steps)).field
    x = space.expmap(x, 0.3 * max(0, 1 - step / steps) ** 0.5 * v)

# %%
# Each row is one of the particles and each column a moment. A letter is as dark as it is likely; vermillion
# once it is nearly certain.
figure, axes = plt.subplots(1, len(shown), figsize=(11, 4.2), layout="constrained")
for ax, (step, points) in zip(axes, shown.items(), strict=True):
    for row, p in enumerate(to_simplex(points)[:12]):
        for place in range(6):
            for letter in p[place].topk(3).indices.tolist():
                likely = float(p[place, letter])
                colour = "#D55E00" if likely > 0.75 else "#222222"
                ax.text(place, row, letters[letter], alpha=likely**0.7, color=colour, ha="center", size=14)
    ax.set(title=f"step {step}", xlim=(-0.6, 5.6), ylim=(11.6, -0.9), xticks=[], yticks=[])
    ax.spines[:].set_color("#cccccc")
plt.show()
