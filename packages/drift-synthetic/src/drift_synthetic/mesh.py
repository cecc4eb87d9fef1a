"""Triangle meshes: a trefoil by formula, files, and what makes a mesh a closed surface."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

SUFFIXES = (".obj", ".ply")
"""Formats of mesh files."""

MAX_VERTICES = 50_000
"""Vertices of the largest mesh: its eigenfunctions take minutes."""

_TUBE, _BULGE = 0.5, 0.15
"""Mean radius of the trefoil's tube, and its relative variation, without which eigenvalues would be double
and eigenfunctions arbitrary."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed, connected and consistently oriented surface of triangles, of area 4 pi.

    The coordinates of a file are centre + scale * vertices. With the area of the unit sphere, lengthscales
    and networks need not know the units of the file.
    """

    vertices: Float64[Tensor, "v 3"]
    faces: Int64[Tensor, "f 3"]
    """Vertices of each triangle, counterclockwise from outside."""
    centre: Float64[Tensor, "3"]
    scale: float

    @cached_property
    def corners(self) -> Float[Tensor, "f 3 3"]:
        """Corners of the faces."""
        return self.vertices[self.faces]

    @cached_property
    def normals(self) -> Float[Tensor, "f 3"]:
        """Unit normals of the faces."""
        a, b, c = self.corners.unbind(1)
        return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)

    @cached_property
    def corner_gradients(self) -> Float64[Tensor, "f 3 3"]:
        """Gradients of the barycentric coordinates of each face, normal to the opposite edges."""
        edges = self.corners.roll(-2, 1) - self.corners.roll(-1, 1)  # opposite to each corner
        twice_area = torch.linalg.cross(edges[:, 0], edges[:, 1]).norm(dim=1)
        return torch.linalg.cross(self.normals[:, None].expand_as(edges), edges) / twice_area[:, None, None]


def make_mesh(vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]) -> Mesh:
    """Mesh of vertices and triangles, moved to the origin, scaled to the area 4 pi and turned outside out.

    Raises:
        ValueError: not a closed surface; the message says what is wrong (`defect`).
    """
    wrong = defect(vertices, faces)
    if wrong is not None:
        raise ValueError(wrong)
    points, triangles = torch.from_numpy(vertices).double(), torch.from_numpy(faces).long()
    centre = points.mean(0)
    corners = points[triangles] - centre
    if float(torch.linalg.det(corners).sum()) < 0:  # six times the volume inside
        triangles = triangles.flip(1)
    scale = math.sqrt(float(areas(corners).sum()) / (4 * math.pi))
    return Mesh((points - centre) / scale, triangles, centre, scale)


def areas(corners: Float64[Tensor, "f 3 3"]) -> Float64[Tensor, " f"]:
    """Areas of triangles with the given corners."""
    a, b, c = corners.unbind(1)
    return torch.linalg.cross(b - a, c - a).norm(dim=1) / 2


def trefoil(along: int = 160, around: int = 20) -> Mesh:
    """A tube around a trefoil knot, on a grid of `along` x `around` vertices.

    Strands that are near in space are far apart on the surface, so that the two geometries differ.
    """
    t = np.linspace(0, 2 * np.pi, along, endpoint=False)
    curve = np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], axis=1)
    tangent = np.stack(
        [np.cos(t) + 4 * np.cos(2 * t), 4 * np.sin(2 * t) - np.sin(t), -3 * np.cos(3 * t)], axis=1
    )
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    across = np.cross(tangent, [0.0, 0.0, 1.0])  # the knot is nowhere vertical
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    up = np.cross(across, tangent)
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)[:, None]
    circles = np.cos(angle) * up[:, None] + np.sin(angle) * across[:, None]
    radius = _TUBE * (1 + _BULGE * np.sin(t + 0.5))[:, None, None]
    vertices = (curve[:, None] + radius * circles).reshape(-1, 3)
    i, j = (index.ravel() for index in np.indices((along, around)))
    a, b, c, d = (
        (i + di) % along * around + (j + dj) % around for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1))
    )
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    return make_mesh(vertices, faces.astype(np.int64))


def read_mesh(path: str | Path) -> Mesh:
    """Mesh of an OBJ or PLY file. Vertices at the same place are one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another format, a damaged file, or not a closed surface; it names the file.
    """
    import trimesh  # takes a second

    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`mesh` {path}: expected a file of {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"`mesh` {path}: no such file")
    try:
        found = trimesh.load_mesh(path, process=False)
        vertices, faces = np.asarray(found.vertices, dtype=float), np.asarray(found.faces, dtype=np.int64)
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"`mesh` {path}: not a readable mesh ({type(error).__name__}: {error})") from None
    try:
        return make_mesh(*_merged(vertices, faces))
    except ValueError as error:
        raise ValueError(f"`mesh` {path}: {error}") from None


def _merged(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]
) -> tuple[Float64[np.ndarray, "w 3"], Int64[np.ndarray, "f 3"]]:
    """One vertex for each place at which a face has a corner: files repeat those along seams of a texture."""
    if faces.size == 0 or not np.isfinite(vertices).all():
        return vertices, faces
    places, index = np.unique(vertices[faces.ravel()], axis=0, return_inverse=True)
    return places, index.reshape(-1, 3).astype(np.int64)


def defect(vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]) -> str | None:
    """What keeps a mesh from being a closed, connected, oriented surface; None if nothing does.

    Counted from 1, as OBJ files do, are the faces that messages name.
    """
    if len(faces) == 0:
        return "no triangles"
    if not np.isfinite(vertices).all():
        row = int((~np.isfinite(vertices).all(axis=1)).argmax())
        return f"vertex {row + 1} is not finite: {vertices[row].tolist()}"
    if len(vertices) > MAX_VERTICES:
        return f"{len(vertices):,} vertices; simplify it to at most {MAX_VERTICES:,}"
    size = np.ptp(vertices, axis=0).max()
    degenerate = areas(torch.from_numpy(vertices[faces]).double()).numpy() <= 1e-12 * size**2
    if degenerate.any():
        return f"face {int(degenerate.argmax()) + 1} is degenerate: its corners lie on a line"
    return _edge_defect(faces) or _part_defect(len(vertices), faces)


def _edge_defect(faces: Int64[np.ndarray, "f 3"]) -> str | None:
    """An edge that does not have exactly two faces, which run along it in opposite directions."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    _, index, count = np.unique(np.sort(directed, axis=1), axis=0, return_inverse=True, return_counts=True)
    sharing = count[index.ravel()]
    if (sharing == 1).any():
        row, number = int((sharing == 1).argmax()), int((sharing == 1).sum())
        return f"a hole: {number} edges have one face only, the first is of face {row // 3 + 1}"
    if (sharing > 2).any():
        return (
            f"not a surface: an edge of face {int((sharing > 2).argmax()) // 3 + 1} has more than two faces"
        )
    _, index, count = np.unique(directed, axis=0, return_inverse=True, return_counts=True)
    twice = count[index.ravel()] == 2
    if twice.any():
        return (
            f"flipped faces: face {int(twice.argmax()) // 3 + 1} and a neighbour have opposite orientations"
        )
    return None


def _part_defect(vertices: int, faces: Int64[np.ndarray, "f 3"]) -> str | None:
    """More than one part, or parts that touch in a vertex only."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), ends.T), shape=(vertices, vertices))
    parts, _ = connected_components(graph, directed=False)
    if parts > 1:
        return f"{parts} separate parts; a generator needs one connected surface"
    # Around each vertex the opposite edges form one cycle: as many components as vertices, in all.
    link = faces[:, [0, 1, 2, 1, 2, 0, 2, 0, 1]].reshape(-1, 3)
    corners = np.unique(np.concatenate([link[:, [0, 1]], link[:, [0, 2]]]), axis=0)
    keys = corners[:, 0] * vertices + corners[:, 1]
    a, b = (np.searchsorted(keys, link[:, 0] * vertices + link[:, k]) for k in (1, 2))
    cycles, _ = connected_components(
        coo_matrix((np.ones(len(a)), (a, b)), shape=2 * (len(keys),)), directed=False
    )
    return None if cycles == vertices else "not a surface: parts of it touch in a vertex only"
