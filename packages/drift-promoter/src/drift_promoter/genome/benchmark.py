"""What the benchmark is: its windows, its splits, its files, and where they are."""

import os
from pathlib import Path
from typing import NamedTuple

from drift_core.runs.datasets import DATA_DIR_VARIABLE, cache_folder

LENGTH = 1024
"""Base pairs of a promoter; the start site is at position 512."""

MARGIN = 10
"""Base pairs that are kept on both sides of a promoter, for shifts in training."""

ROWS = 100_000
"""How many rows of a table of start sites are used; tables are sorted by expression."""

SPLITS = ("train", "val", "test")

HELD_OUT = {"8": "test", "9": "test", "10": "val"}
"""The chromosomes that are not trained on."""

FASTA = "Homo_sapiens.GRCh38.dna.primary_assembly.fa"
TSS = "FANTOM_CAT.lv3_robust.tss.sortedby_fantomcage.hg38.v4.tsv"
CAGE = ("agg.plus.bw.bedgraph.bw", "agg.minus.bw.bedgraph.bw")
BLACKLISTS = ("fantom.blacklist8.plus.bed.gz", "fantom.blacklist8.minus.bed.gz")
NAMES = (FASTA, TSS, *CAGE, *BLACKLISTS)
"""The files of the published archive that are used, by the names that they have there."""


class Sources(NamedTuple):
    """Paths of all that windows are made from."""

    fasta: Path
    tss: Path
    plus: Path
    minus: Path
    blacklist_plus: Path
    blacklist_minus: Path


def find_sources(data_dir: str | Path | None = None, tss: str | Path | None = None) -> Sources:
    """The files of the benchmark, with the table `tss` in place of its own if given.

    They are looked for in `data_dir`, else $DRIFT_DATA_DIR, else the user's cache: in that folder, in
    promoter/ in it and in promoter/mini/, the first that holds them. A relative `tss` that does not exist
    is looked for beside them too.

    Raises:
        FileNotFoundError: a file is missing; the message says where it was looked for and how to get it.
    """
    root = Path(data_dir or os.environ.get(DATA_DIR_VARIABLE) or cache_folder("promoter").parent)
    needed = [name for name in NAMES if tss is None or name != TSS]
    folder = _holder([root, root / "promoter", root / "promoter" / "mini"], needed)
    table = folder / TSS if tss is None else _table(Path(tss), folder)
    return Sources(folder / FASTA, table, *(folder / name for name in (*CAGE, *BLACKLISTS)))


def _holder(folders: list[Path], needed: list[str]) -> Path:
    missing = {folder: [name for name in needed if not (folder / name).is_file()] for folder in folders}
    for folder in folders:
        if not missing[folder]:
            return folder
    nearest = min(folders, key=lambda folder: len(missing[folder]))
    if len(missing[nearest]) < len(needed):
        raise FileNotFoundError(f"{nearest} holds no {', no '.join(missing[nearest])}")
    raise FileNotFoundError(
        f"the promoter data are not in {folders[0]}, nor in promoter/ or promoter/mini/ there: "
        f"name their folder by --data-dir or {DATA_DIR_VARIABLE}, "
        f"or download them (10 GB) by `python -m drift_promoter.genome.archive FOLDER`"
    )


def _table(tss: Path, folder: Path) -> Path:
    places = [tss, folder / tss]  # which are the same if `tss` is absolute
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"no table {' or '.join(map(str, dict.fromkeys(places)))}")
