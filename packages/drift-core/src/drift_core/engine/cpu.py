"""Fused scores on a CPU, by a small C library (pairs.c)."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from drift_core.engine.build import compiled
from drift_core.engine.profile import Profile
from drift_core.engine.request import Geometry, Request, Result


class _Kernel(ctypes.Structure):
    """`Kernel` of pairs.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("form", "factors")),
        ("rate", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("first", "cells", "shift")),
        ("pieces", ctypes.c_void_p),
    )


class _Request(ctypes.Structure):
    """`Request` of pairs.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("geometry", "dim", "kernels", "displacement")),
        *((name, ctypes.c_int32) for name in ("own_references", "threads")),
        *((name, ctypes.c_int64) for name in ("n", "m")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "log_weight")),
        *((name, ctypes.c_int64) for name in ("row_stride", "column_stride")),
        *((name, ctypes.c_void_p) for name in ("self_index", "kernel")),
        *((name, ctypes.c_void_p) for name in ("log_density", "gradient", "sample_size")),
    )


class _Product(ctypes.Structure):
    """`Product` of products.c."""

    _fields_ = (
        ("request", _Request),
        ("positions", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("product", "orthant")),
    )


def run(request: Request) -> Result | None:
    """Compute the scores; None without a library, or without the memory for it."""
    lib = compiled()
    if lib is None:
        return None
    x, y, weights = request.x.contiguous(), request.y.contiguous(), request.log_weight
    own = None if request.self_index is None else request.self_index.contiguous()
    kernels, spheres = packed_kernels(request.profiles), request.geometry == Geometry.SPHERES
    shape = len(kernels), len(x)
    gradient = x.new_empty(len(kernels), *x.shape) if request.gradient else None
    result = Result(x.new_empty(shape), gradient, x.new_empty(shape))
    packed = _Request(
        *(Geometry.SPHERE if spheres else request.geometry, x.shape[-1], len(kernels), request.displacement),
        *(not spheres and y.ndim == 3, torch.get_num_threads(), len(x), len(y) if spheres else y.shape[-2]),
        *(address(x), address(y), address(weights), *((0, 0) if weights is None else weights.stride())),
        *(address(own), ctypes.addressof(kernels)),
        *(address(result.log_density), address(result.gradient), address(result.sample_size)),
    )
    if spheres:
        orthant = bool(x.min() >= 0) and bool(y.min() >= 0)
        whole = _Product(packed, x.shape[1], request.product, orthant)
        failed = lib.drift_product_scores(ctypes.byref(whole))
    else:
        failed = lib.drift_scores(ctypes.byref(packed))
    return None if failed else result


def packed_kernels(profiles: Sequence[Profile]) -> ctypes.Array[_Kernel]:
    """The profiles as C structures, which point to the profiles' tables."""
    return (_Kernel * len(profiles))(*map(_kernel, profiles))


def _kernel(profile: Profile) -> _Kernel:
    cells = 0 if profile.pieces is None else len(profile.pieces)
    return _Kernel(
        *(profile.form, profile.factors, profile.rate, profile.first, cells, profile.shift),
        address(profile.pieces),
    )


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers are; None, C's NULL, for no tensor."""
    return None if tensor is None else tensor.data_ptr()
