"""Windows hold the bases and the signal that are in the files."""

from contextlib import closing

import numpy as np
import pyBigWig
import pysam
import pytest
import torch
from drift_promoter.bases import decode
from drift_promoter.data import load
from drift_promoter.genome.benchmark import find_sources
from drift_promoter.genome.cage import Cage
from drift_promoter.genome.extract import cut
from drift_promoter.genome.sequence import Genome, index_fasta
from drift_promoter.genome.table import read_table

FLOAT16 = 2**-11
"""Relative rounding error of the stored signal."""


def cut_all(folder):
    sources = find_sources(folder)
    index_fasta(sources.fasta, folder.parent / "x.fai")
    with closing(Genome(sources.fasta, folder.parent / "x.fai")) as genome:
        return cut(genome, Cage.of(sources), read_table(sources.tss))


@pytest.mark.parametrize(
    ("fasta", "bigwig", "table", "bed"),
    [("", "chr", "chr", "chr"), ("chr", "", "", ""), ("chr", "chr", "", "chr"), ("", "", "chr", "")],
)
def test_a_small_genome_in_all_styles_of_names(small, empty_cache, fasta, bigwig, table, bed):
    genome = small()
    genome.blacklists["plus"] = [("1", 600, 700), ("8", 0, 1000), ("10", 1500, 1600), ("1", 650, 900)]
    genome.blacklists["minus"] = [("9", 1000, 2300), ("1", 1200, 1201), ("22", 0, 10)]
    data = load("promoter", data_dir=genome.write(fasta, bigwig, table, bed), workers=1)
    chroms = {"train": {"1", "2"}, "val": {"10"}, "test": {"8", "9"}}
    for name, held in chroms.items():
        windows = getattr(data, name)
        sites = [site for site in genome.sites if site[0] in held]
        rows = torch.arange(len(windows))
        expected = [genome.expected(*site) for site in sites]
        assert [decode(tokens) for tokens in windows.tokens(rows)] == [text for text, _ in expected]
        signal = np.array([signal for _, signal in expected])
        np.testing.assert_allclose(windows.signals(rows).numpy(), signal, rtol=FLOAT16)
        assert windows.chrom == tuple(f"{table}{c}" for c, _, _ in sites)
        assert (windows.tss.tolist(), list(windows.strand)) == (
            [tss for _, tss, _ in sites],
            [strand for _, _, strand in sites],
        )
    assert (data.skipped, data.motifs) == (0, False)


def test_shifts_move_the_window_in_the_direction_of_the_genome(small, empty_cache):
    genome = small()
    windows = load("promoter", data_dir=genome.write(), workers=1).train
    sites = [site for site in genome.sites if site[0] in "12"]
    rows = torch.arange(len(sites)).repeat_interleave(21)
    shift = torch.arange(-10, 11).repeat(len(sites))
    tokens, signals = windows.tokens(rows, shift), windows.signals(rows, shift)
    for i, (row, by) in enumerate(zip(rows.tolist(), shift.tolist(), strict=True)):
        text, signal = genome.expected(*sites[row], by)
        assert decode(tokens[i]) == text
        np.testing.assert_allclose(signals[i].numpy(), signal, rtol=FLOAT16)
    assert torch.equal(windows.tokens(rows[:3], 7), windows.tokens(rows[:3], torch.tensor([7, 7, 7])))
    for large in (11, torch.full((len(rows),), -11)):
        with pytest.raises(ValueError, match="within -10 and 10"):
            windows.tokens(rows, large)


def test_one_track_is_that_of_the_same_strand(small, empty_cache):
    folder = small().write()
    both, one = (load("promoter", data_dir=folder, workers=1, tracks=tracks) for tracks in (2, 1))
    for name in ("train", "val", "test"):
        rows = torch.arange(len(getattr(both, name)))
        for shift in (0, -7):
            expected, found = (getattr(data, name).signals(rows, shift) for data in (both, one))
            assert found.shape == (len(rows), 1024, 1)
            assert torch.equal(found, expected[..., :1])
    assert {"+", "-"} <= set(one.train.strand)
    for tracks in (0, 3):
        with pytest.raises(ValueError, match=f"tracks must be 1 or 2, got {tracks}"):
            load("toy", tracks=tracks)


def test_windows_beyond_the_ends_and_with_n_are_cut_but_not_loaded(small, empty_cache):
    near = [0, 1, 510, 511, 512, 521, 522, 523, 2399 - 523, 2399 - 522, 2399 - 521, 2399 - 511, 2399]
    sites = [("1", tss, strand) for tss in near for strand in "+-"] + [("8", 1200, "+")]
    genome = small(sites, {"1": 2400, "8": 2400, "3": 300, "4": 3000})
    genome.letters["4"] = genome.letters["4"][:1000] + "NnRy" + genome.letters["4"][1004:]
    genome.sites += [("3", tss, strand) for tss in (0, 150, 299) for strand in "+-"]
    genome.sites += [("4", tss, strand) for tss in range(470, 1540, 12) for strand in "+-"]
    bases, signal = cut_all(genome.write())
    whole = []
    for row, site in enumerate(genome.sites):
        text, values = genome.expected(*site)
        known = "".join(letter if letter in "ACGT" else "N" for letter in text)
        assert decode(bases[row, 10:-10]) == known, site
        np.testing.assert_allclose(signal[row, 10:-10], values, rtol=FLOAT16)
        edges = genome.expected(*site, -10)[0] + genome.expected(*site, 10)[0]
        whole.append(set(edges) <= set("ACGT"))
    data = load("promoter", data_dir=genome.folder, workers=1)
    assert 10 < sum(whole) < len(whole) - 10
    assert data.skipped == whole.count(False)
    assert len(data.train) + len(data.test) == sum(whole)
    kept = [site for site, good in zip(genome.sites, whole, strict=True) if good and site[0] != "8"]
    assert list(zip(data.train.chrom, data.train.tss.tolist(), data.train.strand, strict=True)) == [
        (f"chr{c}", tss, strand) for c, tss, strand in kept
    ]
    assert data.train.tokens(torch.arange(len(data.train)), 10).max() == 3


