"""Fisher-Rao geometry of categorical sequences, and scores against one-hot references."""

from drift_simplex.classes import LetterClasses, class_field
from drift_simplex.codebook import MAX_CODEBOOK_SIZE, Codebook
from drift_simplex.field import CategoricalField
from drift_simplex.geometry import (
    FisherRao,
    abs_normalize,
    decode,
    decode_best,
    onehot_to_sphere,
    sample_tokens,
    to_simplex,
    to_sphere,
)
from drift_simplex.kmers import kmer_effective_sample_size, kmer_scores
from drift_simplex.lengthscale import onehot_lengthscale, spread_lengthscale
from drift_simplex.onehot import (
    onehot_cdist,
    onehot_effective_sample_size,
    onehot_log_kernel,
    onehot_score,
    onehot_scores,
)
from drift_simplex.product import product_score, product_scores
from drift_simplex.windows import window_field

__all__ = [
    "MAX_CODEBOOK_SIZE",
    "CategoricalField",
    "Codebook",
    "FisherRao",
    "LetterClasses",
    "abs_normalize",
    "class_field",
    "decode",
    "decode_best",
    "kmer_effective_sample_size",
    "kmer_scores",
    "onehot_cdist",
    "onehot_effective_sample_size",
    "onehot_lengthscale",
    "onehot_log_kernel",
    "onehot_score",
    "onehot_scores",
    "onehot_to_sphere",
    "product_score",
    "product_scores",
    "sample_tokens",
    "spread_lengthscale",
    "to_simplex",
    "to_sphere",
    "window_field",
]
