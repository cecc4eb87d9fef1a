"""Functions of one variable tabulated on a uniform grid, evaluated as piecewise cubics."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

Array = npt.NDArray[np.float64]


class CubicTable:
    """The cubic Hermite interpolant of (value, slope) on a uniform grid, extrapolated linearly.

    `values` and `slopes` (d value / dt) are float64 at t = step * (first, ..., first + n): 0 is a node,
    and t near it keeps its digits. A call takes t of any shape, keeps its dtype and device, and is
    differentiable in t; its error is at most step^4 max|f''''| / 384 in f.
    """

    def __init__(self, first: int, step: float, values: Array, slopes: Array) -> None:
        self.step = step
        self._ends = first - 1, first + len(values) - 1
        c0, c1, rise, end = values[:-1], slopes[:-1] * step, np.diff(values), slopes[1:] * step
        cubics = np.stack([c0, c1, 3 * rise - 2 * c1 - end, c1 + end - 2 * rise], axis=1)
        before = [values[0] - c1[0], c1[0], 0.0, 0.0]
        after = [values[-1], end[-1], 0.0, 0.0]
        self._columns = torch.from_numpy(np.vstack([before, cubics, after]).T.copy())
        self._placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def __call__(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Interpolated values at t."""
        u = t * (1 / self.step)
        cell = u.detach().clamp(*self._ends).floor()
        s = u - cell
        # Four gathers from contiguous columns beat one gather of rows. NaN converts to a negative integer.
        index = (cell - self._ends[0]).long().clamp(min=0).flatten()
        c0, c1, c2, c3 = (c.index_select(0, index).view_as(t) for c in self._columns_like(t))
        return torch.addcmul(c0, torch.addcmul(c1, torch.addcmul(c2, c3, s), s), s)

    def _columns_like(self, t: Tensor) -> Float[Tensor, "4 rows"]:
        key = (t.device, t.dtype)
        if key not in self._placed:
            # A tensor first made in inference mode could not serve a later autograd call.
            with torch.inference_mode(False):
                self._placed[key] = self._columns.to(device=t.device, dtype=t.dtype)
        return self._placed[key]


class _WithDerivative(torch.autograd.Function):
    """f(r), whose derivative is computed by a second function instead of through f's own operations."""

    generate_vmap_rule = True

    @staticmethod
    def forward(r: Tensor, f: Callable[[Tensor], Tensor], df: Callable[[Tensor], Tensor]) -> Tensor:
        return f(r)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        r, _, ctx.df = inputs
        ctx.save_for_backward(r)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (r,) = ctx.saved_tensors
        return grads[0] * ctx.df(r), None, None


def with_derivative(
    r: Float[Tensor, "*shape"], f: Callable[[Tensor], Tensor], df: Callable[[Tensor], Tensor]
) -> Float[Tensor, "*shape"]:
    """Return f(r), an elementwise function whose autograd derivative is df(r), to all orders that df has."""
    result: Tensor = _WithDerivative.apply(r, f, df)
    return result
