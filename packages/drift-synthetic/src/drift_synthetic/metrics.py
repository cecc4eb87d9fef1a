"""Statistics that compare generated points with the target."""

import math
import warnings

import numpy as np
import torch
from drift_core import Euclidean, Laplace, smoothed_log_density
from jaxtyping import Float, Float64
from threadpoolctl import threadpool_limits
from torch import Tensor

from drift_synthetic.targets import Checkerboard

PROJECTIONS = 500
"""Random directions of `sliced_wasserstein`, the same at every call."""

MMD_LENGTHSCALE = 0.2
"""Lengthscale of the kernel of `mmd`, about the size of the targets' modes."""

FOLDS = 3
"""Folds of the cross-validation of `c2st`."""


def sliced_wasserstein(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Sliced Wasserstein-2 distance between samples in R^d, in units of their coordinates.

    It is the square root of the mean of W2^2 between the projections on 500 directions, which are drawn
    uniformly with a fixed seed. Source: Bonneel et al. (2015); equal to POT's to rounding.
    """
    n, m = len(x), len(y)
    directions = torch.from_numpy(_directions(x.shape[1]))
    a, b = (np.sort((directions @ side.double().T).numpy(), axis=1) for side in (x, y))
    # Both quantile functions are constant between these multiples of 1 / (n m).
    ends = np.union1d(m * np.arange(1, n + 1), n * np.arange(1, m + 1))
    gaps = np.take(a, (ends - 1) // m, axis=1)
    gaps -= np.take(b, (ends - 1) // n, axis=1)
    gaps *= gaps
    return float(np.sqrt((gaps @ np.diff(ends, prepend=0)).mean() / (n * m)))


def _directions(d: int) -> Float64[np.ndarray, "500 d"]:
    """Unit vectors, those of POT for the seed 0."""
    theta = np.random.RandomState(0).normal(size=(d, PROJECTIONS)).T
    return theta / np.linalg.norm(theta, axis=1, keepdims=True)


def mmd(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Maximum mean discrepancy of the kernel exp(-|x - y| / l), l = 0.2: the biased statistic, its root.

    The kernel is characteristic on R^d, hence on any space embedded in it. exp(-d / l) of the geodesic
    distance d is not positive definite on rotations, and Gaussians of d on no curved space and no torus
    (Feragen et al. 2015). On spheres and rotations |x - y| is a function of d.
    Source: Gretton et al. (2012), equation 5.
    """
    euclidean, kernel = Euclidean(), Laplace(MMD_LENGTHSCALE)

    def mean(a: Tensor, b: Tensor) -> float:
        log_sums = smoothed_log_density(euclidean, kernel, a.double(), b.double())
        return float(log_sums.exp().mean()) / len(b)

    return math.sqrt(max(0.0, mean(x, x) - 2 * mean(x, y) + mean(y, y)))


def tile_accuracy(board: Checkerboard, u: Float[Tensor, "n 2"]) -> float:
    """Fraction of chart points in black squares; 1 is best, uniform points on the board have 0.5.

    It does not depend on how the points are distributed over the black squares.
    """
    return float(board.in_black(u).double().mean())


def c2st(x: Float[Tensor, "n 2"], y: Float[Tensor, "m 2"]) -> float:
    """Held-out accuracy of a classifier of x against y; 0.5 for samples of the same distribution.

    The classifier is an MLP with two layers of 64 on z-scored coordinates, trained for 100 epochs in each
    of 3 stratified folds, with fixed seeds. Source: Lopez-Paz and Oquab (2017).
    """
    # These take seconds to import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    points = np.concatenate([x.double().numpy(), y.double().numpy()])
    label = np.repeat([0, 1], [len(x), len(y)])
    network = MLPClassifier(
        (64, 64), max_iter=100, learning_rate_init=5e-3, batch_size=256, random_state=0
    )  # fmt: skip
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    # Threads that share products this small wait for one another, on a busy machine 40 times longer.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is a choice
        scores = cross_val_score(make_pipeline(StandardScaler(), network), points, label, cv=folds)
    return float(scores.mean())
