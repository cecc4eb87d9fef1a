"""Train and evaluate a one-step generator of a checkerboard or a swiss roll.

uv run apps/train_synthetic.py                  the checkerboard on the sphere, about a minute on a CPU
uv run apps/train_synthetic.py --target swiss-roll --space hyperboloid
uv run apps/train_synthetic.py --direction displacement --geometry euclidean
"""

from drift_core import cli
from drift_synthetic.domain import SyntheticDomain

if __name__ == "__main__":
    cli.train(SyntheticDomain())
