"""Densities on the plane, the sphere and other spaces: exact samplers, or points of a file."""

from drift_synthetic.chart import ChartSpace
from drift_synthetic.data import (
    Checkerboard,
    FileProblem,
    Problem,
    SwissRoll,
    TargetProblem,
    make_problem,
    read_problem,
)
from drift_synthetic.model import SyntheticGenerator
from drift_synthetic.space import AmbientSpace, Space
from drift_synthetic.spaces import SPACES, find_space

__all__ = [
    "SPACES",
    "AmbientSpace",
    "ChartSpace",
    "Checkerboard",
    "FileProblem",
    "Problem",
    "Space",
    "SwissRoll",
    "SyntheticGenerator",
    "TargetProblem",
    "find_space",
    "make_problem",
    "read_problem",
]
