"""The drift field of short windows of sequences, each at its position."""

from functools import partial

import torch
from drift_core import Field, PullbackField, SumField
from torch import Tensor


def window_field(field: Field, length: int, width: int) -> SumField:
    """Field whose drift at each position is the mean over the windows that cover it.

    Each window is a pullback of `field` along a slice of samples [n, length, K] and of tokens [m, length];
    their drifts are divided by the number of windows that cover a position.

    Long sequences are far apart: hardly any data point is near a sample, and the nearest attract wrong
    positions as much as right ones. Windows of a few tokens recur, and an error in one does not affect the
    others.

    Args:
        field: the drift field of one window, on tokens.
        length: positions L of a sequence.
        width: positions of a window, at least 2.

    Raises:
        ValueError: width < 2.
    """
    if width < 2:
        raise ValueError(f"windows must have at least 2 positions, got {width}")
    slices = window_slices(length, width)
    cover = torch.zeros(length, 1)
    for window in slices:
        cover[window] += 1
    fields = [
        PullbackField(partial(_crop, window), field, field.manifold, adjoint=partial(_extend, window))
        for window in slices
    ]
    return SumField(fields, [1 / cover] * len(fields))


def window_slices(length: int, width: int) -> list[slice]:
    """Slices of the windows of a sequence.

    They start every half of their width, so that every two adjacent positions share a window. The last one
    ends where the sequence ends.
    """
    width = min(width, length)
    starts = [*range(0, length - width, max(1, width // 2)), length - width]
    return [slice(start, start + width) for start in starts]


def _crop(window: slice, x: Tensor) -> Tensor:
    return x[:, window].contiguous()


def _extend(window: slice, x: Tensor, vector: Tensor) -> Tensor:
    """The adjoint of `_crop`: zero outside of the window."""
    whole = torch.zeros_like(x)
    whole[:, window] = vector
    return whole
