import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from drift_promoter.metrics import (
    Conditioning,
    Known,
    base_frequencies,
    bases_tv,
    cpg_ratio,
    distinct,
    gc_content,
    kmer_codes,
    kmer_correlation,
    kmer_counts,
    nearest_hamming,
    wasserstein,
)
from torch import Generator

VOCABULARY = "ACGT"


def tokens_of(*sequences):
    return torch.tensor([[VOCABULARY.index(letter) for letter in sequence] for sequence in sequences])


def random_sequences(n, length, weights=(3, 1, 2, 4), seed=0):
    draw = random.Random(seed)
    return ["".join(draw.choices(VOCABULARY, weights, k=length)) for _ in range(n)]


def counted(sequences, k):
    return Counter(sequence[i : i + k] for sequence in sequences for i in range(len(sequence) - k + 1))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_kmers_are_counted_as_in_strings(k):
    sequences = random_sequences(5000, 12)  # more than are counted at once
    counts = kmer_counts(tokens_of(*sequences), k)
    expected = counted(sequences, k)
    kmers = [""]
    for _ in range(k):
        kmers = [kmer + letter for kmer in kmers for letter in VOCABULARY]
    assert counts.tolist() == [expected[kmer] for kmer in kmers]


def test_codes_are_numbers_in_base_four():
    assert kmer_codes(tokens_of("ACGT", "TTTT"), 3).tolist() == [[6, 27], [63, 63]]
    longest = kmer_codes(tokens_of("T" * 31), 31)
    assert longest.tolist() == [[4**31 - 1]]


@pytest.mark.parametrize(
    ("tokens", "k", "message"),
    [
        (torch.tensor([[0, 4, 1]]), 2, r"tokens must lie in 0\.\.3, got 4"),
        (tokens_of("ACG"), 4, "sequences of 3 bases have no 4-mers"),
        (tokens_of("A" * 40), 32, "no 32-mers"),
        (tokens_of("ACG"), 0, "no 0-mers"),
    ],
)
def test_what_has_no_kmers_is_refused(tokens, k, message):
    with pytest.raises(ValueError, match=message):
        kmer_codes(tokens, k)


def test_correlation_is_over_the_kmers_that_either_side_has():
    first, second = random_sequences(3, 40), random_sequences(4, 50, (1, 4, 2, 2), seed=1)
    a, b = counted(first, 3), counted(second, 3)
    union = sorted({*a, *b})
    assert len(union) < 64
    expected = np.corrcoef([a[kmer] for kmer in union], [b[kmer] for kmer in union])[0, 1]
    counts = [kmer_counts(tokens_of(*side), 3) for side in (first, second)]
    assert kmer_correlation(*counts) == pytest.approx(expected)
    assert kmer_correlation(counts[0], 7 * counts[0]) == pytest.approx(1)


def test_composition_by_hand():
    tokens = tokens_of("AATT", "GGCC", "ACGT", "CGCG", "AAAC")
    assert gc_content(tokens).tolist() == [0, 1, 0.5, 1, 0.25]
    # no G or C; C G / L = 1 but no pair; 1 / (1/4); 2 / (4/4); no G
    assert cpg_ratio(tokens).tolist() == [0, 0, 4, 2, 0]
    frequencies = base_frequencies(tokens)
    assert frequencies[0].tolist() == [3 / 5, 1 / 5, 1 / 5, 0]
    assert frequencies[3].tolist() == [0, 2 / 5, 1 / 5, 2 / 5]


def test_independent_bases_have_a_cpg_ratio_of_one():
    ratios = cpg_ratio(tokens_of(*random_sequences(300, 500)))
    assert ratios.mean() == pytest.approx(1, abs=0.02)


