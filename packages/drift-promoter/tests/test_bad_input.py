"""Input that cannot be used is named, and leaves no store behind."""

import gzip

import numpy as np
import pytest
from drift_promoter.data import load
from drift_promoter.genome.benchmark import BLACKLISTS, CAGE, FASTA, TSS

HEADER = "chr\tTSS\tstrand\n"


def refused(data, cache, message):
    with pytest.raises(ValueError, match=message):
        load("promoter", data_dir=data, workers=1)
    assert not list(cache.glob("windows-*"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "no column chr or TSS or strand; the first line must name"),
        ("chr\tstart\tstrand\nchr1\t1000\t+\n", "no column TSS; the first line must name"),
        ("chr TSS strand\nchr1 1000 +\n", "no column chr or TSS or strand"),
        (HEADER, "the table has no row"),
        (HEADER + "\n  \n", "the table has no row"),
        (HEADER + "chr1\t1000\t+\nchr1\t1000\n", r"line 3: 2 columns"),
        (HEADER + "chr1\t1000\t+\n\nchr1\t-3\t+\n", r"line 4: the TSS '-3' is not a whole number from 0"),
        (HEADER + "chr1\t10.5\t+\n", r"line 2: the TSS '10\.5' is not"),
        (HEADER + "chr1\t1e3\t+\n", r"line 2: the TSS '1e3' is not"),
        (HEADER + "chr1\t\t+\n", r"line 2: the TSS '' is not"),
        (HEADER + "chr1\t9999999999999999999999\t+\n", r"line 2: the TSS '9+' is not"),
        (HEADER + "chr1\t1000\t.\n", r"line 2: the strand '\.' is neither \+ nor -"),
        (
            HEADER + "chr1\t1000\t+\nchr1\t3000\t-\n",
            r"line 3: the TSS 3000 is beyond chr1, which has 3000 bases in",
        ),
        (HEADER + "chr1\t1000\t+\nchr7\t1000\t-\n", rf"{FASTA}: no chromosome 'chr7', which .*line 3 names"),
        (HEADER + "\t1000\t+\n", rf"{FASTA}: no chromosome ''"),
        (HEADER + "chr1\t1000\t+\n", r"no window to test on \(chromosomes 8 and 9\)"),
        (HEADER + "chr8\t1000\t+\nchr10\t1000\t-\n", r"no window to train on"),
        (HEADER + "chr1\t10\t+\nchr8\t1000\t-\n", r"no window to train on .*; 1 windows were left out"),
    ],
)
def test_tables(small, empty_cache, table, message):
    data = small().write()
    (data / TSS).write_text(table)
    refused(data, empty_cache, message)
    refused(data, empty_cache, rf"{TSS}")


def test_a_table_that_is_not_text(small, empty_cache):
    data = small().write()
    (data / TSS).write_bytes(gzip.compress(b"chr\tTSS\tstrand"))
    refused(data, empty_cache, rf"{TSS}: not a table: its text is not UTF-8")


def test_a_table_with_windows_line_ends_and_a_byte_order_mark_is_read(small, empty_cache):
    data = small().write()
    (data / TSS).write_bytes(b"\xef\xbb\xbfstrand\tTSS\tchr\tx\r\n+\t1000\tchr1\t\r\n-\t1000\t8\t\r\n")
    loaded = load("promoter", data_dir=data, workers=1)
    assert (loaded.train.strand, loaded.test.chrom, len(loaded.val)) == (["+"], ("8",), 0)


@pytest.mark.parametrize("track", CAGE)
def test_a_chromosome_that_a_bigwig_lacks(small, empty_cache, track):
    genome = small()
    data = genome.write()
    del genome.letters["9"], genome.values["9"]
    genome.folder = data.parent / "other"
    (data / track).write_bytes((genome.write() / track).read_bytes())
    refused(data, empty_cache, rf"{track}: no chromosome 'chr9', which .*{TSS}, line \d+ names")


