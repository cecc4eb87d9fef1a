"""QM9 molecules as SMILES: data, generator and metrics."""
