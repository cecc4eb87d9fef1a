"""Sample from a trained generator: sample.py RUN --n 10000 --seed 0 --out samples.csv."""

from drift_core import cli
from drift_core.runs.installed import installed_domains

if __name__ == "__main__":
    cli.sample(installed_domains())
