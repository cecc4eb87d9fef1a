"""The isometry between simplex and orthant, the laws of the geometry, and the rule at its border."""

import itertools
import math

import pytest
import torch
from drift_core import Gaussian, Laplace, Matern, Mixture, Power, Sphere, drift_loss
from drift_core.lengthscale import auto_lengthscale
from drift_core.testing import check_drift, check_manifold
from drift_simplex import (
    FisherRao,
    abs_normalize,
    decode,
    decode_best,
    onehot_to_sphere,
    sample_tokens,
    to_simplex,
    to_sphere,
)
from drift_simplex.geometry import check_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

SPACE, PRODUCT = FisherRao(), Power(Sphere())
KERNELS = [
    Gaussian(0.7),
    Laplace(0.7),
    Matern(0.7, 1.5),
    Matern(0.7, 0.8),
    Mixture((Laplace(0.4), Gaussian(1.3)), (0.3, 2.0)),
]


def fisher_rao_length(p: Tensor) -> float:
    """Length of a polygon p(t) on the simplex, sum of sqrt(sum_k dp_k^2 / p_k) at the middles."""
    step, middle = p.diff(dim=0), (p[1:] + p[:-1]) / 2
    return float((step.square() / middle).sum(-1).sqrt().sum())


def orthant_grid(step: float) -> Tensor:
    """All of the orthant in 3 dimensions, to within `step` radians."""
    angles = torch.arange(0, math.pi / 2 + step, step, dtype=torch.float64).clamp_max(math.pi / 2)
    a, b = torch.meshgrid(angles, angles, indexing="ij")
    return torch.stack([a.sin() * b.cos(), a.sin() * b.sin(), a.cos()], dim=-1).reshape(-1, 3)


def test_geodesics_are_twice_as_long_on_the_simplex(soft):
    x, y = soft(20, 1, 5, 0), soft(20, 1, 5, 1)
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    for a, b in zip(x, y, strict=True):
        points = SPACE.expmap(a, t[:, None, None] * SPACE.logmap(a, b))
        length = fisher_rao_length(to_simplex(points[:, 0]))
        assert length == pytest.approx(2 * float(SPACE.dist(a, b)), rel=1e-4)  # polygons err near a border


def test_every_curve_is_twice_as_long_on_the_simplex():
    t = torch.linspace(0, 3, 20_001, dtype=torch.float64)
    p = torch.stack([t.sin(), (2 * t).cos(), t, 0.5 - t * t / 4], dim=-1).softmax(dim=-1)
    x = to_sphere(p)
    angles = Sphere().dist(x[1:], x[:-1])
    assert fisher_rao_length(p) == pytest.approx(2 * float(angles.sum()), rel=1e-6)
    assert float(angles.sum()) > 1.05 * float(Sphere().dist(x[0], x[-1]))  # and is no geodesic


def test_maps_are_inverse(soft):
    x = soft(10, 3, 6)
    p = to_simplex(x)
    torch.testing.assert_close(p.sum(-1), torch.ones(10, 3, dtype=torch.float64))
    torch.testing.assert_close(to_sphere(p), x)
    torch.testing.assert_close(to_simplex(3 * x), p)
    torch.testing.assert_close(to_sphere(p).norm(dim=-1), torch.ones(10, 3, dtype=torch.float64))


def test_to_sphere_has_finite_gradients_on_the_border():
    p = torch.tensor([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]], requires_grad=True)
    to_sphere(p).sum().backward()
    torch.testing.assert_close(p.grad, torch.tensor([[0.0, 1.0, 0.75**-0.5 / 2], [0.5, 0.0, 0.0]]))
    logits = torch.tensor([[0.0, -200.0]], requires_grad=True)  # a softmax that underflows
    to_sphere(logits.softmax(-1)).sum().backward()
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_tokens_survive_the_sphere(dtype, strings):
    tokens = strings(30, 7, 11).to(dtype)
    x = onehot_to_sphere(tokens, 11)
    assert x.shape == (30, 7, 11)
    assert bool((x.sum(-1) == 1).all() and (x.amax(-1) == 1).all())
    assert bool((decode(x) == tokens).all() and (decode(to_simplex(x)) == tokens).all())
    torch.testing.assert_close(SPACE.projx(x), x, rtol=0, atol=0)


