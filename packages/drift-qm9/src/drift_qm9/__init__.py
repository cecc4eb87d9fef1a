"""QM9 molecules as SMILES: data, generator, metrics and figures."""

from drift_qm9.chemistry import DESCRIPTORS, Molecule, canonical, molecule
from drift_qm9.data import DATASETS, QM9, Molecules, load, split, tokenise
from drift_qm9.evaluate import evaluate
from drift_qm9.figures import molecules_figure, properties_figure
from drift_qm9.metrics import quality, total_variation, wasserstein
from drift_qm9.model import PRESETS, MoleculeGenerator
from drift_qm9.notation import NOTATIONS, SELFIES, SMILES, Notation
from drift_qm9.smi import read_smi, write_smi
from drift_qm9.tokens import LENGTH, QM9_TOKENS, VOCABULARY, decode, encode, to_smiles, tokenize
from drift_qm9.toy import enumerate_molecules

__all__ = [
    "DATASETS",
    "DESCRIPTORS",
    "LENGTH",
    "NOTATIONS",
    "PRESETS",
    "QM9",
    "QM9_TOKENS",
    "SELFIES",
    "SMILES",
    "VOCABULARY",
    "Molecule",
    "MoleculeGenerator",
    "Molecules",
    "Notation",
    "canonical",
    "decode",
    "encode",
    "enumerate_molecules",
    "evaluate",
    "load",
    "molecule",
    "molecules_figure",
    "properties_figure",
    "quality",
    "read_smi",
    "split",
    "to_smiles",
    "tokenise",
    "tokenize",
    "total_variation",
    "wasserstein",
    "write_smi",
]
