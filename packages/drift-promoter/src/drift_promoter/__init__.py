"""Promoter DNA: data, generator, drift fields and metrics; the figures are in `drift_promoter.figures`."""

from drift_promoter.bases import LETTERS, decode, encode, reverse_complement
from drift_promoter.data import DATASETS, Promoters, Windows, load
from drift_promoter.evaluate import evaluate
from drift_promoter.fasta import write_fasta
from drift_promoter.field import WholeField
from drift_promoter.genome.benchmark import find_sources
from drift_promoter.metrics import Conditioning, cpg_ratio, gc_content, kmer_correlation, kmer_counts
from drift_promoter.model import PRESETS, PromoterGenerator
from drift_promoter.places import draw_places, draw_signals
from drift_promoter.similarity import Similarity
from drift_promoter.stretches import StretchField
from drift_promoter.toy import placed

__all__ = [
    "DATASETS",
    "LETTERS",
    "PRESETS",
    "Conditioning",
    "PromoterGenerator",
    "Promoters",
    "Similarity",
    "StretchField",
    "WholeField",
    "Windows",
    "cpg_ratio",
    "decode",
    "draw_places",
    "draw_signals",
    "encode",
    "evaluate",
    "find_sources",
    "gc_content",
    "kmer_correlation",
    "kmer_counts",
    "load",
    "placed",
    "reverse_complement",
    "write_fasta",
]
