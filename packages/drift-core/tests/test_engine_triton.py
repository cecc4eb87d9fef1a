"""The CUDA engine against the torch form in float64: in Triton's interpreter, compiled, and on a GPU.

Triton's interpreter is chosen before Triton is imported, so the checks are run by processes of this file.
"""

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from drift_core import (
    Euclidean,
    Gaussian,
    Hyperboloid,
    Laplace,
    Manifold,
    Matern,
    Mixture,
    Power,
    RadialKernel,
    Score,
    Sphere,
    SphericalMatern,
    effective_sample_size,
    engine,
    smoothed_scores,
)
from drift_core.engine import cuda, cuda_products
from drift_core.engine.profile import Form, Profile, profile_of
from drift_core.engine.request import Geometry, Request, Result
from torch import Tensor

SPACES: dict[str, tuple[Manifold, Geometry, tuple[int, ...]]] = {
    "R1": (Euclidean(), Geometry.EUCLIDEAN, (1,)),
    "R2": (Euclidean(), Geometry.EUCLIDEAN, (2,)),
    "R5": (Euclidean(), Geometry.EUCLIDEAN, (5,)),
    "R64": (Euclidean(), Geometry.EUCLIDEAN, (64,)),
    "S1": (Sphere(), Geometry.SPHERE, (2,)),
    "S2": (Sphere(), Geometry.SPHERE, (3,)),
    "S7": (Sphere(), Geometry.SPHERE, (8,)),
    "H2": (Hyperboloid(), Geometry.HYPERBOLOID, (3,)),
    "H5": (Hyperboloid(), Geometry.HYPERBOLOID, (6,)),
    "S3^3": (Power(Sphere()), Geometry.SPHERES, (3, 4)),
    "S1^2": (Power(Sphere()), Geometry.SPHERES, (2, 2)),
    "orthant S3^4": (Power(Sphere()), Geometry.SPHERES, (4, 4)),
    "orthant S32^2": (Power(Sphere()), Geometry.SPHERES, (2, 33)),
    "orthant S69": (Power(Sphere()), Geometry.SPHERES, (1, 70)),
}
BRIEF = "S1^2", "orthant S32^2", "orthant S69"
"""Spaces with few cases: products take the interpreter longest."""
EVERY_OPTION = "R2", "S2", "H2", "S3^3"
"""Spaces in which the interpreter takes every direction and weight; a GPU does in all but the brief ones."""
GEOMETRIES = "EUCLIDEAN", "SPHERE", "HYPERBOLOID", "SPHERES"
LARGEST_ERROR = 2e-5
SPREAD = 1e-4

has_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
has_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[str]]:
    """Faults in Triton's interpreter, by geometry, and at the edges; one process runs all checks."""
    rows = {geometry: "18" if geometry == "SPHERES" else "6" for geometry in GEOMETRIES}  # two blocks of them
    calls = {geometry: ["compare", geometry, "cpu", "24", m] for geometry, m in rows.items()}
    calls["edges"] = ["edges", "cpu"]
    return dict(zip(calls, in_process(*calls.values(), TRITON_INTERPRET="1"), strict=True))


@has_triton
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_interpreted_engine_agrees_with_float64(geometry, interpreted):
    assert interpreted[geometry] == []


@has_triton
def test_interpreted_engine_at_the_edges(interpreted):
    assert interpreted["edges"] == []


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> tuple[list[str], list[str]]:
    """What scores of CPU tensors import, and then the kernels compiled for a GPU."""
    cache = tmp_path_factory.mktemp("triton")
    calls = ["without_gpu"], ["compile_kernels"]
    imported, heads = in_process(*calls, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(cache))
    return imported, heads


@has_triton
def test_all_forms_compile_for_a_gpu(compiled):
    _, heads = compiled
    assert len(heads) > 15
    assert all(".target sm_" in head for head in heads)


