"""Train a one-step generator of molecules, written as SMILES, score it and draw it.

uv run apps/train_qm9.py                                a complete toy world, about a minute on a CPU
uv run apps/train_qm9.py --dataset qm9 --data-dir DIR
uv run apps/train_qm9.py --data FILE.smi                SMILES, one a line
"""

from drift_core import cli
from drift_qm9.domain import MoleculeDomain

if __name__ == "__main__":
    cli.train(MoleculeDomain())
