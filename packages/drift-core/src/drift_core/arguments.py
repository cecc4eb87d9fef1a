"""Conversion of parameters of kernels and manifolds to plain floats."""

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Scalar = float
else:
    Scalar = Any  # converted and checked by `number`


def number(value: Any) -> float:
    """Float of a number, a numpy scalar or a zero-dimensional tensor; NaN for anything else.

    A tensor that requires grad also gives NaN: no gradient would reach it.
    """
    if getattr(value, "ndim", None) == 0 and not getattr(value, "requires_grad", False):
        value = value.item()
    return float(value) if isinstance(value, Real) else math.nan


def positive(name: str, value: Any, *, or_inf: bool = False) -> float:
    """`number` of the value. Raises ValueError unless it lies in [1e-150, 1e150], or is inf and `or_inf`."""
    result = number(value)
    if not result > 0 or (math.isinf(result) and not or_inf):
        accepted = "a positive number or inf" if or_inf else "a positive finite number"
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    if math.isfinite(result) and not 1e-150 <= result <= 1e150:  # its square must be a float64, too
        raise ValueError(f"{name} must lie in [1e-150, 1e150], got {value!r}")
    return result
