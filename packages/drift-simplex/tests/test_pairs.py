"""The fused float32 pairs against float64, near coincident points, and their memory."""

import math
import subprocess
import sys
import textwrap

import pytest
import torch
from drift_core import Gaussian, Laplace, Matern, Power, Sphere, smoothed_score
from drift_simplex import FisherRao, onehot_to_sphere
from torch import Tensor

SPACE, PRODUCT = FisherRao(), Power(Sphere())
SHAPES = [(40, 50, 5, 4), (30, 20, 32, 35), (7, 9, 37, 3), (20, 30, 256, 4)]


def nudged(x: Tensor, angle: float) -> Tensor:
    """Points of the orthant at an angle from x at every position."""
    y = torch.rand(x.shape, generator=torch.Generator().manual_seed(9), dtype=x.dtype)
    y = torch.nn.functional.normalize(y, dim=-1)
    u = SPACE.logmap(x, y)
    return SPACE.expmap(x, angle * u / u.norm(dim=-1, keepdim=True))


def relative(a: Tensor, exact: Tensor) -> float:
    """Largest error of a row beside its length."""
    return float(((a - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("clouds", ["random", "near", "one-hot"])
def test_float32_distances_agree_with_float64(shape, clouds, soft, strings):
    n, m, length, vocab_size = shape
    x = soft(n, length, vocab_size, 0, torch.float32)
    y = soft(m, length, vocab_size, 1, torch.float32)
    if clouds == "near":
        y = nudged(x.double(), 1e-4).float()
    if clouds == "one-hot":
        y = onehot_to_sphere(strings(m, length, vocab_size), vocab_size)
    exact = PRODUCT.cdist(x.double(), y.double())
    r = SPACE.cdist(x, y)
    assert r.dtype == torch.float32
    assert float(((r - exact).abs() / exact).max()) < 1e-6


@pytest.mark.parametrize(
    "kernel", [Laplace(0.3), Gaussian(2.0), Matern(0.5, 2.5), Matern(0.5, 0.8)], ids=repr
)
@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("clouds", ["random", "near"])
def test_float32_fields_agree_with_float64(kernel, direction, clouds, soft):
    x, y = soft(30, 32, 6, 0).float(), soft(40, 32, 6, 1).float()
    if clouds == "near":
        y = nudged(x.double(), 1e-4).float()
    exact = smoothed_score(PRODUCT, kernel, x.double(), y.double(), direction=direction)
    score = smoothed_score(SPACE, kernel, x, y, direction=direction)
    assert relative(score.gradient, exact.gradient) < 1e-5
    assert float((score.log_density - exact.log_density).abs().max()) < 2e-5


def test_float32_inner_products_would_not_do(soft):
    x = soft(30, 32, 6).float()
    y = nudged(x.double(), 1e-4).float()
    exact = PRODUCT.dist(x.double(), y.double())
    naive = torch.arccos((x * y).sum(-1).clamp(max=1)).norm(dim=-1)
    assert not float(((naive - exact).abs() / exact).max()) < 0.5
    assert float(((SPACE.cdist(x, y).diagonal() - exact).abs() / exact).max()) < 1e-6


def test_coincident_points_have_no_distance_and_no_direction(soft, strings):
    for x in (soft(20, 32, 6).float(), onehot_to_sphere(strings(20, 32, 6), 6)):
        assert float(SPACE.cdist(x, x).diagonal().max()) < 1e-6
        for direction in ("gradient", "displacement"):
            score = smoothed_score(SPACE, Laplace(0.3), x, x, direction=direction)
            assert bool(score.gradient.isfinite().all())
            alone = smoothed_score(SPACE, Laplace(0.3), x[:1], x[:1], direction=direction)
            assert float(alone.gradient.abs().max()) < 1e-6


def test_vertices_are_a_right_angle_apart():
    x, y = onehot_to_sphere(torch.tensor([[0, 1, 2], [3, 3, 3]]), 4).split(1)
    assert float(SPACE.cdist(x, y)) == pytest.approx(math.pi / 2 * math.sqrt(3), rel=1e-6)
    u = SPACE.log_sum(x, y, torch.ones(1, 1))
    torch.testing.assert_close(u, math.pi / 2 * y, rtol=1e-6, atol=1e-6)


def test_every_block_finds_its_rows(soft):
    """More references than a block holds, so that blocks are single rows; and positions left over."""
    x, y = soft(3, 17, 2, 0).float(), soft(70_000, 17, 2, 1).float()
    weight = torch.rand(3, 70_000, generator=torch.Generator().manual_seed(0)) / 70_000
    exact = PRODUCT.log_sum(x.double(), y.double(), weight.double())
    assert relative(SPACE.log_sum(x, y, weight), exact) < 1e-6
    for n, m in ((0, 5), (4, 0)):
        assert SPACE.cdist(x[:0].expand(n, -1, -1) if n == 0 else soft(n, 17, 2).float(), y[:m]).shape == (
            n,
            m,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_are_differentiable(dtype, soft):
    x, y = soft(6, 4, 5, 0, dtype).requires_grad_(), soft(7, 4, 5, 1, dtype)
    (gradient,) = torch.autograd.grad(SPACE.cdist(x, y).square().sum() / 2, x)
    ones = torch.ones(6, 7, dtype=dtype)
    expected = -SPACE.log_sum(x.detach(), y, ones)
    tol = 1e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(SPACE.proju(x.detach(), gradient), expected, rtol=tol, atol=tol)


def test_memory_does_not_grow_with_the_length():
    """Peak memory beyond the points of all pairs of 512 sequences, at L = 1,024 (8 at first)."""
    code = """
        import torch
        from pathlib import Path
        from drift_simplex import FisherRao, to_sphere
        def peak():  # in MB; getrusage would start from the peak of the process that started this one
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        def draw(length): return to_sphere(torch.rand(512, length, 4).softmax(-1))
        w = torch.rand(512, 512)
        FisherRao().log_sum(draw(8), draw(8), w)
        x, y = draw(1024), draw(1024)
        before = peak()
        FisherRao().log_sum(x, y, w)
        print(peak() - before)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 40  # MB, of which 8 are the result; one [n, m, L] array would be 1,074
