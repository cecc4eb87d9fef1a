"""Orthonormal frames."""

import math
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from drift_core.manifold.frames import Frames
from drift_core.manifold.interface import Pairs
from drift_core.manifold.matrices import expm, logm, symmetric
from drift_core.manifold.numerics import safe_inverse

_ITERATIONS = 100
"""Iterations of the logarithm at most."""


@final
class Stiefel(Frames):
    """Orthonormal frames of p vectors in R^n, points [..., n, p], with the canonical metric.

    It is tr(U^T (I - X X^T / 2) V), that of the quotient of rotations of R^n by those that keep a frame
    (Edelman, Arias and Smith 1998, doi 10.1137/S0895479895290954). Stiefel(n, 1) is the unit sphere and
    Stiefel(n, n - 1) the rotations of R^n; on Stiefel(3, 2) distances are angles of rotations.

    The logarithm has no closed form. The iteration of Zimmermann and Hueper (2022, arXiv 2103.12046)
    converges to the shortest geodesic between near frames. Beyond the injectivity radius, where there may be
    several, it may end at a longer one, or stop after 100 iterations at an approximation. Every pair takes
    decompositions of n x n matrices in float64, a tenth of a millisecond: a geometry for small batches.
    """

    injectivity_radius = math.sqrt(4 / 5) * math.pi
    """A lower bound (Rentmeesters 2013)."""

    def projx(self, x: Float[Tensor, "*batch n p"]) -> Float[Tensor, "*batch n p"]:
        """Nearest frame, X (X^T X)^(-1/2)."""
        base = x.double()
        return (base @ expm(-logm(base.mT @ base) / 2)).to(x.dtype)

    def proju(
        self, x: Float[Tensor, "*#batch n p"], u: Float[Tensor, "*#batch n p"]
    ) -> Float[Tensor, "*_ n p"]:
        """Tangent part U - X sym(X^T U)."""
        return u - x @ symmetric(x.mT @ u)

    def egrad2rgrad(
        self, x: Float[Tensor, "*#batch n p"], u: Float[Tensor, "*#batch n p"]
    ) -> Float[Tensor, "*_ n p"]:
        """U - X U^T X."""
        return u - x @ u.mT @ x

    def inner(
        self,
        x: Float[Tensor, "*#batch n p"],
        u: Float[Tensor, "*#batch n p"],
        v: Float[Tensor, "*#batch n p"],
    ) -> Float[Tensor, "..."]:
        """Frobenius product of (I - X X^T / 2) U and V."""
        return ((u - x @ (x.mT @ u) / 2) * v).sum((-2, -1))

    def dist(self, x: Float[Tensor, "*#batch n p"], y: Float[Tensor, "*#batch n p"]) -> Float[Tensor, "..."]:
        """Length of the logarithm."""
        base = self.projx(x.double())
        return self.norm(base, self.logmap(base, y.double())).to(x.dtype)

    def expmap(
        self, x: Float[Tensor, "*#batch n p"], u: Float[Tensor, "*#batch n p"]
    ) -> Float[Tensor, "*_ n p"]:
        """Turn of the frame by exp(W - W^T), W = (I - X X^T / 2) U X^T."""
        base, step = self.projx(x.double()), u.double()
        half = (step - base @ (base.mT @ step) / 2) @ base.mT
        return (torch.linalg.matrix_exp(half - half.mT) @ base).to(x.dtype)

    def logmap(
        self, x: Float[Tensor, "*#batch n p"], y: Float[Tensor, "*#batch n p"]
    ) -> Float[Tensor, "*_ n p"]:
        """Velocity U = Q [A; B] of the rotation from X to Y that leaves the rest of the space unturned.

        Q is X, completed to a basis. Frames Y are completed so that the logarithm [[A, -B^T], [B, C]] of the
        rotation between the bases has a small C, and their completions are then turned until it is 0.
        """
        shape = (x + y).shape
        base, end = self.projx(x.double()).expand(shape), self.projx(y.double()).expand(shape)
        basis = torch.cat([base, _complement(base)], dim=-1)
        turn = basis.mT @ torch.cat([end, _aligned(basis, end)], dim=-1)
        velocity = _velocity(turn.reshape(-1, self.n, self.n), self.p, 100 * torch.finfo(x.dtype).eps)
        return (basis @ velocity.reshape(base.shape)).to(x.dtype)

    def pairs(self, x: Float[Tensor, "n k p"], y: Float[Tensor, "m k p"]) -> Pairs:
        """Logarithms of all pairs, kept for the sums: to compute them again would take longer."""
        logs = self.logmap(x[:, None], y)
        r = self.norm(x[:, None], logs)
        return Pairs(r, lambda weight: torch.einsum("nm,nmkp->nkp", weight * safe_inverse(r), logs))


