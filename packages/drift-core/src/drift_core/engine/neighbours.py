"""Exact nearest neighbours in few dimensions on a CPU, by a small C library (neighbours.c)."""

import ctypes
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int32, Int64
from torch import Tensor

from drift_core.engine.build import compiled

MOST_DIMENSIONS = 8
"""Dimensions up to which there is a tree; in more, a query would visit most of it."""
_LEAF, _FAN = 64, 16
"""`LEAF` and `FAN` of neighbours.c."""


class _Tree(ctypes.Structure):
    """`Tree` of neighbours.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("dim", "threads")),
        *((name, ctypes.c_int64) for name in ("m", "finite", "stride")),
        *((name, ctypes.c_void_p) for name in ("columns", "index", "boxes")),
    )


@dataclass(frozen=True)
class Tree:
    """k-d tree of float32 points, built by `Tree.of`.

    Infinite and NaN coordinates are allowed: such points follow all others, in the order of their indices,
    and a query with such coordinates has all points in the order of their indices.
    """

    m: int
    finite: int
    columns: Float32[Tensor, "d stride"]
    index: Int32[Tensor, " stride"]
    boxes: Float32[Tensor, "nodes d 2 fan"]

    @classmethod
    def of(cls, points: Float[Tensor, "m d"]) -> "Tree | None":
        """Tree of float32 points of 1 to 8 dimensions on a CPU; None for others, or without the library."""
        (m, d), plain = points.shape, points.device.type == "cpu" and points.dtype == torch.float32
        lib = compiled() if plain and 1 <= d <= MOST_DIMENSIONS and 1 <= m <= 2**30 else None
        if lib is None:
            return None
        points = points.detach().contiguous()
        leaves = -(-m // _LEAF)
        stride = leaves * _LEAF
        columns, index = points.new_empty(d, stride), torch.empty(stride, dtype=torch.int32)
        boxes = points.new_empty(_nodes(leaves), d, 2, _FAN)
        packed = _pack(m, m, columns, index, boxes)
        failed = lib.drift_tree(ctypes.byref(packed), ctypes.c_void_p(points.data_ptr()))
        return None if failed else cls(m, packed.finite, columns, index, boxes)

    def nearest(self, x: Float[Tensor, "n d"], k: int) -> Int64[Tensor, "n k"]:
        """Indices of the k nearest points of each float32 query, nearest first, then by index.

        Raises MemoryError if there is too little of it.
        """
        lib, x = compiled(), x.detach().contiguous()
        packed = _pack(self.m, self.finite, self.columns, self.index, self.boxes)
        result = torch.empty(len(x), k, dtype=torch.int64)
        sizes = ctypes.c_int64(len(x)), ctypes.c_int64(k)
        addresses = ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(result.data_ptr())
        if lib is None or lib.drift_nearest(ctypes.byref(packed), addresses[0], *sizes, addresses[1]):
            raise MemoryError(f"no memory to find {k} neighbours")
        return result


def _nodes(leaves: int) -> int:
    """Nodes above the leaves, the root included."""
    above = -(-leaves // _FAN)
    return above if above == 1 else above + _nodes(above)


def _pack(m: int, finite: int, columns: Tensor, index: Tensor, boxes: Tensor) -> _Tree:
    d, stride = columns.shape
    addresses = columns.data_ptr(), index.data_ptr(), boxes.data_ptr()
    return _Tree(d, torch.get_num_threads(), m, finite, stride, *addresses)
