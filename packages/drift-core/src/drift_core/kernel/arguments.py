"""The one check that every kernel makes of its parameters."""

import math


def require_positive(name: str, value: float, *, or_inf: bool = False) -> None:
    """Raise ValueError unless value > 0, and finite unless `or_inf`."""
    if not value > 0 or (math.isinf(value) and not or_inf):
        accepted = "a positive number or inf" if or_inf else "a positive finite number"
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
