"""The fields of whole sequences, crops and k-mers: equal to brute force in float64, and lawful."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from drift_core import Batch, Euclidean, Field, KernelField, Laplace, Power, drift_loss
from drift_core.lengthscale import parse_lengthscales
from drift_promoter.clusters import ConditionClusters, fit_clusters
from drift_promoter.crop_field import CropField
from drift_promoter.crops import Crops, crop_indices
from drift_promoter.data import Windows, load
from drift_promoter.field import SequenceField
from drift_promoter.kmer_field import LONGEST_KMER, KmerField
from drift_promoter.metrics import kmer_correlation, kmer_counts
from drift_promoter.model import Decoding
from drift_promoter.similarity import Similarity, features
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
    """One-hot points of the most likely letters, point by point."""
    rows = [[float(value == max(row)) for value in row] for row in points.flatten(0, -2).tolist()]
    return torch.tensor(rows, dtype=torch.float64).view_as(points)


def blurred(tokens: Tensor, share: float = 0.3) -> Tensor:
    """Points inside the orthant whose most likely letters are the tokens."""
    return ((1 - share) * torch.nn.functional.one_hot(tokens, 4).double() + share / 4).sqrt()


def signals(n: int, length: int, seed: int = 0) -> Tensor:
    return torch.rand(n, length, 2, generator=Generator().manual_seed(seed), dtype=torch.float64)


def everywhere(data: Windows, starts: Sequence[int]) -> Tensor:
    """Indices of every crop of every window that begins at one of `starts`."""
    return torch.tensor([[row, 0, start] for row in range(len(data)) for start in starts])


def read(data: Windows, index: Tensor) -> tuple[Tensor, Tensor, int]:
    """One-hot letters [L, 4] and signal [L, 2] of the window at a crop index, base by base, and the start."""
    row, shift, start = index.tolist()
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
    """Means over four positions of the signal that is at most 64 bases from a crop, 0 outside."""
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
    indices = crop_indices(data, 64)(15, generator)
    known = {"condition": c[own], "model_condition": c} if conditional else {}
    field = SequenceField(INNER[geometry], data, ALIKE if conditional else None)
    terms = field(Batch(pool[own], indices, pool, own, **known))

    letters, there, _ = zip(*(read(data, index) for index in indices), strict=True)
    near = near_whole if conditional else lambda a, b: 0.0
    for row, i in enumerate(own.tolist()):
        others = [j for j in range(7) if j != i]
        attraction = score(geometry, pool[i], letters, [near(c[i], s) for s in there])
        repulsion = score(geometry, pool[i], pool[others], [near(c[i], c[j]) for j in others])
        torch.testing.assert_close(terms.attraction[row], attraction, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(terms.repulsion[row], repulsion, rtol=1e-8, atol=1e-9)


def by_brute_force(
    field: CropField, x: Tensor, indices: Tensor, pool: Tensor, own: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attraction and repulsion, crop by crop; samples are x = pool[own], with conditions c[own]."""
    w, L = field.width, field.data.length
    starts = [*range(0, L - w, w // 2), L - w]
    real = [read(field.data, index) for index in indices]
    repelling = [(k, s) for k in range(len(pool)) for s in starts]
    repels = spelled(pool)
    every = math.ceil(len(repelling) / field.max_negatives)
    while math.gcd(every, len(starts)) > 1:
        every += 1
    sums, covers = torch.zeros(2, *x.shape, dtype=torch.float64), torch.zeros(L, 1)

    def near(a: Tensor, start: int, b: Tensor, there: int) -> float:
        return log_alike(bins_around(a, start, w), bins_around(b, there, w))

    for (row, i), start in itertools.product(enumerate(own.tolist()), starts):
        here = slice(start, start + w)
        others = [(k, s) for k, s in repelling[::every] if k != i]
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
@pytest.mark.parametrize("most", [16_384, 10], ids=["all", "thinned"])
@pytest.mark.parametrize(
    ("length", "width"), [(12, 4), (11, 4), (13, 5), (9, 3), (7, 2), (6, 6), (250, 101)], ids=str
)
def test_positions_follow_the_mean_of_all_crops_over_them(length, width, most, conditional, generator):
    data, pool = windows(5, length), soft(4, length)
    c = signals(4, length) if conditional else None
    own = torch.tensor([1, 2])
    indices = crop_indices(data, width)(9, generator)
    field = CropField(LETTERS, data, ALIKE if conditional else None, width, max_negatives=most)
    known = {} if c is None else {"condition": c[own], "model_condition": c}
    terms = field(Batch(pool[own], indices, pool, own, **known))
    attraction, repulsion = by_brute_force(field, pool[own], indices, pool, own, c)
    torch.testing.assert_close(terms.attraction, attraction, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(terms.repulsion, repulsion, rtol=1e-8, atol=1e-9)


def test_every_position_of_the_model_repels_however_few_of_its_crops_do():
    """A sample has 5 crops; if every 5th of all repelled, those would be the first ones."""
    data, pool = windows(6, 12, margin=0), soft(20, 12)
    field = CropField(LETTERS, data, None, 4, max_negatives=20)
    x, indices = soft(2, 12, seed=1), everywhere(data, [0])
    before = field(Batch(x, indices, pool, None)).repulsion
    for position in range(12):
        other = pool.clone()
        other[:, position] = other[:, position].roll(1, dims=-1)
        assert float((field(Batch(x, indices, other, None)).repulsion - before).abs().max()) > 1e-4


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("most", [16_384, 7], ids=["all", "thinned"])
def test_samples_repel_as_their_letters_and_only_one_another(most, conditional, generator):
    data, pool, c = windows(5, 12), soft(4, 12), signals(4, 12)
    indices, own = crop_indices(data, 4)(9, generator), torch.arange(4)
    field = CropField(LETTERS, data, ALIKE if conditional else None, 4, max_negatives=most)

    def repulsion(model: Tensor, own: Tensor | None) -> Tensor:
        given = {"condition": c, "model_condition": c} if conditional else {}
        return field(Batch(pool, indices, model, own, **given)).repulsion

    among = repulsion(pool, own)
    torch.testing.assert_close(repulsion(spelled(pool), own), among, rtol=0, atol=0)
    for i in range(4):
        other = pool.clone()
        other[i] = pool[i].roll(1, dims=-1)
        differs = (repulsion(other, own) - among).abs().amax((1, 2)) > 1e-4
        assert differs.tolist() == [k != i for k in range(4)]
    alone = field(Batch(pool[:1], indices, pool[:1], own[:1])).repulsion
    assert not alone.any()
    torch.testing.assert_close(repulsion(pool, own + 4), repulsion(pool, None), rtol=0, atol=0)
    assert float((repulsion(pool, None) - among).abs().max()) > 1e-2


@pytest.mark.parametrize("conditional", [False, True])
def test_vertices_are_sampled_as_their_letters(conditional, generator):
    data, tokens, c = windows(5, 12), torch.randint(4, (6, 12), generator=generator), signals(6, 12)
    tokens[4] = tokens[3]
    pool, indices = blurred(tokens, 0.0), crop_indices(data, 4)(9, generator)
    own = torch.tensor([3, 0, 5])
    x = blurred(tokens[own], 0.2)
    given = {"condition": c[own], "model_condition": c} if conditional else {}

    def repulsion(decoding: Decoding, own: Tensor | None) -> Tensor:
        field = CropField(LETTERS, data, ALIKE if conditional else None, 4, decoding)
        return field(Batch(x, indices, pool, own, **given)).repulsion

    for index in (own, None, torch.tensor([3, -1, 6])):
        expected = repulsion("argmax", index)
        torch.testing.assert_close(repulsion("sampled", index), expected, rtol=1e-9, atol=1e-10)
    assert float((repulsion("sampled", own) - repulsion("sampled", None)).abs().max()) > 1e-3


def clusters_of(data: Windows, width: int, count: int = 3) -> ConditionClusters:
    return fit_clusters(data, Crops(data.length, width), count, seed=0)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("L", "w"), [(13, 4), (13, 5), (9, 3), (7, 2), (6, 6)], ids=str)
def test_kmers_count_by_the_cluster_of_the_signal_around_them(L, w, known, clustered, generator):
    """Brute force over all k-mers: those of another cluster weigh 1e-3, and a crop not itself."""
    starts = [*range(0, L - w, w // 2), L - w]
    data, c = windows(9, L, margin=0), signals(5, L)
    data.signal[:4] *= np.float16(0.05)
    c[:2] *= 0.05
    tokens = torch.randint(4, (5, L), generator=generator)
    pool, own = blurred(tokens, 0.0), torch.tensor([3, 0])
    x = blurred(tokens[own], 0.2)
    clusters = clusters_of(data, w) if clustered else None
    field = KmerField(LETTERS, data, clusters, w)
    there, here = torch.zeros(9, len(starts)).long(), torch.zeros(5, len(starts)).long()
    if clusters is not None:
        assert len(clusters) == 3
        there, here = clusters.assign(data.signals(torch.arange(9))), clusters.assign(c)
        assert len(here.unique()) > 1
    itself = own if known else torch.tensor([-1, 5])
    terms = field(Batch(x, torch.empty(0), pool, itself, condition=c[own], model_condition=c))
    letters = blurred(data.tokens(torch.arange(9)), 0.0)
    real = [
        (letters[row, s : s + w], int(there[row, max(i for i, first in enumerate(starts) if first <= s)]))
        for row, s in itertools.product(range(9), range(L - w + 1))
    ]
    sums, covers = torch.zeros(2, *x.shape, dtype=torch.float64), torch.zeros(L, 1)
    sizes = []
    for (row, i), (at, s) in itertools.product(enumerate(own.tolist()), enumerate(starts)):
        cluster = int(here[i, at])

        def near(other: int, cluster: int = cluster) -> float:
            return 0.0 if other == cluster else math.log(1e-3)

        others = [(k, b, t) for k in range(5) for b, t in enumerate(starts) if not known or (k, t) != (i, s)]
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
    found = field.diagnostics(Batch(x, torch.empty(0), condition=c[own]))["ess"]
    assert found == pytest.approx(sum(sizes) / len(sizes))


def test_kmers_of_a_sample_alone_do_not_repel_it():
    """All sequences that are sampled from one crop are its own; of a longer sample other crops repel."""
    x = soft(1, 12)
    single, several = (KmerField(LETTERS, windows(5, length), width=4) for length in (4, 12))
    assert not single(Batch(x[:, :4], torch.empty(0), x[:, :4], torch.tensor([0]))).repulsion.any()
    assert single(Batch(x[:, :4], torch.empty(0), x[:, :4], None)).repulsion.any()
    assert several(Batch(x, torch.empty(0), x, torch.tensor([0]))).repulsion.any(dim=2).all()


def test_clusters_need_conditions_and_the_same_crops():
    data = windows(9, 12)
    with pytest.raises(ValueError, match=r"expected clusters of Crops\(length=12, width=6\)"):
        KmerField(LETTERS, data, clusters_of(data, 4), 6)
    with pytest.raises(ValueError, match="needs conditions"):
        KmerField(LETTERS, data, clusters_of(data, 4), 4)(Batch(soft(2, 12), torch.empty(0)))


def test_a_table_moves_with_the_field_and_is_in_no_checkpoint():
    data = windows(9, 12)
    field = KmerField(LETTERS, data, clusters_of(data, 4), 4)
    assert {name for name, _ in field.named_buffers()} == {"counts", "clusters.centres"}
    assert not field.state_dict()


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", ["crops", "k-mers"])
def test_softness_repels_as_often_as_its_letters_are_sampled(kind, conditional, generator):
    """One crop a sample: scores of the table of all k-mers by their probabilities."""
    data, pool = windows(5, 4, margin=0), soft(3000, 4)
    x, indices, c = soft(2, 4, seed=1), crop_indices(data, 4)(9, generator), signals(1, 4)
    given = {"condition": c.expand(2, -1, -1), "model_condition": c.expand(3000, -1, -1)}
    field = (
        CropField(LETTERS, data, ALIKE if conditional else None, 4, "sampled")
        if kind == "crops"
        else KmerField(LETTERS, data, clusters_of(data, 4) if conditional else None, 4)
    )

    def repulsion(step: int) -> Tensor:
        return field(Batch(x, indices, pool, None, step, **(given if conditional else {}))).repulsion

    kmers = list(itertools.product(range(4), repeat=4))
    p = pool.square()
    shares = [math.prod(p[:, i, k] for i, k in enumerate(kmer)).mean().log() for kmer in kmers]
    onehot = blurred(torch.tensor(kmers), 0.0)
    expected = torch.stack([score("product", point, [*onehot], [float(s) for s in shares]) for point in x])
    found = torch.stack([repulsion(step) for step in range(64)])
    error = (found.mean(0) - expected).abs() / (found.std(0) / 8 + 1e-3)
    assert float(error.max()) < 5
    assert torch.equal(found[3], repulsion(3))  # on every process, and in a run that goes on
    assert not torch.equal(found[3], found[4])


def test_samples_like_the_data_are_not_driven_from_their_own_composition():
    """Each of 4 samples and of 3 windows has its own GC content, so that what attracts a sample and what the
    others repel it with have one law: the mean drift along its own content is zero, unless it repels itself.
    """
    rng, rows = np.random.default_rng(0), torch.arange(1400)
    rich = rng.random((1400, 16)) < rng.random((1400, 1))
    data = windows(1400, 16, margin=0)
    data.bases[:] = np.where(rich, rng.integers(1, 3, rich.shape), rng.choice([0, 3], rich.shape))
    field = CropField(LETTERS, data, ALIKE, 4)
    to_gc = torch.tensor([-1, 1, 1, -1], dtype=torch.float64)
    drifts: dict[str, list[float]] = {"others": [], "all": []}
    for group in rows.split(7):
        tokens, c = data.tokens(group[:4]), data.signals(group[:4]).double()
        x, given = blurred(tokens), {"condition": c, "model_condition": c}
        indices = torch.tensor([[row, 0, start] for row in group[4:] for start in range(0, 13, 2)])
        for name, own in (("others", torch.arange(4)), ("all", None)):
            drift = (field(Batch(x, indices, x, own, **given)).field @ to_gc).mean(1)
            drifts[name].append(float((to_gc[tokens].mean(1) * drift).mean()))
    mean = {name: np.mean(values) / (np.std(values) / math.sqrt(200)) for name, values in drifts.items()}
    assert abs(mean["others"]) < 3  # standard errors
    assert mean["all"] < -10


@pytest.mark.parametrize("decoding", ["argmax", "sampled"])
@pytest.mark.parametrize("most", [16_384, 40])
def test_how_many_crops_are_evaluated_at_once_does_not_matter(most, decoding, generator, monkeypatch):
    data, pool, c = windows(30, 40), soft(6, 40), signals(6, 40)
    indices, own = crop_indices(data, 8)(50, generator), torch.arange(6)
    field = CropField(LETTERS, data, ALIKE, 8, decoding, most)
    given = {"condition": c, "model_condition": c}
    whole = field(Batch(pool, indices, pool, own, **given))
    for pairs in (1, 350, 3000):
        monkeypatch.setattr("drift_promoter.crop_field._PAIRS", pairs)
        torch.testing.assert_close(
            field(Batch(pool, indices, pool, own, **given)), whole, rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("kind", ["whole", "crops", "k-mers"])
def test_lengthscales_are_those_of_the_progress(kind, generator):
    data, pool, own = windows(9, 12), soft(4, 12), torch.arange(4)
    indices = crop_indices(data, 4)(12, generator)

    def made(text: str) -> Field:
        whole, letters = (
            CategoricalField(4, Laplace, parse_lengthscales(text), product=product)
            for product in (False, True)
        )
        if kind == "whole":
            return SequenceField(whole, data, None)
        return CropField(letters, data, None, 4) if kind == "crops" else KmerField(letters, data, width=4)

    annealed = made("3:0.3")
    for progress, text in ((0.0, "3"), (1.0, "0.3")):
        terms = annealed(Batch(pool, indices, pool, own, progress=progress))
        torch.testing.assert_close(terms, made(text)(Batch(pool, indices, pool, own)))
        size = annealed.diagnostics(Batch(pool, indices, progress=progress))["ess"]
        assert size == pytest.approx(made(text).diagnostics(Batch(pool, indices))["ess"])


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", ["whole", "crops", "k-mers"])
def test_equal_sets_of_data_and_samples_exert_no_drift(kind, conditional):
    """The pool spells the windows themselves, and the data are all crops that the pool is cut into."""
    length = 4 if kind == "k-mers" else 14  # k-mers are those of the data at every position
    data, starts = windows(8, length, margin=0), range(0, length - 3, 2)
    similarity = ALIKE if conditional else None
    if kind == "whole":
        field, indices = SequenceField(INNER["spherical"], data, similarity), everywhere(data, [0])
    elif kind == "crops":
        field, indices = CropField(LETTERS, data, similarity, 4), everywhere(data, starts)
    else:
        clusters = clusters_of(data, 4) if conditional else None
        field, indices = KmerField(LETTERS, data, clusters, 4), everywhere(data, starts)
    rows = torch.arange(8)
    pool = blurred(data.tokens(rows), 0.3 if kind == "crops" else 0.0)
    known = {"condition": signals(5, length), "model_condition": data.signals(rows).double()}
    terms = field(Batch(soft(5, length), indices, pool, None, **(known if conditional else {})))
    assert float(terms.attraction.norm()) > 1
    assert float(terms.field.abs().max()) < 1e-11


@pytest.mark.parametrize("kind", ["whole", "crops", "k-mers"])
def test_swapping_data_and_samples_flips_the_drift(kind):
    length = 4 if kind == "k-mers" else 14
    sides = [windows(8, length, margin=0, seed=seed) for seed in (1, 2)]
    rows, starts = torch.arange(8), [0, 2, 4, 6, 8, 10]

    def drift(data: Windows, model: Windows) -> Tensor:
        if kind == "whole":
            field, indices = SequenceField(INNER["spherical"], data, ALIKE), everywhere(data, [0])
        elif kind == "crops":
            field, indices = CropField(LETTERS, data, ALIKE, 4), everywhere(data, starts)
        else:
            field, indices = KmerField(LETTERS, data, width=4), everywhere(data, [0])
        pool = blurred(model.tokens(rows), 0.3 if kind == "crops" else 0.0)
        there = model.signals(rows).double()
        c = signals(5, length)
        batch = Batch(soft(5, length), indices, pool, None, condition=c, model_condition=there)
        return field(batch).field

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
    indices, own = everywhere(data, [0]), torch.arange(3)
    strict = CropField(LETTERS, data, Similarity(Laplace(1e-3)), 6)
    c = torch.tensor([0.0, 1.0, 1.0]).double()[:, None, None].expand(3, 6, 2)
    given = strict(Batch(x, indices, x, own, condition=c, model_condition=c))
    for samples, kind in ((own[:1], slice(4)), (own[1:], slice(4, 10))):
        some, plain = x[samples], CropField(LETTERS, kept(data, kind), None, 6)
        of_kind = everywhere(plain.data, [0])
        alone = plain(Batch(some, of_kind, some, torch.arange(len(some))))
        torch.testing.assert_close(given.attraction[samples], alone.attraction, rtol=1e-8, atol=1e-9)
        if len(some) > 1:  # the other one has none of its kind to be repelled from
            torch.testing.assert_close(given.repulsion[samples], alone.repulsion, rtol=1e-8, atol=1e-9)
        size = strict.diagnostics(Batch(some, indices, condition=c[samples]))["ess"]
        assert size == pytest.approx(plain.diagnostics(Batch(some, of_kind))["ess"])


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
    indices = crop_indices(data, 64)(9, generator)
    letters, there, _ = zip(*(read(data, index) for index in indices), strict=True)
    sizes = []
    for point, signal in zip(x, c, strict=True):
        weights = torch.tensor([near_whole(signal, s) for s in there], dtype=torch.float64)
        p = (LOG_KERNELS["spherical"](point, torch.stack(letters)) + weights).softmax(0)
        sizes.append(1 / float(p.square().sum()))
    whole = SequenceField(INNER["spherical"], data, ALIKE)
    assert whole.diagnostics(Batch(x, indices, condition=c))["ess"] == pytest.approx(sum(sizes) / 3)
    same = data.signals(torch.tensor([4])).double()
    only = SequenceField(INNER["spherical"], data, Similarity(Laplace(1e-4)))
    assert only.diagnostics(Batch(x[:1], indices, condition=same))["ess"] == pytest.approx(1)


def sizes_by_brute_force(x: Tensor, real: Sequence[tuple[Tensor, Tensor, int]], c: Tensor | None) -> float:
    """Mean of 1 / sum_j p_j^2 over all crops of 4 of samples of 12."""
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


def test_effective_samples_of_crops_are_those_of_the_first_samples(generator, monkeypatch):
    """As many whole samples as `_PAIRS` pairs allow, but one at least."""
    data, x, c = windows(9, 12), soft(4, 12), signals(4, 12)
    indices = crop_indices(data, 4)(20, generator)
    field = CropField(LETTERS, data, ALIKE, 4)
    size = lambda n: field.diagnostics(Batch(x[:n], indices, condition=c[:n]))["ess"]  # noqa: E731
    first = {n: size(n) for n in (1, 2, 4)}
    assert len(set(first.values())) == 3
    for pairs, n in ((10, 1), (2 * 5 * 20, 2), (10**6, 4)):
        monkeypatch.setattr("drift_promoter.crop_field._PAIRS", pairs)
        assert size(4) == pytest.approx(first[n])
    assert size(4) == pytest.approx(sizes_by_brute_force(x, [read(data, index) for index in indices], c))


def test_effective_samples_of_kmers_are_of_all_of_the_data():
    data, x = windows(9, 12), soft(4, 12)
    real = [read(data, index) for index in everywhere(data, range(9))]
    size = KmerField(LETTERS, data, width=4).diagnostics(Batch(x, torch.empty(0)))["ess"]
    assert size == pytest.approx(sizes_by_brute_force(x, real, None))


def test_kmers_are_counted_once_however_many_windows_there_are(monkeypatch):
    data = windows(23, 12)
    monkeypatch.setattr("drift_promoter.kmer_field._WINDOWS", 5)
    (counts,) = KmerField(LETTERS, data, width=3).counts
    rows = data.tokens(torch.arange(23)).tolist()
    found = [16 * a + 4 * b + c for row in rows for a, b, c in zip(row, row[1:], row[2:], strict=False)]
    assert counts.tolist() == [float(found.count(kmer)) for kmer in range(64)]


def test_they_are_fields_of_the_training_loop():
    data = windows(9, 16)
    whole = SequenceField(INNER["spherical"], data, ALIKE)
    for field in (CropField(LETTERS, data, ALIKE, 4), KmerField(LETTERS, data, None, 4), whole):
        assert isinstance(field, Field)
        assert field.manifold.point_ndim == 2


@pytest.mark.parametrize("width", [0, 1, 13])
@pytest.mark.parametrize("kind", [CropField, KmerField])
def test_crops_that_do_not_fit_are_refused(kind, width):
    with pytest.raises(ValueError, match=f"2 to 12 base pairs, got {width}"):
        kind(LETTERS, windows(3, 12), None, width)


def test_kmers_that_no_table_holds_are_refused():
    assert LONGEST_KMER == 10
    with pytest.raises(ValueError, match="2 to 10 base pairs, got 11"):
        KmerField(LETTERS, windows(3, 12), None, 11)


class Largest(TorchDispatchMode):
    """Bytes of the largest array that is made."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for array in tree_leaves(made):
            if isinstance(array, Tensor):
                self.size = max(self.size, array.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("decoding", ["argmax", "sampled"])
def test_memory_is_linear_in_the_batch(decoding, monkeypatch):
    """Each of 32 samples of 1,024 bases has 255 crops: weights of all pairs would take 33 MB."""
    monkeypatch.setattr("drift_promoter.crop_field._PAIRS", 2**20)
    data, m = windows(50, 1024), 1024
    indices = crop_indices(data, 8)(m, Generator().manual_seed(0))
    field = CropField(LETTERS, data, ALIKE, max_negatives=128, decoding=decoding)
    largest = {}
    for n in (8, 32):
        x, c = soft(n, 1024).float(), signals(n, 1024).float()
        with Largest() as mode:
            field(Batch(x, indices, x, torch.arange(n), condition=c, model_condition=c))
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
    field = KmerField(letters, data.train)
    held_out = kmer_counts(data.test.tokens(torch.arange(len(data.test))), 4)
    random = Generator().manual_seed(0)
    rows = torch.randperm(len(data.train), generator=random)[: 10 * n].view(10, n)
    real = [kmer_correlation(kmer_counts(data.train.tokens(some), 4), held_out) for some in rows]
    h = torch.randn(n, data.train.length, 4, generator=random, requires_grad=True)
    optimizer = torch.optim.Adam([h], lr=0.05)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 2 - 2 * step / steps))
    for step in range(steps):
        x = abs_normalize(h)
        v = field(Batch(x.detach(), torch.empty(0), step=step, progress=step / steps)).field
        optimizer.zero_grad()
        drift_loss(field.manifold, x, v, step_size=0.1).backward()
        optimizer.step()
        falling.step()
    assert kmer_correlation(kmer_counts(decode(abs_normalize(h.detach())), 4), held_out) > sum(real) / len(
        real
    )
