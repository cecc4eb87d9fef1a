"""Spheres."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from drift_core.arguments import positive
from drift_core.manifold.interface import Manifold, Pairs, scaling
from drift_core.manifold.numerics import direct_cdist, reusable, safe_ratio, shortened


@final
class Sphere(Manifold):
    """Sphere S^{d-1} of a radius R, by default 1, in R^d; points are vectors [..., d] of length R.

    Distances are lengths of arcs, R times the angle (radians). Angles are 2 atan2(|x - y|, |x + y|), never
    arccos of an inner product, whose error near 1 is the square root of the rounding (Kahan, "How futile are
    mindless assessments of roundoff", section 12).
    """

    def __init__(self, radius: float = 1.0) -> None:
        self.radius = positive("radius", radius)
        self.injectivity_radius = math.pi * self.radius
        if self.radius != 1:
            self.similarity = scaling(Sphere(), self.radius)

    def __repr__(self) -> str:
        return "Sphere()" if self.radius == 1 else f"Sphere({self.radius:g})"

    @property
    def point_ndim(self) -> int:
        """Points are vectors."""
        return 1

    def projx(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Nearest vector of length R, R x / |x|."""
        return self.radius * normalize(x, dim=-1)

    def proju(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "*_ d"]:
        """Component of u orthogonal to x, u - <x, u> x / R^2."""
        return u - (x * u).sum(-1, keepdim=True) / self.radius**2 * x

    def inner(
        self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"], v: Float[Tensor, "*#batch d"]
    ) -> Float[Tensor, "..."]:
        """Ambient dot product of u and v."""
        return (u * v).sum(-1)

    def dist(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Length of the arc between x and y."""
        return 2 * self.radius * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))

    def expmap(self, x: Float[Tensor, "*#batch d"], u: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Point cos(a) x + sin(a) / a u, at the angle a = |u| / R."""
        angle = u.norm(dim=-1, keepdim=True) / self.radius
        # torch.sinc is sin(pi a) / (pi a), smooth at 0.
        return self.projx(angle.cos() * x + torch.sinc(angle / math.pi) * u)

    def logmap(self, x: Float[Tensor, "*#batch d"], y: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
        """Tangent vector at x pointing to y, as long as their distance; zero for antipodal points."""
        # Subtracting +-x first leaves a small difference, exactly, at both ends of the range.
        sign = torch.where((x * y).sum(-1, keepdim=True) < 0, -1.0, 1.0).to(x.dtype)
        tangent = self.proju(x, y - sign * x)
        return safe_ratio(self.dist(x, y)[..., None], tangent.norm(dim=-1, keepdim=True)) * tangent

    def pairs(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Pairs:
        """Lengths of arcs, and sums of directions as the tangent part of a weighted sum of y.

        For R = 1, log_x(y) / theta = (y - cos theta x) / sin theta, so the sum over y is the projection of
        sum_j (w_j / sin theta_j) y_j: one matrix product.
        """
        theta, sin = _angles(x, y, self.radius)

        def direction_sum(weight: Tensor) -> Tensor:
            a = weight / sin
            return _tangent(normalize(x.double(), dim=-1), a.double() @ (y.double() / self.radius)).to(
                x.dtype
            )

        return Pairs(self.radius * theta, direction_sum)

    def near_pairs(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n k d"]) -> Pairs:
        """`pairs` of each x with its own k points: angles from chords, sums as in `pairs`."""
        base, points = normalize(x.double(), dim=-1), normalize(y.double(), dim=-1)
        chord = (points - base[:, None]).norm(dim=-1).clamp(max=2)
        sin = chord * (1 - chord * chord / 4).sqrt()

        def direction_sum(weight: Tensor) -> Tensor:
            a = safe_ratio(weight.double(), sin)
            return _tangent(base, torch.einsum("nk,nkd->nd", a, points)).to(x.dtype)

        return Pairs((2 * self.radius * torch.asin(chord / 2)).to(x.dtype), direction_sum)


def _tangent(x: Tensor, u: Tensor) -> Tensor:
    """Component of u orthogonal to the unit vector x."""
    return u - (x * u).sum(-1, keepdim=True) * x


def _angles(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], radius: float) -> tuple[Tensor, Tensor]:
    """Angles between vectors of one length, and their sines; the sine is inf where there is no direction.

    Float32 points are measured by the arccos of a float64 inner product, which resolves 2e-8 rad, less
    than the spacing of float32 points; float64 points by their differences.
    """
    if x.dtype == torch.float64:
        near, far = direct_cdist(x, y), direct_cdist(x, -y)
        sin = near * far / (2 * radius**2)
        return 2 * torch.atan2(near, far), sin.masked_fill(sin == 0, torch.inf)
    base = shortened(normalize(x.double(), dim=-1))
    cos = base @ normalize(y.double(), dim=-1).T
    square = torch.addcmul(cos.new_ones(()), cos, cos, value=-1)  # 1 - cos^2, in one pass
    return cos.acos().to(x.dtype), torch.sqrt(square, out=reusable(square))
