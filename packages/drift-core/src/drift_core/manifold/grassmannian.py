"""Subspaces of a vector space."""

import math
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from drift_core.manifold.frames import Frames
from drift_core.manifold.interface import Pairs
from drift_core.manifold.numerics import safe_inverse


@final
class Grassmannian(Frames):
    """The p-dimensional subspaces of R^n; points are orthonormal frames [..., n, p], up to their rotations.

    The metric is tr(U^T V) of horizontal vectors, X^T U = 0. The distance is the norm of the p principal
    angles (radians; Edelman, Arias and Smith 1998, doi 10.1137/S0895479895290954). Tangent vectors belong to
    the frame at which they are given: at X R they are U R. Everything is computed in float64, from frames
    that are orthonormal to its precision. All pairs of points take decompositions of p x p matrices, in
    closed form for p up to 2. A principal angle of exactly pi / 2 has no direction.
    """

    injectivity_radius = math.pi / 2

    def projx(self, x: Float[Tensor, "*batch n p"]) -> Float[Tensor, "*batch n p"]:
        """Orthonormal frame of the span of the columns, by Gram and Schmidt; frames stay as they are."""
        return _frame(x).to(x.dtype)

    def proju(
        self, x: Float[Tensor, "*#batch n p"], u: Float[Tensor, "*#batch n p"]
    ) -> Float[Tensor, "*_ n p"]:
        """Horizontal part U - X X^T U."""
        return u - x @ (x.mT @ u)

    def inner(
        self,
        x: Float[Tensor, "*#batch n p"],
        u: Float[Tensor, "*#batch n p"],
        v: Float[Tensor, "*#batch n p"],
    ) -> Float[Tensor, "..."]:
        """Frobenius product of U and V."""
        return (u * v).sum((-2, -1))

    def dist(self, x: Float[Tensor, "*#batch n p"], y: Float[Tensor, "*#batch n p"]) -> Float[Tensor, "..."]:
        """Norm of the principal angles, by their sines and cosines (Bjorck and Golub 1973)."""
        base, end = _frame(x), _frame(y)
        cosines = torch.linalg.svdvals(base.mT @ end)
        sines = torch.linalg.svdvals(self.proju(base, end)).flip(-1)
        return torch.atan2(sines, cosines).norm(dim=-1).to(x.dtype)

    def expmap(
        self, x: Float[Tensor, "*#batch n p"], u: Float[Tensor, "*#batch n p"]
    ) -> Float[Tensor, "*_ n p"]:
        """X cos(S) + U sin(S) / S, where S is the root of U^T U."""
        base, step = _frame(x), u.double()
        values, vectors = torch.linalg.eigh(step.mT @ step)
        angle = values.clamp_min(0).sqrt().unsqueeze(-2)
        # torch.sinc is sin(pi a) / (pi a), smooth at 0.
        cosine, sine = ((vectors * part) @ vectors.mT for part in (angle.cos(), torch.sinc(angle / math.pi)))
        return _frame(base @ cosine + step @ sine).to(x.dtype)

    def logmap(
        self, x: Float[Tensor, "*#batch n p"], y: Float[Tensor, "*#batch n p"]
    ) -> Float[Tensor, "*_ n p"]:
        """(I - X X^T) Y f(X^T Y)^T, where f maps each singular value, a cosine, to angle / sine."""
        base, end = _frame(x), _frame(y)
        return self.proju(base, end @ _unrolled(base.mT @ end)[1].mT).to(x.dtype)

    def pairs(self, x: Float[Tensor, "n k p"], y: Float[Tensor, "m k p"]) -> Pairs:
        """Principal angles of all pairs, and sums of logarithms as one matrix product."""
        base, end = _frame(x), _frame(y)
        products = torch.einsum("nkq,mkp->nmqp", base, end)
        cosine, unrolled = _unrolled(products)
        r = cosine.abs().clamp(max=1).acos().norm(dim=-1)

        def direction_sum(weight: Tensor) -> Tensor:
            a = weight.double() * safe_inverse(r)
            total = torch.einsum("nmqp,mkp->nkq", a[..., None, None] * unrolled, end)
            return self.proju(base, total).to(x.dtype)

        return Pairs(r.to(x.dtype), direction_sum)


def _frame(x: Float[Tensor, "*batch n p"]) -> Float64[Tensor, "*batch n p"]:
    """The factor Q of X = Q R, R with a positive diagonal, in float64."""
    q, r = torch.linalg.qr(x.double())
    return q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q).unsqueeze(-2)


def _unrolled(matrix: Float64[Tensor, "*batch p p"]) -> tuple[Tensor, Tensor]:
    """Singular values c of A diag(c) B^T, and the matrix A diag(f(c)) B^T with f(c) = acos c / sqrt(1 - c^2).

    f is continued to an odd function: the signs that singular values have here up to p = 2 do not matter.
    """
    if matrix.shape[-1] > 2:
        a, cosine, b = torch.linalg.svd(matrix)
        return cosine, (a * _angle_over_sine(cosine).unsqueeze(-2)) @ b
    if matrix.shape[-1] == 1:
        return matrix[..., 0], _angle_over_sine(matrix)
    turn, mirror = _turn_and_mirror(matrix)
    q, r = (part[..., 0, :].norm(dim=-1) for part in (turn, mirror))
    cosine = torch.stack([q + r, q - r], dim=-1)
    first, second = _angle_over_sine(cosine).unbind(-1)
    q, r = (first + second) / 2 * safe_inverse(q), (first - second) / 2 * safe_inverse(r)
    return cosine, q[..., None, None] * turn + r[..., None, None] * mirror


def _angle_over_sine(cosine: Tensor) -> Tensor:
    """Angle / sine, odd in the cosine: 1 at 1, and 0 at 0, where directions are not unique."""
    size = cosine.abs().clamp(max=1 - torch.finfo(cosine.dtype).eps)
    return cosine.sign() * size.acos() / (1 - size.square()).sqrt()


def _turn_and_mirror(matrix: Float64[Tensor, "*batch 2 2"]) -> tuple[Tensor, Tensor]:
    """Multiples of a rotation and of a reflection whose sum is the matrix.

    Their norms are half the sum and half the difference of the signed singular values.
    """
    adjugate = matrix.flip(-2, -1) * matrix.new_tensor([[1, -1], [-1, 1]])
    return (matrix + adjugate) / 2, (matrix - adjugate) / 2
