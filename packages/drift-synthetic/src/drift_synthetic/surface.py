"""The surface of a triangle mesh as a manifold: nearest points, tangent planes, steps."""

import math
from collections import deque
from functools import cached_property
from typing import NamedTuple, final

import torch
from drift_core import Euclidean, Manifold, Pairs
from drift_core.fields.nearest import NearestPoints
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from drift_synthetic.mesh import Mesh

_FIRST, _MOST = 16, 512
"""Faces that are searched for the nearest point: at first, and at most."""


class Location(NamedTuple):
    """Points of a surface by their faces."""

    face: Int64[Tensor, " n"]
    weight: Float[Tensor, "n 3"]
    """Barycentric coordinates, of the three corners of the face."""


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
        self._latest: deque[tuple[Tensor, Location]] = deque(maxlen=4)

    def __repr__(self) -> str:
        return f"Surface({len(self.mesh.vertices)} vertices, {len(self.mesh.faces)} faces)"

    @property
    def point_ndim(self) -> int:
        """Points are vectors."""
        return 1

    @cached_property
    def _centroids(self) -> NearestPoints:
        return NearestPoints(Euclidean(), self.mesh.corners.mean(1).float())

    @cached_property
    def _reach(self) -> float:
        """Largest distance from the centroid of a face to one of its corners."""
        return float((self.mesh.corners - self.mesh.corners.mean(1, keepdim=True)).norm(dim=2).max())

    @torch.no_grad()
    def locate(self, x: Float[Tensor, "n 3"]) -> Location:
        """Nearest point of the surface to each x, in float64 on the CPU.

        The faces with the nearest centroids are searched, 16 at first, then more until no other face can be
        nearer. The search ends at 512: where that many faces are about as far, one of them is taken. The
        latest clouds are remembered, as a field asks for the same points several times.
        """
        x = x.detach().double().cpu()
        for points, found in self._latest:
            if torch.equal(points, x):
                return found
        found = self._search(x)
        self._latest.append((x.clone(), found))
        return found

    def _search(self, x: Float64[Tensor, "n 3"]) -> Location:
        """Location of points that were not located lately."""
        found = Location(torch.zeros(len(x), dtype=torch.long), x.new_zeros(len(x), 3))
        rows, k, most = torch.arange(len(x)), _FIRST, min(_MOST, len(self.mesh.corners))
        while len(rows):
            k = min(k, most)
            some = x[rows]
            faces = self._centroids(some.float(), k)
            points, weights = nearest_on_triangles(some, self.mesh.corners[faces])
            distance, best = (points - some[:, None]).norm(dim=2).min(dim=1)
            each = torch.arange(len(some))
            found.face[rows], found.weight[rows] = faces[each, best], weights[each, best]
            last = (self._centroids.points[faces[:, -1]] - some).norm(dim=1)
            rows = rows[last < distance + self._reach] if k < most else rows[:0]
            k *= 4
        return found

    def points(self, at: Location) -> Float[Tensor, "n 3"]:
        """Points of faces by their barycentric coordinates."""
        return (at.weight[:, :, None] * self.mesh.corners[at.face]).sum(1)

    def interpolate(self, x: Float[Tensor, "n 3"], nodal: Float64[Tensor, "v k"]) -> Float64[Tensor, "n k"]:
        """Values at x of functions that are linear on each face, given at the vertices.

        They are those of the nearest points. The derivative is that on the face.
        """
        at, base = self.locate(x), x.double().cpu()
        weight = at.weight + torch.einsum("ncd,nd->nc", self._corner_gradients[at.face], base - base.detach())
        return torch.einsum("nc,nck->nk", weight, nodal[self.mesh.faces[at.face]]).to(x.device)

    @cached_property
    def _corner_gradients(self) -> Float64[Tensor, "f 3 3"]:
        """Gradients of the barycentric coordinates of each face, normal to the opposite edges."""
        corners = self.mesh.corners
        edges = corners.roll(-2, 1) - corners.roll(-1, 1)  # opposite to each corner, counterclockwise
        normal = self.mesh.normals[:, None].expand_as(edges)
        twice_area = torch.linalg.cross(edges[:, 0], edges[:, 1]).norm(dim=1)
        return torch.linalg.cross(normal, edges) / twice_area[:, None, None]

    def projx(self, x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Nearest point of the surface.

        Gradients pass unchanged. At a point of a smooth surface the derivative of the nearest point is the
        projection to the tangent plane, which leaves the gradients of drift losses as they are: they are
        tangent. That of the polyhedron would be zero across its edges, where samples would get stuck.
        """
        flat = x.reshape(-1, 3)
        nearest = self.points(self.locate(flat)).to(flat)
        return (flat + (nearest - flat).detach()).reshape(x.shape)

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


def nearest_on_triangles(
    x: Float[Tensor, "n 3"], corners: Float[Tensor, "n k 3 3"]
) -> tuple[Float[Tensor, "n k 3"], Float[Tensor, "n k 3"]]:
    """Nearest points of k triangles to each x, and their barycentric coordinates.

    It is the foot of the perpendicular where that lies inside, else the nearest point of the three edges.
    """
    a, b, c = corners.unbind(2)
    u, v, w = b - a, c - a, x[:, None] - a
    uu, uv, vv, uw, vw = ((p * q).sum(-1) for p, q in ((u, u), (u, v), (v, v), (u, w), (v, w)))
    t = torch.stack([vv * uw - uv * vw, uu * vw - uv * uw], dim=-1) / (uu * vv - uv * uv)[..., None]
    inside = torch.cat([1 - t.sum(-1, keepdim=True), t], dim=-1)
    along_u, along_v = (uw / uu).clamp(0, 1), (vw / vv).clamp(0, 1)
    along_w = (((c - b) * (w - u)).sum(-1) / (c - b).square().sum(-1)).clamp(0, 1)
    none = torch.zeros_like(along_u)
    options = torch.stack(
        [
            inside,
            torch.stack([1 - along_u, along_u, none], dim=-1),
            torch.stack([1 - along_v, none, along_v], dim=-1),
            torch.stack([none, 1 - along_w, along_w], dim=-1),
        ]
    )
    points = torch.einsum("onkc,nkcd->onkd", options, corners)
    distance = (points - x[:, None]).square().sum(-1)
    distance[0].masked_fill_((inside < 0).any(-1), math.inf)
    best = distance.argmin(dim=0)[None, ..., None].expand(1, *x.shape[:1], corners.shape[1], 3)
    return points.gather(0, best)[0], options.gather(0, best)[0]
