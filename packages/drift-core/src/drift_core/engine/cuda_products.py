"""Fused scores on products of spheres on an NVIDIA GPU: the host's side of products.py."""

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import pad

from drift_core.engine.layout import on_device, padded, with_lengths
from drift_core.engine.profile import Profile
from drift_core.engine.request import Request

_QUERIES, _REFERENCES, _FEWER = 128, 16, 8
"""Queries, one per thread, and references in a program, fewer in more than `_FEW` dimensions."""
_FEW, _LETTERS, _RUN = 31, 64, 16
"""Most dimensions of which registers hold all that a program needs; most coordinates, and most tiles of
references, whose sums of directions are in registers."""
_CHUNK = 4096
"""References whose pairs with some queries are stored at once."""
_PAIRS, _SUMS = 2**25, 2**24
"""Most pairs, and most sums of directions, that are stored at once."""
_POSITIONS, _PARTS, _TILES = 128, 16, 16
"""Positions below which programs share the references of a chunk in parts, most parts, and fewest tiles in a
part. Parts do not depend on the queries."""
_MERGED = 16
"""Tiles that are merged at once."""

_Rows = tuple[Tensor, Tensor, Tensor]
"""Blocks of queries; their softmax sums [3, n]; sums of directions [parts, L, d, n]."""


