"""Sums over positions for one-hot references, as lookups in tables of letters.

At one position there are at most K references, the vertices e_k of the orthant. A function of the angles
to them is a table A [n, L, K], and its sum over positions for all references is A @ onehot^T. A field also
needs W @ onehot, the total weight of the references that have letter k at position l.

Neither product needs multiplications. The first adds L rows of the table per reference. The second adds up
the weights of equal letters, grouped by a sort. That is K times less work than a dense product, and it is not
affected by the reduced precision of matrix products on a device.
"""

from functools import cached_property

import torch
from drift_core.manifold.numerics import safe_sqrt
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

_POSITIONS = 32
"""Positions summed in float32 before they join the float64 sum."""


class Letters:
    """One-hot references: the rows of tables [L * K, n] that tokens [m, L] in 0..K-1 select.

    `dense` makes all sums by matrix products; None: on a GPU.
    """

    def __init__(self, tokens: Integer[Tensor, "m L"], K: int, dense: bool | None = None) -> None:
        self._shape = (len(tokens), tokens.shape[1], K)
        self._dense = tokens.is_cuda if dense is None else dense
        groups = torch.split(tokens.long(), _POSITIONS, dim=1)
        self._rows = [t + K * torch.arange(t.shape[1], device=t.device) for t in groups]

    def lookup(self, table: Float[Tensor, "LK n"]) -> Float[Tensor, "m n"]:
        """Sum over positions of the rows that each reference selects, (A @ onehot^T)^T."""
        parts = torch.split(table, _POSITIONS * self._shape[2])
        total = self._sum(0, parts[0])
        for group, part in enumerate(parts[1:], 1):
            total = total.double() + self._sum(group, part)
        return total.to(table.dtype)

    def total(self, weight: Float[Tensor, "m n"]) -> Float[Tensor, "n L K"]:
        """Total weight of the references that have each letter at each position, W @ onehot."""
        if self._dense:
            sums = [_product(onehot.T, weight) for onehot in self._onehot]
        else:
            sums = [embedding_bag(member, weight, start, mode="sum") for member, start in self._members]
        return torch.cat(sums).T.reshape(-1, *self._shape[1:])

    def _sum(self, group: int, table: Tensor) -> Tensor:
        """Sum over the positions of a group of the rows that each reference selects."""
        if self._dense:
            return _product(self._onehot[group], table)
        return embedding_bag(self._rows[group], table, mode="sum")

    @cached_property
    def _onehot(self) -> list[Tensor]:
        """One-hot matrices [m, positions * K] of the groups of positions."""
        K = self._shape[2]
        shapes = [(len(rows), rows.shape[1] * K) for rows in self._rows]
        empty = [
            rows.new_zeros(shape, dtype=torch.float32) for rows, shape in zip(self._rows, shapes, strict=True)
        ]
        return [matrix.scatter_(1, rows, 1) for matrix, rows in zip(empty, self._rows, strict=True)]

    @cached_property
    def _members(self) -> list[tuple[Tensor, Tensor]]:
        """References sorted by their letter at each position, and where each letter starts."""
        m, _, K = self._shape
        members = []
        for rows in self._rows:
            ordered, order = rows.T.flatten().int().sort(stable=True)
            letters = torch.arange(rows.shape[1] * K, device=rows.device, dtype=ordered.dtype)
            members.append((order % m, torch.searchsorted(ordered, letters)))
        return members


def _product(onehot: Tensor, values: Tensor) -> Tensor:
    """Product of a matrix of zeros and ones, and one of numbers, to float32 or better."""
    if values.dtype != torch.float32:
        return onehot.to(values.dtype) @ values
    high = (values.view(torch.int32) & -(2**13)).view(torch.float32)  # 11 significant bits
    return onehot @ high + onehot @ (values - high)


def vertex_angles(x: Float[Tensor, "n L K"]) -> tuple[Float[Tensor, "n L K"], Float[Tensor, "n L K"]]:
    """Angles between points and vertices, and their sines, in float64.

    sin^2 is the sum of the other squared coordinates: 1 - x_k^2 would cancel near the vertex.
    """
    x = normalize(x.double(), dim=-1)
    others = 1 - torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    sin = safe_sqrt(x.square() @ others)
    return torch.atan2(sin, x), sin


def tangent_part(x: Float[Tensor, "n L K"], u: Float[Tensor, "n L K"]) -> Float[Tensor, "n L K"]:
    """Tangent part of u at x, computed in float64."""
    base = normalize(x.double(), dim=-1)
    return (u - (u * base).sum(-1, keepdim=True) * base).to(x.dtype)
