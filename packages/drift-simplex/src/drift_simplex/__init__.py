"""Fisher-Rao geometry of categorical sequences, and scores against one-hot references."""

from drift_simplex.codebook import MOST_CODES, Codebook
from drift_simplex.field import CategoricalField
from drift_simplex.geometry import (
    FisherRao,
    decode,
    draw_letters,
    fold,
    onehot_to_sphere,
    to_simplex,
    to_sphere,
)
from drift_simplex.lengthscale import onehot_lengthscale, spread_lengthscale
from drift_simplex.onehot import (
    onehot_cdist,
    onehot_effective_sample_size,
    onehot_log_kernel,
    onehot_score,
    onehot_scores,
)
from drift_simplex.product import product_score, product_scores
from drift_simplex.strings import StringGenerator, random_strings, support_metrics
from drift_simplex.windows import WindowField
from drift_simplex.words import word_effective_sample_size, word_scores

__all__ = [
    "MOST_CODES",
    "CategoricalField",
    "Codebook",
    "FisherRao",
    "StringGenerator",
    "WindowField",
    "decode",
    "draw_letters",
    "fold",
    "onehot_cdist",
    "onehot_effective_sample_size",
    "onehot_lengthscale",
    "onehot_log_kernel",
    "onehot_score",
    "onehot_scores",
    "onehot_to_sphere",
    "product_score",
    "product_scores",
    "random_strings",
    "spread_lengthscale",
    "support_metrics",
    "to_simplex",
    "to_sphere",
    "word_effective_sample_size",
    "word_scores",
]
