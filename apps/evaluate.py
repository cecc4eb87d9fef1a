"""Evaluate a trained generator: evaluate.py RUN --draws 100."""

from domains import DOMAINS
from drift_core import cli

if __name__ == "__main__":
    cli.evaluate(DOMAINS)