class ProductScores:
    """Scores of one kernel after the other; all pairs are computed anew for each."""

    def __init__(self, request: Request) -> None:
        from drift_core.engine import products

        self._kernels: ModuleType = products
        self._request = request
        _, length, d = request.x.shape
        self._width = d if d <= _LETTERS else -(-d // _LETTERS) * _LETTERS
        self._letters = min(_LETTERS, 1 << (d - 1).bit_length())
        self._size = _REFERENCES if d <= _FEW else _FEWER
        self._chunks = [self._blocks(chunk, self._size) for chunk in torch.split(request.y, _CHUNK)]
        tiles = self._chunks[0].shape[1]
        self._parts = max(1, min(_PARTS, _POSITIONS // length, tiles // _TILES))
        most = min(_PAIRS // (tiles * self._size), _SUMS // (self._parts * length * self._width))
        self._rows = max(1, most // _QUERIES) * _QUERIES
        self._constants = {
            **{"DISPLACEMENT": request.displacement, "PRODUCT": request.product, "D": self._width},
            **{"ORTHANT": bool(request.x.min() >= 0) and bool(request.y.min() >= 0)},
            **{"M": self._size, "N": _QUERIES},
        }

    def __call__(self, profile: Profile) -> tuple[Tensor, Tensor | None, Tensor]:
        """Log-densities, gradients if requested, and sample sizes."""
        scores = [self._some(profile, part) for part in self._split()]
        density, gradient, size = zip(*scores, strict=True)
        return torch.cat(density), torch.cat(gradient) if self._request.gradient else None, torch.cat(size)

    def _blocks(self, points: Tensor, size: int) -> Tensor:
        """Points [n, L, d] in blocks [L, blocks, width + 2, size], with zeros up to the width."""
        wide = with_lengths(pad(points, (0, self._width - points.shape[2])))
        return padded(wide, 0, size).reshape(-1, size, *wide.shape[1:]).permute(2, 0, 3, 1).contiguous()

    def _split(self) -> Iterator[Request]:
        """Requests for some of the queries each."""
        request = self._request
        for first in range(0, len(request.x), self._rows):
            rows = slice(first, first + self._rows)
            weight, own = request.log_weight, request.self_index
            yield request._replace(
                x=request.x[rows],
                log_weight=None if weight is None else weight[rows],
                self_index=None if own is None else own[rows],
            )

    def _some(self, profile: Profile, request: Request) -> tuple[Tensor, Tensor | None, Tensor]:
        """The scores of some of the queries."""
        x, (n, length, d) = self._blocks(request.x, _QUERIES), request.x.shape
        state = x.new_zeros(3, x.shape[1] * _QUERIES, dtype=torch.float64)
        state[0] = -torch.inf
        parts = self._parts if request.gradient else 0
        along = state.new_zeros(parts, length, self._width, len(state[0]))
        first = 0
        for y, chunk in zip(self._chunks, torch.split(request.y, _CHUNK), strict=True):
            columns = slice(first, first + len(chunk))
            self._add(profile, _narrowed(request, columns), (x, state, along), y)
            first += len(chunk)
        largest, total, squares = state[:, :n]
        base = largest.masked_fill(largest == -torch.inf, 0)
        density, size = (base + total.log()).float(), (total * total / squares).float()
        if not request.gradient:
            return density, None, size
        mass = torch.where(total == 0, 0, 1 / total)
        sums = along.sum(0)[:, :d, :n].permute(2, 0, 1) * mass[:, None, None]
        return density, _tangent(request.x.double(), sums).float(), size

    def _add(self, profile: Profile, request: Request, rows: _Rows, y: Tensor) -> None:
        """Add the pairs with a chunk of references, those of the request."""
        (x, state, along), tiles, n = rows, y.shape[1], rows[1].shape[1]
        sloped = request.gradient and not request.product
        found = x.new_empty(tiles * self._size, n)
        slopes = torch.empty_like(found) if sloped else found
        sums, base, before = x.new_empty(tiles, 3, n), x.new_empty(n), state[0].clone()
        self._logits(profile, request, (x, y), (found, slopes, sums))
        self._kernels.merge[x.shape[1],](
            *(sums, tiles, state, base), T=_MERGED, N=_QUERIES, enable_fp_fusion=True
        )
        if request.gradient:
            along *= (before - base).exp()
            found.sub_(base).exp_()
            self._directions(profile, (x, y), found.mul_(slopes) if sloped else found, along)

    def _logits(
        self, profile: Profile, request: Request, points: tuple[Tensor, Tensor], out: tuple[Tensor, ...]
    ) -> None:
        """Start the kernel over all blocks of queries and tiles of references."""
        (x, y), weight, own = points, request.log_weight, request.self_index
        self._kernels.logits[x.shape[1], y.shape[1]](
            *(x, y, len(x), *scalars(profile, x.device)),
            *((x, 0, 0) if weight is None else (weight, *weight.stride())),
            *(x if own is None else own.contiguous(), *(len(request.x), len(request.y)), *out),
            **{"WEIGHTED": weight is not None, "EXCLUDING": own is not None},
            **{"SLOPES": out[0] is not out[1], "FORM": int(profile.form), **self._constants},
            enable_fp_fusion=True,
        )

    def _directions(
        self, profile: Profile, points: tuple[Tensor, Tensor], weights: Tensor, along: Tensor
    ) -> None:
        """Start the kernel over all positions, blocks of queries, parts and groups of coordinates."""
        (x, y), groups = points, -(-self._width // self._letters)
        self._kernels.directions[len(x), x.shape[1], self._parts * groups](
            *(x, y, y.shape[1], -(-y.shape[1] // self._parts)),
            *(*scalars(profile, x.device), weights, along),
            **{"LETTERS": self._letters, "GROUPS": groups, "RUN": _RUN},
            **{"FORM": int(profile.form), **self._constants},
            enable_fp_fusion=True,
        )


def _narrowed(request: Request, columns: slice) -> Request:
    """The request for some of the references."""
    weight, own = request.log_weight, request.self_index
    return request._replace(
        y=request.y[columns],
        log_weight=None if weight is None else weight[:, columns],
        self_index=None if own is None else own - columns.start,
    )


def scalars(profile: Profile, device: torch.device) -> tuple[float | Tensor, ...]:
    """A kernel as the arguments of the Triton kernels: rate, factors, first, cells, shift, pieces."""
    table = profile.pieces
    pieces = torch.empty(0, device=device) if table is None else on_device(device, table)
    cells = 0 if table is None else len(table)
    return profile.rate, profile.factors, profile.first, cells, profile.shift, pieces


def _tangent(x: Tensor, u: Tensor) -> Tensor:
    """Part of vectors that is tangent at the queries."""
    return u - (u * x).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True) * x
