"""The simplex as the positive orthant of a sphere: the maps between them, and the Fisher-Rao geometry."""

import math
from typing import final

import torch
from drift_core import Manifold, Pairs, Power, Similarity, Sphere
from drift_core.manifold.numerics import safe_sqrt
from jaxtyping import Float, Int64, Integer
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from drift_simplex.pairs import fused_pairs


def to_sphere(p: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch K"]:
    """Map distributions p over K letters to the unit sphere, p -> sqrt(p).

    The Fisher-Rao length of a curve, int sqrt(sum_k dp_k^2 / p_k), is twice the length of its image,
    since dp = 2 x dx. The derivative is taken to be 0 where p = 0, so that no gradient is infinite.
    """
    return safe_sqrt(p)


def to_simplex(x: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch K"]:
    """Map unit vectors x to distributions over K letters, x -> x^2 / sum_k x_k^2."""
    p = x.square()
    return p / p.sum(-1, keepdim=True)


def abs_normalize(h: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch K"]:
    """Map a network's outputs h to the positive orthant of the sphere, h -> |h| / ||h||.

    It reflects each orthant of unit vectors, an isometry: gradients at the vertices, where the data are, are
    as long as elsewhere. Those of sqrt(softmax(h)) vanish at the vertices, so that samples at a wrong one
    never leave it.
    """
    return normalize(h.abs(), dim=-1)


def onehot_to_sphere(tokens: Integer[Tensor, "*batch L"], K: int) -> Float[Tensor, "*batch L K"]:
    """Points [..., L, K] of sequences of tokens [..., L] in 0..K-1: one vertex of the orthant per position.

    Raises ValueError for tokens that are not integers in 0..K-1.
    """
    check_tokens(tokens, K)
    return one_hot(tokens.long(), K).to(torch.get_default_dtype())


def decode(x: Float[Tensor, "*batch L K"]) -> Integer[Tensor, "*batch L"]:
    """Token of the largest entry (argmax) at each position, of points, distributions or logits."""
    return x.argmax(-1)


def decode_best(p: Float[Tensor, "*batch k L K"], enough: float = 1.0) -> Int64[Tensor, "*batch L"]:
    """Tokens of the best of k candidates, given as distributions or, for `enough` = 1, as points x = sqrt(p).

    It is the candidate that gives its own argmax (`decode`) the highest probability, the product over
    positions of max_k p_lk (best-of-k sampling). Candidates of probability `enough` or more count as equal,
    and of equals the first is taken: always to take the highest favours the few strings of which a generator
    has no doubt.

    Raises ValueError unless 0 < `enough` <= 1.
    """
    if not 0 < enough <= 1:
        raise ValueError(f"enough must lie in (0, 1], got {enough:g}")
    log_probability = p.amax(-1).log().sum(-1)
    best = log_probability.clamp(max=math.log(enough)).argmax(-1)
    return decode(p.take_along_dim(best[..., None, None, None], -3).squeeze(-3))


def sample_tokens(x: Float[Tensor, "*batch L K"], generator: torch.Generator) -> Int64[Tensor, "*batch L"]:
    """Sample tokens from the distributions p = x^2 / sum_k x_k^2 of points x on the sphere.

    Near a vertex they nearly always agree with `decode`. For softer points their frequencies follow the
    mean of p, which those of `decode` do not.
    """
    device = generator.device
    u = torch.rand(x.shape[:-1], generator=generator, dtype=torch.float64, device=device).to(x.device)
    below = to_simplex(x.double()).cumsum(-1)[..., :-1]
    return (below <= u[..., None]).sum(-1)


def check_tokens(tokens: Tensor, K: int) -> None:
    """Raise ValueError unless the tokens are integers in 0..K-1."""
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(f"tokens must be integers, got {tokens.dtype}")
    if tokens.numel() == 0:
        return
    low, high = (int(t) for t in tokens.aminmax())
    if low < 0 or high >= K:
        raise ValueError(f"tokens must lie in 0..{K - 1}, got {low if low < 0 else high}")


@final
class FisherRao(Manifold):
    """Sequences of L distributions over K letters: points [..., L, K], rows unit vectors with entries >= 0.

    The geometry is that of Power(Sphere()) restricted to the orthant. The distance at one position is the
    angle between square roots of probabilities, half of the Fisher-Rao distance (see `to_sphere`); squared
    distances sum over positions. The orthant is geodesically convex: geodesics between its points stay
    inside. A step may leave it, and then ends at the orthant's nearest point (`expmap`).
    """

    def __init__(self) -> None:
        self._product = Power(Sphere())
        self.similarity = Similarity(self._product)  # the identity
        self.injectivity_radius = self._product.injectivity_radius

    def __repr__(self) -> str:
        return "FisherRao()"

    @property
    def point_ndim(self) -> int:
        """Points are matrices, positions by letters."""
        return 2

    def projx(self, x: Float[Tensor, "*batch L K"]) -> Float[Tensor, "*batch L K"]:
        """Nearest point of the orthant: each row clamped at 0, then normalised.

        For p in the orthant <p, x> <= <p, x_+> <= |x_+|, with equality at x_+ / |x_+|. A row without a
        positive entry maps to the nearest vertex, that of its largest entry.
        """
        inside = x.clamp_min(0)
        largest = inside.amax(-1, keepdim=True)
        # Divided by its largest entry first, a row of tiny numbers gets unit length too.
        rows = normalize(inside / largest.masked_fill(largest == 0, 1), dim=-1)
        return torch.where(largest == 0, one_hot(x.argmax(-1), x.shape[-1]).to(x), rows)

    def proju(
        self, x: Float[Tensor, "*#batch L K"], u: Float[Tensor, "*#batch L K"]
    ) -> Float[Tensor, "*_ L K"]:
        """Component of each row of u that is orthogonal to the row of x."""
        return self._product.proju(x, u)

    def inner(
        self,
        x: Float[Tensor, "*#batch L K"],
        u: Float[Tensor, "*#batch L K"],
        v: Float[Tensor, "*#batch L K"],
    ) -> Float[Tensor, "..."]:
        """Dot product of u and v, summed over positions."""
        return self._product.inner(x, u, v)

    def dist(self, x: Float[Tensor, "*#batch L K"], y: Float[Tensor, "*#batch L K"]) -> Float[Tensor, "..."]:
        """Root of the sum over positions of squared angles."""
        return self._product.dist(x, y)

    def expmap(
        self, x: Float[Tensor, "*#batch L K"], u: Float[Tensor, "*#batch L K"]
    ) -> Float[Tensor, "*_ L K"]:
        """Follow the geodesics from x; end points outside the orthant are projected to its nearest point.

        There, a letter whose entry has passed zero has probability zero, and all others keep their ratios.
        Reflection (absolute values) would raise the probability of a letter that is repelled too strongly;
        stopping at the boundary would freeze all letters of a position when one reaches zero. The rule is
        continuous and the identity inside, and the odds of any two letters are monotone along a step.
        """
        return self.projx(self._product.expmap(x, u))

    def admissible(
        self, x: Float[Tensor, "*#batch L K"], u: Float[Tensor, "*#batch L K"]
    ) -> Float[Tensor, "*_ L K"]:
        """Tangent vector from x to `expmap(x, u)`: u itself at positions that stay in the orthant.

        Components that would lower a probability of zero are dropped.
        """
        end = self._product.expmap(x, u)
        inside = (end >= 0).all(-1, keepdim=True)
        return torch.where(inside, u, self.logmap(x, self.projx(end)))

    def logmap(
        self, x: Float[Tensor, "*#batch L K"], y: Float[Tensor, "*#batch L K"]
    ) -> Float[Tensor, "*_ L K"]:
        """Tangent vector at x pointing to y, whose length at each position is their angle."""
        return self._product.logmap(x, y)

    def pairs(self, x: Float[Tensor, "n L K"], y: Float[Tensor, "m L K"]) -> Pairs:
        """All pairs: fused in float32; those of Power(Sphere()) in float64 and under autograd."""
        differentiable = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
        if x.dtype == torch.float64 or differentiable:
            return self._product.pairs(x, y)
        return fused_pairs(x, y)
