"""Fused scores on a CPU, by a small C library (pairs.c)."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from drift_core.engine.build import library
from drift_core.engine.profile import Profile
from drift_core.engine.request import Request, Result


class _Kernel(ctypes.Structure):
    """`Kernel` of pairs.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("form", "factors")),
        ("rate", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("first", "last", "shift")),
        ("cubics", ctypes.c_void_p),
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


def available() -> bool:
    """Whether the library can be used."""
    return library() is not None


def run(request: Request) -> Result | None:
    """Compute the scores; None without a library, or without the memory for it."""
    lib = library()
    if lib is None:
        return None
    x, y = request.x.contiguous(), request.y.contiguous()
    n, d = x.shape
    own = None if request.self_index is None else request.self_index.contiguous()
    result = Result(
        x.new_empty(len(request.profiles), n),
        x.new_empty(len(request.profiles), n, d) if request.gradient else None,
        x.new_empty(len(request.profiles), n),
    )
    weights, kernels = request.log_weight, _kernels(request.profiles)
    strides = (0, 0) if weights is None else weights.stride()
    packed = _Request(
        *(request.geometry, d, len(kernels), request.displacement, y.ndim == 3, torch.get_num_threads()),
        *(n, y.shape[-2], _address(x), _address(y), _address(weights), *strides),
        *(_address(own), ctypes.addressof(kernels)),
        *(_address(result.log_density), _address(result.gradient), _address(result.sample_size)),
    )
    return None if lib.drift_scores(ctypes.byref(packed)) else result


def _kernels(profiles: Sequence[Profile]) -> ctypes.Array[_Kernel]:
    """The profiles as C structures, which point to the profiles' tables."""
    return (_Kernel * len(profiles))(*map(_kernel, profiles))


def _kernel(profile: Profile) -> _Kernel:
    cells = 0 if profile.cubics is None else len(profile.cubics)
    last = profile.first + cells - 1
    return _Kernel(
        *(profile.form, profile.factors, profile.rate, profile.first, last, profile.shift),
        _address(profile.cubics),
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
