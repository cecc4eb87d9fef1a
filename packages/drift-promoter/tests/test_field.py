"""The fields of whole sequences and of stretches: equal to brute force in float64, and lawful."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from drift_core import Batch, Euclidean, Field, KernelField, Laplace, Power, drift_loss
from drift_core.lengthscale import parse_lengthscales
from drift_promoter.data import Windows, load
from drift_promoter.field import WholeField
from drift_promoter.metrics import kmer_correlation, kmer_counts
from drift_promoter.places import draw_places, draw_signals
from drift_promoter.similarity import Similarity, features
from drift_promoter.stretches import Repel, StretchField
from drift_simplex import CategoricalField, abs_normalize, decode
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ONE = parse_lengthscales("0.7")
LETTERS = CategoricalField(4, Laplace, ONE, product=True)
INNER = {
    "spherical": CategoricalField(4, Laplace, ONE),
    "euclidean": KernelField(Power(Euclidean()), Laplace, ONE),
}
ALIKE = Similarity(Laplace(0.8))


def windows(n: int, length: int, margin: int = 3, seed: int = 0) -> Windows:
    """Random promoters on both strands, with random signals."""
    rng = np.random.default_rng(seed)
    width = length + 2 * margin
    bases = rng.integers(4, size=(n, width), dtype=np.uint8)
    signal = rng.exponential(size=(n, width, 2)).astype(np.float16)
    return Windows(bases, signal, ["1"] * n, np.arange(n) * 100, ["+-"[i % 2] for i in range(n)], margin)


def soft(n: int, length: int, seed: int = 0) -> Tensor:
    """Points inside the orthant."""
    logits = 2 * torch.randn(n, length, 4, generator=Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(dim=-1).sqrt()


def spelled(points: Tensor) -> Tensor:
    """One-hot points of the likeliest letters, point by point."""
    rows = [[float(value == max(row)) for value in row] for row in points.flatten(0, -2).tolist()]
    return torch.tensor(rows, dtype=torch.float64).view_as(points)


def blurred(tokens: Tensor, share: float = 0.3) -> Tensor:
    """Points inside the orthant whose likeliest letters are the tokens."""
    return ((1 - share) * torch.nn.functional.one_hot(tokens, 4).double() + share / 4).sqrt()


def signals(n: int, length: int, seed: int = 0) -> Tensor:
    return torch.rand(n, length, 2, generator=Generator().manual_seed(seed), dtype=torch.float64)


def everywhere(data: Windows, stretch: int, starts: Sequence[int]) -> Tensor:
    """Every stretch of every window that begins at one of `starts`."""
    return torch.tensor([[row, 0, start] for row in range(len(data)) for start in starts])


def read(data: Windows, place: Tensor) -> tuple[Tensor, Tensor, int]:
    """One-hot letters [L, 4] and signal [L, 2] of the window at a place, base by base, and the start."""
    row, shift, start = place.tolist()
    first = data.margin + (-shift if data.strand[row] == "-" else shift)
    at = range(first, first + data.length)
    letters = [[float(data.bases[row, i] == k) for k in range(4)] for i in at]
    signal = [[float(data.signal[row, i, t]) for t in range(2)] for i in at]
    return *(torch.tensor(part, dtype=torch.float64) for part in (letters, signal)), start


def log_alike(a: Tensor, b: Tensor) -> float:
    """-distance / 0.8, what `ALIKE` says of two binned signals."""
    u, v = (features(signal.flatten()[None]) for signal in (a, b))
    return -float((u - v).norm()) / 0.8


def near_whole(a: Tensor, b: Tensor) -> float:
    """Log-likeness of two signals of 64 positions, in 32 bins."""
    return log_alike(*((s[0::2] + s[1::2]) / 2 for s in (a, b)))


def bins_around(signal: Tensor, start: int, width: int) -> Tensor:
    """Means over four positions of the signal that is at most 64 bases from a stretch, 0 outside."""
    outside, at = torch.zeros(2, dtype=torch.float64), range(start - 64, start + width + 64)
    around = torch.stack([signal[i] if 0 <= i < len(signal) else outside for i in at])
    return torch.stack([part.mean(0) for part in around.split(4)])


def angles(x: Tensor, y: Tensor) -> Tensor:
    return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))


LOG_KERNELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spherical": lambda x, y: -angles(x, y).norm(dim=-1) / 0.7,
    "euclidean": lambda x, y: -(x - y).flatten(1).norm(dim=-1) / 0.7,
    "product": lambda x, y: -angles(x, y).sum(dim=-1) / 0.7,
}


def score(geometry: str, x: Tensor, references: Sequence[Tensor], log_weight: Sequence[float]) -> Tensor:
    """Gradient at one x of log sum_j exp(w_j) k(x, y_j) by autograd, along the orthant if there is one."""
    leaf = x.clone().requires_grad_()
    weights = torch.tensor(log_weight, dtype=torch.float64)
    logits = LOG_KERNELS[geometry](leaf, torch.stack([*references])) + weights
    (gradient,) = torch.autograd.grad(logits.logsumexp(0), leaf)
    return gradient if geometry == "euclidean" else gradient - (gradient * x).sum(-1, keepdim=True) * x


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("geometry", ["spherical", "euclidean"])
def test_whole_sequences_follow_the_gradients_of_their_log_densities(geometry, conditional, generator):
    """log sum_j k_signal(s, s_j) k(x, y_j) of the data, less that of the other samples."""
    data, pool, c = windows(12, 64), soft(7, 64), signals(7, 64)
    own = torch.tensor([2, 5, 6])
    places = draw_places(data, 64)(15, generator)
    known = {"condition": c[own], "model_condition": c} if conditional else {}
    field = WholeField(INNER[geometry], data, ALIKE if conditional else None)
    terms = field(Batch(pool[own], places, pool, own, **known))

    letters, there, _ = zip(*(read(data, place) for place in places), strict=True)
    near = near_whole if conditional else lambda a, b: 0.0
    for row, i in enumerate(own.tolist()):
        others = [j for j in range(7) if j != i]
        attraction = score(geometry, pool[i], letters, [near(c[i], s) for s in there])
        repulsion = score(geometry, pool[i], pool[others], [near(c[i], c[j]) for j in others])
        torch.testing.assert_close(terms.attraction[row], attraction, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(terms.repulsion[row], repulsion, rtol=1e-8, atol=1e-9)


def by_brute_force(
    field: StretchField, x: Tensor, places: Tensor, pool: Tensor, own: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attraction and repulsion, stretch by stretch; samples are x = pool[own], with conditions c[own]."""
    w, L = field.length, field.data.length
    starts = [*range(0, L - w, w // 2), L - w]
    if c is None and w <= 10:
        places = everywhere(field.data, w, range(L - w + 1))
    real = [read(field.data, place) for place in places]
    repelling = [(k, s) for k in range(len(pool)) for s in starts]
    repels = pool if field.repel == "points" else spelled(pool)
    every = math.ceil(len(repelling) / field.most_repelling)
    while math.gcd(every, len(starts)) > 1:
        every += 1
    sums, covers = torch.zeros(2, *x.shape, dtype=torch.float64), torch.zeros(L, 1)

    def near(a: Tensor, start: int, b: Tensor, there: int) -> float:
        return log_alike(bins_around(a, start, w), bins_around(b, there, w))

    for (row, i), start in itertools.product(enumerate(own.tolist()), starts):
        here = slice(start, start + w)
        excluded = {(i, start)} if field.repel == "points" else {(i, s) for s in starts}
        others = [each for each in repelling[::every] if each not in excluded]
        to_data = [0.0 if c is None else near(c[i], start, signal, s) for _, signal, s in real]
        to_model = [0.0 if c is None else near(c[i], start, c[k], s) for k, s in others]
        letters = [y[s : s + w] for y, _, s in real]
        theirs = [repels[k, s : s + w] for k, s in others]
        sums[0, row, here] += score("product", x[row, here], letters, to_data)
        sums[1, row, here] += score("product", x[row, here], theirs, to_model)
        covers[here] += 1 / len(own)
    assert covers.min() > 0.99
    return sums[0] / covers, sums[1] / covers


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("repel", ["points", "letters"])
@pytest.mark.parametrize("most", [16_384, 10], ids=["all", "thinned"])
@pytest.mark.parametrize(
    ("length", "stretch"), [(12, 4), (11, 4), (13, 5), (9, 3), (7, 2), (6, 6), (250, 101)], ids=str
)
def test_positions_follow_the_mean_of_all_stretches_over_them(
    length, stretch, most, repel, conditional, generator
):
    data, pool = windows(5, length), soft(4, length)
    c = signals(4, length) if conditional else None
    own = torch.tensor([1, 2])
    places = draw_places(data, stretch)(9, generator)
    field = StretchField(LETTERS, data, ALIKE if conditional else None, stretch, repel, most)
    known = {} if c is None else {"condition": c[own], "model_condition": c}
    terms = field(Batch(pool[own], places, pool, own, **known))
    attraction, repulsion = by_brute_force(field, pool[own], places, pool, own, c)
    torch.testing.assert_close(terms.attraction, attraction, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(terms.repulsion, repulsion, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("repel", ["points", "letters"])
def test_every_position_of_the_model_repels_however_few_of_its_stretches_do(repel):
    """A sample has 5 stretches; if every 5th of all repelled, those would be the first ones."""
    data, pool = windows(6, 12, margin=0), soft(20, 12)
    field = StretchField(LETTERS, data, None, 4, repel, most_repelling=20)
    x, places = soft(2, 12, seed=1), everywhere(data, 4, [0])
    before = field(Batch(x, places, pool, None)).repulsion
    for position in range(12):
        other = pool.clone()
        other[:, position] = other[:, position].roll(1, dims=-1)
        assert float((field(Batch(x, places, other, None)).repulsion - before).abs().max()) > 1e-4


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("most", [16_384, 7], ids=["all", "thinned"])
def test_samples_repel_as_their_letters_and_only_one_another(most, conditional, generator):
    data, pool, c = windows(5, 12), soft(4, 12), signals(4, 12)
    places, own = draw_places(data, 4)(9, generator), torch.arange(4)
    field = StretchField(LETTERS, data, ALIKE if conditional else None, 4, "letters", most)

    def repulsion(model: Tensor, own: Tensor | None) -> Tensor:
        given = {"condition": c, "model_condition": c} if conditional else {}
        return field(Batch(pool, places, model, own, **given)).repulsion

    among = repulsion(pool, own)
    torch.testing.assert_close(repulsion(spelled(pool), own), among, rtol=0, atol=0)
    for i in range(4):
        other = pool.clone()
        other[i] = pool[i].roll(1, dims=-1)
        differs = (repulsion(other, own) - among).abs().amax((1, 2)) > 1e-4
        assert differs.tolist() == [k != i for k in range(4)]
    alone = field(Batch(pool[:1], places, pool[:1], own[:1])).repulsion
    assert not alone.any()
    torch.testing.assert_close(repulsion(pool, own + 4), repulsion(pool, None), rtol=0, atol=0)
    assert float((repulsion(pool, None) - among).abs().max()) > 1e-2


@pytest.mark.parametrize("conditional", [False, True])
def test_vertices_are_drawn_as_their_letters(conditional, generator):
    """Counted, all stretches but each itself repel, as points do; else those of other samples, as letters."""
    data, tokens, c = windows(5, 12), torch.randint(4, (6, 12), generator=generator), signals(6, 12)
    tokens[4] = tokens[3]
    pool, places = blurred(tokens, 0.0), draw_places(data, 4)(9, generator)
    own = torch.tensor([3, 0, 5])
    x = blurred(tokens[own], 0.2)
    similarity = ALIKE if conditional else None
    given = {"condition": c[own], "model_condition": c} if conditional else {}

    def repulsion(repel: Repel, own: Tensor | None) -> Tensor:
        field = StretchField(LETTERS, data, similarity, 4, repel, 16_384)
        return field(Batch(x, places, pool, own, **given)).repulsion

    for index in (own, None, torch.tensor([3, -1, 6])):
        expected = repulsion("letters" if conditional else "points", index)
        torch.testing.assert_close(repulsion("drawn", index), expected, rtol=1e-9, atol=1e-10)
    assert float((repulsion("drawn", own) - repulsion("drawn", None)).abs().max()) > 1e-3


def test_words_count_by_the_kind_of_the_signal_around_them(generator):
    """Brute force over all words: those of another kind weigh 1e-3, and a stretch not itself."""
    w, starts, L = 4, [0, 2, 4, 6, 8, 9], 13
    data, c = windows(9, L, margin=0), signals(5, L)
    data.signal[:4] *= np.float16(0.05)
    c[:2] *= 0.05
    tokens = torch.randint(4, (5, L), generator=generator)
    pool, own = blurred(tokens, 0.0), torch.tensor([3, 0])
    x = blurred(tokens[own], 0.2)
    field = StretchField(LETTERS, data, ALIKE, w, "drawn", kinds=3)
    kinds = field.signal_kinds
    assert kinds is not None
    assert len(kinds) == 3
    there, here = kinds.of(data.signals(torch.arange(9))), kinds.of(c)
    assert len(here.unique()) > 1
    places = draw_places(data, w)(9, generator)
    terms = field(Batch(x, places, pool, own, condition=c[own], model_condition=c))
    letters = blurred(data.tokens(torch.arange(9)), 0.0)
    real = [
        (letters[row, s : s + w], int(there[row, max(i for i, first in enumerate(starts) if first <= s)]))
        for row, s in itertools.product(range(9), range(L - w + 1))
    ]
    sums, covers = torch.zeros(2, *x.shape, dtype=torch.float64), torch.zeros(L, 1)
    sizes = []
    for (row, i), (at, s) in itertools.product(enumerate(own.tolist()), enumerate(starts)):
        kind = int(here[i, at])

        def near(other: int, kind: int = kind) -> float:
            return 0.0 if other == kind else math.log(1e-3)

        others = [(k, b, t) for k in range(5) for b, t in enumerate(starts) if (k, t) != (i, s)]
        cut, to_data = x[row, s : s + w], [near(k) for _, k in real]
        to_model = [near(int(here[k, b])) for k, b, _ in others]
        sums[0, row, s : s + w] += score("product", cut, [y for y, _ in real], to_data)
        theirs = [pool[k, t : t + w] for k, _, t in others]
        sums[1, row, s : s + w] += score("product", cut, theirs, to_model)
        covers[s : s + w] += 1 / len(own)
        logs = LOG_KERNELS["product"](cut, torch.stack([y for y, _ in real]))
        weight, kernel = torch.tensor(to_data).exp(), logs.exp()
        sizes.append(float((weight * kernel).sum().square() / (weight * kernel.square()).sum()))
    torch.testing.assert_close(terms.attraction, sums[0] / covers, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(terms.repulsion, sums[1] / covers, rtol=1e-6, atol=1e-8)
    found = field.diagnostics(Batch(x, draw_places(data, w)(9, generator), condition=c[own]))["ess"]
    assert found == pytest.approx(sum(sizes) / len(sizes))


@pytest.mark.parametrize("conditional", [False, True])
def test_softness_repels_as_often_as_its_letters_are_drawn(conditional, generator):
    """One place, so that a stretch is a sample: scores of the table of all words by their probabilities."""
    data, pool = windows(5, 4, margin=0), soft(3000, 4)
    x, places, c = soft(2, 4, seed=1), draw_places(data, 4)(9, generator), signals(1, 4)
    given = {"condition": c.expand(2, -1, -1), "model_condition": c.expand(3000, -1, -1)}
    field = StretchField(LETTERS, data, ALIKE if conditional else None, 4, "drawn", 16_384)

    def repulsion(step: int) -> Tensor:
        return field(Batch(x, places, pool, None, step, **(given if conditional else {}))).repulsion

    words = list(itertools.product(range(4), repeat=4))
    p = pool.square()
    shares = [math.prod(p[:, i, k] for i, k in enumerate(word)).mean().log() for word in words]
    onehot = blurred(torch.tensor(words), 0.0)
    expected = torch.stack([score("product", point, [*onehot], [float(s) for s in shares]) for point in x])
    found = torch.stack([repulsion(step) for step in range(64)])
    error = (found.mean(0) - expected).abs() / (found.std(0) / 8 + 1e-3)
    assert float(error.max()) < 5
    assert torch.equal(found[3], repulsion(3))  # on every process, and in a run that goes on
    assert not torch.equal(found[3], found[4])


@pytest.mark.parametrize("conditional", [False, True])
def test_points_repel_all_stretches_but_themselves(conditional):
    """A stretch alone is not repelled; with all of its sample, only where they are no points of its own."""
    data, pool, c = windows(5, 12), soft(3, 12), signals(3, 12)
    field = StretchField(LETTERS, data, ALIKE if conditional else None, 4)
    places, own = everywhere(data, 4, [0]), torch.arange(3)
    given = {"condition": c, "model_condition": c} if conditional else {}
    among = field(Batch(pool, places, pool, own, **given)).repulsion
    for other in (pool.clone(), pool.clone()):
        other[0, :4] = other[0, :4].roll(1, dims=-1)
        again = field(Batch(pool, places, other, own, **given)).repulsion
        assert (again != among).any(dim=2).any(dim=1).all()
    single = StretchField(LETTERS, windows(5, 4), None, 4)
    x = pool[:1, :4]
    assert not single(Batch(x, places, x, own[:1])).repulsion.any()
    assert single(Batch(x, places, x, None)).repulsion.norm() < 1e-6  # no direction to where it is
    torch.testing.assert_close(
        field(Batch(pool, places, pool, own + 3, **given)).repulsion,
        field(Batch(pool, places, pool, None, **given)).repulsion,
        rtol=0,
        atol=0,
    )


def test_samples_like_the_data_are_not_driven_from_their_own_composition():
    """Each of 4 samples and of 3 windows has its own GC content, so that what attracts a sample and what the
    others repel it with have one law: the mean drift along its own content is zero, unless it repels itself.
    """
    rng, rows = np.random.default_rng(0), torch.arange(1400)
    rich = rng.random((1400, 16)) < rng.random((1400, 1))
    data = windows(1400, 16, margin=0)
    data.bases[:] = np.where(rich, rng.integers(1, 3, rich.shape), rng.choice([0, 3], rich.shape))
    field = StretchField(LETTERS, data, ALIKE, 4, "letters")
    to_gc = torch.tensor([-1, 1, 1, -1], dtype=torch.float64)
    drifts: dict[str, list[float]] = {"others": [], "all": []}
    for group in rows.split(7):
        tokens, c = data.tokens(group[:4]), data.signals(group[:4]).double()
        x, given = blurred(tokens), {"condition": c, "model_condition": c}
        places = torch.tensor([[row, 0, start] for row in group[4:] for start in range(0, 13, 2)])
        for name, own in (("others", torch.arange(4)), ("all", None)):
            drift = (field(Batch(x, places, x, own, **given)).field @ to_gc).mean(1)
            drifts[name].append(float((to_gc[tokens].mean(1) * drift).mean()))
    mean = {name: np.mean(values) / (np.std(values) / math.sqrt(200)) for name, values in drifts.items()}
    assert abs(mean["others"]) < 3  # standard errors
    assert mean["all"] < -10


@pytest.mark.parametrize("repel", ["points", "letters", "drawn"])
@pytest.mark.parametrize("most", [16_384, 40])
def test_how_many_stretches_are_evaluated_at_once_does_not_matter(most, repel, generator, monkeypatch):
    data, pool, c = windows(30, 40), soft(6, 40), signals(6, 40)
    places, own = draw_places(data, 8)(50, generator), torch.arange(6)
    field = StretchField(LETTERS, data, ALIKE, 8, repel, most)
    given = {"condition": c, "model_condition": c}
    whole = field(Batch(pool, places, pool, own, **given))
    for pairs in (1, 350, 3000):
        monkeypatch.setattr("drift_promoter.stretches._PAIRS", pairs)
        torch.testing.assert_close(
            field(Batch(pool, places, pool, own, **given)), whole, rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("kind", ["whole", "stretches"])
def test_lengthscales_are_those_of_the_progress(kind, generator):
    data, pool, own = windows(9, 12), soft(4, 12), torch.arange(4)
    places = draw_places(data, 4)(12, generator)

    def made(text: str) -> Field:
        whole, letters = (
            CategoricalField(4, Laplace, parse_lengthscales(text), product=product)
            for product in (False, True)
        )
        fields = WholeField(whole, data, None), StretchField(letters, data, None, 4)
        return fields[kind == "stretches"]

    annealed = made("3:0.3")
    for progress, text in ((0.0, "3"), (1.0, "0.3")):
        terms = annealed(Batch(pool, places, pool, own, progress=progress))
        torch.testing.assert_close(terms, made(text)(Batch(pool, places, pool, own)))
        size = annealed.diagnostics(Batch(pool, places, progress=progress))["ess"]
        assert size == pytest.approx(made(text).diagnostics(Batch(pool, places))["ess"])


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", ["whole", "points", "letters"])
def test_equal_sets_of_data_and_samples_exert_no_drift(kind, conditional):
    """The pool spells the windows themselves, and the data are all stretches that the pool is cut into."""
    length = 14 if conditional else 4  # without conditions all words of the data attract
    data, starts = windows(8, length, margin=0), range(0, length - 3, 2)
    similarity = ALIKE if conditional else None
    if kind == "whole":
        field, places = WholeField(INNER["spherical"], data, similarity), everywhere(data, length, [0])
    else:
        field, places = StretchField(LETTERS, data, similarity, 4, kind), everywhere(data, 4, starts)
    rows = torch.arange(8)
    pool = blurred(data.tokens(rows), 0.3 if kind == "letters" else 0.0)
    known = {"condition": signals(5, length), "model_condition": data.signals(rows).double()}
    terms = field(Batch(soft(5, length), places, pool, None, **(known if conditional else {})))
    assert float(terms.attraction.norm()) > 1
    assert float(terms.field.abs().max()) < 1e-11


@pytest.mark.parametrize("kind", ["whole", "points", "letters"])
def test_swapping_data_and_samples_flips_the_drift(kind):
    sides = [windows(8, 14, margin=0, seed=seed) for seed in (1, 2)]
    rows, starts = torch.arange(8), [0, 2, 4, 6, 8, 10]

    def drift(data: Windows, model: Windows) -> Tensor:
        if kind == "whole":
            field, places = WholeField(INNER["spherical"], data, ALIKE), everywhere(data, 14, [0])
        else:
            field, places = StretchField(LETTERS, data, ALIKE, 4, kind), everywhere(data, 4, starts)
        pool = blurred(model.tokens(rows), 0.3 if kind == "letters" else 0.0)
        there = model.signals(rows).double()
        c = signals(5, 14)
        return field(Batch(soft(5, 14), places, pool, None, condition=c, model_condition=there)).field

    a, b = sides
    assert float(drift(a, b).norm()) > 0.1
    torch.testing.assert_close(drift(a, b), -drift(b, a), rtol=1e-9, atol=1e-11)


def kept(data: Windows, rows: slice) -> Windows:
    """Some of the windows."""
    chosen = (part[rows] for part in (data.bases, data.signal, data.chrom, data.tss, data.strand))
    return Windows(*chosen, data.margin)


def test_only_references_of_the_same_signal_count_if_likeness_is_strict():
    """Two kinds of windows with two signals: the drift of either is that towards its own kind alone."""
    data, x = windows(10, 6, margin=0), soft(3, 6)
    data.signal[:] = np.where(np.arange(10) < 4, 0.0, 1.0)[:, None, None]
    places, own = everywhere(data, 6, [0]), torch.arange(3)
    strict = StretchField(LETTERS, data, Similarity(Laplace(1e-3)), 6)
    c = torch.tensor([0.0, 1.0, 1.0]).double()[:, None, None].expand(3, 6, 2)
    given = strict(Batch(x, places, x, own, condition=c, model_condition=c))
    for samples, kind in ((own[:1], slice(4)), (own[1:], slice(4, 10))):
        some, plain = x[samples], StretchField(LETTERS, kept(data, kind), None, 6)
        alone = plain(Batch(some, places, some, torch.arange(len(some))))
        torch.testing.assert_close(given.attraction[samples], alone.attraction, rtol=1e-8, atol=1e-9)
        if len(some) > 1:  # the other one has none of its kind to be repelled from
            torch.testing.assert_close(given.repulsion[samples], alone.repulsion, rtol=1e-8, atol=1e-9)
        size = strict.diagnostics(Batch(some, places, condition=c[samples]))["ess"]
        assert size == pytest.approx(plain.diagnostics(Batch(some, places))["ess"])


def test_likeness_is_the_kernel_of_the_distance_between_features():
    a, b = (features(signals(n, 6, seed=n).flatten(1)) for n in (4, 5))
    found = ALIKE.log(a, b)
    assert found.shape == (4, 5)
    for i, j in itertools.product(range(4), range(5)):
        assert float(found[i, j]) == pytest.approx(-math.dist(a[i].tolist(), b[j].tolist()) / 0.8, rel=1e-6)
    assert float(ALIKE.log(a.float(), a.float()).diagonal().abs().max()) < 3e-3


def test_signals_are_alike_by_shape_rather_than_by_height():
    """Twice the height is nearer than another place, and a faint signal is near to none at all."""
    here, there = torch.zeros(2, 1, 34).double()
    here[0, 3:6], there[0, 8:11] = 1.0, 1.0
    near = features(here)
    found = features(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[3 / 5.1, 4 / 5.1, 0.5]]))
    assert float((near - features(2 * here)).norm()) < 0.5 * float((near - features(there)).norm())
    assert float((near - features(2 * here)).norm()) > 0
    assert float(features(torch.zeros(1, 34)).norm()) == 0
    assert float(features(1e-3 * here).norm()) < 0.1


def test_effective_samples_count_the_windows_that_attract(generator):
    """1 / sum_j p_j^2, averaged over the samples; 1 where one window alone is like the condition."""
    data, x, c = windows(9, 64, margin=0), soft(3, 64), signals(3, 64)
    places = draw_places(data, 64)(9, generator)
    letters, there, _ = zip(*(read(data, place) for place in places), strict=True)
    sizes = []
    for point, signal in zip(x, c, strict=True):
        weights = torch.tensor([near_whole(signal, s) for s in there], dtype=torch.float64)
        p = (LOG_KERNELS["spherical"](point, torch.stack(letters)) + weights).softmax(0)
        sizes.append(1 / float(p.square().sum()))
    whole = WholeField(INNER["spherical"], data, ALIKE)
    assert whole.diagnostics(Batch(x, places, condition=c))["ess"] == pytest.approx(sum(sizes) / 3)
    same = data.signals(torch.tensor([4])).double()
    only = WholeField(INNER["spherical"], data, Similarity(Laplace(1e-4)))
    assert only.diagnostics(Batch(x[:1], places, condition=same))["ess"] == pytest.approx(1)


def sizes_by_brute_force(x: Tensor, real: Sequence[tuple[Tensor, Tensor, int]], c: Tensor | None) -> float:
    """Mean of 1 / sum_j p_j^2 over all stretches of 4 of samples of 12."""
    sizes = []
    for sample, start in itertools.product(range(len(x)), range(0, 9, 2)):
        logits = []
        for y, signal, there in real:
            far = LOG_KERNELS["product"](x[sample, start : start + 4], y[None, there : there + 4])
            near = 0.0
            if c is not None:
                near = log_alike(bins_around(c[sample], start, 4), bins_around(signal, there, 4))
            logits.append(float(far) + near)
        sizes.append(1 / float(torch.tensor(logits, dtype=torch.float64).softmax(0).square().sum()))
    return float(np.mean(sizes))


def test_effective_samples_of_stretches_are_those_of_the_first_samples(generator, monkeypatch):
    """As many whole samples as `_PAIRS` pairs allow, but one at least."""
    data, x, c = windows(9, 12), soft(4, 12), signals(4, 12)
    places = draw_places(data, 4)(20, generator)
    field = StretchField(LETTERS, data, ALIKE, 4)
    size = lambda n: field.diagnostics(Batch(x[:n], places, condition=c[:n]))["ess"]  # noqa: E731
    first = {n: size(n) for n in (1, 2, 4)}
    assert len(set(first.values())) == 3
    for pairs, n in ((10, 1), (2 * 5 * 20, 2), (10**6, 4)):
        monkeypatch.setattr("drift_promoter.stretches._PAIRS", pairs)
        assert size(4) == pytest.approx(first[n])
    assert size(4) == pytest.approx(sizes_by_brute_force(x, [read(data, place) for place in places], c))


def test_without_conditions_effective_samples_are_of_all_words_of_the_data(generator):
    data, x = windows(9, 12), soft(4, 12)
    real = [read(data, place) for place in everywhere(data, 4, range(9))]
    batch = Batch(x, draw_places(data, 4)(2, generator))
    size = StretchField(LETTERS, data, None, 4).diagnostics(batch)["ess"]
    assert size == pytest.approx(sizes_by_brute_force(x, real, None))


def test_words_are_counted_once_however_many_windows_there_are(monkeypatch):
    data = windows(23, 12)
    monkeypatch.setattr("drift_promoter.stretches._WINDOWS", 5)
    (words,) = StretchField(LETTERS, data, None, 3).words
    rows = data.tokens(torch.arange(23)).tolist()
    found = [16 * a + 4 * b + c for row in rows for a, b, c in zip(row, row[1:], row[2:], strict=False)]
    assert words.tolist() == [float(found.count(word)) for word in range(64)]


def test_they_are_fields_of_the_training_loop():
    data = windows(9, 16)
    for field in (StretchField(LETTERS, data, ALIKE, 4), WholeField(INNER["spherical"], data, ALIKE)):
        assert isinstance(field, Field)
        assert field.manifold.point_ndim == 2


@pytest.mark.parametrize("stretch", [0, 1, 13])
def test_stretches_that_do_not_fit_are_refused(stretch):
    with pytest.raises(ValueError, match=f"2 to 12 base pairs, got {stretch}"):
        StretchField(LETTERS, windows(3, 12), None, stretch)


@pytest.mark.parametrize("n", [4, 10, 27])
def test_places_cover_all_windows_before_any_comes_again(n):
    data, draw = windows(10, 12), draw_places(windows(10, 12), 4)
    seen = draw(n, Generator().manual_seed(1))
    assert seen.shape == (n, 3)
    for i in range(0, n, 10):
        assert len(seen[i : i + 10, 0].unique()) == min(10, n - i)
    torch.testing.assert_close(draw(n, Generator().manual_seed(1)), seen)
    assert not torch.equal(draw(n, Generator().manual_seed(2)), seen)
    assert data.tokens(seen[:, 0], seen[:, 1]).shape == (n, 12)  # shifts are within the margins


def test_places_are_all_shifts_and_starts_alike():
    seen = draw_places(windows(10, 12), 4)(7 * 9 * 100, Generator().manual_seed(0))
    for column, values in ((0, range(10)), (1, range(-3, 4)), (2, range(9))):
        counts = [int((seen[:, column] == value).sum()) for value in values]
        assert sum(counts) == len(seen)
        mean = len(seen) / len(values)
        assert max(abs(count - mean) for count in counts) < 5 * math.sqrt(mean)
    assert set(draw_places(windows(10, 12, margin=0), 12)(50, Generator())[:, 1:].flatten().tolist()) == {0}


def test_conditions_are_shifted_signals_of_training_windows():
    data = windows(10, 12)
    rows = torch.arange(10)
    known = {
        signal.numpy().tobytes(): (row, shift)
        for shift in range(-3, 4)
        for row, signal in enumerate(data.signals(rows, shift))
    }
    assert len(known) == 70
    drawn = draw_signals(data)(10, Generator().manual_seed(0))
    found = [known[signal.numpy().tobytes()] for signal in drawn]
    assert sorted(row for row, _ in found) == list(range(10))
    assert len({shift for _, shift in found}) > 2
    assert torch.equal(draw_signals(data)(10, Generator().manual_seed(0)), drawn)


class Largest(TorchDispatchMode):
    """Bytes of the largest array that is made."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for array in tree_leaves(made):
            if isinstance(array, Tensor):
                self.size = max(self.size, array.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("repel", ["points", "letters", "drawn"])
def test_memory_is_linear_in_the_batch(repel, monkeypatch):
    """Each of 32 samples of 1,024 bases has 255 stretches: weights of all pairs would take 33 MB."""
    monkeypatch.setattr("drift_promoter.stretches._PAIRS", 2**20)
    data, m = windows(50, 1024), 1024
    places = draw_places(data, 8)(m, Generator().manual_seed(0))
    field = StretchField(LETTERS, data, ALIKE, most_repelling=128, repel=repel)
    largest = {}
    for n in (8, 32):
        x, c = soft(n, 1024).float(), signals(n, 1024).float()
        with Largest() as mode:
            field(Batch(x, places, x, torch.arange(n), condition=c, model_condition=c))
        largest[n] = mode.size
    assert largest[32] < 32 * 255 * m * 4 / 3
    assert largest[32] < 4.1 * largest[8]


@pytest.mark.parametrize(("length", "parallel"), [(8, False), (1024, True)])
def test_distances_of_long_sequences_concentrate_so_that_both_directions_are_one(length, parallel):
    tokens = torch.randint(4, (512, length), generator=Generator().manual_seed(1))
    x = soft(8, length)
    scale = parse_lengthscales("0.3")
    gradient, displacement = (
        CategoricalField(4, Laplace, scale, direction).attraction_to_tokens(x, tokens)
        for direction in ("gradient", "displacement")
    )
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(1), displacement.flatten(1), dim=1)
    assert bool((cosine > 0.9999).all()) is parallel


def test_free_sequences_that_follow_the_drift_come_closer_to_the_data_than_as_many_real_ones():
    """No network: the letters of 16 sequences are the parameters, and what is learnt is the field's alone."""
    data, n, steps = load("toy"), 16, 100
    scales = parse_lengthscales("1.3:0.7")
    letters = CategoricalField(4, Laplace, scales, "displacement", product=True)
    field = StretchField(letters, data.train, None)
    held_out = kmer_counts(data.test.tokens(torch.arange(len(data.test))), 4)
    random = Generator().manual_seed(0)
    rows = torch.randperm(len(data.train), generator=random)[: 10 * n].view(10, n)
    real = [kmer_correlation(kmer_counts(data.train.tokens(some), 4), held_out) for some in rows]
    h = torch.randn(n, data.train.length, 4, generator=random, requires_grad=True)
    optimizer = torch.optim.Adam([h], lr=0.05)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 2 - 2 * step / steps))
    for step in range(steps):
        x = abs_normalize(h)
        v = field(Batch(x.detach(), torch.zeros(1, 3).long(), step=step, progress=step / steps)).field
        optimizer.zero_grad()
        drift_loss(field.manifold, x, v, step_size=0.1).backward()
        optimizer.step()
        falling.step()
    assert kmer_correlation(kmer_counts(decode(abs_normalize(h.detach())), 4), held_out) > sum(real) / len(
        real
    )