@has_triton
def test_triton_is_imported_for_cuda_tensors_alone_and_may_fail(compiled):
    assert compiled[0] == []


@has_triton
@has_gpu
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_engine_on_a_gpu_agrees_with_float64(geometry):
    assert in_process(["compare", geometry, "cuda", "4096", "4096"], TRITON_INTERPRET="0") == [[]]


@has_triton
@has_gpu
def test_scores_of_cuda_tensors_use_the_engine():
    assert in_process(["connected"], TRITON_INTERPRET="0") == [[]]


@has_triton
@has_gpu
def test_engine_on_a_gpu_at_the_edges():
    assert in_process(["edges", "cuda"], TRITON_INTERPRET="0") == [[]]


def in_process(*calls: list[str], **environment: str) -> list[list[str]]:
    """What functions of this file return in a new process, one after the other: words, faults as a rule."""
    command = [sys.executable, __file__, json.dumps(calls)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


# ------------------------------------------------------------------ in the process


def kernels(space: str, scale: float) -> list[RadialKernel]:
    """Kernels of every form; `scale` is a typical distance."""
    length = 0.4 * scale
    if space in ("R5", "R64", "S7", *BRIEF):
        return [Laplace(length), Matern(length, 0.7)]
    mixture = Mixture([Gaussian(length), Laplace(0.3 * length)], [0.4, 0.6])
    spherical = [SphericalMatern(0.5, 2.5)] if space == "S2" else []
    orders = [Matern(length, nu) for nu in (1.5, 2.5, 0.7)]
    return [Laplace(length), Gaussian(length), *orders, mixture, *spherical]


def clouds(space: str, kind: str, n: int, m: int, device: str) -> tuple[Tensor, Tensor, float]:
    """Queries, references, and a typical distance."""
    manifold, _, shape = SPACES[space]
    d = math.prod(shape)
    noise = torch.randn(n + m, *shape, generator=torch.Generator().manual_seed(n + m), dtype=torch.float64)
    near = SPREAD * noise[n:]
    if kind == "random":
        points, scale = noise, math.sqrt(d)
    elif kind == "near":
        points, scale = noise[:1] + SPREAD * noise, SPREAD * math.sqrt(d)
    else:
        points, scale = torch.cat([noise[:n], near - noise[torch.arange(m) % n]]), math.sqrt(d)
    if space.startswith("orthant"):
        points = points.abs()
    x, y = manifold.projx(points).float().to(device).split([n, m])
    return x, y, scale


def weights(kind: str, n: int, m: int, device: str) -> dict[str, Tensor]:
    """Keyword arguments of a score."""
    noise = torch.randn(n, m, generator=torch.Generator().manual_seed(1)).to(device)
    if kind == "references":
        return {"log_weight": noise[0].expand(n, m)}
    if kind == "pairs":
        excluded = noise.masked_fill(noise > 0.7, -torch.inf)
        excluded[3:5] = -torch.inf
        return {"log_weight": excluded}
    index = torch.arange(n, device=device) + m - n // 2  # half of them exclude none
    return {"self_index": index} if kind == "self" else {}


def cases(space: str, device: str) -> Iterator[tuple[str, str, str]]:
    """Clouds, directions and weights."""
    if space in BRIEF or (device == "cpu" and space not in EVERY_OPTION):
        yield from ((kind, "gradient", "none") for kind in ("random", "near"))
        return
    kinds = ["random", "near", *(["antipodal"] if space.startswith("S") else [])]
    yield from ((kind, "gradient", "none") for kind in kinds)
    yield from (("random", "displacement", kind) for kind in ("none", "pairs"))
    yield from (("random", "gradient", kind) for kind in ("references", "pairs", "self"))


def request(
    space: str,
    kernel: list[RadialKernel],
    x: Tensor,
    y: Tensor,
    displacement: bool = False,
    product: bool = False,
    **weight: Tensor,
) -> Request:
    """A request to the engine."""
    profiles = [profile for profile in map(profile_of, kernel) if profile is not None]
    assert len(profiles) == len(kernel)
    log_weight, own = weight.get("log_weight"), weight.get("self_index")
    return Request(SPACES[space][1], profiles, x, y, log_weight, own, displacement, product=product)


def exact(
    space: str,
    kernel: list[RadialKernel],
    x: Tensor,
    y: Tensor,
    direction: str = "gradient",
    **weight: Tensor,
) -> list[Score]:
    """The torch form in float64."""
    manifold = SPACES[space][0]
    with engine.disabled():
        return smoothed_scores(
            manifold,
            kernel,
            manifold.projx(x.double()),
            manifold.projx(y.double()),
            direction=direction,
            **weight,
        )


def exact_product(
    kernel: list[RadialKernel],
    x: Tensor,
    y: Tensor,
    direction: str = "gradient",
    log_weight: Tensor | None = None,
    self_index: Tensor | None = None,
) -> list[Score]:
    """Product kernels by their definition in float64: log-densities, and their gradients by autograd."""
    sphere, scores = Sphere(), []
    at, of = (sphere.projx(points.double()) for points in (x, y))
    weight = torch.zeros(len(x), len(y), device=x.device) if log_weight is None else log_weight
    if self_index is not None:
        index = torch.arange(len(y), device=x.device)
        weight = weight.masked_fill(self_index[:, None] == index, -math.inf)
    for one in kernel:
        base = at.clone().requires_grad_()
        positions = list(zip(base.unbind(1), of.unbind(1), strict=True))
        log_kernel = torch.stack([one.log(sphere.cdist(*position)) for position in positions]).sum(0)
        logits = (log_kernel + weight).detach()
        share = logits.softmax(1).nan_to_num()  # zero without references
        if direction == "gradient":
            (slope,) = torch.autograd.grad((share * log_kernel).sum(), base)
            field = sphere.proju(at, slope)
        else:
            field = torch.stack([sphere.log_sum(*position, share).detach() for position in positions], dim=1)
        scores.append(Score(logits.logsumexp(1), field))
    return scores


def faults(name: str, kernel: list[RadialKernel], result: Result, scores: list[Score]) -> list[str]:
    """Kernels whose fields or log-densities differ from the exact ones."""
    assert result.gradient is not None
    found = []
    for one, density, gradient, score in zip(
        kernel, result.log_density, result.gradient, scores, strict=True
    ):
        error = float((gradient - score.gradient).norm() / score.gradient.norm())
        gap = (density - score.log_density) / (1 + score.log_density.abs())
        gap = float(gap.masked_fill(score.log_density == -torch.inf, 0).abs().max())
        same = torch.equal(density == -torch.inf, score.log_density == -torch.inf)
        empty = gradient[density == -torch.inf]
        if not (error < LARGEST_ERROR and gap < 5e-6 and same and bool((empty == 0).all())):
            found.append(f"{name} {one!r}: field {error:.1e}, log-density {gap:.1e}, exclusions {same}")
    return found


def compare(geometry: str, device: str, n: str, m: str) -> list[str]:
    """Faults in the spaces of a geometry."""
    spaces = [space for space, parts in SPACES.items() if parts[1].name == geometry]
    if device == "cpu" and geometry == "SPHERES":
        spaces.remove("orthant S69")  # the slowest one in the interpreter
    return [fault for space in spaces for fault in compare_in(space, device, int(n), int(m))]


def compare_in(space: str, device: str, n: int, m: int) -> list[str]:
    """Faults on a grid of kernels, clouds, directions and weights, of products of kernels too."""
    found = []
    products = (False, True) if SPACES[space][1] == Geometry.SPHERES else (False,)
    for (kind, direction, weight), product in itertools.product(cases(space, device), products):
        x, y, scale = clouds(space, kind, n, m, device)
        kernel = kernels(space, scale)
        if len(products) > 1 and (
            space in BRIEF or (kind, direction, weight) != ("random", "gradient", "none")
        ):
            kernel = kernel[::4]  # these take the interpreter longest
        elif weight != "none" or direction != "gradient":
            kernel = kernel[::2]
        options = weights(weight, len(x), len(y), device)
        result = cuda.scores(request(space, kernel, x, y, direction == "displacement", product, **options))
        oracle = exact_product if product else partial(exact, space)
        reference = oracle(kernel, x, y, direction, **options)
        found += faults(f"{space} {kind} {direction} {weight} {product=}", kernel, result, reference)
    return found


def edges(device: str) -> list[str]:
    """Names of the checks that fail."""
    checks = (parts, separate, alone, nan, density, coincident)
    spaces = ["R2", "S2", "H2", "S3^3"]
    if device != "cpu":  # the interpreter is slow, with products most of all
        spaces += ["R5", "orthant S3^4"]
    failed = [f"{check.__name__} {space}" for check in checks for space in spaces if not check(space, device)]
    return [*failed, *(check.__name__ for check in (far, chunks, antipode) if not check(device))]


def antipode(device: str) -> bool:
    """One reference near the antipode of a query, where the slope of a kernel of a sphere vanishes."""
    kernel: list[RadialKernel] = [SphericalMatern(0.5, 2.5)]
    x, y, _ = clouds("S2", "antipodal", 4, 4, device)
    pairs = [(x[i : i + 1], y[i : i + 1]) for i in range(4)]
    return not any(
        faults("", kernel, cuda.scores(request("S2", kernel, *pair)), exact("S2", kernel, *pair))
        for pair in pairs
    )


def parts(space: str, device: str) -> bool:
    """Many references, which several programs share."""
    x, y, scale = clouds(space, "random", 5, 100 if device == "cpu" else 300, device)
    kernel = [Laplace(0.05 * scale)]
    return faults("", kernel, cuda.scores(request(space, kernel, x, y)), exact(space, kernel, x, y)) == []


def separate(space: str, device: str) -> bool:
    """Separate references for every query, which products of spheres do not have."""
    if SPACES[space][1] == Geometry.SPHERES:
        return True
    x, y, scale = clouds(space, "random", 3, 30, device)
    kernel = kernels(space, scale)[1:2]
    result = cuda.scores(request(space, kernel, x, y.reshape(3, 10, -1)))
    rows = [exact(space, kernel, x[i : i + 1], y[10 * i : 10 * i + 10])[0] for i in range(3)]
    return faults("", kernel, result, [Score(*map(torch.cat, zip(*rows, strict=True)))]) == []


def alone(space: str, device: str) -> bool:
    """A query's result does not depend on the others."""
    x, y, scale = clouds(space, "random", 140, 10, device)
    both = [cuda.scores(request(space, [Laplace(scale)], part, y)) for part in (x, x[130:131])]
    whole, one = ([t for t in result if t is not None] for result in both)
    return all(torch.equal(w[:, 130:131], o) for w, o in zip(whole, one, strict=True))


def nan(space: str, device: str) -> bool:
    """NaN in, NaN out: in one query for it alone, in a reference for all."""
    x, y, scale = clouds(space, "random", 6, 10, device)
    kernel = kernels(space, scale)
    query, reference = x.clone(), y.clone()
    query[2, 1], reference[7, 1] = math.nan, math.nan
    one = cuda.scores(request(space, kernel, query, y))
    every = cuda.scores(request(space, kernel, x, reference))
    assert one.gradient is not None
    assert every.gradient is not None
    expected = torch.arange(6, device=device) == 2
    lost = one.log_density.isnan() & one.gradient.flatten(2).isnan().all(-1)
    kept = one.log_density.isfinite() & one.gradient.flatten(2).isfinite().all(-1)
    everywhere = every.log_density.isnan().all() & every.gradient.flatten(2).isnan().any(-1).all()
    return bool((lost == expected).all() & (kept == ~expected).all() & everywhere)


def density(space: str, device: str) -> bool:
    """Log-densities alone, and effective sample sizes."""
    x, y, scale = clouds(space, "random", 6, 18, device)
    kernel = Laplace(0.2 * scale)
    full = request(space, [kernel], x, y)
    only, both = cuda.scores(full._replace(gradient=False)), cuda.scores(full)
    with engine.disabled():
        size = effective_sample_size(SPACES[space][0], kernel, x.double(), y.double())
    same = torch.allclose(only.log_density, both.log_density, rtol=1e-6, atol=1e-6)
    return only.gradient is None and same and torch.allclose(only.sample_size[0].double(), size, rtol=1e-5)


def coincident(space: str, device: str) -> bool:
    """Coincident pairs have no direction."""
    x, _, scale = clouds(space, "random", 6, 1, device)
    result = cuda.scores(request(space, kernels(space, scale), x[:1], x[:1]))
    assert result.gradient is not None
    return bool((result.gradient.abs() < 1e-6).all() & (result.log_density.abs() < 1e-6).all())


def chunks(device: str) -> bool:
    """Products of spheres whose references, queries and directions pass in chunks, parts and blocks."""
    x, y, scale = clouds("S3^3", "random", 140, 70, device)
    weight = weights("pairs", 140, 70, device) | weights("self", 140, 70, device)
    names = "_CHUNK", "_PAIRS", "_TILES", "_RUN", "_LETTERS", "_MERGED"
    before = [getattr(cuda_products, name) for name in names]
    found = []
    for name, value in zip(names, (64, 64 * 128, 2, 1, 2, 2), strict=True):
        setattr(cuda_products, name, value)
    for product, oracle in ((False, partial(exact, "S3^3")), (True, exact_product)):
        kernel = [Laplace(0.1 * scale)]
        result = cuda.scores(request("S3^3", kernel, x, y, product=product, **weight))
        found += faults("", kernel, result, oracle(kernel, x, y, **weight))
    for name, value in zip(names, before, strict=True):
        setattr(cuda_products, name, value)
    return found == []


def far(device: str) -> bool:
    """Points of the hyperbolic plane at distances where differences of float64 coordinates cancel."""
    r = torch.tensor([10.0, 20, 30, 40, 60], dtype=torch.float64, device=device)
    y = torch.stack([r.cosh(), r.sinh(), 0 * r], dim=1).float()
    x = torch.tensor([[1.0, 0, 0]], device=device)
    results = [cuda.scores(request("H2", [Laplace(10.0)], x, point[None])) for point in y]
    slope = torch.tensor([0.0, 0.1, 0.0], device=device)
    fields = [result.gradient for result in results if result.gradient is not None]
    found = torch.cat([result.log_density[0] for result in results])
    same = torch.allclose(found, -r.float() / 10, rtol=1e-6)
    return same and all(torch.allclose(field, slope, atol=1e-6) for field in fields)


def without_gpu() -> list[str]:
    """Modules of Triton that scores of CPU tensors import, and faults where its kernels cannot be started."""
    one = request("R2", [Laplace(1.0)], torch.zeros(2, 2), torch.ones(3, 2))
    smoothed_scores(Euclidean(), [Laplace(1.0)], one.x, one.y)
    imported = [name for name in sys.modules if name == "triton" or name.startswith("triton.")]
    return imported if cuda.run(one) is None else [*imported, "CPU tensors were computed"]


def connected() -> list[str]:
    """Faults of the way from a score to the engine."""
    found = []
    for manifold, shape in ((Euclidean(), (3,)), (Power(Sphere()), (5, 3))):
        x, y = (manifold.projx(torch.randn(50, *shape, device="cuda")) for _ in range(2))
        result = engine.fused(manifold, [Laplace(1.0)], x, y)
        scores = smoothed_scores(manifold, [Laplace(1.0)], x, y)
        if result is None or result.gradient is None:
            found.append(f"{manifold}: the engine was not used")
        elif not torch.equal(result.gradient[0], scores[0].gradient):
            found.append(f"{manifold}: scores differ")
    return found


def compile_kernels() -> list[str]:
    """The first lines of the machine code of every form, geometry and option, for GPUs of two kinds."""
    from drift_core.engine import pairs, products

    launches: dict[str, tuple[Any, dict[str, Any], int]] = {}
    kernels = {
        pairs: ("softmax_sums", "direction_sums", "scores"),
        products: ("logits", "merge", "directions"),
    }
    for module, names in kernels.items():
        for name in names:
            setattr(module, name, _Recorder(getattr(module, name), launches))
    for one in _requests():
        cuda.scores(one)
    return [_compiled(*launch, arch=80 if i % 4 else 90) for i, launch in enumerate(launches.values())]


class _Recorder:
    """In place of a kernel: records what it is started with."""

    def __init__(self, function: Any, launches: dict[str, tuple[Any, dict[str, Any], int]]) -> None:
        self.function, self.launches = function, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self.start

    def start(self, *arguments: Any, enable_fp_fusion: bool, num_warps: int = 4, **constants: Any) -> None:
        names = self.function.arg_names
        values = {**dict(zip(names, arguments, strict=False)), **constants}
        assert set(values) == set(names)
        assert enable_fp_fusion
        launch = self.function, {name: values[name] for name in names}, num_warps
        self.launches[repr((names, constants))] = launch


def _requests() -> Iterator[Request]:
    """Every form, every geometry with few and many dimensions, every option."""
    table = torch.zeros(8, 4)
    x = {space: torch.zeros(4, *shape) for space, (_, _, shape) in SPACES.items()}
    base = Request(Geometry.SPHERE, [Profile(Form.LAPLACE, 1.0)], x["S2"], x["S2"])
    for form in set(Form) - {Form.TABLE_OF_SQUARES}:  # of a CPU
        yield base._replace(profiles=[Profile(form, 1.0, 2, 0, 16, table)])
    for space in ("R1", "R2", "R64", "S7", "H2", "H5"):
        yield base._replace(geometry=SPACES[space][1], x=x[space], y=x[space])
    yield base._replace(log_weight=torch.zeros(4, 4))
    yield base._replace(self_index=torch.zeros(4, dtype=torch.int64))
    yield base._replace(displacement=True)
    yield base._replace(y=torch.zeros(4, 4, 3))
    yield base._replace(gradient=False)
    base = base._replace(geometry=Geometry.SPHERES, x=x["S3^3"], y=x["S3^3"])
    for form, product in ((Form.TABLE, False), (Form.GAUSSIAN, True)):  # their code is that of pairs
        one = base._replace(profiles=[Profile(form, 1.0, 2, 0, 16, table)], product=product)
        yield one._replace(x=base.x - 1) if product else one
    for space in ("S1^2", "orthant S32^2"):
        yield base._replace(x=x[space], y=x[space])
    weight, own = torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64)
    for product in (False, True):
        yield base._replace(log_weight=weight, self_index=own, displacement=True, product=product)
    yield base._replace(gradient=False)


def _compiled(function: Any, values: dict[str, Any], num_warps: int, arch: int) -> str:
    """The first lines of a kernel's PTX."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    types = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int64: "*i64"}
    constants = {name: value for name, value in values.items() if name.isupper()}
    signature = {
        name: "constexpr" if name in constants else
        types[value.dtype] if isinstance(value, Tensor) else {int: "i32", float: "fp32"}[type(value)]
        for name, value in values.items()
    }  # fmt: skip
    source = ASTSource(function, signature, constants)
    done = compile(
        source, target=GPUTarget("cuda", arch, 32), options={"num_warps": num_warps, "enable_fp_fusion": True}
    )
    return done.asm["ptx"][:400]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([globals()[name](*arguments) for name, *arguments in json.loads(sys.argv[1])]))
