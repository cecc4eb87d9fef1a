"""Fused scores on an NVIDIA GPU, by Triton kernels (pairs.py, products.py).

Triton is imported on first use: not every system has it.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from drift_core.engine.cuda_products import ProductScores, scalars
from drift_core.engine.profile import Form, Profile
from drift_core.engine.request import Geometry, Request, Result

_SMALL = 4
"""Dimensions up to it keep the sums of the directions in registers; others find the distances twice."""
_FEW, _MANY = {"M": 4, "N": 64, "num_warps": 1}, {"M": 32, "N": 64, "num_warps": 1}
"""References at a time, queries and warps of a program, for few and for many dimensions. One warp looks for
larger weights without shared memory; many references share the additions of directions to memory."""
_PARTS, _PART_ROWS, _PART_TILES = 16, 512, 8
"""Most parts of the references, most rows of sums over all parts, and fewest tiles in a part. Parts run in
parallel; their number does not depend on the queries."""

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
    return Result(_stacked(log_density), _stacked(known) if known else None, _stacked(sample_size))


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """The parts along a new first axis; a single one is not copied."""
    return parts[0][None] if len(parts) == 1 else torch.stack(list(parts))


class _Launch:
    """The kernels' view of a request."""

    def __init__(self, request: Request) -> None:
        from drift_core.engine import pairs

        self._kernels: ModuleType = pairs
        self._request = request
        n, d = request.x.shape
        self._few = d <= _SMALL
        self._block = _FEW if self._few else _MANY
        tiles = -(-request.y.shape[-2] // self._block["M"])
        parts = max(1, min(_PARTS, _PART_ROWS // (3 + d), tiles // _PART_TILES))
        self._tiles = -(-tiles // parts)
        self._parts = -(-tiles // self._tiles)
        self._programs = -(-n // self._block["N"])
        x, y = _columns(request.x), _columns(request.y)
        if request.geometry == Geometry.SPHERE:
            x, y = _with_excess(x), _with_excess(y)
        half_x, half_y = x, y
        if request.geometry == Geometry.HYPERBOLOID:
            half_x, half_y = _half_lifted(x), _half_lifted(y)
        self._points = x, _padded(y, self._block["M"]), half_x, _padded(half_y, self._block["M"])
        self._constants = {"GEOMETRY": int(request.geometry), "D": d, "DISPLACEMENT": request.displacement}

    def score(self, profile: Profile) -> tuple[Tensor, Tensor | None, Tensor]:
        """Log-densities, gradients and sample sizes of one kernel; the distances are found anew for each."""
        (n, d), x = self._request.x.shape, self._points[0]
        log_density, sample_size = x.new_empty(2, n).unbind()
        gradient = x.new_empty(n, d) if self._request.gradient else None
        again = gradient is not None and not self._few
        empty = x.new_zeros if again else x.new_empty
        sums = empty(self._parts, 3 + d, n, dtype=torch.float64)
        self._sum("softmax_sums", profile, sums, ALONG=gradient is not None and self._few)
        if again:
            self._sum("direction_sums", profile, sums)
        self._kernels.scores[(self._programs,)](
            *(x, sums, n, self._parts, profile.rate),
            *(log_density, log_density if gradient is None else gradient, sample_size),
            **{"FORM": int(profile.form), "GRADIENT": gradient is not None, "N": self._block["N"]},
            **self._constants,
            num_warps=self._block["num_warps"],
            enable_fp_fusion=True,
        )
        return log_density, gradient, sample_size

    def _sum(self, name: str, profile: Profile, sums: Tensor, **constants: int) -> None:
        """Start a kernel over all blocks of queries and parts of the references."""
        request, unused = self._request, self._points[0]
        weight, own = request.log_weight, request.self_index
        strides = (0, 0) if weight is None else weight.stride()
        getattr(self._kernels, name)[self._programs, self._parts](
            *(*self._points, len(request.x), request.y.shape[-2], self._tiles),
            *scalars(profile, unused.device),
            *(unused if weight is None else weight, *strides),
            *(unused if own is None else own.contiguous(), sums),
            **{"FORM": int(profile.form), "OWN": request.y.ndim == 3},
            **{"WEIGHTED": weight is not None, "EXCLUDING": own is not None},
            **self._constants,
            **constants,
            **self._block,
            enable_fp_fusion=True,
        )


def _columns(points: Tensor) -> Tensor:
    """Points coordinate by coordinate: [d, n] of [n, d], [d, m, n] of [n, m, d]."""
    return points.permute(*reversed(range(points.ndim))).contiguous()


def _padded(columns: Tensor, multiple: int) -> Tensor:
    """The same with zeros as further points, up to a multiple."""
    missing = -columns.shape[1] % multiple
    rest = columns.new_zeros(len(columns), missing, *columns.shape[2:])
    return torch.cat([columns, rest], dim=1) if missing else columns


def _with_excess(columns: Tensor) -> Tensor:
    """Points with their length less 1 as a last row."""
    norm = torch.linalg.vector_norm(columns, dim=0, keepdim=True, dtype=torch.float64)
    return torch.cat([columns, (norm - 1).float()])


def _half_lifted(columns: Tensor) -> Tensor:
    """Halves of float64 points of the hyperboloid, with the time coordinate that the others imply."""
    half = columns.double().mul_(0.5)
    torch.add(half[1:].square().sum(0), 0.25, out=half[0]).sqrt_()
    return half
