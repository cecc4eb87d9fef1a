"""
A kernel that knows the surface
===============================

On a knot, two points may be near in space and far along the tube. A kernel of the distance in space mixes
them up; the heat kernel, a sum of eigenfunctions of the Laplacian of the mesh, does not.
"""

import math

import matplotlib.pyplot as plt
import torch
from drift_core import Gaussian
from drift_synthetic.laplacian import spectrum
from drift_synthetic.mesh import trefoil
from drift_synthetic.solids import shaded_solid
from drift_synthetic.spectral import surface_kernel

# %%
# A trefoil as a mesh of triangles, its area that of the unit sphere, and the first 256 eigenfunctions of its
# Laplacian.
mesh = trefoil(along=120, around=14)
functions = spectrum(mesh)
at = 0


def heat(lengthscale):
    here = torch.zeros(len(mesh.vertices), 1, dtype=torch.float64)
    here[at] = 1
    kernel = surface_kernel(functions, math.inf, lengthscale)
    return kernel.smoothed(here)[:, 0]


def ambient(lengthscale):
    return Gaussian(lengthscale).log((mesh.vertices - mesh.vertices[at]).norm(dim=1)).exp()


# %%
# Both kernels about the same vertex, as they grow. Along the surface heat goes round the tube and both ways
# along it; through space the kernel leaps to the next strand. Drift fields follow the gradients of these.
figure, axes = plt.subplots(2, 3, figsize=(10, 6.6), layout="constrained", subplot_kw={"projection": "3d"})
colours = plt.get_cmap("YlGnBu")
for row, (name, kernel) in zip(
    axes, {"heat kernel": heat, "Gaussian in space": ambient}.items(), strict=True
):
    for ax, lengthscale in zip(row, (0.2, 0.4, 0.8), strict=True):
        value = kernel(lengthscale)[mesh.faces].mean(1)
        shade = torch.from_numpy(colours((value / value.max()).numpy())[:, :3])
        shaded_solid(ax, mesh.corners, mesh.normals, shade, elevation=72)
        ax.set_title(f"{name}, lengthscale {lengthscale:g}", fontsize=10)
plt.show()
