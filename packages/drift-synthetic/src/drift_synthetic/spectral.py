"""Spectral kernels on the surface of a mesh, and their drift field, linear in the numbers of points."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from drift_core import Batch, Drift, Score
from drift_core.fields.kernel import sum_scales
from drift_core.lengthscale import Lengthscales
from jaxtyping import Float, Float64, Int
from torch import Tensor

from drift_synthetic.laplacian import Spectrum
from drift_synthetic.surface import Location, Surface

_PROBES = 4_096
"""Vertices at most between which, and all others, a kernel is made positive."""
_MARGIN = 1e-6
"""Least value of a kernel, relative to its mean over the surface."""


@dataclass(frozen=True, eq=False)
class SurfaceKernel:
    """Kernel c + sum_k a_k f_k(x) f_k(y) of eigenfunctions f_k that are linear on each face."""

    functions: Float64[Tensor, "v k"]
    weights: Float64[Tensor, " k"]
    offset: float
    """The constant c, by which truncated series become positive."""

    def smoothed(self, nodal: Float64[Tensor, "v c"]) -> Float64[Tensor, "v c"]:
        """Sums sum_j k(v, y_j) w_j at the vertices v, from the weights w_j distributed to vertices."""
        return self.functions @ (
            self.weights[:, None] * (self.functions.T @ nodal)
        ) + self.offset * nodal.sum(0)

    def to_corners(
        self, corners: Int[Tensor, "n 3"], weight: Float64[Tensor, "n 3"]
    ) -> Float64[Tensor, "n 3"]:
        """Kernel between points and the corners (vertices) of their own faces; barycentric coordinates."""
        features = self.functions[corners]
        point = (weight[:, :, None] * features).sum(1)
        return torch.einsum("nck,nk->nc", features, self.weights * point) + self.offset


@lru_cache(maxsize=256)
def surface_kernel(spectrum: Spectrum, nu: float, lengthscale: float) -> SurfaceKernel:
    """Matern kernel of a surface, or heat kernel for nu = inf.

    The weight of an eigenvalue lambda is (2 nu / l^2 + lambda)^-(nu + 1), or exp(-l^2 lambda / 2), over that
    of 0 (Borovitskiy et al. 2020, arXiv 2006.10160). A truncated series is negative at some pairs of points.
    The constant is therefore raised until the least value between vertices, of which 4,096 at most are
    compared with all, is positive. As kernels are linear between vertices, they are then positive
    everywhere, and they remain positive definite.
    """
    values, functions = spectrum.values, spectrum.functions
    if nu == math.inf:
        weights = torch.exp(-(lengthscale**2) * values / 2)
    else:
        weights = (1 + values * lengthscale**2 / (2 * nu)) ** -(nu + 1)
    probes = functions[:: -(-len(functions) // _PROBES)].float()
    least = float((probes @ (weights.float()[:, None] * functions.float().T)).min())
    mean = float(functions[0, 0] ** 2)
    return SurfaceKernel(functions, weights, max(0.0, _MARGIN * mean - least))


@dataclass(frozen=True)
class SpectralField:
    """Drift field V = grad log p_k - grad log q_k of spectral kernels on the surface of a mesh.

    A smoothed density sum_j k(x, y_j) is linear on each face, because the eigenfunctions are. It takes
    O(n + m) operations on points and two products with the matrix of eigenfunctions, whatever n and m.

    Approximations: its gradient is constant on each face, so that nothing within a face is seen; structure
    finer than the last eigenfunction is not seen either; and far from all points, where the constant of the
    kernel is most of the density, the field vanishes.
    """

    manifold: Surface
    spectrum: Spectrum
    nu: float
    """Smoothness; inf is the heat kernel."""
    lengthscales: Lengthscales
    direction: str = "gradient"
    """Along the kernel gradient, or along the mean of `Surface.logmap` ("displacement")."""

    def __call__(self, batch: Batch) -> Drift:
        """Attraction to the data and repulsion from the model; raises ValueError for weighted points."""
        if batch.data_log_weight is not None or batch.model_log_weight is not None:
            raise ValueError("the field of a surface takes points without weights")
        scales = self.lengthscales.at(batch.progress)
        model, own = batch.negatives()
        attraction = [self.score(scale, batch.x, batch.data) for scale in scales]
        repulsion = [self.score(scale, batch.x, model, own) for scale in scales]
        return Drift(*(sum_scales(scales, part, self.direction) for part in (attraction, repulsion)))

    def score(
        self,
        lengthscale: float,
        x: Float[Tensor, "n 3"],
        y: Float[Tensor, "m 3"],
        self_index: Int[Tensor, " n"] | None = None,
    ) -> Score:
        """Smoothed log-density of the points y at the points x, and its gradient or the mean displacement.

        `self_index` is the row of each x in y, which is excluded; outside 0..m-1: none. Computed in float64.
        """
        kernel, faces = surface_kernel(self.spectrum, self.nu, lengthscale), self.manifold.mesh.faces
        at, among = self.manifold.locate(x), self.manifold.locate(y)
        values = torch.cat([torch.ones(len(y), 1), y.detach().cpu()], dim=1).double()
        if self.direction == "gradient":
            values = values[:, :1]
        sums = kernel.smoothed(distributed(among, values, faces, len(self.spectrum.functions)))[
            faces[at.face]
        ]
        if self_index is not None:
            own = self_index.cpu()
            kept = ((own >= 0) & (own < len(y))).double()
            excluded = values[own.clamp(0, len(y) - 1)] * kept[:, None]
            sums = sums - kernel.to_corners(faces[at.face], at.weight)[:, :, None] * excluded[:, None]
        means = (at.weight[:, :, None] * sums).sum(1)
        density, moment = means[:, :1], means[:, 1:]
        if self.direction == "gradient":
            vector = (sums * self.corner_gradients[at.face]).sum(1) / density
        else:
            chord, normal = moment / density - x.detach().cpu(), self.manifold.mesh.normals[at.face]
            vector = chord - (chord * normal).sum(1, keepdim=True) * normal
        return Score(density[:, 0].log().to(x), vector.to(x))

    @cached_property
    def corner_gradients(self) -> Float64[Tensor, "f 3 3"]:
        """Gradients of the barycentric coordinates of each face, normal to the opposite edges."""
        corners = self.manifold.mesh.corners
        edges = corners.roll(-2, 1) - corners.roll(-1, 1)  # opposite to each corner, counterclockwise
        normal = self.manifold.mesh.normals[:, None].expand_as(edges)
        twice_area = torch.linalg.cross(edges[:, 0], edges[:, 1]).norm(dim=1)
        return torch.linalg.cross(normal, edges) / twice_area[:, None, None]


def distributed(
    at: Location, values: Float64[Tensor, "m c"], faces: Int[Tensor, "f 3"], vertices: int
) -> Float64[Tensor, "v c"]:
    """Values at points, distributed to the vertices by barycentric coordinates."""
    shares = at.weight[:, :, None] * values[:, None]
    return values.new_zeros(vertices, values.shape[1]).index_add(
        0, faces[at.face].flatten(), shares.flatten(0, 1)
    )
