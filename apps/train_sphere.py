"""Train a one-step generator of events on the Earth, score it and draw it.

uv run apps/train_sphere.py                             a generated toy data set, about a minute on a CPU
uv run apps/train_sphere.py --dataset earthquake --data-dir DIR
uv run apps/train_sphere.py --data FILE.csv             latitude and longitude in degrees
"""

from drift_core import cli
from drift_sphere.domain import SphereDomain

if __name__ == "__main__":
    cli.train(SphereDomain())
