"""Sample from a trained generator: sample.py RUN --n 10000 --seed 0 --out samples.csv."""

from domains import DOMAINS
from drift_core import cli

if __name__ == "__main__":
    cli.sample(DOMAINS)
