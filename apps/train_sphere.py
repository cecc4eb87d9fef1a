"""Train and evaluate a one-step generator of events on the Earth.

uv run apps/train_sphere.py                             a synthetic toy data set, about a minute on a CPU
uv run apps/train_sphere.py --dataset earthquake --data-dir DIR
uv run apps/train_sphere.py --data FILE.csv             latitude and longitude in degrees
"""

from drift_core import cli
from drift_sphere.domain import SphereDomain

if __name__ == "__main__":
    cli.train(SphereDomain())