def test_what_is_far_apart_and_out_of_order_is_cut_alike(small, empty_cache):
    rng = np.random.default_rng(1)
    lengths = {"1": 40_000, "2": 30_000, "8": 2000}
    sites = [
        (c, int(rng.integers(522, lengths[c] - 523)), str(rng.choice(["+", "-"])))
        for c in rng.choice(["1", "2"], 60)
    ]
    genome = small([(str(c), tss, s) for c, tss, s in sites] + [("8", 1000, "-")], lengths)
    bases, signal = cut_all(genome.write())
    windows = load("promoter", data_dir=genome.folder, workers=1).train
    assert np.array_equal(windows.bases, bases[:-1])
    assert np.array_equal(windows.signal, signal[:-1])
    for row in range(0, 60, 6):
        text, values = genome.expected(*genome.sites[row])
        assert decode(bases[row, 10:-10]) == text
        np.testing.assert_allclose(signal[row, 10:-10], values, rtol=FLOAT16)


def test_names_say_where_a_window_is(small, empty_cache):
    genome = small([("1", 1512, "+"), ("1", 1512, "-"), ("8", 1000, "+")])
    train = load("promoter", data_dir=genome.write(), workers=1).train
    assert train.names(torch.tensor([1, 0])) == ["chr1:1001-2025(-)", "chr1:1000-2024(+)"]
    low, high = 1001, 2025
    letters = genome.letters["1"][low:high].upper()[::-1].translate(str.maketrans("ACGT", "TGCA"))
    assert decode(train.tokens(torch.tensor([1]))[0]) == letters


def test_only_the_first_100_000_rows_are_used(small):
    genome = small([("1", 1000, "+")] * 100_001)
    table = read_table(genome.write() / "FANTOM_CAT.lv3_robust.tss.sortedby_fantomcage.hg38.v4.tsv")
    assert len(table) == 100_000


def test_split_of_the_miniature(tiled, mini):
    assert tuple(map(len, (tiled.train, tiled.val, tiled.test))) == (57_456, 3_024, 5_040)
    assert tiled.skipped == 0
    assert set(tiled.test.chrom) == {"chr8", "chr9"}
    assert set(tiled.val.chrom) == {"chr10"}
    assert not set(tiled.train.chrom) & {"chr8", "chr9", "chr10"}
    small = load("promoter", data_dir=mini, workers=1)
    assert tuple(map(len, (small.train, small.val, small.test))) == (181, 0, 12)


def test_the_miniature_against_pysam_and_pybigwig(tiled, mini, generator, tmp_path):
    fasta = tmp_path / "copy.fa"  # pysam writes its index beside the file
    fasta.symlink_to(mini / "Homo_sapiens.GRCh38.dna.primary_assembly.fa")
    tracks = [pyBigWig.open(str(mini / f"agg.{strand}.bw.bedgraph.bw")) for strand in ("plus", "minus")]
    with pysam.FastaFile(str(fasta)) as genome:
        for windows in (tiled.train, tiled.val, tiled.test):
            rows = torch.randint(len(windows), (100,), generator=generator)
            shift = torch.randint(-10, 11, (100,), generator=generator)
            tokens, signals = windows.tokens(rows, shift), windows.signals(rows, shift)
            for i, row in enumerate(rows.tolist()):
                chrom, minus = windows.chrom[row], windows.strand[row] == "-"
                start = int(windows.tss[row]) - 512 + minus + int(shift[i])
                text = genome.fetch(chrom.removeprefix("chr"), start, start + 1024)
                values = np.array([track.values(chrom, start, start + 1024) for track in tracks])
                signal = np.log10(1 + np.where(np.isnan(values), 0, values)).T
                if minus:
                    text = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
                    signal = signal[::-1, ::-1]
                assert decode(tokens[i]) == text
                np.testing.assert_allclose(signals[i], signal, rtol=FLOAT16)
    assert tokens.shape == (100, 1024)
    assert signals.shape == (100, 1024, 2)
    assert (tokens.dtype, signals.dtype) == (torch.int64, torch.float32)


def test_the_start_sites_of_the_miniature_have_initiators_and_their_signal_on_track_0(mini):
    """Transcription begins at a purine after a pyrimidine, and the signal is on its own strand."""
    train = load("promoter", data_dir=mini, workers=1).train
    for strand in "+-":
        rows = torch.tensor([row for row, other in enumerate(train.strand) if other == strand])
        tokens, signals = train.tokens(rows), train.signals(rows)
        purine = (tokens == 0) | (tokens == 2)
        assert purine[:, 512].double().mean() > 0.75
        assert purine[:, 511].double().mean() < 0.25
        assert signals[:, 500:524, 0].mean() > 3 * signals[:, 500:524, 1].mean()
