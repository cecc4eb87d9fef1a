"""
A kernel that knows the surface
===============================

On a knot, two points may be near in space and far along the tube. A kernel of the distance in space mixes
them up; the heat kernel, a sum of eigenfunctions of the Laplacian of the mesh, does not.
"""

from functools import partial

import matplotlib.pyplot as plt
import torch
from drift_core import Gaussian, SpectralKernel
from drift_synthetic.mesh import trefoil
from drift_synthetic.solids import shaded_solid
from drift_synthetic.spectral import surface_basis
from drift_synthetic.surface import Surface

# %%
# A trefoil as a mesh of triangles, its area that of the unit sphere. A spectral kernel is the product of
# features, which are weighted eigenfunctions; here the lowest 256.
mesh = trefoil(along=120, around=14)
basis = partial(surface_basis, Surface(mesh))


def heat(lengthscale):
    features = SpectralKernel(basis, lengthscale, levels=256, raised=True).features(mesh.vertices)
    return features @ features[0]


def ambient(lengthscale):
    return Gaussian(lengthscale).log((mesh.vertices - mesh.vertices[0]).norm(dim=1)).exp()


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
