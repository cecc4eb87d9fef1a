"""Fused scores on an NVIDIA GPU, by Triton kernels (pairs.py, products.py).

Triton is imported on first use: not every system has it.
"""

import logging
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from drift_core.engine.cuda_products import ProductScores
from drift_core.engine.layout import on_device, padded, with_lengths
from drift_core.engine.profile import Form, Profile
from drift_core.engine.request import Geometry, Request, Result

_QUERIES = 128
"""Queries in a program, one per thread."""
_PARTS, _PART_ROWS, _PART_TILES = 16, 512, 8
"""Most parts of the references, most rows of sums over all parts, and fewest tiles in a part. Parts run in
parallel; their number does not depend on the queries."""
_SMALL = 4
"""Dimensions up to it keep the sums of the directions in registers; others find the distances twice."""

log = logging.getLogger(__name__)


@lru_cache
def available(device: torch.device) -> bool:
    """Whether the engine can be used on a device: it computes one pair there, and logs why that fails."""
    if torch.version.cuda is None:
        return False
    point = torch.zeros(1, 1, device=device)
    try:
        scores(Request(Geometry.EUCLIDEAN, [Profile(Form.LAPLACE, 1.0)], point, point))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no Triton, no compiler for its launcher, a processor that it does not know
        log.info("the CUDA engine cannot be used, fields are computed by torch: %s", error)
        return False
    return True


def run(request: Request) -> Result | None:
    """Compute the scores; None without Triton, or for points without coordinates."""
    return scores(request) if request.x.shape[1] > 0 and available(request.x.device) else None


def scores(request: Request) -> Result:
    """`Result` by the kernels, on a GPU or in Triton's interpreter."""
    with torch.cuda.device(request.x.get_device()):  # of CPU tensors -1, which changes nothing
        score = ProductScores(request) if request.geometry == Geometry.SPHERES else _Launch(request).score
        log_density, gradient, sample_size = zip(*map(score, request.profiles), strict=True)
    known = [part for part in gradient if part is not None]
    stacked = torch.stack(known) if request.gradient else None
    return Result(torch.stack(log_density), stacked, torch.stack(sample_size))


class _Launch:
    """The kernels' view of a request."""

    def __init__(self, request: Request) -> None:
        from drift_core.engine import pairs

        self._kernels: ModuleType = pairs
        self._request = request
        own = request.y.ndim == 3
        wide = request.geometry == Geometry.HYPERBOLOID
        self._block = {"M": 8 if wide else 16, "N": _QUERIES}
        x, y = (_rows(request.geometry, points) for points in (request.x, request.y))
        self._x = padded(x.T, 1, _QUERIES)
        self._y = padded(y.permute(2, 1, 0) if own else y.T, 1, self._block["M"])
        self._y = padded(self._y, 2, _QUERIES) if own else self._y
        self._constants = {
            **{"GEOMETRY": int(request.geometry), "D": request.x.shape[1], "OWN": own},
            **{"DISPLACEMENT": request.displacement, "WEIGHTED": request.log_weight is not None},
            "EXCLUDING": request.self_index is not None,
        }
        tiles = self._y.shape[1] // self._block["M"]
        parts = max(1, min(_PARTS, _PART_ROWS // (3 + request.x.shape[1]), tiles // _PART_TILES))
        self._tiles = -(-tiles // parts)
        self._parts = -(-tiles // self._tiles)

    def score(self, profile: Profile) -> tuple[Tensor, Tensor | None, Tensor]:
        """Log-densities, gradients and sample sizes of one kernel; the distances are found anew for each."""
        (n, d), rows = self._request.x.shape, self._x.shape[1]
        sums = self._x.new_empty(self._parts, 3, rows, dtype=torch.float64)
        along = sums.new_zeros(self._parts, d, rows) if self._request.gradient else sums
        small = self._request.gradient and d <= _SMALL
        self._run("softmax_sums", profile, sums, along, ALONG=small)
        largest, total, squares = sums.unbind(1)
        top = largest.amax(0)
        base = top.masked_fill(top == -torch.inf, 0)
        share = (largest - base).exp()
        total, squares = (share * total).sum(0)[:n], (share * share * squares).sum(0)[:n]
        density, size = base[:n] + total.log(), total * total / squares
        if not self._request.gradient:
            return density.float(), None, size.float()
        if small:
            along *= share[:, None]
        else:
            self._run("direction_sums", profile, base.float(), along)
        mass = torch.where(total == 0, 0, 1 / total)
        tangent = _tangent(self._request, along.sum(0)[:, :n].T)
        return density.float(), (tangent * mass[:, None]).float(), size.float()

    def _run(self, name: str, profile: Profile, known: Tensor, along: Tensor, **constants: int) -> None:
        """Start a kernel over all blocks of queries and parts of the references."""
        request, unused = self._request, self._request.x
        weight, own = request.log_weight, request.self_index
        strides = (0, 0) if weight is None else weight.stride()
        cubics = unused if profile.cubics is None else on_device(unused.device, profile.cubics)
        last = 0 if profile.cubics is None else len(profile.cubics) - 1
        getattr(self._kernels, name)[self._x.shape[1] // _QUERIES, self._parts](
            *(self._x, self._y, self._x.shape[1], self._y.shape[1], self._tiles),
            *(profile.rate, profile.factors, profile.first, last, profile.shift, cubics),
            *(unused if weight is None else weight, *strides),
            *(unused if own is None else own.contiguous(), *(len(request.x), request.y.shape[-2])),
            *(known, along),
            **{"FORM": int(profile.form), **self._constants, **constants, **self._block},
            enable_fp_fusion=True,
        )


def _rows(geometry: Geometry, points: Tensor) -> Tensor:
    """What the kernels need to know of points [..., d], along the last axis."""
    if geometry == Geometry.HYPERBOLOID:
        return _lifted(points)
    if geometry == Geometry.SPHERE:
        return with_lengths(points)
    return points


def _lifted(points: Tensor) -> Tensor:
    """Float64 points of the hyperboloid, with the time coordinate that the others imply."""
    space = points[..., 1:].double()
    return torch.cat([(1 + space.square().sum(-1, keepdim=True)).sqrt(), space], dim=-1)


def _tangent(request: Request, u: Tensor) -> Tensor:
    """Part of float64 vectors [n, d] that is tangent at the queries."""
    if request.geometry == Geometry.SPHERE:
        x = request.x.double()
        return u - (u * x).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True) * x
    if request.geometry == Geometry.HYPERBOLOID:
        x, product = _lifted(request.x), u * _lifted(request.x)
        return u + (product[:, 1:].sum(-1, keepdim=True) - product[:, :1]) * x
    return u
