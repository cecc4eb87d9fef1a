"""Symmetric positive definite matrices."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from drift_core.manifold.euclidean import Euclidean
from drift_core.manifold.interface import Manifold, Pairs, Similarity
from drift_core.manifold.matrices import dexpm, dlogm, expm, logm, symmetric
from drift_core.manifold.power import Power


@final
class SPD(Manifold):
    """Symmetric positive definite matrices, points [..., n, n], with the log-Euclidean metric.

    The distance is |log X - log Y| in the Frobenius norm, the metric that makes the logarithm of matrices an
    isometry to flat space (Arsigny et al. 2006, doi 10.1002/mrm.20965). It is chosen over the
    affine-invariant metric for two reasons. Its Gaussian and Laplace kernels are positive definite at all
    lengthscales, which those of the affine-invariant distance are not (Jayasumana et al. 2013, CVPR). And
    pairs are those of flat space: n + m matrix logarithms instead of n * m. Distances are invariant under
    rotations X -> Q X Q^T, scaling and inversion, not under X -> A X A^T in general. For the affine-invariant
    metric wrap geoopt's: `GeooptManifold(geoopt.SymmetricPositiveDefinite())`.

    Logarithms are taken in float64. What float32 matrices resolve is their largest eigenvalue times 6e-8:
    distances involving matrices of a large condition number are that much less accurate.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"matrices need at least one row, got n = {n}")
        self.n, self.point_shape = n, (n, n)
        self.similarity = Similarity(Power(Euclidean()), lambda x: logm(x.double()).to(x.dtype), _from_flat)

    def __repr__(self) -> str:
        return f"SPD({self.n})"

    @property
    def point_ndim(self) -> int:
        """Points are matrices."""
        return 2

    def projx(self, x: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Symmetric part, with absolute values of its eigenvalues, of at least 1e-6 of the largest."""
        part = symmetric(x)
        values, vectors = torch.linalg.eigh(part.detach().double())
        size = values.abs()
        floor = (1e-6 * size.amax(-1, keepdim=True)).clamp_min(torch.finfo(torch.float32).tiny)
        positive = (vectors * torch.maximum(size, floor).unsqueeze(-2)) @ vectors.mT
        # Added to the input, gradients flow as through the symmetric part; matrices inside stay as they are.
        inside = (values >= floor).all(-1)[..., None, None]
        return part + (symmetric(positive) - part.detach()).masked_fill(inside, 0).to(x.dtype)

    def proju(
        self, x: Float[Tensor, "*#batch n n"], u: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*_ n n"]:
        """Symmetric part of u."""
        return symmetric(u)

    def egrad2rgrad(
        self, x: Float[Tensor, "*#batch n n"], u: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*_ n n"]:
        """The differential of exp at log X, twice, of the symmetric part."""
        base = x.double()
        return dexpm(base, dexpm(base, symmetric(u.double()))).to(u.dtype)

    def inner(
        self,
        x: Float[Tensor, "*#batch n n"],
        u: Float[Tensor, "*#batch n n"],
        v: Float[Tensor, "*#batch n n"],
    ) -> Float[Tensor, "..."]:
        """Frobenius product of the differentials of log at X."""
        base = x.double()
        return (dlogm(base, u.double()) * dlogm(base, v.double())).sum((-2, -1)).to(u.dtype)

    def dist(self, x: Float[Tensor, "*#batch n n"], y: Float[Tensor, "*#batch n n"]) -> Float[Tensor, "..."]:
        """Frobenius norm of log X - log Y."""
        return (logm(x.double()) - logm(y.double())).flatten(-2).norm(dim=-1).to(x.dtype)

    def expmap(
        self, x: Float[Tensor, "*#batch n n"], u: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*_ n n"]:
        """Matrix exp(log X + dlog_X(U))."""
        base = x.double()
        return expm(logm(base) + dlogm(base, u.double())).to(x.dtype)

    def logmap(
        self, x: Float[Tensor, "*#batch n n"], y: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*_ n n"]:
        """The differential of exp at log X, of log Y - log X."""
        base = x.double()
        return dexpm(base, logm(y.double()) - logm(base)).to(x.dtype)

    def pairs(self, x: Float[Tensor, "n k k"], y: Float[Tensor, "m k k"]) -> Pairs:
        """Pairs of the logarithms, in flat space."""
        base, end = logm(x.double()).flatten(1), logm(y.double()).flatten(1)
        flat = Euclidean().pairs(base, end)

        def direction_sum(weight: Tensor) -> Tensor:
            u = flat.direction_sum(weight.double()).reshape(x.shape)
            return dexpm(x.double(), u).to(x.dtype)

        return Pairs(flat.dist.to(x.dtype), direction_sum)


def _from_flat(x: Float[Tensor, "*#batch n n"], u: Float[Tensor, "*#batch n n"]) -> Tensor:
    """Tangent vectors at X from those at log X."""
    return dexpm(x.double(), u.double()).to(u.dtype)
