"""The surface of a triangle mesh as a manifold: nearest points, tangent planes, steps."""

from typing import Any, final

import torch
from drift_core import Euclidean, Manifold, Pairs
from jaxtyping import Float
from torch import Tensor

from drift_synthetic.location import Location, NearestFaces
from drift_synthetic.mesh import Mesh

_PULL = 0.25
"""Distance of a network's outputs from the surface at which they return to it as fast as they move along."""


@final
class Surface(Manifold):
    """The surface of a closed triangle mesh in R^3; points are vectors [..., 3] on its faces.

    Approximations: `dist` is the length of the chord, `logmap` the tangential part of the chord, and `expmap`
    the nearest point to x + u. With the curvature c of the surface, all are those of the geodesic up to
    relative errors of the order (c |u|)^2. Steps are therefore capped at a quarter of the radius of the
    sphere of the same area, which takes the place of the injectivity radius. Drift fields that need geodesic
    structure at longer distances take it from the eigenfunctions (`surface_kernel`), not from `dist`.
    """

    injectivity_radius = 0.25

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.locate = NearestFaces(mesh)

    def __repr__(self) -> str:
        return f"Surface({len(self.mesh.vertices)} vertices, {len(self.mesh.faces)} faces)"

    @property
    def point_ndim(self) -> int:
        """Points are vectors."""
        return 1

    def points(self, at: Location) -> Float[Tensor, "n 3"]:
        """Points of faces by their barycentric coordinates."""
        return (at.weight[:, :, None] * self.mesh.corners[at.face]).sum(1)

    def projx(self, x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Nearest point of the surface; gradients pass as `_Projection` says."""
        flat = x.reshape(-1, 3)
        projected: Tensor = _Projection.apply(flat, self.points(self.locate(flat)).to(flat))
        return projected.reshape(x.shape)

    def proju(self, x: Float[Tensor, "*#batch 3"], u: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "..."]:
        """Part of u in the plane of the face at x."""
        normal = self.mesh.normals[self.locate(x.reshape(-1, 3)).face].to(u).reshape(x.shape)
        return u - (u * normal).sum(-1, keepdim=True) * normal

    def inner(
        self, x: Float[Tensor, "*#batch 3"], u: Float[Tensor, "*#batch 3"], v: Float[Tensor, "*#batch 3"]
    ) -> Float[Tensor, "..."]:
        """Dot product of u and v."""
        return (u * v).sum(-1)

    def dist(self, x: Float[Tensor, "*#batch 3"], y: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "..."]:
        """Length of the chord from x to y."""
        return (x - y).norm(dim=-1)

    def expmap(self, x: Float[Tensor, "*#batch 3"], u: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "..."]:
        """Nearest point of the surface to x + u."""
        return self.projx(x + u)

    def logmap(self, x: Float[Tensor, "*#batch 3"], y: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "..."]:
        """Tangential part of the chord from x to y."""
        return self.proju(x.expand_as(x + y), y - x)

    def pairs(self, x: Float[Tensor, "n 3"], y: Float[Tensor, "m 3"]) -> Pairs:
        """Chords, and the tangential parts of their directions."""
        chords = Euclidean().pairs(x, y)
        return Pairs(chords.dist, lambda weight: self.proju(x, chords.direction_sum(weight)))


class _Projection(torch.autograd.Function):
    """The nearest points as a function of the points, with gradients that suit the outputs of a network.

    At a point of a smooth surface the derivative of the nearest point is the projection to the tangent plane.
    The gradients of drift losses are tangent, so they pass unchanged; the derivative of the polyhedron would
    be zero across its edges, where samples would get stuck. But steps along tangents lead outputs away from
    a curved surface, where the nearest point depends less and less on them, and jumps. A gradient is
    therefore given a normal part, which does not move the nearest point: to the surface, and as long as the
    gradient at the distance `_PULL`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, nearest: Tensor) -> Tensor:
        ctx.save_for_backward(x - nearest)
        return nearest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (off,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient + gradient.norm(dim=-1, keepdim=True) / _PULL * off, None
