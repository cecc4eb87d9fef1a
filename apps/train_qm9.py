"""Train and evaluate a one-step generator of molecules, written as SMILES.

uv run apps/train_qm9.py                                a toy set of molecules, about a minute on a CPU
uv run apps/train_qm9.py --dataset qm9 --data-dir DIR
uv run apps/train_qm9.py --data FILE.smi                SMILES, one per line
"""

from drift_core import cli
from drift_qm9.domain import MoleculeDomain

if __name__ == "__main__":
    cli.train(MoleculeDomain())
