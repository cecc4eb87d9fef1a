"""Targets: exact samplers of densities, in a chart or in the coordinates of points."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from torch import Generator, Tensor

from drift_synthetic.laplacian import spectrum
from drift_synthetic.mesh import Mesh, areas

_CELLS = 4


@runtime_checkable
class Target(Protocol):
    """A density in the coordinates that `Space.lift` takes."""

    @property
    def name(self) -> str:
        """Name of the target, as in `--target`."""

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n c"]:
        """Draw n points, exactly."""


@dataclass(frozen=True)
class Checkerboard:
    """Uniform density on the 8 black squares of a 4 x 4 board [-w, w]^2 in the chart, w the half-width."""

    half_width: float
    name: ClassVar[str] = "checkerboard"

    @property
    def side(self) -> float:
        """Length of the side of a square."""
        return 2 * self.half_width / _CELLS

    def corners(self) -> Float64[Tensor, "8 2"]:
        """Lower left corners of the black squares."""
        cells = torch.cartesian_prod(*2 * (torch.arange(_CELLS),))
        return self.side * cells[cells.sum(dim=1) % 2 == 0].double() - self.half_width

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n 2"]:
        """Draw n chart points, exactly: a black square, then a point in it."""
        corners = self.corners()
        square = torch.randint(len(corners), (n,), generator=generator)
        return corners[square] + self.side * torch.rand(n, 2, generator=generator, dtype=torch.float64)

    def in_black(self, u: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
        """Whether chart points lie in black squares, the support of the density."""
        cell = ((u + self.half_width) / self.side).floor()
        on_board = ((cell >= 0) & (cell < _CELLS)).all(dim=1)
        return on_board & (cell.sum(dim=1) % 2 == 0)


@dataclass(frozen=True)
class SwissRoll:
    """Spiral of radius r t / (4.5 pi) at angle t in the chart, t uniform on [pi/2, 4.5 pi], and noise.

    The noise is Gaussian with standard deviation 0.03 r in both coordinates, where r is `radius`, the radius
    at the end of the spiral.
    """

    radius: float
    name: ClassVar[str] = "swiss-roll"

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n 2"]:
        """Draw n chart points, exactly: a point of the spiral, then its noise."""
        t = math.pi / 2 + 4 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return self.spiral(t) + 0.03 * self.radius * noise

    def spiral(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
        """Points of the spiral at angles t (radians)."""
        return (self.radius * t / (4.5 * math.pi))[:, None] * torch.stack([t.cos(), t.sin()], dim=1)


@dataclass(frozen=True)
class RotationModes:
    """Wrapped normal distributions about the 24 rotations of a cube, turned out of the axes.

    The standard deviation about each axis of the body is 0.15 radians; neighbouring modes are pi / 2 apart.
    """

    name: ClassVar[str] = "modes"
    deviation: ClassVar[float] = 0.15

    def centres(self) -> Float64[Tensor, "24 4"]:
        """The modes as unit quaternions."""
        signs = torch.cartesian_prod(*4 * (torch.arange(-1, 2, dtype=torch.float64),))
        # The 48 quaternions of the binary octahedral group, of which half are the negatives of the others.
        group = signs[(signs != 0).sum(1) != 3]
        group = torch.nn.functional.normalize(group[group.abs().sum(1) > 0], dim=1)
        first = group[torch.arange(len(group)), (group != 0).int().argmax(1)]
        turn = torch.tensor([0.9, 0.3, 0.2, 0.25], dtype=torch.float64)
        return multiply(torch.nn.functional.normalize(turn, dim=0), group[first > 0])

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n 4"]:
        """Draw n quaternions, exactly: a mode, then a rotation from it by a normal rotation vector."""
        centre = self.centres()[torch.randint(24, (n,), generator=generator)]
        half = self.deviation / 2 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
        angle = half.norm(dim=1, keepdim=True)
        step = torch.cat([angle.cos(), torch.sinc(angle / math.pi) * half], dim=1)
        return multiply(centre, step)


def multiply(p: Float64[Tensor, "*#batch 4"], q: Float64[Tensor, "*#batch 4"]) -> Float64[Tensor, "..."]:
    """Product of quaternions (w, x, y, z): the rotation q, then p."""
    a, u, b, v = p[..., :1], p[..., 1:], q[..., :1], q[..., 1:]
    vector = a * v + b * u + torch.linalg.cross(u.expand_as(a * v), v.expand_as(b * u))
    return torch.cat([a * b - (u * v).sum(-1, keepdim=True), vector], dim=-1)


@dataclass(frozen=True)
class Spirals:
    """A curve in S^2 x R^2: a swiss roll in the plane, and at the same time a spiral from pole to pole.

    The noise is Gaussian with standard deviation 0.03 in all coordinates. Neither factor alone tells where
    on the curve a point is to be in the other.
    """

    name: ClassVar[str] = "spirals"

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n 5"]:
        """Draw n points: of the curve, then their noise."""
        s = torch.rand(n, generator=generator, dtype=torch.float64)
        noise = 0.03 * torch.randn(n, 5, generator=generator, dtype=torch.float64)
        points = self.curve(s) + noise
        return torch.cat([torch.nn.functional.normalize(points[:, :3], dim=1), points[:, 3:]], dim=1)

    def curve(self, s: Float64[Tensor, " n"]) -> Float64[Tensor, "n 5"]:
        """Points of the curve at times s in [0, 1]."""
        polar, azimuth = math.pi * (0.1 + 0.8 * s), 6 * math.pi * s
        sphere = [polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()]
        roll = SwissRoll(1.0).spiral(math.pi / 2 + 4 * math.pi * s)
        return torch.cat([torch.stack(sphere, dim=1), roll], dim=1)


@dataclass(frozen=True, eq=False)
class VertexDensity:
    """Density on a mesh that is linear on each face, proportional to nonnegative values at the vertices."""

    mesh: Mesh
    values: Float64[Tensor, " v"]
    name: str

    def sample(self, n: int, generator: Generator) -> Float64[Tensor, "n 3"]:
        """Draw n points: a face and a corner of it, then by a density that grows linearly to that corner."""
        faces = self.mesh.faces
        corners = self.mesh.vertices[faces]
        mass = areas(corners)[:, None] * self.values[faces]
        chosen = torch.multinomial(mass.flatten(), n, replacement=True, generator=generator)
        face, corner = chosen // 3, chosen % 3
        # Barycentric coordinates with the density 6 w_corner are of Dirichlet's distribution (2, 1, 1).
        weight = torch.empty(n, 4, dtype=torch.float64).exponential_(generator=generator)
        weight = weight[:, :3].scatter_add(1, corner[:, None], weight[:, 3:])
        return (weight[:, :, None] * corners[face]).sum(1) / weight.sum(1, keepdim=True)


def eigenfunction(mesh: Mesh, index: int = 80) -> VertexDensity:
    """Density proportional to the positive part of an eigenfunction, as of Chen and Lipman (2024).

    The default has some forty separate modes on the trefoil.
    """
    functions = spectrum(mesh).functions
    return VertexDensity(mesh, functions[:, min(index, functions.shape[1] - 1)].clamp_min(0), "eigenfunction")