def _complement(x: Float64[Tensor, "*batch n p"]) -> Float64[Tensor, "*batch n q"]:
    """Orthonormal basis of the complement of the columns."""
    return torch.linalg.qr(x, mode="complete").Q[..., x.shape[-1] :]


def _aligned(basis: Float64[Tensor, "*batch n n"], end: Float64[Tensor, "*batch n p"]) -> Tensor:
    """Completion of a frame to a basis of the same orientation, nearest to that of the basis."""
    p, rest = end.shape[-1], _complement(end)
    a, _, b = torch.linalg.svd(basis[..., p:].mT @ rest)
    aligned = rest @ (a @ b).mT
    between = torch.linalg.det(basis.mT @ torch.cat([end, aligned], dim=-1))
    # A reflection of the direction that the two completions share least.
    last = a[..., -1:]
    mirrored = aligned - 2 * (aligned @ last) @ last.mT
    return torch.where((between < 0)[..., None, None], mirrored, aligned)


def _velocity(turn: Float64[Tensor, "b n n"], p: int, tolerance: float) -> Float64[Tensor, "b n p"]:
    """First columns [A; B] of the logarithm, as soon as no entry of C is above the tolerance."""
    velocity, rows = torch.zeros_like(turn[..., :p]), torch.arange(len(turn), device=turn.device)
    for _ in range(_ITERATIONS):
        generator = _log_rotation(turn)
        velocity[rows] = generator[..., :p]
        rest = generator[..., p:, p:]
        left = rest.abs().amax((-2, -1)) > tolerance
        if not bool(left.any()):
            break
        rows, turn = rows[left], turn[left]
        back = _correction(generator[left][..., p:, :p], rest[left])
        turn = torch.cat([turn[..., :p], turn[..., p:] @ torch.linalg.matrix_exp(back)], dim=-1)
    return velocity


def _correction(b: Float64[Tensor, "r q p"], c: Float64[Tensor, "r q q"]) -> Float64[Tensor, "r q q"]:
    """Turn G that makes C vanish to third order: S G + G S = C with S = B B^T / 12 - I / 2.

    It is -C where B is short (Zimmermann and Hueper 2022, algorithm 4). S is negative for rotations by less
    than sqrt(6), and bounded here beyond.
    """
    values, vectors = torch.linalg.eigh(b @ b.mT)
    s = (values / 12 - 0.5).clamp(max=-0.05)
    solution = (vectors.mT @ c @ vectors) / (s.unsqueeze(-1) + s.unsqueeze(-2))
    return vectors @ solution @ vectors.mT


def _log_rotation(turn: Float64[Tensor, "*batch n n"]) -> Float64[Tensor, "*batch n n"]:
    """Logarithm of rotations: the skew part times angle / sine of the symmetric part, the cosines."""
    cosine, vectors = torch.linalg.eigh(symmetric(turn))
    cosine = cosine.clamp(-1, 1 - torch.finfo(cosine.dtype).eps)
    ratio = cosine.acos() / (1 - cosine.square()).sqrt().clamp_min(1e-7)
    skew = (turn - turn.mT) / 2
    product = skew @ (vectors * ratio.unsqueeze(-2)) @ vectors.mT
    return (product - product.mT) / 2
