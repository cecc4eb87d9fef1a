"""How points and tables come to the Triton kernels (pairs.py, products.py)."""

from collections.abc import MutableMapping

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_copies: MutableMapping[Tensor, dict[torch.device, Tensor]] = WeakIdKeyDictionary()
"""Copies of tables on GPUs."""


def with_lengths(points: Tensor) -> Tensor:
    """Points [..., d] of a sphere with their lengths less 1, and 1 over these, along the last axis."""
    norm = torch.linalg.vector_norm(points, dim=-1, keepdim=True, dtype=torch.float64)
    return torch.cat([points, (norm - 1).float(), (1 / norm).float()], dim=-1)


def padded(rows: Tensor, axis: int, multiple: int) -> Tensor:
    """Contiguous copy, whose axis is padded to a multiple by its last element."""
    size = rows.shape[axis]
    index = torch.arange(-(-size // multiple) * multiple, device=rows.device).clamp(max=size - 1)
    return rows.index_select(axis, index).contiguous()


def on_device(device: torch.device, table: Tensor) -> Tensor:
    """The table on a device, kept there as long as it exists itself."""
    if device == table.device:
        return table
    copies = _copies.setdefault(table, {})
    if device not in copies:
        copies[device] = table.to(device)
    return copies[device]
