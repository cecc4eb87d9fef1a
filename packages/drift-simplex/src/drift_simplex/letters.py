"""Functions of the angles between points and vertices, and their sums over the letters of sequences.

At one position a point x sees at most K references, the vertices e_k of the orthant. A function of the
angles to them is a table A [n, L, K]; its sum over positions, for all references, is A @ onehot^T and looks
up L numbers per pair. A field needs W @ onehot, the total weight of the references that have letter k at
position l. Neither product has to multiply: the first adds L rows of the table per reference, the second
adds up the weights of equal letters, which a sort brings together. That is K times less work than a dense
product, and no reduced-precision product of the device can touch it.
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
    """References [m, L] with letters in 0..K-1, as the rows that they select from tables [L * K, n]."""

    def __init__(self, tokens: Integer[Tensor, "m L"], K: int) -> None:
        self._shape = (len(tokens), tokens.shape[1], K)
        groups = torch.split(tokens.long(), _POSITIONS, dim=1)
        self._rows = [t + K * torch.arange(t.shape[1], device=t.device) for t in groups]

    def lookup(self, table: Float[Tensor, "LK n"]) -> Float[Tensor, "m n"]:
        """Sum over positions of the table's rows for the letters of each reference, (A @ onehot^T)^T."""
        parts = torch.split(table, _POSITIONS * self._shape[2])
        total = embedding_bag(self._rows[0], parts[0], mode="sum")
        for rows, part in zip(self._rows[1:], parts[1:], strict=True):
            total = total.double() + embedding_bag(rows, part, mode="sum")
        return total.to(table.dtype)

    def total(self, weight: Float[Tensor, "m n"]) -> Float[Tensor, "n L K"]:
        """Total weight of the references that have each letter at each position, W @ onehot."""
        sums = [embedding_bag(member, weight, start, mode="sum") for member, start in self._members]
        return torch.cat(sums).T.reshape(-1, *self._shape[1:])

    @cached_property
    def _members(self) -> list[tuple[Tensor, Tensor]]:
        """References in the order of their letters, position by position, and where each letter starts."""
        m, _, K = self._shape
        members = []
        for rows in self._rows:
            ordered, order = rows.T.flatten().int().sort(stable=True)
            letters = torch.arange(rows.shape[1] * K, device=rows.device, dtype=ordered.dtype)
            members.append((order % m, torch.searchsorted(ordered, letters)))
        return members


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
