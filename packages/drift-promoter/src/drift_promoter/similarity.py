"""How alike two signals are: the kernel of conditions, and the features that it compares."""

from dataclasses import dataclass

import torch
from drift_core import RadialKernel
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

REACH = 64
"""How many base pairs around a crop the signal is compared."""
_BINS = 32
"""Bins in which the signal of a whole sequence is compared."""
_BIN = 4
"""Base pairs of a bin in which the signal around a crop is compared."""
_FAINT, _SIZE = 0.1, 0.1
"""Size at which a binned signal counts half by its shape, and the weight of the size itself."""


@dataclass(frozen=True)
class Similarity:
    """Kernel of conditions: how alike two signals, or their parts around two crops, are."""

    kernel: RadialKernel
    """Of the distance between their `features`."""

    def log(self, a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> Float[Tensor, "n m"]:
        """Log-similarity of all pairs of features."""
        # In a matrix product equal features are about 1e-3 apart, below any sensible lengthscale.
        return self.kernel.log(torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist"))


def whole_features(signal: Float[Tensor, "n L tracks"]) -> Float[Tensor, "n f"]:
    """`features` of whole signals in 32 bins."""
    tracks = rearrange(signal, "n l t -> n t l")
    return features(F.adaptive_avg_pool1d(tracks, min(_BINS, signal.shape[1])).flatten(1))


def local_features(signal: Float[Tensor, "n l tracks"]) -> Float[Tensor, "n f"]:
    """`features` of the signal around crops, in bins of four base pairs."""
    tracks = rearrange(signal, "n l t -> n t l")
    return features(F.avg_pool1d(tracks, _BIN, ceil_mode=True).flatten(1))


def features(binned: Float[Tensor, "n b"]) -> Float[Tensor, "n f"]:
    """The shape of a binned signal, a vector of length 1 (or less, if it is faint), and a little of its size.

    Motifs have a place and peaks have heights of all sizes: without the division, two heights would differ
    more than two positions.
    """
    size = binned.norm(dim=1, keepdim=True)
    return torch.cat([binned / (size + _FAINT), _SIZE * size], dim=1)
