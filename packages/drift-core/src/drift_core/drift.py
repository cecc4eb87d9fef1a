"""The drift field and the loss that regresses a generator onto it."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from drift_core.field import Batch
from drift_core.fields.kernel import KernelField
from drift_core.kernel import RadialKernel
from drift_core.lengthscale import Lengthscales
from drift_core.manifold import Manifold
from drift_core.manifold.interface import check_clouds
from drift_core.manifold.numerics import safe_ratio


def drift(
    manifold: Manifold,
    kernel: RadialKernel,
    x: Float[Tensor, "n ..."],
    data: Float[Tensor, "m ..."],
    model: Float[Tensor, "k ..."] | None = None,
    *,
    direction: str = "gradient",
    data_log_weight: Float[Tensor, "..."] | None = None,
    model_log_weight: Float[Tensor, "..."] | None = None,
    chunk_size: int | None = None,
    self_index: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "n ..."]:
    """Drift field V(x) = grad log p_k(x) - grad log q_k(x) of kernel-smoothed data p and model q.

    Antisymmetric in (data, model), and exactly zero if the two clouds are equal. With direction
    "displacement" each term is the kernel-weighted mean of log_x(y) instead (Deng et al. 2026,
    arXiv 2602.04770); for a Gaussian kernel the two differ by the factor lengthscale^2 only. Equals
    `KernelField`, the field used in training, at one lengthscale.

    Args:
        manifold: the geometry of the points.
        kernel: a radial kernel on it.
        x: points at which to evaluate the field, shape [n, *point].
        data: data points, shape [m, *point].
        model: model points, shape [k, *point]; None: the samples x themselves, each excluded from its
            own repulsion.
        direction: "gradient" or "displacement".
        data_log_weight: log-weights of the data, broadcast to [n, m]; -inf excludes a pair.
        model_log_weight: log-weights of the model points, broadcast to [n, k].
        chunk_size: references evaluated at once.
        self_index: row of each x in `model`, which is excluded from its own repulsion.

    Returns:
        Tangent vectors at x, shape [n, *point].

    Raises:
        ValueError: mismatched shapes, an empty cloud, an unknown direction, a kernel that is not defined
            on the manifold.
    """
    field = KernelField(manifold, lambda _: kernel, Lengthscales((1.0,)), direction, chunk_size)
    batch = Batch(
        x,
        data,
        model,
        self_index,
        data_log_weight=data_log_weight,
        model_log_weight=model_log_weight,
    )
    return field(batch).field


def longest_step(manifold: Manifold, max_step: float | None) -> float:
    """Length at which steps are capped: max_step, or 0.99 of the injectivity radius if it is None.

    Raises:
        ValueError: max_step not positive, or beyond the injectivity radius.
    """
    radius = manifold.injectivity_radius
    if max_step is None:
        return 0.99 * radius
    if not 0 < max_step < radius:
        raise ValueError(f"max_step must lie in (0, {radius:.4g}) on {manifold!r}, got {max_step}")
    return max_step


def cap_step(
    manifold: Manifold,
    x: Float[Tensor, "n ..."],
    u: Float[Tensor, "n ..."],
    max_step: float | None = None,
) -> tuple[Float[Tensor, "n ..."], Bool[Tensor, " n"]]:
    """Shorten tangent vectors to at most `longest_step`, and return which were longer.

    Raises ValueError as `longest_step`.
    """
    longest = longest_step(manifold, max_step)
    length = manifold.norm(x, u)
    clipped = length > longest
    scale = torch.where(clipped, safe_ratio(torch.full_like(length, longest), length), 1.0)
    return u * scale.reshape(scale.shape + (1,) * manifold.point_ndim).to(u), clipped


def drift_loss(
    manifold: Manifold,
    x: Float[Tensor, "n ..."],
    v: Float[Tensor, "..."],
    *,
    step_size: float = 1.0,
    max_step: float | None = None,
) -> Float[Tensor, ""]:
    """Mean squared distance from samples to their drifted positions, the loss of Deng et al. 2026.

    The loss is mean_i d(x_i, stop_gradient(exp_{x_i}(u_i)))^2 with the step u_i = step_size v_i, shortened to
    `max_step`. Its value is mean |u|^2, and its Riemannian gradient in x_i is -2 u_i / n, on every manifold.
    Neither is computed through a distance, whose rounding would swamp short steps. On a manifold with a
    boundary u_i is the part of the step inside it (`Manifold.admissible`).

    Args:
        manifold: the geometry of the points.
        x: samples, shape [n, *point]; gradients flow through them.
        v: drift at the samples, shape [n, *point]; no gradient flows through it.
        step_size: how far to follow the drift.
        max_step: cap on the length of one step, below the injectivity radius.

    Returns:
        The loss. Its gradient in x_i is the differential w -> inner(x_i, -2 u_i / n, w) in ambient
        coordinates: -2 u_i / n itself where the metric is that of the ambient space.

    Raises:
        ValueError: mismatched shapes, no sample, half precision, step_size not positive, max_step beyond
            the injectivity radius.
    """
    if x.shape != v.shape:
        raise ValueError(f"samples and drift must have one shape, got {list(x.shape)} and {list(v.shape)}")
    check_clouds(manifold, x, v)
    if len(x) == 0:
        raise ValueError(f"expected at least one sample, got samples of shape {list(x.shape)}")
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, got {step_size}")
    base = x.detach()
    with torch.no_grad():
        capped, _ = cap_step(manifold, base, step_size * v, max_step)
        u = manifold.admissible(base, capped)
        square = manifold.inner(base, u, u)
    return (square - 2 * manifold.inner(base, u, x - base)).mean()
