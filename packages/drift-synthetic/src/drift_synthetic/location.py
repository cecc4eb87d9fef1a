"""Nearest points of a triangle mesh: their faces, and where in them."""

import math
from collections import deque
from typing import NamedTuple

import torch
from drift_core import Euclidean
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


class NearestFaces:
    """Nearest point of the surface to each x, in float64 on the CPU.

    The faces with the nearest centroids are searched, 16 at first, then more until no other face can be
    nearer. The search ends at 512: where that many faces are about as far, one of them is taken. The latest
    clouds are remembered, because a field asks for the same points several times.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.corners = mesh.corners
        centroids = mesh.corners.mean(1)
        self._centroids = NearestPoints(Euclidean(), centroids.float())
        self._reach = float((mesh.corners - centroids[:, None]).norm(dim=2).max())
        self._latest: deque[tuple[Tensor, Location]] = deque(maxlen=4)

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "n 3"]) -> Location:
        """Faces of the nearest points, and barycentric coordinates."""
        x = x.detach().double().cpu()
        for points, found in self._latest:
            if torch.equal(points, x):
                return found
        found = self._search(x)
        self._latest.append((x.clone(), found))
        return found

    def _search(self, x: Float64[Tensor, "n 3"]) -> Location:
        found = Location(torch.zeros(len(x), dtype=torch.long), x.new_zeros(len(x), 3))
        rows, k, most = torch.arange(len(x)), _FIRST, min(_MOST, len(self.corners))
        while len(rows):
            k = min(k, most)
            some = x[rows]
            faces = self._centroids(some.float(), k)
            points, weights = nearest_on_triangles(some, self.corners[faces])
            distance, best = (points - some[:, None]).norm(dim=2).min(dim=1)
            each = torch.arange(len(some))
            found.face[rows], found.weight[rows] = faces[each, best], weights[each, best]
            last = (self._centroids.points[faces[:, -1]] - some).norm(dim=1)
            rows = rows[last < distance + self._reach] if k < most else rows[:0]
            k *= 4
        return found


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
