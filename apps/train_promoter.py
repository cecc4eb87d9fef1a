"""Train and evaluate a one-step generator of promoter DNA given the CAGE signal.

uv run apps/train_promoter.py                            synthetic promoters with motifs, a minute on a CPU
uv run apps/train_promoter.py --dataset promoter --data-dir DIR --preset base --batch-size 128
uv run apps/train_promoter.py --tss tiled.tsv --data-dir DIR    another table of start sites in DIR
"""

from drift_core import cli
from drift_promoter.domain import PromoterDomain

if __name__ == "__main__":
    cli.train(PromoterDomain())
