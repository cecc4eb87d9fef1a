"""The same gradients as others would compute them."""

import importlib.util
import io
import os
from contextlib import redirect_stdout

import torch
from drift_core import Manifold, RadialKernel
from drift_core.engine import disabled
from torch import Tensor

from benchmarks.case import Run


def torch_form(run: Run) -> Run:
    """The candidate computed by torch alone."""

    def without_engine() -> Tensor:
        with disabled():
            return run()

    return without_engine


def autograd(manifold: Manifold, kernel: RadialKernel, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of logsumexp_j log k(d(x_i, y_j)) by reverse-mode differentiation."""
    at = x.clone().requires_grad_()
    total = kernel.log(manifold.cdist(at, y)).logsumexp(dim=1).sum()
    return manifold.proju(x, torch.autograd.grad(total, at)[0])


def broadcast_logmap(manifold: Manifold, kernel: RadialKernel, x: Tensor, y: Tensor) -> Tensor:
    """Weighted sum of an [n, m, d] tensor of logarithms."""
    r = manifold.dist(x[:, None], y)
    weight = kernel.log(r).softmax(dim=1) * -kernel.dlog(r) / r
    return (weight[..., None] * manifold.logmap(x[:, None], y)).sum(dim=1)


def keops_sphere_laplace(x: Tensor, y: Tensor, lengthscale: float) -> Tensor:
    """Gradient on the sphere for the Laplace kernel by one KeOps reduction (Charlier et al. 2021).

    theta = 2 arcsin(e / 2) and sin(theta) = e sqrt(1 - e^2 / 4) for the chord e = |y - x|.
    """
    os.environ.setdefault("PYKEOPS_VERBOSE", "0")
    with redirect_stdout(io.StringIO()):  # it says there that it finds no GPU
        from pykeops.torch import LazyTensor

    difference = LazyTensor(y[None]) - LazyTensor(x[:, None])
    square = difference.sqnorm2() * 0.999999 + 1e-12  # inside (0, 4)
    theta, sine = 2 * (square.sqrt() / 2).asin(), (square * (1 - square / 4)).sqrt()
    total = (-theta / lengthscale).sumsoftmaxweight(difference / (lengthscale * sine), dim=1)
    return total - (total * x).sum(-1, keepdim=True) * x


def keops_missing() -> str | None:
    """Why KeOps cannot be used; None if it can."""
    found = importlib.util.find_spec("pykeops")
    return None if found else "pykeops is not installed (uv run --with pykeops apps/benchmark.py run)"
