"""Bases of the spaces of geometric-kernels."""

from typing import Any

import numpy as np
import torch

from drift_core.kernel.eigenbasis import PROBES, Eigenbasis
from drift_core.kernel.waves import hyperbolic_basis, spd_basis


def space_basis(space: Any, levels: int) -> Eigenbasis:
    """Basis of a space of geometric-kernels, of points as that library has them.

    Hypersphere: unit vectors; Circle: angles [n, 1]; ProductDiscreteSpectrumSpace of circles: angles [n, d];
    Graph and Mesh: indices of nodes [n, 1]; Hyperbolic(2): `hyperbolic_basis`, and
    SymmetricPositiveDefiniteMatrices(2): `spd_basis`, both up to their default radius.

    Raises:
        ValueError: a space whose eigenfunctions are not known one by one, nor its waves here. Random features
            of such spaces have sums that are negative in places, of which there is no logarithm.
    """
    try:
        import geometric_kernels.torch  # noqa: F401, registers the backend
    except ImportError:
        raise ImportError("spectral kernels of spaces need drift-core[spectral]") from None
    from geometric_kernels.spaces import (
        CompactMatrixLieGroup,
        DiscreteSpectrumSpace,
        Hyperbolic,
        SymmetricPositiveDefiniteMatrices,
    )

    if isinstance(space, Hyperbolic) and space.dimension == 2:
        return hyperbolic_basis(levels)
    if isinstance(space, SymmetricPositiveDefiniteMatrices) and space.n == 2:
        return spd_basis(levels)
    if not isinstance(space, DiscreteSpectrumSpace) or isinstance(space, CompactMatrixLieGroup):
        raise ValueError(f"{space} has no eigenfunctions one by one; for rotations give `rotation_basis`")
    eigenvalues = torch.as_tensor(np.asarray(space.get_repeated_eigenvalues(levels), dtype=np.float64))
    functions = space.get_eigenfunctions(levels)
    probes = torch.as_tensor(space.random(torch.Generator().manual_seed(0), PROBES)[1])
    return Eigenbasis(eigenvalues.flatten(), functions, functions(probes).double(), int(space.dimension))
