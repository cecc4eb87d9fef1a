"""Lengthscales for sequences, set by the spread of their distances."""

import math
from collections.abc import Callable

from drift_core import RadialKernel
from jaxtyping import Float, Integer
from torch import Tensor

from drift_simplex.geometry import onehot_to_sphere
from drift_simplex.onehot import onehot_cdist, onehot_log_kernel

_QUERIES, _REFERENCES = 256, 2048
_SHORTEST, _LONGEST = 1e-4, 1e4
_HALVINGS = 40


def spread_lengthscale(
    kernel: Callable[[float], RadialKernel],
    x: Float[Tensor, "n L K"],
    tokens: Integer[Tensor, "m L"],
    *,
    product: bool = False,
) -> float:
    """Lengthscale at which log k(x, y_j) over the data y_j has standard deviation 1.

    Distances between random sequences concentrate: their mean grows like sqrt(L), their spread does not.
    Normalised weights exp(-r / l) depend on the spread only. For Laplace the result is the standard deviation
    of the distances, pooled over the queries; for other kernels it is found by bisection (a Gaussian needs
    sqrt(mean * spread)). For nearly normal log-weights the effective sample size is m / e: neither one
    neighbour nor all of the data.

    Args:
        kernel: maps a lengthscale to a kernel, whose log gets flatter as the lengthscale grows.
        x: queries, [n, L, K]; 256 of them are used. For training pass the data,
            `onehot_to_sphere(tokens[:256], K)`: an untrained generator starts near the centre of the orthant,
            from where all strings are almost equally far. References that coincide with a query are left out.
        tokens: data, shape [m, L]; 2,048 of them are used.
        product: the kernel is used as a product kernel.

    Raises:
        ValueError: shapes or tokens that `onehot_score` rejects, or data all at the same distance.
    """
    # Strides, not heads: files are often sorted.
    x = x[:: math.ceil(len(x) / _QUERIES) or 1]
    tokens = tokens[:: math.ceil(len(tokens) / _REFERENCES) or 1]
    r = onehot_cdist(x, tokens)
    apart = r > 0

    def spread(scale: float) -> float:
        k = kernel(scale)
        logits = onehot_log_kernel(k, x, tokens, product=True) if product else k.log(r)
        return _spread_in_rows(logits, apart)

    return _where_one(spread)


def onehot_lengthscale(
    kernel: Callable[[float], RadialKernel],
    tokens: Integer[Tensor, "m L"],
    vocab_size: int,
    geometry: str = "spherical",
) -> float:
    """`spread_lengthscale` with the data as queries.

    With geometry "euclidean" the distances are those in R^K instead of the angles.

    Raises ValueError as `spread_lengthscale` does.
    """
    scale = spread_lengthscale(kernel, onehot_to_sphere(tokens[:_QUERIES], vocab_size), tokens)
    # One-hot points that differ are sqrt(2) apart in R^K, and pi / 2 on the sphere.
    return scale * (2**0.5 / (math.pi / 2) if geometry == "euclidean" else 1)


def _spread_in_rows(values: Float[Tensor, "n m"], kept: Tensor) -> float:
    """Standard deviation of the kept values about the mean of their row."""
    values = values.double() * kept
    count = kept.sum(1, keepdim=True).clamp_min(1)
    excess = (values - values.sum(1, keepdim=True) / count) * kept
    return math.sqrt(float(excess.square().sum() / kept.sum().clamp_min(1)))


def _where_one(spread: Callable[[float], float]) -> float:
    """Lengthscale at which a decreasing spread is 1, by bisection; raises ValueError if there is none."""
    if not spread(_LONGEST) < 1 < spread(_SHORTEST):
        raise ValueError("a lengthscale from the spread of distances needs data at different distances")
    low, high = math.log(_SHORTEST), math.log(_LONGEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if spread(math.exp(middle)) > 1 else (low, middle)
    return math.exp(high)
