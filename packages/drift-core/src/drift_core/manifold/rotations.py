"""Rotations of space."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from drift_core.manifold.interface import Manifold, Pairs
from drift_core.manifold.numerics import direct_cdist, safe_ratio, shortened


@final
class SO3(Manifold):
    """Rotations SO(3), as unit quaternions [..., 4] in the order (w, x, y, z); q and -q are one rotation.

    The distance is the angle of the rotation between two, at most pi (radians): bi-invariant, and twice the
    angle on S^3 between x and the nearer of y and -y. Tangent vectors at x are those of S^3 at the quaternion
    that is given. An angular velocity omega moves it by x (0, omega) / 2, so that lengths are twice those of
    the coordinates. Two rotations half a turn apart have no direction.
    """

    injectivity_radius = math.pi
    point_shape = (4,)

    def __repr__(self) -> str:
        return "SO3()"

    @property
    def point_ndim(self) -> int:
        """Points are vectors."""
        return 1

    def projx(self, x: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
        """Nearest unit quaternion x / |x|, of the same sign."""
        return normalize(x, dim=-1)

    def proju(self, x: Float[Tensor, "*#batch 4"], u: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*_ 4"]:
        """Component of u orthogonal to x."""
        return u - (x * u).sum(-1, keepdim=True) * x

    def egrad2rgrad(
        self, x: Float[Tensor, "*#batch 4"], u: Float[Tensor, "*#batch 4"]
    ) -> Float[Tensor, "*_ 4"]:
        """A quarter of the tangent part, since the metric is four times that of R^4."""
        return self.proju(x, u) / 4

    def inner(
        self, x: Float[Tensor, "*#batch 4"], u: Float[Tensor, "*#batch 4"], v: Float[Tensor, "*#batch 4"]
    ) -> Float[Tensor, "..."]:
        """Four times the dot product: that of the angular velocities."""
        return 4 * (u * v).sum(-1)

    def dist(self, x: Float[Tensor, "*#batch 4"], y: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "..."]:
        """Angle of the rotation between x and y."""
        near, far = (x - y).norm(dim=-1), (x + y).norm(dim=-1)
        return 4 * torch.atan2(torch.minimum(near, far), torch.maximum(near, far))

    def expmap(self, x: Float[Tensor, "*#batch 4"], u: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "..."]:
        """Quaternion cos|u| x + sin|u| u / |u|."""
        half = u.norm(dim=-1, keepdim=True)
        return self.projx(half.cos() * x + torch.sinc(half / math.pi) * u)

    def logmap(self, x: Float[Tensor, "*#batch 4"], y: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "..."]:
        """Tangent vector at x to the nearer of y and -y, half as long in coordinates as their distance."""
        tangent = self.proju(x, (x * y).sum(-1, keepdim=True).sign() * y - x)
        return safe_ratio(self.dist(x, y)[..., None] / 2, tangent.norm(dim=-1, keepdim=True)) * tangent

    def pairs(self, x: Float[Tensor, "n 4"], y: Float[Tensor, "m 4"]) -> Pairs:
        """Angles, and sums of directions as on the sphere, with the signs that bring each y nearer to x."""
        angle, signed = _half_angles(x, y)

        def direction_sum(weight: Tensor) -> Tensor:
            base, a = normalize(x.double(), dim=-1), weight / signed
            return self.proju(base, a.double() @ normalize(y.double(), dim=-1)).to(x.dtype) / 2

        return Pairs(2 * angle, direction_sum)

    @staticmethod
    def to_matrix(x: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
        """Rotation matrices of unit quaternions; both signs give one matrix."""
        w, v = x[..., :1, None], x[..., 1:, None]
        a, b, c = x[..., 1:].unbind(-1)
        zero = torch.zeros_like(a)
        cross = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], dim=-1).reshape(*x.shape[:-1], 3, 3)
        # Of the two ways to write the diagonal this keeps R orthogonal for |x| = 1 to rounding.
        return torch.eye(3).to(x) + 2 * (
            w * cross + v @ v.mT - v.square().sum(-2, keepdim=True) * torch.eye(3).to(x)
        )

    @staticmethod
    def from_matrix(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
        """Unit quaternions of rotation matrices, by the largest of their components (Shepperd 1978).

        Raises:
            ValueError: a matrix that is no rotation, to 1e-3: not orthogonal, or a reflection.
        """
        error = (matrix.mT @ matrix - torch.eye(3).to(matrix)).abs().amax((-2, -1))
        wrong = ~((error <= 1e-3) & (torch.linalg.det(matrix) > 0))
        if bool(wrong.any()):
            raise ValueError(f"matrix {int(wrong.flatten().nonzero()[0])} is no rotation")
        return _shepperd(matrix)


def _half_angles(x: Float[Tensor, "n 4"], y: Float[Tensor, "m 4"]) -> tuple[Tensor, Tensor]:
    """Angles between each x and the nearer of y and -y, and their sines, negative where that is -y.

    The sine is inf where a pair has no direction. Precision is as on the sphere.
    """
    if x.dtype == torch.float64:
        near, far = direct_cdist(x, y), direct_cdist(x, -y)
        sin = (far - near).sign() * near * far / 2
        angle = 2 * torch.atan2(torch.minimum(near, far), torch.maximum(near, far))
        return angle, sin.masked_fill(sin == 0, torch.inf)
    cos = shortened(normalize(x.double(), dim=-1)) @ normalize(y.double(), dim=-1).T
    sin = cos.sign() * (1 - cos.square()).sqrt()
    return cos.abs().acos().to(x.dtype), sin.masked_fill(cos == 0, torch.inf)


def _shepperd(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Row of 4 q q^T, linear in the matrix, that has the largest diagonal entry, normalised."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(-2))
    rows = [
        *(1 + a + e + i, h - f, c - g, d - b),
        *(h - f, 1 + a - e - i, b + d, c + g),
        *(c - g, b + d, 1 - a + e - i, f + h),
        *(d - b, c + g, f + h, 1 - a - e + i),
    ]
    table = torch.stack(rows, dim=-1).reshape(*matrix.shape[:-2], 4, 4)
    largest = table.diagonal(dim1=-2, dim2=-1).argmax(-1)
    return normalize(table.take_along_dim(largest[..., None, None], dim=-2).squeeze(-2), dim=-1)
