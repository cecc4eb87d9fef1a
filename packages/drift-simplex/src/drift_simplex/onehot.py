"""Scores against one-hot references, given as integer tokens."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from drift_core import RadialKernel, Score, Sphere
from drift_core.engine import token_scores
from drift_core.manifold.numerics import safe_inverse, safe_ratio, safe_sqrt
from drift_core.reduction import (
    check_kernels,
    check_references,
    check_request,
    expand_log_weight,
    reduce_blocks,
    softmax_score,
    split_log_weight,
)
from jaxtyping import Float, Integer
from torch import Tensor

from drift_simplex.blocks import block_shape
from drift_simplex.geometry import FisherRao, check_tokens
from drift_simplex.letters import Letters, tangent_part, vertex_angles

_REFERENCES = 2048
"""References looked up at once."""
_PAIRS = 2**24
"""Pairs in the largest array that an effective sample size needs."""


def onehot_score(
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    tokens: Integer[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    direction: str = "gradient",
    chunk_size: int | None = None,
    product: bool = False,
) -> Score:
    """`smoothed_score(Power(Sphere()), kernel, x, onehot_to_sphere(tokens, K))` for integer tokens.

    The cost is one lookup and one addition per pair and position, for distances and again for the gradient,
    for any K: in a fused loop for float32 on a CPU (`drift_core.engine`), else by `letters`. A reference that
    coincides with a query exerts no attraction on it.

    Args:
        kernel: a radial kernel of the total distance r = sqrt(sum_l theta_l^2); of the angle at each
            position if `product`.
        x: queries, shape [n, L, K], float32 or float64.
        tokens: references, shape [m, L], m >= 1, any integer type, values in 0..K-1.
        log_weight: w, broadcast to [n, m]; -inf excludes a pair.
        direction: "gradient" (kernel gradient) or "displacement" (mean shift).
        chunk_size: references evaluated at once by torch; memory is linear in n + m for every value.
        product: take the product kernel, log k(x, y) = sum_l log k1(theta_l), instead.

    Raises:
        ValueError: mismatched shapes or dtypes, tokens outside 0..K-1, no reference, an unknown
            direction, chunk_size < 1, a kernel that is not defined on sequences (or, if `product`, on
            S^{K-1}).
    """
    (score,) = onehot_scores(
        (kernel,),
        x,
        tokens,
        log_weight=log_weight,
        direction=direction,
        chunk_size=chunk_size,
        product=product,
    )
    return score


def onehot_scores(
    kernels: Sequence[RadialKernel],
    x: Float[Tensor, "n ..."],
    tokens: Integer[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    direction: str = "gradient",
    chunk_size: int | None = None,
    product: bool = False,
) -> list[Score]:
    """`onehot_score` for each of several kernels, which share the angles, and the distances of all pairs."""
    _check_sequences(x, tokens)
    _check_kernels(kernels, x, product)
    check_request(tokens, direction, chunk_size)
    weights = expand_log_weight(log_weight, x, len(tokens))
    if len(x) == 0:
        return [Score(x.new_zeros(0), torch.zeros_like(x)) for _ in kernels]
    theta, sin = vertex_angles(x)
    values = [kernel.log(theta) for kernel in kernels] if product else [theta.square()]
    tables = [value.to(x.dtype).flatten(1) for value in values]
    scores = _fused_scores(kernels, direction, tables, tokens, weights, product)
    if scores is None:
        block = partial(_product_block if product else _total_block, kernels, direction)
        rows, columns = block_shape(x, len(tokens), chunk_size)
        columnwise = [[part.T.contiguous() for part in torch.split(table, rows)] for table in tables]
        scores = reduce_blocks(
            block,
            list(zip(*columnwise, strict=True)),
            (Letters(part, x.shape[2]) for part in torch.split(tokens, columns)),
            split_log_weight(weights, (len(x), len(tokens)), rows, columns),
        )
    slopes = [-kernel.dlog(theta) if product and direction == "gradient" else theta for kernel in kernels]
    return [
        Score(score.log_density, tangent_part(x, score.gradient * safe_ratio(slope, sin)))
        for score, slope in zip(scores, slopes, strict=True)
    ]


def _fused_scores(
    kernels: Sequence[RadialKernel],
    direction: str,
    tables: Sequence[Tensor],
    tokens: Tensor,
    log_weight: Tensor | None,
    product: bool,
) -> list[Score] | None:
    """The blocks' scores by the engine, with the weights of letters as gradients; None where it has none."""
    (n, rows), (_, length) = tables[0].shape, tokens.shape
    first = torch.arange(length, device=tokens.device, dtype=torch.int32) * (rows // length)
    result = token_scores(
        None if product else kernels,
        [table.T for table in tables],
        tokens.int() + first,
        log_weight=log_weight,
        displacement=direction == "displacement",
    )
    if result is None:
        return None
    shares = result.share.mT.reshape(len(kernels), n, length, -1)
    return [Score(*parts) for parts in zip(result.log_density, shares, strict=True)]


def onehot_cdist(x: Float[Tensor, "n ..."], tokens: Integer[Tensor, "m ..."]) -> Float[Tensor, "n m"]:
    """Geodesic distances between points [n, L, K] and one-hot references, tokens [m, L].

    Raises ValueError as `onehot_score`.
    """
    _check_sequences(x, tokens)
    return _lookup(x, tokens, vertex_angles(x)[0].square(), safe_sqrt)


def onehot_log_kernel(
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    tokens: Integer[Tensor, "m ..."],
    *,
    product: bool = False,
) -> Float[Tensor, "n m"]:
    """log k(x_i, y_j) between points [n, L, K] and one-hot references, tokens [m, L].

    The kernel is that of the total distance, or the product kernel. Raises ValueError as `onehot_score`.
    """
    _check_sequences(x, tokens)
    _check_kernels((kernel,), x, product)
    theta, _ = vertex_angles(x)
    if product:
        return _lookup(x, tokens, kernel.log(theta))
    return _lookup(x, tokens, theta.square(), lambda total: kernel.log(safe_sqrt(total)))


def onehot_effective_sample_size(
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    tokens: Integer[Tensor, "m ..."],
    *,
    log_weight: Float[Tensor, "..."] | None = None,
    product: bool = False,
) -> Float[Tensor, " n"]:
    """Effective sample size (Kish) of each query's score, 1 / sum_j p_ij^2, between 1 and m.

    Memory is linear in n + m. Raises ValueError as `onehot_score`.
    """
    check_references(tokens)
    weights = expand_log_weight(log_weight, x, len(tokens))
    rows = max(1, _PAIRS // max(1, len(tokens)))
    sizes = [x.new_zeros(0)]
    for i in range(0, len(x), rows):
        logits = onehot_log_kernel(kernel, x[i : i + rows], tokens, product=product)
        logits = _weighted(logits, None if weights is None else weights[i : i + rows])
        sizes.append(1 / logits.softmax(dim=1).square().sum(dim=1))
    return torch.cat(sizes)


def _lookup(
    x: Tensor, tokens: Tensor, values: Tensor, function: Callable[[Tensor], Tensor] = lambda total: total
) -> Tensor:
    """Apply a function to the sums over positions [n, m] of values [n, L, K] at the references' tokens."""
    table = values.to(x.dtype).flatten(1).T.contiguous()
    found = x.new_empty(len(x), len(tokens))
    parts = torch.split(found, _REFERENCES, dim=1)
    for part, block in zip(parts, torch.split(tokens, _REFERENCES), strict=True):
        part.copy_(function(Letters(block, x.shape[2]).lookup(table)).T)
    return found


def _total_block(
    kernels: Sequence[RadialKernel],
    direction: str,
    tables: Sequence[Tensor],
    letters: Letters,
    log_weight: Tensor | None,
) -> list[Score]:
    """Scores of kernels of r = sqrt(sum_l theta_l^2); the gradients are given by weights of the letters."""
    r = safe_sqrt(letters.lookup(tables[0]))
    minus_inverse = -safe_inverse(r) if direction == "gradient" else None
    scores = []
    for kernel in kernels:
        # grad log k = -(dlog k / r) log_x(y), and the displacement is log_x(y) itself.
        factor = None if minus_inverse is None else kernel.dlog(r) * minus_inverse
        logits = _weighted(kernel.log(r).T, log_weight)
        scores.append(softmax_score(logits, partial(_letter_weights, letters, factor)))
    return scores


def _product_block(
    kernels: Sequence[RadialKernel],
    direction: str,
    tables: Sequence[Tensor],
    letters: Letters,
    log_weight: Tensor | None,
) -> list[Score]:
    """Scores of product kernels; the gradients are given by weights of the letters."""
    logits = [_weighted(letters.lookup(table).T, log_weight) for table in tables]
    return [softmax_score(values, partial(_letter_weights, letters, None)) for values in logits]


def _letter_weights(letters: Letters, factor: Tensor | None, weight: Tensor) -> Tensor:
    """Total weight of each letter at each position [n, L, K], for weights [n, m] times a factor [m, n]."""
    return letters.total((weight.T if factor is None else weight.T * factor).contiguous())


def _weighted(logits: Tensor, log_weight: Tensor | None) -> Tensor:
    return logits if log_weight is None else logits + log_weight


def _check_kernels(kernels: Sequence[RadialKernel], x: Tensor, product: bool) -> None:
    """Raise ValueError for a kernel that is not defined on sequences, or on one position if `product`."""
    if product:
        check_kernels(Sphere(), kernels, x[:, 0])
    else:
        check_kernels(FisherRao(), kernels, x)


def _check_sequences(x: Tensor, tokens: Tensor) -> None:
    if x.ndim != 3 or tokens.ndim != 2 or not x.shape[1] == tokens.shape[1] > 0:
        raise ValueError(
            "expected queries [n, L, K] and references [m, L] of one length L >= 1, got shapes "
            f"{list(x.shape)} and {list(tokens.shape)}"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"queries must be float32 or float64, got {x.dtype}")
    check_tokens(tokens, x.shape[2])
