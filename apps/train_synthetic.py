"""Train and evaluate a one-step generator of a density on a plane, sphere, torus, mesh, ...

uv run apps/train_synthetic.py                  the checkerboard on the sphere, about a minute on a CPU
uv run apps/train_synthetic.py --target swiss-roll --space hyperboloid
uv run apps/train_synthetic.py --space torus    also so3, product (sphere and plane), mesh
uv run apps/train_synthetic.py --space so3 --data quaternions.csv
uv run apps/train_synthetic.py --direction displacement --geometry euclidean
"""

from drift_core import cli
from drift_synthetic.domain import SyntheticDomain

if __name__ == "__main__":
    cli.train(SyntheticDomain())