def test_letters_are_drawn_as_often_as_their_squares_say(soft):
    """Each count is binomial; lengths of the rows do not matter, and vertices give their letters."""
    x, n = soft(1, 6, 5, 0), 20_000
    x[0, 0] = torch.tensor([0.0, 1, 0, 0, 0])
    x[0, 1] = torch.tensor([0.6, 0, 0, 0.8, 0])
    random = torch.Generator().manual_seed(0)
    drawn = sample_tokens((3 * x).expand(n, -1, -1), random)
    p = x[0].square()
    shares = torch.nn.functional.one_hot(drawn, 5).double().mean(0)
    assert bool(((shares - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all())
    assert bool((drawn[:, 0] == 1).all())
    pairs = (5 * drawn[:, 2] + drawn[:, 3]).bincount(minlength=25) / n  # positions are independent
    joint = torch.outer(p[2], p[3]).flatten()
    assert bool(((pairs - joint).abs() <= 5 * (joint * (1 - joint) / n).sqrt()).all())
    again = sample_tokens(x.expand(n, -1, -1), torch.Generator().manual_seed(0))
    assert torch.equal(again, drawn)
    assert not torch.equal(sample_tokens(x.expand(n, -1, -1), random), drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_best_candidate_is_the_most_probable_of_all_strings(soft, dtype):
    """Brute force: of all strings, the one that any of the candidates gives the highest probability."""
    p = to_simplex(soft(5 * 3, 2, 4, 0)).unflatten(0, (5, 3))
    strings = list(itertools.product(range(4), repeat=2))
    for row, found in zip(p.tolist(), decode_best(p.to(dtype)).tolist(), strict=True):
        likelihood = {
            string: max(
                math.prod(q[letter] for q, letter in zip(candidate, string, strict=True)) for candidate in row
            )
            for string in strings
        }
        assert tuple(found) == max(likelihood, key=likelihood.__getitem__)
    assert torch.equal(decode_best(to_sphere(p)), decode_best(p))
    assert torch.equal(decode_best(p[:, :1]), decode(p[:, 0]))
    assert torch.equal(decode_best(p.flatten(0, 1)), decode_best(p.flatten(0, 1)[None])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_of_candidates_that_are_probable_enough(dtype):
    """Strings of two letters; the probabilities of each candidate's own are written beside."""
    sure = torch.tensor([[0.84, 0.16], [0.16, 0.84]])  # 0.7056
    surer = torch.tensor([[0.01, 0.99], [0.01, 0.99]])  # 0.9801
    unsure = torch.tensor([[0.7, 0.3], [0.99, 0.01]])  # 0.693
    cases = {
        (sure, surer): [0, 1],
        (surer, sure): [1, 1],
        (unsure, sure, surer): [0, 1],
        (unsure, surer): [1, 1],
        (unsure, unsure.flip(1)): [0, 0],  # equals: the first
    }
    for candidates, expected in cases.items():
        assert decode_best(torch.stack(candidates).to(dtype), 0.7).tolist() == expected
    assert decode_best(torch.stack([sure, surer]).to(dtype)).tolist() == [1, 1]


@pytest.mark.parametrize("enough", [1.0, 0.7])
def test_the_best_of_long_strings_whose_probabilities_underflow(enough):
    p = torch.full((3, 4_096, 2), 0.5)
    p[1] = torch.tensor([0.4, 0.6])
    assert decode_best(p, enough).tolist() == [1] * 4_096


@pytest.mark.parametrize("enough", [0.0, -1.0, 1.1, math.nan])
def test_probabilities_that_are_none_are_refused(enough):
    with pytest.raises(ValueError, match=r"enough must lie in \(0, 1\], got"):
        decode_best(torch.full((2, 3, 4), 0.25), enough)


@pytest.mark.parametrize("tokens", [[[0, 4]], [[-1, 2]]])
def test_tokens_outside_the_alphabet_are_refused(tokens):
    with pytest.raises(ValueError, match=r"tokens must lie in 0\.\.3, got (4|-1)"):
        onehot_to_sphere(torch.tensor(tokens), 4)


@pytest.mark.parametrize("tokens", [torch.rand(5, 6), torch.rand(5, 6) > 0])
def test_what_is_no_integer_is_no_token(tokens):
    with pytest.raises(ValueError, match=f"must be integers, got {tokens.dtype}"):
        check_tokens(tokens, 4)


def test_different_letters_are_a_right_angle_apart(strings):
    tokens = strings(2, 12, 4)
    x = onehot_to_sphere(tokens, 4)
    differences = int((tokens[0] != tokens[1]).sum())
    assert float(SPACE.dist(x[0], x[1])) == pytest.approx(math.pi / 2 * math.sqrt(differences))


def test_laws_hold_inside_the_orthant(soft):
    check_manifold(SPACE, soft(12, 5, 4, 0), soft(12, 5, 4, 1))


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_drift_obeys_its_laws_inside_the_orthant(kernel, soft):
    check_drift(SPACE, kernel, soft(5, 3, 4, 0), soft(11, 3, 4, 1))


def test_geodesics_between_points_stay_in_the_orthant(strings, soft):
    corners = onehot_to_sphere(strings(40, 6, 4), 4).double()
    for x, y in ((corners[:20], corners[20:]), (corners[:20], soft(20, 6, 4))):
        for t in (0.1, 0.5, 0.9):
            at = PRODUCT.expmap(x, t * SPACE.logmap(x, y))
            assert float(at.min()) > -1e-15


def nearest_by_brute_force(x: Tensor) -> Tensor:
    """Angles from unit vectors x [n, 3] to the nearest point of the orthant, to within 0.01."""
    return Sphere().cdist(x, orthant_grid(0.01)).amin(dim=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: sum(a * a for a in v) > 1e-3))
def test_projection_is_the_nearest_point_of_the_orthant(v):
    x = torch.nn.functional.normalize(torch.tensor([v], dtype=torch.float64), dim=-1)
    p = SPACE.projx(x)
    assert float(p.min()) >= 0
    assert float(p.norm()) == pytest.approx(1)
    distance, best = float(Sphere().dist(x, p)), float(nearest_by_brute_force(x))
    assert distance <= best + 1e-12
    assert distance >= best - 0.02


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([-0.5, -0.1, -0.8], [0.0, 1.0, 0.0]),
        ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
        ([-1.0, 0.0, -1.0], [0.0, 1.0, 0.0]),
        ([3e-30, -1.0, 4e-30], [0.6, 0.0, 0.8]),
        ([-0.0, 3.0, 4.0], [0.0, 0.6, 0.8]),
    ],
)
def test_projection_of_awkward_rows(row, expected):
    torch.testing.assert_close(SPACE.projx(torch.tensor([row])), torch.tensor([expected]))


def test_steps_that_leave_the_orthant_end_at_its_nearest_point(soft):
    x = soft(300, 1, 3)
    generator = torch.Generator().manual_seed(2)
    u = SPACE.proju(x, torch.randn(x.shape, generator=generator, dtype=torch.float64))
    target, free = SPACE.expmap(x, u), PRODUCT.expmap(x, u)
    outside = (free < 0).any(-1)[:, 0]
    assert 0.2 < float(outside.double().mean()) < 0.9
    assert float(target.min()) >= 0
    torch.testing.assert_close(target.norm(dim=-1), torch.ones(300, 1, dtype=torch.float64))
    torch.testing.assert_close(target[~outside], free[~outside], rtol=0, atol=1e-15)
    distance, best = Sphere().dist(free, target)[:, 0], nearest_by_brute_force(free[:, 0])
    assert bool((distance <= best + 1e-12).all() and (distance >= best - 0.02).all())


def test_odds_of_letters_change_one_way_along_a_step(soft):
    """A letter pushed out stays out, where reflection at the border would bring it back."""
    x = soft(50, 2, 6)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    u = SPACE.proju(x, noise)
    u = u / u.norm(dim=-1, keepdim=True)
    t = torch.linspace(0, math.pi / 2 - 1e-6, 200, dtype=torch.float64)[:, None, None, None]
    p = to_simplex(SPACE.expmap(x, t * u))
    repelled = (u / x).argmin(-1, keepdim=True).expand(200, -1, -1, 1)
    share = p.gather(-1, repelled)
    assert bool((share.diff(dim=0) <= 1e-14).all())
    assert bool((share[-1] == 0).all())
    assert bool((PRODUCT.expmap(x, t * u).square().gather(-1, repelled).diff(dim=0) > 1e-6).any())


def test_points_are_sequences():
    with pytest.raises(ValueError, match=r"FisherRao\(\) has points of 2 axes"):
        SPACE.cdist(torch.ones(3, 4), torch.ones(3, 4))
    assert SPACE.injectivity_radius == math.pi


def steps(soft, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Points, steps of about 1 rad at every position, and which positions leave the orthant."""
    x = soft(40, 3, 4).to(dtype)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)
    u = SPACE.proju(x, noise)
    u = u / u.norm(dim=-1, keepdim=True)
    return x, u, (PRODUCT.expmap(x, u) < 0).any(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_the_loss_is_the_step_and_at_the_border_the_part_that_is_taken(dtype, soft):
    x, u, leaves = steps(soft, dtype)
    assert 0.2 < float(leaves.double().mean()) < 0.9
    x.requires_grad_()
    loss = drift_loss(SPACE, x, u, max_step=3.0)
    (gradient,) = torch.autograd.grad(loss, x)
    gradient = -len(x) / 2 * gradient
    tol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(gradient[~leaves], u[~leaves], rtol=tol, atol=tol)
    # In float64, through the distance to where the step ends, in the tangent space.
    exact = x.detach().double().requires_grad_()
    target = SPACE.expmap(exact.detach(), u.double())
    expected = SPACE.dist(exact, target).square().mean()
    torch.testing.assert_close(loss.double(), expected, rtol=tol, atol=tol)
    (slope,) = torch.autograd.grad(expected, exact)
    slope = SPACE.proju(exact.detach(), -len(x) / 2 * slope)
    torch.testing.assert_close(gradient.double(), slope, rtol=10 * tol, atol=10 * tol)
    assert not torch.allclose(gradient[leaves], u[leaves], atol=0.01)


def test_a_letter_at_probability_zero_is_not_pushed_further():
    x = torch.tensor([[[0.0, 0.6, 0.8]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(drift_loss(SPACE, x, torch.tensor([[[-0.5, 0.0, 0.0]]])), x)
    assert float(gradient.abs().max()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_automatic_lengthscales_are_the_same_in_both_precisions(dtype, soft):
    x = soft(50, 3, 4)
    r = torch.stack([PRODUCT.dist(x[i], x) for i in range(50)])
    others = ~torch.eye(50, dtype=torch.bool)
    nearest = r.masked_fill(~others, 9).amin(1).median()
    expected = math.sqrt(float(nearest) * float(r[others].median()))
    assert auto_lengthscale(SPACE, x.to(dtype)) == pytest.approx(expected, rel=1e-5)


def test_folding_is_an_isometry_and_keeps_gradients_at_the_vertices():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    x = abs_normalize(h)
    assert bool((x >= 0).all())
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(50, dtype=torch.float64))

    near = torch.tensor([1.0, 1e-4, 2e-4], dtype=torch.float64)  # all but at the first vertex
    singular = torch.linalg.svdvals(torch.autograd.functional.jacobian(abs_normalize, near))
    torch.testing.assert_close(singular[:2], torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0)

    logits = 2 * near.log()
    root = torch.autograd.functional.jacobian(lambda u: u.softmax(-1).sqrt(), logits)
    assert float(torch.linalg.svdvals(root)[0]) < 2e-4  # the control: nothing moves