def test_a_start_site_beyond_the_chromosome_of_a_bigwig(small, empty_cache):
    genome = small()
    data = genome.write()
    genome.letters = {c: text[:1000] for c, text in genome.letters.items()}
    genome.values = {c: values[:1000] for c, values in genome.values.items()}
    genome.folder = data.parent / "other"
    (data / CAGE[0]).write_bytes((genome.write() / CAGE[0]).read_bytes())
    refused(
        data,
        empty_cache,
        rf"{TSS}, line \d+: the TSS \d+ is beyond chr1, which has 1000 bases in .*{CAGE[0]}",
    )


@pytest.mark.parametrize("track", CAGE)
def test_every_truncation_of_a_bigwig(small, empty_cache, track):
    data = small().write()
    whole = (data / track).read_bytes()
    for size in (0, 3, 4, 63, 64, 100, 300, 1000, *range(2000, len(whole), 5000), len(whole) - 1):
        (data / track).write_bytes(whole[:size])
        refused(data, empty_cache, rf"{track}: (a truncated|not a) bigWig file")


def test_a_bigwig_that_is_damaged_inside(small, empty_cache, monkeypatch):
    monkeypatch.setattr("drift_promoter.genome.extract.BLOCK", 10)
    data = small().write()
    content = bytearray((data / CAGE[1]).read_bytes())
    middle = len(content) // 4
    content[middle : middle + 400] = bytes(400)
    (data / CAGE[1]).write_bytes(content)
    refused(data, empty_cache, rf"{CAGE[1]}: damaged at chr\d+:\d+-\d+")


@pytest.mark.parametrize("value", [-1.0, -7.0, np.inf, -np.inf])
def test_a_signal_without_a_logarithm(small, empty_cache, value):
    genome = small()
    genome.values["8"][1200] = value
    refused(
        genome.write(),
        empty_cache,
        rf"{CAGE[0]}: at chr8:\d+-\d+ is a value that is infinite or not above -1",
    )


@pytest.mark.parametrize("name", BLACKLISTS)
def test_blacklists(small, empty_cache, name):
    genome = small()
    genome.blacklists = {"plus": [("1", 0, 10)] * 500, "minus": [("8", 0, 10)] * 500}
    path = genome.write() / name
    whole = path.read_bytes()
    for size in (0, 5, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(genome.folder, empty_cache, rf"{name}: a truncated or damaged gzip file")
    path.write_bytes(b"chr1\t0\t10\n")
    refused(genome.folder, empty_cache, rf"{name}: not a gzip file")
    for line, why in {
        "chr1\t0": "is not chromosome, start, end",
        "chr1\tx\t10": "is not chromosome, start, end",
        "chr1\t10\t5": "is not an interval",
        "chr1\t-1\t5": "is not an interval",
        "chr1\t1\t99999999999999999999": "is not an interval",
    }.items():
        path.write_bytes(gzip.compress(f"# a comment\nchr1\t0\t10\n{line}\n".encode()))
        refused(genome.folder, empty_cache, rf"{name}, line 3: .*{why}")
    path.write_bytes(gzip.compress(b"\xff\xfe"))
    refused(genome.folder, empty_cache, rf"{name}: not a BED file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not contain a valid sequence"),
        (b"ACGT\n", "text before the first sequence"),
        (b">1\nACGT\nAC\nACGT\n>8\nACGT\n", "Line length of fasta file is not consistent"),
        (b">1\nACGT\n>1\nACGT\n", "Duplicate key"),
        (b">1\n\xff\xfe\n", "codec can't decode"),
        (b">5\nACGT\n", "no chromosome 'chr1', which .*line 2 names"),
        (b">1\nACGT\n", r"line \d+: the TSS \d+ is beyond chr1, which has 4 bases in"),
    ],
)
def test_fasta_files(small, empty_cache, content, message):
    data = small().write()
    (data / FASTA).write_bytes(content)
    refused(data, empty_cache, message)
    refused(data, empty_cache, FASTA.replace(".", r"\."))


def test_an_unknown_name():
    with pytest.raises(ValueError, match="no data set 'dna'; there are toy, promoter"):
        load("dna")
