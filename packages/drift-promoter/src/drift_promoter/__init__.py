"""Promoter DNA: data, generator, drift fields and metrics; the figures are in `drift_promoter.figures`."""

from drift_promoter.bases import VOCABULARY, decode, encode, reverse_complement
from drift_promoter.clusters import ConditionClusters, fit_clusters
from drift_promoter.crop_field import CropField
from drift_promoter.crops import Crops, crop_indices, signal_sampler
from drift_promoter.data import DATASETS, Promoters, Windows, load
from drift_promoter.evaluate import evaluate
from drift_promoter.fasta import write_fasta
from drift_promoter.field import SequenceField
from drift_promoter.genome.benchmark import find_sources
from drift_promoter.kmer_field import KmerField
from drift_promoter.metrics import Conditioning, cpg_ratio, gc_content, kmer_correlation, kmer_counts
from drift_promoter.model import PRESETS, PromoterGenerator
from drift_promoter.similarity import Similarity
from drift_promoter.toy import placed

__all__ = [
    "DATASETS",
    "PRESETS",
    "VOCABULARY",
    "ConditionClusters",
    "Conditioning",
    "CropField",
    "Crops",
    "KmerField",
    "PromoterGenerator",
    "Promoters",
    "SequenceField",
    "Similarity",
    "Windows",
    "cpg_ratio",
    "crop_indices",
    "decode",
    "encode",
    "evaluate",
    "find_sources",
    "fit_clusters",
    "gc_content",
    "kmer_correlation",
    "kmer_counts",
    "load",
    "placed",
    "reverse_complement",
    "signal_sampler",
    "write_fasta",
]
