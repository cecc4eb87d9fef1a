"""Evaluate a trained generator: evaluate.py RUN --draws 100."""

from drift_core import cli
from drift_core.runs.installed import installed_domains

if __name__ == "__main__":
    cli.evaluate(installed_domains())
