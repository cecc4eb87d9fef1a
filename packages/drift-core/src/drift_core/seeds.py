"""Random generators determined by seed and purpose, not by earlier draws."""

import numpy as np
import torch


def generator_for(seed: int, *key: int) -> torch.Generator:
    """CPU generator determined by (seed, *key): independent streams for every step and purpose."""
    # Not SeedSequence([seed, *key]), which ignores trailing zeros.
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