def test_total_variation_of_bases_by_hand():
    a = torch.tensor([[1, 0, 0, 0], [0.5, 0.5, 0, 0]], dtype=torch.float64)
    b = torch.tensor([[0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    assert bases_tv(a, b) == pytest.approx((1 + 0.5) / 2)
    assert bases_tv(a, a) == 0


def test_wasserstein_is_the_mean_distance_of_sorted_samples():
    """Of samples of equal size; samples of other sizes are repeated to a common one."""
    draw = np.random.default_rng(0)
    for n, m in ((30, 30), (20, 30), (7, 5)):
        x, y = draw.normal(size=n).round(1), draw.normal(1, 2, size=m).round(1)  # with ties
        size = math.lcm(n, m)
        expected = np.abs(np.sort(np.repeat(x, size // n)) - np.sort(np.repeat(y, size // m))).mean()
        assert wasserstein(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-12)


def test_distinct_sequences_are_counted():
    assert distinct(tokens_of("ACGT", "ACGA", "ACGT", "ACGT")) == 0.5


def test_copies_are_known_wherever_they_start():
    known = tokens_of(*random_sequences(50, 200))
    fresh = tokens_of(*random_sequences(50, 192, seed=1))
    memory = Known(known)
    assert memory.novelty(fresh) == 1
    assert memory.novelty(known[:, 5:197]) == 0
    half = torch.cat([fresh[:, :96], known[:, 31:127]], dim=1)  # 24 divides 96
    assert memory.novelty(half) == 0.5
    changed = known[:, 5:197].clone()
    changed[:, ::96] = 3 - changed[:, ::96]  # one base of two of eight 24-mers
    assert memory.novelty(changed) == 0.25


def test_the_nearest_known_sequence_is_that_of_brute_force(generator):
    tokens, known = (torch.randint(4, (n, 30), generator=generator) for n in (7, 50))
    tokens[0], tokens[1] = known[3], known[40]
    tokens[1, :6] = (tokens[1, :6] + 1) % 4
    found = nearest_hamming(tokens, known.split(8))
    expected = [
        min(sum(a != b for a, b in zip(x, y, strict=True)) for y in known.tolist()) for x in tokens.tolist()
    ]
    assert found.tolist() == pytest.approx([count / 30 for count in expected])
    assert found[:2].tolist() == pytest.approx([0.0, 0.2])


def follows(signal, generator, strength=1.0):
    """Sequences of 64 letters: C and G are likelier where the same-strand signal is high, on both scales."""
    n, length, _ = signal.shape
    local = signal[..., 0].unflatten(1, (2, -1)).mean(2).repeat_interleave(length // 2, 1)
    share = (0.3 + strength * 0.1 * (local + 0.5 * signal[..., 1].mean(1, keepdim=True))).clamp(0, 1)
    strong = torch.rand(n, length, generator=generator) < share
    either = torch.randint(2, (n, length), generator=generator)
    return torch.where(strong, 1 + either, 3 * either)


def ignores(n, generator):
    """Sequences whose composition depends on the position, very much."""
    share = torch.linspace(0.1, 0.9, 64).expand(n, -1)
    strong = torch.rand(n, 64, generator=generator) < share
    return torch.where(strong, 1, 3)


def signals(n, generator):
    """Signals that are higher in the middle, where positions have their own composition."""
    rise = torch.linspace(0, 1, 64)[None, :, None]
    return rise + torch.rand(n, 2, 2, generator=generator).pow(4).mul(3).repeat_interleave(32, 1)


@pytest.fixture(scope="module")
def conditioning():
    generator = Generator().manual_seed(1)
    held_out, train = signals(4000, generator), signals(8000, generator)
    sides = [(follows(signal, generator), signal) for signal in (held_out, train)]
    return Conditioning(*sides[0], *sides[1])


def mean_score(score, draw, draws=24):
    """Mean of a score over draws, and its standard error."""
    values = torch.tensor([score(*draw(Generator().manual_seed(i))) for i in range(draws)])
    return float(values.mean()), float(values.std()) / draws**0.5


def test_conditioning_of_the_real_law_is_one(conditioning):
    def draw(generator):
        signal = signals(1000, generator)
        return follows(signal, generator), signal

    mean, error = mean_score(conditioning, draw)
    assert error < 0.02
    assert mean == pytest.approx(1, abs=4 * error + 0.02)


@pytest.mark.parametrize("n", [20, 1000])
def test_conditioning_is_zero_on_average_for_what_ignores_the_signal(conditioning, n):
    def draw(generator):
        return ignores(n, generator), signals(n, generator)

    mean, error = mean_score(conditioning, draw, draws=100)
    assert error < 0.6 / n**0.5
    assert abs(mean) < 4 * error


def test_conditioning_of_a_mixture_is_its_share(conditioning):
    def draw(generator):
        signal = signals(1000, generator)
        tokens = ignores(1000, generator)
        tokens[:400] = follows(signal[:400], generator)
        return tokens, signal

    mean, error = mean_score(conditioning, draw)
    assert mean == pytest.approx(0.4, abs=4 * error + 0.01)


def test_conditioning_on_the_signals_of_others_is_zero_and_on_opposite_signals_negative(conditioning):
    generator = Generator().manual_seed(5)
    signal = signals(4000, generator)
    tokens = follows(signal, generator)
    assert conditioning(tokens, signal) > 0.9
    assert abs(conditioning(tokens, signal.roll(1, 0))) < 0.05
    assert conditioning(follows(-signal, generator), signal) < -0.3


def test_conditioning_hardly_depends_on_one_enormous_signal(conditioning):
    generator = Generator().manual_seed(6)
    signal = signals(1000, generator)
    tokens = follows(signal, generator)
    before = conditioning(tokens, signal)
    signal[0] = 1e6
    assert conditioning(tokens, signal) == pytest.approx(before, abs=0.02)


def test_conditioning_without_any_signal_is_not_a_number():
    tokens = tokens_of(*random_sequences(50, 40))
    silent = torch.zeros(50, 40, 2)
    assert math.isnan(Conditioning(tokens, silent, tokens, silent)(tokens, silent))
