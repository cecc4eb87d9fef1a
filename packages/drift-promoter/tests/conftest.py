import gzip
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pooch
import pyBigWig
import pytest
import torch
from torch import Generator

FASTA = "Homo_sapiens.GRCh38.dna.primary_assembly.fa"
TSS = "FANTOM_CAT.lv3_robust.tss.sortedby_fantomcage.hg38.v4.tsv"
BIGWIG = "agg.{}.bw.bedgraph.bw"
BED = "fantom.blacklist8.{}.bed.gz"


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests share one cache, which is not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooch, "os_cache", lambda project: folder / project)
        yield


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / project)
    return folder / "drift" / "promoter"


@pytest.fixture(scope="session")
def mini() -> Path:
    """The miniature of the benchmark."""
    folder = os.environ.get("DRIFT_DATA_DIR")
    if not folder:
        pytest.skip("DRIFT_DATA_DIR names no data folder")
    return Path(folder) / "promoter" / "mini"


@pytest.fixture(scope="session")
def tiled(own_cache, mini):
    """All windows of the miniature."""
    from drift_promoter.data import load

    return load("promoter", tss="tiled.tsv", data_dir=mini, workers=1)


@pytest.fixture(scope="session")
def toy():
    from drift_promoter.data import load

    return load("toy")


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(0)


@dataclass
class Small:
    """A genome of a few thousand letters, its signal and its start sites, and the files that hold them."""

    folder: Path
    letters: dict[str, str]
    values: dict[str, np.ndarray]
    """Of each chromosome, float32 [length, 2]: plus and minus; NaN where the bigWig has none."""
    sites: list[tuple[str, int, str]]
    blacklists: dict[str, list[tuple[str, int, int]]] = field(
        default_factory=lambda: {"plus": [], "minus": []}
    )

    def write(self, fasta: str = "", bigwig: str = "chr", table: str = "chr", bed: str = "chr") -> Path:
        """Write the files, each with its own prefix for the names of chromosomes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            line
            for chrom, text in self.letters.items()
            for line in (f">{fasta}{chrom} of a test", *(text[i : i + 60] for i in range(0, len(text), 60)))
        ]
        (self.folder / FASTA).write_text("\n".join(lines) + "\n")
        rows = ["cage\tchr\tTSS\tstrand"] + [
            f"1\t{table}{c}\t{tss}\t{strand}" for c, tss, strand in self.sites
        ]
        (self.folder / TSS).write_text("\n".join(rows) + "\n")
        for track, name in enumerate(("plus", "minus")):
            self._write_bigwig(track, self.folder / BIGWIG.format(name), bigwig)
            intervals = "".join(f"{bed}{c}\t{low}\t{high}\n" for c, low, high in self.blacklists[name])
            (self.folder / BED.format(name)).write_bytes(gzip.compress(intervals.encode()))
        return self.folder

    def _write_bigwig(self, track: int, path: Path, prefix: str) -> None:
        file = pyBigWig.open(str(path), "w")
        file.addHeader([(f"{prefix}{chrom}", len(text)) for chrom, text in self.letters.items()])
        for chrom, values in self.values.items():
            at = np.flatnonzero(~np.isnan(values[:, track]))
            names = [f"{prefix}{chrom}"] * len(at)
            ends, found = (at + 1).tolist(), values[at, track].astype(float).tolist()
            file.addEntries(names, at.tolist(), ends=ends, values=found)
        file.close()

    def expected(self, chrom: str, tss: int, strand: str, shift: int = 0) -> tuple[str, np.ndarray]:
        """Letters and log10(1 + x) [1024, 2] of a window, one by one, from what the files are made of."""
        start = tss - 512 + shift + (1 if strand == "-" else 0)
        intervals = [interval for listed in self.blacklists.values() for interval in listed]
        black = {i for name, low, high in intervals if name == chrom for i in range(low, high)}
        letters, signal = [], []
        for i in range(start, start + 1024):
            inside = 0 <= i < len(self.letters[chrom])
            letters.append(self.letters[chrom][i].upper() if inside else "N")
            both = self.values[chrom][i].tolist() if inside and i not in black else [0.0, 0.0]
            signal.append([math.log10(1 + x) if x == x else 0.0 for x in both])
        if strand == "-":
            letters = [letter.translate(str.maketrans("ACGT", "TGCA")) for letter in reversed(letters)]
            signal = [[minus, plus] for plus, minus in reversed(signal)]
        return "".join(letters), np.array(signal)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Small]:
    """Maker of small genomes; `sites` are (chromosome, position, strand), by default 10 of each split."""

    def make(sites: list[tuple[str, int, str]] | None = None, lengths: dict[str, int] | None = None) -> Small:
        rng = np.random.default_rng(0)
        lengths = lengths or {"1": 3000, "2": 2500, "8": 2400, "9": 2300, "10": 2600}
        letters = {c: "".join(rng.choice(list("ACGTacgt"), n)) for c, n in lengths.items()}
        values = {c: rng.lognormal(sigma=2, size=(n, 2)).astype(np.float32) for c, n in lengths.items()}
        for some in values.values():
            some[rng.random(some.shape) < 0.3] = np.nan
        if sites is None:
            sites = [
                (c, int(rng.integers(522, n - 523)), s)
                for c, n in lengths.items()
                for s in "+-"
                for _ in range(5)
            ]
        return Small(tmp_path / "data", letters, values, sites)

    return make
