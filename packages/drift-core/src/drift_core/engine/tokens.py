"""Fused scores against one-hot references on a CPU, by a small C library (tokens.c)."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int32
from torch import Tensor

from drift_core.engine.build import compiled
from drift_core.engine.cpu import address, packed_kernels
from drift_core.engine.profile import Profile


class _Tokens(ctypes.Structure):
    """`Tokens` of tokens.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kernels", "product", "displacement", "threads")),
        *((name, ctypes.c_int64) for name in ("n", "m", "positions", "rows")),
        *((name, ctypes.c_void_p) for name in ("table", "named", "log_weight")),
        *((name, ctypes.c_int64) for name in ("row_stride", "column_stride")),
        *((name, ctypes.c_void_p) for name in ("kernel", "log_density", "share")),
    )


class TokenRequest(NamedTuple):
    """Scores of k kernels over all pairs of n points and m one-hot references, float32 on a CPU."""

    tables: Float32[Tensor, "tables rows n"]
    """Of kernels of the total distance one table, of the squared angles to the letters of all positions; of
    product kernels one each, of log k1 of the angles."""
    named: Int32[Tensor, "m positions"]
    """Rows of the tables that each reference names."""
    profiles: Sequence[Profile] | None
    """Kernels of the total distance; None: products."""
    log_weight: Tensor | None = None
    """Log-weights, [n, m], in general a view with strides of 0; -inf excludes a pair."""
    displacement: bool = False
    """Mean displacements instead of kernel gradients."""


class TokenResult(NamedTuple):
    """Scores of k kernels."""

    log_density: Float32[Tensor, "k n"]
    share: Float32[Tensor, "k rows n"]
    """Weight of the references that name a row, relative to that of all; for kernels of the total distance
    times what their logarithm falls by per unit of half a squared distance, or for displacements 1."""


def run(request: TokenRequest) -> TokenResult | None:
    """Compute the scores; None without a library, or without the memory for it."""
    lib = compiled()
    if lib is None:
        return None
    tables, named, weights = request.tables.contiguous(), request.named.contiguous(), request.log_weight
    product = request.profiles is None
    kernels = packed_kernels(request.profiles or ())
    count, (rows, n) = len(tables) if product else len(kernels), tables.shape[1:]
    result = TokenResult(tables.new_empty(count, n), tables.new_empty(count, rows, n))
    packed = _Tokens(
        *(count, product, request.displacement, torch.get_num_threads(), n, *named.shape, rows),
        *(address(tables), address(named), address(weights)),
        *((0, 0) if weights is None else weights.stride()),
        *(ctypes.addressof(kernels), address(result.log_density), address(result.share)),
    )
    return None if lib.drift_token_scores(ctypes.byref(packed)) else result
